"""What the worker does: samples, edits, latents that are moved, films, text piece by piece, dreams, measurements.

Every task is ``task(bench, run, options, out, tell)``: options are JSON values that were checked for their types by
:mod:`castalia.studio.wishes`; files go into ``out``; ``tell`` takes progress, and raises where nobody wants the result
any more. Short ones, which answer while a slider is dragged, return a value instead of writing.
"""

from __future__ import annotations

import base64
import io
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from castalia import api, asked, editing
from castalia.core.capabilities import Inference, Latents, Styled
from castalia.core.config import to_json
from castalia.core.data import Batch, join
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.rng import SampleRng
from castalia.core.sampling import Preview, Sampling
from castalia.core.spec import LabelSpec
from castalia.core.specs.image import ImageSpec
from castalia.creative import attributes, latents, maps
from castalia.creative.edit import Film, Page
from castalia.creative.edits.directions import MANY, components
from castalia.creative.interpolation import walk
from castalia.media.image.write import png_bytes, replace_file
from castalia.media.rooms import medium_of
from castalia.models.worlds.dreaming import Dream, Moment
from castalia.models.worlds.world_model import WorldModel
from castalia.runs import Run
from castalia.streaming import written

KEPT = 2 << 30
"""Bytes of weights that are kept in memory, of the runs used last."""

AXES = 12
"""Sliders that are shown at most, of each kind."""

DREAMS = 8
"""Dreams that are kept going."""

TOLD_EVERY = 5
"""Steps between previews of unfinished samples."""

Tell = Callable[[dict[str, Any]], None]


@dataclass
class Opened:
    """A run with its model, and what was found out about its latents."""

    run: Run
    model: Any
    origin: str
    stamp: tuple[int, int]
    bytes: int
    axes: dict[str, Tensor] | None = None
    plane: maps.Plane | None = None


class Bench:
    """Models that are loaded, and dreams that go on."""

    def __init__(self) -> None:
        self.opened: OrderedDict[str, Opened] = OrderedDict()
        self.dreams: OrderedDict[str, Dream] = OrderedDict()

    def open(self, path: str) -> Opened:
        """A run's model, loaded again where its weights have changed since."""
        stamp = _stamp(Path(path))
        found = self.opened.pop(path, None)
        if found is None or found.stamp != stamp:
            run = api.load(path)
            model, origin = run.model()
            size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
            found = Opened(run, model.eval(), origin, stamp, size)
        self.opened[path] = found
        while len(self.opened) > 1 and sum(one.bytes for one in self.opened.values()) > KEPT:
            self.opened.popitem(last=False)
        return found

    # sampling

    def sample(self, opened: Opened, wish: Mapping[str, Any], out: Path, tell: Tell) -> dict[str, Any]:
        """Examples as files of their medium, each with its recipe, and one picture of all."""
        run, model = opened.run, _generator(opened)
        settings = _settings(model, wish)
        given = _given(model, wish["given"])
        mixture = api.fitted_prior(run, model) if wish["prior"] == "fitted" else None
        precision = run.precision(model.device, "auto")
        medium = medium_of(run.spec)

        def watch(preview: Preview) -> None:
            shown = None
            if preview.step % TOLD_EVERY == 0 and preview.step < preview.steps:
                shown = _small(medium.picture(preview.examples().cpu(), run.spec))
            tell({"done": preview.step, "of": preview.steps, **({} if shown is None else {"preview": shown})})

        drawn = api.draw(
            model,
            wish["n"],
            seed=wish["seed"],
            start=wish["start"],
            mixture=mixture,
            given=given,
            options=settings,
            precision=precision,
            watch=watch,
        )
        recipe = {
            **told(opened),
            "do": "sample",
            "seed": wish["seed"],
            "prior": wish["prior"],
            "given": _shown(wish)["given"],
            "options": to_json(settings),
            "precision": precision,
        }
        medium.write(drawn, run.spec, out, wish["start"], recipe)
        medium.draw(drawn, run.spec, out / "grid.png", {**recipe, "start": wish["start"], "n": wish["n"]})
        return recipe

    def text(self, opened: Opened, wish: Mapping[str, Any], out: Path, tell: Tell) -> dict[str, Any]:
        """A text, told piece by piece as it is written."""
        run, model, text = opened.run, _generator(opened), ""
        options, precision = _settings(model, wish), run.precision(model.device, "auto")
        pieces = written(
            model, 0, seed=wish["seed"], given=_given(model, wish["given"]), options=options, precision=precision
        )
        for text, _ in pieces:
            tell({"text": text.rstrip("\ufffd")})
        replace_file(out / "text.txt", text.encode())
        return {
            **told(opened),
            "do": "text",
            "seed": wish["seed"],
            "given": _shown(wish)["given"],
            "options": to_json(options),
        }

    # edits

    def edit(self, opened: Opened, wish: Mapping[str, Any], out: Path, tell: Tell) -> dict[str, Any]:
        """An edit's product, as the file or files that show it best."""
        run, name = opened.run, wish["edit"]
        product = editing.work(editing.Desk(run, opened.model), name, wish["paths"])
        recipe = {**told(opened), "do": "edit", "edit": name, "options": wish["options"]}
        if isinstance(product, Page):
            editing.write(product, run.spec, out / "page.html", recipe)
        elif isinstance(product, Film):
            medium = medium_of(run.spec)
            for suffix in product.files:
                editing.write(product, run.spec, out / f"made{suffix}", recipe)
            if product.still is not None:
                editing.write(product.still, run.spec, out / "grid.png", recipe)
            if medium.film(product.frames[:1], run.spec) is not None:
                editing.write(product, run.spec, out / "film.gif", recipe)
            elif product.still is None:
                editing.write(product, run.spec, out / "grid.png", recipe)
        else:
            editing.write(product, run.spec, out, recipe)
            if not isinstance(run.spec, ImageSpec) or hasattr(product, "columns"):
                editing.write(product, run.spec, out / "grid.png", recipe)
        return recipe

    def film(self, opened: Opened, wish: Mapping[str, Any], out: Path, tell: Tell) -> dict[str, Any]:
        """A film from each kept place to the next, through the latents."""
        run, model = opened.run, opened.model
        _needs_latents(opened)
        places = torch.cat([self.place(opened, place) for place in wish["places"]])
        z = walk(places, wish["frames"], loop=wish["loop"])
        given = asked.given_of(model, _given(model, wish["given"]), len(z))
        frames: list[Batch] = []
        for start in range(0, len(z), 16):
            part = {name: value[start : start + 16] for name, value in given.items()}
            frames.append(_decoded(model, z[start : start + 16], part))
            tell({"done": min(start + 16, len(z)), "of": len(z)})
        recipe = {
            **told(opened),
            "do": "film",
            **{key: _shown(wish)[key] for key in ("places", "frames", "loop", "given")},
        }
        batch = join(frames, run.spec)
        medium = medium_of(run.spec)
        moving = medium.film(batch[:1], run.spec) is not None
        editing.write(Film(batch, wish["fps"]), run.spec, out / ("film.gif" if moving else "grid.png"), recipe)
        return recipe

    # latents, while a slider is dragged

    def axes(self, opened: Opened) -> dict[str, Tensor]:
        """Directions by name: latents that matter, attributes of the data, components of styles."""
        _needs_latents(opened)
        if opened.axes is None:
            opened.axes = _axes(opened)
        return opened.axes

    def place(self, opened: Opened, where: Mapping[str, Any]) -> Tensor:
        """The latent (1, z) of a place: where it begins, and what it was moved by."""
        model = opened.model
        if where.get("plane") is not None:
            if opened.plane is None:
                desk = editing.Desk(opened.run, model)
                opened.plane = maps.plane_of(model, lambda: desk.data(None))
            return opened.plane.latents(torch.tensor([where["plane"]], dtype=torch.float32))
        if where.get("path"):
            desk = editing.Desk(opened.run, model)
            z = latents.encode(model, desk.examples([where["path"]]))
        elif where.get("seed") is None:
            z = torch.zeros(1, model.latent_dims)
        else:
            z = SampleRng(where["seed"], [0], torch.device("cpu")).normal("latent", model.latent_dims)
        moves = where.get("moves") or {}
        known = self.axes(opened) if moves else {}
        for name, amount in moves.items():
            if name not in known:
                raise UsageError(f"There is no direction {name!r} here.")
            z = z + amount * known[name]
        return z

    def decode(self, opened: Opened, wish: Mapping[str, Any]) -> bytes:
        """The picture of one place, as a PNG with its recipe."""
        _needs_latents(opened)
        run, model = opened.run, opened.model
        z = self.place(opened, wish["where"])
        given = asked.given_of(model, _given(model, wish["given"]), 1)
        made = _decoded(model, z, given)
        picture = medium_of(run.spec).picture(made, run.spec) if not isinstance(run.spec, ImageSpec) else _one(made)
        return png_bytes(picture, {**told(opened), "do": "place", **_shown(wish)})

    # dreams

    def dream(self, opened: Opened, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Begin a dream, or do something in one."""
        model = opened.model
        if not isinstance(model, WorldModel):
            raise UsageError(f"{opened.run.path.name} is no world model, so it dreams of nothing.")
        key = f"{opened.run.path}:{wish['session']}"
        dream = self.dreams.pop(key, None)
        if dream is None or dream.model is not model or wish["begin"]:
            dream = Dream(model, wish["seed"], wish["temperature"])
        self.dreams[key] = dream
        while len(self.dreams) > DREAMS:
            self.dreams.popitem(last=False)
        action = wish["action"]
        if wish["begin"]:
            return _moment(dream.now(), model)
        if action is not None and len(action) != len(model.spec.actions):
            raise UsageError(f"An action has {len(model.spec.actions)} numbers here, not {len(action)}.")
        return _moment(dream.act(None if action is None else torch.tensor(action).float().clamp(-1, 1)), model)


def told(opened: Opened) -> dict[str, Any]:
    """What every recipe says of its run."""
    return {"model": opened.run.recipe.model, "run": opened.run.path.name, "weights": opened.origin}


def _shown(wish: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for as it came: with identifiers, and without paths of this machine."""
    return {key: value for key, value in wish.get("shown", wish).items() if key != "shown"}


def _generator(opened: Opened) -> Generator:
    if not isinstance(opened.model, Generator):
        raise UsageError(f"{opened.run.path.name} holds a {opened.run.recipe.model}, which makes nothing to be seen.")
    return opened.model


def _needs_latents(opened: Opened) -> None:
    if not isinstance(opened.model, Latents):
        raise UsageError(f"{opened.run.recipe.model} makes nothing from a latent vector, so there is nothing to move.")


def _given(model: Generator, wished: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, with classes by name; an example by its path."""
    known = model.accepts()
    return {
        name: str(value) if isinstance(known.get(name), LabelSpec) else value
        for name, value in wished.items()
        if value is not None and value != ""
    }


def _settings(model: Generator, wish: Mapping[str, Any]) -> Sampling:
    """The model's sampling options with what was chosen, as ``name=value`` texts have it."""
    texts = ((k, str(v).lower() if isinstance(v, bool) else v) for k, v in wish["options"].items())
    return api.sampling_options(model, [f"{name}={value}" for name, value in texts])


@torch.no_grad()
def _decoded(model: Any, z: Tensor, given: Mapping[str, Tensor]) -> Batch:
    return model.decode(z.to(model.device), given).cpu()


def _axes(opened: Opened) -> dict[str, Tensor]:
    model: Any = opened.model
    found: dict[str, Tensor] = {}
    eye = torch.eye(model.latent_dims)
    dims = list(range(min(model.latent_dims, AXES)))
    if isinstance(model, Inference):
        try:
            data = editing.Desk(opened.run, model).data(None)
        except Exception:  # the data may be gone, or damaged: the latents themselves can still be moved
            data = None
        if data is not None:
            some = data.batch(torch.arange(min(len(data), 512)).numpy())
            dims = latents.informative_dims(model, some, AXES)
            try:
                for name, vector in list(attributes.attribute_vectors(model, data, 2_000).items())[:AXES]:
                    found[f"more {name}"] = vector
            except UsageError:  # data without classes and words have no attributes
                pass
    elif isinstance(opened.model, Styled):
        # components of styles are no directions of latents; those of latents that move the style most are
        z = torch.randn(MANY, model.latent_dims, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            styles = model.styles(z.to(model.device))[:, 0].cpu()
        strongest = components(styles)[:AXES]
        heights = (styles - styles.mean(0)) @ strongest.T
        slopes = torch.linalg.lstsq(z, heights).solution.T
        for k, slope in enumerate(slopes):
            found[f"style {k + 1}"] = slope / slope.norm().clamp(min=1e-12)
    for d in dims:
        found.setdefault(f"latent {d}", eye[d])
    return found


def _one(made: Batch) -> Image:
    from castalia.media.image.write import to_image, to_numpy

    return to_image(to_numpy(made.x)[0])


def _small(picture: Image) -> str:
    """A picture in a line of text, for a preview."""
    picture.thumbnail((512, 512))
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def _moment(moment: Moment, model: Any) -> dict[str, Any]:
    file = io.BytesIO()
    _one(Batch.of(moment.frame[None])).save(file, "PNG")
    return {
        "frame": base64.b64encode(file.getvalue()).decode(),
        "reward": moment.reward,
        "over": moment.over,
        "step": moment.step,
        "actions": list(model.spec.actions),
    }


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path / "model.safetensors")
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
