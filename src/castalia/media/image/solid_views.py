"""Pictures of coloured solids from known sides: chairs, tables, lamps and cars made by code, each seen several times.

A picture is one view of one solid, with transparency where there is nothing. Views are taken by a few cameras, as those
of a StyleGAN are that has learned a few viewpoints: what is told of a camera is its number and, in thirties of degrees,
from where it looks, as a person would say at a glance (Zhang et al. 2021, arXiv:2010.09125, section 3.1). From where it
really looks stands beside, to be measured against.

Light is fixed to the solid, so that a place of its surface has one colour from all sides.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.rng import Rng, derive
from castalia.core.spec import LabelSpec, ScalarSpec
from castalia.core.specs.image import ImageSpec
from castalia.media.image.decode import ImageOptions
from castalia.media.shape.solids import KINDS, PartMesh, solid_mesh
from castalia.nn.rasteriser import Camera, corners, interpolate, project, visible

VIEW, AZIMUTH, OTHER, OTHER_VIEW = "view", "azimuth", "other", "other_view"
"""Columns: number of the camera, where it really looks from (degrees); another view of the same solid, its camera."""

CAMERAS = 24
BIN = 30
"""Degrees to which a person says from where a camera looks."""

ABOVE = 0.95
"""Radius of the ball into which each solid fits."""

DISTANCE, LENS = 3.9, 30.0
"""Of all cameras: how far away, and how many degrees a picture spans."""

FINE = 2
"""Drawn so many times as large."""

SUN = (0.0, 0.8, 0.6)
LEAST_LIGHT = 0.55


class Seat(NamedTuple):
    """A camera.

    Attributes:
        azimuth: degrees around the solid; 0 looks at its front, 90 at its left side (that at x).
        elevation: degrees from which it looks down.
        said: azimuth as a person says it.
    """

    azimuth: float
    elevation: float
    said: int


def seats() -> tuple[Seat, ...]:
    """The cameras: around the solid, not quite evenly, and from a little above."""
    random = np.random.Generator(np.random.Philox(derive(0, "seats")))
    found = []
    for k in range(CAMERAS):
        azimuth = (360 / CAMERAS * k + float(random.uniform(-5, 5))) % 360
        found.append(Seat(azimuth, float(random.uniform(8, 16)), round(azimuth / BIN) * BIN % 360))
    return tuple(found)


@final
class SolidViews(Dataset):
    """Views ``uint8`` (C, H, W) of solids, drawn when they are first asked for.

    Beside each stand the columns ``view`` (number of the camera; its name begins with what a person says), ``azimuth``
    (degrees), and another view of the same solid with its camera: ``other``, ``other_view``. In training (with ``rng``)
    it is a random one, else the next but one.

    Args:
        name: what to call the data.
        split: of the solids.
        things: how many solids.
        views: of each, at most :data:`CAMERAS`.
        kinds: which of :data:`KINDS`; several become classes.
        options: size and channels of the pictures; one number of channels less than four, and what is transparent is
            background.
        size: height and width where the options name none.
    """

    def __init__(
        self, name: str, split: str, things: int, views: int, kinds: tuple[str, ...], options: ImageOptions, size: int
    ) -> None:
        if options.flip:
            raise UsageError(f"{name}: a view that is mirrored is seen from elsewhere; leave data.options.flip out.")
        height, width = options.height_width or (size, size)
        self.seats = seats()
        self._channels: int = options.channels or 4
        back = options.background
        self._background = torch.tensor(back if isinstance(back, tuple) else (back,) * 3, dtype=torch.float32)
        cameras = LabelSpec(tuple(f"{seat.said:03d} degrees, camera {k}" for k, seat in enumerate(self.seats)))
        shape = (self._channels, height, width)
        # Narrower than the base class says, and never set again.
        self.spec: ImageSpec = ImageSpec(  # pyright: ignore[reportIncompatibleVariableOverride]
            *shape,
            kinds if len(kinds) > 1 else (),
            columns=(
                (VIEW, cameras),
                (AZIMUTH, ScalarSpec("degrees", low=0.0)),
                (OTHER, ImageSpec(*shape)),
                (OTHER_VIEW, cameras),
            ),
        )
        self.name, self.views = name, views
        mine = [KINDS.index(kind) for kind in kinds]
        self._numbers = [len(KINDS) * (i // len(mine)) + mine[i % len(mine)] for i in range(things)]
        self._split = split
        owner = torch.arange(things * views) // views
        self.labels: Tensor | None = owner % len(mine) if len(mine) > 1 else None
        # of each solid the cameras are spread around it
        first = np.random.Generator(np.random.Philox(derive(0, name, split, "cameras"))).integers(0, CAMERAS, things)
        spread = np.arange(views) * CAMERAS // views
        self.cameras = torch.from_numpy((first[:, None] + spread) % CAMERAS).long()  # (things, views)
        self._drawn: dict[int, Tensor] = {}
        digest = hashlib.blake2b(f"{shape} {kinds} {LENS} {DISTANCE} {FINE} {SUN}".encode(), digest_size=16)
        digest.update(f"{self.seats} {self._background.tolist()} {ABOVE} {LEAST_LIGHT}".encode())
        digest.update(self.cameras.numpy().data)
        for number in self._numbers:
            mesh = solid_mesh(number, split)
            digest.update(np.round(mesh.vertices, 6).tobytes() + mesh.colours.tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.cameras.numel()

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        index = torch.from_numpy(np.asarray(ids, np.int64))
        thing, slot = index // self.views, index % self.views
        step = torch.full_like(slot, min(2, self.views - 1))
        if rng is not None and self.views > 1:
            step = 1 + rng.integers("other view", self.views - 1).cpu()
        other = (slot + step) % self.views
        pictures = [self._of(i) for i in thing.tolist()]
        view = self.cameras[thing, slot]
        azimuth = torch.tensor([seat.azimuth for seat in self.seats])
        return Batch(
            torch.stack([p[s] for p, s in zip(pictures, slot.tolist(), strict=True)]),
            index,
            None if self.labels is None else self.labels[index],
            {
                VIEW: view,
                AZIMUTH: azimuth[view],
                OTHER: torch.stack([p[s] for p, s in zip(pictures, other.tolist(), strict=True)]),
                OTHER_VIEW: self.cameras[thing, other],
            },
        )

    def _of(self, thing: int) -> Tensor:
        """All views of a solid, ``uint8`` (views, C, H, W)."""
        if thing not in self._drawn:
            mesh = solid_mesh(self._numbers[thing], self._split)
            mine = [self.seats[k] for k in self.cameras[thing].tolist()]
            rgba = draw(mesh, mine, self.spec.height, self.spec.width)
            self._drawn[thing] = _as(rgba, self._channels, self._background)
        return self._drawn[thing]


def draw(mesh: PartMesh, cameras: list[Seat], height: int, width: int) -> Tensor:
    """A solid from several sides, ``uint8`` (N, 4, height, width): straight alpha, black where there is nothing."""
    vertices = torch.from_numpy(mesh.vertices).float()
    vertices = vertices - (vertices.amax(0) + vertices.amin(0)) / 2
    vertices = ABOVE * vertices / vertices.norm(dim=1).max()
    faces = torch.from_numpy(mesh.faces)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = F.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    light = LEAST_LIGHT + (1 - LEAST_LIGHT) * (normal @ torch.tensor(SUN)).clamp(min=0)
    colour = torch.from_numpy(mesh.colours).float() * light[:, None]
    camera = Camera(
        torch.tensor([seat.azimuth for seat in cameras]),
        torch.tensor([seat.elevation for seat in cameras]),
        torch.full((len(cameras),), DISTANCE),
        LENS,
    )
    triangles = corners(project(vertices[None], camera, FINE * height, FINE * width), faces)
    # what faces away is hidden behind what does not, for all parts are closed
    ab, ac = (triangles[:, :, i, :2] - triangles[:, :, 0, :2] for i in (1, 2))
    away = ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0] >= 0
    triangles = torch.where(away[..., None, None], -1.0, triangles)  # behind the camera
    seen = visible(triangles, FINE * height, FINE * width)
    painted = interpolate(triangles, seen, colour[:, None].expand(-1, 3, -1).contiguous()).movedim(3, 1)
    alpha = F.avg_pool2d((seen >= 0).float()[:, None], FINE)
    rgb = F.avg_pool2d(painted, FINE) / alpha.clamp(min=1 / FINE**2)
    return torch.cat([rgb, 255 * alpha], 1).round().clamp(0, 255).to(torch.uint8)


def _as(rgba: Tensor, channels: int, background: Tensor) -> Tensor:
    """Pictures with fewer channels: on a background, or grey."""
    if channels == 4:
        return rgba
    alpha = rgba[:, 3:].float() / 255
    rgb = alpha * rgba[:, :3] + (1 - alpha) * background[:, None, None]
    if channels == 1:
        rgb = (rgb * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    return rgb.round().clamp(0, 255).to(torch.uint8)
