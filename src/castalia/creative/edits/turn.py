"""A shape from all sides."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.creative.edit import Asking, Edit, Film, Work, option


@dataclass(frozen=True, kw_only=True)
class Options(Asking):
    """Which shape, and how long it takes to go around it."""

    of: str | None = option(None, "a shape of yours instead of a new one", metavar="A.glb", example=True)
    frames: int = option(48, "how many (48)", least=2)
    seed: int = option(0, "another shape")
    fps: float = option(16.0, "frames a second (16)")


def run(work: Work, options: Options) -> Film:
    """The same shape as often as there are frames: its medium goes around it as it films."""
    from castalia.core.data import Batch
    from castalia.core.precision import precision_context
    from castalia.creative.edit import Grid

    if options.of is not None:
        x = work.examples([options.of]).x
    else:
        precision = work.precision(options.precision)
        with precision_context(precision, work.model.device):
            drawn = work.model.sample(
                1,
                work.given(options, 1),
                rng=work.rng(options.seed, range(1)),
                options=work.sampling(options.settings),
            )
        x = drawn.x.cpu()
    frames = x.expand(options.frames, *x.shape[1:]).contiguous()
    return Film(Batch.of(frames), options.fps, still=Grid(Batch.of(x)))


EDIT = Edit(
    "turn",
    "Go around a shape.",
    "FILE.gif, .mp4 or .webp; FILE.png for one view, FILE.glb, .obj or .npy for the shape itself",
    Options,
    run,
    needs=("Generator",),
    media=("shape",),
)
