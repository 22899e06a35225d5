"""A square map of the latent space."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.creative.edit import Edit, Grid, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """How fine, and which plane."""

    cells: int = option(20, "pictures per side (20)", least=1)
    data: str | None = option(None, "data whose main plane is drawn where there are more than two latents")


def run(work: Work, options: Options) -> Grid:
    """Decode the cells of a plane: the latents where there are two, else where the data vary most."""
    from castalia.core.data import Batch
    from castalia.creative import maps

    plane = maps.plane_of(work.model, lambda: work.data(options.data))
    cells = maps.latent_map(work.model, options.cells, plane=plane).cpu()
    return Grid(Batch.of(cells.flatten(0, 1)), columns=options.cells)


EDIT = Edit(
    "map",
    "Draw a two-dimensional map of the latent space.",
    "FILE.png",
    Options,
    run,
    needs=("Latents",),
)
