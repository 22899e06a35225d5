"""Disks that fill up at many different points, and folders that cannot be written.

A small file system in memory is mounted where that is allowed; its size is swept from too little for ``config.json`` to
just short of the whole run. Where it is not allowed, a limit on the size of files stands in for the full disk, and a
folder without permissions for the read-only one; the notes say which it was.

Every failure must be exit code 1 and one paragraph that names the place. What was saved before must load, and after
room was made ``--resume`` must give the uninterrupted run bit for bit.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from PIL import Image

from castalia import checkpoints
from castalia.core.errors import CastaliaError
from castalia.core.weights import tensor_digest
from castalia.interop.folder import export_folder
from castalia.runs import open_run
from torture import small
from torture.report import Options, Row
from torture.same import differences

PAGE = 4096
STEPS = {"steps": 12, "checkpoint_every": 3, "sample_every": 6}
"""Of each training: four checkpoints, of which two are kept."""
SIZES, SHORT_SIZES = 40, 5
"""Disks on which each system is trained, with the check of free space and without it."""
VERB_SIZES, SHORT_VERB_SIZES = 24, 3
FREE, SHORT_FREE = (0, 1, 2, 3, 4, 6, 10, 20), (0, 10)
"""Pages that are left for an evaluation."""
GROUPS = ("model", "ema", "optimizer")
NOBODY = 65534


def run(options: Options) -> list[Row]:
    """Full disks for trainings of every system and for the other verbs, then read-only folders."""
    rows = []
    with mock.patch.dict(os.environ, {"CASTALIA_CACHE": str(options.folder / "cache")}):
        for name in small.systems(options)[:1] if options.short else small.systems(options):
            rows += [training(name, options, between=between) for between in (False, True)]
        made = options.folder / "made" / "run"
        name = options.systems[0] if options.systems else "vae" if options.short else "ddpm"
        small.finished(name, made)
        export_folder(open_run(made), options.folder / "exported")
        rows += [verbs(name, made, options), evaluation(name, made, options), read_only(name, made, options)]
    return rows


@dataclass
class Disk:
    """A place that can be full or read-only.

    Attributes:
        path: the folder.
        size: bytes that it holds.
        mounted: whether it is a file system of its own.
    """

    path: Path
    size: int
    mounted: bool = False

    def __enter__(self) -> Disk:
        self.path.mkdir(parents=True)
        self.mounted = _mount("-t", "tmpfs", "-o", f"size={self.size},mode=777", "castalia-torture", str(self.path))
        return self

    def __exit__(self, *error: object) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=True)
        os.chmod(self.path, 0o755)
        shutil.rmtree(self.path)

    def limit(self) -> Callable[[], None] | None:
        """What a child has to call first, so that the disk is as small as it should be."""
        return None if self.mounted else lambda: _limit_files(self.size)

    def grow(self, size: int = 1 << 30) -> None:
        """Make room."""
        self.size = size
        if self.mounted and not _mount("-o", f"remount,size={size}", str(self.path)):
            raise AssertionError("the file system cannot be enlarged")

    def freeze(self) -> Callable[[], None] | None:
        """Make it read-only; returns what a child has to call first."""
        if self.mounted:
            if not _mount("-o", "remount,ro", str(self.path)):
                raise AssertionError("the file system cannot be made read-only")
            return None
        for folder in (self.path, *(p for p in self.path.rglob("*") if p.is_dir())):
            folder.chmod(0o555)
        return lambda: os.setuid(NOBODY) if os.getuid() == 0 else None

    def how(self) -> str:
        """Of what the disk was made, for the notes."""
        return "tmpfs" if self.mounted else "no mount allowed here: a limit on file sizes, or permissions"


def _mount(*words: str) -> bool:
    if shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


def _limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails instead of killing
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@dataclass
class Found:
    """What came of the trials of a row."""

    trials: int = 0
    failures: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    how: str = ""

    def row(self, what: str) -> Row:
        """As a row of the table."""
        note = ", ".join(f"{count} {word}" for word, count in sorted(self.seen.items()))
        return Row("disks", what, self.trials, tuple(self.failures), f"{self.how}: {note}")


def training(name: str, options: Options, *, between: bool) -> Row:
    """Train on disks that are too small; with ``between``, others fill the disk after its free space was checked."""
    found, dice = Found(), random.Random(f"{options.seed} disks {name} {between}")
    folder = options.folder / f"train-{name}-{between}"
    straight, every = folder / "straight" / "run", folder / "every" / "run"
    small.finished(name, straight, **STEPS)
    small.finished(name, every, keep=99, **STEPS)
    saved = {
        c.step: {group: tensor_digest(c.tensors(group)) for group in GROUPS}
        for c in checkpoints.intact(every / "checkpoints")
    }
    whole = sum(PAGE * -(-p.stat().st_size // PAGE) for p in straight.rglob("*") if p.is_file())
    least, most = (
        (0, whole) if between else (1 << 20, whole + (1 << 20) + PAGE * 16)
    )  # a checkpoint asks for 1 MiB more
    log = folder / "log"
    lied = mock.patch.object(shutil, "disk_usage", return_value=SimpleNamespace(free=1 << 60))
    for size in _sizes(least, most, SHORT_SIZES if options.short else SIZES, dice):
        with Disk(folder / f"disk-{size}", size) as disk:
            found.how, out = disk.how(), disk.path / "run"
            before = disk.limit()

            def prepare(before: Callable[[], None] | None = before) -> None:
                if before is not None:
                    before()
                if between:
                    lied.start()

            code, text = small.command_line(small.command(name, out, **STEPS), log, prepare)
            problems = [] if code == 0 else [small.complaint(code, text, disk.path)]
            newest, problem = _loads(out, saved)
            problems.append(problem)
            disk.grow()
            again, words = small.command_line([*small.command(name, out, **STEPS), "--resume"], log)
            if again:
                problems.append(f"cannot be resumed: {words[-300:]!r}")
            else:
                problems += differences(straight, out)
            found.trials += 1
            found.seen["enough room" if code == 0 else f"full {_when(newest)}"] += 1
            found.failures += [f"{name} on {size:,} bytes: {problem}" for problem in problems if problem]
    shutil.rmtree(folder)
    how = "the disk is filled by others after the check for free space" if between else "the disk is too small"
    row = found.row(f"{name} is trained and {how}; exit code 1, the newest checkpoint loads, --resume is bit for bit")
    options.say(f"  {row.what}: {row.note}")
    return row


def _sizes(least: int, most: int, count: int, dice: random.Random) -> list[int]:
    """Sizes in whole pages, evenly spread with some jitter; one page and some few more come first in any case."""
    low, pages = least // PAGE, (most - least) // PAGE
    spread = {max(1, low + round((i + dice.random()) * pages / (count - 2))) for i in range(count - 2)}
    return [PAGE * n for n in sorted({1, dice.randrange(2, 6), *spread})]


def _when(step: int | None) -> str:
    return "before the configuration" if step is None else f"after step {step}" if step else "before a checkpoint"


def _loads(out: Path, saved: dict[int, dict[str, str]]) -> tuple[int | None, str | None]:
    """The step of the newest intact checkpoint (None: no run), and what is wrong with what can be loaded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not (out / "config.json").exists():
                return None, None
            opened = open_run(out)
            newest = checkpoints.newest(opened.checkpoints)
            if newest is None:
                return 0, None
            for group, digest in saved[newest.step].items():
                if tensor_digest(newest.tensors(group)) != digest:
                    return newest.step, f"{newest.path.name}: {group} is not what the uninterrupted run saved"
            weights = tensor_digest(opened.model()[0].state_dict())
            if weights not in {groups["ema"] for step, groups in saved.items() if step <= newest.step}:
                return newest.step, "the weights are those of no checkpoint"
            return newest.step, None
    except CastaliaError as error:
        return 0, f"what was saved does not load: {error}"


def verbs(name: str, made: Path, options: Options) -> Row:
    """Sample, export and import onto disks that are too small: what appears is whole, and nothing half is left."""
    found, dice = Found(), random.Random(f"{options.seed} disks verbs")
    log = options.folder / "log"
    orders = {
        "sample": ["sample", str(made), "-n", "4", "--set", "steps=2"][: 6 if name in ("ddpm", "edm") else 4],
        "export": ["export", str(made)],
        "import": ["import", str(options.folder / "exported")],
    }
    if name == "ddpm":
        orders["export --format diffusers"] = [*orders["export"], "--format", "diffusers"]
    if not options.short:
        orders["export --format torch"] = [*orders["export"], "--format", "torch"]
    for verb, order in orders.items():
        full = options.folder / "full"
        code, text = small.command_line([*order, "--out", str(full)], log)
        if code:
            found.failures.append(f"{verb} fails on a large disk: {text[-300:]}")
        most = sum(PAGE * -(-p.stat().st_size // PAGE) for p in full.rglob("*") if p.is_file())
        names = {p.relative_to(full) for p in full.rglob("*")}
        count = SHORT_VERB_SIZES if options.short else VERB_SIZES if "torch" not in verb else VERB_SIZES // 4
        for size in _sizes(0, most - PAGE, count, dice):
            with Disk(options.folder / f"disk-{verb}-{size}", size) as disk:
                found.how, out = disk.how(), disk.path / "out"
                code, text = small.command_line([*order, "--out", str(out)], log, disk.limit())
                problems = [] if code == 0 and not disk.mounted else [small.complaint(code, text, disk.path)]
                there = {p.relative_to(out) for p in out.rglob("*")}
                if half := sorted(str(p) for p in disk.path.rglob(".*")):
                    problems.append(f"left behind: {half[:4]}")
                if verb == "sample":
                    problems += [_picture(p) for p in out.rglob("*.png")]
                elif there not in (set(), names):
                    problems.append(f"half of a folder: {sorted(map(str, there))}")
                found.trials += 1
                found.seen[verb] += 1
                found.failures += [f"{verb} on {size:,} bytes: {p}" for p in problems if p]
        shutil.rmtree(full)
    row = found.row(f"{name}: samples, exports and imports onto a full disk; exit code 1, nothing half is left")
    options.say(f"  {row.what}: {row.note}")
    return row


def _picture(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:
        return f"{path.name} is a broken picture: {error}"
    return None


def evaluation(name: str, made: Path, options: Options) -> Row:
    """Evaluate a run on a disk that has nearly no room left: the results are the old ones or the new ones."""
    found, log = Found(), options.folder / "log"
    order = ["evaluate", "--samples", "2", "--limit", "4", "--quiet"]
    size = 4 * sum(PAGE * -(-p.stat().st_size // PAGE) for p in made.rglob("*") if p.is_file())
    for free in SHORT_FREE if options.short else FREE:
        with Disk(options.folder / f"disk-evaluate-{free}", size) as disk:
            found.how, out = disk.how(), disk.path / "run"
            shutil.copytree(made, out)
            first, text = small.command_line([*order, str(out)], log)
            old = (out / "results.json").read_bytes() if first == 0 else b""
            if first:
                found.failures.append(f"evaluate fails with room: {text[-300:]!r}")
            if disk.mounted:
                _fill(disk.path, PAGE * free)
            else:
                disk.size = 200 * free
            code, text = small.command_line([*order, str(out), "--seed", "1"], log, disk.limit())
            problem = None if code == 0 else small.complaint(code, text, disk.path)
            new = (out / "results.json").read_bytes()
            try:
                whole = bool(open_run(out).results()["metrics"])
            except (CastaliaError, KeyError) as error:
                problem = f"the results cannot be read: {error}"
            else:
                problem = problem or (None if whole else "the results are empty")
            if code and free == 0 and new != old:
                problem = "the old results were touched"
            if leftover := [p.name for p in out.rglob(".*")]:
                problem = f"left behind: {leftover}"
            found.trials += 1
            found.seen["written" if new != old else "kept"] += 1
            found.failures += [f"evaluate with {free} pages free: {problem}"] * bool(problem)
    return found.row(f"{name} is evaluated on a full disk; the results stay whole, old or new")


def _fill(folder: Path, leave: int) -> None:
    """Fill a disk up, but for some bytes."""
    free = shutil.disk_usage(folder).free
    (folder / "ballast").write_bytes(bytes(max(0, free - leave)))


def read_only(name: str, made: Path, options: Options) -> Row:
    """Every verb that writes, into a folder that cannot be written; and a run there can still be sampled."""
    found, log = Found(), options.folder / "log"
    with Disk(options.folder / "disk-frozen", 1 << 30) as disk:
        out, half = disk.path / "run", disk.path / "half" / "run"
        shutil.copytree(made, out)
        shutil.copytree(made, half)
        shutil.rmtree(sorted((half / "checkpoints").iterdir())[-1])
        found.how = disk.how()
        outside = options.folder / "outside"
        outside.mkdir(mode=0o777)
        outside.chmod(0o777)
        before = disk.freeze()
        new = str(disk.path / "new")
        orders = {
            "train": small.command(name, disk.path / "new"),
            "train into the folder itself": small.command(name, disk.path / "new" / "deep" / "run"),
            "train --resume, finished": [*small.command(name, out), "--resume"],
            "train --resume, half": [*small.command(name, half), "--resume"],
            "evaluate": ["evaluate", str(out), "--samples", "2", "--limit", "4", "--quiet"],
            "sample": ["sample", str(out), "-n", "2", "--out", new],
            "export": ["export", str(out), "--out", new],
            "import": ["import", str(options.folder / "exported"), "--out", new],
        }
        for verb, order in orders.items():
            code, text = small.command_line(order, log, before)
            problem = small.complaint(code, text, disk.path)
            found.trials += 1
            found.seen[verb] += 1
            found.failures += [f"{verb}, read-only: {problem}"] * bool(problem)
        order = ["sample", str(out), "-n", "2", "--out", str(outside / "pictures")]
        code, text = small.command_line(order, log, before)
        found.trials += 1
        found.seen["sample from it"] += 1
        if code:
            found.failures.append(f"a read-only run cannot be sampled: {text[-300:]!r}")
    if json.loads((made / "config.json").read_text())["recipe"]["model"] != name:
        found.failures.append("the original run was changed")
    return found.row(f"{name}: every verb that writes, into a read-only folder; exit code 1 and one paragraph")
