"""How well shapes come back from what is seen of them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator
from castalia.estimators.metric import Metric, mean_metric
from castalia.estimators.progress import Show, Ticker

VIEW = "view"
AT_ONCE = 64


@runtime_checkable
class Rebuilding(Protocol):
    """A model that says of each voxel how much it believes in it, from views of shapes alone."""

    def rebuilt(self, batch: Batch) -> Tensor: ...


def rebuilds(model: Generator) -> bool:
    """Whether a model makes shapes of views."""
    return VIEW in model.accepts() and isinstance(model, Rebuilding)


def reconstruction(
    model: Rebuilding, data: Dataset, ids: np.ndarray, *, seed: int = 0, show: Show | None = None
) -> dict[str, Metric]:
    """How well shapes are told from one view each.

    ``view_ap``: average precision, the area below precision against recall of the voxels as the threshold falls (Smith
    & Meger 2017, section 5). ``view_iou``: intersection over union at a threshold of one half. Both are means over
    shapes; empty ones are left out.

    Args:
        model: makes shapes of views.
        data: shapes with the column ``view``.
        ids: which, ``int64`` (N,).
        seed: of the intervals.
        show: receives lines of progress.
    """
    device, ticker = getattr(model, "device", torch.device("cpu")), Ticker("shapes from views", len(ids), show)
    precision: list[float] = []
    overlap: list[float] = []
    for start in range(0, len(ids), AT_ONCE):
        batch = data.batch(mine := ids[start : start + AT_ONCE]).to(device)
        found = model.rebuilt(batch).flatten(1).double().cpu().numpy()
        for believed, true in zip(found, batch.x.flatten(1).bool().cpu().numpy(), strict=True):
            if true.any():
                precision.append(float(average_precision_score(true, believed)))
                filled = believed > 0.5
                overlap.append(float((filled & true).sum() / (filled | true).sum()))
        ticker.step(len(mine))
    how = "held-out shapes from one view each, the mean of the latents"
    return {
        "view_ap": mean_metric(np.array(precision), "share", "measured", seed, f"average precision of voxels; {how}"),
        "view_iou": mean_metric(np.array(overlap), "IoU", "measured", seed, how),
    }
