"""How well a model tells which picture and which words belong together: retrieval, and classes by their names.

Radford et al. 2021 (arXiv:2103.00020), section 3.1: a class is the text that names it. Chance stands in the details.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Matching
from castalia.core.captions import CAPTION, texts_of
from castalia.core.data import Dataset, labels_of
from castalia.core.specs.image import ImageSpec
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.estimators.progress import Show

MOST = 1_000
"""Pictures that are looked among."""

ROWS = 256
PROMPT = "a {}"
"""What a class is called."""


@torch.no_grad()
def measure(
    model: Matching, data: Dataset, ids: np.ndarray, *, seed: int, show: Show | None = None
) -> dict[str, Metric]:
    """``recall_1``, ``recall_5`` (the caption among all captions), ``recall_pictures_1`` (a picture among all).

    Of labelled pictures also ``named_accuracy``: the class by its name. Captions that are the same text count as one.
    """
    ids = ids[subset(len(ids), MOST, seed, "retrieval")]
    if show is not None:
        show(f"retrieval: looking at {len(ids):,} pictures")
    parts = [data.batch(some) for some in np.array_split(ids, max(1, -(-len(ids) // ROWS)))]
    pictures = torch.cat([model.of_pictures(part.x) for part in parts]).cpu()
    out: dict[str, Metric] = {}
    if all(CAPTION in part.extra for part in parts):
        texts = [text for part in parts for text in texts_of(part.extra[CAPTION])]
        names = sorted(set(texts))
        own = torch.tensor([names.index(text) for text in texts])
        words = torch.cat([model.of_texts(names[at : at + ROWS]) for at in range(0, len(names), ROWS)]).cpu()
        scores = pictures @ words.T
        told = "measured; interval: bootstrap"
        among = f"{len(names):,} different captions of {len(texts):,} pictures; chance {1 / len(names):.2g}"
        for k in (1, 5):
            hit = (scores.topk(min(k, len(names)), dim=1).indices == own[:, None]).any(1)
            what = f"the caption is among the {k} nearest; {among}" if k > 1 else f"the caption is the nearest; {among}"
            out[f"recall_{k}"] = mean_metric(_numbers(hit), "share", told, seed, what)
        hit = own[scores.argmax(0)] == torch.arange(len(names))
        what = f"the nearest picture has the caption; {among}"
        out["recall_pictures_1"] = mean_metric(_numbers(hit), "share", told, seed, what)
    spec = data.spec
    label = labels_of(data, ids) if isinstance(spec, ImageSpec) and len(spec.classes) > 1 else None
    if label is not None and isinstance(spec, ImageSpec):
        words = model.of_texts([PROMPT.format(name) for name in spec.classes]).cpu()
        hit = (pictures @ words.T).argmax(1) == label
        what = f"the class by its name, as {PROMPT.format('NAME')!r}; chance {1 / len(spec.classes):.2g}"
        out["named_accuracy"] = mean_metric(_numbers(hit), "share", "measured; interval: bootstrap", seed, what)
    return out


def _numbers(hit: Tensor) -> np.ndarray:
    return hit.double().numpy()
