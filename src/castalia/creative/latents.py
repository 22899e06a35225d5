"""Reconstructing, interpolating and exploring with any model that declares ``Latents`` or ``Inference``.

Examples go in as a batch, or as their ``x`` alone; what comes out is ``x``, in natural units (pictures: ``uint8``
(B, C, H, W)). Models are asked for :data:`ROWS` rows at a time and the answers are gathered on the CPU, so that memory
on the device is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.capabilities import Inference, Latents, Searchable
from castalia.core.data import Batch, Dataset, as_batch, some_of
from castalia.core.errors import UsageError
from castalia.core.guest import guest
from castalia.core.rng import SampleRng
from castalia.creative.interpolation import PATHS, How, walk

ROWS = 256
"""Rows encoded or decoded at once."""

VALUES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Where a traversal looks, in standard deviations of the prior."""

DIMS = 10
"""How many latent dimensions a traversal shows."""


def encode(model: Inference | Searchable, examples: Batch | Tensor) -> Tensor:
    """Mean latents ``float32`` (B, z) of examples (B, ...), on the CPU; searched for where there is no encoder."""
    return _of_examples(model, model.encode if isinstance(model, Inference) else model.search, examples)


def decode(model: Latents, z: Tensor, label: int | None = None) -> Tensor:
    """Expected examples of latents (..., z), on the CPU: natural units, (..., *shape of an example).

    ``label`` is the class that a conditional model is asked for.
    """

    def call(rows: Tensor) -> Tensor:
        given = None if label is None else {"label": torch.full((len(rows),), label, device=rows.device)}
        return model.decode(rows, given).x

    flat = _in_chunks(model, call, z.reshape(-1, z.shape[-1]))
    return flat.unflatten(0, z.shape[:-1])


def encode_data(model: Inference, data: Dataset, limit: int) -> tuple[Tensor, np.ndarray, Tensor | None]:
    """Mean latents of at most ``limit`` examples, evenly spaced through a data set.

    Returns:
        Latents ``float32`` (N, z), their ids ``int64`` (N,), and labels ``int64`` (N,) where there are any.

    Raises:
        UsageError: the data set is empty or ``limit`` is not positive.
    """
    if not len(data) or limit < 1:
        raise UsageError(f"there is nothing to encode: {data.name} has {len(data)} examples and the limit is {limit}")
    ids = some_of(data, limit)
    latents, labels = [], []
    for start in range(0, len(ids), ROWS):
        batch = data.batch(ids[start : start + ROWS])
        latents.append(encode(model, batch))
        if batch.label is not None:
            labels.append(batch.label.cpu())
    return torch.cat(latents), ids, torch.cat(labels) if labels else None


def reconstruct(model: Inference | Searchable, x: Batch | Tensor) -> Tensor:
    """Examples (B, ...) through the bottleneck and back: the decoded means of their posteriors."""
    return decode(model, encode(model, x))


def interpolate(
    model: Inference | Searchable, x_from: Batch | Tensor, x_to: Batch | Tensor, frames: int, how: How = "spherical"
) -> Tensor:
    """Pictures on the way from some examples to others, row by row.

    Args:
        model: any model with latents.
        x_from: examples (B, ...).
        x_to: examples (B, ...).
        frames: pictures per row, at least 2.
        how: arcs or straight lines.

    Returns:
        (B, frames, ...) in natural units; the first and last frame of a row are the two reconstructions.

    Raises:
        UsageError: the rows do not pair up, or less than two frames.
    """
    if len(x_from) != len(x_to) or frames < 2:
        raise UsageError(f"interpolate needs pairs and 2 frames or more, not {len(x_from)}, {len(x_to)} and {frames}")
    a, b = encode(model, x_from), encode(model, x_to)
    z = torch.stack([PATHS[how](a, b, i / (frames - 1)) for i in range(frames)], dim=1)
    return decode(model, z)


def random_walk(
    model: Latents,
    n_points: int,
    frames: int,
    rng: SampleRng,
    how: How = "spherical",
    loop: bool = True,
    label: int | None = None,
) -> Tensor:
    """Frames of a film that wanders between draws from the prior.

    The points are those that ``model.sample(n_points, rng=rng)`` decodes in models that draw their latents
    under the purpose ``latent``, so that a film can be made to visit samples that somebody liked.

    Args:
        model: any model with latents.
        n_points: draws to visit; equals ``rng.rows``.
        frames: pictures in all.
        rng: one stream per point.
        how: arcs or straight lines.
        loop: come back to the first point (see :func:`~castalia.creative.interpolation.walk`).
        label: the class that a conditional model is asked for.

    Returns:
        (frames, ...) in natural units.

    Raises:
        UsageError: ``n_points`` is not ``rng.rows``, or less than one point or frame.
    """
    if n_points != rng.rows:
        raise UsageError(f"random_walk was asked for {n_points} points with randomness for {rng.rows}")
    return decode(model, walk(rng.normal("latent", model.latent_dims).cpu(), frames, how, loop), label)


def informative_dims(model: Inference, x: Batch | Tensor, count: int = DIMS) -> list[int]:
    """The latent dimensions that say most about examples (B, ...): by mean KL to the prior, largest first.

    A dimension whose KL is near 0 nats is ignored by the decoder (posterior collapse): a traversal of it
    shows nothing.
    """
    kl = _of_examples(model, model.posterior_kl, x).double().mean(0)
    return kl.argsort(descending=True, stable=True)[:count].tolist()


def traverse(
    model: Latents, x: Batch | Tensor | None, dims: Sequence[int] | None = None, values: Sequence[float] = VALUES
) -> Tensor:
    """What single latent dimensions do: each in turn is set to each value, the others stay.

    Args:
        model: any model with latents.
        x: examples (B, ...); the first is the one that is changed. None starts from the prior's mean.
        dims: latent dimensions; None takes the :data:`DIMS` most informative about ``x``.
        values: in standard deviations of the prior; they replace what the dimension held.

    Returns:
        (len(dims), len(values), ...) in natural units.

    Raises:
        UsageError: no such dimension, or neither examples nor dimensions are given.
    """
    if x is not None and not isinstance(model, Inference):
        raise UsageError("this model cannot find the latents of a picture: traverse from the prior's mean")
    if dims is None:
        if x is None or not isinstance(model, Inference):
            raise UsageError("a traversal from the prior's mean needs dims; give examples to have them chosen")
        dims = informative_dims(model, x)
    for d in dims:
        if not 0 <= d < model.latent_dims:
            raise UsageError(f"there is no latent dimension {d}: the model has 0 to {model.latent_dims - 1}")
    if not len(dims) or not len(values):
        raise UsageError("a traversal needs at least one dimension and one value")
    start = (
        encode(model, as_batch(x)[:1])[0]
        if x is not None and isinstance(model, Inference)
        else torch.zeros(model.latent_dims)
    )
    z = start.repeat(len(dims), len(values), 1)
    for row, d in enumerate(dims):
        z[row, :, d] = torch.tensor(values, dtype=z.dtype)
    return decode(model, z)


@guest()
def _of_examples(model: Latents, call: Callable[[Batch], Tensor], examples: Batch | Tensor) -> Tensor:
    """``call`` applied to :data:`ROWS` examples at a time."""
    batch = as_batch(examples)
    return _in_chunks(
        model, lambda rows: call(batch[rows.to(batch.x.device)].to(rows.device)), torch.arange(len(batch))
    )


@guest()
@torch.no_grad()
def _in_chunks(model: Latents, call: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """``call`` applied to :data:`ROWS` rows at a time on the model's device; all answers on the CPU."""
    if not len(rows):
        raise UsageError("at least one example is needed, and none was given")
    device = _device(model)
    return torch.cat([call(chunk.to(device)).cpu() for chunk in rows.split(ROWS)])


def _device(model: Latents) -> torch.device:
    """Where the model's parameters are; the CPU for a model without any."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device
