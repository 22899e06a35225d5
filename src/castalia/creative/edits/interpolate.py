"""A way from one example to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Film, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where from, where to, and how."""

    start: str = option(help="first example", flag="--from", metavar="A.png", example=True)
    end: str = option(help="last example", flag="--to", metavar="B.png", example=True)
    frames: int = option(16, "how many, with both ends (16)", least=1)
    how: Literal["linear", "spherical"] = option("spherical", "straight, or along the arc that latents live on")
    fps: float = option(12.0, "frames a second (12)")


def run(work: Work, options: Options) -> Film:
    """Decode latents between those of the two examples.

    Raises:
        UsageError: less than two frames.
    """
    from castalia.core.data import Batch
    from castalia.creative import latents

    if options.frames < 2:
        raise UsageError("--frames must be at least 2.")
    x = work.examples([options.start, options.end]).x
    frames = latents.interpolate(work.model, x[:1], x[1:], options.frames, options.how)[0]
    return Film(Batch.of(frames.cpu()), options.fps)


EDIT = Edit(
    "interpolate",
    "Walk from one picture to another.",
    "FILE.gif, .mp4 or .webp, or FILE.png for a strip",
    Options,
    run,
    needs=("Inference|Searchable",),
)
