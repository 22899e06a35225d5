"""What single latents do: each is moved while the others stay."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Film, Grid, Work, option

SEEN = 512
"""Examples that tell which latents are informative."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which latents, and how far."""

    of: str | None = option(
        None, "start from this picture instead of the prior's centre", metavar="A.png", example=True
    )
    dims: str | None = option(None, "latents, for example 0,3,7; without it, the most informative ten")
    data: str | None = option(None, "data that tells which latents are informative (the run's own)")
    span: float = option(3.0, "from -span to span (3)")
    frames: int = option(11, "how many steps (11)", least=1)


def run(work: Work, options: Options) -> Film | Grid:
    """Decode the start with one latent after the other set to each value.

    Raises:
        UsageError: there are no such latents, or the model cannot tell which matter.
    """
    import numpy as np
    import torch

    from castalia.core.capabilities import Inference
    from castalia.core.data import Batch
    from castalia.core.specs.image import ImageSpec
    from castalia.creative import latents

    values = torch.linspace(-options.span, options.span, options.frames).tolist()
    start = work.examples([options.of]).x if options.of else None
    if options.dims:
        try:
            dims = [int(d) for d in options.dims.split(",")]
        except ValueError as error:
            raise UsageError(f"--dims {options.dims}: write numbers with commas, for example 0,3,7.") from error
    elif isinstance(work.model, Inference):
        known = work.data(options.data)
        dims = latents.informative_dims(work.model, known.batch(np.arange(min(len(known), SEEN))))
    else:
        raise UsageError(f"{work.title} cannot tell which latents matter: name some with --dims, like 0,3,7.")
    moved = latents.traverse(work.model, start, dims, values).cpu()  # (dims, values, ...)
    grid = Grid(Batch.of(moved.flatten(0, 1)), columns=len(values))
    if not isinstance(work.spec, ImageSpec):
        return grid
    # as a film: pictures of all latents side by side, all moving together
    return Film(Batch.of(torch.cat(list(moved), dim=-1)), boomerang=True, still=grid)


EDIT = Edit(
    "traverse",
    "Move one latent at a time.",
    "FILE.png for a grid; FILE.gif or .mp4 for a film",
    Options,
    run,
    needs=("Latents",),
)
