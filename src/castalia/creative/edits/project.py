"""Find the styles of a picture, so that it can be made again (:mod:`castalia.creative.projection`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Film, Grid, Work, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which picture, and how it is searched."""

    of: str = option(help="the picture to find", flag="", metavar="A.png", example=True)
    steps: int = option(400, "steps of the search (400; the paper: 1000)", least=1)
    each: bool = option(False, "a style of its own for each layer: closer to the picture, further from the model")
    seen: float = option(0.1, "weight of what the critic sees; 0: pixels only (0.1)")
    noise: Literal["search", "constant"] = option(
        "search", "search the noise maps with the styles, as the paper does, or keep the model's constant ones (search)"
    )
    label: str | None = option(
        None, "begin with the mean style of this class, by name or number, of a conditional model", metavar="CLASS"
    )
    frames: int = option(24, "pictures of the search in the film (24); of fewer steps some are shown again", least=2)
    fps: float = option(12.0, "frames a second (12)")
    seed: int = option(0, "other noise")


def run(work: Work, options: Options) -> Film:
    """Move the styles until the picture is like the one given; the film shows the search.

    The recipe has the styles, the noise maps where they were searched, the error, and that of the mean picture.

    Raises:
        UsageError: a negative weight, or a class that the model does not have.
    """
    import torch

    from castalia.core.data import Batch
    from castalia.core.rng import BatchRng
    from castalia.creative.projection import Settings, project

    if not options.seen >= 0:
        raise UsageError("--seen must not be negative.")
    device, label = work.model.device, work.label(options.label)
    given = None if label is None else {"label": torch.full((1,), label, device=device)}
    target = work.examples([options.of]).x
    settings = Settings(options.steps, options.each, options.seen, options.noise == "search", options.frames)
    rng = BatchRng(options.seed, total=1, device=device)
    found = project(work.model, target.to(device).float(), rng, settings, given)
    x = found.frames.round().clamp(0, 255).to(torch.uint8).cpu()
    still = Grid(Batch.of(torch.cat([target.cpu(), x[-1:]])), columns=2, given=1)
    styles = found.styles[0] if options.each else found.styles[0, :1]
    told = {"styles": rounded(styles, 5), "error": found.error, "error of the mean picture": found.before}
    if found.noise is not None:
        told["noise"] = [rounded(noise[0, 0], 3) for noise in found.noise]
    return Film(Batch.of(x), options.fps, still=still, recipe=told)


def rounded(table: Tensor, digits: int) -> list[list[float]]:
    """Numbers (n, m) as they are written down."""
    return [[round(value, digits) for value in row] for row in table.tolist()]


EDIT = Edit(
    "project",
    "Find the styles that make a picture.",
    "FILE.gif, .mp4 or .webp: the search; FILE.png: the picture beside what was found",
    Options,
    run,
    needs=("Styled",),
    media=("image",),
)
