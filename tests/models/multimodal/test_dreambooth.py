"""DreamBooth: the prior's term, and the pictures that it is of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from castalia import api, runs
from castalia.core.captions import bytes_of
from castalia.core.model import Progress
from castalia.core.rng import BatchRng
from tests.models.multimodal.subjects import begun, recipe_on


def losses(start: runs.Run, **config: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = begun(start, "dreambooth", **config)
    data = api.training_data(recipe_on(start, "dreambooth"))
    batch = model.coded(data).batch(np.arange(6))
    loss, logs = model.subject_loss(batch, BatchRng(3, total=6), Progress(0, 1))
    return loss.detach(), dict(logs)


def test_the_priors_preservation(start: runs.Run) -> None:
    """Equation 2; and with lambda 0 it is the plain loss."""
    with_it, logs = losses(start, prior=0.7)
    plain, alone = losses(start, prior=0.0)
    assert "prior" not in alone
    assert torch.equal(logs["mse"], plain)
    assert with_it.item() == pytest.approx((plain + 0.7 * logs["prior"]).item(), rel=1e-6)
    lora = begun(start, "picture-lora")
    batch = lora.coded(api.training_data(recipe_on(start, "dreambooth"))).batch(np.arange(6))
    assert torch.equal(lora.subject_loss(batch, BatchRng(3, total=6), Progress(0, 1))[0].detach(), plain)


def test_class_pictures_are_the_starts_own(start: runs.Run) -> None:
    below: Any = start.model()[0]
    model = begun(start, "dreambooth", class_prompts=("a star", "a red ring"))
    kept = model.drawn_before
    assert torch.equal(kept.words[:2], below.words.tokens(bytes_of(["a star", "a red ring"])))
    assert torch.equal(kept.words[0], kept.words[4])
    assert kept.latents.flatten(1).std(1).min() > 0
    again = begun(start, "dreambooth", class_prompts=("a star", "a red ring")).drawn_before
    assert torch.equal(kept.latents, again.latents)
    assert len(begun(start, "dreambooth", prior=0.0).drawn_before.latents) == 0
