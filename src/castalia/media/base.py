"""The contract of a medium: files become examples, examples become files and pictures.

A medium is a room with everything in it: ``media/<name>/`` has the medium, its readers and writers, its named sets and
a tiny built-in one. Examples are in natural units, so that a medium knows no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.spec import Spec
from castalia.estimators.metric import Metric
from castalia.estimators.progress import Show
from castalia.media.image.write import save_image
from castalia.media.sets import NamedData, Progress


@dataclass(frozen=True)
class Rate:
    """A likelihood per something: bits per pixel value, nats per token.

    Attributes:
        unit: what it is called.
        base: of the logarithm: 2 for bits, e for nats.
        counts: how many of these somethings each example has, ``float64`` (B,).
    """

    unit: str
    base: float
    counts: Tensor


@dataclass(frozen=True)
class Work:
    """What a measure works on; what is not there is None.

    Attributes:
        spec: the shape of one example.
        samples: examples that a model made, on the CPU.
        train: its training data.
        held_out: real examples that it has not seen.
        asked: numbers of the held-out examples (N,) whose columns the samples were given, in their order; None where
            they were given none.
        seed: of all randomness.
        show: receives lines of progress.
    """

    spec: Any
    samples: Batch | None = None
    train: Dataset | None = None
    held_out: Dataset | None = None
    asked: np.ndarray | None = None
    seed: int = 0
    show: Show | None = None


@dataclass(frozen=True)
class Measure:
    """Something that is said of samples of a medium, in numbers.

    Attributes:
        name: of its metric; where it has several, each is called by this name and a part: ``pitch``, ``pitch_spread``.
            The same of real held-out examples is called ``..._floor``, of trivial ones ``..._ceiling``.
        needs: what has to be there: ``samples``, ``train``, ``held-out``, or the name of a capability that the model
            must have. Without it the measure is left out.
        run: measures. It raises NonFiniteError rather than give a number that is none, and gives nothing where there is
            nothing to say.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Work], dict[str, Metric]]


class Medium(ABC):
    """A kind of thing that models make.

    Attributes:
        name: what the medium is called in configurations and reports.
        spec: how the shape of one example is described.
        options: how files are read: a frozen dataclass of plain values, each with a default.
        shown: how many examples one drawing shows well.
        reading: what it reads, in words.
        measures: what ``castalia evaluate`` says of its samples.
    """

    name: ClassVar[str]
    spec: ClassVar[type[Spec]]
    options: ClassVar[type[Config]]
    shown: ClassVar[int]
    reading: ClassVar[str]
    measures: ClassVar[tuple[Measure, ...]] = ()

    # in

    def as_found(self, source: str, options: Any) -> Any:
        """Options that leave examples as they are where that is no more than ``options`` would make of them.

        Args:
            source: a named set, or a path.
            options: how a preset would read it. The default changes nothing.
        """
        return options

    @abstractmethod
    def reads(self, path: Path) -> bool:
        """Whether a file or folder that exists is one of this medium; told cheaply, from names and first bytes."""

    @abstractmethod
    def open(
        self, path: Path, options: Any, split: str | None, like: Spec | None = None, progress: Progress | None = None
    ) -> Dataset:
        """Open a path.

        Args:
            path: what to read.
            options: an instance of ``options``.
            split: where the source has splits of its own one of them, and None means ``train``; where it has none,
                None means everything, and ``train`` and ``test`` are nine tenths and one tenth.
            like: read it as the data of this shape were read: the same size, rate, vocabulary.
            progress: called with (done, total) while reading.

        Raises:
            DataError: it cannot be read; the text names the file and what is wrong.
        """

    @abstractmethod
    def named(self) -> Mapping[str, NamedData]:
        """Its sets that have a name."""

    @abstractmethod
    def open_named(
        self, name: str, options: Any, split: str, like: Spec | None = None, progress: Progress | None = None
    ) -> Dataset:
        """Open one of them; as :meth:`open`."""

    @abstractmethod
    def tiny(self) -> Dataset:
        """A few small examples that are built in, on which a system can be tried in seconds."""

    @abstractmethod
    def read(self, text: str, spec: Any) -> Tensor:
        """What a person types as an example: its ``x``, without a batch dimension.

        Raises:
            UsageError: it is none; the text says what is expected.
        """

    @abstractmethod
    def read_file(self, path: Path, spec: Any) -> Tensor:
        """The same from a file.

        Raises:
            DataError: it cannot be read.
        """

    @final
    def given(self, text: str, spec: Any) -> Tensor:
        """What a person types as a condition: an example, or ``@FILE`` (``@@`` for a text that begins with ``@``)."""
        if text.startswith("@@") or not text.startswith("@"):
            return self.read(text.removeprefix("@") if text.startswith("@@") else text, spec)
        path = Path(text[1:])
        if not path.is_file():
            raise UsageError(f"There is no file {path}. (Write @@ for a text that begins with @.)")
        return self.read_file(path, spec)

    # out

    @abstractmethod
    def write(
        self, batch: Batch, spec: Any, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write one file per example, named by number, or one file of rows; return the paths in order.

        Args:
            batch: the examples.
            spec: their shape.
            folder: where to write; made when missing.
            start: number of the first example; the others follow.
            recipe: everything needed to make them again (JSON values); kept in or beside each file.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """

    @abstractmethod
    def picture(self, batch: Batch, spec: Any, columns: int | None = None) -> Image:
        """All examples, at least one, in one picture.

        Args:
            batch: the examples.
            spec: their shape.
            columns: examples per row, for media that lay them out in rows; None for about a square.
        """

    def film(self, batch: Batch, spec: Any) -> Tensor | None:
        """Examples one after the other as the frames of a film, ``uint8`` (T, C, H, W).

        None where such a medium does not move; that is the default.
        """
        return None

    @final
    def draw(self, batch: Batch, spec: Any, path: Path, recipe: Mapping[str, Any] | None = None) -> None:
        """Write :meth:`picture` as a PNG with the recipe in it and beside it.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        save_image(self.picture(batch, spec), path, recipe)

    # measured

    @abstractmethod
    def rates(self, batch: Batch, spec: Any) -> Mapping[str, Rate]:
        """What likelihoods of these examples are told per, by the name of the metric."""

    @abstractmethod
    def distance(self, a: Batch, b: Batch, spec: Any) -> float:
        """How far two sets of examples lie apart: near 0 where they are alike. For tests."""
