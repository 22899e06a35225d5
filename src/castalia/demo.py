"""The demo: every system of the catalogue on built-in data, and one page to look at.

The time is shared by the systems, so that it stays a few minutes however many there are. What a system shows
follows from its capabilities; every system of the catalogue appears, with its demo recipe.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from castalia import api, recipes
from castalia.catalogue import CATALOGUE, Entry
from castalia.core.data import Batch, Dataset, LabelSpec
from castalia.core.model import Density, Generator, Inference, Latents, Preview, Refinement
from castalia.core.rng import SampleRng
from castalia.creative import latents, maps
from castalia.evaluation.report import Page
from castalia.media.image.write import grid_image, png_bytes
from castalia.training.loop import train

SIDE = ("frechet", "precision", "recall", "coverage", "modes", "condition_accuracy", "memorisation", "sampling_speed")
"""What the systems are compared in at the end of the page."""

TRAINING_SHARE = 0.6
"""Share of the time that trains; the rest measures and draws."""


def demo(out: Path, minutes: float = 4.0) -> Path:
    """Train every system and write ``out/index.html``.

    Args:
        out: folder of the page and of the runs; runs of an earlier demo in it are replaced.
        minutes: for all systems together.

    Returns:
        The page.
    """
    page = Page("Castalia: what it makes")
    page.text(
        "Every picture on this page was made a moment ago on this computer, by the commands shown, from "
        "scikit-learn's 1,797 handwritten digits of 8 by 8 pixels. Nothing was downloaded."
    )
    shown = list(CATALOGUE.values())
    measured = {entry.name: _system(page, entry, out, minutes / len(shown)) for entry in shown}
    page.heading("Side by side")
    page.metrics({name: {k: m for k, m in metrics.items() if k.startswith(SIDE)} for name, metrics in measured.items()})
    page.code("castalia compare " + " ".join(f"runs/{name}" for name in measured) + " --out report.html")
    page.heading("What the numbers mean")
    for word, meaning in MEANINGS.items():
        page.text(f"{word}: {meaning}")
    page.heading("Now your own data")
    page.code(NEXT)
    page.write(out / "index.html")
    return out / "index.html"


def _system(page: Page, entry: Entry, out: Path, minutes: float) -> dict[str, Any]:
    """Train one system, show and measure what it can do, and return the measurements."""
    name = recipes.of(entry.name).demo
    recipe = recipes.recipe(name)
    recipe = replace(recipe, training=replace(recipe.training, minutes=minutes * TRAINING_SHARE, log_every=20))
    run_folder = _fresh(out, entry.name)
    data, held_out = (
        api.training_data(recipe),
        api.open_data(recipe.data.source, split="test", options=recipe.data.options),
    )
    started = time.monotonic()
    run = train(recipe, data, run_folder)
    seconds = time.monotonic() - started

    page.heading(entry.title)
    page.text(f"{entry.paper}. Trained for {seconds:.0f} seconds on {len(data):,} examples.")
    page.code(
        f"castalia train {entry.name} --recipe {name} --minutes {recipe.training.minutes:.2g} --out runs/{entry.name}"
    )
    page.png(_grid(data.batch(np.arange(32)).x, 16), "Examples of the data")
    page.png(_grid(api.sample(run, 64, seed=1).x, 16), "Samples: new digits that nobody wrote")
    page.code(f"castalia sample runs/{entry.name} -n 64 --seed 1 --out out/")
    model = api.generator(run)
    if "label" in model.accepts():
        _classes(page, model, entry.name)
    _steps(page, model)
    if isinstance(model, Inference):
        _latents(page, model, data, held_out, entry.name)
    elif isinstance(model, Latents):
        _walk(page, model, entry.name)
    if isinstance(model, Refinement):
        _refinement(page, model, held_out, entry.name)
    page.curve(run.losses(), "step", "loss")
    metrics = api.evaluate(run, samples=100, baselines=isinstance(model, Density), drawn=500)["metrics"]
    page.metrics({entry.name: metrics})
    page.code(f"castalia evaluate runs/{entry.name} --baselines --drawn 500")
    return metrics


def _latents(page: Page, model: Inference, data: Dataset, held_out: Dataset, name: str) -> None:
    """Reconstructions, interpolations, traversals and a map."""
    x = held_out.batch(np.arange(16)).x
    rebuilt = latents.reconstruct(model, x).cpu()
    page.png(_grid(torch.cat([x, rebuilt]), 16), "Held-out digits, and below each its reconstruction")
    page.code(f"castalia edit reconstruct runs/{name} A.png B.png --out pairs.png")
    walks = latents.interpolate(model, x[:6], x[6:12], 12).cpu()
    page.png(_grid(walks.flatten(0, 1), 12), "Each row walks from one held-out digit to another")
    page.code(f"castalia edit interpolate runs/{name} --from A.png --to B.png --frames 16 --out walk.gif")
    dims = latents.informative_dims(model, data.batch(np.arange(min(512, len(data)))).x, 6)
    rows = latents.traverse(model, x[:1], dims, torch.linspace(-2.5, 2.5, 12).tolist()).cpu()
    page.png(_grid(rows.flatten(0, 1), 12), "Each row moves one latent, the most informative first")
    page.code(f"castalia edit traverse runs/{name} --of A.png --out latents.png")
    plane = None if model.latent_dims == 2 else maps.embed(model, data).plane
    cells = maps.latent_map(model, 16, plane=plane).cpu()
    page.png(_grid(cells.reshape(-1, *cells.shape[-3:]), 16), "A map of the plane in which the digits vary most")
    page.code(f"castalia edit map runs/{name} --out map.png")


def _classes(page: Page, model: Generator, name: str) -> None:
    """A row of every class."""
    wanted = model.accepts()["label"]
    assert isinstance(wanted, LabelSpec)
    rows = [api.draw(model, 8, seed=2, given={"label": label}).x for label in range(min(len(wanted.classes), 10))]
    page.png(_grid(torch.stack(rows, 1).flatten(0, 1), len(rows)), "Asked for: one column for each class")
    page.code(f"castalia sample runs/{name} -n 8 --label 3 --out threes/")


def _steps(page: Page, model: Generator) -> None:
    """What a sampler with steps sees on its way."""
    seen: list[Preview] = []
    frames: list[Tensor] = []

    def watch(preview: Preview) -> None:
        seen.append(preview)
        if (preview.step - 1) % max(1, preview.steps // 11) == 0 or preview.step == preview.steps:
            frames.append(preview.examples().x)

    api.draw(model, 4, seed=3, watch=watch)
    if frames:
        page.png(
            _grid(torch.stack(frames, 1).flatten(0, 1).cpu(), len(frames)),
            f"Each row is one sample on its way through {seen[-1].steps} steps: what it would become, seen from there",
        )


def _walk(page: Page, model: Latents, name: str) -> None:
    """Walks between random latents, for models that decode only."""
    label = 3 if isinstance(model, Generator) and "label" in model.accepts() else None
    rows = [latents.random_walk(model, 2, 12, SampleRng(seed, range(2)), loop=False, label=label) for seed in range(4)]
    page.png(_grid(torch.cat(rows).cpu(), 12), "Each row walks from one random latent to another")
    page.code(f"castalia edit walk runs/{name} --points 6 --out walk.gif")


def _refinement(page: Page, model: Refinement, held_out: Dataset, name: str) -> None:
    """Filling in: the lower half of held-out digits, four times each."""
    x = held_out.batch(np.arange(12)).x
    mask = torch.zeros(1, 1, *x.shape[-2:], dtype=torch.bool)
    mask[:, :, x.shape[-2] // 2 :] = True
    versions = [model.refine(Batch.of(x), mask=mask, rng=SampleRng(i, range(len(x)))).x.cpu() for i in range(4)]
    rows = torch.cat([x, torch.where(mask, torch.full_like(x, 128), x), *versions])
    page.png(_grid(rows, len(x)), "Held-out digits; their upper halves; four ways to complete each")
    page.code(f"castalia edit redraw runs/{name} --of A.png --mask MASK.png --out filled.png")


def _grid(pictures: Tensor, columns: int) -> bytes:
    """PNG of pictures in rows."""
    return png_bytes(grid_image(pictures, columns))


def _fresh(out: Path, name: str) -> Path:
    """An empty run folder; a run left by an earlier demo is removed."""
    import shutil

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
    "frechet": "how far the features of samples lie from those of held-out examples; the floor is that of real ones.",
    "precision, recall": "the share of samples that lie among the real examples, and of real ones among the samples.",
    "memorisation": "how near samples are to training examples, beside held-out ones; well below 1 means copies.",
    "active units": "latent dimensions that carry information about the example.",
}

NEXT = """castalia train vae --data FOLDER_OF_PICTURES --size 64 --minutes 30 --out runs/mine
castalia sample runs/mine -n 16 --seed 7 --out out/
castalia edit interpolate runs/mine --from A.png --to B.png --frames 16 --out walk.gif
castalia evaluate runs/mine --baselines"""
