"""Routes of runs: what there is, all about one, trainings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response

from castalia import listing, overview
from castalia.core.files import read_bounded
from castalia.media.named import list_data
from castalia.runs import open_run
from castalia.studio import wishes
from castalia.studio.shelf import TYPES
from castalia.studio.state import Studio

FRESH = 30.0
"""Seconds after which a training that has logged nothing is taken for ended."""

POINTS = 400
"""Points of a curve that are sent."""


def routes(app: FastAPI, studio: Studio) -> None:
    """Runs, and trainings of them."""
    shelf = studio.shelf

    @app.get("/api/runs")
    def runs() -> list[dict[str, Any]]:
        """All runs in a few values; one that is damaged has ``problem``."""
        found = []
        for row in overview.rows(shelf.runs):
            path = Path(row["path"])
            one = {**row, "id": shelf.id_of(path), "name": str(path.relative_to(shelf.runs))}
            del one["path"]
            found.append(one)
        return found

    @app.get("/api/runs/{run}")
    def run(run: str) -> dict[str, Any]:
        """All about one: what, when, how long, results, warnings, curves."""
        path = shelf.run(run)
        found = overview.describe(path)
        losses = open_run(path).losses()
        begun = studio.trainings.running() == run
        going = begun or time.time() - _changed(path / "metrics.jsonl") < FRESH  # by somebody else, on this machine
        return {
            **{key: value for key, value in found.items() if key not in ("path", "picture")},
            "id": run,
            "name": str(path.relative_to(shelf.runs)),
            "pictures": [picture.name for picture in _grids(path)],
            "curves": {name: points[:: max(1, len(points) // POINTS)] for name, points in losses.items()},
            "warnings": [] if going else found["warnings"],
            "training": begun,
            "line": studio.trainings.line if begun else "",
        }

    @app.get("/api/runs/{run}/picture")
    def picture(run: str, name: str | None = None) -> Response:
        """A grid that training drew: the newest, or the one of that name."""
        found = {path.name: path for path in _grids(shelf.run(run))}
        path = found[name] if name else next(reversed(found.values()), None)
        if path is None:
            raise KeyError(name)
        return Response(read_bounded(shelf.inside(path), 64 << 20), media_type="image/png")

    @app.get("/api/runs/{run}/card")
    def card(run: str) -> Response:
        """The model card, as text."""
        return Response(read_bounded(shelf.inside(shelf.run(run) / "README.md"), 1 << 20), media_type=TYPES[".txt"])

    @app.get("/api/systems")
    def systems() -> list[dict[str, Any]]:
        """Every system with its recipes."""
        return listing.everything()

    @app.get("/api/data")
    def data() -> list[dict[str, Any]]:
        """The named sets."""
        return [{"name": row["name"], "what": row["what"], "medium": row["medium"]} for row in list_data()]

    @app.get("/api/trainings")
    def training() -> dict[str, Any]:
        """The training that runs, or ran last."""
        trainings = studio.trainings
        return {"run": trainings.running(), "line": trainings.line, "ended": trainings.running() is None}

    @app.post("/api/trainings")
    async def train(wish: wishes.Train) -> dict[str, str]:
        """Begin a training."""
        return {"run": await studio.trainings.begin(wish)}

    @app.post("/api/runs/{run}/resume")
    async def resume(run: str) -> dict[str, str]:
        """Go on with a training."""
        return {"run": await studio.trainings.resume(shelf.run(run))}

    @app.post("/api/trainings/stop")
    async def stop() -> dict[str, str]:
        """Ask the training that runs to save and stop."""
        await studio.trainings.stop()
        return {"state": "stopped"}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _grids(path: Path) -> list[Path]:
    return sorted(p for p in (path / "samples").glob("step-*.png") if p.is_file() and not p.is_symlink())
