"""Steps, precision and threads: decided once per run, stored, and kept by every resume.

Measuring twice could decide twice, and another precision or another number of threads gives other last bits.
The plan therefore stands in ``plan.json`` of the run, and the choice of precision is remembered per machine,
so that two runs of one recipe agree as well. Threads are all that there are, whatever else runs: what a run computes
does not depend on its neighbours. Only where other programs keep cores busy, so that threads wait for each other and
steps take a hundred times as long, is that given up: the run goes on with fewer threads, and the plan says from which
step on, so that a resume does the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from castalia.configuration import Recipe, Training
from castalia.core.config import from_json, to_json
from castalia.core.errors import CastaliaError, RunError, UsageError
from castalia.core.files import read_json, read_sealed, write_json, write_sealed
from castalia.core.model import Stage
from castalia.core.precision import Precision, bf16_is_native, precision_context
from castalia.core.threads import asked, cores, free_threads
from castalia.training.parallel import World
from castalia.training.stage import ActiveStage, stage_ends, stage_steps

PROBE_SECONDS = 0.6
WINDOW = 2.0
"""Seconds of steps that are looked at together."""

SLOWER = 3.0
"""Steps that take this many times as long as they did are a reason to look whether threads wait for cores."""

GAIN = 1.1
"""bfloat16 must be this much faster to be chosen."""


@dataclass(frozen=True)
class Plan:
    """What was decided.

    Attributes:
        steps: steps of the whole run, as far as is known.
        precision: ``float32`` or ``bfloat16`` (autocast of matrix products and convolutions).
        threads: CPU threads per process.
        fewer: (step, threads): from this step of the run on so few threads compute, because cores were busy.
        paced: (step, steps): from this step of the run on its stage was to have so many steps in all, because it had
            become slower or faster than it was measured. The first of a stage is what was planned at its beginning.
        reason: why this precision, for people.
        stages: steps of each stage.
        timed: of how many stages the steps are settled; with ``minutes`` those of a later stage are an estimate until
            it begins, when its own speed is measured.
    """

    steps: int
    precision: Precision
    threads: int
    reason: str
    stages: tuple[int, ...] = ()
    timed: int = 0
    fewer: tuple[tuple[int, int], ...] = ()
    paced: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1 or self.threads < 1:
            raise ValueError("steps and threads must be at least 1")
        if self.stages and (sum(self.stages) != self.steps or min(self.stages) < 0):
            raise ValueError("the steps of the stages must add up")
        if not 0 <= self.timed <= len(self.stages):
            raise ValueError("timed counts stages")
        counts = [self.threads, *(count for _, count in self.fewer)]
        steps = [step for step, _ in self.fewer]
        if steps != sorted(steps) or min(steps, default=0) < 0 or min(counts) < 1 or max(counts) > self.threads:
            raise ValueError("fewer threads compute from rising steps on, and at least one")
        paces = [step for step, _ in self.paced]
        if paces != sorted(paces) or min(paces, default=0) < 0 or min((n for _, n in self.paced), default=1) < 1:
            raise ValueError("a stage is paced at rising steps, and has at least one")

    def threads_at(self, step: int) -> int:
        """How many threads compute this step."""
        return next((count for start, count in reversed(self.fewer) if start <= step), self.threads)

    def with_fewer(self, step: int, threads: int) -> Plan:
        """The plan of a run that goes on with fewer threads from ``step`` on."""
        return replace(self, fewer=(*(known for known in self.fewer if known[0] < step), (step, threads)))

    def with_pace(self, number: int, step: int, count: int) -> Plan:
        """The plan once stage ``number`` is, from ``step`` of the run on, to have ``count`` steps in all."""
        known = tuple(pace for pace in self.paced if pace[0] < step)
        start = sum(self.stages[:number])
        first = () if any(begin >= start for begin, _ in known) else ((start, self.stages[number]),)
        stages = (*self.stages[:number], count, *self.stages[number + 1 :])
        return replace(self, steps=sum(stages), stages=stages, paced=(*known, *first, (step, count)))

    def steps_at(self, number: int, step: int) -> int:
        """How many steps stage ``number`` was to have, as was known at ``step`` of the run, which lies in it."""
        start = sum(self.stages[:number])
        paces = (count for begin, count in reversed(self.paced) if start <= begin <= step)
        return next(paces, self.stages[number])

    def first_planned(self, number: int) -> int:
        """How many steps stage ``number`` was to have at its beginning."""
        return self.steps_at(number, sum(self.stages[:number]))

    def continues(self, other: Plan) -> bool:
        """Whether it is what ``other`` became later in the same run."""
        same = all(self.first_planned(i) == other.first_planned(i) for i in range(min(other.timed, self.timed)))
        longer = self.timed >= other.timed and self.fewer[: len(other.fewer)] == other.fewer
        return same and longer and self.paced[: len(other.paced)] == other.paced

    def ends(self, stages: tuple[Stage, ...]) -> list[int]:
        """The run's step at which each stage ends."""
        return list(accumulate(self.stages)) if self.stages else stage_ends(stages, self.steps)

    def with_stage(self, number: int, counts: Sequence[int]) -> Plan:
        """The plan once stage ``number`` has begun, or ended: ``counts`` are the steps of it and of those after it."""
        stages = (*self.stages[:number], *counts)
        return replace(self, steps=sum(stages), stages=stages, timed=max(self.timed, number + 1))


def threads_for(recipe: Recipe, world: World) -> int:
    """Threads per process: what the recipe says, else an equal share of the cores this process may use."""
    if recipe.training.threads:
        return recipe.training.threads
    return max(1, min(asked() or cores(), cores() // world.local_size))


def decide(recipe: Recipe, world: World, trial: ActiveStage, stages: tuple[Stage, ...]) -> Plan:
    """Measure and decide.

    Args:
        recipe: gives limits and wishes.
        world: gives device and peers.
        trial: the first stage, on which speed is measured; it is of no use afterwards.
        stages: all stages, with the recipe's budgets.
    """
    training, threads = recipe.training, torch.get_num_threads()
    fewer: tuple[tuple[int, int], ...] = ()
    if may_have_fewer(recipe, world) and (free := free_threads(threads)) < threads:
        fewer = ((0, free),)
        torch.set_num_threads(free)
    precision, reason = training.precision, "asked for"
    if precision == "auto":
        precision, reason = _fastest(recipe, world, threads, trial.attempt)
    counts = stage_steps(stages, training, training.steps)
    if training.minutes:
        if world.apart and world.device.type != "cpu":
            raise UsageError("The speed of a model that is cut up is not measured; give --steps instead of --minutes.")
        counts = in_time(recipe, stages, 0, 60 * training.minutes, trial.seconds(look(training), precision))
    timed = 1 if training.minutes else len(counts)
    return Plan(sum(counts), precision, threads, reason, tuple(counts), timed, fewer)


def may_have_fewer(recipe: Recipe, world: World) -> bool:
    """Whether a training may go on with fewer threads: nobody said how many, and no other process has to agree."""
    return not recipe.training.threads and asked() is None and world.size == 1 and world.device.type == "cpu"


class Pace:
    """Notices steps that have become slow, in windows of a few seconds.

    A first window is always a reason to look at the threads: it is not known yet how fast steps can be.
    """

    def __init__(self) -> None:
        self.best, self.seconds, self.steps = math.inf, 0.0, 0

    def slow(self, seconds: float) -> bool:
        """Account for a step that took so long; whether the window that it ends is a reason to look."""
        self.seconds, self.steps = self.seconds + seconds, self.steps + 1
        if self.seconds < WINDOW:
            return False
        mean, best = self.seconds / self.steps, self.best
        self.best, self.seconds, self.steps = min(best, mean), 0.0, 0
        return best == math.inf or mean > SLOWER * best


FIRST_LOOK = 5.0
"""Seconds of a stage before its pace is looked at first."""

TOLERANCE = 0.02
"""Share by which the steps of a stage may miss its time."""

SPARE = 0.98
"""Share of the time that is left that is planned for steps."""


class Speed:
    """Seconds per step, of the last half minute or so: what the time left follows from."""

    def __init__(self, step: int) -> None:
        self.marks = deque([(step, time.monotonic())], maxlen=32)

    def per_step(self, step: int) -> float:
        """Seconds per step up to now; everything that happens between steps counts."""
        now = time.monotonic()
        if now - self.marks[-1][1] >= 1.0:
            self.marks.append((step, now))
        first, then = self.marks[0]
        return max(now - then, 1e-6) / max(step - first, 1)


def until_next_look(taken: float, left: float) -> float:
    """Seconds until the pace of a stage that took so long, and has so much left, is looked at again."""
    return max(1.0, min(0.15 * taken, left / 3))


def paced(count: int, done: int, left: float, per_step: float) -> int:
    """Steps that a stage is to have, ``done`` of them done and ``left`` seconds left; ``count`` where that fits."""
    fitting = done + max(1, int(SPARE * left / per_step))
    return count if abs(fitting - count) <= TOLERANCE * count else fitting


def look(training: Training) -> float:
    """Seconds for which the speed of a stage is measured."""
    return max(PROBE_SECONDS, 0.01 * training.minutes * 60)


LEAST_SHARE = 0.05
"""Of the time that is left: what each stage after the present one keeps, however long the present one would take."""


def time_of(recipe: Recipe, stages: tuple[Stage, ...], number: int, left: float, seconds: float = 0.0) -> float:
    """Seconds of those that are left that belong to stage ``number``.

    A stage whose steps the recipe gives takes what these need; the others share the rest by their shares. Every later
    stage keeps a little.

    Args:
        recipe: gives some stages steps of their own.
        stages: all of them.
        number: which.
        left: seconds that are left for it and those after it.
        seconds: of one step, as far as is known; 0: not.
    """
    most = left * (1 - LEAST_SHARE * (len(stages) - 1 - number))
    if own := _own(recipe, stages[number]):
        return min(most, own * seconds) if seconds else most
    reserved = sum(_own(recipe, s) for s in stages[number + 1 :]) * seconds
    shares = sum(s.share for s in stages[number:] if not _own(recipe, s))
    return max(LEAST_SHARE * left, min(most, (left - reserved) * stages[number].share / shares))


def in_time(recipe: Recipe, stages: tuple[Stage, ...], number: int, left: float, seconds: float) -> list[int]:
    """Steps of stage ``number``, whose steps take ``seconds``, and of those after it as if theirs took as long."""
    counts = []
    for i in range(number, len(stages)):
        spare = time_of(recipe, stages, i, left, seconds)
        own = _own(recipe, stages[i])
        counts.append(own or max(1, int(0.95 * spare / seconds)))
        left = max(0.0, left - spare)
    return counts


def _own(recipe: Recipe, stage: Stage) -> int:
    """Steps that the recipe gives a stage for itself, or 0."""
    return recipe.training.stages[stage.name].steps if stage.name in recipe.training.stages else 0


def load(path: Path, saved: dict[str, Any]) -> Plan | None:
    """The plan of a run: the one in its checkpoint, else the one in ``path``, else None.

    Raises:
        RunError: it is damaged.
    """
    if not saved and not path.exists():
        return None
    try:
        plan = from_json(Plan, saved or read_sealed(path), str(path))
        if saved and path.exists():  # a stage may have begun after the checkpoint: it keeps the steps that it was given
            with contextlib.suppress(RunError, UsageError):
                newer = from_json(Plan, read_sealed(path), str(path))
                if newer.continues(plan):
                    return newer
        return plan
    except UsageError as error:
        raise RunError(str(error)) from error


def store(path: Path, plan: Plan) -> None:
    """Write the plan."""
    write_sealed(path, to_json(plan))


def _fastest(recipe: Recipe, world: World, threads: int, attempt: Callable[[], None]) -> tuple[Precision, str]:
    if not bf16_is_native(world.device):
        return "float32", "the hardware has no bfloat16 matrix product"
    if world.apart and world.device.type != "cpu":
        return "bfloat16", "not measured: the whole model may not fit one device"
    memory = _memory(recipe, world, threads)  # of an undisturbed run, whatever runs beside this one
    if (known := _remembered(memory)) is not None:
        return known
    times: dict[Precision, float] = {"float32": float("inf"), "bfloat16": float("inf")}
    for _ in range(2):  # interleaved, so that a busy moment does not decide
        for name in times:
            with precision_context(name, world.device):
                times[name] = min(times[name], _time(attempt, PROBE_SECONDS / 2))
    ratio = times["float32"] / times["bfloat16"]
    choice: Precision = "bfloat16" if ratio >= GAIN else "float32"
    reason = f"measured: bfloat16 {ratio:.2f} times the speed of float32"
    with contextlib.suppress(CastaliaError, OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        if _remembered(memory) is None:
            write_json(memory, {"precision": choice, "reason": reason})
    return _remembered(memory) or (choice, reason)  # another process may have been first: its word holds


def _remembered(memory: Path) -> tuple[Precision, str] | None:
    """What this machine chose before, where that can be read."""
    with contextlib.suppress(CastaliaError, TypeError, KeyError):
        known = read_json(memory)
        if known["precision"] in ("float32", "bfloat16"):
            return known["precision"], str(known["reason"])
    return None


def _memory(recipe: Recipe, world: World, threads: int) -> Path:
    cache = Path(os.environ.get("CASTALIA_CACHE") or Path.home() / ".cache" / "castalia")
    name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine()
    key = json.dumps(
        [
            recipe.model,
            to_json(recipe.config),
            recipe.training.batch_size,
            recipe.training.accumulate,
            to_json(recipe.data),
            torch.__version__,
            threads,
            world.size,
            name,
        ]
    )
    return cache / "precision" / f"{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}.json"


def _time(attempt: Callable[[], None], budget: float) -> float:
    """Seconds of the fastest attempt after a first one that warms up."""
    attempt()
    best, started, done = float("inf"), time.perf_counter(), 0
    while done < 1 or time.perf_counter() - started < budget:
        begin = time.perf_counter()
        attempt()
        best = min(best, time.perf_counter() - begin)
        done += 1
    return best


def check_threads(threads: int) -> None:
    """Refuse a thread count that the machine cannot have.

    Raises:
        UsageError: there are fewer cores here than the run uses threads; a resume with another number would change
            the last bits of its result.
    """
    if threads > (os.cpu_count() or 1):
        raise UsageError(f"This run uses {threads} threads, but this machine has only {os.cpu_count()} cores.")
