"""The masked autoregressive flow: its size, its mixtures, its samples."""

from __future__ import annotations

import pytest
import torch

from castalia.core.model import build
from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.maf import MAF, MAFConfig
from castalia.models.flows.mixtures import Mixture
from castalia.recipes import maf as recipes
from tests.models.flows.test_layers import stir

TEN = tuple("0123456789")


def count(config: MAFConfig, spec: ImageSpec) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in MAF(config, spec).parameters())


def test_the_sizes_of_the_paper() -> None:
    """A layer of the paper has 784 - 1024 - 2 x 784 with biases, and 10 classes into the hidden layer.

    Ours has the classes into the outputs as well, and one bound on the scale: see the header.
    """
    into = 784 * 1024 + 1024 + 1024 * 2 * 784 + 2 * 784 + 10 * 1024
    assert count(recipes.mnist().config, ImageSpec(1, 28, 28, TEN)) == 5 * (into + 10 * 2 * 784 + 1)
    d, h = 3072, 2048
    layer = d * h + h + h * h + h + h * 2 * d + 2 * d + 10 * h
    assert count(recipes.cifar().config, ImageSpec(3, 32, 32, TEN)) == 10 * (layer + 10 * 2 * d + 1)


def test_mixtures_are_those_of_the_formula() -> None:
    """Density against torch's mixture; the latent is the normal quantile; far out nothing is lost."""
    move, g = Mixture(3), torch.Generator().manual_seed(0)
    h = torch.randn(6, 9 * 2, generator=g, dtype=torch.float64)
    x = torch.tensor([[-40.0, 40.0], [0.0, 1.0], [-3.0, 2.5], [5.0, -5.0], [0.1, 0.2], [11.0, -12.0]]).double()
    eps, log_slope = move(x, h)
    weights, means, stds = (part.movedim(0, -1) for part in move._parts(x, h))
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=weights), torch.distributions.Normal(means, stds)
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(normal.log_prob(eps) + log_slope, theirs.log_prob(x), atol=1e-9, rtol=1e-9)
    inside = (eps.abs() < 6).all(1)
    assert inside.sum() >= 3
    torch.testing.assert_close(normal.cdf(eps)[inside], theirs.cdf(x)[inside], atol=1e-12, rtol=1e-9)
    assert eps.isfinite().all()


def test_gradients_of_mixtures() -> None:
    move, g = Mixture(2), torch.Generator().manual_seed(0)
    x = (3 * torch.randn(4, 2, generator=g, dtype=torch.float64)).requires_grad_(True)
    h = torch.randn(4, 12, generator=g, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, h: move(x, h)[0], (x, h))
    assert torch.autograd.gradcheck(lambda x, h: move(x, h)[1], (x, h))


def test_classes_have_their_own_densities_and_samples() -> None:
    model = build(MAF, MAFConfig(layers=2, widths=(16,), conditional=True), PointsSpec(3, classes=("a", "b")))
    assert isinstance(model, MAF)
    stir(model.double(), width=0.5)
    model = model.float().eval()
    x = torch.randn(4, 3)
    log_p = [model.layers(x, torch.full((4,), label))[1] for label in (0, 1, 2)]
    assert len({tuple(p.tolist()) for p in log_p}) == 3
    torch.testing.assert_close(model.layers(x)[1], log_p[2])  # no label is the null class
    rng = SampleRng(0, range(4))
    drawn = [model.sample(4, {"label": torch.full((4,), label)}, rng=rng).x for label in (0, 1)]
    assert not torch.equal(*drawn)


@pytest.mark.parametrize(
    "wrong", [{"layers": 0}, {"layers": -1}, {"widths": ()}, {"widths": (0,)}, {"components": -1}, {"label_drop": 1.0}]
)
def test_wrong_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        MAFConfig(**wrong)  # type: ignore[arg-type]
