"""The verbs that make something with a run.

Imports stand inside the functions, so that a verb pays only for what it uses.
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

from castalia.core.errors import UsageError


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
