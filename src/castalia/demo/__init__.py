"""The demo: systems of the catalogue on built-in data, and one page to look at and to show to others.

Without names it is a tour of eight things that are made, by a system each; with names it shows these. The time is
shared by the systems, and what measuring may cost follows from what is left of a system's share. What a system shows
follows from its medium and its capabilities.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from castalia import api, health, recipes
from castalia.catalogue import CATALOGUE, Entry, entry
from castalia.core.capabilities import Density
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Model
from castalia.core.rng import SampleRng
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.text import TextSpec
from castalia.core.threads import use_free_threads
from castalia.demo import pictures
from castalia.evaluation.measures import COMPARED
from castalia.media.image.write import png_bytes
from castalia.media.rooms import medium_of
from castalia.media.text.medium import TextMedium
from castalia.page import Page
from castalia.training.loop import train

TOUR = ("ddpm", "gan", "vae", "gpt2", "wavenet", "gan3d", "mdm", "ctgan")
"""What is shown where nothing is named: pictures in three ways, words, sound, shapes, motion, tables. One system of
each of the families would have seconds, and show noise."""

TRAINING_SHARE = 0.6
"""Share of a system's time that trains; the rest measures and draws."""

DRAWN = 500
"""Samples that are measured where there is time for them."""

FEW = 64
"""The same of media whose samples take long, and are told apart by few."""

EXAMPLES = 500
"""Held-out examples whose likelihood is measured where there is time for them."""


def demo(out: Path, minutes: float = 5.0, names: Sequence[str] = ()) -> Path:
    """Train systems and write ``out/index.html``.

    Args:
        out: folder of the page and of the runs; runs of an earlier demo in it are replaced.
        minutes: for all systems together.
        names: which systems; none: :data:`TOUR`.

    Returns:
        The page.

    Raises:
        UsageError: there is no such system.
    """
    shown = [entry(name) for name in names] or tour()
    page = Page("Castalia: what it makes")
    page.text(
        "Everything on this page was made a moment ago on this computer, by the commands shown, from data that come "
        "with the program or with its libraries. Nothing was downloaded. A few seconds of training each: so this is "
        "how these systems begin, not how far they get."
    )
    if not names:
        others = ", ".join(name for name in CATALOGUE if name not in TOUR)
        page.text(
            f"A tour of {len(shown)} systems. Left out for want of time, and shown by `castalia demo NAME`: {others}."
        )
    ends = time.monotonic() + 60 * minutes
    for number, one in enumerate(shown):  # what one system leaves of its time is for those after it
        share = max(0.3 * minutes / len(shown), (ends - time.monotonic()) / 60 / (len(shown) - number))
        _system(page, one, out, share)
    page.section("What the numbers mean")
    for word, meaning in MEANINGS.items():
        page.text(f"{word}: {meaning}")
    page.section("Now your own data")
    page.code(NEXT)
    page.write(out / "index.html")
    return out / "index.html"


def tour() -> list[Entry]:
    """The systems of :data:`TOUR`."""
    return [entry(name) for name in TOUR]


def _system(page: Page, system: Entry, out: Path, minutes: float) -> None:
    """Train one system, and show and measure what it can do."""
    started, name = time.monotonic(), recipes.of(system.name).demo
    recipe = recipes.recipe(name)
    recipe = replace(recipe, training=replace(recipe.training, minutes=minutes * TRAINING_SHARE, log_every=20))
    data = api.training_data(recipe)
    use_free_threads()  # other programs may have come since the last system
    run = train(recipe, data, _fresh(out, system.name))
    use_free_threads()
    trained = time.monotonic() - started
    held_out = api.open_data(recipe.data.source, split="test", like=run)
    model, medium = run.model()[0], medium_of(run.spec)

    page.section(system.title)
    page.text(system.good)
    command = f"--minutes {recipe.training.minutes:.2g} --out runs/{system.name}"
    page.code(f"castalia train {system.name} --recipe {name} {command}")
    some = data.batch(np.arange(min(32, medium.shown, len(data))))
    figures = _shown(page, some, run.spec, "Some of the data")
    per_sample, drawn = 0.0, 0
    if isinstance(model, Generator):
        drawn = min(32, medium.shown)
        begun = time.monotonic()
        samples = api.sample(run, drawn, seed=1)
        per_sample = (time.monotonic() - begun) / drawn
        figures += _shown(page, samples, run.spec, f"Samples, after {trained:.0f} seconds: new, made by nobody")
        medium.write(samples, run.spec, out / "samples" / system.name)
    page.gallery(figures)
    if isinstance(model, Generator):
        page.code(f"castalia sample runs/{system.name} -n {drawn} --seed 1 --out out/")
        if medium.name == "image":
            pictures.show(page, model, data, held_out, system.name)
    left = max(2.0, 60 * minutes - (time.monotonic() - started))
    page.write(out / "index.html")  # to be looked at while the rest is measured
    print(f"Measuring {system.name}. What was made stands in {out / 'index.html'} already.", flush=True)
    metrics = _measure(run, model, held_out, left, per_sample)
    for line in health.lines(run, metrics):
        page.text(line)
    page.fold(f"Numbers, curves and papers of {system.title}")
    page.metrics({system.name: metrics})
    page.code(f"castalia evaluate runs/{system.name} --baselines --drawn {DRAWN}")
    page.curve(run.losses(), "step", "loss")
    page.text(f"{system.paper}. {len(data):,} examples of {recipe.data.source}.")
    page.unfold()


def _shown(page: Page, batch: Batch, spec: Spec, caption: str) -> list[tuple[bytes, str]]:
    """Examples for a gallery; texts go onto the page at once, to be read."""
    if not isinstance(spec, TextSpec):
        columns = 8 if isinstance(spec, ImageSpec) else None
        return [(png_bytes(medium_of(spec).picture(batch, spec, columns)), caption)]
    page.text(f"{caption}:")
    for text in TextMedium().texts(batch, spec)[:2]:
        page.code(text)
    return []


def _measure(run: Any, model: Model, held_out: Dataset, left: float, per_sample: float) -> dict[str, Any]:
    """Measure within ``left`` seconds: as many examples and samples as there is time for, up to what says enough."""
    limit = None
    if isinstance(model, Density):
        few = held_out.batch(np.arange(min(8, len(held_out)))).to(model.device)
        begun = time.monotonic()
        with torch.no_grad():
            model.log_likelihood(few, rng=SampleRng(0, range(len(few)), model.device), samples=100)
        each = (time.monotonic() - begun) / len(few)
        limit = int(np.clip(0.4 * left / max(each, 1e-6), 10, EXAMPLES))
    drawn, medium = 0, medium_of(run.spec).name
    if isinstance(model, Generator):
        least, most = (50, DRAWN) if medium in COMPARED else (20, FEW)
        drawn = min(int(np.clip(0.3 * left / max(per_sample, 1e-6), least, most)), len(held_out))
    simple = isinstance(model, Density) and medium == "image"
    return api.evaluate(run, baselines=simple, samples=100, limit=limit, drawn=drawn, progress=print)["metrics"]


def _fresh(out: Path, name: str) -> Path:
    """An empty run folder; a run left by an earlier demo is removed."""
    folder = out / "runs" / name
    if (folder / "config.json").is_file():
        shutil.rmtree(folder)
    return folder


MEANINGS = {
    "nll": "negative log-likelihood: how surprised the model is by held-out examples, in nats; lower is better. A "
    "bound says that the truth is not worse than this; K is the number of importance samples behind it.",
    "bits per dimension": "the same divided by the number of pixel values, in bits: what a perfect compressor built "
    "on this model would spend per value. 8 is the cost of raw bytes.",
    "baselines": "models that anybody would try first, measured in the same units: a system that does not beat them "
    "has learnt nothing.",
    "frechet": "how far the features of samples lie from those of held-out examples. Real data and a trivial model "
    "stand beside it: what other real examples get, and what one gets that knows next to nothing.",
    "precision, recall": "the share of samples that lie among the real examples, and of real ones among the samples.",
    "variety": "how much samples differ from each other, beside how much real examples do; near 0: all are alike.",
    "memorisation": "how near samples are to training examples, beside held-out ones; well below 1 means copies.",
    "active units": "latent dimensions that carry information about the example.",
}

NEXT = """castalia train ddpm --data FOLDER_OF_PICTURES --minutes 10 --out runs/mine
castalia info runs/mine
castalia sample runs/mine -n 16 --seed 7 --out out/
castalia evaluate runs/mine"""
