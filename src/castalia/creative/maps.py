"""Two-dimensional maps of a latent space, and where data lie on them.

Source
    Kingma & Welling 2014 (arXiv:1312.6114), figure 4: a square grid of equal probabilities, sent through the
    inverse of the normal distribution function, is decoded cell by cell. With more than two latent dimensions
    the same grid is laid on a :class:`Plane` in the latent space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Inference, Latents
from castalia.core.data import Dataset
from castalia.core.errors import UsageError
from castalia.creative.latents import decode, encode, encode_data

LIMIT = 5_000
"""Examples of a data set that are placed on a map at most."""


@dataclass(frozen=True)
class Plane:
    """A flat map through a latent space: z = origin + coordinates @ axes.

    One unit of a coordinate is one standard deviation of what the map shows (the prior, or the encoded data).

    Attributes:
        origin: latent ``float32`` (z,) at the coordinates (0, 0).
        axes: ``float32`` (2, z), at right angles to each other.
    """

    origin: Tensor
    axes: Tensor

    def latents(self, coordinates: Tensor) -> Tensor:
        """Latents (..., z) of map coordinates (..., 2)."""
        return self.origin + coordinates @ self.axes

    def coordinates(self, z: Tensor) -> Tensor:
        """Coordinates (..., 2) of the points of the map nearest to latents (..., z)."""
        squares = (self.axes**2).sum(1)
        # an axis of length zero (data that do not vary) has no coordinate but 0
        return (z - self.origin) @ self.axes.T / squares.clamp(min=torch.finfo(squares.dtype).tiny)


@dataclass(frozen=True)
class Embedding:
    """Where examples lie on a map.

    Attributes:
        coordinates: ``float32`` (N, 2), in the units of ``plane``.
        ids: ``int64`` (N,), positions in the data set.
        labels: ``int64`` (N,) class numbers, or None.
        plane: the map.
    """

    coordinates: Tensor
    ids: np.ndarray
    labels: Tensor | None
    plane: Plane


def plane_of_dims(model: Latents, dims: Sequence[int] = (0, 1)) -> Plane:
    """The plane of two latent dimensions, all others held at the prior's mean.

    Raises:
        UsageError: these are not two different dimensions of the model.
    """
    if len(dims) != 2 or dims[0] == dims[1] or not all(0 <= d < model.latent_dims for d in dims):
        raise UsageError(f"a map needs two different latent dimensions of 0 to {model.latent_dims - 1}, not {dims}")
    return Plane(torch.zeros(model.latent_dims), torch.eye(model.latent_dims)[list(dims)])


def plane_of(model: Latents, data: Callable[[], Dataset]) -> Plane:
    """The plane that shows most of a model: its latents where there are two, else where the data vary most.

    Args:
        model: any model with latents.
        data: opens the data; called only where they are needed.
    """
    if model.latent_dims > 2 and isinstance(model, Inference):
        return embed(model, data()).plane
    return plane_of_dims(model)


def principal_plane(z: Tensor) -> Plane:
    """The plane of the two directions in which latents ``float32`` (N, z) vary most, N >= 2, z >= 2.

    Raises:
        UsageError: there are too few latents or dimensions.
    """
    if len(z) < 2 or z.shape[1] < 2:
        raise UsageError(f"principal components need 2 examples and 2 dimensions or more, not {tuple(z.shape)}")
    centred = z.double() - z.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(z))
    axes = vectors.T.flip(0)[:2]
    # eigenvectors have no sign; the largest entry is made positive so that a map can be drawn again
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    deviations = values.flip(0)[:2].clamp(min=0).sqrt()
    return Plane(z.double().mean(0).float(), (axes * deviations[:, None]).float())


def latent_map(
    model: Latents,
    cells: int = 20,
    span: float = 2.0,
    *,
    plane: Plane | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """A square of pictures, one per cell of a map.

    Coordinates are the normal quantiles of evenly spaced probabilities, so that equal areas of the square
    hold equal prior mass; the outermost cells lie at plus and minus ``span``.

    Args:
        model: any model with latents.
        cells: pictures per side, at least 2.
        span: how far the map reaches, in units of the plane (standard deviations); above 0, at most 5.
        plane: the map, for example of :func:`embed`. None: the two latent dimensions where there are two,
            else the principal plane of ``x``.
        x: examples (B, ...) in natural units, for a principal plane.

    Returns:
        (cells, cells, ...) in natural units. Like a plot: the first coordinate grows to the right, the second
        upwards, so [0, 0] is the top left.

    Raises:
        UsageError: bad numbers, or more than two latent dimensions and neither ``plane`` nor ``x``.
    """
    if cells < 2 or not 0 < span <= 5:
        raise UsageError(
            f"a map needs at least 2 cells per side and a span above 0 and up to 5, not {cells} and {span}"
        )
    if plane is None:
        if model.latent_dims == 2:
            plane = plane_of_dims(model)
        elif x is None:
            raise UsageError(f"a map of {model.latent_dims} latent dimensions needs a plane, or examples to find one")
        elif not isinstance(model, Inference):
            raise UsageError("this model cannot find the latents of a picture: give a plane")
        else:
            plane = principal_plane(encode(model, x))
    right = normal_quantiles(cells, span)
    up, across = torch.meshgrid(right.flip(0), right, indexing="ij")
    return decode(model, plane.latents(torch.stack([across, up], dim=-1)))


def normal_quantiles(cells: int, span: float) -> Tensor:
    """Quantiles ``float32`` (cells,) of evenly spaced normal probabilities, from -span to span."""
    ends = torch.tensor([-span, span], dtype=torch.float64)
    low, high = torch.special.ndtr(ends).tolist()
    z = torch.special.ndtri(torch.linspace(low, high, cells, dtype=torch.float64))
    # exact symmetry and ends, which the round trip through probabilities blurs in the last digits
    z = (z - z.flip(0)) / 2
    z[0], z[-1] = -span, span
    return z.float()


def embed(model: Inference, data: Dataset, plane: Plane | None = None, limit: int = LIMIT) -> Embedding:
    """Place examples of a data set on a map.

    Args:
        model: any model with latents.
        data: the examples.
        plane: the map; None takes the two latent dimensions where there are two, else the principal plane.
        limit: examples placed at most, evenly spaced through the data.

    Raises:
        UsageError: there are too few examples or dimensions.
    """
    z, ids, labels = encode_data(model, data, limit)
    if plane is None:
        plane = plane_of_dims(model) if model.latent_dims == 2 else principal_plane(z)
    return Embedding(plane.coordinates(z), ids, labels, plane)
