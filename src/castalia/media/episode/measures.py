"""What can be counted in episodes, beside real ones: how much moves, what is won, how often they end."""

from __future__ import annotations

import numpy as np

from castalia.core.data import Batch
from castalia.estimators.metric import Metric
from castalia.media.base import Measure, Work
from castalia.media.measures import beside


def change(batch: Batch) -> np.ndarray:
    """Mean absolute difference between a frame and the next, over the steps before an end (B,), 0 to 255."""
    x = batch.x.float()
    moved = (x[:, 1:] - x[:, :-1]).abs().mean((2, 3, 4)).double().numpy()
    alive = batch.extra["dones"][:, :-1].numpy() == 0
    count = alive.sum(1)
    return np.where(count > 0, (moved * alive).sum(1) / np.maximum(count, 1), np.nan)


def won(batch: Batch) -> np.ndarray:
    """Sum of rewards (B,)."""
    return batch.extra["rewards"].double().sum(1).numpy()


def lasted(batch: Batch) -> np.ndarray:
    """Steps until the end, or all (B,)."""
    return (batch.extra["dones"] == 0).double().sum(1).numpy()


def _change(work: Work) -> dict[str, Metric]:
    return beside("frame_change", change, work, "levels", "mean difference of neighbouring frames")


def _won(work: Work) -> dict[str, Metric]:
    return beside("episode_reward", won, work, "reward", "sum of rewards of a stretch; samples as the model tells them")


def _lasted(work: Work) -> dict[str, Metric]:
    return beside("episode_steps", lasted, work, "steps", "steps of a stretch before its end")


MEASURES = (
    Measure("frame_change", ("samples", "held-out"), _change),
    Measure("episode_reward", ("samples", "held-out"), _won),
    Measure("episode_steps", ("samples", "held-out"), _lasted),
)
