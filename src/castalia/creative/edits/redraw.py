"""An example drawn anew: the whole of it, or what a mask leaves open."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.errors import UsageError
from castalia.creative.edit import Asking, Edit, Grid, One, Work, option


@dataclass(frozen=True, kw_only=True)
class Options(Asking):
    """What is redrawn, where, how much of it, and how often."""

    of: str = option(help="the picture", metavar="A.png", example=True)
    mask: str | None = option(
        None, "white where to redraw; everything else stays bit for bit", metavar="MASK.png", mask=True
    )
    strength: float = option(1.0, "0 keeps the picture, 1 keeps nothing (1)")
    n: int = option(7, "how many versions (7); a single one is written alone", flag="-n", least=1)
    beside: bool = option(False, "put the original beside a single version too")
    seed: int = option(0, "other versions")


def run(work: Work, options: Options) -> Grid | One:
    """Refine the example ``n`` times, version i from the stream (seed, i).

    Raises:
        UsageError: the strength is not between 0 and 1, or the mask leaves nothing open.
    """
    import torch

    from castalia.core.data import join
    from castalia.core.precision import precision_context

    if not 0 <= options.strength <= 1:
        raise UsageError("--strength lies between 0 (the picture as it is) and 1 (nothing of it is kept).")
    original, model = work.examples([options.of]), work.model
    mask = work.mask(options.mask).to(model.device) if options.mask else None
    precision, sampling = work.precision(options.precision), work.sampling(options.settings)
    drawn = []
    for first in range(0, options.n, work.at_once):
        rows = range(first, min(first + work.at_once, options.n))
        many = original[torch.zeros(len(rows), dtype=torch.int64)].to(model.device)
        with precision_context(precision, model.device):
            redrawn = model.refine(
                many,
                strength=options.strength,
                mask=mask,
                given=work.given(options, len(rows)),
                rng=work.rng(options.seed, rows),
                options=sampling,
            )
        drawn.append(redrawn.cpu())
    told = {"precision": precision}
    if options.n == 1 and not options.beside:
        return One(drawn[0], told)
    return Grid(join([original, *drawn], work.spec), given=1, recipe=told)


EDIT = Edit(
    "redraw",
    "Draw a picture anew: the whole of it, or what a mask leaves open.",
    "FILE.png: the new version alone, or with A before it where there are several; a folder: one file each",
    Options,
    run,
    needs=("Refinement",),
)
