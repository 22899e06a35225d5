"""A run as a folder that can be published, and the checked way back.

    config.json         recipe and shape of the data, as data only
    model.safetensors   averaged weights
    metrics.json        what was measured, with units and kinds
    README.md           the model card, with the front matter that model hubs read
    SHA256SUMS          of the first three; ``sha256sum -c SHA256SUMS`` checks it anywhere

The card is not hashed: whoever publishes a model adds a licence and words of their own.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from castalia import card
from castalia.configuration import Recipe
from castalia.core import assets
from castalia.core.errors import RunError
from castalia.core.files import disk_error, read_json, sha256, write_bytes, write_json, write_sealed
from castalia.core.weights import load_tensors, save_tensors
from castalia.interop.received import (
    CONFIG,
    HASHED,
    LIMITS,
    METRICS,
    SUMS,
    WEIGHTS,
    check_weights_header,
    copy_assets,
    copy_verified,
    read_configuration,
    read_sums,
)
from castalia.interop.target import new_folder
from castalia.runs import Run, create, open_run


def export_folder(run: Run, out: Path) -> Path:
    """Write a run as a folder for publication.

    Folders of this computer that the recipe names (data, parent runs) are reduced to their last part: a
    published model need not tell anybody's user name.

    Args:
        run: a run with weights.
        out: a new or empty folder; it appears whole or not at all.

    Returns:
        ``out``.

    Raises:
        UsageError: ``out`` holds something already.
        RunError: the run has no readable weights, or the folder cannot be written.
    """
    model, origin = run.model(torch.device("cpu"))
    public = replace(run, recipe=_without_folders(run.recipe))
    with new_folder(out) as folder:
        create(folder, public.recipe, run.spec, run.fingerprint, run.completed)
        metadata = {"castalia.model": run.recipe.model, "castalia.step": _step(run, origin)}
        save_tensors(folder / WEIGHTS, model.state_dict(), metadata)
        write_json(folder / METRICS, run.results())
        write_bytes(folder / "README.md", (_front_matter(run) + card.text(public)).encode())
        sums = "".join(f"{sha256(folder / name)}  {name}\n" for name in HASHED)
        write_bytes(folder / SUMS, sums.encode())
    return out


def import_folder(path: Path, out: Path) -> Run:
    """Make a run of a folder that :func:`export_folder` wrote, possibly far away and by somebody else.

    Nothing in the folder is believed before it is checked (see :mod:`castalia.interop.received`). Files that
    an export does not have are not looked at.

    Args:
        path: the exported folder.
        out: a new or empty folder for the run; it appears whole or not at all.

    Returns:
        The run: it can be sampled, edited and evaluated. There are no checkpoints, so it cannot be resumed.

    Raises:
        UsageError: ``out`` holds something already.
        RunError: the folder is damaged, incomplete, or not an export; the text says where.
    """
    if not path.is_dir():
        raise RunError(f"There is no folder at {path}.")
    if not (path / SUMS).exists():
        raise RunError(
            f"{path} is no exported folder: its {SUMS} is missing. (castalia export RUN --out FOLDER makes one.)"
        )
    sums = read_sums(path)
    with tempfile.TemporaryDirectory(prefix="castalia-") as temporary:
        received = Path(temporary)
        for name in (CONFIG, METRICS):
            if name in sums:
                copy_verified(path / name, received / name, sums[name])
        source = read_configuration(received)
        copy_assets(path, received, source)
        for asset in (*assets.of(source.spec), *assets.of(source.config)):
            assets.read(asset)  # which is kept: the received copy is gone soon
        metrics = _metrics(received / METRICS)
    with new_folder(out) as folder:
        run = create(folder, source.recipe, source.spec, source.fingerprint, source.completed)
        copy_verified(path / WEIGHTS, run.weights, sums[WEIGHTS])
        check_weights_header(run.weights, run)
        run.model(torch.device("cpu"))  # strict: proves that the weights fit
        try:
            if metrics:
                write_sealed(folder / "results.json", metrics)
            card.write(run)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise RunError(f"{path / METRICS} is not what castalia evaluate writes ({error!r}).") from error
        except OSError as error:
            raise disk_error(out, error) from error
    return open_run(out)


def _metrics(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        metrics = read_json(path, LIMITS[METRICS])
    except ValueError as error:  # a number of thousands of digits
        raise RunError(f"{path.name} cannot be read ({error}).") from error
    if not isinstance(metrics, dict):
        raise RunError(f"{path.name} is not what castalia evaluate writes: expected an object.")
    return metrics


def _front_matter(run: Run) -> str:
    """YAML that model hubs read. The licence is the owner's to choose."""
    lines = ["---", "library_name: castalia", "tags:", "- castalia", f"- {run.recipe.model}"]
    return "\n".join([*lines, "# license: name one here, for example apache-2.0", "---", "", ""])


def _step(run: Run, origin: str) -> str:
    """The step of the weights, as their own metadata or the checkpoint that stood in for them gives it."""
    try:
        return load_tensors(run.weights)[1].get("castalia.step", "?")
    except RunError:
        return origin.removeprefix("step ")


def _without_folders(recipe: Recipe) -> Recipe:
    data = replace(recipe.data, source=_last_part(recipe.data.source))
    return replace(recipe, data=data, parents=tuple((role, _last_part(folder)) for role, folder in recipe.parents))


def _last_part(text: str) -> str:
    """The last part of an absolute or home path of any system; other texts (names of sets) as they are."""
    if text.startswith(("/", "~")):
        return PurePosixPath(text).name or text
    if PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name or text
    return text
