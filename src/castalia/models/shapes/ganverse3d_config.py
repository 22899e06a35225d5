"""The configuration of GANverse3D, and where its viewpoints are said to be."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.config import Config
from castalia.core.errors import UsageError
from castalia.core.spec import LabelSpec
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.stylegan2 import StyleGAN2Config

VIEW = "view"

BIN = 30
"""Degrees to which a person says from where a viewpoint looks."""


@dataclass(frozen=True)
class GANverse3DConfig(Config):
    """Configuration of GANverse3D.

    Attributes:
        divisions: of the triangles of the sphere: 0 to 5 (12, 42, 162, 642, 2,562 or 10,242 vertices).
        radius: of the sphere, before it is deformed.
        symmetric: shapes and textures are alike left and right.
        shape_dims: length of the code of a shape.
        texture_dims: of a texture.
        width: channels of the encoder's first convolution; they double as the picture halves.
        hidden: width of the layers from the code of a shape to its vertices.
        texture: pixels along the side of a texture, a power of two.
        texture_width: channels of its largest maps; they double as these halve.
        elevation: degrees from which cameras look down, at first.
        distance: of the cameras, at first.
        lens: degrees that a picture spans.
        softness: pixels over which the edge of a silhouette falls off, at the beginning of training and at its end.
        colour: weight of the difference of colours.
        percept: of the difference of features.
        percept_after: share of the steps after which that begins.
        overlap: of the silhouettes' overlap.
        laplacian: of uneven movement of neighbouring vertices.
        smooth: of folds.
        moving: of movement.
        divergence: of the codes' divergence from a standard normal distribution.
        camera: of what the picture tells of its camera.
        generator: of the StyleGAN2 that views are taken from: that of the parent run ``generator``; none: data have
            views.
        views: viewpoints of that: numbers of pictures that ``castalia sample`` draws of it with seed 0.
        view_bins: from where each of them looks, as a person says it: 0 for the front, 1 for 30 degrees, to 11; -1: not
            said yet.
        view_layers: styles that hold the viewpoint; the others hold the content.
        view_dims: numbers of the codes of the viewpoint that a camera of one's own sets (StyleGAN-R).
        renderer_width: of the networks of StyleGAN-R.
        warm_up: share of the steps in which those learn alone.
        fine_tune: in which they learn together with the others.
        renderer_lr: learning rate of those.
        consistency: weight of shape, texture and background that come back in the latter.
    """

    divisions: int = 3
    radius: float = 0.5
    symmetric: bool = False
    shape_dims: int = 256
    texture_dims: int = 256
    width: int = 64
    hidden: int = 1024
    texture: int = 256
    texture_width: int = 32
    elevation: float = 0.0
    distance: float = 4.0
    lens: float = 30.0
    softness: tuple[float, float] = (1.5, 1.5)
    colour: float = 20.0
    percept: float = 0.5
    percept_after: float = 0.015
    overlap: float = 3.0
    laplacian: float = 5.0
    smooth: float = 5.0
    moving: float = 2.5
    divergence: float = 0.0
    camera: float = 1.0
    generator: StyleGAN2Config | None = None
    views: tuple[int, ...] = ()
    view_bins: tuple[int, ...] = ()
    view_layers: int = 4
    view_dims: int = 144
    renderer_width: int = 512
    warm_up: float = 0.0035
    fine_tune: float = 0.0125
    renderer_lr: float = 1e-5
    consistency: float = 1.0

    def __post_init__(self) -> None:
        counts = (self.shape_dims, self.texture_dims, self.width, self.hidden, self.texture_width)
        if min(*counts, self.view_layers, self.view_dims, self.renderer_width) < 1:
            raise ValueError("dims, widths and view_layers must be positive")
        if not 0 <= self.divisions <= 5:
            raise ValueError("divisions is 0 to 5")
        if self.texture < 8 or self.texture > 2048 or self.texture & (self.texture - 1):
            raise ValueError("texture is a power of two, 8 to 2048")
        if (
            min(self.radius, self.distance, *self.softness, self.warm_up, self.fine_tune, self.renderer_lr) <= 0
            or not 1 <= self.lens < 120
        ):
            raise ValueError("radius, distance, softness, warm_up and fine_tune must be positive; lens is 1 to 120")
        if self.radius >= self.distance:
            raise ValueError("distance must be larger than radius: cameras are outside")
        weights = (self.colour, self.percept, self.overlap, self.laplacian, self.smooth, self.moving, self.divergence)
        if min(*weights, self.camera, self.consistency) < 0 or not 0 <= self.percept_after <= 1:
            raise ValueError("weights must not be negative, and percept_after lies in [0, 1]")
        if not -80 <= self.elevation <= 80:
            raise ValueError("elevation is -80 to 80 degrees")
        if len(self.views) != len(self.view_bins) or not all(-1 <= b < 360 // BIN for b in self.view_bins):
            raise ValueError("views and view_bins are as many; a bin is 0 to 11, in thirties of degrees")
        if min(self.views, default=0) < 0 or len(set(self.views)) < len(self.views):
            raise ValueError("views are different numbers of pictures, from 0")
        if self.generator is not None and len(self.views) < 2:
            raise ValueError("a generator needs at least two viewpoints: views and view_bins")


def said_of(spec: ImageSpec, config: GANverse3DConfig) -> list[float]:
    """Degrees that are said of each viewpoint, of the generator's or of the data's.

    Raises:
        UsageError: there are no viewpoints, or their names do not begin with degrees.
    """
    if config.generator is not None:
        return [float(BIN * max(b, 0)) for b in config.view_bins]
    cameras = dict(spec.columns).get(VIEW)
    if not isinstance(cameras, LabelSpec):
        raise UsageError(
            "The data have no views to learn from. Take a set that has (car-views, solid-views), or a StyleGAN2 of "
            "your pictures as the parent `generator`, with config.generator, config.views and config.view_bins."
        )
    try:
        return [float(name.split()[0]) % 360 for name in cameras.classes]
    except (ValueError, IndexError) as error:
        raise UsageError(
            "Names of viewpoints begin with the degrees from which they look, as a person says them: '030 degrees'. "
            f"({error})"
        ) from error
