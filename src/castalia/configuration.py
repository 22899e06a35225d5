"""What a run is made from: one complete, typed, frozen :class:`Recipe`, and its JSON.

Recipes are plain functions in :mod:`castalia.recipes`; a variant calls the base and replaces fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from castalia.catalogue import entry
from castalia.core.config import from_json, to_json
from castalia.core.data import Spec
from castalia.core.errors import RunError, UsageError
from castalia.core.model import Config, Optimizer
from castalia.media.base import Medium
from castalia.media.image.decode import ImageOptions
from castalia.media.image.medium import ImageMedium
from castalia.media.points.medium import PointsMedium

SCHEMA_VERSION = 1

MEDIA: dict[str, Medium] = {"image": ImageMedium(), "points": PointsMedium()}


def medium_of(spec: Spec) -> Medium:
    """The medium whose examples ``spec`` describes."""
    return next(medium for medium in MEDIA.values() if type(spec) is medium.spec)


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
class Training:
    """How a run is trained.

    Attributes:
        steps: steps of all stages together.
        minutes: instead of ``steps``: measure the speed, then plan as many steps as fit. 0 means use ``steps``.
        batch_size: examples per draw, over all processes.
        lr: peak learning rate where an objective names none.
        optimizer: the optimizer where an objective names none.
        schedule: learning-rate schedule.
        clip: largest gradient norm per objective; 0 clips nothing.
        accumulate: micro-batches per draw (memory for time).
        ema_half_life: examples after which a weight's share in the averaged weights has halved; 0 averages nothing.
        precision: ``auto`` measures and picks the faster of the two.
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
    batch_size: int = 128
    lr: float = 1e-3
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    clip: float = 0.0
    accumulate: int = 1
    ema_half_life: float = 10_000.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
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
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide into {self.accumulate} micro-batches")


@dataclass(frozen=True)
class Data:
    """Where the examples come from.

    Attributes:
        source: a named set or a path.
        split: which part trains. A path without splits of its own keeps a tenth of its examples, chosen by a hash
            of their names, as ``test``; ``all`` trains on that tenth too, and leaves nothing to measure on.
        image: how picture files are decoded.
    """

    source: str
    split: str = "train"
    image: ImageOptions = field(default_factory=ImageOptions)


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
            (a run of the same network) are copied before the first step; other roles are for the model to use.
    """

    model: str
    config: Config
    data: Data
    training: Training = field(default_factory=Training)
    expected: tuple[Expected, ...] = ()
    parents: tuple[tuple[str, str], ...] = ()


def recipe_from_json(data: Any, where: str = "recipe") -> Recipe:
    """Read a recipe; the class of its ``config`` is the one that the catalogue gives for its ``model``.

    Raises:
        UsageError: an unknown model or field, or a value of another type.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("model"), str):
        raise UsageError(f"{where}: expected an object with a field 'model'.")
    config_class = entry(data["model"]).load().Config
    config = from_json(config_class, data.get("config", {}), f"{where}.config")
    rest = from_json(_Rest, {k: v for k, v in data.items() if k not in ("model", "config")}, where)
    return Recipe(data["model"], config, rest.data, rest.training, rest.expected, rest.parents)


@dataclass(frozen=True)
class _Rest:
    """The fields of a recipe whose types do not depend on the model."""

    data: Data
    training: Training = field(default_factory=Training)
    expected: tuple[Expected, ...] = ()
    parents: tuple[tuple[str, str], ...] = ()


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """A spec with the name of its medium."""
    return {"medium": medium_of(spec).name, **to_json(spec)}


def spec_from_json(data: Any, where: str = "spec") -> Spec:
    """The inverse of :func:`spec_to_json`."""
    if not isinstance(data, Mapping) or not isinstance(data.get("medium"), str) or data["medium"] not in MEDIA:
        raise RunError(f"{where}: expected an object whose 'medium' is one of {', '.join(MEDIA)}.")
    return from_json(MEDIA[data["medium"]].spec, {k: v for k, v in data.items() if k != "medium"}, where)
