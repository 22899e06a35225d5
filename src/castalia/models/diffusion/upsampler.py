"""Super-resolution by diffusion: a denoiser that sees a small picture beside the noisy large one.

Papers
    Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement" (SR3, arXiv:2104.07636), and Nichol &
    Dhariwal 2021 (arXiv:2102.09672): the enlarged small picture is concatenated to the input, channel by channel.
    Ho et al. 2021 (arXiv:2106.15282), section 3: the small picture is spoilt in training, and the network told by how
    much.
    The denoiser around the network: Karras et al. 2022, see edm.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Batch
from castalia.core.model import Logs
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Watch
from castalia.core.specs.image import ImageSpec
from castalia.models.diffusion.drawing import Denoiser, Job
from castalia.models.diffusion.edm import EDM, EDMConfig, EDMOptions
from castalia.models.diffusion.networks import Network
from castalia.nn.embeddings import sinusoids
from castalia.nn.unet import UNet, UNetConfig

Enlargement = Literal["bilinear", "bicubic"]


class UpsamplingUNet(UNet):
    """A U-Net that sees a second picture of the same size, and is told by how much that is spoilt.

    Args:
        config: what it is made of.
        channels: of either picture, and of the output.
        classes: number of labels; 0 makes an unconditional network.
    """

    def __init__(self, config: UNetConfig, channels: int, classes: int = 0) -> None:
        super().__init__(config, 2 * channels, channels, classes)
        self.width, dims = 2 * (config.channels[0] // 2), config.embedding_dims
        self.level = nn.Sequential(nn.Linear(self.width, dims), nn.SiLU(), nn.Linear(dims, dims))

    def told(self, level: Tensor) -> Tensor:
        """Levels s (B,) as (B, ``embedding_dims``), to be added to the time's embedding."""
        # the features are made for numbers up to 1,000
        features = sinusoids(1000 * level / (1 + level), self.width)
        return self.level(features.to(self.projection.weight.dtype))

    def look(self, x: Tensor, t: Tensor, low: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """Noisy pictures (B, C, H, W), times (B,), what is beside them (B, C, H, W) and levels (B,) to (B, C, H, W)."""
        return self.forward_embedded(torch.cat([x, low], 1), self.embed(t, label, self.told(level)))


class Looking(nn.Module):
    """One call of an :class:`UpsamplingUNet` with plain tensors: for export."""

    def __init__(self, network: UpsamplingUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, low: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        return self.network.look(x, t, low, level, label)


class Beside(Denoiser):
    """A denoiser of large pictures beside given small ones.

    Args:
        model: whose network and scalings these are.
        low: the small pictures (B, C, H, W), spoilt and enlarged.
        level: s, by how much they are spoilt.
        label: all labels that it is going to be asked with, or None.
        clip: whether denoised pictures are settled.
    """

    def __init__(self, model: Upsampler, low: Tensor, level: float, label: Tensor | None, clip: bool) -> None:
        plain = model.denoiser(label, clip)
        super().__init__(plain.network, plain.scalings, label=plain.known, units=plain.units, mean=plain.mean)
        self.seeing, self.low, self.level = model.seeing, low, level

    def _embed(self, times: Sequence[float]) -> Tensor:
        device = self.low.device
        rows = 1 if self.known is None else len(self.known)
        time = torch.tensor(times, dtype=torch.float32, device=device).repeat_interleave(rows)
        label = None if self.known is None else self.known.repeat(len(times))
        told = self.seeing.told(torch.full((1,), self.level, device=device))
        return self.seeing.embed(time, label, told).unflatten(0, (len(times), rows))

    def ask(self, x: Tensor, embedding: Tensor) -> Tensor:
        again = len(x) // len(self.low)  # guidance asks with and without labels at once
        low = self.low.repeat(again, 1, 1, 1).to(x.dtype)
        return self.seeing.forward_embedded(torch.cat([x, low], 1), embedding)


class Upsampler(EDM):
    """``edm`` of pictures, given smaller ones: p(x | z).

    Args:
        config: its network is that of ``unet``, with twice the channels in.
        spec: of the large pictures.
        enlargement: how small pictures become large ones.
    """

    spec: ImageSpec

    def __init__(self, config: EDMConfig, spec: ImageSpec, enlargement: Enlargement = "bilinear") -> None:
        super().__init__(config, spec)
        self.enlargement: Enlargement = enlargement

    def make_network(self, maps: int) -> Network:
        assert isinstance(self.spec, ImageSpec)
        return UpsamplingUNet(self.config.unet, self.spec.channels, self.classes)

    @property
    def seeing(self) -> UpsamplingUNet:
        """The network."""
        assert isinstance(self.network, UpsamplingUNet)
        return self.network

    def enlarged(self, low: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Small pictures ``float32`` (B, C, h, w) at another size; None is that of the data."""
        size = size or (self.spec.height, self.spec.width)
        return F.interpolate(low, size, mode=self.enlargement, align_corners=False)

    def loss_beside(self, batch: Batch, low: Tensor, level: Tensor, rng: Rng) -> tuple[Tensor, Logs]:
        """The loss of ``edm``, given small pictures (B, C, h, w), spoilt already, and their levels (B,)."""
        wide = self.enlarged(spread(low, level))
        return self.denoising_loss(
            lambda x, t, label: self.seeing.look(x, t, wide, level, label), self.time_scale, batch, rng
        )

    def job_beside(
        self,
        low: Tensor,
        level: float,
        label: Tensor | None,
        options: EDMOptions,
        rng: SampleRng,
        *,
        size: tuple[int, int] | None = None,
        watch: Watch | None = None,
    ) -> Job:
        """Set up a sampling, given small pictures (B, C, h, w), spoilt by ``level`` already."""
        wide = self.enlarged(spread(low, level), size)
        denoiser = Beside(self, wide, level, self.everything(label, options.guidance), options.clip)
        return self.job_of(denoiser, label, options, rng, watch=watch)


def spread(low: Tensor, level: Tensor | float) -> Tensor:
    """Z + s eps at a variance that hardly depends on s: divided by (1 + s^2)^(1/2)."""
    level = torch.as_tensor(level, device=low.device, dtype=low.dtype)
    return low * (1 + level**2).rsqrt().view(-1, 1, 1, 1)


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Pictures (B, C, h, w) behind a Gaussian filter of 3x3 with deviations (B,) in pixels; edges are continued."""
    side = torch.exp(-0.5 / sigma**2).view(-1, 1, 1, 1)
    for ways in ((1, 1, 0, 0), (0, 0, 1, 1)):
        wide = F.pad(x, ways, mode="replicate")
        dim = 3 if ways[0] else 2
        n = x.shape[dim]
        x = (x + side * (wide.narrow(dim, 0, n) + wide.narrow(dim, 2, n))) / (1 + 2 * side)
    return x
