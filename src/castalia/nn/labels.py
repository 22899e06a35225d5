"""Class labels of conditional models: as often as they occur, dropped for guidance, or none."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset, labels_of, spread
from castalia.core.errors import UsageError
from castalia.core.rng import Rng
from castalia.core.spec import LabelSpec, Spec

FIT_EXAMPLES = 20_000
"""At most this many examples, evenly spaced in the data, are read to see how often each label occurs."""

UNLABELLED = (
    "A conditional model needs labels, and this data has none: give labelled data, or train it without classes."
)


def classes_of(spec: Spec, conditional: bool) -> int:
    """Classes that a model of such examples tells apart: those of the data if it is conditional, else none.

    Raises:
        UsageError: it is to be conditional, and the data have no labels.
    """
    label = spec.sides().get("label")
    if not conditional:
        return 0
    if not isinstance(label, LabelSpec):
        raise UsageError("The data have no labels; give labelled data, or set config.conditional=false.")
    return len(label.classes)


@final
class Labels(nn.Module):
    """Class labels: how often each occurs, and the null class, number ``classes``, that stands for none.

    Args:
        classes: number of classes; 0 for a model that is not conditional.
        drop: share of labels that :meth:`for_training` replaces by the null class.
    """

    shares: Tensor

    def __init__(self, classes: int, drop: float = 0.0) -> None:
        super().__init__()
        self.classes, self.drop = classes, drop
        self.register_buffer("shares", torch.full((classes,), 1 / max(classes, 1)))

    def fit(self, data: Dataset) -> None:
        """Find how often each occurs."""
        if not self.classes:
            return
        ids = spread(len(data), FIT_EXAMPLES)
        label = labels_of(data, ids)
        if label is None:
            raise UsageError(UNLABELLED)
        counts = torch.bincount(label, minlength=self.classes)
        self.shares.copy_(counts / counts.sum())

    def of(self, batch: Batch) -> Tensor | None:
        """The labels ``int64`` (B,) of a batch; None for a model that is not conditional.

        Raises:
            UsageError: the model is conditional and the batch has none.
        """
        if not self.classes:
            return None
        if batch.label is None:
            raise UsageError(UNLABELLED)
        return batch.label

    def for_training(self, batch: Batch, rng: Rng) -> Tensor | None:
        """:meth:`of`, some of them dropped."""
        label = self.of(batch)
        return None if label is None else torch.where(rng.uniform("drop label") < self.drop, self.classes, label)

    def drawn(self, rng: Rng) -> Tensor | None:
        """Labels as often as in the training data, ``int64`` (rows,)."""
        if not self.classes:
            return None
        bounds = self.shares.double().cumsum(0).float()
        return torch.searchsorted(bounds, rng.uniform("label"), right=True).clamp(max=self.classes - 1)

    def usual(self, n: int) -> Tensor | None:
        """The most frequent class for ``n`` examples."""
        return self.shares.argmax().expand(n).contiguous() if self.classes else None

    def null(self, n: int) -> Tensor | None:
        """The null class for ``n`` examples."""
        return torch.full((n,), self.classes, device=self.shares.device) if self.classes else None
