"""What is said of sets of shapes, beside real ones.

Distances between two shapes are of two kinds. By volume: 1 - IoU, intersection over union of their voxels. By surface:
the Chamfer distance, the mean distance of the voxels of one surface to the nearest of the other, plus the other way
round, in sides of the cube. Distances to all voxels of a surface are one distance transform, so that all pairs are one
product of matrices, and no points are drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, some_of
from castalia.estimators.matching import matching
from castalia.estimators.metric import Metric, subset
from castalia.media.base import Measure, Work
from castalia.media.measures import beside

AT_ONCE = 512
"""Training shapes compared at once."""

MOST_TRAIN = 20_000
"""Training shapes looked at, evenly spaced, for the nearest one."""

COMPARED = 500
"""Shapes of each set that are compared with each other, at most."""


def flat(x: Tensor) -> Tensor:
    """Voxels (N, 1, S, S, S) as ``float32`` (N, S^3)."""
    return x.cpu().flatten(1).float()


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of all pairs, (N, V) and (M, V) of 0 and 1 to (N, M); of two empty shapes 1."""
    both = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1)[None] - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def iou_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - IoU of all pairs of shapes (N, 1, S, S, S) and (M, 1, S, S, S): (N, M)."""
    return 1 - iou(flat(a), flat(b))


def surfaces(x: Tensor) -> np.ndarray:
    """Which voxels of shapes (N, 1, S, S, S) have one of their six neighbours empty: bool (N, S, S, S)."""
    solid = x.cpu().numpy()[:, 0] > 0
    wide = np.pad(solid, ((0, 0), (1, 1), (1, 1), (1, 1)))
    inner = solid.copy()
    for axis in (1, 2, 3):
        for step in (-1, 1):
            inner &= np.roll(wide, step, axis)[:, 1:-1, 1:-1, 1:-1]
    return solid & ~inner


class Surfaces:
    """Shapes (N, 1, S, S, S), made ready for Chamfer distances: their surfaces and how far everything is from them."""

    def __init__(self, x: Tensor) -> None:
        from scipy import ndimage

        found, size = surfaces(x), x.shape[-1]
        far = np.empty(found.shape, np.float32)
        for out, one in zip(far, found, strict=True):
            # an empty shape is as far from everything as can be
            gaps: Any = ndimage.distance_transform_edt(~one) if one.any() else size * 3**0.5
            out[...] = gaps / size
        self.points = torch.from_numpy(found.reshape(len(found), -1).astype(np.float32))
        self.points = self.points / self.points.sum(1, keepdim=True).clamp(min=1)
        self.empty = ~torch.from_numpy(found.reshape(len(found), -1).any(1))
        self.far = torch.from_numpy(far.reshape(len(far), -1))


def chamfer(a: Surfaces, b: Surfaces) -> Tensor:
    """Chamfer distances of all pairs, (N, M), in sides of the cube; the most there can be where one is empty."""
    there, back = a.points @ b.far.T, (b.points @ a.far.T).T
    most = 3**0.5
    there = torch.where(a.empty[:, None], most, there)
    back = torch.where(b.empty[None], most, back)
    both = a.empty[:, None] & b.empty[None]
    return torch.where(both, 0.0, there + back)


def _sets(work: Work) -> dict[str, Metric]:
    """Coverage, minimum matching distance and accuracy of the nearest neighbour, by volume and by surface."""
    assert work.samples is not None
    assert work.held_out is not None
    assert work.train is not None
    n = min(len(work.samples), len(work.held_out), len(work.train), COMPARED)
    if n < 2:
        return {}
    held = work.held_out.batch(subset(len(work.held_out), n, work.seed, "matched")).x
    made = work.samples.x[torch.from_numpy(subset(len(work.samples), n, work.seed, "matching"))]
    real = work.train.batch(subset(len(work.train), n, work.seed, "matching floor")).x
    out: dict[str, Metric] = {}
    ready = {}
    for suffix, mine, words in (("", made, "samples"), ("_floor", real, "training examples")):
        for kind in ("iou", "chamfer"):
            if kind == "iou":
                across, own, other = iou_distance(mine, held), iou_distance(mine, mine), iou_distance(held, held)
            else:
                ready.setdefault("held", Surfaces(held))
                one, two = Surfaces(mine), ready["held"]
                across, own, other = chamfer(one, two), chamfer(one, one), chamfer(two, two)
            found = matching(across, own, other)
            for name, value, unit in (
                ("coverage", found.coverage, "share"),
                ("mmd", found.mmd, "1 - IoU" if kind == "iou" else "sides of the cube"),
                ("nna", found.nna, "share"),
            ):
                detail = f"{n} {words} and {n} held-out shapes"
                out[f"set_{name}_{kind}{suffix}"] = Metric(value, unit, "measured", n, work.seed, None, detail)
    return out


def _novelty(work: Work) -> dict[str, Metric]:
    """IoU with the nearest training shape: 1 for one that was learnt by heart."""
    assert work.train is not None
    ids = some_of(work.train, MOST_TRAIN)

    def nearest(batch: Batch) -> np.ndarray:
        mine, best = flat(batch.x), torch.zeros(len(batch))
        for part in _pieces(ids):
            assert work.train is not None
            best = torch.maximum(best, iou(mine, flat(work.train.batch(part).x)).amax(1))
        return best.double().numpy()

    return beside("nearest_train_iou", nearest, work, "IoU", f"the most alike of {len(ids)} training shapes")


def _pieces(ids: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


def connected(batch: Batch) -> np.ndarray:
    """Share of the filled voxels of each shape that hang together in one piece (by faces, edges or corners), (B,)."""
    from scipy import ndimage

    out = np.full(len(batch), np.nan)
    for i, shape in enumerate(batch.x.cpu().numpy()[:, 0]):
        found: Any = ndimage.label(shape, np.ones((3, 3, 3)))
        pieces, count = found
        if count:
            out[i] = np.bincount(pieces.reshape(-1))[1:].max() / shape.sum()
    return out


def _whole(work: Work) -> dict[str, Metric]:
    return beside("connected", connected, work, "share", "of the filled voxels, those of the largest piece")


def _volume(work: Work) -> dict[str, Metric]:
    """How full the cube is; and how far its distribution lies from that of real shapes."""
    assert work.samples is not None
    assert work.held_out is not None
    out = beside("volume", lambda b: flat(b.x).mean(1).double().numpy(), work, "share", "of the cube that is filled")
    n = min(len(work.samples), len(work.held_out))
    held = work.held_out.batch(subset(len(work.held_out), n, work.seed, "volume")).x
    sets = [("", work.samples.x[:n])]
    if work.train is not None and len(work.train) >= n:
        sets.append(("_floor", work.train.batch(subset(len(work.train), n, work.seed, "volume floor")).x))
    real = flat(held).mean(1).double().sort().values
    for suffix, x in sets:
        # earth mover's distance of two sets of numbers
        value = float((flat(x).mean(1).double().sort().values - real).abs().mean() / real.mean().clamp(min=1e-12))
        out[f"volume_error{suffix}"] = Metric(
            value, "share", "measured", n, work.seed, None, "earth mover's distance of volumes, in mean real volumes"
        )
    return out


MEASURES = (
    Measure("set", ("samples", "train", "held-out"), _sets),
    Measure("nearest_train_iou", ("samples", "train", "held-out"), _novelty),
    Measure("connected", ("samples", "held-out"), _whole),
    Measure("volume", ("samples", "held-out"), _volume),
)
