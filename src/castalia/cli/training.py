"""The verbs that train, and foresee it.

Imports stand inside the functions, so that a verb pays only for what it uses.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from castalia.cli.printing import print_json
from castalia.core.errors import UsageError


def train(options: Namespace) -> int:
    """Train a model."""
    from castalia import api

    api.train(
        options.model,
        options.data,
        options.out or _run_folder(options),
        recipe=options.recipe,
        resume=options.resume,
        quiet=options.quiet,
        shard=options.shard,
        tensor=options.tensor,
        classes=options.classes,
        size=options.size,
        steps=options.steps,
        minutes=options.minutes,
        start=options.start,
        parents=options.parents,
        seed=options.seed,
        precision=options.precision,
        on_bad_file=options.on_bad_file,
        settings=options.settings,
    )
    return 0


def _run_folder(options: Namespace) -> Path:
    """A folder for a new run that is not there yet, named after what is trained on what."""
    if options.resume:
        raise UsageError("Say which run to continue with --out FOLDER. Which there are: castalia runs")
    source = Path(options.data).expanduser().resolve().stem if options.data else ""
    name = "-".join(filter(None, (options.recipe or options.model, source))).lower() or "run"
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
    number = 1
    while (folder := Path("runs") / (plain if number == 1 else f"{plain}-{number}")).exists():
        number += 1
    return folder


def plan(options: Namespace) -> int:
    """Foresee what a training would need."""
    from dataclasses import replace

    from castalia import planned
    from castalia.training.forecast import Layout
    from castalia.training.machines import machine

    on = machine(options.device)
    units = {"peak": 1e12, "memory": 1e9, "bandwidth": 1e9, "link": 1e9, "network": 1e9, "per_node": 1}
    other = {name: getattr(options, name) * unit for name, unit in units.items() if getattr(options, name) is not None}
    if options.precision == "float32" and "peak" in other:
        other["peak_wide"] = other.pop("peak")
    found = planned.plan(
        options.model,
        options.data,
        recipe=options.recipe,
        settings=options.settings,
        layout=Layout(options.replicas, options.shards, options.tensor, options.micro, options.recompute),
        device=replace(on, name=f"{on.name} with other numbers", **other) if other else on,
        precision=options.precision,
        utilisation=options.utilisation,
    )
    if options.json:
        print_json(found.to_json())
    else:
        print(planned.told(found))
    return 0
