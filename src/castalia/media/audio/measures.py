"""What an ear would say of samples, beside real sound: how loud, how much silence, how high."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from castalia.core.data import Batch
from castalia.estimators.metric import Metric
from castalia.media.audio import hearing
from castalia.media.audio.clips import lengths_of
from castalia.media.audio.likeness import class_heard, columns_heard, logmel_frechet
from castalia.media.base import Measure, Work
from castalia.media.measures import beside


def loudness(work: Work) -> dict[str, Metric]:
    """``loudness``: mean over clips of their root mean square; clips that are wholly silent have none."""

    def levels(batch: Batch) -> np.ndarray:
        found = [hearing.loudness(clip) for clip in mono(batch)]
        return np.array([level if math.isfinite(level) else math.nan for level in found])

    return beside("loudness", levels, work, "dB full scale", "root mean square of a clip, channels mixed")


def silence(work: Work) -> dict[str, Metric]:
    """``silence``: mean over clips of the share of their time that is nearly silent."""
    what = f"hundredths of a second below {hearing.QUIET:g} dB full scale"
    return beside("silence", _each(hearing.silence, work.spec.rate), work, "share", what)


def pitch(work: Work) -> dict[str, Metric]:
    """``pitch``: mean over clips of the median fundamental frequency; clips in which nothing is voiced have none."""
    what = f"median fundamental frequency of a clip, {hearing.LOWEST:g} to {hearing.HIGHEST:g} Hz"
    return beside("pitch", _each(hearing.pitch, work.spec.rate), work, "Hz", what)


def mono(batch: Batch) -> list[np.ndarray]:
    """Each clip (T,) without its padding, channels mixed."""
    x = batch.x.float().numpy()
    return [row[:, :n].mean(0) for row, n in zip(x, lengths_of(batch).tolist(), strict=True)]


def _each(hear: Callable[[np.ndarray, int], float], rate: int) -> Callable[[Batch], np.ndarray]:
    return lambda batch: np.array([hear(clip, rate) for clip in mono(batch)])


MEASURES = (
    Measure("loudness", ("samples", "held-out"), loudness),
    Measure("silence", ("samples", "held-out"), silence),
    Measure("pitch", ("samples", "held-out"), pitch),
    Measure("logmel_frechet", ("samples", "train", "held-out"), logmel_frechet),
    Measure("class_heard", ("samples", "train", "held-out"), class_heard),
    Measure("heard", ("samples", "train", "held-out"), columns_heard),
)
