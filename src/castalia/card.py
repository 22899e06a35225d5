"""The model card: what a run is, in words, for whoever finds the folder."""

from __future__ import annotations

import html
import re
import shlex

from castalia import health
from castalia.catalogue import entry
from castalia.configuration import spec_to_json
from castalia.core.capabilities import Density, Inference, Latents
from castalia.core.errors import shown
from castalia.core.files import write_bytes
from castalia.core.model import Generator
from castalia.runs import Run


def write(run: Run) -> None:
    """Write ``README.md`` into a run, with the results measured so far."""
    write_bytes(run.path / "README.md", text(run).encode("utf-8", "backslashreplace"))


def _plain(name: str) -> str:
    """A stranger's name in Markdown: no HTML, no links, no second line."""
    one = shown(name).replace("\n", " ").replace("\t", " ")
    return re.sub(r"([\\`*\[\]!|#])", r"\\\1", html.escape(one, quote=False))[:500]


def _code(name: str) -> str:
    """The same as code, in which nothing but the end of it has a meaning."""
    return f"`{shown(name).replace(chr(10), ' ').replace('`', '')[:500]}`"


def text(run: Run) -> str:
    """The card as Markdown."""
    system, recipe = entry(run.recipe.model), run.recipe
    spec = spec_to_json(run.spec)
    shape = ", ".join(f"{key} {_plain(str(value))}" for key, value in spec.items() if isinstance(value, int | str))
    metrics = run.results().get("metrics", {})
    newest, source = run.newest_grid(), recipe.data.source
    if source.startswith("/"):  # where it lay is nobody else's business
        source = source.rstrip("/").rsplit("/", 1)[-1]
    done = run.steps_done()
    steps = f"{done:,} steps" if done else f"{recipe.training.steps:,} steps planned"
    lines = [
        f"# {system.title} trained on {_plain(source)}",
        "",
        f"A model of the Castalia workbench: `{system.name}`. Paper: {system.paper}.",
        "",
        *([f"![Samples](samples/{newest.name})", ""] if newest is not None else []),
        *(line for found in health.lines(run, metrics) for line in (_plain(found), "")),
        f"- data: {_code(source)}, fingerprint {_code(run.fingerprint or 'unknown')}",
        f"- one example: {shape}",
        f"- training: {steps} of {recipe.training.batch_size} examples"
        + (f", {recipe.training.minutes:g} minutes" if recipe.training.minutes else "")
        + f", seed {recipe.training.seed}",
        "- configuration: `config.json`; weights: `model.safetensors` (averaged)",
        "",
        *(["## Why this network", "", _plain(" ".join(run.said)), ""] if run.said else []),
        "## Measured",
        "",
    ]
    if metrics:
        lines += ["| what | value | unit | kind | examples | seed |", "|---|---|---|---|---|---|"]
        for name, m in metrics.items():
            low_high = m.get("interval")
            interval = f" ({low_high[0]:.4g} to {low_high[1]:.4g})" if low_high else ""
            cells = (name, f"{m['value']:.5g}{interval}", m["unit"], m["kind"], f"{m['n']}", f"{m['seed']}")
            lines.append(f"| {' | '.join(_plain(cell) for cell in cells)} |")
    else:
        lines.append("Nothing yet: `castalia evaluate .` in this folder measures it.")
    return "\n".join([*lines, "", "## Use", "", "In this folder:", "", "```", *commands(run, "."), "```", ""])


def commands(run: Run, name: str = "") -> list[str]:
    """What one could do with a run next, as commands that work as they stand.

    Args:
        run: the run.
        name: what to call it; empty: its path. What is made goes beside it, or into it where that is ``.``.
    """
    place = shlex.quote(name or run.path.as_posix())
    beside = "" if place == "." else f"{place}-"
    kind, resume = entry(run.recipe.model).load(), f"castalia train --resume --out {place}"
    if not run.weights.exists():
        return [resume]
    found = []
    if issubclass(kind, Generator):
        found.append(f"castalia sample {place} -n 16 --seed 7 --out {beside}out/")
    if issubclass(kind, Latents):
        found.append(f"castalia edit walk {place} --points 6 --out {beside}walk.gif")
    if issubclass(kind, Inference):
        found.append(f"castalia edit map {place} --out {beside}map.png")
    found.append(f"castalia evaluate {place}" + (" --baselines" if issubclass(kind, Density) else ""))
    return [*found, *([resume] if run.steps_done() < (run.planned() or 0) else [])]
