"""What is said of clips: how much moves, how they lie beside real ones, and whether their class can be seen.

Features are principal components of clips (for distances), and frames moved so that their brightness lies in the middle
(for classes): nothing that would have to be downloaded. A Fréchet distance in them is no FVD.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset, some_of
from castalia.estimators.distances import frechet
from castalia.estimators.metric import Metric, mean_metric
from castalia.media.base import Measure, Work

PARTS = 32
"""Principal components."""

FIT = 2_000
"""Training clips that are looked at."""


def changes(x: Tensor) -> np.ndarray:
    """Mean absolute difference of neighbouring frames, of 255, ``float64`` (N,), of clips (N, T, C, H, W)."""
    return (x[:, 1:].float() - x[:, :-1].float()).abs().flatten(1).mean(1).double().numpy()


def centred(x: Tensor) -> np.ndarray:
    """The middle frame of each clip, moved so that its brightness lies in the middle, ``float32`` (N, pixels)."""
    frames = x[:, x.shape[1] // 2].float().mean(1)
    _, height, width = frames.shape
    total = frames.sum((1, 2)).clamp(min=1.0)
    row = (frames.sum(2) * torch.arange(height)).sum(1) / total
    column = (frames.sum(1) * torch.arange(width)).sum(1) / total
    out = []
    for frame, r, c in zip(frames, row.tolist(), column.tolist(), strict=True):
        out.append(torch.roll(frame, (height // 2 - round(r), width // 2 - round(c)), (0, 1)))
    return torch.stack(out).flatten(1).numpy() / 255


class Judge:
    """What is learned of the training clips."""

    def __init__(self, train: Dataset) -> None:
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression

        batch = train.batch(some_of(train, FIT))
        flat = batch.x.flatten(1).float().numpy() / 255
        self.parts = PCA(min(PARTS, *flat.shape), random_state=0).fit(flat)
        self.known = self.parts.transform(flat)
        self.classifier = None
        if batch.label is not None and len(batch.label.unique()) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it says that it could go on learning
                self.classifier = LogisticRegression(max_iter=200, C=0.1).fit(centred(batch.x), batch.label.numpy())

    def features(self, x: Tensor) -> np.ndarray:
        return self.parts.transform(x.flatten(1).float().numpy() / 255)

    def right(self, batch: Batch) -> np.ndarray:
        assert self.classifier is not None
        assert batch.label is not None
        return (self.classifier.predict(centred(batch.x)) == batch.label.numpy()).astype(np.float64)


def _looks(work: Work) -> dict[str, Metric]:
    samples, held_out, train = work.samples, work.held_out, work.train
    if samples is None or held_out is None or train is None:
        return {}
    judge = Judge(train)
    real = held_out.batch(some_of(held_out, len(samples)))
    out: dict[str, Metric] = {}
    told = "measured; interval: bootstrap"
    for suffix, batch, words in (("", samples, "samples"), ("_floor", real, "real held-out clips")):
        what = f"mean difference of neighbouring frames, of 255; {words}"
        out[f"video_change{suffix}"] = mean_metric(changes(batch.x), "grey levels", told, work.seed, what)
        if judge.classifier is not None and batch.label is not None:
            what = f"a linear classifier sees the class in the middle frame; {words}"
            out[f"video_recognised{suffix}"] = mean_metric(judge.right(batch), "share", told, work.seed, what)
        if len(batch) > PARTS:
            what = f"between principal components of {words} and of training clips"
            here, known = (torch.from_numpy(part).double() for part in (judge.features(batch.x), judge.known))
            value = frechet(here, known, error=False).value
            out[f"video_frechet{suffix}"] = Metric(
                value, "components^2", "estimate (biased upwards)", len(batch), work.seed, None, what
            )
    return out


MEASURES = (Measure("video", ("samples", "train", "held-out"), _looks),)
