"""Preconditioned diffusion: with data_std right, F = 0 is the ideal network of Gaussian data, and all is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.sampling import Preview
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.evaluation.likelihood import measure
from castalia.models.diffusion.edm import EDM, EDMConfig, EDMOptions
from castalia.models.diffusion.samplers import evaluations
from castalia.nn.dequantisation import gaussian_dequantisation
from castalia.nn.unet import UNetConfig
from tests.tools import Table

TINY = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4)
SAMPLERS = ["heun", "edm", "ddpm", "ddim", "euler", "euler-ancestral", "dpm++2m", "dpm++3m", "dpm++2m-sde"]


def gaussian_points(**config: Any) -> tuple[EDM, Tensor]:
    """An untrained model, which is the ideal one of these points; and the points."""
    x = torch.randn(2_000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.2]) + 5.0
    model = build(EDM, EDMConfig(**config), PointsSpec(2))
    assert isinstance(model, EDM)
    model.initialise(Table(x, PointsSpec(2)), BatchRng(0, total=1), {})
    assert model.data_std.item() == pytest.approx(1.0, abs=1e-4)
    return model.eval(), x


def pictures(classes: int = 0, **config: Any) -> EDM:
    """A small model of 8x8 pictures whose weights say something."""
    spec = ImageSpec(1, 8, 8, tuple(map(str, range(classes))))
    model = build(EDM, EDMConfig(unet=TINY, conditional=classes > 0, **config), spec)
    assert isinstance(model, EDM)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel() if p.ndim > 1 else 16))
    return model.eval()


def examples(n: int = 4) -> Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_loss_at_the_start_is_one_whatever_the_level() -> None:
    """Karras et al., appendix B.6: the target of F has variance 1, so that F = 0 has loss 1 (Gaussian data: 2 %)."""
    model, x = gaussian_points()
    batch = Batch(x, torch.arange(len(x)))
    for level in (-5.0, -1.2, 3.0):
        model.config = EDMConfig(noise_mean=level, noise_std=1e-3)
        loss, logs = model.loss(batch, BatchRng(0, total=len(x)), Progress(0, 1))
        assert loss.item() == pytest.approx(1.0, abs=0.05)
        assert logs["mse"].item() == pytest.approx(1 / (1 + math.exp(-2 * level)), rel=0.06)


def test_loss_does_not_depend_on_the_neighbours() -> None:
    model, x = pictures(), examples(32)
    whole, _ = model.loss(Batch(x, torch.arange(32)), BatchRng(3, total=32), Progress(0, 1))
    halves = [
        model.loss(Batch(x[i : i + 16], torch.arange(16)), BatchRng(3, total=32, start=i, rows=16), Progress(0, 1))[0]
        for i in (0, 16)
    ]
    torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("probes", [0, 2])
def test_flow_likelihood_of_gaussian_points(probes: int) -> None:
    """Exact trace; and random signs, exact for a diagonal Jacobian: within 0.01 nat of the density (truncation)."""
    model, x = gaussian_points(probes=probes, flow_steps=50)
    found = model.log_likelihood(Batch.of(x[:50]), rng=SampleRng(0, range(50)))
    true = torch.distributions.Normal(x.double().mean(0), x.double().std(0, correction=0)).log_prob(x[:50].double())
    assert found.kind == "estimate"
    assert ("exact trace" in found.detail) == (probes == 0)
    assert float((found.nats - true.sum(1)).abs().max()) < 0.01


@pytest.mark.parametrize("how", ["gaussian", "uniform"])
def test_likelihood_of_pictures_of_gaussian_noise(how: str) -> None:
    """Pixels that are a rounded N(0, 1/9): the untrained model knows their density, and the sum over bins is exact.

    Its bound lies below their log-probability, by less than 0.01 nat per pixel.
    """
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(400, 1, 8, 8, generator=g) / 3).clamp(-1, 1)
    data = ((x + 1) * 127.5).round().to(torch.uint8)
    model = build(EDM, EDMConfig(unet=TINY, dequantise=how, flow_steps=30), ImageSpec(1, 8, 8))  # type: ignore[arg-type]
    assert isinstance(model, EDM)
    model.initialise(Table(data, model.spec), BatchRng(0, total=1), {})
    found = model.eval().log_likelihood(Batch.of(data[:20]), rng=SampleRng(0, range(20)))
    std = model.data_std.double()
    middle = data[:20].double() / 127.5 - 1
    true = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), std)
    exact = (true.cdf(middle + 1 / 255) - true.cdf(middle - 1 / 255)).log().flatten(1).sum(1)
    gap = (exact - found.nats) / 64
    assert how in found.preprocessing.lower()
    assert -0.01 < float(gap.mean()) < 0.01


def untrained(data: Tensor, **config: Any) -> EDM:
    """As a training begins: completed, built, initialised. F = 0 then is a Gaussian of the data's moments."""
    spec = ImageSpec(1, 8, 8)
    completed = EDM.complete(EDMConfig(unet=TINY, **config), Table(data, spec))
    model = build(EDM, completed, spec)
    assert isinstance(model, EDM)
    model.initialise(Table(data, spec), BatchRng(0, total=1), {})
    return model.eval()


def dark(n: int = 400) -> Tensor:
    """Pictures of mean 4 of 255 with few bright values, far from evenly spaced."""
    g = torch.Generator().manual_seed(0)
    x = (3.9 * torch.empty(n, 1, 8, 8).exponential_(generator=g)).round().clamp(0, 255).to(torch.uint8)
    x[0, 0, 0, :2] = torch.tensor([90, 255], dtype=torch.uint8)
    return x


def test_dark_pictures_are_drawn_dark_and_likely() -> None:
    """The preconditioning works about the mean that the deviation is measured about: before a step of training.

    About 0, which is grey, these started at a loss of thousands, 500 steps drew a mean of 40.8, and 28 bits/dim.
    """
    x = dark()
    model = untrained(x)
    assert model.units.levels == 256  # type: ignore[union-attr]
    middle = float((x.double() / 127.5 - 1).mean())
    assert model.config.data_mean == pytest.approx(middle, abs=1e-5)
    assert float(model.data_std) == pytest.approx(float((x.double() / 127.5 - 1).std()), rel=1e-3)
    batch = Batch(x, torch.arange(len(x)))
    loss, _ = model.loss(batch, BatchRng(0, total=len(x)), Progress(0, 1))
    assert loss.item() == pytest.approx(1.0, abs=0.1)
    drawn = model.sample(200, rng=SampleRng(0, range(200))).x.float()
    assert float(drawn.mean()) == pytest.approx(float(x.float().mean()), abs=0.7)  # values below 0 become 0
    bits = -float(model.log_likelihood(Batch.of(x[1:21]), rng=SampleRng(0, range(20))).nats.mean()) / 64 / math.log(2)
    normal = 0.5 * math.log2(2 * math.pi * math.e * float(x.float().var()))
    assert bits == pytest.approx(normal, abs=0.5)


def test_pictures_that_are_all_alike_are_drawn_and_likely() -> None:
    """65,825 bits/dim once; what is left is what dequantisation costs where there is no doubt, half a nat."""
    x = torch.full((50, 1, 8, 8), 7, dtype=torch.uint8)
    model = untrained(x)
    assert torch.equal(model.sample(4, rng=SampleRng(0, range(4))).x, x[:4])
    nats = -model.log_likelihood(Batch.of(x[:4]), rng=SampleRng(0, range(4))).nats / 64
    assert float(nats.mean()) == pytest.approx(0.6, abs=0.15)


def test_a_given_deviation_is_about_nothing_else() -> None:
    """``data_std`` of the paper has its mean of 0; and a run of before, whose configuration names no mean, keeps it."""
    assert untrained(dark(), data_std=0.5).config.data_mean == 0
    points, _ = gaussian_points()
    assert points.config.data_mean == 0


@pytest.mark.parametrize(("level", "cost"), [(8, 0.505), (0, 0.2525)])
def test_what_dequantisation_costs_where_the_model_knows_the_value(level: int, cost: float) -> None:
    """At 0.4 of the distance: half a nat for an inner value, half of that at the ends, which have one neighbour."""
    gap, z = 2 / 16, torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0 = torch.full_like(z, -1 + level * gap)
    _, change = gaussian_dequantisation(x0, z, 0.4 * gap, 17)
    log_q = -0.5 * z[:, 0] ** 2 - math.log(0.4 * gap) - 0.5 * math.log(2 * math.pi)  # log p(y) of a model that is sure
    assert -float((log_q + change).mean()) == pytest.approx(cost, abs=0.01)


def test_the_likelihood_says_what_its_solver_may_have_cost() -> None:
    """Points of a narrow mixture: 3 steps are off by nats, and the number carries it; 60 are not."""
    coarse, x = gaussian_points(flow_steps=3, probes=0)
    fine, _ = gaussian_points(flow_steps=60, probes=0)
    a, b = (m.log_likelihood(Batch.of(x[:30]), rng=SampleRng(0, range(30))) for m in (coarse, fine))
    off = float((a.nats - b.nats).abs()[:4].max())
    assert off > 0.01
    assert off / 2 < a.error < 2 * off
    assert b.error < 1e-3
    data = Table(x[:30], PointsSpec(2))
    said = measure(coarse, data, np.arange(30))["nll"].kind
    assert f"error of its computation about {a.error:.2g} nat" in said


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_of_gaussian_points(sampler: str) -> None:
    """Mean within 0.1 and deviation within 12 % of the data's: 1,000 samples, 60 steps."""
    model, x = gaussian_points()
    options = EDMOptions(sampler=sampler, steps=60, churn=10.0, inflate=1.0)  # type: ignore[arg-type]
    drawn = model.sample(1_000, rng=SampleRng(0, range(1_000)), options=options).x
    mean, std = x.mean(0), x.std(0)
    assert (((drawn.mean(0) - mean) / std).abs() < 0.1).all()
    assert ((drawn.std(0) / std - 1).abs() < 0.12).all()


@pytest.mark.parametrize("grid", ["karras", "log", "logistic"])
def test_redrawing_and_watching(grid: str) -> None:
    model, x = pictures(), examples()
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 3:] = True
    for sampler in SAMPLERS:
        options = EDMOptions(sampler=sampler, steps=4, grid=grid)  # type: ignore[arg-type]
        for strength in (0.001, 0.5, 1.0):
            seen: list[Preview] = []
            out = model.refine(
                Batch.of(x),
                strength=strength,
                mask=mask,
                rng=SampleRng(0, range(4)),
                options=options,
                watch=seen.append,
            ).x
            assert torch.equal(out[..., :3], x[..., :3])
            assert [(p.step, p.steps) for p in seen] == [(i, 4) for i in range(1, 5)]
    assert torch.equal(model.refine(Batch.of(x), strength=0.0, rng=SampleRng(0, range(4))).x, x)
    fresh = model.refine(Batch.of(x), strength=1.0, rng=SampleRng(0, range(4))).x
    assert torch.equal(fresh, model.sample(4, rng=SampleRng(0, range(4))).x)


def test_default_sampling_is_that_of_the_paper() -> None:
    """18 steps of Heun's method are 35 evaluations, at the levels of eq. 5."""
    model, levels = pictures(), []
    inner = model.network.forward_embedded

    def counted(x: Tensor, embedding: Tensor) -> Tensor:
        levels.append(1)
        return inner(x, embedding)

    model.network.forward_embedded = counted  # type: ignore[method-assign]
    model.sample(1, rng=SampleRng(0, [0]))
    assert len(levels) == evaluations("heun", 18) == 35
    sigmas = model.levels(EDMOptions())
    assert (sigmas[0], sigmas[17], sigmas[18]) == (80.0, 0.002, 0.0)
    assert sigmas[5] == pytest.approx((80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)


def test_labels_guidance_and_latents() -> None:
    model, rng = pictures(classes=3), SampleRng(2, range(3))
    label = torch.tensor([2, 0, 1])
    z = rng.normal("latent", 1, 8, 8).flatten(1)
    assert torch.equal(model.decode(z, {"label": label}).x, model.sample(3, {"label": label}, rng=rng).x)
    strong = model.sample(3, {"label": label}, rng=rng, options=EDMOptions(guidance=4.0)).x
    assert not torch.equal(strong, model.sample(3, {"label": label}, rng=rng).x)
    assert "null class" in model.log_likelihood(Batch.of(examples(2)), rng=SampleRng(0, range(2))).detail
    with pytest.raises(UsageError, match="conditional model"):
        pictures().sample(1, rng=SampleRng(0, [0]), options=EDMOptions(guidance=2.0))


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"sigma_min": 90.0}, {"noise_std": 0.0}, {"label_drop": 1.0}, {"flow_steps": 0}, {"probes": -1}):
        with pytest.raises(ValueError):
            EDMConfig(**wrong)
    for wrong in ({"rho": 0.0}, {"churn": -1.0}, {"steps": 0}, {"eta": 2.0}, {"guidance": -1.0}, {"resample": 0}):
        with pytest.raises(ValueError):
            EDMOptions(**wrong)
