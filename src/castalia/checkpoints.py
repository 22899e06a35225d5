"""Checkpoints that are whole or not there.

A checkpoint is written to a temporary folder, flushed, given a manifest with the size and SHA-256 of every
file, and only then renamed to ``step-00001234``. Reading takes the newest one whose manifest verifies. An
older checkpoint is removed only after a newer one stands.

Several processes that each hold a part of the tensors write a file each into the same folder; whoever reads puts the
parts together, so a checkpoint of many processes serves any number of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from castalia.core.errors import RunError
from castalia.core.files import disk_error, read_json, sha256, sync_folder, write_json
from castalia.core.weights import Rows, load_parts, save_part, save_tensors

_NAME = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,17})")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk.

    Attributes:
        path: its folder.
        step: steps done when it was written.
    """

    path: Path
    step: int

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read the tensors of a group, whole."""
        return load_parts(self.path, name)[0]

    def state(self) -> dict[str, Any]:
        """Read the training state (plain JSON)."""
        return read_json(self.path / "state.json")


def _call(action: Callable[[], Any]) -> Any:
    return action()


@dataclass(frozen=True)
class Team:
    """The processes that write a checkpoint together; by default one alone.

    Attributes:
        rank: this one.
        size: how many there are.
        on_main: runs an action on process 0 and gives everybody its plain result; where it raises, all raise.
        on_all: runs an action on every process; where it raises on one, all raise.
    """

    rank: int = 0
    size: int = 1
    on_main: Callable[[Callable[[], Any]], Any] = _call
    on_all: Callable[[Callable[[], None]], None] = _call


def save(
    folder: Path,
    step: int,
    groups: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    metadata: Mapping[str, str],
    keep: int,
    team: Team = Team(),
    rows: Mapping[str, Mapping[str, Rows]] | None = None,
) -> Checkpoint:
    """Write a checkpoint and remove the oldest ones beyond ``keep``.

    Args:
        folder: ``checkpoints`` folder of a run; the same for all processes.
        step: steps done.
        groups: tensors by group, each a file (or one file of each process).
        state: JSON-able training state.
        metadata: stored in each tensor file.
        keep: how many checkpoints stay.
        team: the processes that hold parts, all of which call this.
        rows: by group and name, the rows of which a tensor is the part; what is not named is whole.

    Raises:
        RunError: the disk is full or not writable. Earlier checkpoints are untouched.
    """
    rows = rows or {}
    target = folder / f"step-{step:08d}"
    needed = sum(t.numel() * t.element_size() for g in groups.values() for t in g.values()) * team.size + (1 << 20)
    temporary = team.on_main(lambda: _begin(folder, target, needed))
    if temporary is None:
        return Checkpoint(target, step)
    try:
        team.on_all(lambda: _write(Path(temporary), groups, metadata, team, rows))
        team.on_main(lambda: _finish(Path(temporary), target, step, state))
    except BaseException as error:
        if team.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise disk_error(target, error) from error
        raise
    if team.rank == 0:
        for path in _candidates(folder)[:-keep]:
            _remove(path)
    return Checkpoint(target, step)


def _begin(folder: Path, target: Path, needed: int) -> str | None:
    """Make the temporary folder; None where this very checkpoint stands already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise RunError(
                f"A checkpoint needs {needed / 2**20:.0f} MiB but only {free / 2**20:.0f} MiB are free on the disk of "
                f"{folder}. Nothing already saved was touched; free some space and use --resume."
            )
        if target.exists():  # an unverified one of the same step, or the same state saved twice
            if _verified(target):
                return None
            shutil.rmtree(target)
        temporary = folder / f".tmp-{uuid.uuid4().hex[:12]}"
        temporary.mkdir()
    except OSError as error:
        raise disk_error(target, error) from error
    return str(temporary)


def _write(
    temporary: Path,
    groups: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, str],
    team: Team,
    rows: Mapping[str, Mapping[str, Rows]],
) -> None:
    """Write this process's files."""
    for name, tensors in groups.items():
        if team.size == 1:
            save_tensors(temporary / f"{name}.safetensors", tensors, metadata)
            continue
        mine = {key: t for key, t in tensors.items() if team.rank == 0 or key in rows.get(name, {})}
        save_part(temporary, name, (team.rank, team.size), mine, rows.get(name, {}), metadata)


def _finish(temporary: Path, target: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write state and manifest, and give the folder its name."""
    write_json(temporary / "state.json", dict(state))
    files = sorted(p for p in temporary.iterdir() if p.is_file())
    write_json(
        temporary / MANIFEST,
        {"step": step, "files": {p.name: {"size": p.stat().st_size, "sha256": sha256(p)} for p in files}},
    )
    sync_folder(temporary)
    os.replace(temporary, target)
    sync_folder(target.parent)


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, or None. Damaged ones are passed over."""
    for path in reversed(_candidates(folder)):
        if _verified(path):
            return Checkpoint(path, step_of(path))
    return None


def intact(folder: Path) -> list[Checkpoint]:
    """Return all checkpoints that verify, oldest first."""
    return [Checkpoint(path, step_of(path)) for path in _candidates(folder) if _verified(path)]


def damaged(folder: Path) -> list[Path]:
    """Return the checkpoints that do not verify."""
    return [path for path in _candidates(folder) if not _verified(path)]


def _remove(path: Path) -> None:
    """Remove a checkpoint. It loses its name first: what a killed process leaves of it is no damaged checkpoint."""
    gone = path.with_name(f".tmp-{uuid.uuid4().hex[:12]}")
    with contextlib.suppress(OSError):
        os.replace(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def clean(folder: Path) -> None:
    """Remove what a killed process left half written or half removed."""
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def step_of(path: Path) -> int:
    """The steps that a checkpoint's name tells."""
    return int(path.name.removeprefix("step-"))


def _candidates(folder: Path) -> list[Path]:
    """All that are called checkpoints, in the order of their steps, which is not that of their names as texts."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.is_dir() and _NAME.fullmatch(p.name)), key=step_of)


def _verified(path: Path) -> bool:
    try:
        files = read_json(path / MANIFEST)["files"]
        return bool(files) and all(
            Path(name).name == name
            and (path / name).stat().st_size == want["size"]
            and sha256(path / name) == want["sha256"]
            for name, want in files.items()
        )
    except (RunError, OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError):
        return False
