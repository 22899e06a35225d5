"""Every file of a run cut at every length, one bit of it flipped, gone, empty, a folder, a link, a pipe.

What is promised: the weights are those that were saved, or those of an earlier checkpoint and it is said so, or there
is an error that names the place. That holds for ``config.json``, ``plan.json``, ``results.json`` and everything below
``checkpoints``. ``metrics.jsonl``, ``README.md`` and ``samples`` are for people: no weight depends on them, and a line
of the log that is no JSON is left out, but a changed digit in them is not noticed.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from castalia import checkpoints
from castalia.core.errors import CastaliaError
from castalia.core.rng import SampleRng
from castalia.core.weights import tensor_digest
from castalia.runs import Run, open_run
from castalia.training import plan
from castalia.training.loop import train
from torture import small
from torture.report import Options, Row

GROUPS = ("model", "ema", "optimizer")
SMALL = 8 << 10
"""Files below this are cut at every length, and damaged in every byte, where it is dense."""
LARGE_SAMPLE, SAMPLE = 250, 40
"""Places in the body of a large file, and in its header (every byte of that of ``model.safetensors``), where it is
dense; and places in every file elsewhere."""
SHORT_SAMPLE = 4
"""Places in every file in the short form."""
RESUMED, SHORT_RESUMED = 25, 9
"""Of so many damages of a file one is resumed from as well; odd, so that cuts and flips take turns."""
PATIENCE, MEMORY = 30, 1 << 30
"""Seconds after which reading a few kilobytes counts as hanging, and bytes of memory that it must not take."""

Damage = Callable[[Path], None]


def run(options: Options) -> list[Row]:
    """Damage a finished run of every system in every way."""
    rows = []
    names = small.systems(options)
    for name in names[:1] if options.short else names:
        victim = Victim(name, options, dense=name == names[0] and not options.short)
        rows += victim.rows()
        for row in rows[-len(KINDS) :]:
            options.say(f"  {row.what}: {row.note}")
    return rows


KINDS = ("cut", "flip", "swap")
WORDS = {
    "cut": "every file cut",
    "flip": "one bit of every file flipped",
    "swap": "every file gone, empty, a folder, a link out, a dangling link, a pipe",
}


@dataclass
class Victim:
    """A finished run with two checkpoints, and what it must give back.

    Attributes:
        name: of the system.
        options: of the torture.
        dense: cut small files at every length, and damage every byte of them. What differs between systems is only in
            the tensors, so one of them is enough for this; of the others some places of every file.
    """

    name: str
    options: Options
    dense: bool = False
    good: dict[int, str] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    trials: Counter[str] = field(default_factory=Counter)
    seen: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})

    def __post_init__(self) -> None:
        self.dice = random.Random(f"{self.options.seed} damage {self.name}")
        self.folder = self.options.folder / f"damage-{self.name}"
        self.whole, self.work = self.folder / "whole", self.folder / "run"
        self.recipe, self.data = small.finished(self.name, self.whole)
        made = open_run(self.whole)
        measure(made)
        self.good = {c.step: tensor_digest(c.tensors("ema")) for c in checkpoints.intact(made.checkpoints)}
        assert len(self.good) == 2
        newest = checkpoints.newest(made.checkpoints)
        assert newest is not None
        self.final = {group: tensor_digest(newest.tensors(group)) for group in GROUPS}
        self.steps, self.results, self.spec = newest.step, made.results(), made.spec
        self.drawn, self.plan = draw(made), plan.load(self.whole / "plan.json", {})
        shutil.copytree(self.whole, self.work)
        self.files = sorted(p.relative_to(self.whole) for p in self.whole.rglob("*") if p.is_file())

    def rows(self) -> list[Row]:
        """All kinds of damage, to all files."""
        for file in self.files:
            for number, (kind, where, damage) in enumerate(self.damages(file)):
                every = SHORT_RESUMED if self.options.short else RESUMED
                self.trial(file, kind, where, damage, resume=number % every == 0)
        shutil.rmtree(self.folder)
        return [
            Row(
                "damage",
                f"{self.name}: {WORDS[kind]}; the same weights, an earlier checkpoint that is named, or a clear error",
                self.trials[kind],
                tuple(self.failures[kind]),
                ", ".join(f"{count:,} {what}" for what, count in sorted(self.seen[kind].items())),
            )
            for kind in KINDS
        ]

    def damages(self, file: Path) -> Iterator[tuple[str, str, Damage]]:
        """Kind, place and deed of every damage to a file."""
        data = (self.whole / file).read_bytes()
        for at in self.places(data, file.name == "model.safetensors" and len(file.parts) == 1):
            yield "cut", f"at {at} of {len(data)}", lambda path, at=at: rewrite(path, data[:at])
            bit = self.dice.randrange(8)
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            yield "flip", f"byte {at}, bit {bit}", lambda path, new=bytes(flipped): rewrite(path, new)
        outside = self.folder / "outside"
        outside.write_bytes(data)
        other = self.folder / "other"
        other.write_text("nothing of a run\n")
        yield "swap", "gone", lambda path: path.unlink()
        yield "swap", "empty", lambda path: rewrite(path, b"")
        yield "swap", "a folder", lambda path: replace_by(path, path.mkdir)
        yield (
            "swap",
            "a link to the same bytes outside",
            lambda path: replace_by(path, lambda: path.symlink_to(outside)),
        )
        yield "swap", "a link to something else", lambda path: replace_by(path, lambda: path.symlink_to(other))
        yield "swap", "a dangling link", lambda path: replace_by(path, lambda: path.symlink_to("/nowhere/at/all"))
        yield "swap", "a link to itself", lambda path: replace_by(path, lambda: path.symlink_to(path))
        yield "swap", "a link to endless zeros", lambda path: replace_by(path, lambda: path.symlink_to("/dev/zero"))
        yield "swap", "a pipe", lambda path: replace_by(path, lambda: os.mkfifo(path))

    def places(self, data: bytes, whole_header: bool) -> list[int]:
        """Which bytes of a file to damage."""
        size = len(data)
        if not self.dense:
            count = SHORT_SAMPLE if self.options.short else SAMPLE
            return sorted({0, size - 1, *(self.dice.randrange(size) for _ in range(count))})
        if size <= SMALL:
            return list(range(size))
        header = 8 + struct.unpack_from("<Q", data)[0]  # large files are safetensors or pictures
        head = range(header) if whole_header else self.dice.choices(range(min(header, size)), k=LARGE_SAMPLE)
        return sorted({*head, *(self.dice.randrange(size) for _ in range(LARGE_SAMPLE)), size - 1})

    def trial(self, file: Path, kind: str, where: str, damage: Damage, resume: bool) -> None:
        """Damage one file, look at the run, continue it, put the file back."""
        self.trials[kind] += 1
        damage(self.work / file)
        problem, seen = self.read(file)
        if resume and problem is None:
            copy = self.folder / "copy"
            if not copy.exists():
                shutil.copytree(self.whole, copy)
            damage_again(self.work / file, copy / file)
            problem, changed = self.resume(copy)
            if changed:
                shutil.rmtree(copy)
            else:
                restore(copy / file, self.whole / file)
        self.seen[kind][seen] += 1
        if problem is not None:
            self.failures[kind].append(f"{self.name} {file}, {kind} {where}: {problem}")
        restore(self.work / file, self.whole / file)

    def read(self, file: Path) -> tuple[str | None, str]:
        """What is wrong with what the damaged run shows (None: nothing), and what it showed."""
        try:
            with limited(), warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                opened = open_run(self.work)
                if opened.recipe != self.recipe or opened.spec != self.spec:
                    return "another configuration is read, and nothing is said", "wrong"
                refused = self.beside(opened)
                model, origin = opened.model(torch.device("cpu"))
                digest = tensor_digest(model.state_dict())
                step = next((s for s, good in self.good.items() if good == digest), None)
                if step is None:
                    return "other weights are read, and nothing is said", "wrong"
                if not origin.startswith(f"step {step}, sha256 {digest[:16]}"):
                    return f"the weights of step {step} are called {origin!r}", "wrong"
                if step != self.steps and not any("Using" in str(w.message) for w in told):
                    return f"an earlier checkpoint ({step}) is used, and nothing is said", "wrong"
                if step == self.steps and not torch.equal(draw(opened), self.drawn):
                    return "the samples are others", "wrong"
                if told:
                    return None, "from a checkpoint, and said so"
                return None, "refused" if refused else "same"
        except CastaliaError as error:
            return self.unclear(error), "refused"
        except BaseException as error:
            return f"{type(error).__name__}: {error}", "wrong"

    def beside(self, opened: Run) -> bool:
        """Whether results, plan or log are refused; what is read of the first two must be what was written."""
        refused = False
        try:
            if plan.load(self.work / "plan.json", {}) not in (self.plan, None):
                raise AssertionError("another plan is read, and nothing is said")
        except CastaliaError:
            refused = True
        try:
            expected = self.results if (self.work / "results.json").exists() else {}  # a dangling link is none
            if opened.results() != expected:
                raise AssertionError("other results are read, and nothing is said")
        except CastaliaError:
            refused = True
        try:
            opened.losses()
        except CastaliaError:
            refused = True
        return refused

    def resume(self, copy: Path) -> tuple[str | None, bool]:
        """What is wrong with continuing the damaged run (None: nothing), and whether its folder may have changed."""
        try:
            with limited(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened = open_run(copy)
                train(opened.recipe, self.data, copy, quiet=True, resume=True)
            newest = checkpoints.newest(copy / "checkpoints")
            if newest is None or newest.step != self.steps:
                return f"resumed to {newest and newest.step} and not to {self.steps}", True
            for group, digest in self.final.items():
                if tensor_digest(newest.tensors(group)) != digest:
                    return f"resumed to another {group}, and nothing is said", True
            return None, True
        except CastaliaError as error:
            return self.unclear(error), True
        except BaseException as error:
            return f"resume: {type(error).__name__}: {error}", True

    def unclear(self, error: CastaliaError) -> str | None:
        """What is wrong with an error's text, or None."""
        text = str(error)
        return None if str(self.folder) in text and "\n" not in text else f"names no place: {text!r}"


def measure(made: Run) -> None:
    """Give a run results without measuring it for long."""
    from castalia.estimators.metric import Metric
    from castalia.evaluation.evaluate import record

    metric = Metric(1.5, "nats", "made up", 8, 0, (1.25, 1.75))
    record(made, {"nll": metric}, {"weights": "step 8", "data": "digits", "seconds": 0.125})


def draw(made: Run) -> Tensor:
    """Two samples."""
    model, _ = made.model(torch.device("cpu"))
    with torch.no_grad():
        return model.sample(2, rng=SampleRng(5, range(2))).x


def rewrite(path: Path, data: bytes) -> None:
    """Give a file other contents."""
    path.write_bytes(data)


def replace_by(path: Path, make: Callable[[], Any]) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    make()


def damage_again(source: Path, target: Path) -> None:
    """Put what lies at ``source`` now, whatever it is, at ``target``."""
    target.unlink()
    if source.is_symlink():
        link = os.readlink(source)
        target.symlink_to(target if link == str(source) else link)
    elif source.is_dir():
        target.mkdir()
    elif source.is_fifo():
        os.mkfifo(target)
    elif source.exists():
        shutil.copyfile(source, target)


def restore(path: Path, whole: Path) -> None:
    """Put the undamaged file back."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    shutil.copyfile(whole, path)


@contextmanager
def limited(seconds: int = PATIENCE) -> Iterator[None]:
    """Raise TimeoutError in a block that takes too long, MemoryError in one that takes too much."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before, most = signal.signal(signal.SIGALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, most[1]))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, most)
        signal.signal(signal.SIGALRM, before)
