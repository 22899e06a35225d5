"""From a run folder to what writes texts with it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from castalia import api
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision, precision_context
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.slots import Continuing
from castalia.serving.drafts import Draft, DraftModel, Lookup
from castalia.serving.engine import Engine


def open_engine(
    run: str | Path,
    *,
    rows: int = 8,
    precision: Precision | Literal["auto"] = "float32",
    int8: bool = False,
    draft: str | Path | None = None,
    look_up: bool = False,
) -> tuple[Engine, str]:
    """An engine of a run, and the name of its folder.

    Args:
        run: its folder.
        rows: texts that are written at once.
        precision: of the networks.
        int8: round the matrices.
        draft: a smaller run that guesses ahead.
        look_up: guess what followed the same tokens before.

    Raises:
        UsageError: the run is of no language model, or the draft has another vocabulary.
        RunError: a folder is no run, or damaged.
    """
    opened = api.load(run)
    model = _language_model(run)
    chosen = opened.precision(model.device, precision)
    guesses: Draft | None = Lookup() if look_up else None
    if draft is not None:
        small = _language_model(draft)
        mine, theirs = model.spec, small.spec
        if any(getattr(mine, f) != getattr(theirs, f) for f in ("kind", "size", "alphabet", "vocabulary", "middles")):
            raise UsageError(f"{draft} has another vocabulary than {run}: it cannot guess for it.")
        with precision_context(chosen, small.device):
            guesses = DraftModel(small, rows)  # pyright: ignore[reportArgumentType]
    if int8:
        from castalia.serving.int8 import to_int8

        model = to_int8(model)
    return Engine(model, rows=rows, precision=chosen, draft=guesses), opened.path.resolve().name


def _language_model(run: str | Path) -> Generator:
    model = api.generator(api.load(run))
    if not isinstance(model, Continuing) or not isinstance(model.spec, TextSpec):
        raise UsageError(f"{run} is no run of a language model, which is what can be served.")
    return model.eval()
