"""A walk through random places of the latent space, and back to where it began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.creative.edit import Edit, Film, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which places, and how long it takes."""

    points: int = option(6, "places to visit (6)", least=1)
    label: str | None = option(None, "ask a conditional model for this class, by name or number", metavar="CLASS")
    prior: Literal["trained", "fitted"] = option(
        "trained", "fitted: latents from a mixture fitted to the encoded training data, which avoids empty places"
    )
    frames: int = option(72, "how many (72)", least=1)
    seed: int = option(0, "other places")
    fps: float = option(12.0, "frames a second (12)")


def run(work: Work, options: Options) -> Film:
    """Decode latents on arcs between draws from the prior."""
    from castalia.core.data import Batch
    from castalia.core.rng import SampleRng
    from castalia.creative import interpolation, latents

    rng = SampleRng(options.seed, range(options.points))
    label = work.label(options.label)
    if options.prior == "fitted":
        places = interpolation.walk(work.prior().sample(rng), options.frames, loop=True)
        frames = latents.decode(work.model, places, label)
    else:
        frames = latents.random_walk(work.model, options.points, options.frames, rng, label=label)
    return Film(Batch.of(frames.cpu()), options.fps)


EDIT = Edit(
    "walk",
    "Walk through random places of the latent space.",
    "FILE.gif, .mp4 or .webp, or FILE.png for a strip",
    Options,
    run,
    needs=("Latents",),
)
