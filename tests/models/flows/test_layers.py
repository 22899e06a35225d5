"""Every layer of a flow: its inverse, and its log-determinant against autograd's Jacobian, in float64 to 1e-10."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from castalia.models.flows.autoregressive import Autoregressive
from castalia.models.flows.conditioners import (
    GlowNet,
    NormedConv,
    Perceptron,
    ResidualMaps,
    ResidualNet,
    ResidualPerceptron,
    WeightNormConv,
)
from castalia.models.flows.couplings import Additive, Checkerboard, Halves, SigmoidAffine, TanhAffine
from castalia.models.flows.layers import ActNorm, BatchNorm, Diagonal, Layer, Mixing, Squeeze
from castalia.models.flows.mixtures import Mixture
from castalia.models.flows.priors import Factor, LearnedNormal, Logistic, StandardNormal
from castalia.models.flows.splines import Spline
from castalia.models.flows.tokens import PatchFlow
from castalia.nn.made import MADE

SHAPES = {"vector": (5,), "picture": (4, 2, 4)}

LAYERS: dict[str, tuple[str, Callable[[], Layer]]] = {
    "actnorm": ("picture", lambda: ActNorm(4)),
    "actnorm of vectors": ("vector", lambda: ActNorm(5)),
    "batchnorm": ("picture", lambda: BatchNorm(4, 2)),
    "batchnorm of vectors": ("vector", lambda: BatchNorm(5, 0)),
    "diagonal": ("vector", lambda: Diagonal(5)),
    "mixing": ("picture", lambda: Mixing(4, lu=False)),
    "mixing, LU": ("picture", lambda: Mixing(4, lu=True)),
    "mixing of vectors": ("vector", lambda: Mixing(5, lu=False)),
    "mixing of vectors, LU": ("vector", lambda: Mixing(5, lu=True)),
    "squeeze": ("picture", lambda: Squeeze(4)),
    "squeeze, diagonal": ("picture", lambda: Squeeze(4, diagonal=True)),
    "additive": ("vector", lambda: Halves(Perceptron(3, (8,), 2), Additive(), interleaved=True)),
    "additive, swapped": ("vector", lambda: Halves(Perceptron(2, (8,), 3), Additive(), swap=True, interleaved=True)),
    "tanh": ("vector", lambda: Halves(Perceptron(3, (8,), 4), TanhAffine(2))),
    "tanh, swapped": ("vector", lambda: Halves(Perceptron(2, (8,), 6), TanhAffine(3), swap=True)),
    "sigmoid": ("picture", lambda: Halves(GlowNet(2, 6, 4), SigmoidAffine())),
    "sigmoid, bounded": ("picture", lambda: Halves(GlowNet(2, 6, 4, hidden=2, kernel=3), SigmoidAffine(1e-3))),
    "residual": ("picture", lambda: Halves(ResidualNet(2, 6, 4, 1), TanhAffine(2), swap=True)),
    "checkerboard": ("picture", lambda: Checkerboard(ResidualNet(4, 6, 8, 1), TanhAffine(4), (2, 4))),
    "checkerboard, swapped": (
        "picture",
        lambda: Checkerboard(ResidualNet(4, 6, 8, 0), TanhAffine(4), (2, 4), swap=True),
    ),
    "spline": ("picture", lambda: Halves(ResidualMaps(2, 6, 2 * 11, 1), Spline(4, 1.5))),
    "spline, bent": ("vector", lambda: Halves(ResidualPerceptron(3, 8, 2 * 11, 1), Spline(4, 1.5), bent=3)),
    "masked": ("vector", lambda: Autoregressive(MADE(5, (8, 9), 2), TanhAffine(1))),
    "masked, backwards": (
        "vector",
        lambda: Autoregressive(MADE(5, (8,), 2, order=range(5, 0, -1), activation="tanh"), TanhAffine(1)),
    ),
    "masked spline": ("vector", lambda: Autoregressive(MADE(5, (9,) * 3, 11, residual=True), Spline(4, 1.5))),
    "masked mixture": ("vector", lambda: Autoregressive(MADE(5, (8, 8), 9), Mixture(3))),
    "masked, by class": ("vector", lambda: Autoregressive(MADE(5, (8,), 2, context=3), TanhAffine(1), 3)),
    "patches": ("picture", lambda: PatchFlow((4, 2, 4), 1, 6, 1, 2, backwards=False)),
    "patches, backwards, by class": ("picture", lambda: PatchFlow((4, 2, 4), 2, 6, 2, 2, backwards=True, classes=3)),
}


def stir(module: nn.Module, seed: int = 0, width: float = 0.3) -> None:
    """Other weights than those that a layer starts with, which say nothing."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(width * torch.randn(p.shape, generator=g, dtype=p.dtype))
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.add_(0.5 * torch.randn(part.running_mean.shape, generator=g, dtype=torch.float64))
                part.running_var.mul_(torch.rand(part.running_var.shape, generator=g, dtype=torch.float64) + 0.5)


def made(name: str) -> tuple[Layer, Tensor]:
    """A layer in float64, and three examples."""
    shape, make = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double().eval()
    stir(layer)
    return layer, torch.randn(3, *SHAPES[shape], generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def log_det(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Log |det dy/dx| of one example by autograd."""
    jacobian = torch.autograd.functional.jacobian(lambda v: function(v[None])[0], x)
    assert isinstance(jacobian, Tensor)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel()))[1]


@pytest.mark.parametrize("name", LAYERS)
def test_inverse_and_log_determinant(name: str) -> None:
    layer, x = made(name)
    y, found = layer(x)
    assert (layer.inverse(y) - x).abs().max() < 1e-10
    true = torch.stack([log_det(lambda v: layer(v)[0], one) for one in x])
    assert (found - true).abs().max() < 1e-10


@pytest.mark.parametrize("name", LAYERS)
def test_layers_do_not_change_their_input(name: str) -> None:
    layer, x = made(name)
    before = x.clone()
    layer.inverse(layer(x)[0])
    assert torch.equal(x, before)


@pytest.mark.parametrize("prior", [StandardNormal(), Logistic(), LearnedNormal(4), LearnedNormal(4, 3)])
def test_priors(prior: nn.Module) -> None:
    """The map to standard normal latents has the density that the prior says, and an inverse."""
    prior = prior.double()
    stir(prior)
    x = torch.randn(3, 4, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    label = torch.tensor([0, 2, 3]) if getattr(prior, "classes", 0) else None
    eps, log_p = prior(x, label)
    assert (prior.inverse(eps, label) - x).abs().max() < 1e-10
    for i in range(3):
        own = None if label is None else label[i : i + 1]
        change = log_det(lambda v, own=own: prior(v, own)[0], x[i])
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(eps[i]).sum()
        assert (normal + change - log_p[i]).abs() < 1e-10


def test_logistic_has_room_in_its_tails() -> None:
    x = torch.tensor([[-500.0, -60.0, 0.0, 60.0, 500.0]])
    eps, log_p = Logistic()(x)
    assert eps.isfinite().all()
    assert log_p.isfinite().all()
    torch.testing.assert_close(Logistic().inverse(eps), x, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("learned", [False, True])
def test_what_leaves(learned: bool) -> None:
    factor = Factor(4, learned=learned).double()
    stir(factor)
    x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kept, eps, log_p = factor(x)
    assert (factor.inverse(kept, eps) - x).abs().max() < 1e-10
    for i in range(3):
        change = log_det(lambda v: torch.cat(factor(v)[:2], 1), x[i])
        assert (torch.distributions.Normal(0.0, 1.0).log_prob(eps[i]).sum() + change - log_p[i]).abs() < 1e-10


def test_batchnorm_in_training() -> None:
    """Statistics of the batch; the log-determinant of each example takes them as they are (Dinh et al., section 3.7)."""
    x = 3 * torch.randn(16, 4, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 5
    layer = BatchNorm(4, 2).double().train()
    y, found = layer(x)
    assert y.mean((0, 2, 3)).abs().max() < 1e-10
    variance = x.var((0, 2, 3), correction=0)
    assert (y.var((0, 2, 3), correction=0) - variance / (variance + 1e-5)).abs().max() < 1e-10
    assert abs(float(found + 6 * 0.5 * torch.log(variance + 1e-5).sum())) < 1e-9
    for _ in range(200):
        layer(x)
    torch.testing.assert_close(layer.eval()(x)[0], y, atol=2e-2, rtol=0)


def test_actnorm_and_its_convolution_are_set_from_the_first_batch() -> None:
    x = 3 * torch.randn(64, 4, 5, 5, generator=torch.Generator().manual_seed(1)) + 5
    layer = ActNorm(4)
    layer.fitting = True
    y = layer(x)[0]
    layer.fitting = False
    conv = NormedConv(4, 7, 3)
    conv.fitting = True
    h = conv(x)
    conv.fitting = False
    for result in (y, h):
        torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(result.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(result.std((0, 2, 3)), torch.ones(result.shape[1]), atol=1e-3, rtol=0)
    assert torch.equal(layer(x)[0], y)
    assert torch.equal(conv(x), h)
    again = ActNorm(4)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(2 * x)[0], layer(2 * x)[0])


def test_weight_norm_is_torchs() -> None:
    own, plain = WeightNormConv(3, 5, 3), nn.Conv2d(3, 5, 3, padding=1)
    stir(own)
    their = torch.nn.utils.parametrizations.weight_norm(plain)
    with torch.no_grad():
        their.bias.copy_(own.bias)
        parts = their.parametrizations.weight
        parts.original0.copy_(own.length.view(-1, 1, 1, 1))
        parts.original1.copy_(own.direction)
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(own(x), their(x), atol=1e-5, rtol=1e-5)


def test_diagonal_squeeze_parts_the_colours_of_a_checkerboard() -> None:
    rows, columns = torch.arange(4)[:, None], torch.arange(6)
    colours = ((rows + columns) % 2).float().expand(1, 3, 4, 6)
    first, second = Squeeze(3, diagonal=True)(colours)[0].chunk(2, 1)
    assert (first == 0).all()
    assert (second == 1).all()


def test_mixing_starts_as_a_rotation_whichever_way_it_is_kept() -> None:
    for lu in (False, True):
        matrix = Mixing(6, lu=lu).double().matrix()
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(6, dtype=torch.float64), atol=1e-5, rtol=0)


def test_autocast_does_not_reach_what_must_be_inverted() -> None:
    layer, x = Mixing(4, lu=True), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)[0]
        assert y.dtype == torch.float32
        assert (layer.inverse(y) - x).abs().max() < 1e-5
