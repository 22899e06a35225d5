"""Video diffusion: time attention against its formula, stills, and continuation by reconstruction guidance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.video import VideoSpec
from castalia.media.video.sets import FEW, open_set
from castalia.models.video.video_diffusion import (
    TimeAttention,
    VideoDiffusion,
    VideoDiffusionConfig,
    VideoDrawing,
    VideoUNet,
)
from castalia.nn.attention import PictureAttention
from castalia.nn.pixels import inward
from castalia.nn.unet import UNet, UNetConfig
from castalia.recipes import recipe


def model(**changes: Any) -> VideoDiffusion:
    config = recipe("video-diffusion-tiny").config
    assert isinstance(config, VideoDiffusionConfig)
    data = open_set(FEW, "test")
    made = build(VideoDiffusion, replace(config, **changes), data.spec)
    assert isinstance(made, VideoDiffusion)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return made.eval()


def test_attention_along_time_against_its_formula() -> None:
    torch.manual_seed(0)
    layer = TimeAttention(8, 2, 5, 4, 1e-5)
    torch.nn.init.normal_(layer.out.weight)
    torch.nn.init.normal_(layer.distance)
    x = torch.randn(3 * 5, 8, 2, 3)
    found = layer(x).view(3, 5, 8, 2, 3)
    h = layer.norm(x).view(3, 5, 8, 2, 3)
    for b, row, column in ((0, 0, 0), (2, 1, 2)):
        tokens = h[b, :, :, row, column]
        q, k, v = (part.view(5, 2, 4) for part in layer.qkv(tokens).chunk(3, 1))
        mixed = []
        for head in range(2):
            scores = q[:, head] @ k[:, head].T / 2.0
            for i in range(5):
                for j in range(5):
                    scores[i, j] += layer.distance[head, i - j + 4]
            mixed.append(scores.softmax(1) @ v[:, head])
        wanted = x.view(3, 5, 8, 2, 3)[b, :, :, row, column] + layer.out(torch.cat(mixed, 1))
        torch.testing.assert_close(found[b, :, :, row, column], wanted, rtol=1e-4, atol=1e-5)


def test_alone_frames_do_not_see_one_another() -> None:
    """Every frame of a still is what the network makes of it as a picture; a clip is not."""
    torch.manual_seed(0)
    network = VideoUNet(UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4), 1, 4, 2, 0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    x, t = torch.randn(2, 4, 1, 8, 8), torch.tensor([3.0, 500.0])
    other = x.clone()
    other[:, 3] += 1.0
    alone = torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(network.watch(x, t, None, alone)[:, :3], network.watch(other, t, None, alone)[:, :3])
    assert float((network.watch(x, t)[:, :3] - network.watch(other, t)[:, :3]).detach().abs().max()) > 1e-3


def test_at_the_start_it_is_the_network_of_pictures() -> None:
    """Attention along time adds nothing yet: frame by frame the same as a U-Net with the same weights."""
    config = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4)
    torch.manual_seed(0)
    network, flat = VideoUNet(config, 1, 3, 2, 0), UNet(config, 1, 1)
    with torch.no_grad():
        network.last.weight.normal_()
    same = {k.replace(".picture.", "."): v for k, v in network.state_dict().items() if ".time." not in k}
    flat.load_state_dict({**same, **{k: v for k, v in network.state_dict().items() if k.startswith("time.")}})
    x, t = torch.randn(2, 3, 1, 8, 8), torch.tensor([3.0, 500.0])
    frames = flat(x.flatten(0, 1), t.repeat_interleave(3)).view_as(x)
    torch.testing.assert_close(network(x, t), frames, rtol=1e-4, atol=1e-5)
    sites = [m for m in network.modules() if isinstance(m, PictureAttention)]
    assert len([m for m in network.modules() if isinstance(m, TimeAttention)]) == len(sites) == 4


def test_guidance_by_reconstruction_against_finite_differences() -> None:
    """Eq. 7: the other frames move against the gradient of the squared gap in the given ones."""
    made = model().double()
    first = inward(open_set(FEW, "test").batch(np.arange(1)).x[:, :2]).double()
    mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double() / 3

    def call(x: Tensor, t: Tensor) -> Tensor:  # a smooth stand-in that mixes frames
        return torch.einsum("st,btchw->bschw", mix, torch.tanh(x.double()))

    x, sigma, w = torch.randn(1, 4, 1, 12, 12).double(), 0.7, 2.0
    plain = made.process.denoise(call)
    found = made.continuing(call, first, w)(x, sigma)
    assert torch.equal(found[:, :2], first)

    def gap(state: Tensor) -> float:
        return float((plain(state, sigma)[:, :2] - first).square().sum())

    for place in ((0, 2, 0, 3, 4), (0, 3, 0, 9, 1)):
        step = torch.zeros_like(x)
        step[place] = 1e-4
        slope = (gap(x + step) - gap(x - step)) / 2e-4
        wanted = (plain(x, sigma)[place] - 0.5 * w * slope).clamp(-1, 1)
        assert float(found[place]) == pytest.approx(float(wanted), abs=2e-4)  # the network sees float32
    bare = made.continuing(call, first, 0.0)(x, sigma)
    torch.testing.assert_close(bare[:, 2:], plain(x, sigma)[:, 2:].clamp(-1, 1))


def test_the_beginning_is_kept_and_heard() -> None:
    made, batch = model(), open_set(FEW, "test").batch(np.arange(2))
    prompt, rng = batch.x[:, :2], SampleRng(0, range(2))
    options = VideoDrawing(steps=4)
    drawn = made.sample(2, {"prompt": prompt, "label": torch.tensor([0, 1])}, rng=rng, options=options).x
    assert torch.equal(drawn[:, :2], prompt)
    free = made.sample(2, {"label": torch.tensor([0, 1])}, rng=rng, options=options).x
    assert not torch.equal(drawn[:, 2:], free[:, 2:])
    with pytest.raises(ValueError, match="leaves nothing"):
        model(given=4)


def test_stills_are_learned_in_their_share() -> None:
    batch = open_set(FEW, "test").batch(np.arange(4))
    losses = [
        model(stills=share, label_drop=0.001).loss(batch, BatchRng(0, total=4), Progress(0, 1))[0].item()
        for share in (0.0, 1.0)
    ]
    assert losses[0] != losses[1]


def test_the_large_recipe() -> None:
    made = recipe("video-diffusion-films")
    assert isinstance(made.config, VideoDiffusionConfig)
    with torch.device("meta"):
        whole = VideoDiffusion(made.config, VideoSpec(3, 16, 64, 64))
    flat = sum(p.numel() for p in UNet(made.config.unet, 3, 3).parameters())
    along = sum(p.numel() for m in whole.modules() if isinstance(m, TimeAttention) for p in m.parameters())
    assert sum(p.numel() for p in whole.parameters()) == flat + along


def _moving(seed: int, n: int, frames: int, side: int) -> Batch:
    """A square that moves by at most a pixel a frame, each from a place and in a direction of its own, (n, T, 1, H, W)."""
    g = torch.Generator().manual_seed(seed)
    start, step = torch.randint(0, side, (2, n), generator=g), torch.randint(-1, 2, (2, n), generator=g)
    x = torch.zeros(n, frames, 1, side, side, dtype=torch.uint8)
    rows = torch.arange(n)
    for t in range(frames):
        for a in range(3):
            for b in range(3):
                x[rows, t, 0, (start[0] + t * step[0] + a) % side, (start[1] + t * step[1] + b) % side] = 255
    return Batch.of(x)


def test_frames_come_to_inform_one_another() -> None:
    """After a short training noise is removed better where frames see one another, though attention began with nothing."""
    frames = 6
    unet = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), head_channels=8, groups=4)
    made = build(VideoDiffusion, VideoDiffusionConfig(unet=unet, heads=4), VideoSpec(1, frames, 8, 8))
    assert isinstance(made, VideoDiffusion)
    optimizer = torch.optim.Adam(made.parameters(), lr=5e-3)
    data, steps = [_moving(seed, 12, frames, 8) for seed in range(40)], 220

    def error(alone: Tensor | None) -> float:
        clips = _moving(999, 64, frames, 8)
        call = lambda x, t: made.network.watch(x, t, None, alone)  # noqa: E731
        with torch.no_grad():
            return made.process.loss(call, inward(clips.x), BatchRng(7, total=64)).mean().item()

    one = torch.ones(64, dtype=torch.bool)
    assert error(None) == pytest.approx(error(one), rel=1e-6)  # at first nobody sees anything
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1.0, (step + 1) / 20)
        loss, _ = made.loss(data[step % len(data)], BatchRng(step, total=12), Progress(step, steps))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
    assert error(None) < 0.9 * error(one)
