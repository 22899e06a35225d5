"""What examples are recognised as: by a support vector machine on features of training examples, without any network.

What the features are is a medium's business. That samples are judged beside held-out examples, and that a listener
which hardly knows those says nothing of samples, is the same for all.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from castalia.core.data import Batch, some_of
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.media.base import Work

MOST, AT_ONCE = 4_000, 200
"""Training examples that a listener learns from, and how many of them are in memory at once."""
FEWEST, MOST_KINDS = 5, 200
"""The commonest answer is there so often at least; what has more different answers is no question of kinds."""
BETTER = 0.1
"""How much more of the real examples a listener has to know than naming the commonest answer does."""

Look = Callable[[Batch], list[np.ndarray]]
Answer = Callable[[Batch], Sequence[Hashable]]


def recognised(
    name: str, work: Work, look: Look, answer: Answer, real: Batch, asked: Sequence[Hashable], *, by: str, c: float
) -> dict[str, Metric]:
    """Share of samples that are recognised as what was asked for, and as ``..._floor`` of held-out examples.

    Args:
        name: of the metric.
        work: has samples and training examples.
        look: features of each example, (F,).
        answer: what each real example is.
        real: held-out examples.
        asked: what each sample should be.
        by: what the features are, for the detail.
        c: weight of errors of the machine; more fits closer.

    Returns:
        Nothing where there is nothing to tell apart, or the listener is hardly better than naming the commonest answer.
    """
    assert work.samples is not None
    assert work.train is not None
    seen: list[np.ndarray] = []
    said: list[Hashable] = []
    ids = some_of(work.train, MOST)
    for part in np.array_split(ids, max(1, len(ids) // AT_ONCE)):
        batch = work.train.batch(part)
        said += answer(batch)
        if len(set(said)) > MOST_KINDS:
            return {}
        seen += look(batch)
    kinds = Counter(said)
    if len(kinds) < 2 or max(kinds.values()) < FEWEST:
        return {}
    number = {kind: i for i, kind in enumerate(kinds)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        listener = make_pipeline(StandardScaler(), SVC(C=c)).fit(np.stack(seen), [number[kind] for kind in said])
    out: dict[str, Metric] = {}
    for suffix, examples, truth, words in (
        ("_floor", real, answer(real), "held-out examples"),
        ("", work.samples, asked, "samples"),
    ):
        wanted = np.array([number.get(kind, -1) for kind in truth])
        right = listener.predict(np.stack(look(examples))) == wanted
        always = Counter(truth).most_common(1)[0][1] / len(truth)
        if suffix and right.mean() < always + BETTER:
            return {}
        detail = f"by a support vector machine on {by}; {len(right)} {words}; {always:.3f} by the commonest"
        kind = "measured; interval: bootstrap"
        out[name + suffix] = mean_metric(right.astype(np.float64), "share", kind, work.seed, detail)
    return out


def class_recognised(name: str, work: Work, look: Look, *, by: str, c: float) -> dict[str, Metric]:
    """The same of classes; nothing for examples without."""
    assert work.samples is not None
    assert work.held_out is not None
    real = work.held_out.batch(subset(len(work.held_out), 1_000, work.seed, "floor"))
    if len(work.spec.classes) < 2 or work.samples.label is None or real.label is None:
        return {}
    return recognised(name, work, look, _labels, real, _labels(work.samples), by=by, c=c)


def _labels(batch: Batch) -> list[int]:
    assert batch.label is not None
    return batch.label.tolist()
