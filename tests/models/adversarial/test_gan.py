"""The GAN as a model, and what it shares with the Wasserstein GAN: units, latents, classes, updates, distances."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.adversarial.contest import LatentOptions, draw_latents
from castalia.models.adversarial.gan import GAN, GANConfig
from castalia.models.adversarial.losses import critic_loss, gradient_penalty, mix
from castalia.models.adversarial.players import Players
from castalia.models.adversarial.wgan import WGAN, WGANConfig
from tests.tools import Table

DIGITS = ImageSpec(1, 8, 8, ("a", "b", "c"))


def gan(spec: Any = DIGITS, **config: Any) -> GAN:
    made = build(GAN, GANConfig(**{"latent_dims": 6, "widths": (8, 12)} | config), spec)
    assert isinstance(made, GAN)
    return made.train()


def wgan(spec: Any = DIGITS, **config: Any) -> WGAN:
    made = build(WGAN, WGANConfig(**{"latent_dims": 6, "widths": (8, 12)} | config), spec)
    assert isinstance(made, WGAN)
    return made.train()


def batch(n: int = 8, spec: ImageSpec = DIGITS) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, *spec.shape), dtype=torch.uint8, generator=g)
    return Batch(x, torch.arange(n), torch.randint(0, 3, (n,), generator=g))


def update(model: Players, name: str, b: Batch, seed: int = 0, step: int = 0) -> float:
    """One step of plain gradient descent on one objective, as the loop would take it."""
    objective = next(o for o in model.stages()[0].objectives if o.name == name)
    assert isinstance(objective, Objective)
    own = list(objective.module.parameters())
    for p in model.parameters():
        p.requires_grad_(False)
    for p in own:
        p.requires_grad_(True)
        p.grad = None
    loss, _ = objective.loss(b, BatchRng(seed, total=len(b)), Progress(step, 100))
    loss.backward()
    with torch.no_grad():
        for p in own:
            assert p.grad is not None
            p -= 0.01 * p.grad
    return loss.item()


@pytest.mark.parametrize("name", ["critic", "generator"])
@pytest.mark.parametrize("spectral", [False, True])
def test_an_update_moves_one_player_and_no_buffer_of_the_other(name: str, spectral: bool) -> None:
    model = gan(critic_norm="batch", spectral=spectral)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    update(model, name, batch())
    moved = {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {name}


def test_losses_are_those_of_the_game() -> None:
    """Recomputed by hand from the players' outputs under the same randomness."""
    b, rng = batch(), BatchRng(3, total=8)
    real = b.x.float() / 127.5 - 1
    for game in ("non-saturating", "hinge", "least-squares"):
        model = gan(game=game, norm="none")
        fake = model.generator(rng.normal("latent", 6))
        on_real, on_fake = model.critic(real).flatten(), model.critic(fake).flatten()
        found, logs = model.critic_loss(b, rng, Progress(0, 1))
        torch.testing.assert_close(found, critic_loss(game, on_real, on_fake))  # type: ignore[arg-type]
        torch.testing.assert_close(logs["fake"], on_fake.mean().detach())
    model = wgan(norm="none", penalty=7.0, drift=0.1)
    fake = model.generator(rng.normal("latent", 6)).detach()
    on_real, on_fake = model.critic(real).flatten(), model.critic(fake).flatten()
    between = mix(real, fake, rng.uniform("mix"))
    penalty = gradient_penalty(lambda x: model.critic(x).flatten(), between)
    expected = on_fake.mean() - on_real.mean() + 7.0 * penalty + 0.1 * on_real.square().mean()
    found, logs = model.critic_loss(b, rng, Progress(0, 1))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logs["wasserstein"], (on_real.mean() - on_fake.mean()).detach())
    torch.testing.assert_close(model.generator_loss(b, rng, Progress(0, 1))[0], -on_fake.mean())


def test_batch_normalised_critics_see_real_and_made_apart() -> None:
    model, b, rng = gan(critic_norm="batch", norm="none"), batch(), BatchRng(3, total=8)
    real, fake = b.x.float() / 127.5 - 1, model.generator(rng.normal("latent", 6))
    expected = critic_loss("non-saturating", model.critic(real).flatten(), model.critic(fake).flatten())
    torch.testing.assert_close(model.critic_loss(b, rng, Progress(0, 1))[0], expected)


def test_r1_is_lazy_and_as_many_times_as_strong() -> None:
    b, rng = batch(), BatchRng(3, total=8)
    plain, eager, lazy = (gan(weights="he", **more) for more in ({}, {"r1": 2.0}, {"r1": 2.0, "r1_every": 4}))
    losses = [[m.critic_loss(b, rng, Progress(step, 9))[0].item() for step in (0, 1)] for m in (plain, eager, lazy)]
    penalty = losses[1][0] - losses[0][0]
    assert penalty > 0
    assert losses[1][1] == pytest.approx(losses[1][0], rel=1e-6)
    assert losses[2][0] - losses[0][0] == pytest.approx(4 * penalty, rel=1e-4)
    assert losses[2][1] == pytest.approx(losses[0][1], rel=1e-6)
    assert "r1" not in lazy.critic_loss(b, rng, Progress(1, 9))[1]


def test_units() -> None:
    """Pictures come back exactly; points are centred with one scale for all coordinates."""
    model = gan()
    every = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    assert torch.equal(model.outside(model.inside(every)), every)
    assert float(model.inside(every).abs().max()) == 1.0
    x = torch.randn(500, 2) * torch.tensor([3.0, 0.1]) + torch.tensor([10.0, -4.0])
    points = gan(PointsSpec(2), network="mlp")
    points.initialise(Table(x, PointsSpec(2)), BatchRng(0, total=1), {})
    inside = points.inside(x)
    torch.testing.assert_close(inside.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    assert float(inside.square().mean()) == pytest.approx(1.0, rel=1e-4)
    assert float(inside[:, 0].std() / inside[:, 1].std()) == pytest.approx(
        float(x[:, 0].std() / x[:, 1].std()), rel=1e-4
    )
    torch.testing.assert_close(points.outside(inside), x)


def test_classes_are_drawn_as_often_as_they_occur() -> None:
    labels = torch.tensor([0] * 10 + [2] * 30)
    spec = ImageSpec(1, 8, 8, ("a", "b", "c"))
    model = gan(spec, condition="concatenate")
    model.initialise(Table(torch.zeros(40, 1, 8, 8, dtype=torch.uint8), spec, labels), BatchRng(0, total=1), {})
    assert torch.equal(model.labels.shares, torch.tensor([0.25, 0.0, 0.75]))
    model.eval()
    asked: list[Tensor] = []
    model.generator[0].register_forward_pre_hook(lambda m, args: asked.append(args[1]))
    model.sample(2000, rng=SampleRng(0, range(2000)))
    shares = torch.bincount(asked[0], minlength=3) / 2000
    assert float(shares[1]) == 0
    assert float(shares[0]) == pytest.approx(0.25, abs=0.04)
    assert not gan(spec).classes, "without a condition it is not conditional"


def test_a_conditional_model_needs_labels() -> None:
    model = gan(condition="projection")
    with pytest.raises(UsageError, match="labels"):
        model.critic_loss(Batch(batch().x, torch.arange(8)), BatchRng(0, total=8), Progress(0, 1))
    with pytest.raises(UsageError, match="augment"):
        gan(PointsSpec(2), network="mlp", augment=("cutout",))


def test_truncation() -> None:
    """Bounded; a truncated normal in distribution; coordinates inside stay as they were; rows stand alone."""
    rng = SampleRng(0, range(3000))
    free = draw_latents(rng, 4)
    assert torch.equal(free, rng.normal("latent", 4))
    for bound in (0.05, 0.5, 2.0):
        z = draw_latents(rng, 4, bound)
        assert z.abs().max() <= bound
        inside = free.abs() <= bound
        assert torch.equal(z[inside], free[inside])
        # variance of a truncated normal in closed form
        density, mass = math.exp(-bound * bound / 2) / math.sqrt(2 * math.pi), math.erf(bound / math.sqrt(2))
        variance = 1 - 2 * bound * density / mass
        assert float(z.var()) == pytest.approx(variance, rel=0.05)
        assert abs(float(z.mean())) < 4 * math.sqrt(variance / z.numel())
        assert torch.equal(draw_latents(SampleRng(0, [17]), 4, bound), z[17:18])
    with pytest.raises(ValueError):
        LatentOptions(truncation=-1.0)
    model = gan().eval()
    plain = model.sample(4, rng=SampleRng(0, range(4))).x
    assert torch.equal(model.sample(4, rng=SampleRng(0, range(4)), options=LatentOptions(truncation=50.0)).x, plain)
    assert not torch.equal(model.sample(4, rng=SampleRng(0, range(4)), options=LatentOptions(truncation=0.1)).x, plain)


def test_uniform_latents_are_fed_through_the_normal_distribution_function() -> None:
    model = gan(latent="uniform").eval()
    seen: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model.make(BatchRng(0, total=500), None)
    model.sample(500, rng=SampleRng(0, range(500)))
    for z in seen:
        assert z.abs().max() < 1
        assert float(z.var()) == pytest.approx(1 / 3, rel=0.05)
    z = SampleRng(1, range(3)).normal("latent", 6)
    call, _ = model.export_calls()["generator"]
    torch.testing.assert_close(call(z), model.generator(model.latents(z), None))
