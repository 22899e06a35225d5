"""What a system of pictures can do besides sampling, shown on a page: classes, steps, walks, latents, filling in."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from castalia import api
from castalia.core.capabilities import Inference, Latents, Meshing, Refinement
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator
from castalia.core.rng import SampleRng
from castalia.core.sampling import Preview
from castalia.core.spec import LabelSpec
from castalia.creative import latents, maps
from castalia.media.image.write import grid_image, png_bytes
from castalia.page import Page

CLASSES = 10
"""Classes that are shown, at most."""

FPS = 8


def show(page: Page, model: Generator, data: Dataset, held_out: Dataset, name: str) -> None:
    """Put what the model can do on the page."""
    if "label" in model.accepts():
        _classes(page, model, name)
    _steps(page, model)
    if isinstance(model, Latents):
        _walk(page, model, name)
    if isinstance(model, Meshing) and isinstance(model, Inference):
        _meshes(page, model, held_out, name)
    if isinstance(model, Inference):
        _latents(page, model, data, held_out, name)
    if isinstance(model, Refinement):
        _refinement(page, model, held_out, name)


def _meshes(page: Page, model: Meshing, held_out: Dataset, name: str) -> None:
    """Pictures, and the things in them from six sides."""
    assert isinstance(model, Inference)
    x = held_out.batch(np.arange(4) * max(1, len(held_out) // 4)).x
    meshes = model.mesh(model.encode(Batch.of(x)))
    rows = [model.look(meshes, torch.full((len(x),), 30.0 + 60 * side)).cpu() for side in range(6)]
    shown = torch.stack([x, *rows], 1).flatten(0, 1)
    page.png(_grid(shown, 7), "Held-out pictures, and the mesh that is made of each from six sides (edit solidify)")
    page.code(f"castalia edit solidify runs/{name} --of A.png --out a.glb")


def _latents(page: Page, model: Inference, data: Dataset, held_out: Dataset, name: str) -> None:
    """Reconstructions, interpolations, traversals and a map."""
    x = held_out.batch(np.arange(8)).x
    rebuilt = latents.reconstruct(model, x).cpu()
    walks = latents.interpolate(model, x[:4], x[4:8], 9).cpu()
    figures = [
        (_grid(torch.cat([x, rebuilt]), 8), "Held-out pictures, and below each its reconstruction (edit reconstruct)"),
        (_grid(walks.flatten(0, 1), 9), "Each row goes from one held-out picture to another (edit interpolate)"),
    ]
    dims = latents.informative_dims(model, data.batch(np.arange(min(512, len(data)))).x, 4)
    rows = latents.traverse(model, x[:1], dims, torch.linspace(-2.5, 2.5, 9).tolist()).cpu()
    figures.append(
        (_grid(rows.flatten(0, 1), 9), "Each row moves one latent, the most informative first (edit traverse)")
    )
    if model.latent_dims <= 512:
        plane = None if model.latent_dims == 2 else maps.embed(model, data).plane
        cells = maps.latent_map(model, 10, plane=plane).cpu()
        caption = "A map of the plane in which the pictures vary most (edit map)"
        figures.append((_grid(cells.reshape(-1, *cells.shape[-3:]), 10), caption))
    page.gallery(figures)
    page.code(f"castalia edit interpolate runs/{name} --from A.png --to B.png --frames 16 --out walk.gif")


def _classes(page: Page, model: Generator, name: str) -> None:
    """A column of every class."""
    wanted = model.accepts()["label"]
    assert isinstance(wanted, LabelSpec)
    count = min(len(wanted.classes), CLASSES)
    rows = [api.draw(model, 4, seed=2, given={"label": label}).x for label in range(count)]
    names = ", ".join(wanted.classes[:count])
    page.png(_grid(torch.stack(rows, 1).flatten(0, 1), len(rows)), f"Asked for, a column each: {names}")
    page.code(f"castalia sample runs/{name} -n 4 --label {wanted.classes[0]} --out out/")


def _steps(page: Page, model: Generator) -> None:
    """What a sampler with steps sees on its way: a film, and still."""
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
    """A film of walks through the latent space, and the same as rows."""
    label = 0 if isinstance(model, Generator) and "label" in model.accepts() else None
    rows = [latents.random_walk(model, 3, 8, SampleRng(seed, range(3)), loop=True, label=label) for seed in range(4)]
    frames = [grid_image(torch.stack([row[i] for row in rows]).cpu(), 4) for i in range(len(rows[0]))]
    page.png(film(frames), "A walk through what it knows, on and on")
    page.code(f"castalia edit walk runs/{name} --points 6 --out walk.gif")


def film(frames: list[Image.Image]) -> bytes:
    """Pictures as a GIF that repeats for ever."""
    file = io.BytesIO()
    first, *rest = [frame.convert("RGB").quantize(64) for frame in frames]
    first.save(file, "GIF", save_all=True, append_images=rest, duration=1000 // FPS, loop=0)
    return file.getvalue()


def _refinement(page: Page, model: Refinement, held_out: Dataset, name: str) -> None:
    """Filling in: the lower half of held-out pictures, three times each."""
    x = held_out.batch(np.arange(8)).x
    mask = torch.zeros(1, 1, *x.shape[-2:], dtype=torch.bool)
    mask[:, :, x.shape[-2] // 2 :] = True
    versions = [model.refine(Batch.of(x), mask=mask, rng=SampleRng(i, range(len(x)))).x.cpu() for i in range(3)]
    rows = torch.cat([x, torch.where(mask, torch.full_like(x, 128), x), *versions])
    page.png(_grid(rows, len(x)), "Held-out pictures; their upper halves; three ways to complete each")
    page.code(f"castalia edit redraw runs/{name} --of A.png --mask MASK.png --out filled.png")


def _grid(pictures: Tensor, columns: int) -> bytes:
    """PNG of pictures in rows."""
    return png_bytes(grid_image(pictures, columns))
