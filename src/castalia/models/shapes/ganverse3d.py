"""GANverse3D: a picture becomes a textured mesh, learned from views of things that nobody measured.

Papers
    Zhang et al. 2021, "Image GANs meet Differentiable Rendering for Inverse Graphics and Interpretable 3D Neural
    Rendering" (arXiv:2010.09125): section 3.1 (a StyleGAN as a source of views: its first four layers hold the
    viewpoint, the others the content; viewpoints are chosen once, and a person says of each to thirty degrees where it
    looks from), 3.2 (inverse graphics: a picture to the deformation of a sphere and a texture; cameras are parameters),
    4 (StyleGAN-R: camera, shape, texture and background to the codes of the StyleGAN; see ``style_space.py``).
    Chen et al. 2019 (arXiv:1908.01210): the rasteriser; see ``nn/rasteriser.py``.
    There is no code by the authors. Weights of the losses, rates and steps are the paper's.

Equations
    L = 20 L_col + 0.5 L_percept + 3 L_IoU + 5 L_lap + 5 L_sm + 2.5 L_mov, the first three of the picture seen by its
    own camera and of another view of the same thing seen by that view's camera (multi-view consistency): both are
    rendered from the mesh that the one picture gives. L_col: mean |M I - M' I'|. L_IoU: 1 - sum M M' / sum (M + M' -
    M M'). L_lap: mean square of the Laplacian of how vertices move. L_sm: mean (1 + cos)^2 of the angles at edges.
    L_mov: mean square of how vertices move. L_percept begins after a share of the steps.

What differs, and why
    Views come from a StyleGAN (``generator``), as in the paper, or, without one, from data that have several views of
    each thing (columns ``view``, ``other``, ``other_view``).
    A head tells the camera from the picture; it learns from the cameras of the viewpoints as they are found. So it can
    be measured how well a picture's azimuth is recovered, and pictures of one's own need none.
    Codes of shape and texture are drawn from a normal distribution whose divergence from N(0, 1) costs a little
    (``divergence``), as in a VAE: so new things can be drawn. 0 is the paper. The texture comes from the code alone.
    The paper's networks are not published layer by layer; these are convolutions that halve the picture, a
    multilayer perceptron for the shape, convolutions that double the texture.
    Masks are transparency where pictures have it, else what differs from the colour of the border; the paper has them
    from a trained segmenter. The perceptual loss compares maps of a random network, for want of a trained one.
    ``softness`` is in pixels and falls in the course of training; the paper's is constant, and its pictures are large.
    ``symmetric`` shapes are alike left and right, textures too.

Expected: see ``recipes/ganverse3d.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Inference, Meshes, Meshing
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Optimizer, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.spec import ScalarSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.models.shapes.cycles import cycle_loss, take, views_of, warm_up_loss
from castalia.models.shapes.ganverse3d_config import GANverse3DConfig, said_of
from castalia.models.shapes.inverse import (
    Codes,
    PictureEncoder,
    RandomFeatures,
    Seats,
    ShapeDecoder,
    TextureDecoder,
    border,
    degrees,
    foreground,
    overlap,
)
from castalia.models.shapes.meshes import folds, smoothed, sphere
from castalia.models.shapes.style_space import StyleRenderer, StyleSpace
from castalia.nn.rasteriser import Camera, render

VIEW, OTHER, OTHER_VIEW, AZIMUTH = "view", "other", "other_view", "azimuth"
"""Columns: number of the camera; another view of the same thing, its camera; and what samples can be given."""

FINE = 2
"""Pictures are drawn so many times as large, so that their edges are smooth."""

CAMERA_STD = 0.05
"""Deviation of the latent of the camera, whose azimuth is seen in a picture nearly exactly."""

SEEN = 2_000
"""Examples that are looked at for the colour of the background."""


@dataclass(frozen=True)
class ViewOptions(Sampling):
    """How to draw pictures of new things.

    Attributes:
        by: ``mesh``: the mesh is rendered; ``stylegan``: by the StyleGAN, which StyleGAN-R tells what to draw.
    """

    by: Literal["mesh", "stylegan"] = "mesh"


class GANverse3D(Generator[GANverse3DConfig, ImageSpec], Inference, Meshing):
    """A picture to the deformation of a sphere, its texture and a camera; the mesh is seen from wherever one likes.

    Latents are where a picture is taken from (one number; its share of the normal distribution is that of the circle),
    the code of the shape, and that of the texture.
    """

    Config = GANverse3DConfig
    SampleOptions: ClassVar[type[Sampling]] = ViewOptions
    vertices: Tensor
    faces: Tensor
    places: Tensor
    edges: Tensor
    wings: Tensor
    mirror: Tensor
    degree: Tensor
    background: Tensor

    def __init__(self, config: GANverse3DConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.colours = 1 if spec.channels == 1 else 3
        dims = c.shape_dims + c.texture_dims
        self.latent_dims = 1 + dims
        self.seats = Seats(said_of(spec, c), c.elevation, c.distance, c.lens)
        ball = sphere(c.divisions)
        self.encoder = PictureEncoder(self.colours, (spec.height, spec.width), c.width, dims)
        self.shape = ShapeDecoder(c.shape_dims, c.hidden, len(ball.vertices))
        self.texture = TextureDecoder(c.texture_dims, c.texture, c.texture_width, self.colours)
        self.features = RandomFeatures(self.colours)
        for name in ("vertices", "faces", "places", "edges", "wings", "mirror", "degree"):
            self.register_buffer(name, getattr(ball, name).clone(), persistent=False)
        self.register_buffer("background", torch.ones(self.colours))
        self.space: StyleSpace | None = None
        self.renderer: StyleRenderer | None = None
        if c.generator is not None:
            size, n = (spec.height, spec.width), len(c.views)
            self.space = StyleSpace(c.generator, spec, c.view_layers)
            self.renderer = StyleRenderer(
                self.space, n, len(ball.vertices), c.texture, self.colours, size, c.view_dims, c.renderer_width
            )

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Take the generator of the parent, where there is to be one, and find the colour of the background.

        Raises:
            UsageError: there is no parent ``generator``, or it is another than the configuration says.
        """
        if self.space is not None and self.renderer is not None:
            take(self.space, self.config, parents)
            self.renderer.fit(self.space, self.config.views, SampleRng(0, [0], self.device))
        if self.spec.channels != 4:
            seen = torch.cat([data.batch(ids).x for ids in np.array_split(some_of(data, SEEN), 8) if len(ids)])
            self.background.copy_(border(seen.float() / 255).median(0).values)

    def inverse(self) -> nn.ModuleList:
        """What the inverse graphics network is made of."""
        return nn.ModuleList([self.encoder, self.shape, self.texture, self.seats])

    def frozen(self) -> tuple[nn.Module, ...]:
        return () if self.space is None else (self.space,)

    def stages(self) -> tuple[Stage, ...]:
        c, inverse = self.config, Objective("inverse", self.inverse(), self.inverse_loss)
        if self.space is None or self.renderer is None:
            return (Stage("inverse", (inverse,)),)
        optimizer = Optimizer("adam", lr=c.renderer_lr, betas=(0.9, 0.999))
        warm = Objective("renderer", self.renderer, partial(warm_up_loss, self), optimizer)
        tune = Objective("renderer", self.renderer, partial(cycle_loss, self), optimizer)
        views = partial(views_of, self)
        return (
            Stage("inverse", (inverse,), transform=views),
            Stage("warm-up", (warm,), share=c.warm_up, transform=views),
            Stage("fine-tune", (replace(inverse, loss=self.late_loss), tune), share=c.fine_tune, transform=views),
        )

    # from pictures to meshes and back

    def inside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of pictures ``uint8`` (B, C, H, W) the colours, 0 to 1 and 0 outside the mask, and the mask (B, 1, H, W)."""
        return self.parted(x.float() / 255)

    def parted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same of pictures of 0 to 1."""
        mask = x[:, 3:] if self.spec.channels == 4 else foreground(x)
        return x[:, : self.colours] * mask, mask

    def look_at(self, x: Tensor) -> Codes:
        """What the encoder says of pictures ``uint8`` (B, C, H, W)."""
        return self.encoder(*self.inside(x))

    def deformed(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Vertices (B, V, 3) of codes (B, d), and how far they have moved."""
        moved = self.shape(code[:, : self.config.shape_dims])
        if self.config.symmetric:
            image = moved.index_select(1, self.mirror) * moved.new_tensor([-1.0, 1.0, 1.0])
            moved = (moved + image) / 2
        return self.config.radius * self.vertices + moved, moved

    def painted(self, code: Tensor) -> Tensor:
        """Textures (B, C, T, T) of codes, 0 to 1."""
        texture = self.texture(code[:, self.config.shape_dims :])
        return (texture + texture.flip(3)) / 2 if self.config.symmetric else texture

    # learning

    def inverse_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The losses of section 3.2 on pictures and, where there are, on other views of the same things."""
        c = self.config
        number = seen_by(batch, VIEW)
        found = self.look_at(batch.x)
        code = found.mean + found.log_std.exp() * rng.normal("code", found.mean.shape[1])
        vertices, moved = self.deformed(code)
        texture = self.painted(code)
        pictures, numbers, times = batch.x, number, 1
        if OTHER in batch.extra:
            pictures = torch.cat([pictures, batch.extra[OTHER]])
            numbers, times = torch.cat([number, seen_by(batch, OTHER_VIEW)]), 2
        begin, end = c.softness
        softness = begin * (end / begin) ** progress.fraction
        camera = self.seats(numbers)
        with torch.autocast(vertices.device.type, enabled=False):
            made = render(
                vertices.repeat(times, 1, 1),
                self.faces,
                self.places,
                texture.repeat(times, 1, 1, 1),
                camera,
                self.spec.height,
                self.spec.width,
                softness,
            )
            true, mask = self.inside(pictures)
            colour = (true - made.colour).abs().mean()
            iou = overlap(mask[:, 0], made.alpha).mean()
            loss = c.colour * colour + c.overlap * (1 - iou)
            logs = {"colour": colour.detach(), "iou": iou.detach()}
            if c.percept and progress.fraction >= c.percept_after:
                near = zip(self.features(true), self.features(made.colour), strict=True)
                percept = torch.stack([(a - b).square().sum(1).mean() for a, b in near]).mean()
                loss = loss + c.percept * percept
                logs["percept"] = percept.detach()
            laplacian = smoothed(moved, self.edges, self.degree).square().sum(2).mean()
            smooth = folds(vertices, self.edges, self.wings).square().mean()
            loss = loss + c.laplacian * laplacian + c.smooth * smooth + c.moving * moved.square().sum(2).mean()
        divergence = (0.5 * ((2 * found.log_std).exp() + found.mean.square() - 1) - found.log_std).mean()
        # the head follows the cameras, and not they it
        own = Camera(*(t[: len(number)].detach() for t in camera[:3]))
        a = torch.deg2rad(own.azimuth)
        around = 1 - (found.azimuth * torch.stack([a.cos(), a.sin()], 1)).sum(1).mean()
        rest = (found.camera - self.seats.moved.detach().index_select(0, number)[:, 1:]).square().sum(1).mean()
        loss = loss + c.divergence * divergence + c.camera * (around + rest)
        return loss, {**logs, "divergence": divergence.detach(), "camera": around.detach()}

    def late_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The same as at the end of its stage."""
        return self.inverse_loss(batch, rng, Progress(progress.steps, progress.steps))

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {AZIMUTH: ScalarSpec("degrees", low=0.0)}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Any, watch: Watch | None) -> Batch:
        """Pictures of new things, from anywhere around or from the azimuth that is given."""
        z = options.temperature * rng.normal("latent", self.latent_dims)
        if options.by == "mesh":
            return self.decode(z, given)
        if self.space is None or self.renderer is None:
            raise UsageError("by=stylegan needs a run that was trained with a parent `generator`.")
        camera = self.seats.usual(self.around(z, given))
        _, moved = self.deformed(z[:, 1:])
        colour = self.background if self.spec.channels != 4 else 0 * self.background
        ground = colour[:, None, None].expand(n, -1, self.spec.height, self.spec.width)
        codes = self.renderer(camera, moved, self.painted(z[:, 1:]), ground)
        return Batch.of((255 * self.space.pictures(codes)).round().to(torch.uint8))

    def around(self, z: Tensor, given: Given) -> Tensor:
        """Azimuths (B,) in degrees: what is given, or what the latents say."""
        return given[AZIMUTH] if AZIMUTH in given else 360 * torch.special.ndtr(z[:, 0].float())

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        given = check_given(self, given, len(z))
        return Batch.of(self.look(self.mesh(z), self.around(z, given)))

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        found = self.look_at(batch.x)
        share = (degrees(found.azimuth).double() / 360).clamp(1e-6, 1 - 1e-6)
        z = torch.cat([torch.special.ndtri(share).float()[:, None], found.mean], 1)
        if rng is None:
            return z
        return z + self.spread(found).exp() * rng.normal("code", self.latent_dims)

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        log_std, mean = self.spread(self.look_at(batch.x)), self.encode(batch)
        return 0.5 * ((2 * log_std).exp() + mean.square() - 1) - log_std

    def spread(self, found: Codes) -> Tensor:
        """Logarithms of the deviations of latents, (B, latent_dims)."""
        return torch.cat([torch.full_like(found.log_std[:, :1], float(np.log(CAMERA_STD))), found.log_std], 1)

    @torch.no_grad()
    def mesh(self, z: Tensor) -> Meshes:
        vertices, _ = self.deformed(z[:, 1:].float())
        texture = (255 * self.painted(z[:, 1:].float())).round().clamp(0, 255).to(torch.uint8)
        return Meshes(vertices.float(), self.faces, self.places, texture)

    @torch.no_grad()
    def look(self, meshes: Meshes, azimuth: Tensor) -> Tensor:
        return self.seen(meshes, self.seats.usual(azimuth.float().to(self.device)))

    @torch.no_grad()
    def seen(self, meshes: Meshes, camera: Camera) -> Tensor:
        """Pictures ``uint8`` (B, C, H, W) of meshes by cameras."""
        h, w = self.spec.height, self.spec.width
        texture = meshes.texture.to(self.device).float()
        vertices = meshes.vertices.to(self.device)
        made = render(vertices, self.faces, self.places, texture, camera, FINE * h, FINE * w, 0.0)
        alpha = F.avg_pool2d(made.covered[:, None].float(), FINE)
        x = F.avg_pool2d(made.colour, FINE)
        if self.spec.channels == 4:
            x = torch.cat([x / alpha.clamp(min=1 / FINE**2), 255 * alpha], 1)
        else:
            x = x + 255 * (1 - alpha) * self.background[:, None, None]
        return x.round().clamp(0, 255).to(torch.uint8)

    @torch.no_grad()
    def retaken(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """What pictures show, taken again.

        Returns:
            Azimuths (B,) in degrees as the pictures tell; the pictures ``uint8`` (B, C, H, W) from cameras that they
            tell; and, where the batch has ``other_view``, of the same meshes from the cameras of these viewpoints.
        """
        found = self.look_at(batch.x)
        meshes = self.mesh(torch.cat([found.mean[:, :1] * 0, found.mean], 1))
        own = self.seats.camera(degrees(found.azimuth), found.camera)
        other = self.seen(meshes, self.seats(batch.extra[OTHER_VIEW])) if OTHER_VIEW in batch.extra else None
        return own.azimuth, self.seen(meshes, own), other


def seen_by(batch: Batch, column: str) -> Tensor:
    """Numbers of cameras (B,).

    Raises:
        UsageError: the batch has none.
    """
    if column not in batch.extra:
        raise UsageError(f"This model learns from views, and the data have no column {column!r}: take car-views.")
    return batch.extra[column]
