"""What each verb does: read the options, call the library, print. Here are those that list and tell.

Imports stand inside the functions, so that a verb pays only for what it uses.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from castalia.cli import drawing, exchange, measuring, servers, training
from castalia.cli.printing import print_json
from castalia.core.errors import UsageError, shown


def run(options: Namespace) -> int:
    """Run the verb that was parsed and return the exit code."""
    return VERBS[options.verb](options)


def models(options: Namespace) -> int:
    """List the systems, or tell all about one."""
    from castalia import listing
    from castalia.catalogue import CATALOGUE

    if options.json:
        print_json(listing.describe(options.model) if options.model else listing.everything())
    elif options.model:
        print(listing.full(options.model))
    else:
        print("\n".join(map(listing.short, CATALOGUE.values())))
        print("\nMore of one: castalia models NAME")
    return 0


def data(options: Namespace) -> int:
    """List the named sets, or describe one source."""
    from castalia.core.config import override
    from castalia.making import not_for
    from castalia.media.named import describe, list_data, medium_for, open_data
    from castalia.media.rooms import rooms

    if options.source is None:
        rows = list_data()
        if options.json:
            print_json(rows)
            return 0
        for row in rows:
            shape, splits = "x".join(map(str, row["shape"])), row["splits"].items()
            counts = ", ".join(f"{n:,} {split}" if n else split for split, n in splits)  # 0: as many as are there
            kind = f"points of {shape} coordinates" if row["medium"] == "points" else shape or row["medium"]
            print(f"{row['name']}\n  {row['what']}\n  {kind}; {counts}; {row['licence']}; {row['where']}")
        print("Or " + "; or ".join(medium.reading for medium in rooms()) + ".")
        return 0
    medium = medium_for(options.source)
    wishes = {"size": options.size, "on_bad_file": options.on_bad_file}
    settings = [f"{name}={value}" for name, value in wishes.items() if value is not None]
    for name in wishes:
        if wishes[name] is not None and not hasattr(medium.options(), name):
            flag = "--" + name.replace("_", "-")
            raise not_for(flag, options.source, medium.name, medium.options)
    reading = override(medium.options(), [*settings, *options.settings], "data options")
    found = open_data(options.source, reading, None if options.split == "all" else options.split, medium=medium)
    report = describe(found)
    if options.grid:
        import numpy as np

        some = found.batch(np.arange(min(medium.shown, len(found))))
        medium.draw(some, found.spec, Path(options.grid), recipe={"data": options.source})
    if options.json:
        print_json(report)
    else:
        for key, value in _shortened(report).items():
            print(shown(f"{key}: {value}"))
    return 0


SHOWN_CLASSES = 30
"""More classes than these are counted, not listed, on the terminal."""


def _shortened(report: dict[str, Any]) -> dict[str, Any]:
    """A description without endless lists of classes."""
    classes = report["spec"].get("classes", [])
    if len(classes) <= SHOWN_CLASSES:
        return report
    brief = f"{len(classes)} ({classes[0]} to {classes[-1]})"
    counts = report["class_counts"].values()
    spread = f"{len(counts)} classes of {min(counts)} to {max(counts)} examples" if counts else counts
    return {**report, "spec": {**report["spec"], "classes": brief}, "class_counts": spread}


def demo(options: Namespace) -> int:
    """Train systems on built-in data and write a page."""
    from castalia.demo import demo as run_demo

    if options.minutes <= 0:
        raise UsageError("--minutes must be positive.")
    print(f"Open {run_demo(Path(options.out), options.minutes, options.names).resolve().as_uri()}")
    return 0


def doctor(options: Namespace) -> int:
    """Check the installation."""
    from castalia.cli.doctor import check

    report, healthy = check()
    if options.json:
        print_json({"healthy": healthy, "checks": report})
    else:
        for name, state in report.items():
            print(f"{name:<22}{state}")
        print("All well." if healthy else "Something is wrong: see above.")
    return 0 if healthy else 1


def runs(options: Namespace) -> int:
    """List the runs in a folder."""
    from castalia import overview

    folder = Path(options.folder)
    if options.json:
        print_json(overview.rows(folder))
    else:
        print(shown(overview.table(folder)))
    return 0


def info(options: Namespace) -> int:
    """Tell all about one run."""
    from castalia import overview

    if options.json:
        print_json(overview.describe(Path(options.run)))
    else:
        print(shown(overview.text(Path(options.run))))
    return 0


VERBS: dict[str, Callable[[Namespace], int]] = {
    "models": models,
    "data": data,
    "runs": runs,
    "info": info,
    "train": training.train,
    "plan": training.plan,
    "sample": drawing.sample,
    "edit": drawing.edit,
    "evaluate": measuring.evaluate,
    "compare": measuring.compare,
    "features": measuring.features,
    "export": exchange.export,
    "import": exchange.import_,
    "serve": servers.serve,
    "demo": demo,
    "story": servers.story,
    "studio": servers.studio,
    "doctor": doctor,
}
