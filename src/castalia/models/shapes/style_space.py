"""A frozen StyleGAN2 as a source of views, and StyleGAN-R, which makes its codes from camera, shape and texture.

Paper
    Zhang et al. 2021 (arXiv:2010.09125): section 3.1 (codes of the first layers are the viewpoint, the others the
    content), section 4 (StyleGAN-R: eq. 4, networks for camera, shape, texture and background; selectors that say which
    of these each number of the code comes from).

What differs, and why
    Codes are what the convolutions take: a style after the layer's affine map, as in the paper (2,048 and 3,008
    numbers there). The house's StyleGAN2 also adds up pictures of all levels; their codes belong to the viewpoint or
    the content like those of their level. Codes made are deviations from the mean code, in its deviations: then
    networks need not learn these first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.modulated import (
    Level,
    StyledConv,
    StyleGenerator,
    Synthesis,
    ToPicture,
    modulated_conv,
)
from castalia.models.adversarial.pyramid import pyramid
from castalia.models.adversarial.style_critic import widths_of
from castalia.models.adversarial.stylegan2 import StyleGAN2Config
from castalia.models.adversarial.styles import Mapping, bend
from castalia.models.shapes.inverse import MOST, norm
from castalia.nn.labels import classes_of
from castalia.nn.rasteriser import Camera
from castalia.nn.resampling import blur, enlarge

LATENTS = 2_000
"""Codes whose mean and deviations are found."""

TURN = 30.0
"""Degrees that count as 1."""


class Slot(NamedTuple):
    """A layer that takes a code.

    Attributes:
        layer: a styled convolution, or what makes a picture.
        style: number of the style that its code is made of.
        start: where its code begins.
        end: and where it ends.
    """

    layer: StyledConv | ToPicture
    style: int
    start: int
    end: int


class StyleSpace(nn.Module):
    """The generator of a StyleGAN2, whose pictures are made of codes (B, D): what its layers take.

    Args:
        config: of the StyleGAN2.
        spec: of its pictures.
        view_layers: styles that hold the viewpoint.

    Attributes:
        dims: D, length of a code.
        view: of which so many, the first, are the viewpoint.
    """

    def __init__(self, config: StyleGAN2Config, spec: ImageSpec, view_layers: int) -> None:
        super().__init__()
        sizes = pyramid(spec.height, spec.width)
        classes = classes_of(spec, config.conditional)
        mapping = Mapping(config.latent_dims, config.style_dims, config.mapping_layers, classes, config.mapping_rate)
        widths = widths_of(sizes, config.channels, config.most)
        synthesis = Synthesis(sizes, widths, config.style_dims, spec.channels, config.network, config.form)
        self.latent_dims, self.classes, self.view_layers = config.latent_dims, classes, view_layers
        self.generator = StyleGenerator(mapping, synthesis, synthesis.layers, synthesis.noise_sizes)
        slots = list(self.slots())
        self.dims = slots[-1].end
        self.view = max((s.end for s in slots if s.style < view_layers), default=0)

    def slots(self) -> Iterator[Slot]:
        """All layers that take a code, in the order of their codes."""
        at = end = 0

        def slot(layer: StyledConv | ToPicture, style: int) -> Slot:
            nonlocal end
            start, end = end, end + layer.weight.shape[1]
            return Slot(layer, style, start, end)

        synthesis = self.generator.synthesis
        assert isinstance(synthesis, Synthesis)
        for level in synthesis.levels:
            assert isinstance(level, Level)
            for layer in (level.first, level.second):
                if layer is not None:
                    yield slot(layer, at)
                    at += 1
            if level.picture is not None:
                yield slot(level.picture, at)

    def label(self, n: int, rng: SampleRng | None, like: Tensor) -> Tensor | None:
        """Classes for a conditional generator: all alike, the first."""
        return torch.zeros(n, dtype=torch.int64, device=like.device) if self.classes else None

    def codes(self, z: Tensor) -> Tensor:
        """Codes (B, D) of latents (B, z)."""
        styles = self.generator.styles(z, self.label(len(z), None, z))
        return torch.cat([slot.layer.affine(styles[:, slot.style]) for slot in self.slots()], 1)

    def pictures(self, codes: Tensor) -> Tensor:
        """Pictures ``float32`` (B, C, H, W), 0 to 1, of codes; the noise is the constant one."""
        told = {id(s.layer): codes[:, s.start : s.end] for s in self.slots()}
        synthesis = self.generator.synthesis
        assert isinstance(synthesis, Synthesis)
        x = picture = None
        for level in synthesis.levels:
            assert isinstance(level, Level)
            before = x
            if level.first is None:
                assert level.constant is not None
                x = level.constant.expand(len(codes), -1, -1, -1)
            else:
                assert x is not None
                x = _convolved(level.first, x, told[id(level.first)])
            x = _convolved(level.second, x, told[id(level.second)])
            if level.shortcut is not None:
                assert before is not None
                w = level.shortcut / level.shortcut.shape[1] ** 0.5
                x = (x + enlarge(F.conv2d(before, w), level.taps)) * 0.5**0.5
            if level.picture is not None:
                layer = level.picture
                code = told[id(layer)] * layer.scale
                new = modulated_conv(x, layer.weight, code, demodulate=False) + layer.bias[:, None, None]
                picture = new if picture is None else enlarge(picture, synthesis.taps) + new
        assert picture is not None
        return ((picture.float() + 1) / 2).clamp(0, 1)


def _convolved(layer: StyledConv, x: Tensor, code: Tensor) -> Tensor:
    """A styled convolution of which the code is given, with its constant noise."""
    x = modulated_conv(x, layer.weight * layer.scale, code, up=layer.up, form=layer.form)
    if layer.up:
        x = blur(x, layer.taps, gain=4.0, padding=(1, 1, 1, 1))
    return bend(layer.noise(x, None) + layer.bias[:, None, None])


class StyleRenderer(nn.Module):
    """StyleGAN-R: camera, shape, texture and background to a code (B, D) of a :class:`StyleSpace`.

    Of the viewpoint the ``view_dims`` numbers that differ most between viewpoints are made of the camera, the others
    are their mean. Each number of the content is a mixture of those that shape, texture and background make.

    Args:
        space: whose codes are made.
        viewpoints: how many have been chosen.
        vertices: of the mesh.
        texture: side of the texture.
        colours: channels of textures and backgrounds.
        size: height and width of pictures.
        view_dims: numbers that the camera makes.
        width: of the networks.

    Attributes:
        views: codes of the viewpoints (K, view), a buffer.
        mean: of all codes (D,), a buffer; ``std`` their deviations.
        chosen: which numbers of the viewpoint the camera makes, ``int64`` (view_dims,), a buffer.
    """

    views: Tensor
    mean: Tensor
    std: Tensor
    chosen: Tensor

    def __init__(
        self,
        space: StyleSpace,
        viewpoints: int,
        vertices: int,
        texture: int,
        colours: int,
        size: tuple[int, int],
        view_dims: int,
        width: int,
    ) -> None:
        super().__init__()
        content = space.dims - space.view
        self.split = space.view
        n = min(view_dims, space.view)
        self.camera = _perceptron(4, width, n)
        self.shape = _perceptron(3 * vertices, width, content)
        self.texture = _convolutions(colours, (texture, texture), width, content)
        self.background = _convolutions(colours, size, width, content)
        self.select = nn.Parameter(torch.zeros(3, content))
        self.register_buffer("views", torch.zeros(viewpoints, space.view))
        self.register_buffer("mean", torch.zeros(space.dims))
        self.register_buffer("std", torch.ones(space.dims))
        self.register_buffer("chosen", torch.arange(n))

    @torch.no_grad()
    def fit(self, space: StyleSpace, views: tuple[int, ...], rng: SampleRng) -> None:
        """Find the codes of the viewpoints, which numbers of them matter, and how codes are distributed.

        Args:
            space: of the generator.
            views: numbers of the pictures that ``castalia sample`` draws of it with seed 0.
            rng: of one row.
        """
        device = self.mean.device
        z = SampleRng(0, views, device).normal("latent", space.latent_dims)
        self.views.copy_(space.codes(z)[:, : self.split])
        many = space.codes(rng.normal("codes", LATENTS, space.latent_dims)[0].to(device))
        self.mean.copy_(many.mean(0))
        self.std.copy_(many.std(0).clamp(min=1e-4))
        spread = self.views.std(0) / self.std[: self.split]
        self.chosen.copy_(spread.topk(len(self.chosen)).indices.sort().values)

    def mixture(self) -> Tensor:
        """How far each number of the content comes from shape, texture and background, (3, content)."""
        return self.select.float().softmax(0)

    def entropy(self) -> Tensor:
        """Of the mixture, in nats, the mean over the content."""
        p = self.mixture()
        return -(p * p.clamp(min=1e-9).log()).sum(0).mean()

    def of_background(self, background: Tensor) -> Tensor:
        """What backgrounds (B, C, H, W), 0 to 1, make of the content, (B, content)."""
        return self.background(2 * background - 1).float()

    def forward(self, camera: Camera, moved: Tensor, texture: Tensor, background: Tensor) -> Tensor:
        """Codes (B, D).

        Args:
            camera: B cameras.
            moved: how vertices moved (B, V, 3).
            texture: (B, C, T, T), 0 to 1.
            background: the pictures without the things, (B, C, H, W), 0 to 1.
        """
        a = torch.deg2rad(camera.azimuth)
        told = torch.stack([a.cos(), a.sin(), camera.elevation / TURN, camera.distance.log()], 1)
        # beyond the chosen numbers, a viewpoint is the mean one
        middle = self.views.mean(0)
        made = middle[self.chosen] + self.std[self.chosen] * self.camera(told).float()
        view = middle.expand(len(told), -1).index_copy(1, self.chosen, made)
        parts = torch.stack(
            [self.shape(moved.flatten(1)), self.texture(2 * texture - 1), self.of_background(background)]
        )
        content = (self.mixture()[:, None] * parts.float()).sum(0)
        return torch.cat([view, self.mean[self.split :] + self.std[self.split :] * content], 1)

    def far(self, codes: Tensor, true: Tensor) -> Tensor:
        """Distance of codes (B, D) in deviations, root of the mean square, the mean over the batch."""
        return (((codes - true) / self.std).square().mean(1) + 1e-8).sqrt().mean()


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


def _convolutions(channels: int, size: tuple[int, int], width: int, outputs: int) -> nn.Sequential:
    """Pictures to vectors: convolutions that halve, a mean over places, one matrix."""
    layers: list[nn.Module] = []
    side, now, after = min(size), channels, max(1, min(width, MOST) // 8)
    while side > 4:
        layers += [nn.Conv2d(now, after, 3, 2, 1), norm(after), nn.SiLU()]
        side, now, after = -(-side // 2), after, min(2 * after, width)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * now, outputs))
