"""Whether two run folders are the same, bit for bit, the clock apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from castalia import checkpoints
from castalia.core.errors import CastaliaError
from castalia.core.weights import load_parts, load_tensors, tensor_digest
from castalia.runs import open_run

PLAIN = ("config.json", "plan.json", "README.md")
GROUPS = ("model", "ema", "optimizer")


def differences(straight: Path, other: Path) -> list[str]:
    """What of ``other`` is not as in ``straight``: weights, averages, moments, state, log, samples, card, leftovers.

    Tensors are compared by the SHA-256 of their names, types, shapes and bytes.
    """
    try:
        return _differences(straight, other)
    except (CastaliaError, OSError, ValueError) as error:
        return [f"cannot be compared: {error}"]


def _differences(straight: Path, other: Path) -> list[str]:
    found: list[str] = []
    one, two = open_run(straight), open_run(other)
    left, right = load_tensors(one.weights), load_tensors(two.weights)
    if tensor_digest(left[0]) != tensor_digest(right[0]) or left[1] != right[1]:
        found.append("model.safetensors differs")
    first, second = checkpoints.newest(one.checkpoints), checkpoints.newest(two.checkpoints)
    if first is None or second is None or first.step != second.step:
        return [*found, f"newest checkpoint is {second and second.path.name}, not {first and first.path.name}"]
    for group in GROUPS:
        (mine, about), (theirs, says) = load_parts(first.path, group), load_parts(second.path, group)
        if not mine and group != "optimizer":
            found.append(f"{group}: empty, which proves nothing")
        if tensor_digest(mine) != tensor_digest(theirs) or about != says:
            names = [k for k in mine if k not in theirs or tensor_digest({k: mine[k]}) != tensor_digest({k: theirs[k]})]
            found.append(f"{group} of {first.path.name} differs in {len(names)} tensors ({', '.join(names[:3])})")
    if _timeless(first.state()) != _timeless(second.state()):
        found.append(f"state.json differs: {_timeless(second.state())}, not {_timeless(first.state())}")
    logs = [[_timeless(line) for line in run.metrics()] for run in (one, two)]
    if logs[0] != logs[1] or len(logs[1]) != len((other / "metrics.jsonl").read_text().splitlines()):
        found.append(f"metrics.jsonl differs: steps {[m['step'] for m in logs[1]]}")
    found += [f"{name} differs" for name in PLAIN if (straight / name).read_bytes() != (other / name).read_bytes()]
    grids = [{p.name: p.read_bytes() for p in (folder / "samples").iterdir()} for folder in (straight, other)]
    if grids[0] != grids[1]:
        names = [n for n in grids[0].keys() | grids[1].keys() if grids[0].get(n) != grids[1].get(n)]
        found.append(f"samples differ: {', '.join(sorted(names)[:4])}")
    return found + leftovers(other)


def leftovers(run: Path) -> list[str]:
    """What a killed process left and nobody removed."""
    half = [str(p.relative_to(run)) for p in run.rglob(".*tmp-*")]
    broken = [p.name for p in checkpoints.damaged(run / "checkpoints")]
    return [f"left over: {', '.join(half[:4])}"] * bool(half) + [f"half removed: {', '.join(broken)}"] * bool(broken)


def _timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "seconds"}


def measured(run: Path) -> dict[str, Any]:
    """What ``results.json`` says, without what the clock says.

    Raises:
        RunError: it cannot be read.
    """
    results = open_run(run).results()
    for table in (results, *results.get("earlier", [])):
        for speed in ("sampling_speed", "likelihood_speed"):
            table["metrics"].pop(speed, None)
        table["context"].pop("seconds", None)
    return results
