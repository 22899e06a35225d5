"""Runs measured, and compared, for the studio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from castalia import api, comparison

Tell = Callable[[dict[str, Any]], None]


def evaluate(wish: Mapping[str, Any], out: Path, tell: Tell) -> dict[str, Any]:
    """Measure a run; the results are stored in it."""
    found = api.evaluate(wish["path"], drawn=wish["drawn"], progress=lambda text: tell({"words": text}))
    return {"do": "evaluate", "metrics": found["metrics"]}


def compare(wish: Mapping[str, Any], out: Path, tell: Tell) -> dict[str, Any]:
    """Measure runs side by side, and write the page."""
    sides = comparison.compare(wish["paths"], drawn=wish["drawn"], plots=False, show=lambda text: tell({"words": text}))
    comparison.page(sides, comparison.held_out(sides, None, "test")).write(out / "page.html")
    return {"do": "compare", "runs": [Path(path).name for path in wish["paths"]], "report": comparison.report(sides)}
