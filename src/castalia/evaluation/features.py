"""Feature spaces: what examples look like to a metric.

A distance between pictures is taken between features, and means nothing without the name of the features. There are
three kinds of space here, and a fourth in :mod:`castalia.evaluation.user_features`:

* :class:`Coordinates`: points as they are;
* :class:`NetworkFeatures`: a small network trained on the run's own training data (see
  :mod:`castalia.evaluation.feature_network`);
* :class:`StackedFeatures`: each channel of a stack of digits seen by the network of single digits.

Numbers from different spaces cannot be compared. Only those from the Inception network of Heusel et al. 2017, whose
weights a user has to bring, are called FID.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Dataset
from castalia.core.errors import NonFiniteError, UsageError

VALUES_AT_ONCE = 1 << 19
"""Values of pictures seen at once; bounds the memory."""


@dataclass(frozen=True)
class Seen:
    """What a feature space makes of examples.

    Attributes:
        features: ``float32`` (N, F).
        labels: the likeliest class of each, ``int64`` (N,); None where the space knows no classes.
    """

    features: Tensor
    labels: Tensor | None = None


class FeatureSpace(ABC):
    """A way of turning examples into feature vectors.

    Attributes:
        name: of the space, with the start of the SHA-256 of what it is made of.
        resize: what is done to the size of pictures first, in words; ``none`` for nothing.
        classes: names of the classes that it can tell apart; empty where it knows none.
        inception: whether it is the network of the FID.
    """

    name: str
    resize: str = "none"
    classes: tuple[str, ...] = ()
    inception: bool = False

    @abstractmethod
    def see(self, x: Tensor) -> Seen:
        """Features and classes of examples in natural units, each a function of its example alone; on the CPU."""

    @abstractmethod
    def probabilities(self, x: Tensor) -> Tensor | None:
        """Probability of each class, ``float32`` (B, K); None where the space knows no classes."""

    @final
    def describe(self) -> str:
        """The words that every metric carries."""
        return f"features: {self.name}, resize: {self.resize}"


def see_all(space: FeatureSpace, x: Tensor) -> Seen:
    """Features and classes of many examples (N, ...), a few at a time.

    Raises:
        NonFiniteError: some example has no finite features; the text says how many.
    """
    rows = max(1, min(256, VALUES_AT_ONCE // max(x[0].numel(), 1)))
    seen = _joined([space.see(part) for part in x.split(rows)])
    bad = int((~torch.isfinite(seen.features).all(1)).sum())
    if bad:
        raise NonFiniteError(f"{bad} of {len(x)} examples have no finite features ({space.name}).")
    return seen


def see_data(space: FeatureSpace, data: Dataset, ids: np.ndarray) -> Seen:
    """Features and classes of the examples ``ids`` (N,), N >= 1, of a data set."""
    if data.blocks is not None:  # in the order in which they lie, or blocks would be read again and again
        order = np.argsort(ids, kind="stable")
        ids, back = ids[order], torch.from_numpy(np.argsort(order))
        seen = _joined([see_all(space, data.batch(ids[i : i + 1024]).x) for i in range(0, len(ids), 1024)])
        return Seen(seen.features[back], None if seen.labels is None else seen.labels[back])
    return _joined([see_all(space, data.batch(ids[i : i + 1024]).x) for i in range(0, len(ids), 1024)])


def _joined(parts: list[Seen]) -> Seen:
    labels = [part.labels for part in parts if part.labels is not None]
    return Seen(torch.cat([part.features for part in parts]), torch.cat(labels) if labels else None)


@final
class Coordinates(FeatureSpace):
    """Vectors of floats as they are; where their centres are known, the nearest one is the class.

    Args:
        centres: (K, D), or None.
        classes: names of the K centres.
    """

    name = "coordinates as they are"

    def __init__(self, centres: Tensor | None = None, classes: tuple[str, ...] = ()) -> None:
        self.centres, self.classes = centres, classes if centres is not None else ()

    def see(self, x: Tensor) -> Seen:
        x = x.flatten(1).float().cpu()
        if self.centres is None:
            return Seen(x)
        return Seen(x, torch.cdist(x.double(), self.centres.double()).argmin(1))

    def probabilities(self, x: Tensor) -> Tensor | None:
        labels = self.see(x).labels
        return None if labels is None else F.one_hot(labels, len(self.classes)).float()


@final
class NetworkFeatures(FeatureSpace):
    """Features of a trained network.

    Args:
        network: a module in evaluation mode, ``float32`` (B, C, H, W) from :func:`prepare` to features (B, F) and
            logits (B, K).
        name: of the space.
        size: (height, width) that pictures are scaled to.
        own: the pictures' own (height, width).
        classes: names of the K classes; empty where the logits are of some other task.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        size: tuple[int, int],
        own: tuple[int, int],
        classes: tuple[str, ...] = (),
    ) -> None:
        self.network, self.name, self.size, self.classes = network, name, size, classes
        self.resize = "none" if size == own else f"{size[0]}x{size[1]} (bilinear, antialiased)"

    @torch.no_grad()
    def see(self, x: Tensor) -> Seen:
        features, logits = self.network(prepare(x.cpu(), self.size))
        return Seen(features, logits.argmax(1) if self.classes else None)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor | None:
        return self.network(prepare(x.cpu(), self.size))[1].softmax(1) if self.classes else None


@final
class StackedFeatures(FeatureSpace):
    """Each channel seen by itself: features side by side, classes in all combinations (first channel most significant).

    Args:
        single: the space of one channel.
        channels: how many are stacked.
    """

    def __init__(self, single: FeatureSpace, channels: int) -> None:
        self.single, self.channels = single, channels
        self.name, self.resize = f"each of {channels} channels by {single.name}", single.resize
        names = single.classes and ("",)
        for _ in range(channels):
            names = tuple(a + b for a in names for b in single.classes)
        self.classes = names

    def _channels(self, x: Tensor) -> list[Tensor]:
        if x.shape[1] != self.channels:
            raise UsageError(f"{self.name} needs pictures with {self.channels} channels, not {x.shape[1]}.")
        return [x[:, i : i + 1] for i in range(self.channels)]

    def see(self, x: Tensor) -> Seen:
        parts = [self.single.see(channel) for channel in self._channels(x)]
        joint: Tensor | None = None
        for part in parts:
            if part.labels is not None:
                joint = part.labels if joint is None else joint * len(self.single.classes) + part.labels
        return Seen(torch.cat([part.features for part in parts], 1), joint)

    def probabilities(self, x: Tensor) -> Tensor | None:
        joint: Tensor | None = None
        for channel in self._channels(x):
            one = self.single.probabilities(channel)
            if one is None:
                return None
            joint = one if joint is None else (joint[:, :, None] * one[:, None]).flatten(1)
        return joint


def prepare(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures as a network takes them.

    Args:
        x: ``uint8`` (B, C, H, W). Where there is an alpha channel the colours are multiplied by it, so that the colour
            of what cannot be seen does not count.
        size: (height, width).

    Returns:
        ``float32`` (B, C, height, width) in [0, 1].
    """
    out = x.float() / 255
    if x.shape[1] == 4:
        out = torch.cat([out[:, :3] * out[:, 3:], out[:, 3:]], 1)
    if tuple(x.shape[2:]) != size:
        out = F.interpolate(out, size, mode="bilinear", antialias=True, align_corners=False)
    return out
