"""What a training says in words: at its start, of data that are not used, and where steps fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from castalia import checkpoints
from castalia.configuration import Recipe
from castalia.core.data import Dataset
from castalia.core.model import Generator, Model
from castalia.core.spec import LabelSpec
from castalia.runs import Run
from castalia.training import keeping, plan


def left_out(model: Model, data: Dataset) -> list[str]:
    """Sentences where the data have classes that the model does not learn, or captions that it could learn."""
    if not isinstance(model, Generator):
        return []
    found, label = [], data.spec.sides().get("label")
    classes = label.classes if isinstance(label, LabelSpec) and data.labels is not None else ()
    if len(classes) > 1 and "label" not in model.accepts():
        found.append(f"The data have {len(classes)} classes, which this model does not learn.")
    if getattr(data, "texts", ()) and getattr(getattr(model, "config", None), "known", "caption") != "caption":
        how = "--set config.known=caption --set data.options.captions=200"
        found.append(f"The pictures have captions, which this model does not learn; with {how} it does.")
    return found


def opening(recipe: Recipe, data: Dataset, count: int, decided: plan.Plan, state: keeping.State) -> str:
    """What is trained on what, and how."""
    text = (
        f"{recipe.model}, {count:,} parameters, on {data.name}, {len(data):,} examples; "
        f"{decided.precision} ({decided.reason}), {decided.threads} thread{'s' * (decided.threads > 1)}"
    )
    return text + (f"; continuing after step {state.step:,}" if state.step else "")


def bad_step(state: keeping.State, logs: Mapping[str, float], used: Sequence[Tensor], data: Dataset) -> str:
    """Which step was skipped, and of which examples."""
    ids = torch.cat(list(used)).tolist() if used else []
    names = [data.files[i] if data.files else str(i) for i in ids[:8]]
    what = ", ".join(f"{name} {value}" for name, value in logs.items() if not math.isfinite(value)) or "non-finite"
    more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    return (
        f"Step {state.step:,} was skipped: {what}. Its examples: {', '.join(names)}{more}. "
        f"No weight was changed by them ({state.bad_in_a_row} in a row, {state.skipped} in all)."
    )


def last_good(run: Run, state: keeping.State) -> str:
    """Where to go on from."""
    good = checkpoints.newest(run.checkpoints)
    where = f"The last good checkpoint is {good.path}." if good else "There is no checkpoint yet."
    return (
        f"Training stopped after {state.bad_in_a_row} such steps in a row. {where} Try a lower training.lr or a clip."
    )
