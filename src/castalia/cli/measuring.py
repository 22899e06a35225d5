"""The verbs that measure.

Imports stand inside the functions, so that a verb pays only for what it uses.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from castalia.cli.printing import print_json
from castalia.core.errors import UsageError


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
        print_json(results)
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
        print_json(comparison.report(sides))
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
