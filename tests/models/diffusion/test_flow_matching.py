"""Flow matching: for Gaussian data everything is known; solvers have their orders; reflow makes paths straight."""

from __future__ import annotations

import math
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion import samplers, straight
from castalia.models.diffusion.flow_matching import FlowMatching, FlowMatchingConfig, FlowOptions, paired
from castalia.nn.unet import UNetConfig
from castalia.recipes import recipe
from tests.tools import Table

TINY = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4)


def pictures(classes: int = 0, **config: Any) -> FlowMatching:
    """A small model of 8x8 pictures whose weights say something."""
    spec = ImageSpec(1, 8, 8, tuple(map(str, range(classes))))
    model = build(FlowMatching, FlowMatchingConfig(unet=TINY, conditional=classes > 0, **config), spec)
    assert isinstance(model, FlowMatching)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel() if p.ndim > 1 else 16))
    return model.eval()


def gaussian(mean: float, std: float) -> samplers.Denoise:
    """The ideal denoiser of N(mean, std^2)."""
    return lambda x, sigma: (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)


def test_loss_is_that_of_the_velocity() -> None:
    """Against the formula written down for each example by itself, with s = 0.1."""
    model = pictures(end=0.1)
    x = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    rng = BatchRng(3, total=6)
    loss, _ = model.loss(Batch.of(x), rng, Progress(0, 1))
    z, t, x1 = rng.normal("noise", 1, 8, 8), rng.uniform("time"), x.float() / 127.5 - 1
    errors = []
    for i in range(6):
        state = (1 - 0.9 * t[i]) * z[i] + t[i] * x1[i]
        v = model.network(state[None], 1000 * t[i : i + 1])[0]
        errors.append((v - (x1[i] - 0.9 * z[i])).square().mean())
    torch.testing.assert_close(loss, torch.stack(errors).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("end", [0.0, 0.05])
def test_the_denoised_example_is_the_one_that_the_velocity_means(end: float) -> None:
    """If v = x1 - (1 - s) z at x_t, the denoiser of the family gives x1 at x_t / t, at every level."""
    model = pictures(end=end)
    x1, z = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    for t in (0.01, 0.5, 0.9, 1.0):
        sigma = straight.level_of(t, end)
        skip, out, inner, time = model.scalings(sigma)
        state = (1 - (1 - end) * t) * z + t * x1
        v = x1 - (1 - end) * z
        assert time == pytest.approx(1000 * t)
        torch.testing.assert_close(inner * (state / t), state)
        torch.testing.assert_close(skip * (state / t) + out * v, x1)
        assert straight.time_of(sigma, end) == pytest.approx(t)


def test_euler_in_time_is_euler_in_noise() -> None:
    """x_{t+h} = x_t + h v, written down, against the family's Euler steps."""
    denoise = gaussian(0.3, 0.5)
    x = torch.randn(5, generator=torch.Generator().manual_seed(0)).double()
    times = [0.001, 0.2, 0.5, 0.8, 1.0]
    levels = [straight.level_of(t) for t in times]
    found = samplers.euler(denoise, x / times[0], levels)
    state = x
    for t, then in pairwise(times):
        state = state + (then - t) * straight.velocity(denoise, state, t)[0]
    torch.testing.assert_close(found, state, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_orders_of_convergence(name: str, order: int) -> None:
    """Two Gaussians on a line, whose flow has no closed form: against many steps; each doubling gains 2^order."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        means, var = torch.tensor([-0.8, 0.6], dtype=torch.float64), 0.15**2
        weight = torch.softmax(-0.5 * (x[:, None] - means) ** 2 / (var + sigma**2), 1)
        each = (var * x[:, None] + sigma**2 * means) / (var + sigma**2)
        return (weight * each).sum(1)

    sampler = straight.STRAIGHT.get(name, samplers.euler)
    z = torch.linspace(-2, 2, 41, dtype=torch.float64)

    def run(steps: int, sampler: samplers.Sampler) -> Tensor:
        # up to where velocities are known, so that the last evaluation of the fourth order does not hide its order
        times = [0.01 + (0.95 - 0.01) * i / steps for i in range(steps + 1)]
        return sampler(denoise, z / times[0], [straight.level_of(t) for t in times])

    true = run(2000, straight.STRAIGHT["rk4"])
    steps = (160, 320, 640) if order == 4 else (100, 200, 400)
    errors = [float((run(n, sampler) - true).square().mean().sqrt()) for n in steps]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25), errors


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun", "rk4", "dpm++2m"])
def test_samples_of_gaussian_points(name: str) -> None:
    """The ideal velocity of N(m, d^2), set into the model by hand: samples have that mean and deviation."""
    x = torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.2]) + 5.0
    model = build(FlowMatching, FlowMatchingConfig(), PointsSpec(2))
    assert isinstance(model, FlowMatching)
    model.initialise(Table(x, PointsSpec(2)), BatchRng(0, total=1), {})
    model.network.forward_embedded = ideal  # type: ignore[method-assign]
    made = model.eval().sample(4_000, rng=SampleRng(1, range(4_000)), options=FlowOptions(sampler=name, steps=40)).x  # type: ignore[arg-type]
    torch.testing.assert_close(made.mean(0), x.mean(0), rtol=0.02, atol=0.02)
    torch.testing.assert_close(made.std(0), x.std(0), rtol=0.06, atol=0.01)


def ideal(state: Tensor, embedding: Tensor) -> Tensor:
    """Velocity of standard normal data, which knows t by what it is told: of the mean E[x1 - z | x_t]."""
    t = IDEAL["t"]
    return state * (2 * t - 1) / (t**2 + (1 - t) ** 2)


IDEAL = {"t": 0.0}


@pytest.fixture(autouse=True)
def _times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the ideal velocity know the time, which networks are told by their embedding."""
    plain = FlowMatching.scalings

    def scalings(self: FlowMatching, sigma: float) -> tuple[float, float, float, float]:
        found = plain(self, sigma)
        IDEAL["t"] = found[2]
        return found

    monkeypatch.setattr(FlowMatching, "scalings", scalings)


def test_likelihood_of_gaussian_points() -> None:
    x = torch.randn(2_000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.2]) + 5.0
    model = build(FlowMatching, FlowMatchingConfig(probes=0, flow_steps=60), PointsSpec(2))
    assert isinstance(model, FlowMatching)
    model.initialise(Table(x, PointsSpec(2)), BatchRng(0, total=1), {})
    model.network.forward_embedded = ideal  # type: ignore[method-assign]
    found = model.eval().log_likelihood(Batch.of(x[:50]), rng=SampleRng(0, range(50)))
    true = torch.distributions.Normal(x.double().mean(0), x.double().std(0, correction=0)).log_prob(x[:50].double())
    assert float((found.nats - true.sum(1)).abs().max()) < 0.01


def test_levels_begin_and_end_where_they_should() -> None:
    model = pictures()
    even = model.levels(FlowOptions(steps=4))
    assert (even[0], even[-1]) == (1000, 0)
    assert [straight.time_of(s) for s in even] == pytest.approx([0.001, 0.25, 0.5, 0.75, 1.0], abs=2e-3)
    shifted = model.levels(FlowOptions(steps=4, shift=3.0))
    assert all(a > b for a, b in pairwise(shifted))
    # Esser et al., eq. 23, of 1 - t
    assert 1 - straight.time_of(shifted[2]) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=2e-3)
    half = model.levels(FlowOptions(steps=4), strength=0.5)
    assert straight.time_of(half[0]) == pytest.approx(0.5)
    assert model.levels(FlowOptions(steps=200, shift=100.0))[1] < 1000


def test_optimal_transport_finds_the_shortest_pairs() -> None:
    """Against all permutations; and with classes, no pair leaves its class."""
    g = torch.Generator().manual_seed(0)
    z, x = torch.randn(2, 6, 3, generator=g)
    best = min(permutations(range(6)), key=lambda order: float((z[list(order)] - x).square().sum()))
    assert paired(z, x).tolist() == list(best)
    label = torch.tensor([0, 1, 0, 1, 1, 0])
    assert bool((label[paired(z, x, label)] == label).all())


def test_transport_shortens_what_is_learned() -> None:
    model = pictures(coupling="transport")
    x = torch.randint(0, 256, (16, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    rng = BatchRng(0, total=16)
    z, x1 = rng.normal("noise", 1, 8, 8), model.units.inward(x)
    near = z[paired(z, x1)]
    assert float((near - x1).square().sum()) < float((z - x1).square().sum())
    learned, _ = model.loss(Batch.of(x), rng, Progress(0, 1))
    wanted, _ = model.error(near, x1, model.times(rng), None)
    torch.testing.assert_close(learned, wanted)


def test_reflow_makes_paths_straight() -> None:
    """Four Gaussians in the plane: after a round of reflow, straightness falls to less than a half."""
    made = recipe("flow-matching-grid-straight")
    assert isinstance(made.config, FlowMatchingConfig)
    assert made.config.rounds == 2
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (2_000, 2), generator=g) * 4.0 - 2 + 0.2 * torch.randn(2_000, 2, generator=g)
    data = Table(x, PointsSpec(2))
    model = build(FlowMatching, FlowMatchingConfig(rounds=1, pair_steps=20), PointsSpec(2))
    assert isinstance(model, FlowMatching)
    model.initialise(data, BatchRng(0, total=1), {})
    first, second = model.stages()
    bent = train(model, first, data, 500)
    assert second.enter is not None
    assert second.data is not None
    second.enter(BatchRng(0, total=1))
    pairs = second.data(data)
    assert len(pairs) == 2_000
    assert pairs.batch(np.arange(3)).x.shape == (3, 4)
    # a pair is what the flow makes of its noise
    z, x1 = pairs.batch(np.arange(3)).x.chunk(2, 1)
    again = model.job(None, FlowOptions(steps=20), SampleRng(0, range(3))).start(z)
    torch.testing.assert_close(model.units.inward(again), x1, rtol=1e-4, atol=1e-4)
    straighter = train(model, second, pairs, 500)
    assert straighter < bent / 2


def train(model: FlowMatching, stage: Any, data: Any, steps: int) -> float:
    """Train a stage by hand; return the straightness afterwards."""
    model.train()
    optimizer = torch.optim.Adam(model.network.parameters(), 3e-3)
    for step in range(steps):
        ids = np.random.default_rng(step).integers(0, len(data), 256)
        loss, _ = stage.objectives[0].loss(data.batch(ids), BatchRng(step, total=256), Progress(step, steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(model.eval().straightness(200, SampleRng(5, range(200))).mean())


def test_straightness_of_a_straight_flow_is_zero() -> None:
    """All mass at one point: every path is a straight line to it."""
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()
    levels = [straight.level_of(t) for t in np.linspace(0.01, 1, 30)]
    assert float(straight.straightness(lambda x, sigma: torch.full_like(x, 0.7), levels[0] * x, levels).max()) < 1e-12
    assert float(straight.straightness(gaussian(0.0, 0.5), levels[0] * x, levels).mean()) > 1e-3


def test_the_papers_size_and_wrong_values() -> None:
    with torch.device("meta"):
        made = recipe("flow-matching-cifar")
        model = FlowMatching(made.config, ImageSpec(3, 32, 32))  # type: ignore[arg-type]
    # DDPM's network (35,746,307) where going down pads on all sides; heads change no count
    assert sum(p.numel() for p in model.parameters()) == 35_746_307
    with pytest.raises(ValueError, match="end"):
        FlowMatchingConfig(end=0.7)
    with pytest.raises(ValueError, match="rounds"):
        FlowMatchingConfig(rounds=11)
    with pytest.raises(UsageError, match="Guidance"):
        pictures().sample(1, rng=SampleRng(0, [0]), options=FlowOptions(guidance=2.0))
