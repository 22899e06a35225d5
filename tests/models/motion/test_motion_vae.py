"""The motion VAE: its class, its latent, the order of frames."""

from __future__ import annotations

import numpy as np
import torch

from castalia.core.model import build
from castalia.core.rng import BatchRng
from castalia.media.motion.read import MotionOptions
from castalia.media.motion.sets import walkers
from castalia.models.motion.motion_vae import MotionVAE, MotionVAEConfig

DATA = walkers("train", MotionOptions(length=12, fps=12))
BATCH = DATA.batch(np.arange(16))


def test_a_motion_vae_sees_its_class_and_its_latent() -> None:
    model = build(MotionVAE, MotionVAEConfig(1, 32, 2, 32, 0.0), DATA.spec, 0)
    model.initialise(DATA, BatchRng(0, total=1), {})
    model.eval()
    inside = model.seen.inside(BATCH.x)
    mean, std = model.posterior(inside, BATCH.label)
    assert mean.shape == std.shape == (16, 32)
    other, _ = model.posterior(inside, 2 - BATCH.label)
    assert not torch.allclose(mean, other)
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    same = torch.tensor([1, 1])
    assert not torch.allclose(model.frames(z, same), model.frames(-z, same))
    assert not torch.allclose(model.frames(z, same), model.frames(z, 0 * same))
    flipped = model.posterior(inside.flip(1), BATCH.label)[0]
    assert not torch.allclose(mean, flipped)  # the order of frames matters
