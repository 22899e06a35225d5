"""VideoGPT: shapes that come back, axes that attend alone, what is given, and the codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from castalia.cli.main import main
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.video import VideoSpec
from castalia.media.video.sets import FEW, open_set
from castalia.models.video.cubes import AxialAttention, Decoder, Encoder, Residual, steps
from castalia.models.video.video_gpt import VideoGPT, VideoGPTConfig
from castalia.recipes import recipe


def model(**changes: Any) -> VideoGPT:
    config = recipe("video-gpt-tiny").config
    assert isinstance(config, VideoGPTConfig)
    data = open_set(FEW, "test")
    made = build(VideoGPT, replace(config, **changes), data.spec)
    assert isinstance(made, VideoGPT)
    made.initialise(data, BatchRng(0, total=1), {})
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in (made.prior, made.decoder):
            for p in part.parameters():
                p.add_(0.2 * torch.randn(p.shape, generator=g))
    return made.eval()


@pytest.mark.parametrize(("time", "space"), [(0, 1), (1, 1), (2, 2), (1, 3)])
def test_what_is_made_small_becomes_large_again(time: int, space: int) -> None:
    x = torch.randn(2, 8, 3, 16, 16)
    sizes = (3, 8, 5, 1, 2, time, space)
    z = Encoder(*sizes)(x)
    assert z.shape == (2, 5, 8 >> time, 16 >> space, 16 >> space)
    assert Decoder(*sizes)(z).shape == x.shape
    assert len(steps(time, space)) == max(time, space)


def test_attention_mixes_along_axes_only() -> None:
    """A value reaches the places with which it shares two coordinates, and no others."""
    torch.manual_seed(0)
    attention = AxialAttention(8, 2)
    x = torch.randn(1, 8, 3, 4, 5)
    other = x.clone()
    other[0, :, 1, 2, 3] += 1.0
    changed = (attention(x) - attention(other)).abs().sum(1)[0] > 1e-6
    for t in range(3):
        for h in range(4):
            for w in range(5):
                shared = (t == 1) + (h == 2) + (w == 3)
                assert bool(changed[t, h, w]) == (shared >= 2)


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    block, x = Residual(8, 2).train(), torch.randn(3, 8, 2, 4, 4)
    torch.testing.assert_close(block(x)[1:2], block(x[1:2]), rtol=1e-4, atol=1e-5)


def test_the_beginning_is_kept_and_heard() -> None:
    made, batch = model(), open_set(FEW, "test").batch(np.arange(3))
    prompt, label, rng = batch.x[:, :2], torch.tensor([0, 1, 2]), SampleRng(0, range(3))
    drawn = made.sample(3, {"prompt": prompt, "label": label}, rng=rng).x
    assert torch.equal(drawn[:, :2], prompt)
    free = made.sample(3, {"label": label}, rng=rng).x
    assert not torch.equal(drawn[:, 2:], free[:, 2:])
    with pytest.raises(ValueError, match="leaves nothing"):
        model(given=4)


def test_codes_are_those_of_the_encoder_and_the_loss_is_their_nats() -> None:
    made, data = model(prior_dropout=0.0, label_drop=0.001, given_share=1.0), open_set(FEW, "test")
    encoded = made.encoded(data)
    batch = encoded.batch(np.arange(4))
    assert batch.x.shape == (4, 1 * 3 * 3)
    assert torch.equal(batch.extra["first"], data.batch(np.arange(4)).x[:, :2])
    loss, _ = made.prior_loss(batch, BatchRng(0, total=4), Progress(0, 1))
    beside = made.told(batch.extra["first"], torch.ones(4, dtype=torch.bool))
    nats = -made.prior.log_prob(batch.x.long(), batch.label, beside) / batch.x.shape[1]
    assert loss.item() == pytest.approx(nats.mean().item(), rel=1e-4)


def test_sizes_that_do_not_fit_and_the_papers() -> None:
    with pytest.raises(ValueError, match="which does not divide"):
        build(VideoGPT, VideoGPTConfig(halve_time=2, halve_space=3), VideoSpec(1, 6, 16, 16))
    made = recipe("video-gpt-paper")
    assert isinstance(made.config, VideoGPTConfig)
    with torch.device("meta"):
        whole = VideoGPT(made.config, VideoSpec(3, 16, 64, 64))
    assert whole.grid == (8, 32, 32)
    width, layers = made.config.prior_dim, made.config.prior_layers
    block = 12 * width**2 + 13 * width
    assert sum(p.numel() for p in whole.prior.blocks.parameters()) == layers * block  # 16 blocks of 576


def test_what_cannot_be_built_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "train",
        "--recipe",
        "video-gpt-tiny",
        "--set",
        "config.given=4",
        "--steps",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(command) == 2
    assert "cannot be built: given=4 leaves nothing of 4 frames" in capsys.readouterr().err
