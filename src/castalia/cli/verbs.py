"""What each verb does: read the options, call the library, print.

Imports stand inside the functions, so that a verb pays only for what it uses.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from castalia.cli import servers
from castalia.core.errors import HIDDEN, UsageError, shown


def run(options: Namespace) -> int:
    """Run the verb that was parsed and return the exit code."""
    return VERBS[options.verb](options)


def _print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], text))


def models(options: Namespace) -> int:
    """List the systems, or tell all about one."""
    from castalia import listing
    from castalia.catalogue import CATALOGUE

    if options.json:
        _print_json(listing.describe(options.model) if options.model else listing.everything())
    elif options.model:
        print(listing.full(options.model))
    else:
        print("\n".join(map(listing.short, CATALOGUE.values())))
        print("\nMore of one: castalia models NAME")
    return 0


def data(options: Namespace) -> int:
    """List the named sets, or describe one source."""
    from castalia.core.config import override
    from castalia.media.named import describe, list_data, medium_for, open_data
    from castalia.media.rooms import rooms

    if options.source is None:
        rows = list_data()
        if options.json:
            _print_json(rows)
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
            raise UsageError(f"{flag} is for other media; {options.source} holds {medium.name}.")
    reading = override(medium.options(), [*settings, *options.settings], "data options")
    found = open_data(options.source, reading, None if options.split == "all" else options.split, medium=medium)
    report = describe(found)
    if options.grid:
        import numpy as np

        some = found.batch(np.arange(min(medium.shown, len(found))))
        medium.draw(some, found.spec, Path(options.grid), recipe={"data": options.source})
    if options.json:
        _print_json(report)
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
        _print_json(found.to_json())
    else:
        print(planned.told(found))
    return 0


def sample(options: Namespace) -> int:
    """Draw samples and write them."""
    from castalia import api, asked
    from castalia.cli.film import Film
    from castalia.configuration import medium_of
    from castalia.core.config import to_json
    from castalia.core.spec import LabelSpec
    from castalia.core.specs.image import ImageSpec

    if not options.out and not options.stream:
        raise UsageError("Say where to write with --out FOLDER.")
    options.n = options.n or (1 if options.stream else 16)
    opened = api.load(options.run)
    started = time.perf_counter()
    model, origin = api.generator(opened), opened.model()[1]
    mixture = api.fitted_prior(opened, model) if options.prior == "fitted" else None
    chosen = api.sampling_options(model, options.settings, options.temperature)
    given = _given(options)
    label = model.accepts().get("label")
    if "label" in given and isinstance(label, LabelSpec):  # the name is what is recorded
        given["label"] = label.classes[asked.class_number(given["label"], label.classes)]
    if options.previews and not isinstance(opened.spec, ImageSpec):
        raise UsageError("--previews films pictures, and this run makes none.")
    film = Film() if options.previews else None
    precision = opened.precision(model.device, options.precision)
    if options.stream:
        from castalia.cli.stream import stream
        from castalia.core.data import join

        wanted = {"seed": options.seed, "given": given, "options": chosen, "precision": precision}
        numbers = range(options.start, options.start + options.n)
        samples = join([stream(model, number, **wanted) for number in numbers], model.spec)
        if not options.out:
            return 0
    else:
        samples = api.draw(
            model,
            options.n,
            seed=options.seed,
            start=options.start,
            mixture=mixture,
            given=given,
            options=chosen,
            precision=precision,
            watch=film.add if film is not None else None,
        )
    seconds = time.perf_counter() - started
    recipe = {
        "model": opened.recipe.model,
        "run": opened.path.name,
        "weights": origin,
        "seed": options.seed,
        "prior": options.prior,
        "given": given,
        "options": to_json(chosen),
        "precision": precision,
        "config": api.config_json(opened),
    }
    out = Path(options.out)
    medium = medium_of(opened.spec)
    if film is not None:
        film.save(Path(options.previews), recipe)
    medium.write(samples, opened.spec, out, options.start, recipe)
    medium.draw(samples, opened.spec, out / "grid.png", recipe={**recipe, "start": options.start, "n": options.n})
    print(f"{options.n} samples in {seconds:.2f} s: {out}/ (look at {out / 'grid.png'})")
    return 0


def _given(options: Namespace) -> dict[str, str]:
    """What ``--given``, ``--label`` and ``--prompt`` ask for."""
    from castalia import asked

    return asked.wishes(options.given or (), {name: getattr(options, name, None) for name in ("label", "prompt")})


def edit(options: Namespace) -> int:
    """Do something with a run's model."""
    from castalia.cli import edits

    return edits.run(options)


def evaluate(options: Namespace) -> int:
    """Measure a run."""
    from castalia import api, health

    shown = _shown(options.quiet or options.json)
    results = api.evaluate(
        options.run,
        options.data,
        split=options.split,
        samples=options.samples,
        refine=options.refine,
        limit=options.limit,
        seed=options.seed,
        baselines=options.baselines,
        drawn=options.drawn,
        options=options.settings,
        precision=options.precision,
        features=options.features,
        inception=options.inception,
        progress=shown,
    )
    _clear(shown)
    if options.json:
        _print_json(results)
        return 0
    metrics = results["metrics"]
    for line in health.lines(api.load(options.run), metrics):
        print(line)
    for name, m in metrics.items():
        if name.endswith(("_floor", "_ceiling")):
            continue  # they stand beside what they belong to
        interval = f"  ({m['interval'][0]:.5g} to {m['interval'][1]:.5g})" if m["interval"] else ""
        bounds = [
            f"{word} {metrics[f'{name}_{end}']['value']:.4g}"
            for end, word in health.WORDS.items()
            if f"{name}_{end}" in metrics
        ]
        beside = f"  [{', '.join(bounds)}]" if bounds else ""
        print(
            f"{name:<28}{m['value']:>12.5g} {m['unit']}{interval}{beside}  {m['kind']}; n = {m['n']}, seed {m['seed']}"
        )
    return 0


def compare(options: Namespace) -> int:
    """Measure runs side by side."""
    from castalia import comparison

    if not options.out and not options.json:
        raise UsageError("Say where to write the page with --out FILE.html, or ask for --json.")
    shown = _shown(options.quiet)
    sides = comparison.compare(
        options.runs,
        data=options.data,
        split=options.split,
        drawn=options.drawn,
        samples=options.samples,
        limit=options.limit,
        seed=options.seed,
        plots=not options.no_plots,
        show=shown,
    )
    _clear(shown)
    if options.out:
        comparison.page(sides, comparison.held_out(sides, options.data, options.split)).write(Path(options.out))
    if options.json:
        _print_json(comparison.report(sides))
    else:
        print(f"Written: {options.out}")
    return 0


def features(options: Namespace) -> int:
    """Train a feature network."""
    from castalia import api
    from castalia.evaluation.feature_network import train_features
    from castalia.media.image.decode import ImageOptions

    found = api.open_data(options.source, split="train", options=ImageOptions(size=options.size))
    shown, said = _shown(False), [""]

    def show(text: str) -> None:
        said[0] = text
        if shown is not None:
            shown(text)

    space = train_features(found, show=show)
    _clear(shown)
    print(f"{said[0]}\n{space.describe()}")
    return 0


def _shown(quiet: bool) -> Callable[[str], None] | None:
    """Where progress goes: one live line on a terminal, nowhere else."""
    return None if quiet or not sys.stderr.isatty() else _progress


def _clear(shown: Callable[[str], None] | None) -> None:
    """Take the live line away."""
    if shown is not None:
        shown("")


def _progress(text: str) -> None:
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def export(options: Namespace) -> int:
    """Write a run for use elsewhere."""
    from castalia import api, verbs

    if options.to_hub:
        from castalia.interop import hub

        print(f"Uploaded to {hub.export_hub(api.load(options.run), options.to_hub)}")
        return 0
    if not options.out:
        raise UsageError("Say where to write with --out (or --to-hub).")
    wishes = {"label": options.label, "drop_variance": options.drop_variance}
    for parity in verbs.export(options.run, options.out, options.format, **wishes):
        print(f"{parity.call}: differs from the model by at most {parity.max_abs_error:.2g}")
    print(f"Exported to {Path(options.out)}/")
    return 0


def import_(options: Namespace) -> int:
    """Make a run from an exported folder."""
    from castalia.interop import folder, hub
    from castalia.interop.diffusers import looks_like_diffusers
    from castalia.interop.gpt2 import looks_like_gpt2

    out = Path(options.out)
    if options.source.startswith("hf://"):
        made = hub.import_hub(options.source, out)
    elif options.start is not None:
        from castalia import api
        from castalia.interop.personal import import_words

        made = import_words(Path(options.source), api.load(options.start), out)
    elif looks_like_diffusers(Path(options.source)):
        from castalia.interop.diffusers_runs import import_diffusers

        made = import_diffusers(Path(options.source), out)
    elif looks_like_gpt2(Path(options.source)):
        from castalia.interop.gpt2_runs import import_gpt2

        made = import_gpt2(Path(options.source), out)
    else:
        made = folder.import_folder(Path(options.source), out)
    print(f"Imported {made.recipe.model} as {made.path}/")
    return 0


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
        _print_json({"healthy": healthy, "checks": report})
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
        _print_json(overview.rows(folder))
    else:
        print(shown(overview.table(folder)))
    return 0


def info(options: Namespace) -> int:
    """Tell all about one run."""
    from castalia import overview

    if options.json:
        _print_json(overview.describe(Path(options.run)))
    else:
        print(shown(overview.text(Path(options.run))))
    return 0


VERBS: dict[str, Callable[[Namespace], int]] = {
    "models": models,
    "data": data,
    "runs": runs,
    "info": info,
    "train": train,
    "plan": plan,
    "sample": sample,
    "edit": edit,
    "evaluate": evaluate,
    "compare": compare,
    "features": features,
    "export": export,
    "import": import_,
    "serve": servers.serve,
    "demo": demo,
    "story": servers.story,
    "studio": servers.studio,
    "doctor": doctor,
}
