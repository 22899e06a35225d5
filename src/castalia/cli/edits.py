"""The verbs of ``castalia edit``: read pictures, call the creative floor, write a picture or a film."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from castalia import api
from castalia.core.data import Dataset
from castalia.core.errors import UsageError, near
from castalia.core.model import Latents, Model
from castalia.core.rng import SampleRng
from castalia.creative import attributes, interpolation, latents, maps
from castalia.media.image.decode import decode_image
from castalia.media.image.video import save_walk
from castalia.media.image.write import save_grid
from castalia.runs import Run


def run(options: Namespace) -> int:
    """Run the edit that was parsed."""
    opened = api.load(options.run)
    model, origin = opened.model()
    if not isinstance(model, Latents):
        raise UsageError(f"{opened.recipe.model} has no latents to edit. See the capabilities in: castalia models")
    out = Path(options.out)
    if not out.parent.is_dir():
        raise UsageError(f"The folder {out.parent} of --out does not exist.")
    recipe = {
        "model": opened.recipe.model,
        "run": opened.path.name,
        "weights": origin,
        "config": api.config_json(opened),
        "edit": {k: v for k, v in vars(options).items() if isinstance(v, str | int | float | list | None)},
    }
    with torch.no_grad():
        EDITS[options.edit](opened, model, out, options, recipe)
    print(f"Written: {out}")
    return 0


def _interpolate(opened: Run, model: Latents, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    start, end = _pictures(opened, [options.start, options.end])
    if options.frames < 2:
        raise UsageError("--frames must be at least 2.")
    frames = latents.interpolate(model, start[None], end[None], options.frames, options.how)[0]
    save_walk(frames.cpu(), out, options.fps, recipe=recipe)


def _walk(opened: Run, model: Latents, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    rng = SampleRng(options.seed, range(options.points))
    if options.prior == "fitted":
        assert isinstance(model, Model)
        places = interpolation.walk(api.fitted_prior(opened, model).sample(rng), options.frames, loop=True)
        save_walk(latents.decode(model, places).cpu(), out, options.fps, recipe=recipe)
        return
    save_walk(latents.random_walk(model, options.points, options.frames, rng).cpu(), out, options.fps, recipe=recipe)


def _reconstruct(opened: Run, model: Latents, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    x = _pictures(opened, options.pictures)
    save_grid(torch.cat([x, latents.reconstruct(model, x).cpu()]), out, columns=len(x), recipe=recipe)


def _traverse(opened: Run, model: Latents, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    values = torch.linspace(-options.span, options.span, options.frames).tolist()
    start = _pictures(opened, [options.of]) if options.of else None
    if options.dims:
        try:
            dims = [int(d) for d in options.dims.split(",")]
        except ValueError as error:
            raise UsageError(f"--dims {options.dims}: write numbers with commas, for example 0,3,7.") from error
    else:
        known = _data(opened, options.data)
        some = known.batch(np.arange(min(len(known), 512))).x
        dims = latents.informative_dims(model, some)
    pictures = latents.traverse(model, start, dims, values).cpu()  # (dims, values, C, H, W)
    if out.suffix.lower() == ".png":
        save_grid(pictures.flatten(0, 1), out, columns=len(values), recipe=recipe)
        return
    # a film: the latents side by side, all moving together
    save_walk(torch.cat(list(pictures), dim=-1), out, boomerang=True, recipe=recipe)


def _arithmetic(opened: Run, model: Latents, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    x = _pictures(opened, [options.a, options.b, options.c])
    answer = attributes.arithmetic(model, x[:1], x[1:2], x[2:]).cpu()
    save_grid(torch.cat([x, answer]), out, columns=4, recipe=recipe)


def _attribute(opened: Run, model: Latents, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    x = _pictures(opened, [options.of])
    vectors = attributes.attribute_vectors(model, _data(opened, options.data))
    if options.add not in vectors:
        raise UsageError(f"The data have no class or frequent word {options.add!r}. {near(options.add, vectors)}")
    strengths = torch.linspace(-options.strength, options.strength, options.frames).tolist()
    frames = attributes.apply_attribute(model, x, vectors[options.add], strengths)[0].cpu()
    save_walk(frames, out, boomerang=out.suffix.lower() != ".png", recipe=recipe)


def _map(opened: Run, model: Latents, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    plane = None if model.latent_dims == 2 else maps.embed(model, _data(opened, options.data)).plane
    pictures = maps.latent_map(model, options.cells, plane=plane).cpu()
    save_grid(pictures.reshape(-1, *pictures.shape[-3:]), out, columns=options.cells, recipe=recipe)


EDITS: dict[str, Callable[[Run, Latents, Path, Namespace, dict[str, Any]], None]] = {
    "interpolate": _interpolate,
    "walk": _walk,
    "reconstruct": _reconstruct,
    "traverse": _traverse,
    "arithmetic": _arithmetic,
    "attribute": _attribute,
    "map": _map,
}


def _pictures(opened: Run, paths: Sequence[str]) -> Tensor:
    """Read picture files as the run's training read them, ``uint8`` (N, C, H, W)."""
    options = api.run_image_options(opened)
    pixels = []
    for path in paths:
        try:
            raw = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
        pixels.append(decode_image(raw, path, options, options.channels))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def _data(opened: Run, source: str | None) -> Dataset:
    """The data named, or the run's own."""
    recipe = opened.recipe
    image = replace(api.run_image_options(opened), on_bad_file="skip")
    return api.open_data(source or recipe.data.source, split=None if source else recipe.data.split, image=image)
