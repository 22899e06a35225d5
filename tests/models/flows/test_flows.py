"""Whole flows: inverses, densities with everything counted, and what they can be asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Model, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.media.points.toys import toy
from castalia.models.flows.base import Flow
from castalia.models.flows.glow import Glow, GlowConfig
from castalia.models.flows.maf import MAF, MAFConfig
from castalia.models.flows.nice import NICE, NICEConfig
from castalia.models.flows.nsf import NSF, NSFConfig
from castalia.models.flows.realnvp import RealNVP, RealNVPConfig
from castalia.models.flows.tarflow import TarFlow, TarFlowConfig
from castalia.models.flows.units import Dequantised, Standardised
from tests.models.flows.test_layers import stir
from tests.tools import Table

PICTURES: dict[str, Callable[[], tuple[type[Model], Any]]] = {
    "nice": lambda: (NICE, NICEConfig(scale="logit", widths=(16,))),
    "nice, gaussian": lambda: (NICE, NICEConfig(scale="gaussian", couplings=3, widths=(16,), prior="gaussian")),
    "realnvp": lambda: (RealNVP, RealNVPConfig(scales=2, width=6, blocks=1)),
    "realnvp, gaussian": lambda: (RealNVP, RealNVPConfig(scale="gaussian", scales=3, width=4, blocks=0)),
    "realnvp, plain": lambda: (RealNVP, RealNVPConfig(scales=1, width=6, blocks=0, normalise=False)),
    "glow": lambda: (Glow, GlowConfig(levels=2, steps=2, width=6, lu=False, least_scale=0.0)),
    "glow, LU": lambda: (Glow, GlowConfig(scale="gaussian", levels=2, steps=2, width=6)),
    "glow, additive": lambda: (Glow, GlowConfig(levels=1, steps=2, width=6, coupling="additive")),
    "glow, tanh": lambda: (Glow, GlowConfig(levels=2, steps=1, width=6, coupling="tanh", hidden=2, hidden_kernel=3)),
    "glow, by class": lambda: (Glow, GlowConfig(levels=2, steps=1, width=6, conditional=True)),
    "maf": lambda: (MAF, MAFConfig(layers=3, widths=(20,))),
    "maf, gaussian": lambda: (MAF, MAFConfig(scale="gaussian", layers=2, widths=(20, 20), normalise=False)),
    "maf, mixtures": lambda: (MAF, MAFConfig(layers=1, widths=(20,), components=3)),
    "maf, by class": lambda: (MAF, MAFConfig(layers=2, widths=(20,), conditional=True)),
    "nsf": lambda: (NSF, NSFConfig(levels=2, steps=2, width=6, blocks=1, bins=4)),
    "nsf, by class": lambda: (NSF, NSFConfig(levels=1, steps=2, width=6, blocks=1, bins=3, conditional=True)),
    "tarflow": lambda: (TarFlow, TarFlowConfig(patch=2, dim=8, head=4, blocks=2, depth=1, noise=0.0)),
    "tarflow, by class": lambda: (
        TarFlow,
        TarFlowConfig(patch=1, dim=8, head=4, blocks=2, depth=1, noise=0.0, conditional=True),
    ),
}

POINTS: dict[str, Callable[[], tuple[type[Model], Any]]] = {
    "nice": lambda: (NICE, NICEConfig(widths=(16,))),
    "realnvp": lambda: (RealNVP, RealNVPConfig(couplings=4, widths=(16,))),
    "glow": lambda: (Glow, GlowConfig(steps=3, widths=(16,))),
    "maf": lambda: (MAF, MAFConfig(layers=3, widths=(16,))),
    "maf, mixtures": lambda: (MAF, MAFConfig(layers=0, widths=(16,), components=4)),
    "nsf": lambda: (NSF, NSFConfig(steps=2, width=16, blocks=1)),
    "nsf, autoregressive": lambda: (NSF, NSFConfig(kind="autoregressive", steps=2, width=16, blocks=1)),
}


def examples(n: int = 64, size: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(0)
    base = torch.rand(n, 1, 1, 1, generator=g) * 120
    return (base + 100 * torch.rand(n, 1, size, size, generator=g)).to(torch.uint8)


def made(cls: type[Model], config: Any, width: float = 0.05, size: int = 4) -> tuple[Flow, Tensor]:
    """A flow of 4x4 pictures that has seen data and then something else, in evaluation mode."""
    x = examples(size=size)
    spec = ImageSpec(1, size, size, tuple("abc"))
    model = build(cls, config, spec)
    assert isinstance(model, Flow)
    model.initialise(Table(x, spec, torch.arange(len(x)) % 3), BatchRng(0, total=1), {})
    model = model.double()
    stir(model, width=width)
    return model.eval(), x


@pytest.mark.parametrize("name", PICTURES)
def test_log_determinant_of_the_whole(name: str) -> None:
    """With dequantisation, units, layers and what leaves at every scale: float64, 1e-10."""
    model, x = made(*PICTURES[name]())
    u = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    units = model.units
    assert isinstance(units, Dequantised)
    label = model.labels.null(1)
    for i in range(2):

        def latents(v: Tensor, i: int = i) -> Tensor:
            return model.layers(units.inward(x[i : i + 1], v)[0], label)[0]

        y, change = units.inward(x[i : i + 1], u[i : i + 1])
        z, log_p = model.layers(y, label)
        jacobian = torch.autograd.functional.jacobian(lambda v: latents(v[None])[0], u[i])
        assert isinstance(jacobian, Tensor)
        true = torch.linalg.slogdet(jacobian.reshape(16, 16))[1]
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
        assert (normal + true - log_p - change).abs().max() < 1e-10


@pytest.mark.parametrize("name", PICTURES)
def test_round_trips(name: str) -> None:
    """Both ways in float64 to 1e-10, in float32 to 1e-4, and pictures exactly."""
    model, x = made(*PICTURES[name]())
    assert isinstance(model.units, Dequantised)
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        model = model.to(dtype)
        model.units.edges = model.units.edges.double()
        u = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        y = model.units.inward(x, u)[0]
        label = model.labels.null(len(x))
        assert (model.layers.inverse(model.layers(y, label)[0], label).view_as(y) - y).abs().max() < limit
        eps = torch.randn(32, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
        label = model.labels.null(32)
        drawn = model.layers.inverse(eps, label)
        assert (model.layers(drawn, label)[0] - eps).abs().max() < limit * drawn.abs().max().clamp(min=1.0)
    assert torch.equal(model.decode(model.encode(Batch.of(x))).x, x)
    assert torch.equal(model.decode(model.encode(Batch.of(x), rng=SampleRng(0, range(len(x))))).x, x)


def test_float32_round_trip_of_many_layers() -> None:
    """A flow as large as those that are trained here, started as they are: 1e-4 in the units of the data."""
    for cls, config in (
        (Glow, GlowConfig(scale="gaussian", levels=2, steps=16, width=32)),
        (RealNVP, RealNVPConfig(scale="logit", scales=3, width=16, blocks=2)),
        (NICE, NICEConfig(widths=(64,) * 3)),
    ):
        x = examples(size=8)
        model = build(cls, config, ImageSpec(1, 8, 8))
        assert isinstance(model, Flow)
        model.initialise(Table(x, ImageSpec(1, 8, 8)), BatchRng(0, total=1), {})
        stir(model.double(), width=0.02)
        model = model.float().eval()
        with torch.no_grad():
            y = model.units.inward(x, torch.full((), 0.5))[0]
            assert (model.layers.inverse(model.layers(y)[0]).view_as(y) - y).abs().max() < 1e-4
            assert torch.equal(model.decode(model.encode(Batch.of(x))).x, x)


@pytest.mark.parametrize("name", POINTS)
def test_the_density_of_the_plane_integrates_to_one(name: str) -> None:
    """Within 1e-3, by the sum over a grid, in the units of the data."""
    cls, config = POINTS[name]()
    data = toy("two-moons", "train")
    model = build(cls, config, data.spec)
    assert isinstance(model, Flow)
    model.initialise(data, BatchRng(0, total=1), {})
    stir(model.double(), width=0.1)
    model = model.float().eval()
    assert isinstance(model.units, Standardised)
    std, mean = model.units.points.std, model.units.points.mean
    line = torch.linspace(-12, 12, 601)
    grid = torch.cartesian_prod(line, line) * std + mean
    total = 0.0
    for part in grid.split(50_000):
        found = model.log_likelihood(Batch.of(part), rng=SampleRng(0, range(len(part))))
        assert found.kind == "exact"
        total += float(found.nats.exp().sum())
    total *= float(std.prod()) * float(line[1] - line[0]) ** 2
    assert total == pytest.approx(1.0, abs=1e-3)
    x = data.x[:200]
    torch.testing.assert_close(model.decode(model.encode(Batch.of(x))).x, x, atol=1e-4, rtol=1e-4)
    assert (model.posterior_kl(Batch.of(x)) == math.inf).all()


@pytest.mark.parametrize("cls", [NICE, RealNVP, Glow])
def test_a_single_coordinate_is_refused(cls: type[Model]) -> None:
    with pytest.raises(UsageError, match="only one"):
        build(cls, cls.Config(), PointsSpec(1))


def test_more_dequantisations_give_a_higher_bound() -> None:
    """In expectation, and no result depends on how many pictures are measured together."""
    model, x = made(*PICTURES["glow"](), width=0.1)
    model = model.float()
    batch, rng = Batch.of(x), SampleRng(0, range(len(x)))
    one, many = (model.log_likelihood(batch, rng=rng, samples=k) for k in (1, 30))
    assert one.kind == many.kind == "bound"
    assert many.nats.mean() > one.nats.mean()
    assert "K = 30" in many.detail
    part = model.log_likelihood(batch[10:12], rng=SampleRng(0, [10, 11]), samples=30)
    torch.testing.assert_close(part.nats, many.nats[10:12], atol=1e-3, rtol=0)


def test_latents_that_noise_decides_say_little() -> None:
    """In Gaussian units without a map, KLs are those of single pixels: known ones are black half of the time."""
    model, x = made(*PICTURES["realnvp, plain"](), width=0.0)
    kl = model.float().posterior_kl(Batch.of(x))
    assert (kl >= 0).all()
    assert kl.isfinite().all()
