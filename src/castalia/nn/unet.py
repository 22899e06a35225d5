"""The U-Net that diffusion models denoise with.

Papers
    Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models" (arXiv:2006.11239): appendix B (the network),
    and its initialisation: variance scaling over the mean of fan-in and fan-out, zero for every last layer.
    Dhariwal & Nichol 2021 (arXiv:2105.05233, ADM): scale-shift conditioning, residual up- and down-sampling,
    channels per head. Song et al. 2021 (arXiv:2011.13456): Fourier features, skips rescaled by 1/sqrt(2).
    Ho & Salimans 2022 (arXiv:2207.12598): the null class of classifier-free guidance.

How the options map to diffusers' ``UNet2DModel`` is written in ``interop/diffusers.py``, which also tests it.

What differs, and why
    One matrix makes query, key and value, and one matrix makes what all residual blocks are told about time and
    label: the same parameters in fewer and larger products. The second is why :meth:`UNet.embed` can be called
    once for a whole schedule and :meth:`UNet.forward_embedded` does without it.
    Any size works. Going down rounds up (a side of 7 becomes 4; with ``down_padding=0``, as in DDPM, it becomes 3),
    and going up is nearest-neighbour to the size of the level above. Where a side is even this is what everybody
    does; where it is odd, diffusers fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.attention import PictureAttention
from castalia.nn.convolutions import convolve, pointwise, up_convolve
from castalia.nn.embeddings import FourierFeatures, sinusoids
from castalia.nn.groupnorm import GroupNorm


@dataclass(frozen=True)
class UNetConfig:
    """Configuration of a U-Net; level 0 is the full resolution, each further level halves it.

    Attributes:
        channels: per level.
        blocks: residual blocks per level on the way down; one more on the way up.
        attention: levels that have self-attention after each block.
        middle: at the lowest level: two blocks with attention between, two ``plain`` ones, or ``none``.
        heads: attention heads; ignored where ``head_channels`` is given.
        head_channels: channels per attention head.
        dropout: probability, before the second convolution of a block.
        groups: of the group normalisation; divides all ``channels``.
        middle_groups: the same for the attention in the middle; 0 leaves its normalisation out, None means
            ``groups``.
        eps: of the group normalisation.
        time: features of the time: ``sinusoidal``, or ``fourier`` (random, for log noise levels of order 1).
        cos_first: order of the features.
        freq_shift: sinusoidal: spacing of the frequencies; 1 in DDPM, 0 in ADM.
        max_period: sinusoidal: of the slowest wave.
        fourier_scale: fourier: deviation of the frequencies.
        embedding: length of the embedding of time and label; None means four times ``channels[0]``.
        conditioning: a block adds its share of the embedding (``add``) or modulates its second normalisation.
        down: strided convolution, residual block around a mean of 2x2, or that mean alone.
        up: nearest-neighbour followed by a convolution, residual block around it, or nearest-neighbour alone.
        down_padding: strided convolution: zeros all around (1), or on the right and at the bottom only (0, DDPM).
        skip_rescale: multiply every sum of a block and its input by 1/sqrt(2).
        null_class: networks with classes: number ``classes`` stands for "no label".
    """

    channels: tuple[int, ...] = (64, 128, 128)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    middle: Literal["attention", "plain", "none"] = "attention"
    heads: int = 1
    head_channels: int | None = None
    dropout: float = 0.0
    groups: int = 32
    middle_groups: int | None = None
    eps: float = 1e-6
    time: Literal["sinusoidal", "fourier"] = "sinusoidal"
    cos_first: bool = False
    freq_shift: float = 1.0
    max_period: float = 10_000.0
    fourier_scale: float = 16.0
    embedding: int | None = None
    conditioning: Literal["add", "scale_shift"] = "add"
    down: Literal["conv", "block", "pool"] = "conv"
    up: Literal["conv", "block", "nearest"] = "conv"
    down_padding: Literal[0, 1] = 1
    skip_rescale: bool = False
    null_class: bool = True

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1 or self.blocks < 1:
            raise ValueError("channels and blocks must be positive")
        if self.groups < 1 or any(c % self.groups for c in self.channels):
            raise ValueError(f"groups={self.groups} must divide all channels {self.channels}")
        if not all(0 <= level < len(self.channels) for level in self.attention):
            raise ValueError(f"attention names levels 0 to {len(self.channels) - 1}, not {self.attention}")
        if len(set(self.attention)) != len(self.attention):
            raise ValueError(f"attention names a level twice: {self.attention}")
        if self.middle_groups is not None and (
            self.middle_groups < 0 or (self.middle_groups and self.channels[-1] % self.middle_groups)
        ):
            raise ValueError(f"middle_groups={self.middle_groups} must divide {self.channels[-1]} channels, or be 0")
        for level in self.attention_levels:
            width = self.head_channels or self.heads
            if self.heads < 1 or (self.head_channels or 1) < 1 or self.channels[level] % width:
                raise ValueError(f"heads or head_channels must divide the {self.channels[level]} channels of attention")
        if not 0 <= self.dropout < 1 or self.eps <= 0:
            raise ValueError("dropout lies in [0, 1), eps is positive")
        if self.time == "sinusoidal" and (self.channels[0] < 2 or self.channels[0] // 2 <= self.freq_shift):
            raise ValueError("channels[0] must be more than twice freq_shift: it is the number of time features")
        if self.max_period <= 1 or self.fourier_scale <= 0 or (self.embedding is not None and self.embedding < 1):
            raise ValueError("max_period must be above 1, fourier_scale and embedding positive")

    @property
    def attention_levels(self) -> tuple[int, ...]:
        """Levels with attention, the middle counted as the last level."""
        lowest = (len(self.channels) - 1,) if self.middle == "attention" else ()
        return tuple(sorted({*self.attention, *lowest}))

    @property
    def embedding_dims(self) -> int:
        """Length of the embedding of time and label."""
        return self.embedding or 4 * self.channels[0]

    def heads_of(self, channels: int) -> int:
        """Number of attention heads over that many channels."""
        return channels // self.head_channels if self.head_channels else self.heads

    @property
    def gain(self) -> float:
        """Factor of every sum of a block and its input."""
        return math.sqrt(0.5) if self.skip_rescale else 1.0


def ddpm_cifar() -> UNetConfig:
    """Ho et al. 2020, CIFAR-10: with three channels in and out, 35,746,307 parameters."""
    return UNetConfig(
        channels=(128, 256, 256, 256), blocks=2, attention=(1,), dropout=0.1, groups=32, eps=1e-6, down_padding=0
    )


def small_28() -> UNetConfig:
    """For grey pictures of 28x28, in minutes on a processor: attention at 7x7."""
    return UNetConfig(channels=(32, 64, 64), blocks=1, attention=(2,), head_channels=32, groups=8)


def small_8() -> UNetConfig:
    """For pictures of 8x8: two levels, attention at 4x4."""
    return UNetConfig(channels=(32, 64), blocks=1, attention=(1,), head_channels=32, groups=8)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, conditioning, norm, SiLU, dropout, convolution, beside a skip.

    Args:
        inputs: channels in.
        outputs: channels out.
        config: of the network.
        resample: halve or double the picture after the first SiLU, and in the skip.
    """

    def __init__(
        self, inputs: int, outputs: int, config: UNetConfig, resample: Literal["down", "up"] | None = None
    ) -> None:
        super().__init__()
        self.resample, self.gain = resample, config.gain
        self.modulate = config.conditioning == "scale_shift"
        self.width = outputs * (2 if self.modulate else 1)
        self.norm1 = GroupNorm(config.groups, inputs, config.eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = GroupNorm(config.groups, outputs, config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, e: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Apply the block.

        Args:
            x: (B, inputs, H, W).
            e: (B or 1, width), this block's share of the embedding.
            size: to double to; needed with ``resample="up"``.
        """
        h = self.norm1(x)
        if self.resample == "down":
            h, x = _halve(h), _halve(x)
        elif self.resample == "up":
            assert size is not None
            h, x = F.interpolate(h, size), F.interpolate(x, size)
        if self.modulate:
            h = self.norm2(convolve(self.conv1, h), scale_shift=e)
        elif e.shape[0] != h.shape[0]:  # the same for all examples, as in sampling: part of the bias
            assert self.conv1.bias is not None
            h = self.norm2(convolve(self.conv1, h, self.conv1.bias + e[0]))
        else:
            h = self.norm2(convolve(self.conv1, h), offset=e)
        if self.skip is not None:
            x = pointwise(self.skip, x)
        y = x + convolve(self.conv2, self.dropout(h))
        return y if self.gain == 1 else y * self.gain


def _halve(x: Tensor) -> Tensor:
    """Means of 2x2; a last odd row or column is averaged alone."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


class Down(nn.Module):
    """Half the size: (B, channels, H, W) to (B, channels, ceil(H / 2), ceil(W / 2)) (floor with ``padding=0``)."""

    def __init__(self, channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.kind, self.padding = config.down, config.down_padding
        if config.down == "conv":
            self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=config.down_padding)
        elif config.down == "block":
            self.block = ResidualBlock(channels, channels, config, "down")

    def forward(self, h: Tensor, parts: Iterator[Tensor]) -> Tensor:
        if self.kind == "block":
            return self.block(h, next(parts))
        if self.kind == "pool":
            return _halve(h)
        if self.padding == 0:
            height, width = h.shape[2:]
            h = F.pad(h, (0, 1 + (width == 1), 0, 1 + (height == 1)))
        return self.conv(h)


class Up(nn.Module):
    """Twice the size, or rather the size of the level above: (B, channels, H, W) to (B, channels, *size)."""

    def __init__(self, channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.kind = config.up
        if config.up == "conv":
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        elif config.up == "block":
            self.block = ResidualBlock(channels, channels, config, "up")

    def forward(self, h: Tensor, parts: Iterator[Tensor], size: tuple[int, int]) -> Tensor:
        if self.kind == "block":
            return self.block(h, next(parts), size)
        return up_convolve(h, self.conv, size) if self.kind == "conv" else F.interpolate(h, size)


class Level(nn.Module):
    """The blocks of one resolution on one way, each followed by attention or nothing, and the step to the next."""

    def __init__(
        self, widths: list[tuple[int, int]], config: UNetConfig, attention: bool, step: Down | Up | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(i, o, config) for i, o in widths)
        self.attentions = nn.ModuleList(
            PictureAttention(o, config.heads_of(o), config.groups, config.eps, config.gain)
            if attention
            else nn.Identity()
            for _, o in widths
        )
        self.step = step


Attend = Callable[[nn.Module, Tensor], Tensor]
"""Calls an attention, or what stands in its place, with the maps behind a block."""


def _plainly(module: nn.Module, h: Tensor) -> Tensor:
    return module(h)


class UNet(nn.Module):
    """Pictures and times to pictures of the same size, with skips between the two ways through the resolutions.

    Args:
        config: what it is made of.
        in_channels: of the input.
        out_channels: of the output; twice ``in_channels`` where a variance is predicted too.
        classes: number of labels; 0 makes an unconditional network.
    """

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int, classes: int = 0) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.in_channels, self.out_channels = in_channels, out_channels
        c, channels, dims = config, config.channels, config.embedding_dims
        fourier = c.time == "fourier"
        self.fourier = (
            FourierFeatures(channels[0], c.fourier_scale, cos_first=c.cos_first) if fourier else nn.Identity()
        )
        self.time = nn.Sequential(
            nn.Linear((2 if fourier else 1) * channels[0], dims), nn.SiLU(), nn.Linear(dims, dims)
        )
        self.label = nn.Embedding(classes + c.null_class, dims) if classes else None

        self.first = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        last = len(channels) - 1
        skips, width = [channels[0]], channels[0]
        self.down = nn.ModuleList()
        for i, out in enumerate(channels):
            widths = [(width if j == 0 else out, out) for j in range(c.blocks)]
            step = Down(out, c) if i < last else None
            self.down.append(Level(widths, c, i in c.attention, step))
            skips += [out] * (c.blocks + (step is not None))
            width = out
        self.middle = nn.ModuleList()
        if c.middle != "none":
            before, between, after = ResidualBlock(width, width, c), nn.Identity(), ResidualBlock(width, width, c)
            if c.middle == "attention":
                groups = c.groups if c.middle_groups is None else c.middle_groups
                between = PictureAttention(width, c.heads_of(width), groups, c.eps, c.gain)
            self.middle.extend((before, between, after))
        self.up = nn.ModuleList()
        for i, out in reversed(list(enumerate(channels))):
            widths = []
            for _ in range(c.blocks + 1):
                widths.append((width + skips.pop(), out))
                width = out
            self.up.append(Level(widths, c, i in c.attention, Up(out, c) if i else None))
        self.norm = GroupNorm(c.groups, channels[0], c.eps)
        self.last = nn.Conv2d(channels[0], out_channels, 3, padding=1)

        self._widths = [block.width for block in self.residual_blocks()]
        self.projection = nn.Linear(dims, sum(self._widths))
        self._initialise()

    def residual_blocks(self) -> list[ResidualBlock]:
        """All residual blocks, in the order in which they run: that of their shares in :meth:`embed`."""
        return [m for part in (self.down, self.middle, self.up) for m in part.modules() if isinstance(m, ResidualBlock)]

    @torch.no_grad()
    def _initialise(self) -> None:
        """As DDPM: uniform with variance 2 / (fan-in + fan-out), biases 0, last layers of every branch 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for part in self.projection.weight.split(self._widths):
            nn.init.xavier_uniform_(part)
        for module in self.modules():
            if isinstance(module, PictureAttention):
                for part in module.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(part)
                nn.init.zeros_(module.out.weight)
            elif isinstance(module, ResidualBlock):
                nn.init.zeros_(module.conv2.weight)
        nn.init.zeros_(self.last.weight)

    def embed(self, t: Tensor, label: Tensor | None = None, beside: Tensor | None = None) -> Tensor:
        """What all blocks need to know of time and label. It does not depend on the picture.

        Args:
            t: times, float (B,), in the unit that the network was trained with.
            label: ``int64`` (B,), 0 to ``classes`` - 1, or ``classes`` for the null class; None means the null class.
            beside: (B, ``embedding_dims``), added to the embedding of the time.

        Returns:
            (B, shares), in the type of the weights.

        Raises:
            ValueError: labels for a network without classes, or none for one without a null class.
        """
        if self.config.time == "fourier":
            features = self.fourier(t)
        else:
            c = self.config
            features = sinusoids(
                t, c.channels[0], cos_first=c.cos_first, freq_shift=c.freq_shift, max_period=c.max_period
            )
        h = self.time(features.to(self.projection.weight.dtype))
        if self.label is None:
            if label is not None:
                raise ValueError("this network was made without classes")
        else:
            if label is None:
                if not self.config.null_class:
                    raise ValueError("this network has no null class: give labels")
                label = torch.full(t.shape, self.classes, dtype=torch.int64, device=t.device)
            h = h + self.label(label)
        if beside is not None:
            h = h + beside
        return self.projection(F.silu(h))

    def forward_embedded(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The network without its embeddings.

        Args:
            x: pictures (B, in_channels, H, W), any floating type; computed in the type of the weights.
            embedding: of :meth:`embed`, (B, shares), or (1, shares) for all pictures alike.

        Returns:
            (B, out_channels, H, W) in the type of ``x``.
        """
        return self.walk(x.to(self.first.weight.dtype), embedding, _plainly).to(x.dtype)

    def walk(self, x: Tensor, embedding: Tensor, attend: Attend) -> Tensor:
        """The way down and up again, in the type of the weights; ``attend`` calls what stands behind each block."""
        parts = iter(embedding.split(self._widths, dim=1))
        h = self.first(x)
        skips = [h]
        for level in self.down:
            assert isinstance(level, Level)
            for block, attention in zip(level.blocks, level.attentions, strict=True):
                h = attend(attention, block(h, next(parts)))
                skips.append(h)
            if level.step is not None:
                h = level.step(h, parts)
                skips.append(h)
        if len(self.middle):
            before, between, after = self.middle
            h = after(attend(between, before(h, next(parts))), next(parts))
        for level in self.up:
            assert isinstance(level, Level)
            for block, attention in zip(level.blocks, level.attentions, strict=True):
                h = attend(attention, block(torch.cat((h, skips.pop()), dim=1), next(parts)))
            if level.step is not None:
                h = level.step(h, parts, skips[-1].shape[2:])
        return self.last(self.norm(h))

    def exchange(self, make: Callable[[PictureAttention], nn.Module]) -> None:
        """Put what ``make`` makes of each attention in its place."""
        for level in (*self.down, *self.up):
            assert isinstance(level, Level)
            for i, old in enumerate(level.attentions):
                if isinstance(old, PictureAttention):
                    level.attentions[i] = make(old)
        if len(self.middle) and isinstance(old := self.middle[1], PictureAttention):
            self.middle[1] = make(old)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Pictures (B, in_channels, H, W), times (B,) and labels (B,) to (B, out_channels, H, W)."""
        return self.forward_embedded(x, self.embed(t, label))
