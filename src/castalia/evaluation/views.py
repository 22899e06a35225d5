"""How well things come back from pictures of them: their silhouettes, their colours, and where they are seen from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator
from castalia.estimators.metric import Metric, mean_metric
from castalia.estimators.progress import Show, Ticker

OTHER, AZIMUTH = "other", "azimuth"
AT_ONCE = 64
WITHIN = 15.0
"""Degrees within which an azimuth counts as recovered."""


@runtime_checkable
class Retaking(Protocol):
    """A model that makes a thing of a picture, and takes the picture again, and others of it."""

    def retaken(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]: ...


def reconstruction(
    model: Retaking, data: Dataset, ids: np.ndarray, *, seed: int = 0, show: Show | None = None
) -> dict[str, Metric]:
    """How well things are told from one picture each.

    ``picture_iou``: intersection over union of the silhouettes of a picture and of it taken again; ``other_iou``: of
    another picture of the same thing and of what is shown from there, where the data have the column ``other``.
    ``colour_error``, ``other_colour_error``: mean difference of colours, 0 to 255, where both silhouettes are; beside
    each, ``..._ceiling``, of the mean colour of the true thing there. ``azimuth_within_15``: share of pictures whose
    azimuth (column ``azimuth``) is told within 15 degrees; ``azimuth_error``: the mean error in degrees. All need
    pictures with transparency.

    Args:
        model: makes things of pictures.
        data: pictures.
        ids: which, ``int64`` (N,).
        seed: of the intervals.
        show: receives lines of progress.
    """
    device, ticker = getattr(model, "device", torch.device("cpu")), Ticker("things from pictures", len(ids), show)
    found: dict[str, list[float]] = {}
    for start in range(0, len(ids), AT_ONCE):
        batch = data.batch(mine := ids[start : start + AT_ONCE]).to(device)
        azimuth, again, other = model.retaken(batch)
        _add(found, "", "picture_iou", batch.x, again)
        if other is not None and OTHER in batch.extra:
            _add(found, "other_", "other_iou", batch.extra[OTHER], other)
        if AZIMUTH in batch.extra:
            far = ((azimuth - batch.extra[AZIMUTH] + 180) % 360 - 180).abs().double()
            found.setdefault("azimuth_error", []).extend(far.tolist())
            found.setdefault("azimuth_within_15", []).extend((far <= WITHIN).double().tolist())
        ticker.step(len(mine))
    units = {"iou": "IoU", "error": "levels", "ceiling": "levels", "15": "share"}
    out = {}
    for name, values in found.items():
        unit = "degrees" if name == "azimuth_error" else units[name.rsplit("_", 1)[-1]]
        how = "held-out pictures, one of each thing and camera"
        out[name] = mean_metric(np.array(values), unit, "measured", seed, how)
    return out


def retakes(model: object, data: Dataset) -> bool:
    """Whether a model can be measured so on such data."""
    return isinstance(model, Retaking) and isinstance(model, Generator) and getattr(data.spec, "channels", 0) == 4


def _add(found: dict[str, list[float]], before: str, iou: str, true: Tensor, made: Tensor) -> None:
    """Measure pictures ``uint8`` (B, 4, H, W); a thing that is not seen in both has no colour to compare."""
    for a, b in zip(true.double().cpu(), made.double().cpu(), strict=True):
        mine, theirs = a[3] > 127, b[3] > 127
        if not mine.any():
            continue
        both = mine & theirs
        found.setdefault(iou, []).append(float(both.sum() / (mine | theirs).sum()))
        if both.any():
            here = a[:3, both]
            mean = a[:3, mine].mean(1, keepdim=True)
            found.setdefault(f"{before}colour_error", []).append(float((here - b[:3, both]).abs().mean()))
            found.setdefault(f"{before}colour_error_ceiling", []).append(float((here - mean).abs().mean()))
