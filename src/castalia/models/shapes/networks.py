"""The networks of 3D-GAN and 3D-IWGAN: transposed convolutions from a vector to voxels, and convolutions back."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.layers import LabelBeside, Projection
from castalia.nn.trusted import Conv3d, ConvTranspose3d

SLOPE = 0.2
"""Of the leaky rectifiers."""

POOLED = 2
"""Places along each side that features keep."""


def doublings(size: int, first: int) -> int:
    """How many times a cube of ``first`` voxels doubles to become one of ``size``.

    Raises:
        UsageError: it does not.
    """
    times = round(math.log2(size / first)) if size > first else 0
    if times < 1 or first << times != size:
        allowed = ", ".join(str(first << t) for t in range(1, 6))
        raise UsageError(f"These networks make cubes of {allowed} voxels, not of {size}: set data.options.size.")
    return times


class VoxelGenerator(nn.Module):
    """Latents (B, z), and labels (B,) where there are classes, to voxels (B, 1, S, S, S).

    The vector becomes a cube of ``first`` voxels, which doubles until it has ``size``; channels halve each time. Batch
    normalisation and a rectifier follow each layer but the last, which ends in a nonlinearity of its own.

    Args:
        latent_dims: length of the vector.
        size: voxels along a side of the result.
        first: of the first cube.
        width: its channels.
        end: the last nonlinearity: ``nn.Sigmoid()`` for 0 to 1, ``nn.Tanh()`` for -1 to 1.
        classes: classes beside the latents; 0 for none.
    """

    def __init__(self, latent_dims: int, size: int, first: int, width: int, end: nn.Module, classes: int = 0) -> None:
        super().__init__()
        times = doublings(size, first)
        if width >> (times - 1) < 1:
            raise UsageError(f"{width} channels cannot halve {times - 1} times; make config.width larger.")
        self.beside = LabelBeside(classes, 0) if classes else None
        self.dense = ConvTranspose3d(latent_dims + classes, width, first)
        layers: list[nn.Module] = [nn.BatchNorm3d(width), nn.ReLU()]
        for i in range(times):
            now, after = width >> i, width >> (i + 1)
            last = i == times - 1
            layers.append(ConvTranspose3d(now, 1 if last else after, 4, 2, 1))
            if not last:
                layers += [nn.BatchNorm3d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers, end)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.beside is not None and label is not None:
            z = self.beside(z, label)
        return self.body(self.dense(z[:, :, None, None, None]))


class DenseGenerator(VoxelGenerator):
    """The same with a matrix to the first cube, whose biases are one for each voxel and not one for each channel."""

    def __init__(self, latent_dims: int, size: int, first: int, width: int, end: nn.Module, classes: int = 0) -> None:
        super().__init__(latent_dims, size, first, width, end, classes)
        self.dense = nn.Linear(latent_dims + classes, width * first**3)
        self.first = first

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.beside is not None and label is not None:
            z = self.beside(z, label)
        return self.body(self.dense(z).unflatten(1, (-1, *[self.first] * 3)))


class VoxelCritic(nn.Module):
    """Voxels (B, 1, S, S, S), and labels (B,) where there are classes, to logits (B, 1).

    Convolutions halve the cube until ``last`` voxels are left; channels double each time; one matrix judges the rest.

    Args:
        size: voxels along a side.
        last: of the last cube.
        width: channels after the first convolution.
        norm: batch normalisation after each convolution.
        classes: classes that it judges by; 0 for none.
    """

    def __init__(self, size: int, last: int, width: int, norm: bool, classes: int = 0) -> None:
        super().__init__()
        times = doublings(size, last)
        channels = [1, *(width << i for i in range(times))]
        self.layers = nn.ModuleList(Conv3d(now, after, 4, 2, 1) for now, after in pairwise(channels))
        self.norms = nn.ModuleList(nn.BatchNorm3d(after) if norm else nn.Identity() for after in channels[1:])
        flat = channels[-1] * last**3
        self.out = Projection(flat, classes) if classes else nn.Linear(flat, 1)

    def stack(self, x: Tensor) -> list[Tensor]:
        """What each convolution gives, after its nonlinearity."""
        found = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), SLOPE)
            found.append(x)
        return found

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        flat = self.stack(x)[-1].flatten(1)
        return self.out(flat) if label is None else self.out(flat, label)

    def features(self, x: Tensor) -> Tensor:
        """What the convolutions behind the first see of voxels, pooled by their maxima to 2 places a side: (B, F)."""
        seen = self.stack(x)
        seen = seen[1:] if len(seen) > 1 else seen
        return torch.cat([F.adaptive_max_pool3d(s, min(POOLED, s.shape[-1])).flatten(1) for s in seen], 1)


class ViewEncoder(nn.Module):
    """Views ``float32`` (B, C, side, side), -1 to 1, to means and log deviations of latents, each (B, z).

    Five convolutions: 11, 5, 5, 5 and 8 pixels wide, with strides of 4, 4, 2, 2 and 1 (2, 2, 2, 2 and 1 for sides below
    128), then a matrix for each. Batch normalisation follows the second to the fifth.

    Args:
        spec: of the views.
        latent_dims: length of the latents.
        width: channels after the first convolution; they double three times, then are twice the latents.
    """

    def __init__(self, spec: ImageSpec, latent_dims: int, width: int) -> None:
        super().__init__()
        strides = (4, 4, 2, 2, 1) if min(spec.height, spec.width) >= 128 else (2, 2, 2, 2, 1)
        kernels = (11, 5, 5, 5, 8)
        channels = [spec.channels, width, 2 * width, 4 * width, 8 * width, 2 * latent_dims]
        height, breadth = spec.height, spec.width
        layers: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            layers += [Same(channels[i], channels[i + 1], kernel, stride)]
            layers += [nn.BatchNorm2d(channels[i + 1])] if i else []
            layers += [nn.LeakyReLU(SLOPE)]
            height, breadth = -(-height // stride), -(-breadth // stride)
        self.body = nn.Sequential(*layers, nn.Flatten())
        flat = channels[-1] * height * breadth
        self.mean, self.log_std = nn.Linear(flat, latent_dims), nn.Linear(flat, latent_dims)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(view)
        return self.mean(h), torch.tanh(self.log_std(h))


class Same(nn.Conv2d):
    """A convolution whose result has its input's sides over the stride, rounded up; zeros lie around, more behind."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.pull = kernel, stride

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.pull
        pad = []
        for n in (input.shape[-1], input.shape[-2]):
            spare = max((-(-n // stride) - 1) * stride + kernel - n, 0)
            pad += [spare // 2, spare - spare // 2]
        return super().forward(F.pad(input, pad))


@torch.no_grad()
def set_weights(network: nn.Module, gain: float) -> None:
    """Weights N(0, 0.02^2), biases 0, and gains of batch normalisation N(1, ``gain``^2)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(layer.weight, 1.0, gain) if gain else nn.init.ones_(layer.weight)
