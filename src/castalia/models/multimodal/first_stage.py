"""The first stage of latent diffusion: pictures as small maps of values, and a critic of patches.

Papers
    Rombach et al. 2022 (arXiv:2112.10752), section 3.1 and appendix G: encoder and decoder, the two regularisers (KL,
    VQ), the weights of their losses. Esser, Rombach & Ommer 2021, "Taming Transformers" (arXiv:2012.09841): the
    adversarial weight that balances gradients (eq. 7). Isola et al. 2017 (arXiv:1611.07004): a critic of patches.
    Larsen et al. 2016 (arXiv:1512.09300): what a critic's layers see as a distance.

The parameters of :class:`Encoder` and :class:`Decoder` are those of diffusers' ``AutoencoderKL``; the tests map them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.attention import PictureAttention
from castalia.nn.groupnorm import GroupNorm


@dataclass(frozen=True)
class FirstStageConfig:
    """The autoencoder; the defaults are those of the paper's KL-f8 with 4 channels.

    Attributes:
        kind: ``kl``: a Gaussian with a slight KL; ``vq``: the nearest of a table of vectors.
        channels: per level; each level but the last halves the size.
        blocks: residual blocks per level on the way down; one more on the way up.
        latent: channels of the latent maps.
        groups: of the group normalisation; divides all ``channels``.
        codes: ``vq``: vectors of the table.
        kl: ``kl``: weight of the KL of a picture's latents, relative to the sum of its errors.
        commitment: ``vq``: weight of the commitment.
        perceptual: weight of the distance in the critic's layers, beside the mean absolute error.
        adversarial: weight of the adversarial loss, relative to what balances the gradients; 0 leaves the critic out.
        critic: channels of the critic's first layer.
        critic_start: share of the stage after which the critic counts.
    """

    kind: Literal["kl", "vq"] = "kl"
    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    latent: int = 4
    groups: int = 32
    codes: int = 8192
    kl: float = 1e-6
    commitment: float = 0.25
    perceptual: float = 1.0
    adversarial: float = 0.5
    critic: int = 64
    critic_start: float = 0.3

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, self.blocks, self.latent, self.groups, self.critic) < 1:
            raise ValueError("channels, blocks, latent, groups and critic must be positive")
        if any(c % self.groups for c in self.channels) or self.codes < 2:
            raise ValueError("groups must divide all channels, codes must be at least 2")
        if min(self.kl, self.commitment, self.perceptual, self.adversarial) < 0 or not 0 <= self.critic_start <= 1:
            raise ValueError("weights must not be negative, critic_start lies in [0, 1]")

    @property
    def factor(self) -> int:
        """Pixels across a place of the latent maps."""
        return 2 ** (len(self.channels) - 1)


class Block(nn.Module):
    """Norm, SiLU, convolution, twice, beside a skip."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(groups, inputs, 1e-6), GroupNorm(groups, outputs, 1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv2(self.norm2(self.conv1(self.norm1(x))))


class Middle(nn.Sequential):
    """Two blocks with attention between."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(
            Block(width, width, groups), PictureAttention(width, 1, groups, 1e-6), Block(width, width, groups)
        )


class Halve(nn.Conv2d):
    """A convolution of stride 2 with zeros on the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))


class Double(nn.Conv2d):
    """Nearest-neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.interpolate(input, scale_factor=2.0))


@final
class Encoder(nn.Module):
    """Pictures (B, C, H, W) in [-1, 1] to maps (B, outputs, H / f, W / f)."""

    def __init__(self, config: FirstStageConfig, channels: int, outputs: int) -> None:
        super().__init__()
        c = config
        self.first = nn.Conv2d(channels, c.channels[0], 3, padding=1)
        layers: list[nn.Module] = []
        width = c.channels[0]
        for i, out in enumerate(c.channels):
            for _ in range(c.blocks):
                layers.append(Block(width, out, c.groups))
                width = out
            if i < len(c.channels) - 1:
                layers.append(Halve(width))
        self.layers, self.middle = nn.Sequential(*layers), Middle(width, c.groups)
        self.norm = GroupNorm(c.groups, width, 1e-6)
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        self.quant = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.quant(self.last(self.norm(self.middle(self.layers(self.first(x))))))


@final
class Decoder(nn.Module):
    """Latent maps (B, latent, h, w) to pictures (B, C, H, W) in [-1, 1]."""

    def __init__(self, config: FirstStageConfig, channels: int) -> None:
        super().__init__()
        c, width = config, config.channels[-1]
        self.quant = nn.Conv2d(c.latent, c.latent, 1)
        self.first = nn.Conv2d(c.latent, width, 3, padding=1)
        self.middle = Middle(width, c.groups)
        layers: list[nn.Module] = []
        for i, out in reversed(list(enumerate(c.channels))):
            for _ in range(c.blocks + 1):
                layers.append(Block(width, out, c.groups))
                width = out
            if i:
                layers.append(Double(width))
        self.layers = nn.Sequential(*layers)
        self.norm = GroupNorm(c.groups, width, 1e-6)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.norm(self.layers(self.middle(self.first(self.quant(z))))))


@final
class Critic(nn.Module):
    """Pictures to how real each patch is, (B, 1, h, w); convolutions of 4 with stride 2, normalised over groups.

    Group normalisation stands where the paper's critic has that of batches: one picture's score is its own.
    """

    def __init__(self, channels: int, width: int, levels: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        inputs = channels
        for i in range(levels):
            outputs = width * 2 ** min(i, 3)
            norm = GroupNorm(1, outputs, 1e-5, silu=False) if i else nn.Identity()
            conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            self.layers.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
            inputs = outputs
        self.last = nn.Conv2d(inputs, 1, 3, padding=1)

    def seen(self, x: Tensor) -> list[Tensor]:
        """What each layer sees, and the scores last."""
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return [*found, self.last(x)]

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x)[-1]


def split(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance (B, latent, h, w) of what an encoder returns; the latter between -30 and 20."""
    mean, log_variance = moments.float().chunk(2, 1)
    return mean, log_variance.clamp(-30, 20)


def distance(critic: Critic, a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of what the critic's layers see, each made of unit scale by what they see of ``b``."""
    total = a.new_zeros(())
    with torch.no_grad():
        theirs = critic.seen(b)[:-1]
    for one, other in zip(critic.seen(a)[:-1], theirs, strict=True):
        size = other.abs().flatten(1).mean(1).clamp(min=1e-4)
        total = total + ((one - other).abs().flatten(1).mean(1) / size).mean()
    return total / len(theirs)
