"""What an edit is: a name, options that describe themselves, what it needs, and a function.

An edit is one file in ``creative/edits/`` and one line in the table there. Its options are a frozen dataclass whose
fields say in their metadata what a person needs to know; the command line, or any other form, is made from them
(:func:`options_of`). Forms have to be there at once, so this file and those of the edits import torch only inside
functions.

An edit knows neither files nor folders: it is given a :class:`Work` that reads for it, and returns a :class:`Product`,
which others write as the medium does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from torch import Tensor, nn

    from castalia.core.data import Batch, Dataset
    from castalia.core.precision import Precision
    from castalia.core.rng import SampleRng
    from castalia.core.sampling import Sampling
    from castalia.creative.concepts import Segmenter
    from castalia.creative.priors import LatentMixture
    from castalia.page import Page as Html


# what comes out


@dataclass(frozen=True)
class Grid:
    """Examples side by side.

    Attributes:
        examples: the examples, on the CPU.
        columns: how many in a row; None for about a square.
        given: how many of the first are not made but given: originals to compare with.
        recipe: what belongs into the recipe beside the options (JSON values).
    """

    examples: Batch
    columns: int | None = None
    given: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class One:
    """One example, alone.

    Attributes:
        examples: a batch of one, on the CPU.
        recipe: as of a grid.
    """

    examples: Batch
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Film:
    """Examples one after the other.

    Attributes:
        frames: the examples in order, on the CPU.
        fps: frames a second, for media that move.
        boomerang: play them back as well, so that the end meets the beginning.
        still: what to show where nothing can move; None for the frames in a row.
        files: whole files that show the same, by their endings: a mesh that turns as ``.glb``.
        recipe: as of a grid.
    """

    frames: Batch
    fps: float = 12.0
    boomerang: bool = False
    still: Grid | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A page to be read, in one file that needs nothing from elsewhere.

    Attributes:
        html: the page.
        numbers: what stands on it, as JSON values, for programs.
        recipe: as of a grid.
    """

    html: Html
    numbers: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


Product = Film | Grid | One | Page


MOST_PIXELS = 1 << 20
"""Of a picture that an edit makes: networks that look at all of it at once need hundreds of bytes for each."""


# what goes in


@dataclass(frozen=True)
class Sight:
    """A network that looks at pictures.

    Attributes:
        name: what it is called.
        network: called with pictures ``float32`` (B, C, H, W), 0 to 255, in evaluation mode; gradients flow.
        channels: of the pictures.
        size: (height, width) that it was made for.
    """

    name: str
    network: nn.Module
    channels: int
    size: tuple[int, int]


class Work(ABC):
    """What an edit works with: a run's model, and what is read for it.

    Attributes:
        model: in evaluation mode, with the capabilities that the edit needs.
        spec: the shape of its examples.
        title: the system's name, for messages.
        at_once: examples that are computed at once, at most.
    """

    model: Any
    spec: Any
    title: str
    at_once: int

    @abstractmethod
    def examples(self, texts: Sequence[str]) -> Batch:
        """Examples of the run's medium, each named by its file, or typed where the medium can be: (N, ...).

        Raises:
            UsageError: there is no such file, or it cannot be read as what is expected.
            DataError: a file cannot be read.
        """

    @abstractmethod
    def mask(self, path: str) -> Tensor:
        """A picture as a mask, ``bool`` (1, 1, H, W) of the run's size: True where it is white.

        Raises:
            UsageError: nothing in it is white, or the run makes no pictures.
        """

    @abstractmethod
    def picture(self, path: str, channels: int) -> Tensor:
        """A picture of any size, ``uint8`` (1, channels, H, W), scaled and cut in no way.

        Raises:
            UsageError: there is no such file.
            DataError: it cannot be read.
        """

    @abstractmethod
    def sight(self, name: str | None) -> Sight:
        """A network that looks at pictures: of the run, or of another.

        Args:
            name: of one of the model's own; ``features`` for the feature network of the run's data; or a run folder,
                with ``:NAME`` behind it for another than its first. None for the first of the model, or ``features``
                where it has none.

        Raises:
            UsageError: there is none of that name, or it is a file that no gradients can be had from.
        """

    @abstractmethod
    def segmenter(self, path: str, names: str | None) -> Segmenter:
        """A user's segmenter from an ONNX file, and the names of its concepts, one in a line of a text file.

        Raises:
            UsageError: a file is missing, or there are not as many names as concepts.
            DataError: the graph cannot be used.
        """

    @abstractmethod
    def classifier(self) -> Segmenter:
        """The classes of the run's data, as concepts of whole pictures.

        Raises:
            UsageError: there are none.
        """

    @abstractmethod
    def data(self, source: str | None) -> Dataset:
        """The data named, or the run's own, in the shape of the run."""

    @abstractmethod
    def held_out(self, source: str | None) -> Dataset:
        """The data named, or the run's own that it was not trained on, in the shape of the run."""

    @abstractmethod
    def given(self, options: Asking, n: int) -> dict[str, Tensor]:
        """What the options ask for, for ``n`` examples.

        Raises:
            UsageError: the model accepts no such thing.
        """

    @abstractmethod
    def label(self, name: str | None) -> int | None:
        """The number of a class given by name or number; None where none is.

        Raises:
            UsageError: the model has no such class.
        """

    @abstractmethod
    def prior(self) -> LatentMixture:
        """A prior fitted to the latents of the run's training data.

        Raises:
            UsageError: the model does not encode.
        """

    @abstractmethod
    def sampling(self, settings: Sequence[str]) -> Sampling:
        """The model's sampling options with ``name=value`` texts applied.

        Raises:
            UsageError: it has no such option.
        """

    @abstractmethod
    def precision(self, asked: Precision | Literal["auto"]) -> Precision:
        """The precision that networks compute in where this one is asked for."""

    @abstractmethod
    def rng(self, seed: int, rows: range) -> SampleRng:
        """Streams of these rows, on the model's device."""


@dataclass(frozen=True)
class Edit:
    """Something that can be done with a run.

    Attributes:
        name: what it is called.
        help: what it does, in a sentence.
        out: what it writes, in words.
        options: a frozen dataclass of plain values, whose fields are made with :func:`option`.
        run: does it: ``(work, options) -> product``; called without gradients.
        needs: names of the capabilities that the model must have; ``A|B``: one of the two.
        media: names of the media that it makes sense for; empty for all.
    """

    name: str
    help: str
    out: str
    options: type[Any]
    run: Callable[[Work, Any], Product]
    needs: tuple[str, ...] = ()
    media: tuple[str, ...] = ()


# options that describe themselves


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    flag: str | None = None,
    metavar: str | None = None,
    least: int | None = None,
    example: bool = False,
    mask: bool = False,
) -> Any:
    """A field of an edit's options.

    Args:
        default: its value where none is given; without one, it has to be given.
        help: what it is, for people.
        flag: how it is typed; None for ``--name``, empty for a place of its own on the line.
        metavar: what stands for its value in a usage line.
        least: smallest whole number that it may be.
        example: it names an example of the run's medium: a file.
        mask: it names a picture that says where.
    """
    told = {"help": help, "flag": flag, "metavar": metavar, "least": least, "example": example, "mask": mask}
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class Option:
    """What a form needs to know of one option.

    Attributes:
        name: of the field.
        flag: how it is typed; empty for a place of its own on the line.
        kind: of one value: ``int``, ``float``, ``str`` or ``bool``.
        default: its value where none is given.
        required: whether it has to be given.
        several: whether it takes any number of values; then the default is a tuple.
        choices: what it may be; empty for anything of its kind.
        help: what it is.
        metavar: what stands for its value in a usage line, or None.
        least: smallest whole number that it may be, or None.
        example: whether it names an example of the run's medium.
        mask: whether it names a mask.
    """

    name: str
    flag: str
    kind: type
    default: Any
    required: bool
    several: bool
    choices: tuple[str, ...]
    help: str
    metavar: str | None
    least: int | None
    example: bool
    mask: bool


def options_of(edit: Edit) -> tuple[Option, ...]:
    """The options of an edit, in the order of its fields."""
    hints = get_type_hints(edit.options)
    found = []
    for f in fields(edit.options):
        kind, several, choices = _kind(hints[f.name])
        flag = f.metadata["flag"]
        rest = {name: f.metadata[name] for name in ("help", "metavar", "least", "example", "mask")}
        flag = "--" + f.name.replace("_", "-") if flag is None else flag
        found.append(Option(f.name, flag, kind, f.default, f.default is MISSING, several, choices, **rest))
    return tuple(found)


def _kind(hint: Any) -> tuple[type, bool, tuple[str, ...]]:
    """Kind of one value, whether there may be several, and choices."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (hint,) = (a for a in args if a is not NoneType)
        return _kind(hint)
    if origin is Literal:
        return str, False, args
    if origin is tuple:
        return args[0], True, ()
    return hint, False, ()


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Options of edits that sample: what is asked for, and how it is drawn."""

    label: str | None = option(None, "ask a conditional model for this class, by name or number", metavar="CLASS")
    prompt: str | None = option(None, "the beginning, for models that continue one; @FILE reads a file", metavar="TEXT")
    given: tuple[str, ...] = option(
        (), "ask for anything that the model accepts; NAME=@FILE reads a file", metavar="NAME=VALUE"
    )
    settings: tuple[str, ...] = option(
        (), "a sampling option of the model, for example steps=20", flag="--set", metavar="NAME=VALUE"
    )
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "of the networks when sampling; auto is that of the run's training (auto)"
    )
