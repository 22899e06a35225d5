"""Examples through the bottleneck and back."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.creative.edit import Edit, Grid, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which examples."""

    pictures: tuple[str, ...] = option(help="picture files", flag="", example=True)


def run(work: Work, options: Options) -> Grid:
    """Encode and decode; originals above reconstructions."""
    import torch

    from castalia.core.data import Batch
    from castalia.creative import latents

    x = work.examples(options.pictures).x
    rebuilt = latents.reconstruct(work.model, x).cpu()
    return Grid(Batch.of(torch.cat([x, rebuilt])), columns=len(x), given=len(x))


EDIT = Edit(
    "reconstruct",
    "Encode pictures and decode them again.",
    "FILE.png: originals above reconstructions",
    Options,
    run,
    needs=("Inference|Searchable",),
)
