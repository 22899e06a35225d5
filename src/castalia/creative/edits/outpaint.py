"""A picture continued beyond its edges: windows of the model's size, filled from the inside outwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castalia.core.errors import UsageError
from castalia.creative.edit import MOST_PIXELS, Asking, Edit, Grid, One, Work, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options(Asking):
    """What is continued, in which directions, and how often."""

    of: str = option(help="the picture", metavar="A.png", example=True)
    left: int = option(0, "pixels that are added at the left (0)", least=0)
    right: int = option(0, "at the right (0)", least=0)
    up: int = option(0, "above (0)", least=0)
    down: int = option(0, "below (0)", least=0)
    n: int = option(1, "how many versions (1); a single one is written alone", flag="-n", least=1)
    seed: int = option(0, "other versions")


def run(work: Work, options: Options) -> Grid | One:
    """Fill a larger canvas around the picture, which itself comes back bit for bit.

    Raises:
        UsageError: nothing is added, or what is made would have more than ``MOST_PIXELS`` pixels.
    """
    import torch

    from castalia.core.data import Batch

    o, spec = options, work.spec
    top, left = o.up, o.left
    height, width = spec.height + o.up + o.down, spec.width + o.left + o.right
    if (height, width) == (spec.height, spec.width):
        raise UsageError("Nothing is added: say how many pixels, with --left, --right, --up or --down.")
    if height * width > MOST_PIXELS:
        raise UsageError(f"What is made would have {width}x{height} pixels; {MOST_PIXELS:,} are the most.")
    picture = work.examples([o.of]).x
    precision, sampling = work.precision(o.precision), work.sampling(o.settings)
    drawn: list[Tensor] = []
    for first in range(0, o.n, work.at_once):
        rows = range(first, min(first + work.at_once, o.n))
        canvas = picture.new_zeros(len(rows), spec.channels, height, width)
        known = torch.zeros(height, width, dtype=torch.bool)
        canvas[:, :, top : top + spec.height, left : left + spec.width] = picture
        known[top : top + spec.height, left : left + spec.width] = True
        for number, (y, x) in enumerate(windows((height, width), (spec.height, spec.width), (top, left))):
            part = (slice(y, y + spec.height), slice(x, x + spec.width))
            if known[part].all():
                continue
            rng = work.rng(o.seed, rows).at("window", number)
            canvas[:, :, *part] = _filled(work, canvas[:, :, *part], ~known[part], rng, o, precision, sampling)
            known[part] = True
        drawn.append(canvas)
    told = {"precision": precision}
    made = Batch.of(torch.cat(drawn))
    return One(made, told) if o.n == 1 else Grid(made, recipe=told)


def _filled(
    work: Work, seen: Tensor, open_: Tensor, rng: Any, options: Options, precision: Any, sampling: Any
) -> Tensor:
    """Windows ``uint8`` (B, C, H, W) with what is open (H, W) drawn."""
    from castalia.core.data import Batch
    from castalia.core.precision import precision_context

    device = work.model.device
    with precision_context(precision, device):
        batch = Batch.of(seen.to(device))
        given = work.given(options, len(seen))
        mask = open_[None, None].to(device)
        return work.model.refine(batch, mask=mask, given=given, rng=rng, options=sampling).x.cpu()


def windows(canvas: tuple[int, int], window: tuple[int, int], start: tuple[int, int]) -> list[tuple[int, int]]:
    """Upper left corners of windows that cover a canvas, half a window apart, from ``start`` outwards.

    Each but the first overlaps those before it, by half at an edge and a quarter at a corner at least, so that nothing
    is drawn out of sight of what is there.
    """
    lines = []
    for whole, side, first in zip(canvas, window, start, strict=True):
        stride = max(side // 2, 1)
        here = {first, 0, whole - side}
        here.update(range(first, whole - side, stride))
        here.update(range(first, 0, -stride))
        lines.append(sorted(here))
    places = [(y, x) for y in lines[0] for x in lines[1]]
    return sorted(places, key=lambda at: (max(abs(at[0] - start[0]), abs(at[1] - start[1])), at))


EDIT = Edit(
    "outpaint",
    "Continue a picture beyond its edges.",
    "FILE.png: the larger picture, or several side by side; a folder: one file each",
    Options,
    run,
    needs=("Refinement",),
    media=("image",),
)
