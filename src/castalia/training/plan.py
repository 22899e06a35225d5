"""Steps, precision and threads: decided once per run, stored, and kept by every resume.

Measuring twice could decide twice, and another precision or another number of threads gives other last bits.
The plan therefore stands in ``plan.json`` of the run, and the choice of precision is remembered per machine,
so that two runs of one recipe agree as well. Threads are all that are free at the start: two runs have the same number
unless other programs kept cores busy, where the agreement is given up for a speed that may be a hundred times as high.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from castalia.configuration import Recipe
from castalia.core.config import from_json, to_json
from castalia.core.errors import CastaliaError, RunError, UsageError
from castalia.core.files import read_json, read_sealed, write_json, write_sealed
from castalia.core.precision import Precision, bf16_is_native, precision_context
from castalia.core.threads import asked, cores, free_threads
from castalia.training.parallel import World

PROBE_SECONDS = 0.6
GAIN = 1.1
"""bfloat16 must be this much faster to be chosen."""


@dataclass(frozen=True)
class Plan:
    """What was decided.

    Attributes:
        steps: steps of the whole run.
        precision: ``float32`` or ``bfloat16`` (autocast of matrix products and convolutions).
        threads: CPU threads per process.
        reason: why this precision, for people.
    """

    steps: int
    precision: Precision
    threads: int
    reason: str

    def __post_init__(self) -> None:
        if self.steps < 1 or self.threads < 1:
            raise ValueError("steps and threads must be at least 1")


def threads_for(recipe: Recipe, world: World) -> int:
    """Threads per process: what the recipe says, else an equal share of the cores this process may use."""
    if recipe.training.threads:
        return recipe.training.threads
    return max(1, min(asked() or cores(), cores() // world.local_size))


def decide(recipe: Recipe, world: World, attempt: Callable[[], None]) -> Plan:
    """Measure and decide.

    Args:
        recipe: gives limits and wishes.
        world: gives device and peers.
        attempt: one step's forward and backward passes without any update; called inside the precision context.
    """
    training, threads = recipe.training, torch.get_num_threads()
    if not training.threads and asked() is None and world.size == 1 and world.device.type == "cpu":
        threads = free_threads(threads)
        torch.set_num_threads(threads)
    precision, reason = training.precision, "asked for"
    if precision == "auto":
        precision, reason = _fastest(recipe, world, attempt)
    steps = training.steps
    if training.minutes:
        if world.sharded and world.device.type != "cpu":
            raise UsageError("The speed of a sharded model is not measured; give --steps instead of --minutes.")
        with precision_context(precision, world.device):
            seconds = _time(attempt, max(PROBE_SECONDS, 0.01 * training.minutes * 60))
        steps = max(1, int(0.95 * training.minutes * 60 / seconds))
    return Plan(steps, precision, threads, reason)


def load(path: Path, saved: dict[str, Any]) -> Plan | None:
    """The plan of a run: the one in its checkpoint, else the one in ``path``, else None.

    Raises:
        RunError: it is damaged.
    """
    if not saved and not path.exists():
        return None
    try:
        return from_json(Plan, saved or read_sealed(path), str(path))
    except UsageError as error:
        raise RunError(str(error)) from error


def store(path: Path, plan: Plan) -> None:
    """Write the plan."""
    write_sealed(path, to_json(plan))


def _fastest(recipe: Recipe, world: World, attempt: Callable[[], None]) -> tuple[Precision, str]:
    if not bf16_is_native(world.device):
        return "float32", "the hardware has no bfloat16 matrix product"
    if world.sharded and world.device.type != "cpu":
        return "bfloat16", "not measured: the whole model may not fit one device"
    memory = _memory(recipe, world)
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


def _memory(recipe: Recipe, world: World) -> Path:
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
            torch.get_num_threads(),
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
