"""Edits of a run: whether they fit, what is read for them, and how their products are written.

The edits themselves are in :mod:`castalia.creative.edits`. In Python::

    product = editing.edit(run, "redraw", of="A.png", mask="MASK.png", n=1)
    editing.write(product, run.spec, Path("filled.png"))
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from castalia import api, asked
from castalia.core.config import from_json, to_json
from castalia.core.data import Batch, Dataset, join
from castalia.core.errors import UsageError
from castalia.core.model import CAPABILITIES, Generator, Model
from castalia.core.precision import Precision
from castalia.core.rng import SampleRng
from castalia.core.sampling import Sampling
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.creative.concepts import Segmenter
from castalia.creative.edit import Asking, Edit, Film, Grid, Page, Product, Sight, Work, options_of
from castalia.creative.priors import LatentMixture
from castalia.creative.table import all_edits, edit_of
from castalia.media.image.decode import ImageOptions
from castalia.media.image.medium import as_read
from castalia.media.image.medium import mask as read_mask
from castalia.media.image.medium import picture as read_picture
from castalia.media.image.video import save_walk
from castalia.media.image.write import replace_file, save_image, save_png
from castalia.media.rooms import medium_of
from castalia.runs import Run
from castalia.segmenters import classifier_of, segmenter_of
from castalia.sights import sight_of

FILMS = (".gif", ".mp4", ".webp")

WORDS = {
    "Latents": "makes examples from latents",
    "Inference": "finds the latents of an example",
    "Searchable": "lets them be searched for",
    "Refinement": "can redraw an example",
    "Reversible": "can take an example back to its noise",
    "Upscaling": "can enlarge a picture",
    "Styled": "makes a picture from styles, one for each layer",
    "Streaming": "makes an example piece by piece",
    "Perception": "has a network that looks at pictures",
    "Matching": "tells how well pictures and words belong together",
    "Meshing": "knows the thing in a picture as a mesh",
    "Density": "knows how likely an example is",
}
"""What a model must be able to do, by the name of the capability."""


def edit(run: Run | str | Path, name: str, **options: Any) -> Product:
    """Do an edit.

    Args:
        run: the run, or its folder.
        name: of the edit.
        **options: the edit's, by the names of its fields; examples and masks are named by their files.

    Raises:
        UsageError: there is no such edit or option (near matches are listed), a value is of another type or cannot be,
            or the run cannot be edited so; the text says how it can.
    """
    run = api.load(run) if not isinstance(run, Run) else run
    return work(Desk(run, run.model()[0]), name, options)


def work(desk: Desk, name: str, options: Mapping[str, Any]) -> Product:
    """:func:`edit` for a run whose model is there already."""
    wanted = edit_of(name)
    chosen = from_json(wanted.options, {k: to_json(v) for k, v in options.items()}, f"edit {name}")
    for one in options_of(wanted):
        value = getattr(chosen, one.name)
        if one.least is not None and value is not None and value < one.least:
            raise UsageError(f"edit {name}: {one.name} must be at least {one.least}, not {value}.")
    refuse(wanted, desk.run, desk.model)
    with torch.no_grad():
        return wanted.run(desk, chosen)


def lacks(edit: Edit, model: Model, spec: Spec) -> str:
    """What a model, or what it makes, lacks for an edit, in words; empty where nothing is missing."""
    kinds = {kind.__name__: kind for kind in CAPABILITIES}
    either = [need.split("|") for need in edit.needs]
    missing = [names for names in either if not any(isinstance(model, kinds[name]) for name in names)]
    if missing:
        words = (
            " or ".join(f"{WORDS[name]} ({name})" if name in WORDS else f"is a {name}" for name in names)
            for names in missing
        )
        return f"needs a model that {' and '.join(words)}"
    medium = medium_of(spec).name
    if len(spec.fields()) > 1:
        return "works on examples of a single part, and these have several"
    return f"is for the media {', '.join(edit.media)}" if edit.media and medium not in edit.media else ""


def possible(model: Model, spec: Spec) -> list[str]:
    """Names of the edits that a model can be used for."""
    return [edit.name for edit in all_edits() if not lacks(edit, model, spec)]


def refuse(edit: Edit, run: Run, model: Model) -> None:
    """Refuse a run that does not fit an edit.

    Raises:
        UsageError: the text says what is missing, and what can be done instead.
    """
    words = lacks(edit, model, run.spec)
    if not words:
        return
    others = possible(model, run.spec)
    instead = (
        f"What can be done with it: castalia edit {', '.join(others)}"
        if others
        else "It can be sampled (castalia sample) and measured (castalia evaluate)"
        if isinstance(model, Generator)
        else "It can be measured (castalia evaluate)"
    )
    raise UsageError(
        f"`castalia edit {edit.name}` {words}; {run.path} is a {run.recipe.model} of the medium "
        f"{medium_of(run.spec).name!r}. {instead}."
    )


class Desk(Work):
    """What an edit works with, from a run folder.

    Args:
        run: the run.
        model: its model, in evaluation mode.
    """

    at_once = api.SAMPLES_AT_ONCE

    def __init__(self, run: Run, model: Any) -> None:
        self.run, self.model, self.spec, self.title = run, model, run.spec, run.recipe.model

    def examples(self, texts: Sequence[str]) -> Batch:
        return join([Batch.of(self._read(text)[None]) for text in texts], self.spec)

    def _read(self, text: str) -> Tensor:
        medium, path = medium_of(self.spec), Path(text.removeprefix("@"))
        found = _is_file(path)
        if isinstance(self.spec, ImageSpec):
            if not found:
                raise UsageError(f"There is no file {path}.")
            # as its training pictures were: cropped, or on white, as the run's options say
            return read_picture(path, as_read(self.run.recipe.data.options, self.spec))  # pyright: ignore[reportArgumentType]
        return medium.read_file(path, self.spec) if found else medium.given(text, self.spec)

    def mask(self, path: str) -> Tensor:
        if not isinstance(self.spec, ImageSpec):
            raise UsageError("A mask is a picture, and this run makes none.")
        if not _is_file(Path(path)):
            raise UsageError(f"There is no file {path}.")
        mask = read_mask(Path(path), self.run.recipe.data.options, self.spec)[None]  # pyright: ignore[reportArgumentType]
        if not mask.any():
            raise UsageError(f"{path}: nothing is white, so there is nothing to redraw.")
        return mask

    def picture(self, path: str, channels: int) -> Tensor:
        plain = Path(path.removeprefix("@"))
        if not _is_file(plain):
            raise UsageError(f"There is no file {plain}.")
        found = self.run.recipe.data.options
        options = found if isinstance(found, ImageOptions) else ImageOptions()
        return read_picture(plain, replace(options, size=None, channels=channels, flip=False))[None]

    def sight(self, name: str | None) -> Sight:
        return sight_of(self.run, self.model, name)

    def segmenter(self, path: str, names: str | None) -> Segmenter:
        return segmenter_of(path, names)

    def classifier(self) -> Segmenter:
        return classifier_of(self.run)

    def data(self, source: str | None) -> Dataset:
        data = self.run.recipe.data
        options = replace(data.options, on_bad_file="skip") if hasattr(data.options, "on_bad_file") else data.options
        split = None if source else data.split
        return api.open_data(source or data.source, split=split, options=options, like=self.run)

    def held_out(self, source: str | None) -> Dataset:
        data = self.run.recipe.data
        return api.open_data(source or data.source, split=None if source else "test", like=self.run)

    def given(self, options: Asking, n: int) -> dict[str, Tensor]:
        short = {"label": options.label, "prompt": options.prompt}
        return asked.given_of(self.model, asked.wishes(options.given, short), n)

    def label(self, name: str | None) -> int | None:
        return None if name is None else int(asked.given_of(self.model, {"label": name}, 1)["label"][0])

    def prior(self) -> LatentMixture:
        return api.fitted_prior(self.run, self.model)

    def sampling(self, settings: Sequence[str]) -> Sampling:
        return api.sampling_options(self.model, settings)

    def precision(self, asked: Precision | Literal["auto"]) -> Precision:
        return self.run.precision(self.model.device, asked)

    def rng(self, seed: int, rows: range) -> SampleRng:
        return SampleRng(seed, rows, self.model.device)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text that is too long for a name
        return False


def write(product: Product, spec: Spec, out: Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Write what an edit made.

    A ``.png`` is one picture of it, or of a single picture that picture itself; ``.gif``, ``.webp`` and ``.mp4`` are
    films of pictures; ``.html`` is a page, with its numbers beside it as ``.json``; another suffix is that of a single
    file of the medium; a name without a suffix is a folder, into which what was made goes as files of the medium,
    without what was given.

    Args:
        product: what :func:`edit` returned.
        spec: the shape of the examples.
        out: where to write; its folder must exist.
        recipe: everything needed to make it again (JSON values).

    Raises:
        UsageError: nothing of this kind is written as such a file.
        RunError: the disk is full or the folder cannot be written.
    """
    medium = medium_of(spec)
    told = None if recipe is None else {**recipe, **product.recipe}
    suffix, pictures = out.suffix.lower(), isinstance(spec, ImageSpec)
    if isinstance(product, Page):
        _write_page(product, out, told)
        return
    if isinstance(product, Film):
        if suffix in product.files:
            replace_file(out, product.files[suffix])
            if told is not None:
                replace_file(out.with_suffix(".json"), (json.dumps(told, indent=2) + "\n").encode())
            return
        frames = medium.film(product.frames, spec) if suffix in FILMS or (pictures and suffix) else None
        if frames is not None and (suffix in FILMS or product.still is None):
            save_walk(frames, out, product.fps, boomerang=product.boomerang, recipe=told)
            return
        product = product.still or Grid(product.frames, len(product.frames))
    if not suffix:
        first = product.given if isinstance(product, Grid) else 0
        medium.write(product.examples[first:], spec, out, recipe=told)
    elif suffix == ".png" and pictures and not isinstance(product, Grid):
        save_png(product.examples.x[0], out, told)
    elif suffix == ".png" or pictures:
        columns = product.columns if isinstance(product, Grid) else None
        save_image(medium.picture(product.examples, spec, columns), out, told)
    else:
        _write_file(product.examples, spec, out, told)


def _write_page(page: Page, out: Path, recipe: Mapping[str, Any] | None) -> None:
    """A page, and its numbers beside it."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out.name}: this is written as a page, FILE.html.")
    page.html.write(out)
    numbers = {**page.numbers, **({} if recipe is None else {"recipe": recipe})}
    replace_file(out.with_suffix(".json"), (json.dumps(numbers, indent=2) + "\n").encode())


def _write_file(examples: Batch, spec: Spec, out: Path, recipe: Mapping[str, Any] | None) -> None:
    """One file of a medium, with its recipe beside it."""
    medium = medium_of(spec)
    with tempfile.TemporaryDirectory(prefix="castalia-") as folder:
        written = medium.write(examples, spec, Path(folder), recipe=recipe)
        kinds = sorted({path.suffix for path in written})
        # or what stands beside it: a mesh beside voxels, sound beside notes
        found = written[0].with_suffix(out.suffix.lower())
        if len(written) > 1 or out.suffix.lower() == ".json" or not found.is_file():
            raise UsageError(
                f"{out.name}: this is written as FILE.png, or, named without a suffix, as a folder of "
                f"{' and '.join(kinds)} files."
            )
        for path in (found, found.with_suffix(".json")):
            if path.is_file():
                replace_file(out.with_suffix(path.suffix), path.read_bytes())
