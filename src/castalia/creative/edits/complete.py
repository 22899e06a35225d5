"""A picture continued: its upper part is kept, and a model that makes pictures row by row draws the rest."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.errors import UsageError
from castalia.creative.edit import Asking, Edit, Grid, One, Work, option


@dataclass(frozen=True, kw_only=True)
class Options(Asking):
    """What is continued, from where, and how often."""

    of: str = option(help="the picture", metavar="A.png", example=True)
    rows: float | None = option(None, "how many of its rows are kept, 14.5 for half a row more (the upper half)")
    n: int = option(7, "how many versions (7); a single one is written alone", flag="-n", least=1)
    beside: bool = option(False, "put the original beside a single version too")
    seed: int = option(0, "other versions")


def run(work: Work, options: Options) -> Grid | One:
    """Sample ``n`` times with the example as the prompt, version i from the stream (seed, i).

    Raises:
        UsageError: a prompt is given beside the picture, or more rows are to be kept than there are.
    """
    import torch

    from castalia.core.data import join
    from castalia.core.precision import precision_context

    if options.prompt is not None:
        raise UsageError("The picture that is continued is the prompt: leave --prompt out.")
    original, model, drawn = work.examples([options.of]), work.model, []
    kept = () if options.rows is None else (f"rows={options.rows}",)
    precision, sampling = work.precision(options.precision), work.sampling((*options.settings, *kept))
    for first in range(0, options.n, work.at_once):
        rows = range(first, min(first + work.at_once, options.n))
        many = original[torch.zeros(len(rows), dtype=torch.int64)].to(model.device)
        given = {**work.given(options, len(rows)), "prompt": many.x}
        with precision_context(precision, model.device):
            made = model.sample(len(rows), given, rng=work.rng(options.seed, rows), options=sampling)
        drawn.append(made.cpu())
    told = {"precision": precision}
    if options.n == 1 and not options.beside:
        return One(drawn[0], told)
    return Grid(join([original, *drawn], work.spec), given=1, recipe=told)


EDIT = Edit(
    "complete",
    "Keep the upper part of a picture and draw the rest.",
    "FILE.png: the new version alone, or with A before it where there are several; a folder: one file each",
    Options,
    run,
    needs=("Streaming",),
    media=("image",),
)
