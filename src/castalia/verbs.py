"""Further verbs in Python, beside those of :mod:`castalia.api`: edit, compare, export, and what there is.

Each is what the command of its name does, and takes the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from castalia import api, asked, comparison, editing, listing, overview
from castalia.core.errors import UsageError
from castalia.core.guest import guest
from castalia.core.spec import LabelSpec
from castalia.creative.edit import Film, Page
from castalia.interop import folder, programs
from castalia.interop.programs import Parity
from castalia.runs import Run
from castalia.showing import Samples

PERSONAL = ("dreambooth", "textual-inversion", "picture-lora")
"""Systems that add to a run; diffusers has files for that."""

Format = Literal["folder", "torch", "onnx", "diffusers", "transformers"]


@guest()
def edit(run: Run | str | Path, name: str, *, out: str | Path | None = None, **options: Any) -> Any:
    """Do an edit (``interpolate``, ``walk``, ``redraw``, ``map``, ...) and return what it made.

    Args:
        run: the run, or its folder.
        name: of the edit; ``castalia edit --help`` lists them.
        out: a file or folder to write it to as well: ``walk.gif``, ``filled.png``.
        **options: the edit's own, by the names of its options: ``of="A.png"``, ``frames=16``.

    Returns:
        :class:`Samples`; of an edit that makes a page (``dissect``), the numbers on it, as plain values.

    Raises:
        UsageError: there is no such edit or option, or the run cannot be edited so.
    """
    run = api.load(run) if not isinstance(run, Run) else run
    product = editing.edit(run, name, **options)
    if out is not None:
        recipe = {"model": run.recipe.model, "run": run.path.name, "edit": name}
        editing.write(product, run.spec, Path(out), recipe)
    if isinstance(product, Page):
        return dict(product.numbers)
    made = product.frames if isinstance(product, Film) else product.examples
    return Samples.told(made, run.spec)


def compare(runs: Sequence[Run | str | Path], *, out: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """Measure runs side by side on the same data.

    Args:
        runs: runs, or their folders.
        out: an HTML page to write as well.
        **options: ``data``, ``split``, ``drawn``, ``samples``, ``limit``, ``seed``, ``plots``; see
            :func:`castalia.comparison.compare`.

    Returns:
        ``{"runs": {name: {model, weights, metrics, ...}}, "context": ...}``.
    """
    paths = [run.path if isinstance(run, Run) else run for run in runs]
    sides = comparison.compare(paths, **options)
    if out is not None:
        real = comparison.held_out(sides, options.get("data"), options.get("split", "test"))
        comparison.page(sides, real).write(Path(out))
    return comparison.report(sides)


def export(
    run: Run | str | Path,
    out: str | Path,
    format: Format = "folder",
    *,
    label: int | str | None = None,
    drop_variance: bool = False,
) -> list[Parity]:
    """Write a run for use elsewhere.

    Args:
        run: the run, or its folder.
        out: folder to make.
        format: ``folder`` (for a model hub), ``torch``, ``onnx``, ``diffusers`` or ``transformers``.
        label: diffusers: the class that its pipelines, which take none, will draw.
        drop_variance: diffusers: leave a learned variance out, for DDIM.

    Returns:
        For ``torch`` and ``onnx``, how far each exported call is from the model; else nothing.
    """
    run, out = api.load(run) if not isinstance(run, Run) else run, Path(out)
    if (label is not None or drop_variance) and (format, run.recipe.model) != ("diffusers", "ddpm"):
        raise UsageError("A label, or a variance left out, can be asked of a ddpm in diffusers' format alone.")
    if format == "folder":
        folder.export_folder(run, out)
    elif format == "diffusers" and run.recipe.model in PERSONAL:
        from castalia.interop.personal import export_words

        export_words(run, out)
    elif format == "diffusers" and run.recipe.model != "ddpm":
        from castalia.interop.diffusers_systems import export_parts

        export_parts(run, out)
    elif format == "diffusers":
        from castalia.interop.diffusers_runs import export_diffusers

        wanted = api.generator(run).accepts().get("label")
        names = wanted.classes if isinstance(wanted, LabelSpec) else ()
        number = None if label is None else asked.class_number(label, names)
        export_diffusers(run, out, label=number, drop_variance=drop_variance)
    elif format == "transformers":
        from castalia.interop.gpt2_runs import export_gpt2

        export_gpt2(run, out)
    else:
        return list((programs.export_torch if format == "torch" else programs.export_onnx)(run, out))
    return []


def systems(name: str | None = None) -> list[dict[str, Any]]:
    """All there is to know about the systems, or about one."""
    return listing.everything() if name is None else [listing.describe(name)]


def list_runs(place: str | Path = "runs") -> list[dict[str, Any]]:
    """The runs in a folder and below it."""
    return overview.rows(Path(place))


def info(run: Run | str | Path) -> dict[str, Any]:
    """All about one run: what, when, how long, results, a picture, commands to go on with."""
    return overview.describe(run.path if isinstance(run, Run) else Path(run))
