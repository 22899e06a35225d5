"""Measured results as data, and the tables of the documentation that are written from them.

``docs/results/<system>.json`` is a list of rows (:class:`Row`). Where a page says

.. code-block:: html

   <!-- results: gan wgan; data: grid-25 ring-8; metric: modes -->
   <!-- end -->

the table of these rows stands between the two lines; without ``data`` or ``metric`` it has all. ``docs/results.md``
has one table of everything. Usage, in the repository:

- ``python -m castalia.results``: writes the tables;
- ``python -m castalia.results --check``: writes nothing, and fails where a page is out of step;
- ``python -m castalia.results add RUN --recipe NAME``: takes over what ``castalia evaluate`` measured.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from castalia import gallery
from castalia.catalogue import CATALOGUE, entry
from castalia.core.config import from_json
from castalia.core.errors import CastaliaError, RunError, UsageError, near
from castalia.core.files import read_json, write_bytes, write_json

MARK = re.compile(r"(<!-- results: (?P<wanted>[^>\n]*?) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)

PAGE = "results.md"

INTRODUCTION = """# All results

What was measured, system by system, with what the papers report beside it where the data are the same. In brackets 95 %
intervals; +- is a standard error over seeds. The pages of the systems have the commands, the machines, and what the
numbers do not say. [Measuring](measuring.md) explains each of them.

"""

NOTHING = "Nothing has been measured yet.\n"

WORDS = {
    "nll": "negative log-likelihood",
    "bits_per_dim": "bits per dimension",
    "frechet": "Fréchet distance",
    "modes": "modes found",
    "mode_kl": "KL of the modes",
    "mode_quality": "near a mode",
    "memorisation_features": "memorisation (features)",
    "condition_accuracy": "of the class asked for",
    "set_coverage_iou": "coverage (IoU)",
    "set_coverage_chamfer": "coverage (Chamfer)",
    "set_mmd_iou": "minimum matching distance (1 - IoU)",
    "set_mmd_chamfer": "minimum matching distance (Chamfer)",
    "set_nna_iou": "1-NN accuracy (IoU)",
    "set_nna_chamfer": "1-NN accuracy (Chamfer)",
    "nearest_train_iou": "IoU with the nearest training shape",
    "feature_accuracy": "classes from its features",
    "view_ap": "average precision from a view",
    "view_iou": "IoU from a view",
    "picture_iou": "IoU of the silhouette",
    "other_iou": "IoU of the silhouette from another side",
    "colour_error": "error of colours",
    "other_colour_error": "error of colours from another side",
    "azimuth_within_15": "azimuth told within 15 degrees",
    "azimuth_error": "error of the azimuth",
    "eq_t": "EQ-T, whole pixels",
    "eq_t_frac": "EQ-T, any distance",
    "eq_r": "EQ-R",
}
"""Names of metrics for people; others are shown as they are, with spaces."""


@dataclass(frozen=True)
class Row:
    """One measured figure. What nobody wrote down is None.

    Attributes:
        system: name in the catalogue.
        recipe: name of the recipe that was trained.
        data: what it was trained on and measured on.
        metric: a metric of ``castalia evaluate``, or of the command given.
        value: what came out, in ``unit``.
        interval: 95 %, of the sampling of examples.
        error: standard error of the mean over ``seeds``.
        unit: of the value.
        kind: ``bound``, ``estimate``, ``exact``, ... and how it was obtained.
        setting: sampler and options, where they are not the defaults.
        beside: the same of real examples, or of baselines.
        training: what the run had, where it is not what the recipe says, and how long it took, in words.
        n: examples or samples measured.
        seeds: of the trainings.
        split: of the data that was measured on.
        command: that gives the figure again.
        hardware: where it was trained.
        seconds: of the training.
        date: of the measurement, as year-month-day.
        published: what the literature has for it, with its source.
    """

    system: str
    recipe: str
    data: str
    metric: str
    value: float
    interval: tuple[float, float] | None = None
    error: float | None = None
    unit: str | None = None
    kind: str | None = None
    setting: str | None = None
    beside: str | None = None
    training: str | None = None
    n: int | None = None
    seeds: tuple[int, ...] = ()
    split: str | None = None
    command: str | None = None
    hardware: str | None = None
    seconds: float | None = None
    date: str | None = None
    published: str | None = None

    def what(self) -> str:
        """The metric and how samples were drawn, in words."""
        words = WORDS.get(self.metric, self.metric.replace("_", " "))
        return f"{words}, {self.setting}" if self.setting else words

    def obtained(self) -> str:
        """Value, unit and uncertainty, all with as many digits as the longest of them was written with."""
        numbers = (self.value, *(self.interval or ()), *(() if self.error is None else (self.error,)))
        digits = max(len(repr(x).partition(".")[2].removesuffix("0") if x % 1 else "") for x in numbers)
        text = f"{self.value:,.{digits}f}"
        if self.error is not None:
            text += f" +- {self.error:,.{digits}f}"
        if self.unit:
            text += f" {self.unit}"
        if self.interval is not None:
            text += f" ({self.interval[0]:,.{digits}f} to {self.interval[1]:,.{digits}f})"
        return text


def folder(docs: Path) -> Path:
    """Where the rows are."""
    return docs / "results"


def read(docs: Path, system: str) -> list[Row]:
    """The rows of a system; none where nothing was measured.

    Raises:
        RunError: the file is not such a list; the text names file and row.
    """
    path = folder(docs) / f"{entry(system).name}.json"
    if not path.exists():
        return []
    found = read_json(path)
    if not isinstance(found, list):
        raise RunError(f"{path}: expected a list of rows.")
    rows = [from_json(Row, row, f"{path}, row {number}") for number, row in enumerate(found, 1)]
    for number, row in enumerate(rows, 1):
        if row.system != system:
            raise RunError(f"{path}, row {number}: is of {row.system!r}, and the file of {system!r}.")
    return rows


def write(docs: Path, system: str, rows: Sequence[Row]) -> None:
    """Replace the rows of a system."""
    folder(docs).mkdir(exist_ok=True)
    write_json(folder(docs) / f"{entry(system).name}.json", [asdict(row) for row in rows])


def selected(docs: Path, wanted: str, where: str) -> list[Row]:
    """The rows that a marker asks for: ``SYSTEM ...``, then perhaps ``; data: SET ...`` and ``; metric: NAME ...``.

    Raises:
        UsageError: an unknown system, data or metric of no result, or another word; ``where`` is named.
    """
    systems, *rest = (part.strip() for part in wanted.split(";"))
    rows: list[Row] = []
    for name in systems.split():
        if name not in CATALOGUE:
            raise UsageError(f"{where}: there is no system {name!r}. {near(name, CATALOGUE)}")
        rows += read(docs, name)
    for part in rest:
        key, _, names = (text.strip() for text in part.partition(":"))
        if key not in ("data", "metric"):
            raise UsageError(f"{where}: after the systems come 'data: ...' and 'metric: ...', not {part!r}.")
        known = {getattr(row, key) for row in rows}
        for name in names.split():
            if name not in known:
                raise UsageError(f"{where}: no result of {systems} has the {key} {name!r}. {near(name, known)}")
        rows = [row for row in rows if getattr(row, key) in names.split()]
    return rows


def table(rows: Iterable[Row], *, everything: bool = False) -> str:
    """A Markdown table of rows; columns in which nothing stands are left out.

    Args:
        rows: in the order of the table.
        everything: of many systems on many data sets, so that these are columns too.
    """
    columns: dict[str, list[str]] = {}
    rows = list(rows)
    several = len({row.data for row in rows}) > 1

    def column(title: str, texts: Iterable[Any]) -> None:
        found = ["" if text is None else str(text).replace("|", "\\|") for text in texts]
        if any(found):
            columns[title] = found

    if everything:
        column("system", (f"[{row.system}](systems/{row.system}.md)" for row in rows))
    column("recipe", (f"`{row.recipe}`" for row in rows))
    if everything or several:
        column("data", (row.data for row in rows))
    column("what", (row.what() for row in rows))
    column("obtained", (row.obtained() for row in rows))
    column("beside", (row.beside for row in rows))
    if not everything:
        column("kind", (row.kind for row in rows))
    column("n", (None if row.n is None else f"{row.n:,}" for row in rows))
    if not everything:
        column("training", (row.training for row in rows))
    column("published", (row.published for row in rows))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cells) + " |" for cells in zip(*columns.values(), strict=True)]
    return "\n".join(lines) + "\n"


def filled(docs: Path, page: Path) -> str:
    """A page with its tables as the rows have them."""

    def fill(match: re.Match[str]) -> str:
        rows = selected(docs, match["wanted"], str(page))
        return f"{match[1]}\n{table(rows) if rows else NOTHING}\n{match[4]}"

    return MARK.sub(fill, page.read_text(encoding="utf-8"))


def overview(docs: Path) -> str:
    """The page of all results: by data, and there by metric, so that systems stand below each other."""
    rows = [row for system in CATALOGUE for row in read(docs, system)]
    order = {name: number for number, name in enumerate(dict.fromkeys(row.data for row in rows))}
    rows.sort(key=lambda row: (order[row.data], row.metric))
    return INTRODUCTION + table(rows, everything=True)


def pages(docs: Path) -> dict[Path, str]:
    """Every page that has tables of results, as it should be; and the gallery."""
    found = {docs / PAGE: overview(docs), docs / gallery.PAGE: gallery.page(docs)}
    for page in sorted(docs.rglob("*.md")):
        if "_build" not in page.parts and page not in found and MARK.search(page.read_text(encoding="utf-8")):
            found[page] = filled(docs, page)
    return found


def out_of_step(docs: Path) -> list[Path]:
    """Pages that are not as the rows have it."""
    return [p for p, text in pages(docs).items() if not p.exists() or p.read_text(encoding="utf-8") != text]


def rounded(value: float) -> float:
    """To five digits: no measurement here has more."""
    return float(f"{value:.5g}")


def measured(run: Path, recipe: str) -> list[Row]:
    """What ``castalia evaluate`` measured of a run, as rows.

    Args:
        run: the run folder.
        recipe: the name of the recipe that it was trained from, which a run does not know.

    Raises:
        RunError: there is no such run, or nothing was measured.
        UsageError: there is no such recipe, or it is of another system.
    """
    from castalia import api, recipes

    opened = api.load(run)
    model = recipes.recipe(recipe).model
    if model != opened.recipe.model:
        raise UsageError(f"The recipe {recipe!r} is of {model!r}, and {run} of {opened.recipe.model!r}.")
    found = opened.results()
    if not found.get("metrics"):
        raise RunError(f"{run} has no results yet; measure it with: castalia evaluate {run}")
    context = found["context"]
    beside = {name: m["value"] for name, m in found["metrics"].items() if name.endswith(("_floor", "_ceiling"))}
    rows = []
    for name, m in found["metrics"].items():
        if name in beside:
            continue
        ends = [f"{end} {beside[f'{name}_{end}']:.4g}" for end in ("floor", "ceiling") if f"{name}_{end}" in beside]
        rows.append(
            Row(
                opened.recipe.model,
                recipe,
                context["data"],
                name,
                rounded(m["value"]),
                interval=(rounded(m["interval"][0]), rounded(m["interval"][1])) if m["interval"] else None,
                unit=m["unit"] or None,
                kind=m["kind"],
                beside=", ".join(ends) or None,
                n=m["n"],
                seeds=(opened.recipe.training.seed,),
                split=context["split"],
                hardware=str(context["hardware"]),
            )
        )
    return rows


def add(docs: Path, run: Path, recipe: str) -> list[Row]:
    """Take over what was measured of a run; rows of the same recipe, data, metric, setting and seeds are replaced."""

    def key(row: Row) -> tuple[object, ...]:
        return row.recipe, row.data, row.metric, row.setting, row.seeds

    new = measured(run, recipe)
    system = new[0].system
    taken = {key(row) for row in new}
    write(docs, system, [*(row for row in read(docs, system) if key(row) not in taken), *new])
    return new


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m castalia.results", description="Tables of results.")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder of the documentation (docs)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is out of step")
    verbs = parser.add_subparsers(dest="verb")
    adding = verbs.add_parser("add", help="take over what castalia evaluate measured of a run")
    adding.add_argument("run", type=Path)
    adding.add_argument("--recipe", required=True, help="the recipe that it was trained from")
    options = parser.parse_args(arguments)
    try:
        if not options.docs.is_dir():
            raise UsageError(f"{options.docs} is not a folder; give that of the documentation with --docs.")
        if options.verb == "add":
            rows = add(options.docs, options.run, options.recipe)
            print(f"{len(rows)} results of {options.recipe}")
        stale = out_of_step(options.docs)
        if options.check:
            for page in stale:
                print(f"{page} is out of step with {folder(options.docs)}/; run: python -m castalia.results")
            return 1 if stale else 0
        for page, text in pages(options.docs).items():
            if page in stale:
                write_bytes(page, text.encode())
                print(f"{page}")
    except CastaliaError as error:
        print(f"castalia.results: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
