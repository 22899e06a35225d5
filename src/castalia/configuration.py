"""What a run is made from: one complete, typed, frozen :class:`Recipe`, and its JSON.

Recipes are plain functions in :mod:`castalia.recipes`; a variant calls the base and replaces fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from castalia.catalogue import entry
from castalia.core.config import Config, from_json, override, to_json
from castalia.core.errors import RunError, UsageError
from castalia.core.model import Optimizer
from castalia.core.spec import LabelSpec, ScalarSpec, Spec
from castalia.media.rooms import ROOMS, medium_of, room

SCHEMA_VERSION = 2

LARGEST_BATCH = 1 << 24
"""Examples; a batch is held in memory as numbers before any of it is read."""


@dataclass(frozen=True)
class Schedule:
    """Learning-rate multiplier over a stage.

    Attributes:
        shape: ``constant``; ``cosine`` from 1 to ``end``; ``linear`` from 1 to ``end``; ``step``: multiplied by
            ``end`` at each of ``milestones``.
        warmup: steps over which the multiplier rises linearly from 0.
        end: the final multiplier (``step``: the factor at each milestone).
        milestones: fractions of the stage, for ``step``.
    """

    shape: Literal["constant", "cosine", "linear", "step"] = "cosine"
    warmup: int = 100
    end: float = 0.01
    milestones: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.end < 0 or not all(0 <= m <= 1 for m in self.milestones):
            raise ValueError("warmup and end must not be negative, milestones are shares between 0 and 1")


@dataclass(frozen=True)
class Budget:
    """What a recipe says of one stage; 0 says nothing.

    Attributes:
        share: of the run's steps (or minutes), relative to the other stages' shares.
        steps: how many of its own, beside what the others share.
        batch_size: examples per draw, over all processes.
        lr: peak learning rate where an objective names none.
    """

    share: float = 0.0
    steps: int = 0
    batch_size: int = 0
    lr: float = 0.0

    def __post_init__(self) -> None:
        if min(self.share, self.steps, self.batch_size, self.lr) < 0:
            raise ValueError("share, steps, batch_size and lr must not be negative")
        if self.batch_size > LARGEST_BATCH:
            raise ValueError(f"batch_size is at most {LARGEST_BATCH:,}")
        if self.share and self.steps:
            raise ValueError("a stage has a share or steps of its own, not both")


@dataclass(frozen=True)
class Training:
    """How a run is trained.

    Attributes:
        steps: steps of all stages together.
        minutes: instead of ``steps``: measure the speed, then plan as many steps as fit. 0 means use ``steps``.
        stages: budgets of single stages, by name: what is not 0 there holds instead of what the model or this section
            says.
        batch_size: examples per draw, over all processes.
        lr: peak learning rate where an objective names none.
        optimizer: the optimizer where an objective names none.
        schedule: learning-rate schedule.
        clip: largest gradient norm per objective; 0 clips nothing.
        accumulate: micro-batches per draw (memory for time).
        ema_half_life: examples after which a weight's share in the averaged weights has halved; 0 averages nothing. It
            is reached once a stage has seen twenty times as many: until then it is a twentieth of those seen, and a
            shorter stage ends with that.
        precision: ``auto`` measures and picks the faster of the two.
        recompute: keep only the inputs of blocks, and compute the blocks again in the backward pass: less memory, about
            a third more time, the same numbers.
        compile: compile the networks in place (pays for long runs of small networks).
        threads: CPU threads per process; 0 uses every core, shared evenly by the processes of this machine.
        seed: of weights, order, noise.
        checkpoint_every: steps between checkpoints; 0: up to twenty per run, five seconds or more apart.
        keep: checkpoints kept.
        sample_every: steps between sample grids; 0: ten per run.
        samples: examples in a sample grid; 0: as many as one drawing of the medium shows well.
        log_every: steps between lines of ``metrics.jsonl``.
        max_bad_steps: non-finite steps in a row after which training stops.
        tracker: additional log: none, tensorboard or wandb.
    """

    steps: int = 10_000
    minutes: float = 0.0
    stages: dict[str, Budget] = field(default_factory=dict)
    batch_size: int = 128
    lr: float = 1e-3
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    clip: float = 0.0
    accumulate: int = 1
    ema_half_life: float = 10_000.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    recompute: bool = False
    compile: bool = False
    threads: int = 0
    seed: int = 0
    checkpoint_every: int = 0
    keep: int = 2
    sample_every: int = 0
    samples: int = 0
    log_every: int = 50
    max_bad_steps: int = 5
    tracker: Literal["none", "tensorboard", "wandb"] = "none"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "keep", "log_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("minutes", "clip", "ema_half_life", "threads", "checkpoint_every", "sample_every", "samples"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.lr <= 0:
            raise ValueError("lr must be positive")
        if max(self.batch_size, self.samples) > LARGEST_BATCH:
            raise ValueError(f"batch_size and samples are at most {LARGEST_BATCH:,}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide into {self.accumulate} micro-batches")


@dataclass(frozen=True)
class Data:
    """Where the examples come from.

    Attributes:
        source: a named set or a path.
        split: which part trains. A path without splits of its own keeps a tenth of its examples, chosen by a hash
            of their names, as ``test``; ``all`` trains on that tenth too, and leaves nothing to measure on.
        medium: what they are.
        options: how files are read, an instance of the medium's own options; None is the default one.
    """

    source: str
    split: str = "train"
    medium: str = "image"
    options: Any = None

    def __post_init__(self) -> None:
        kind = room(self.medium).options
        if self.options is None:
            object.__setattr__(self, "options", kind())
        if type(self.options) is not kind:
            raise ValueError(f"the options of {self.medium} are {kind.__name__}, not {type(self.options).__name__}")


@dataclass(frozen=True)
class Expected:
    """The result that a recipe promises, and how to check it.

    Attributes:
        metric: name of a metric of ``castalia evaluate``.
        at_most: its value should not exceed this.
        published: what the paper reports, in words with its source.
        minutes: training time on two CPU cores.
    """

    metric: str
    at_most: float
    published: str
    minutes: float


@dataclass(frozen=True)
class Recipe:
    """What to run and what to expect from it.

    Attributes:
        model: name in the catalogue.
        config: that model's configuration.
        data: where the examples come from.
        training: how it is trained.
        expected: the results to expect; empty where nobody measured.
        parents: run folders of finished runs that the model starts from, by role. The weights of the role ``start``
            (a run of the same network, or of the network below this one's adapters) are copied before the first step;
            other roles are for the model to use.
    """

    model: str
    config: Config
    data: Data
    training: Training = field(default_factory=Training)
    expected: tuple[Expected, ...] = ()
    parents: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if len({role for role, _ in self.parents}) < len(self.parents):
            raise ValueError("each parent has a role of its own")


def recipe_from_json(data: Any, where: str = "recipe") -> Recipe:
    """Read a recipe; the class of its ``config`` is the one that the catalogue gives for its ``model``.

    Raises:
        UsageError: an unknown model or field, or a value of another type.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("model"), str):
        raise UsageError(f"{where}: expected an object with a field 'model'.")
    config_class = entry(data["model"]).load().Config
    config = from_json(config_class, data.get("config", {}), f"{where}.config")
    source = data_from_json(data.get("data"), f"{where}.data")
    rest = from_json(_Rest, {k: v for k, v in data.items() if k not in ("model", "config", "data")}, where)
    try:
        return Recipe(data["model"], config, source, rest.training, rest.expected, rest.parents)
    except ValueError as error:
        raise UsageError(f"{where}: {error}.") from error


def data_from_json(data: Any, where: str = "data") -> Data:
    """Read a recipe's data section; the class of its ``options`` is that of its medium."""
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: expected an object with a field 'source'.")
    rest = dict(data)
    if "image" in rest and "options" not in rest:  # written before there were other media with options
        image = rest.pop("image")
        rest |= {"medium": rest.get("medium", "image"), "options": image}
    options = rest.pop("options", None)
    plain = from_json(_Source, rest, where)
    kind = room(plain.medium).options
    known = kind() if options is None else from_json(kind, options, f"{where}.options")
    return Data(plain.source, plain.split, plain.medium, known)


def override_data(data: Data, assignments: Sequence[str]) -> Data:
    """``data`` with ``name=value`` texts applied; those of its options begin with ``options.``."""
    own = [text[8:] for text in assignments if text.startswith("options.")]
    rest = [text for text in assignments if not text.startswith("options.")]
    for text in rest:
        name = text.partition("=")[0].strip()
        if hasattr(data.options, name) and not hasattr(data, name):
            raise UsageError(f"data.{name}: how files are read stands under options: write data.options.{name}=...")
    plain = override(_Source(data.source, data.split, data.medium), rest, "data")
    options = override(data.options, own, "data.options")
    if plain.medium != data.medium:
        raise UsageError("data.medium follows from the source; it cannot be set.")
    return Data(plain.source, plain.split, plain.medium, options)


@dataclass(frozen=True)
class _Source:
    """The fields of a data section whose types do not depend on the medium."""

    source: str
    split: str = "train"
    medium: str = "image"


@dataclass(frozen=True)
class _Rest:
    """The fields of a recipe whose types do not depend on the model."""

    training: Training = field(default_factory=Training)
    expected: tuple[Expected, ...] = ()
    parents: tuple[tuple[str, str], ...] = ()


SIDES: Mapping[str, type[Spec]] = {"label": LabelSpec, "number": ScalarSpec}
"""Specs of what stands beside examples and is no medium."""


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """A spec with the name of its kind, and so its columns."""
    side = next((name for name, kind in SIDES.items() if type(spec) is kind), None)
    data = {"medium": side or medium_of(spec).name, **to_json(replace(spec, columns=()))}
    del data["columns"]
    return {**data, "columns": {name: spec_to_json(s) for name, s in spec.columns}} if spec.columns else data


def spec_from_json(data: Any, where: str = "spec") -> Spec:
    """The inverse of :func:`spec_to_json`."""
    name = data.get("medium") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or name not in (*ROOMS, *SIDES):
        raise RunError(f"{where}: expected an object whose 'medium' is one of {', '.join((*ROOMS, *SIDES))}.")
    kind = SIDES[name] if name in SIDES else room(name).spec
    columns = data.get("columns", {})
    if not isinstance(columns, Mapping) or len(columns) > 1000:
        raise RunError(f"{where}.columns: expected an object of specs by name.")
    beside = tuple((str(key), spec_from_json(value, f"{where}.columns.{key}")) for key, value in columns.items())
    spec = from_json(kind, {k: v for k, v in data.items() if k not in ("medium", "columns")}, where)
    return replace(spec, columns=beside)
