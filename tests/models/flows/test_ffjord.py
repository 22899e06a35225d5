"""The continuous flow: inverse, trace, density, gradients by the adjoint equation, order of convergence."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.media.points.toys import toy
from castalia.models.flows.continuous import Continuous, TimedLayer, Velocity, _trace
from castalia.models.flows.ffjord import FFJORD, FFJORDConfig
from castalia.recipes import ffjord as recipes
from tests.models.flows.test_layers import log_det, stir


def made(rtol: float = 1e-9, steps: int = 0) -> Continuous:
    torch.manual_seed(0)
    layer = Continuous(Velocity(3, (8, 8), pictures=False), rtol, rtol, steps).double()
    stir(layer)
    return layer.eval()


def examples(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_inverse_and_log_determinant() -> None:
    layer, x = made(), examples()
    with torch.no_grad():
        y, found = layer(x)
        assert (layer.inverse(y) - x).abs().max() < 1e-6
    true = torch.stack([log_det(lambda v: layer(v)[0], one) for one in x])
    assert (found - true).abs().max() < 1e-7


def test_gradients_of_the_adjoint_equation() -> None:
    layer, x = made(), examples()

    def gradients() -> list[torch.Tensor]:
        y, log_det = layer(x)
        loss = (0.5 * y.square().sum(1) - log_det).mean()
        return list(torch.autograd.grad(loss, list(layer.parameters())))

    through = gradients()
    layer.train()
    for one, two in zip(through, gradients(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_fixed_steps_converge_with_order_four() -> None:
    x = examples()
    with torch.no_grad():
        exact = made(1e-11)(x)
        errors = []
        for steps in (8, 16):
            y, log_det = made(steps=steps)(x)
            errors.append((float((y - exact[0]).abs().max()), float((log_det - exact[1]).abs().max())))
    for coarse, fine in zip(*errors, strict=True):
        assert 3.3 < math.log2(coarse / fine) < 5.2


def test_an_equation_that_cannot_be_followed_gives_nothing_finite() -> None:
    """And a loss that can be refused: it still has gradients."""
    layer = made(1e-5).float().train()
    with torch.no_grad():
        for p in layer.velocity.parameters():
            p.mul_(1e4)
    y, log_det = layer(examples().float())
    assert not y.isfinite().any()
    assert not log_det.isfinite().any()
    y.sum().backward()
    back = layer.inverse(examples().float())
    assert not back.isfinite().any()


def test_an_equation_that_cannot_be_followed_back_has_gradients_that_are_refused() -> None:
    """The way there ends, the adjoint's way back does not."""
    layer, x = made().train(), examples().requires_grad_()
    layer.how["adjoint_options"] = {"max_num_steps": 1}
    y, log_det = layer(x)
    loss = y.square().mean() - log_det.mean()
    assert loss.isfinite()
    loss.backward()
    for p in (x, *layer.parameters()):
        assert p.grad is not None
        assert p.grad.isnan().all()


def test_probes_are_unbiased() -> None:
    torch.manual_seed(0)
    net = Velocity(2, (4,), pictures=True).double()
    x = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.3, dtype=torch.float64)
    true = _trace(net(x, t), x, None, keep=False)
    found = torch.zeros(3, dtype=torch.float64)
    rounds = 3_000
    for _ in range(rounds):
        probe = 2.0 * (torch.rand_like(x) < 0.5) - 1
        found += _trace(net(x, t), x, probe.detach(), keep=False) / rounds
    assert (found - true).abs().max() < 0.15 * true.abs().max() + 0.05


def test_density_of_points_integrates_to_one_and_is_exact() -> None:
    data = toy("two-moons", "train")
    model = build(FFJORD, FFJORDConfig(widths=(16, 16), rtol=1e-6, atol=1e-6), data.spec)
    assert isinstance(model, FFJORD)
    model.initialise(data, BatchRng(0, total=1), {})
    stir(model.double(), width=0.2)
    model = model.float().eval()
    std, mean = model.units.points.std, model.units.points.mean  # type: ignore[union-attr]
    line = torch.linspace(-8, 8, 161)
    grid = torch.cartesian_prod(line, line) * std + mean
    found = model.log_likelihood(Batch.of(grid), rng=SampleRng(0, range(len(grid))))
    assert found.kind == "exact"
    total = float(found.nats.exp().sum()) * float(std.prod()) * float(line[1] - line[0]) ** 2
    assert total == pytest.approx(1.0, abs=1e-3)


@torch.no_grad()
def test_density_of_pictures_at_several_scales() -> None:
    """Two scales of two equations, trace exact, against the Jacobian by differences; and probes on average."""
    model = build(FFJORD, FFJORDConfig(widths=(6,), levels=2, blocks=2, rtol=1e-9, atol=1e-9), ImageSpec(1, 4, 4))
    assert isinstance(model, FFJORD)
    stir(model.double(), width=0.2)
    model.eval()
    y = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, found = model.layers(y)
    assert (model.layers.inverse(z) - y).abs().max() < 1e-6
    moves = 1e-5 * torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)
    for one, at, log_p in zip(y, z, found, strict=True):
        slopes = (model.layers(one + moves)[0] - model.layers(one - moves)[0]) / 2e-5
        normal = -0.5 * (at.square() + math.log(2 * math.pi)).sum()
        assert float(log_p) == pytest.approx(float(normal + torch.linalg.slogdet(slopes)[1]), abs=1e-5)
    several = SampleRng(0, range(200))
    with model.probing(several):
        rough = model.layers(y[:1].expand(200, -1, -1, -1))[1]
    assert float(rough.mean()) == pytest.approx(float(found[0]), abs=4 * float(rough.std()) / 200**0.5 + 1e-6)


def test_likelihoods_of_pictures_are_estimates_and_say_so() -> None:
    spec = ImageSpec(1, 8, 8)
    model = build(FFJORD, FFJORDConfig(widths=(8,), levels=2, rtol=1e-3, atol=1e-3), spec).eval()
    assert isinstance(model, FFJORD)
    stir(model, width=0.1)
    x = torch.randint(0, 256, (5, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(5)), samples=2)
    assert found.kind == "estimate"
    assert "probe" in found.detail
    assert "K = 2" in found.detail
    assert all(layer.probe is None for layer in model.modules() if isinstance(layer, Continuous))


def test_pictures_at_several_scales_learn_through_the_solver() -> None:
    """The second equation begins at what the first came to: its adjoint gets a start that wants a gradient itself."""
    spec = ImageSpec(1, 8, 8)
    model = build(FFJORD, FFJORDConfig(widths=(8,), levels=2, rtol=1e-3, atol=1e-3), spec).train()
    assert isinstance(model, FFJORD)
    x = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    loss, logs = model.loss(Batch.of(x), BatchRng(0, total=4), Progress(0, 1))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert all(g.isfinite().all() for g in gradients)
    assert float(logs["evaluations"]) > 10


def test_the_size_of_the_paper() -> None:
    """Two scales of two equations, each of four 3x3 convolutions with a gate and a bias in the time, and its length."""
    with torch.device("meta"):
        model = FFJORD(recipes.mnist().config, ImageSpec(1, 28, 28))

    def equation(channels: int) -> int:
        sizes = [channels, 64, 64, 64, channels]
        return 1 + sum(9 * a * b + b + 3 * b for a, b in pairwise(sizes))

    assert sum(p.numel() for p in model.parameters()) == 2 * equation(1) + 2 * equation(2)


@torch.no_grad()
def test_several_dequantisations_are_averaged() -> None:
    model = build(FFJORD, FFJORDConfig(widths=(8,), levels=1, steps=2), ImageSpec(1, 8, 8)).eval()
    assert isinstance(model, FFJORD)
    stir(model, width=0.2)
    x = torch.randint(0, 256, (5, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    rng = SampleRng(0, range(5))
    each = [model.log_likelihood(Batch.of(x), rng=r).nats for r in (rng, rng.at("draw", 1), rng.at("draw", 2))]
    assert not torch.equal(each[0], each[1])
    found = model.log_likelihood(Batch.of(x), rng=rng, samples=3).nats
    torch.testing.assert_close(found, torch.logsumexp(torch.stack(each), 0) - math.log(3), atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_field_is_followed_for_its_length_and_knows_the_time() -> None:
    """x(T) with T the square of the root, against small steps by hand; a gate and a bias of the time in every layer."""
    layer, x = made(), examples()
    layer.root_of_end.fill_(1.3)
    y = x
    for k in range(2_000):  # midpoints
        t, dt = torch.tensor(1.69 * (k + 0.5) / 2_000, dtype=x.dtype), 1.69 / 2_000
        half = y + 0.5 * dt * layer.velocity(y, t - 0.5 * dt)
        y = y + dt * layer.velocity(half, t)
    torch.testing.assert_close(layer(x)[0], y, atol=1e-5, rtol=0)
    timed = layer.velocity.layers[0]
    assert isinstance(timed, TimedLayer)
    gate = torch.sigmoid(0.7 * timed.gate.weight[:, 0] + timed.gate.bias)
    expected = timed.layer(x) * gate + 0.7 * timed.bias.weight[:, 0]
    torch.testing.assert_close(timed(x, torch.tensor(0.7, dtype=x.dtype)), expected)


@torch.no_grad()
def test_the_loss_is_the_negative_density() -> None:
    data = toy("two-moons", "train")
    model = build(FFJORD, FFJORDConfig(widths=(16,), steps=8), data.spec).eval()
    assert isinstance(model, FFJORD)
    model.initialise(data, BatchRng(0, total=1), {})
    stir(model, width=0.2)
    batch = data.batch(np.arange(20))
    loss, logs = model.loss(batch, BatchRng(0, total=20), Progress(0, 1))
    nats = model.log_likelihood(batch, rng=SampleRng(0, range(20))).nats
    assert float(loss) == pytest.approx(-float(nats.mean()), abs=1e-4)
    assert float(logs["evaluations"]) == 4 * 8


@pytest.mark.parametrize("wrong", [{"widths": ()}, {"rtol": 0.0}, {"blocks": 0}, {"steps": -1}, {"levels": 0}])
def test_wrong_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        FFJORDConfig(**wrong)  # type: ignore[arg-type]
