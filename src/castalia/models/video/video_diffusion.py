"""Video diffusion: noise removed from all frames of a clip together.

Papers
    Ho, Salimans, Gritsenko, Chan, Norouzi & Fleet 2022, "Video Diffusion Models" (arXiv:2204.03458): a U-Net factorised
    over space and time (section 3), joint training with single frames (3.1), continuation by reconstruction guidance
    (eq. 7). Salimans & Ho 2022 (arXiv:2202.00512): v. Shaw et al. 2018 (arXiv:1803.02155): relative positions.

Frames are pictures to every block of the U-Net; after each attention over a picture every place attends along time,
with a bias for each distance in time and head. In a share ``stills`` of the examples attention along time is cut off,
so that frames are learned as pictures too.

Continuation. With frames x_a given, each denoised clip D is changed in the other frames b by

    D_b - (w / 2) grad_b |x_a - D_a|^2,

and has x_a in the given ones. The gradient is by x = x0 + sigma eps; the paper's, by z = alpha x, has a factor alpha.
w = 0 only puts them there (replacement), which the paper found to be incoherent.

What differs, and why
    Frames that were given come back as they were. Stills are frames of clips, not pictures from elsewhere.

Expected: see ``recipes/video_diffusion.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Exportable
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.video import VideoSpec
from castalia.models.diffusion.drawing import DrawingOptions
from castalia.models.diffusion.process import Call, Process, ProcessConfig, guided
from castalia.models.video.video_gpt import PROMPT
from castalia.nn.attention import PictureAttention
from castalia.nn.labels import Labels, classes_of
from castalia.nn.pixels import inward, outward
from castalia.nn.unet import ResidualBlock, UNet, UNetConfig


@dataclass(frozen=True)
class VideoDiffusionConfig(Config):
    """Configuration of video diffusion.

    Attributes:
        unet: the network of one frame.
        heads: of attention along time.
        process: of the diffusion.
        conditional: learn the labels of the data as well.
        label_drop: share of labels that are left out.
        stills: share of examples that are learned as single frames.
        given: frames that may be given as the beginning; 0 for none.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    heads: int = 4
    process: ProcessConfig = field(default_factory=lambda: ProcessConfig(prediction="v"))
    conditional: bool = False
    label_drop: float = 0.1
    stills: float = 0.1
    given: int = 1

    def __post_init__(self) -> None:
        if self.heads < 1 or any(c % self.heads for c in self.unet.channels):
            raise ValueError("heads must be positive and divide all channels")
        if not 0 < self.label_drop < 1 or not 0 <= self.stills <= 1 or self.given < 0:
            raise ValueError("label_drop lies in (0, 1), stills in [0, 1], given is not negative")


@dataclass(frozen=True)
class VideoDrawing(DrawingOptions):
    """How clips are drawn; see :class:`castalia.models.diffusion.drawing.DrawingOptions`.

    Attributes:
        sampler: of the diffusion family.
        steps: of the sampler.
        grid: of the noise levels.
        weight: of reconstruction guidance, where frames are given; 0 only puts them in place.
    """

    sampler: Literal["ddpm", "ddim", "euler", "euler-ancestral", "heun", "dpm++2m", "dpm++3m", "dpm++2m-sde"] = (
        "dpm++2m"
    )
    steps: int = 20
    grid: Literal["leading", "trailing", "linspace", "karras", "log", "logistic"] = "logistic"
    weight: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight < 0:
            raise ValueError("weight must not be negative")


class TimeAttention(nn.Module):
    """Every place of a picture attends along the frames: (B T, C, H, W) in and out, added to its input."""

    def __init__(self, channels: int, heads: int, frames: int, groups: int, eps: float) -> None:
        super().__init__()
        self.heads, self.frames = heads, frames
        self.norm = nn.GroupNorm(groups, channels, eps)
        self.qkv, self.out = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)
        self.distance = nn.Parameter(torch.zeros(heads, 2 * frames - 1))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, alone: Tensor | None = None) -> Tensor:
        """``alone`` bool (B,): clips whose frames do not see one another."""
        t = self.frames
        b, (c, h, w) = x.shape[0] // t, x.shape[1:]
        tokens = self.norm(x).view(b, t, c, h * w).permute(0, 3, 1, 2)  # (B, places, T, C)
        q, k, v = self.qkv(tokens).view(b, h * w, t, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5).unbind(0)
        number = torch.arange(t, device=x.device)
        bias = self.distance[:, number[:, None] - number + t - 1].to(q.dtype)
        if alone is not None:
            others = ~torch.eye(t, dtype=torch.bool, device=x.device)
            cut = (alone.view(-1, 1, 1, 1, 1) & others).to(q.dtype)
            bias = bias - 1e4 * cut
        # sequences are short and many: plain products are several times faster than the fused kernel
        weights = torch.softmax((q * (c // self.heads) ** -0.5) @ k.transpose(-1, -2) + bias, -1)
        mixed = weights @ v
        y = self.out(mixed.transpose(2, 3).reshape(b, h * w, t, c))
        return x + y.permute(0, 2, 3, 1).reshape(b * t, c, h, w)


class SpaceTime(nn.Module):
    """Attention over each frame, then along time."""

    def __init__(self, picture: PictureAttention, time: TimeAttention) -> None:
        super().__init__()
        self.picture, self.time = picture, time

    def forward(self, x: Tensor, alone: Tensor | None = None) -> Tensor:
        return self.time(self.picture(x), alone)


class VideoUNet(UNet):
    """Clips (B, T, C, H, W), times and labels to clips."""

    def __init__(self, config: UNetConfig, channels: int, frames: int, heads: int, classes: int) -> None:
        super().__init__(config, channels, channels, classes)
        c, self.frames = config, frames
        self.exchange(lambda old: SpaceTime(old, TimeAttention(old.qkv.in_channels, heads, frames, c.groups, c.eps)))

    def watch(self, x: Tensor, t: Tensor, label: Tensor | None = None, alone: Tensor | None = None) -> Tensor:
        """Clips (B, T, C, H, W), times (B,), labels (B,); ``alone`` as in :class:`TimeAttention`."""

        def attend(module: nn.Module, h: Tensor) -> Tensor:
            return module(h, alone) if isinstance(module, SpaceTime) else module(h)

        embedding = self.embed(t, label).repeat_interleave(self.frames, 0)
        return self.walk(x.flatten(0, 1), embedding, attend).view_as(x)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Clips (B, T, C, H, W), times (B,) and labels (B,) to clips."""
        return self.watch(x, t, label)


class VideoDiffusion(Generator[VideoDiffusionConfig, VideoSpec], Exportable):
    """p(clip) by the removal of noise."""

    Config = VideoDiffusionConfig
    SampleOptions = VideoDrawing
    shard_units = (ResidualBlock,)

    def __init__(self, config: VideoDiffusionConfig, spec: VideoSpec) -> None:
        super().__init__()
        if config.given >= spec.frames:
            raise ValueError(f"given={config.given} leaves nothing of {spec.frames} frames to be made")
        self.config, self.spec = config, spec
        self.classes = classes_of(spec, config.conditional)
        self.labels = Labels(self.classes, config.label_drop)
        self.network = VideoUNet(config.unet, spec.channels, spec.frames, config.heads, self.classes)
        self.process = Process(config.process)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find how often each label occurs."""
        self.labels.fit(data)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("diffusion", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Squared error of the prediction per value, averaged over the batch."""
        label, alone = self.labels.for_training(batch, rng), rng.uniform("still") < self.config.stills
        call: Call = lambda x, t: self.network.watch(x, t, label, alone)  # noqa: E731
        mse = self.process.loss(call, inward(batch.x), rng).mean()
        return mse, {"mse": mse.detach()}

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        s, found = self.spec, dict[str, Spec]()
        if self.classes:
            found["label"] = LabelSpec(s.classes)
        if self.config.given:
            found[PROMPT] = VideoSpec(s.channels, self.config.given, s.height, s.width, s.fps)
        return found

    def draw(self, n: int, given: Given, rng: SampleRng, options: VideoDrawing, watch: Watch | None) -> Batch:
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        null = self.labels.null(n)
        call: Call = lambda x, t: self.network.watch(x, t, label)  # noqa: E731
        plain: Call = lambda x, t: self.network.watch(x, t, null)  # noqa: E731
        both = guided(call, plain, options.guidance if self.classes else 1.0)
        denoise = self.process.denoise(both, lambda x: x.clamp(-1, 1))
        prompt = given.get(PROMPT)
        if prompt is not None:
            denoise = self.continuing(both, inward(prompt), options.weight)
        levels = self.process.levels(options)
        start = math.hypot(1, levels[0]) * options.temperature * rng.normal("latent", *self.spec.shape)
        show = lambda x: Batch.of(outward(x))  # noqa: E731
        with torch.no_grad():
            x = outward(self.process.draw(denoise, start, levels, options, rng, show=show, watch=watch))
        if prompt is not None:
            x = torch.cat([prompt, x[:, self.config.given :]], 1)
        return Batch.of(x, label)

    def continuing(self, call: Call, first: Tensor, weight: float):  # noqa: ANN201 (a denoise function)
        """Denoised clips with their first frames given (B, given, C, H, W), and the others guided by them (eq. 7)."""
        k, plain = first.shape[1], self.process.denoise(call)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            if not weight:
                found = plain(x, sigma)
            else:
                with torch.enable_grad():
                    state = x.detach().requires_grad_()
                    found = plain(state, sigma)
                    gap = (found[:, :k] - first).square().sum()
                    (gradient,) = torch.autograd.grad(gap, state)
                found = (found - 0.5 * weight * gradient).detach()
            return torch.cat([first, found[:, k:].clamp(-1, 1)], 1)

        return denoise

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The network: scaled noisy clips, times and labels to its prediction."""
        clips = torch.zeros(2, *self.spec.shape, device=self.device)
        label = (torch.zeros(2, dtype=torch.int64, device=self.device),) if self.classes else ()
        return {"network": (self.network, (clips, torch.tensor([0.0, 1.0], device=self.device), *label))}
