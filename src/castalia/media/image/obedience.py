"""Whether pictures show what was asked for in words, where a rule-based reader can tell: captions of ``scenes.py``.

Samples were given the captions of held-out pictures. What the reader sees in the held-out pictures themselves is the
floor; the ceiling is what it sees where the captions are given to one another's samples, which is chance.
"""

from __future__ import annotations

import numpy as np
import torch

from castalia.core.captions import CAPTION, texts_of
from castalia.core.data import Batch
from castalia.core.specs.image import ImageSpec
from castalia.estimators.metric import Metric, mean_metric
from castalia.media.base import Measure, Work
from castalia.media.image.scenes import Scene, obeyed, read_caption, read_picture

LEGIBLE = 0.9
"""Share of captions that the grammar has to know; with fewer there is nothing to say."""


def _obedience(work: Work) -> dict[str, Metric]:
    samples, held_out, asked, spec = work.samples, work.held_out, work.asked, work.spec
    if asked is None or samples is None or held_out is None or not isinstance(spec, ImageSpec) or spec.channels != 3:
        return {}
    real = held_out.batch(asked)
    if CAPTION not in real.extra:
        return {}
    wanted = [read_caption(text) for text in texts_of(real.extra[CAPTION])]
    known = [i for i, scene in enumerate(wanted) if scene is not None]
    if len(known) < max(1, LEGIBLE * len(wanted)):
        return {}
    scenes = [scene for scene in wanted if scene is not None]
    order = np.random.Generator(np.random.Philox(work.seed)).permutation(len(scenes))
    seen, there = _seen(samples, known), _seen(real, known)
    out: dict[str, Metric] = {}
    for suffix, found, words in (
        ("", seen, "samples"),
        ("_floor", there, "the held-out pictures themselves"),
        ("_ceiling", [seen[i] for i in order], "samples of other captions"),
    ):
        each = [obeyed(scene, picture) for scene, picture in zip(scenes, found, strict=True)]
        for name in ("all", "colour", "shape", "size", "place"):
            what = f"{'everything' if name == 'all' else name} as asked for in words, by a rule-based reader; {words}"
            values = np.array([one[name] for one in each])
            key = f"caption{'' if name == 'all' else '_' + name}{suffix}"
            out[key] = mean_metric(values, "share", "measured; interval: bootstrap", work.seed, what)
    return out


def _seen(batch: Batch, rows: list[int]) -> list[Scene | None]:
    pictures = batch.x[torch.tensor(rows)].permute(0, 2, 3, 1).cpu().numpy()
    return [read_picture(picture) for picture in pictures]


MEASURES = (Measure("caption", ("samples", "held-out"), _obedience),)
