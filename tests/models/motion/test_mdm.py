"""Motion diffusion, and what it shares with the motion VAE: what networks see, geometry, the process, classes, sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.media.motion.draw import places_of
from castalia.media.motion.read import MotionOptions
from castalia.media.motion.sets import walkers
from castalia.models.diffusion.schedules import cosine_betas
from castalia.models.motion.mdm import MDM, MDMConfig, MDMSampling
from castalia.models.motion.motion_vae import MotionVAE, MotionVAEConfig
from castalia.models.motion.steps import Steps, steps_of
from castalia.nn.embeddings import places

DATA = walkers("train", MotionOptions(length=12, fps=12))
BATCH = DATA.batch(np.arange(16))


def seen() -> Steps:
    steps = Steps(DATA.spec)
    steps.fit(DATA)
    return steps


def mdm(**options) -> MDM:
    model = build(MDM, MDMConfig(1, 32, 2, 32, 0.0, **{"steps": 20, **options}), DATA.spec, 0)
    model.initialise(DATA, BatchRng(0, total=1), {})
    return model.eval()


def test_what_networks_see_and_back() -> None:
    steps = seen()
    inside = steps.inside(BATCH.x)
    assert inside.flatten(0, 1).mean(0).abs().max() < 1
    assert inside.abs().max() < 20
    back = steps.outside(inside)
    torch.testing.assert_close(back, BATCH.x, rtol=1e-3, atol=2e-3)


def test_a_path_is_the_sum_of_its_steps() -> None:
    moved = steps_of(BATCH.x)
    torch.testing.assert_close(moved[..., 0].cumsum(1), BATCH.x[..., 0], rtol=1e-4, atol=1e-3)
    assert (moved[:, 0, [0, 2]] == 0).all()
    assert torch.equal(moved[..., 1], BATCH.x[..., 1])
    assert torch.equal(moved[..., 3:], BATCH.x[..., 3:])


def test_the_geometry_of_a_motion() -> None:
    steps = seen()
    inside = steps.inside(BATCH.x)
    places, velocity, _ = steps.geometry(inside, inside)
    assert places.abs().max() < 1e-8
    assert velocity.abs().max() < 1e-8
    higher = BATCH.x.clone()
    higher[..., 1] += 0.1 * steps.tall  # a tenth of a body's height, all the time
    places, velocity, _ = steps.geometry(steps.inside(higher), inside)
    torch.testing.assert_close(places, torch.full((16,), 0.01), rtol=1e-3, atol=1e-5)
    assert velocity.abs().max() < 1e-6
    made = places_of(steps.outside(inside), DATA.spec) / float(steps.tall)
    np.testing.assert_allclose(steps.places(inside).numpy(), made, atol=1e-4)


def test_feet_that_stand_must_not_slide() -> None:
    steps = seen()
    wave = DATA.batch(np.flatnonzero(DATA.labels.numpy() == DATA.spec.classes.index("wave"))[:4])
    inside = steps.inside(wave.x)
    assert steps.geometry(inside, inside)[2].max() < 0.02
    gliding = wave.x.clone()
    gliding[..., 2] += torch.arange(12) * float(steps.tall) / 12  # a body's height each second
    slide = steps.geometry(steps.inside(gliding), inside)[2]
    torch.testing.assert_close(slide, torch.ones(4), rtol=0.1, atol=0.05)


def test_a_guess_of_the_truth_costs_nothing() -> None:
    model = mdm()
    clean = model.seen.inside(BATCH.x)
    model.network.forward = lambda x, t, label=None: clean  # type: ignore[method-assign]
    loss, logs = model.loss(BATCH, BatchRng(0, total=16), Progress(0, 1))
    assert logs["simple"] == 0
    assert loss < 0.02  # feet of real walkers slide a little


def test_the_process_is_that_of_its_schedule() -> None:
    model = mdm()
    signal = np.cumprod(1 - cosine_betas(20))
    torch.testing.assert_close(model.levels(torch.arange(20)).double(), torch.from_numpy(signal), rtol=1e-5, atol=1e-7)
    assert model.times(0).tolist() == list(range(20))
    assert model.times(5)[0] == 0
    assert model.times(5)[-1] == 19
    assert len(model.times(5)) == 5


@pytest.mark.parametrize("steps", [0, 6, 1])
def test_a_sampler_that_knows_the_motion_ends_at_it(steps: int) -> None:
    model = mdm()
    clean = model.seen.inside(BATCH.x[:3])
    model.network.forward = lambda x, t, label=None: clean[: len(x)]  # type: ignore[method-assign]
    drawn = model.sample(3, rng=SampleRng(0, range(3)), options=MDMSampling(steps=steps))
    torch.testing.assert_close(drawn.x, model.seen.outside(clean), rtol=1e-3, atol=1e-2)


def test_noise_of_the_process_has_its_size() -> None:
    """Where the truth is all zero, each state of the sampler is normal with the deviation of its step."""
    model = mdm()
    model.network.forward = lambda x, t, label=None: torch.zeros_like(x)  # type: ignore[method-assign]
    seen_states: list[torch.Tensor] = []
    original = model.guided

    def watched(x, t, label, guidance):
        seen_states.append(x)
        return original(x, t, label, guidance)

    model.guided = watched  # type: ignore[method-assign]
    model.sample(200, rng=SampleRng(0, range(200)), options=MDMSampling(steps=0))
    signal = np.cumprod(1 - cosine_betas(20))
    for state, level in zip(reversed(seen_states[1:]), signal, strict=False):
        assert state.std().item() == pytest.approx((1 - level) ** 0.5, rel=0.02)


def test_guidance() -> None:
    model = mdm()
    x, label = torch.randn(3, 12, DATA.spec.numbers), torch.tensor([0, 1, 2])
    at = torch.full((3,), 4)
    asked, free = model.network(x, at, label), model.network(x, at, torch.full((3,), 3))
    torch.testing.assert_close(model.guided(x, 4, label, 2.5), free + 2.5 * (asked - free))
    torch.testing.assert_close(model.guided(x, 4, label, 1.0), asked)
    torch.testing.assert_close(model.guided(x, 4, label, 0.0), free)


def test_the_papers_sizes() -> None:
    spec = walkers("train", MotionOptions(length=60, fps=20)).spec
    with torch.device("meta"):
        network = MDM(MDMConfig(), spec).network
        vae = MotionVAE(MotionVAEConfig(), spec)
    blocks = 8 * (4 * 512 * 512 + 4 * 512 + 2 * 512 * 1024 + 1024 + 512 + 4 * 512)
    ends = 57 * 512 + 512 + 512 * 57 + 57 + 2 * (512 * 512 + 512) + 4 * 512
    assert sum(p.numel() for p in network.parameters()) == blocks + ends == 17_408_569
    assert sum(p.numel() for p in vae.parameters()) == 14_777_401


def test_places_in_time_differ() -> None:
    table = places(100, 16)
    assert torch.cdist(table, table).fill_diagonal_(1).min() > 0.01
