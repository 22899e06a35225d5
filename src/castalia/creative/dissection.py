"""GAN dissection: which units of a generator stand for what one can see.

Papers
    Bau et al. 2019, "GAN Dissection" (arXiv:1811.10597): section 3.1 (a unit's map, enlarged to the picture and cut at
    a threshold, is compared with the map of a concept by intersection over union over many pictures, eq. 2; the
    threshold is that of the largest information quality ratio, on pictures that are not measured, or a quantile).

What differs, and why
    Quantiles are of the enlarged maps, so that a unit is on in just that share of the pictures, and exact: for the
    highest few in a thousand values it is enough to keep those.
    Information quality is tried at a few quantiles (:data:`LEVELS`), not at every threshold.
    A unit's concept is the one whose overlap is most above that of chance: what is nearly everywhere, a background,
    overlaps with anything. The paper's objects are rare enough not to need it.
    Concepts come from any segmenter, and simple ones from none (:mod:`castalia.creative.concepts`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given
from castalia.creative.concepts import Segmenter
from castalia.creative.units import Units

LEVELS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
"""Shares of values above a threshold that the information quality is tried at."""

TOP = 0.005
"""The share of values above the threshold, where a quantile is asked for."""

DETECTOR = 0.05
"""A unit whose intersection over union is larger than chance by so much is said to stand for the concept."""

KEPT = 200_000
"""Values of each unit, at most, that are kept to find its thresholds. Where that is too few, not every value is looked
at: with the highest 0.5 % from 40 million values (of a unit at all pixels) on, by information from one million."""

AT_ONCE = 64
"""Pictures in one call."""


@dataclass(frozen=True, eq=False)
class Source:
    """Pictures of a model, by number: what is behind all measurements, made again whenever it is needed.

    Attributes:
        units: of the layer that is looked at.
        seed: of the latents: picture i depends on (seed, i) only.
        label: the class that a conditional model is asked for; None draws classes evenly.
    """

    units: Units
    seed: int = 0
    label: int | None = None

    def latents(self, rows: range) -> tuple[Tensor, Given]:
        """Latents (B, z) of these numbers, and what else the model is asked for."""
        model: Any = self.units.model
        device = next(model.parameters()).device
        rng = SampleRng(self.seed, rows, device)
        z = rng.normal("latent", model.latent_dims)
        asked = model.accepts().get("label") if hasattr(model, "accepts") else None
        if asked is None:
            return z, {}
        classes = len(asked.classes)
        label = rng.integers("class", classes) if self.label is None else torch.full((len(rows),), self.label)
        return z, {"label": label.to(device)}

    def pictures(self, rows: range) -> tuple[Tensor, Tensor]:
        """Pictures ``float32`` (B, C, H, W) of 0 to 255 as the model gives them, and maps (B, U, h, w)."""
        z, given = self.latents(rows)
        with torch.no_grad(), self.units.watched() as maps:
            x = self.units.model.decode(z, given).x
        return x.float(), maps[0]

    def changed(self, rows: range, change: Any) -> Tensor:
        """The same pictures with units changed, ``float32`` (B, C, H, W)."""
        z, given = self.latents(rows)
        with torch.no_grad(), self.units.changed(change):
            return self.units.model.decode(z, given).x.float()


def chunks(n: int, size: int = AT_ONCE) -> list[range]:
    """The numbers 0 to n - 1 in pieces."""
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


class TopQuantiles:
    """Exact upper quantiles of values that come in pieces: only as many of the largest are kept as are needed.

    Args:
        rows: how many quantities.
        total: how many values each will have in all.
        share: the largest share above a threshold that will be asked for.
    """

    def __init__(self, rows: int, total: int, share: float) -> None:
        self.total = total
        self.keep = min(total, math.floor(share * total) + 1)
        self.top = torch.empty(rows, 0)
        self.count = 0

    def add(self, values: Tensor) -> None:
        """Take values (rows, N) in."""
        self.count += values.shape[1]
        if values.shape[1] > self.keep:
            values = values.topk(self.keep, 1).values
        both = torch.cat([self.top, values.cpu().float()], 1)
        self.top = both.topk(min(self.keep, both.shape[1]), 1).values

    def threshold(self, share: float) -> Tensor:
        """``float32`` (rows,) with at most a share of the values above; exactly that share where none are equal.

        Raises:
            ValueError: not all values have come, or the share is larger than what was kept for.
        """
        if self.count != self.total:
            raise ValueError(f"{self.total} values were announced, and {self.count} have come")
        place = math.floor(share * self.total)
        if place >= self.keep:
            raise ValueError("the share is larger than the one that was announced")
        return self.top[:, place]


@dataclass(frozen=True)
class Found:
    """One unit and the concept that it fits best.

    Attributes:
        unit: its number.
        concept: name of the concept.
        iou: intersection over union over all pictures that are measured, 0 to 1.
        chance: what it would be if both were as large and had nothing to do with each other.
        threshold: above it the unit is on.
        share: of the picture in which it is on.
        top: numbers of the pictures in which it is strongest, the strongest first.
    """

    unit: int
    concept: str
    iou: float
    chance: float
    threshold: float
    share: float
    top: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Dissection:
    """What a layer's units stand for.

    Attributes:
        layer: name of the layer.
        names: of the concepts, K.
        iou: ``float64`` (U, K).
        thresholds: ``float32`` (U, K): of each unit for each concept.
        shares: ``float64`` (K,): how much of the pictures is of the concept.
        values: ``float32`` (U, K): each unit's mean where the concept is: what it is driven to where the concept is to
            be inserted.
        peaks: ``float32`` (N, U): the largest value of each unit in each picture.
        rule: how the thresholds were chosen.
        pictures: how many were measured.
        found: of each unit the concept that overlaps most above chance, the best unit first.
    """

    layer: str
    names: tuple[str, ...]
    iou: Tensor
    thresholds: Tensor
    shares: Tensor
    values: Tensor
    peaks: Tensor
    rule: str
    pictures: int
    found: tuple[Found, ...] = field(repr=False)

    def concept(self, name: str) -> int:
        """The number of a concept.

        Raises:
            UsageError: there is none of that name.
        """
        if name not in self.names:
            raise UsageError(f"There is no concept {name!r}. There is: {', '.join(self.names)}.")
        return self.names.index(name)

    @property
    def detectors(self) -> tuple[Found, ...]:
        """Units that stand for a concept."""
        return tuple(f for f in self.found if f.iou - f.chance > DETECTOR)


def dissect(
    source: Source,
    segmenter: Segmenter,
    n: int = 1000,
    rule: Literal["quantile", "information"] = "information",
    examples: int = 8,
    show: Callable[[str], None] | None = None,
) -> Dissection:
    """Compare every unit of a layer with every concept.

    Args:
        source: pictures, and the units of the layer.
        segmenter: says where the concepts are; a pixel is of a concept where it is surer than one half.
        n: pictures. By information quality, half as many again choose the thresholds and are not measured.
        rule: ``quantile``: a unit is on in the highest :data:`TOP` of its values; ``information``: at that of
            :data:`LEVELS` at which it says most about the concept, for the number of bits that both have.
        examples: pictures that are named for each unit.
        show: receives lines of progress.

    Raises:
        UsageError: no pictures, or the segmenter knows no concept.
    """
    if n < 1 or not segmenter.names:
        raise UsageError("A dissection needs at least one picture and one concept.")
    units, levels = source.units, (TOP,) if rule == "quantile" else LEVELS
    extra = 0 if rule == "quantile" else (n + 1) // 2
    total = n + extra
    pixels = math.prod(source.pictures(range(1))[0].shape[2:])
    every = stride(max(levels) * total * pixels / KEPT, pixels)
    counted = sum(math.ceil(len(rows) * pixels / every) for rows in chunks(total))
    quantiles, peaks = TopQuantiles(units.count, counted, max(levels)), []
    for rows in chunks(total):
        x, maps = source.pictures(rows)
        large = enlarged(maps, (x.shape[2], x.shape[3])).transpose(0, 1).flatten(1)
        quantiles.add(large[:, ::every])
        peaks.append(maps.amax((2, 3)).cpu())
        _tell(show, "looking for thresholds", rows, total)
    candidates = torch.stack([quantiles.threshold(level) for level in levels])  # (L, U)
    measured, held = _Counts(candidates, segmenter), _Counts(candidates, segmenter)
    for rows in chunks(n):
        measured.add(*source.pictures(rows))
        _tell(show, "comparing", rows, n)
    for rows in chunks(extra):
        held.add(*source.pictures(range(n + rows.start, n + rows.stop)))
    chosen = (
        held.information().argmax(0) if extra else torch.zeros(units.count, len(segmenter.names), dtype=torch.int64)
    )
    iou, chance = (by_level.gather(0, chosen[None])[0] for by_level in (measured.iou(), measured.chance()))
    thresholds = candidates[:, :, None].expand(-1, -1, len(segmenter.names)).gather(0, chosen[None])[0]
    kept = torch.cat(peaks)[:n]
    best, order = (iou - chance).max(1), kept.argsort(0, descending=True)
    found = []
    for unit in best.values.argsort(descending=True, stable=True).tolist():
        k = int(best.indices[unit])
        share = float(measured.on[chosen[unit, k], unit] / measured.pixels)
        top = tuple(order[:examples, unit].tolist())
        concept, threshold = segmenter.names[k], float(thresholds[unit, k])
        found.append(Found(unit, concept, float(iou[unit, k]), float(chance[unit, k]), threshold, share, top))
    told = f"the highest {TOP:.1%} of values" if rule == "quantile" else "the largest information quality ratio"
    shares, values = measured.there / measured.pixels, measured.values()
    return Dissection(units.layer, segmenter.names, iou, thresholds, shares, values, kept, told, n, tuple(found))


def stride(least: float, pixels: int) -> int:
    """The smallest step of at least ``least`` that shares no divisor with the pixels of a picture.

    Values of pictures one behind the other are thinned out by it: with a common divisor it would meet the same columns
    or rows of every picture, and never the others.
    """
    return next(every for every in itertools.count(max(1, math.ceil(least))) if math.gcd(every, pixels) == 1)


class _Counts:
    """Pixels in which units, concepts and both are on, at each of several thresholds (L, U)."""

    def __init__(self, thresholds: Tensor, segmenter: Segmenter) -> None:
        levels, units = thresholds.shape
        self.thresholds, self.segmenter = thresholds, segmenter
        self.both = torch.zeros(levels, units, len(segmenter.names), dtype=torch.float64)
        self.on = torch.zeros(levels, units, dtype=torch.float64)
        self.there = torch.zeros(len(segmenter.names), dtype=torch.float64)
        self.sums = torch.zeros(units, len(segmenter.names), dtype=torch.float64)
        self.pixels = 0

    def add(self, x: Tensor, maps: Tensor) -> None:
        """Take pictures (B, C, H, W) and their maps (B, U, h, w) in."""
        with torch.no_grad():
            there = (self.segmenter(x) > 0.5).movedim(1, 0).flatten(1).float()  # (K, B H W)
        large = enlarged(maps, (x.shape[2], x.shape[3])).movedim(1, 0).flatten(1)
        self.pixels += large.shape[1]
        self.there += there.sum(1).cpu()
        self.sums += (large @ there.T).double().cpu()
        for level, threshold in enumerate(self.thresholds.to(large.device)):
            on = (large > threshold[:, None]).float()
            self.on[level] += on.sum(1).double().cpu()
            self.both[level] += (on @ there.T).double().cpu()

    def iou(self) -> Tensor:
        """Intersection over union, ``float64`` (L, U, K); 0 where there is neither."""
        union = self.on[:, :, None] + self.there - self.both
        return torch.where(union > 0, self.both / union.clamp(min=1), 0.0)

    def chance(self) -> Tensor:
        """:meth:`iou` of units and concepts as large that have nothing to do with each other."""
        both = self.on[:, :, None] * self.there / max(self.pixels, 1)
        union = self.on[:, :, None] + self.there - both
        return torch.where(union > 0, both / union.clamp(min=1e-9), 0.0)

    def information(self) -> Tensor:
        """Mutual information over joint entropy of unit and concept, ``float64`` (L, U, K)."""
        p = self.both / self.pixels
        unit, concept = (self.on / self.pixels)[:, :, None].expand_as(p), (self.there / self.pixels).expand_as(p)
        cells = torch.stack([p, unit - p, concept - p, 1 - unit - concept + p]).clamp(min=0)
        joint = -torch.special.xlogy(cells, cells).sum(0)
        alone = [-(torch.special.xlogy(q, q) + torch.special.xlogy(1 - q, 1 - q)) for q in (unit, concept)]
        return torch.where(joint > 0, (alone[0] + alone[1] - joint) / joint.clamp(min=1e-300), 0.0)

    def values(self) -> Tensor:
        """Each unit's mean where the concept is, ``float32`` (U, K); 0 where it is nowhere."""
        return torch.where(self.there > 0, self.sums / self.there.clamp(min=1), 0.0).float()


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, U, h, w) at the size of the pictures, bilinear."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _tell(show: Callable[[str], None] | None, what: str, rows: range, total: int) -> None:
    if show is not None:
        show(f"{what}: {rows.stop} of {total} pictures")
