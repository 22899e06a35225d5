"""What a system of pictures can do besides sampling, shown on a page: classes, steps, latents, filling in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from castalia import api
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Inference, Latents, Preview, Refinement
from castalia.core.rng import SampleRng
from castalia.core.spec import LabelSpec
from castalia.creative import latents, maps
from castalia.media.image.write import grid_image, png_bytes
from castalia.page import Page


def show(page: Page, model: Generator, data: Dataset, held_out: Dataset, name: str) -> None:
    """Put what the model can do on the page."""
    if "label" in model.accepts():
        _classes(page, model, name)
    _steps(page, model)
    if isinstance(model, Inference):
        _latents(page, model, data, held_out, name)
    elif isinstance(model, Latents):
        _walk(page, model, name)
    if isinstance(model, Refinement):
        _refinement(page, model, held_out, name)


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
