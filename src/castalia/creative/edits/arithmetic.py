"""Sums of examples in latent space."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.creative.edit import Edit, Grid, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """The three terms."""

    a: str = option(metavar="A.png", example=True)
    b: str = option(metavar="B.png", example=True)
    c: str = option(metavar="C.png", example=True)


def run(work: Work, options: Options) -> Grid:
    """Decode z(a) - z(b) + z(c), and show it beside the three."""
    import torch

    from castalia.core.data import Batch
    from castalia.creative import attributes

    x = work.examples([options.a, options.b, options.c]).x
    answer = attributes.arithmetic(work.model, x[:1], x[1:2], x[2:]).cpu()
    return Grid(Batch.of(torch.cat([x, answer])), columns=4, given=3)


EDIT = Edit(
    "arithmetic",
    "Picture A - B + C, in latent space.",
    "FILE.png: A, B, C and the result",
    Options,
    run,
    needs=("Inference|Searchable",),
)
