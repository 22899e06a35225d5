"""From a run folder to what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from castalia import api
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision, precision_context
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.slots import Continuing
from castalia.serving.app import Server
from castalia.serving.completions import Limits
from castalia.serving.drafts import Draft, DraftModel, Lookup
from castalia.serving.engine import Engine


def open_server(
    run: str | Path,
    *,
    name: str | None = None,
    rows: int = 8,
    waiting: int = 64,
    tokens: int = 1_024,
    seconds: float = 120.0,
    precision: Precision | Literal["auto"] = "float32",
    int8: bool = False,
    draft: str | Path | None = None,
    look_up: bool = False,
) -> Server:
    """What is served of a run; nothing listens yet.

    Args:
        run: its folder.
        name: of the model; None for that of the folder.
        rows: texts that are written at once.
        waiting: texts that may wait for a row.
        tokens: of a text, at most.
        seconds: after which an answer ends with what there is.
        precision: of the networks.
        int8: round the matrices.
        draft: a smaller run that guesses ahead.
        look_up: guess what followed the same tokens before.

    Raises:
        UsageError: the run is of no language model, or the draft has another vocabulary.
        RunError: a folder is no run, or damaged.
    """
    if waiting < 0 or seconds <= 0:
        raise UsageError("waiting must not be negative, and seconds must be positive.")
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
    engine = Engine(model, rows=rows, precision=chosen, draft=guesses)
    limits = Limits(tokens=tokens, seconds=seconds)
    return Server(engine, name or opened.path.resolve().name, limits, waiting)


def _language_model(run: str | Path) -> Generator:
    model = api.generator(api.load(run))
    if not isinstance(model, Continuing) or not isinstance(model.spec, TextSpec):
        raise UsageError(f"{run} is no run of a language model, which is what can be served.")
    return model.eval()
