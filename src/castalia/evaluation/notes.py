"""How well music comes back from its latents."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Inference
from castalia.core.data import Batch, Dataset
from castalia.estimators.metric import Metric, mean_metric
from castalia.estimators.progress import Show, Ticker
from castalia.evaluation.likelihood import batch_rows


@runtime_checkable
class Predicting(Protocol):
    """A model that says what it thinks likeliest for each value, given the latent and the true values before it."""

    def predict(self, batch: Batch) -> Tensor: ...


def reconstruction(
    model: Inference, data: Dataset, ids: np.ndarray, *, seed: int = 0, show: Show | None = None
) -> dict[str, Metric]:
    """Share of values that come back right from mean latents (Roberts et al. 2018, table 1).

    ``accuracy``: decoded step by step, the likeliest value each time ("sampled" in the paper). ``forced_accuracy``:
    each value given the true ones before it ("teacher-forcing"), of models that can say that.

    Args:
        model: encodes and decodes grids ``int64`` (B, T, V).
        data: where they are.
        ids: which, ``int64`` (N,).
        seed: of the intervals.
        show: receives lines of progress.
    """
    device = getattr(model, "device", torch.device("cpu"))
    rows, ticker = batch_rows(data.spec), Ticker("reconstruction", len(ids), show)
    free: list[Tensor] = []
    forced: list[Tensor] = []
    for start in range(0, len(ids), rows):
        batch = data.batch(mine := ids[start : start + rows]).to(device)
        with torch.no_grad():
            decoded = model.decode(model.encode(batch)).x
        free.append((decoded == batch.x).double().flatten(1).mean(1).cpu())
        if isinstance(model, Predicting):
            forced.append((model.predict(batch) == batch.x).double().flatten(1).mean(1).cpu())
        ticker.step(len(mine))
    out = {}
    for name, parts, how in (("accuracy", free, "step by step"), ("forced_accuracy", forced, "given the true past")):
        if parts:
            detail = f"values that come back right from mean latents, {how}"
            out[name] = mean_metric(torch.cat(parts).numpy(), "share", "measured", seed, detail)
    return out
