"""Twelve hours of training, simulated: a small network with a checkpoint, a grid and a line of the log every 3 steps.

A training that saves every ten minutes makes 72 checkpoints in twelve hours; the long form makes 2,000. Memory, open
files, threads, disk and speed are looked at after each; what grows with the number of checkpoints would show.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.processes import Fresh, environment, finish
from torture.report import Options, Row

EVERY = 3
"""Steps between checkpoints, grids and lines."""

CHECKPOINTS = {True: 60, False: 2_000}
"""In the short and the long form."""

WARM = 0.25
"""Share of the training that is not looked at: allocators and caches fill."""

MEMORY = {True: 6.0, False: 20.0}
"""MB that resident memory may grow after that. A checkpoint of this training holds 0.5 MB of tensors, so whatever keeps
one copy of them is over the bound after a dozen, in the long form whatever keeps 15 KB each time. Allocators need some
slack: they grow for a while in steps of a few hundred KB."""

SPEED = {True: 0.6, False: 0.8}
"""Of the steps in a second of processor time in the second quarter, the last quarter must have so many. Other load on
the machine disturbs by some percent, more in a short form; a loop whose work grows with what is behind it would be at
half."""

LINES = 200_000
"""Of a log whose resume is timed."""

SECONDS_FOR_LINES = 20.0
"""In which the log must be cut back on resume: 100 microseconds a line, ten times what it takes."""


@dataclass(frozen=True)
class Look:
    """The process and its run folder, after a checkpoint.

    Attributes:
        step: steps done.
        seconds: on the clock.
        busy: seconds of the processor, those of looking apart.
        memory: resident bytes.
        files: open file descriptors.
        threads: of the process.
        checkpoints: bytes of the checkpoints and the weights.
        samples: bytes of the grids.
        log: bytes of ``metrics.jsonl``.
        others: files in the run folder that are no grids.
    """

    step: int
    seconds: float
    busy: float
    memory: int
    files: int
    threads: int
    checkpoints: int
    samples: int
    log: int
    others: int


def run(options: Options) -> list[Row]:
    """Train long, look often; then resume with an endless log."""
    count = 3 * LINES // 200 if options.short else LINES
    return [steady(options), long_log(options, count)]


def steady(options: Options) -> Row:
    """Train in a process of its own and judge what it looked like."""
    number = CHECKPOINTS[options.short]
    log, out = options.folder / "endurance.txt", options.folder / "looks.json"
    command = ["-m", "torture.endurance", str(options.folder / "run"), str(number), str(out)]
    code = finish(Fresh(command, environment(options.folder), log), 3_600)
    what = f"a training with {number:,} checkpoints, grids and lines of the log: nothing grows, nothing slows down"
    if code != 0:
        return Row("endurance", what, 1, (f"exit code {code}: {log.read_text()[-800:]}",))
    looks = [Look(**look) for look in json.loads(out.read_text())]
    failures, note = judge(looks, MEMORY[options.short], SPEED[options.short])
    if len(looks) < number - 1:
        failures.append(f"only {len(looks)} looks")
    return Row("endurance", what, len(looks), tuple(failures), note)


def judge(looks: Sequence[Look], memory: float, speed: float) -> tuple[list[str], str]:
    """What grew that should not have, and the numbers in words.

    Args:
        looks: in order.
        memory: growth of resident memory that is allowed, in MB.
        speed: share of the speed that must be left.
    """
    kept = looks[int(WARM * len(looks)) :]
    quarter = max(len(kept) // 3, 2)
    early, late = kept[:quarter], kept[-quarter:]
    failures: list[str] = []
    growth = (_middle(late, "memory") - _middle(early, "memory")) / 1e6
    slope = statistics.linear_regression(range(len(kept)), [look.memory for look in kept]).slope / 1e3
    grown = max(growth, slope * len(kept) / 1e3)
    if grown > memory:
        failures.append(f"memory grew by {grown:.1f} MB, {slope:.1f} KB with each checkpoint")
    for name in ("files", "threads", "others"):
        values = {getattr(look, name) for look in kept}
        if max(values) > min(values):
            failures.append(f"{name}: between {min(values)} and {max(values)}")
    if _middle(late, "checkpoints") > 1.01 * _middle(early, "checkpoints"):
        failures.append(f"checkpoints grew to {late[-1].checkpoints / 1e6:.1f} MB")
    line, first, last = _rates(kept, early, late, "log")
    if line <= 0 or last > 1.25 * first + 8:
        failures.append(f"a line of the log grew from {first:.0f} to {last:.0f} bytes")
    grid, first, last = _rates(kept, early, late, "samples")
    if grid <= 0 or last > 1.25 * first + 64:
        failures.append(f"a grid grew from {first:.0f} to {last:.0f} bytes")
    speeds = [(part[-1].step - part[0].step) / (part[-1].busy - part[0].busy) for part in (early, late)]
    if speeds[1] < speed * speeds[0]:
        failures.append(f"{speeds[1]:.1f} steps a second at the end, {speeds[0]:.1f} before")
    size = late[-1].checkpoints / 1e6
    note = (
        f"{kept[-1].step:,} steps in {looks[-1].seconds - looks[0].seconds:.0f} s; "
        f"memory {_middle(early, 'memory') / 1e6:.1f} MB, later {growth:+.2f} MB ({slope:+.1f} KB a checkpoint); "
        f"{late[-1].files} open files, {late[-1].threads} thread(s), {size:.1f} MB of checkpoints, all constant; "
        f"grows by design: metrics.jsonl {line:.0f} bytes a line, samples/ {grid / 1e3:.1f} KB a grid; "
        f"{speeds[0]:.1f} steps in a second of the processor, at the end {speeds[1]:.1f}"
    )
    return failures, note


def _middle(looks: Sequence[Look], name: str) -> float:
    return statistics.median(getattr(look, name) for look in looks)


def _rates(kept: Sequence[Look], early: Sequence[Look], late: Sequence[Look], name: str) -> tuple[float, float, float]:
    """Bytes for each checkpoint: overall, early and late."""
    return tuple(  # type: ignore[return-value]
        (getattr(part[-1], name) - getattr(part[0], name)) / (len(part) - 1) for part in (kept, early, late)
    )


def long_log(options: Options, lines: int) -> Row:
    """Resume a run whose log is long: cutting it back stays quick, and keeps what it should."""
    from castalia.runs import create

    recipe, data = small(1)
    made = create(options.folder / "long", recipe, data.spec, data.fingerprint)
    like = {"step": 0, "stage": "train", "vae/loss": 123.45678901234567, "vae/gradient_norm": 1.2345678901234567}
    path = made.path / "metrics.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(1, lines + 1):
            file.write(json.dumps({**like, "step": number, "skipped": 0, "seconds": round(number / 7, 3)}) + "\n")
        file.write('{"step": 7, "cut off by a cra')
    size, started = path.stat().st_size, time.monotonic()
    made.truncate_metrics(lines - 10)
    seconds = time.monotonic() - started
    steps = [line["step"] for line in made.metrics()]
    failures = [] if steps == list(range(1, lines - 9)) else [f"{len(steps)} lines are left, up to {steps[-1:]}"]
    allowed = SECONDS_FOR_LINES * lines / LINES + 0.5
    if seconds > allowed:
        failures.append(f"{seconds:.1f} s for {lines:,} lines")
    what = f"a log of {lines:,} lines cut back on resume, within {allowed:.1f} s"
    return Row("endurance", what, 1, tuple(failures), f"{seconds:.2f} s for {size / 1e6:.1f} MB")


def small(checkpoints: int) -> tuple[Any, Any]:
    """The recipe of the simulated training, and its data."""
    from dataclasses import replace

    from castalia import api, recipes

    recipe = recipes.demo("vae")
    settings = {"checkpoint_every": EVERY, "sample_every": EVERY, "log_every": EVERY, "samples": 4, "batch_size": 8}
    training = replace(
        recipe.training, steps=EVERY * checkpoints, precision="float32", threads=1, ema_half_life=100.0, **settings
    )
    recipe = replace(recipe, config=replace(recipe.config, widths=(16, 16), hidden=64), training=training)
    return recipe, api.training_data(recipe)


def main(out: Path, checkpoints: int, report: Path) -> None:
    """Train, and look at this very process after every checkpoint."""
    from castalia.training.loop import train

    recipe, data = small(checkpoints)
    looks: list[Look] = []
    looking = 0.0

    def look(step: int, logs: object) -> None:
        nonlocal looking
        if step % EVERY == 1 and step > 1:  # the step before saved, drew and logged
            begun = time.process_time()
            looks.append(see(out, step, begun - looking))
            looking += time.process_time() - begun  # not the training's; it grows with the number of grids

    train(recipe, data, out, quiet=True, callback=look)
    report.write_text(json.dumps([vars(look) for look in looks]))


def see(run: Path, step: int, busy: float) -> Look:
    """Look at this process and its run folder."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    grids = {entry.path: entry.stat().st_size for entry in os.scandir(run / "samples")}
    rest = [p for p in (*run.iterdir(), *(run / "checkpoints").rglob("*")) if p.is_file()]
    files = {p: p.stat().st_size for p in rest}
    log = files.pop(run / "metrics.jsonl")
    return Look(
        step=step,
        seconds=time.monotonic(),
        busy=busy,
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        files=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
        checkpoints=sum(files.values()),
        samples=sum(grids.values()),
        log=log,
        others=len(files),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
