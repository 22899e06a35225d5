"""What runs there are, and all about one: for ``castalia runs`` and ``castalia info``."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from castalia import card, health
from castalia.catalogue import CATALOGUE
from castalia.core.errors import CastaliaError, UsageError
from castalia.runs import open_run
from castalia.training.progress import duration

DEPTH = 3
"""Folders below the one that is named in which runs are looked for."""

MOST = 500
"""Runs that are listed."""

MAIN = ("frechet", "bits_per_dim", "nats_per_token", "bits_per_byte", "bits_per_sample", "energy", "nll", "coverage",
        "condition_accuracy")  # fmt: skip
"""Metrics that say most."""


def find(folder: Path) -> list[Path]:
    """Run folders at or below ``folder``, in the order of their names.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder. Runs lie where --out said; name the folder around them.")
    found: list[Path] = []
    level = [folder]
    for _ in range(DEPTH + 1):
        runs = [place for place in level if (place / "config.json").is_file()]
        found += runs
        level = [
            child
            for place in level
            if place not in runs
            for child in sorted(place.iterdir())
            if child.is_dir() and not child.is_symlink() and not child.name.startswith(".")
        ]
    return sorted(found)[:MOST]


def describe(path: Path) -> dict[str, Any]:
    """A run as JSON values.

    Returns:
        ``path``, ``model``, ``title``, ``data``, ``steps`` (done), ``planned``, ``seconds`` (of training), ``begun``
        and ``changed`` (ISO times), ``size`` (of one example), ``batch_size``, ``seed``, ``said`` (why this network),
        ``warnings``, ``verdict``, ``metrics`` (as in ``results.json``), ``picture`` (a path or null), ``next``
        (commands).

    Raises:
        RunError: it is no run, or damaged.
    """
    run = open_run(path)
    lines = run.metrics()
    metrics = run.results().get("metrics", {})
    weights, config = run.weights, run.path / "config.json"
    newest = run.newest_grid()
    training = run.recipe.training
    return {
        "path": str(path),
        "model": run.recipe.model,
        "title": CATALOGUE[run.recipe.model].title if run.recipe.model in CATALOGUE else run.recipe.model,
        "data": run.recipe.data.source,
        "steps": run.steps_done(),
        "planned": run.planned(),
        "batch_size": training.batch_size,
        "seed": training.seed,
        "seconds": float(lines[-1].get("seconds", 0.0)) if lines else 0.0,
        "begun": _time(config),
        "changed": _time(weights) if weights.exists() else None,
        "size": list(run.spec.fields()["x"].shape),
        "said": list(run.said),
        "warnings": health.warnings_of(run, metrics),
        "verdict": health.verdict(metrics),
        "metrics": metrics,
        "picture": None if newest is None else str(newest),
        "next": card.commands(run),
    }


def text(path: Path) -> str:
    """All about a run, in words.

    Raises:
        RunError: it is no run, or damaged.
    """
    found = describe(path)
    size = " x ".join(str(d or "any") for d in found["size"])
    planned = f" of {found['planned']:,} planned" if found["planned"] and found["planned"] != found["steps"] else ""
    lines = [
        f"{found['path']}: {found['title']} ({found['model']})",
        f"data: {found['data']} (examples of {size})",
        f"trained: {found['steps']:,} steps{planned} of {found['batch_size']}, {duration(found['seconds'])}, seed "
        f"{found['seed']}; begun {found['begun']}, changed {found['changed'] or 'never'}",
        *found["said"],
        *(f"Beware: {warning}" for warning in found["warnings"]),
    ]
    if found["verdict"]:
        lines.append(f"Verdict: {found['verdict']}")
    for name in (name for name in MAIN if name in found["metrics"]):
        metric = found["metrics"][name]
        lines.append(f"{name}: {metric['value']:.4g} {metric['unit']}")
    if not found["metrics"]:
        lines.append("measured: nothing yet")
    if found["picture"]:
        lines.append(f"picture: {found['picture']}")
    return "\n".join([*lines, "go on with:", *(f"  {command}" for command in found["next"])])


def rows(folder: Path) -> list[dict[str, Any]]:
    """Every run below a folder in a few values; one that is damaged has ``problem`` instead.

    Raises:
        UsageError: there is no such folder.
    """
    found = []
    for path in find(folder):
        try:
            run = open_run(path)
            metrics = run.results().get("metrics", {})
            lines = run.metrics()
        except CastaliaError as error:
            found.append({"path": str(path), "problem": str(error)})
            continue
        best = next((name for name in MAIN if name in metrics), None)
        found.append(
            {
                "path": str(path),
                "model": run.recipe.model,
                "data": run.recipe.data.source,
                "steps": run.steps_done(),
                "planned": run.planned(),
                "seconds": float(lines[-1].get("seconds", 0.0)) if lines else 0.0,
                "begun": _time(run.path / "config.json"),
                "best": None if best is None else {best: metrics[best]["value"]},
            }
        )
    return found


def table(folder: Path) -> str:
    """:func:`rows` as lines to read."""
    found = rows(folder)
    if not found:
        return (
            f"There are no runs in {folder}. A first one: castalia train vae --data FOLDER --minutes 5 --out runs/mine"
        )
    wide = max(len(row["path"]) for row in found)
    lines = []
    for row in found:
        if "problem" in row:
            lines.append(f"{row['path']:<{wide}}  {row['problem']}")
            continue
        best = "".join(f"  {name} {value:.4g}" for name, value in (row["best"] or {}).items())
        done = f"{row['steps']:,}" + (f" of {row['planned']:,}" if row["planned"] != row["steps"] else "")
        lines.append(
            f"{row['path']:<{wide}}  {row['model']} on {Path(row['data']).name}  {done} steps, "
            f"{duration(row['seconds'])}  {row['begun']}{best}"
        )
    return "\n".join([*lines, "", "All about one: castalia info RUN"])


def _time(path: Path) -> str:
    """When a file was written: date and time of day."""
    return datetime.datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
