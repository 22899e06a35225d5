"""DeepDream: a picture changed so that a layer of a network sees more of what it sees.

Papers
    Mordvintsev, Olah & Tyka 2015, "Inceptionism: Going Deeper into Neural Networks" and the notebook published with it:
    gradient ascent on the squared length of a layer's outputs, steps divided by the mean size of the gradient, jitter,
    octaves from small to large between which the detail is carried, a zooming film, and dreams guided by the best
    match among the outputs for another picture.

What differs, and why
    Any network and layer, not one: the objective is a mean over a layer's outputs and not their sum, which makes no
    difference after the step is divided by the gradient's mean, and lets objectives of octaves be compared.
    Pictures are scaled bilinearly, with averaging where they shrink.
    A single unit may be asked for (the mean of one map), as in the figures of the article.
    Octaves smaller than :data:`LEAST` pixels are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.core.rng import SampleRng
from castalia.creative.looking import Layer

LEAST = 8
"""Pixels of the shorter side of the smallest octave."""

GREY, SPREAD = 127.5, 32.0
"""Noise that a dream may begin from: mean, and greatest distance from it."""


@dataclass(frozen=True)
class Settings:
    """How to dream.

    Attributes:
        octaves: sizes that are gone through, the smallest first.
        scale: of each octave to the one before.
        iterations: steps of ascent in each.
        step: mean change of a pixel value in each step, of 255.
        jitter: the picture is moved by up to so many pixels before each step, and back behind it.
    """

    octaves: int = 4
    scale: float = 1.4
    iterations: int = 10
    step: float = 1.5
    jitter: int = 32

    def __post_init__(self) -> None:
        if self.octaves < 1 or self.iterations < 1 or self.jitter < 0:
            raise ValueError("octaves and iterations must be positive, jitter not negative")
        if not self.scale > 1 or not 0 < self.step <= 255:
            raise ValueError("scale must be above 1, step lies between 0 and 255")


@dataclass(frozen=True)
class Octave:
    """One size of a dream.

    Attributes:
        size: (height, width).
        before: the objective of its picture before the first step.
        after: behind the last.
    """

    size: tuple[int, int]
    before: float
    after: float


@dataclass(frozen=True)
class Dream:
    """What was dreamed.

    Attributes:
        x: the picture, ``float32`` (1, C, H, W), 0 to 255.
        octaves: what happened in each, the smallest first.
    """

    x: Tensor
    octaves: tuple[Octave, ...]


Objective = Callable[[Tensor], Tensor]
"""From pictures (1, C, H, W) to a number that is to rise."""


def seen_more(layer: Layer, unit: int | None = None) -> Objective:
    """Half the mean square of a layer's outputs, or the mean of one of its units.

    Raises:
        UsageError: the layer has no such unit.
    """
    if unit is None:
        return lambda x: 0.5 * layer.see(x).square().mean()
    if not 0 <= unit < layer.units:
        raise UsageError(f"{layer.name} has the units 0 to {layer.units - 1}, and no unit {unit}.")
    return lambda x: layer.see(x)[:, unit].mean()


def guided(layer: Layer, guide: Tensor) -> Objective:
    """The mean, over places, of the dot product with the best matching outputs for another picture.

    Its gradient at a place is the guide's outputs that match best there, as in the notebook.

    Args:
        layer: maps; of vectors, each picture is one place.
        guide: a picture ``float32`` (1, C, H, W), 0 to 255.
    """
    with torch.no_grad():
        wanted = _places(layer.see(guide))

    def objective(x: Tensor) -> Tensor:
        return (_places(layer.see(x)) @ wanted.T).amax(1).mean()

    return objective


def _places(out: Tensor) -> Tensor:
    """Maps (B, units, h, w) or vectors (B, units) as rows (places, units)."""
    return out.movedim(1, -1).reshape(-1, out.shape[1])


def octave_sizes(height: int, width: int, octaves: int, scale: float) -> list[tuple[int, int]]:
    """(height, width) of the octaves, the smallest first; those smaller than :data:`LEAST` are left out."""
    sizes = [(round(height / scale**k), round(width / scale**k)) for k in range(octaves)]
    return [s for k, s in enumerate(sizes) if k == 0 or min(s) >= LEAST][::-1]


def dream(
    objective: Objective,
    x: Tensor,
    rng: SampleRng,
    settings: Settings | None = None,
    show: Callable[[Tensor], None] | None = None,
) -> Dream:
    """Change a picture so that an objective rises.

    Args:
        objective: of :func:`seen_more` or :func:`guided`, or one's own.
        x: a picture (1, C, H, W), 0 to 255, of any size. Its fourth channel, if it has one, stays as it is.
        rng: one row: where the picture is moved to.
        settings: None for the usual ones.
        show: is given the picture behind each step.
    """
    settings = settings or Settings()
    x = x.float()
    if x.ndim != 4 or len(x) != 1:
        raise UsageError(f"A dream is of one picture (1, C, H, W), not {tuple(x.shape)}.")
    told, detail, now = [], None, x
    for number, size in enumerate(octave_sizes(x.shape[2], x.shape[3], settings.octaves, settings.scale)):
        base = resized(x, size)
        now = base if detail is None else (base + resized(detail, size)).clamp(0, 255)
        before = _value(objective, now)
        for i in range(settings.iterations):
            here = rng.at("octave", number, "step", i)
            now = ascend(objective, now, settings.step, _move(here, settings.jitter, size))
            if show is not None:
                show(now)
        told.append(Octave(size, before, _value(objective, now)))
        detail = now - base
    return Dream(now, tuple(told))


def ascend(objective: Objective, x: Tensor, step: float, move: tuple[int, int] = (0, 0)) -> Tensor:
    """One step of a picture (1, C, H, W) up an objective: by ``step`` in the mean over its values, cut to 0 to 255.

    Of four channels the last, alpha, stays as it is: the mean is over the colours.

    Args:
        objective: what is to rise.
        x: the picture.
        step: mean size of the change.
        move: (down, right) pixels that the picture is rolled by while it is looked at.
    """
    with torch.enable_grad():
        moved = x.detach().roll(move, (2, 3)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(moved), moved)
    if x.shape[1] == 4:
        gradient = torch.cat([gradient[:, :3], torch.zeros_like(gradient[:, 3:])], 1)
    size = gradient[:, :3].abs().mean()
    if size == 0:  # nothing to climb: a flat place stays as it is
        return x.detach()
    stepped = moved.detach() + step / size * gradient
    return stepped.roll((-move[0], -move[1]), (2, 3)).clamp(0, 255)


def film(
    objective: Objective,
    x: Tensor,
    rng: SampleRng,
    frames: int,
    zoom: float = 0.05,
    settings: Settings | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """A dream of a dream of a dream: each frame is dreamed on, then enlarged about its middle for the next.

    Args:
        objective: as of :func:`dream`.
        x: as of :func:`dream`.
        rng: as of :func:`dream`.
        frames: how many.
        zoom: share of the sides that is lost between frames.
        settings: as of :func:`dream`.
        show: is given the number of each frame and the frame.

    Returns:
        The frames, ``float32`` (frames, C, H, W), 0 to 255.

    Raises:
        UsageError: no frames, or a zoom outside [0, 1).
    """
    if frames < 1 or not 0 <= zoom < 1:
        raise UsageError("A film has at least one frame, and its zoom lies between 0 and 1.")
    made = []
    for i in range(frames):
        x = dream(objective, x, rng.at("frame", i), settings).x
        if show is not None:
            show(i, x)
        made.append(x)
        x = zoomed(x, zoom)
    return torch.cat(made)


def zoomed(x: Tensor, zoom: float) -> Tensor:
    """The middle of a picture, without a share ``zoom`` of its sides, at the size of the whole."""
    if zoom == 0:
        return x
    height, width = x.shape[2:]
    rows, columns = ((torch.arange(n, device=x.device) + 0.5) * 2 / n - 1 for n in (height, width))
    down, across = torch.meshgrid(rows * (1 - zoom), columns * (1 - zoom), indexing="ij")
    grid = torch.stack([across, down], -1)[None].expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def noise(rng: SampleRng, channels: int, size: tuple[int, int]) -> Tensor:
    """Grey noise to begin from, ``float32`` (1, C, H, W); what is transparent in it is nothing."""
    x = GREY + SPREAD * (2 * rng.uniform("noise", channels, *size) - 1)
    if channels == 4:
        x[:, 3] = 255
    return x


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Pictures (B, C, H, W) at another (height, width), bilinear, averaging where they shrink."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", antialias=True, align_corners=False)


def _move(rng: SampleRng, jitter: int, size: tuple[int, int]) -> tuple[int, int]:
    """How far the picture is rolled: at most ``jitter`` and half its sides."""
    if not jitter:
        return 0, 0
    most = [min(jitter, side // 2) for side in size]
    down, right = (int(rng.integers(name, 2 * m + 1)[0]) - m for name, m in zip(("down", "right"), most, strict=True))
    return down, right


def _value(objective: Objective, x: Tensor) -> float:
    with torch.no_grad():
        return float(objective(x))
