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
from castalia.core.data import Batch, Dataset, ImageSpec
from castalia.core.errors import UsageError, near
from castalia.core.model import Inference, Latents, Refinement
from castalia.core.precision import precision_context
from castalia.core.rng import SampleRng
from castalia.creative import attributes, interpolation, latents, maps
from castalia.media.image.medium import as_read, picture
from castalia.media.image.video import save_walk
from castalia.media.image.write import save_grid
from castalia.runs import Run


def run(options: Namespace) -> int:
    """Run the edit that was parsed."""
    opened = api.load(options.run)
    model, origin = opened.model()
    needed, edit = EDITS[options.edit]
    if not isinstance(model, needed):
        raise UsageError(
            f"`castalia edit {options.edit}` needs a model that is a {needed.__name__}, and {opened.recipe.model} is "
            "none. See what each can do with: castalia models"
        )
    if not isinstance(opened.spec, ImageSpec):
        raise UsageError(f"`castalia edit` works on pictures, and {opened.path} makes none.")
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
        edit(opened, model, out, options, recipe)
    print(f"Written: {out}")
    return 0


def _interpolate(opened: Run, model: Any, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    start, end = _pictures(opened, [options.start, options.end])
    if options.frames < 2:
        raise UsageError("--frames must be at least 2.")
    frames = latents.interpolate(model, start[None], end[None], options.frames, options.how)[0]
    save_walk(frames.cpu(), out, options.fps, recipe=recipe)


def _walk(opened: Run, model: Any, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    rng = SampleRng(options.seed, range(options.points))
    label = _label(model, options.label)
    if options.prior == "fitted":
        places = interpolation.walk(api.fitted_prior(opened, model).sample(rng), options.frames, loop=True)
        save_walk(latents.decode(model, places, label).cpu(), out, options.fps, recipe=recipe)
        return
    frames = latents.random_walk(model, options.points, options.frames, rng, label=label)
    save_walk(frames.cpu(), out, options.fps, recipe=recipe)


def _reconstruct(opened: Run, model: Any, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    x = _pictures(opened, options.pictures)
    save_grid(torch.cat([x, latents.reconstruct(model, x).cpu()]), out, columns=len(x), recipe=recipe)


def _traverse(opened: Run, model: Any, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    values = torch.linspace(-options.span, options.span, options.frames).tolist()
    start = _pictures(opened, [options.of]) if options.of else None
    if options.dims:
        try:
            dims = [int(d) for d in options.dims.split(",")]
        except ValueError as error:
            raise UsageError(f"--dims {options.dims}: write numbers with commas, for example 0,3,7.") from error
    elif isinstance(model, Inference):
        known = _data(opened, options.data)
        some = known.batch(np.arange(min(len(known), 512)))
        dims = latents.informative_dims(model, some)
    else:
        raise UsageError(f"{opened.recipe.model} cannot tell which latents matter: name some with --dims, like 0,3,7.")
    pictures = latents.traverse(model, start, dims, values).cpu()  # (dims, values, C, H, W)
    if out.suffix.lower() == ".png":
        save_grid(pictures.flatten(0, 1), out, columns=len(values), recipe=recipe)
        return
    # a film: the latents side by side, all moving together
    save_walk(torch.cat(list(pictures), dim=-1), out, boomerang=True, recipe=recipe)


def _arithmetic(opened: Run, model: Any, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    x = _pictures(opened, [options.a, options.b, options.c])
    answer = attributes.arithmetic(model, x[:1], x[1:2], x[2:]).cpu()
    save_grid(torch.cat([x, answer]), out, columns=4, recipe=recipe)


def _attribute(opened: Run, model: Any, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    x = _pictures(opened, [options.of])
    vectors = attributes.attribute_vectors(model, _data(opened, options.data))
    if options.add not in vectors:
        raise UsageError(f"The data have no class or frequent word {options.add!r}. {near(options.add, vectors)}")
    strengths = torch.linspace(-options.strength, options.strength, options.frames).tolist()
    frames = attributes.apply_attribute(model, x, vectors[options.add], strengths)[0].cpu()
    save_walk(frames, out, boomerang=out.suffix.lower() != ".png", recipe=recipe)


def _map(opened: Run, model: Any, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    if model.latent_dims == 2:
        plane = None
    elif isinstance(model, Inference):
        plane = maps.embed(model, _data(opened, options.data)).plane
    else:
        plane = maps.plane_of_dims(model)
    pictures = maps.latent_map(model, options.cells, plane=plane).cpu()
    save_grid(pictures.reshape(-1, *pictures.shape[-3:]), out, columns=options.cells, recipe=recipe)


def _redraw(opened: Run, model: Any, out: Path, options: Namespace, recipe: dict[str, Any]) -> None:
    if not 0 <= options.strength <= 1:
        raise UsageError("--strength lies between 0 (the picture as it is) and 1 (nothing of it is kept).")
    x = _pictures(opened, [options.of])
    mask = None
    if options.mask:
        assert isinstance(opened.spec, ImageSpec)
        mask = _read(opened, options.mask, replace(opened.spec, channels=1)) > 127
        if not mask.any():
            raise UsageError(f"{options.mask}: nothing is white, so there is nothing to redraw.")
    drawn, precision = [], opened.precision(model.device, options.precision)
    for first in range(0, options.n, api.SAMPLES_AT_ONCE):
        ids = range(first, min(first + api.SAMPLES_AT_ONCE, options.n))
        many = x.expand(len(ids), -1, -1, -1).to(model.device)
        with precision_context(precision, model.device):
            redrawn = model.refine(
                Batch.of(many),
                strength=options.strength,
                mask=None if mask is None else mask.to(model.device),
                given=api.given_of(model, {} if options.label is None else {"label": options.label}, len(ids)),
                rng=SampleRng(options.seed, ids, model.device),
                options=api.sampling_options(model, options.settings),
            )
        drawn.append(redrawn.x.cpu())
    save_grid(torch.cat([x, *drawn]), out, recipe=recipe | {"precision": precision})


EDITS: dict[str, tuple[type, Callable[[Run, Any, Path, Namespace, dict[str, Any]], None]]] = {
    "interpolate": (Inference, _interpolate),
    "walk": (Latents, _walk),
    "reconstruct": (Inference, _reconstruct),
    "traverse": (Latents, _traverse),
    "arithmetic": (Inference, _arithmetic),
    "attribute": (Inference, _attribute),
    "map": (Latents, _map),
    "redraw": (Refinement, _redraw),
}
"""What each edit needs of a model, and what it does."""


def _label(model: Any, label: str | None) -> int | None:
    """The number of a class that was asked for."""
    return None if label is None else int(api.given_of(model, {"label": label}, 1)["label"][0])


def _pictures(opened: Run, paths: Sequence[str]) -> Tensor:
    """Read picture files as the run's training read them, ``uint8`` (N, C, H, W)."""
    return torch.cat([_read(opened, path, opened.spec) for path in paths])


def _read(opened: Run, path: str, spec: Any) -> Tensor:
    """One picture file in the shape of ``spec``, ``uint8`` (1, C, H, W)."""
    if not Path(path).is_file():
        raise UsageError(f"{path} cannot be read: there is no such file.")
    return picture(Path(path), as_read(opened.recipe.data.options, spec))[None]


def _data(opened: Run, source: str | None) -> Dataset:
    """The data named, or the run's own."""
    data = opened.recipe.data
    options = replace(data.options, on_bad_file="skip")
    return api.open_data(source or data.source, split=None if source else data.split, options=options, like=opened)
