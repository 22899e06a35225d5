"""A picture made larger by a model that draws the detail it lacks."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.errors import UsageError
from castalia.creative.edit import MOST_PIXELS, Asking, Edit, Grid, One, Work, option


@dataclass(frozen=True, kw_only=True)
class Options(Asking):
    """What is enlarged, and how often."""

    of: str = option(help="the picture, of any size", metavar="A.png", example=True)
    n: int = option(1, "how many versions (1); a single one is written alone", flag="-n", least=1)
    beside: bool = option(False, "put the picture, enlarged without a model (bicubic), before them")
    seed: int = option(0, "other versions")


def run(work: Work, options: Options) -> Grid | One:
    """Enlarge the picture ``n`` times, version i from the stream (seed, i).

    Raises:
        UsageError: what is made would have more than ``MOST_PIXELS`` pixels.
    """
    import torch
    import torch.nn.functional as F

    from castalia.core.data import Batch
    from castalia.core.precision import precision_context

    model = work.model
    small = work.picture(options.of, work.spec.channels).to(model.device)
    height, width = (model.times * side for side in small.shape[2:])
    if height * width > MOST_PIXELS:
        raise UsageError(
            f"{options.of}: {model.times} times larger it would have {width}x{height} pixels; "
            f"{MOST_PIXELS:,} are the most. Cut it into parts, or make it smaller first."
        )
    precision, sampling = work.precision(options.precision), work.sampling(options.settings)
    at_once = max(1, work.at_once * work.spec.dims // (work.spec.channels * height * width))
    drawn: list[torch.Tensor] = []
    for first in range(0, options.n, at_once):
        rows = range(first, min(first + at_once, options.n))
        many = small.expand(len(rows), -1, -1, -1)
        given, rng = work.given(options, len(rows)), work.rng(options.seed, rows)
        with precision_context(precision, model.device):
            drawn.append(model.upscale(many, given=given, rng=rng, options=sampling).cpu())
    told = {"precision": precision}
    if options.n == 1 and not options.beside:
        return One(Batch.of(drawn[0]), told)
    if options.beside:
        plain = F.interpolate(small.float(), (height, width), mode="bicubic", align_corners=False)
        drawn.insert(0, plain.round().clamp(0, 255).to(torch.uint8).cpu())
    return Grid(Batch.of(torch.cat(drawn)), given=int(options.beside), recipe=told)


EDIT = Edit(
    "upscale",
    "Make a picture larger: the model draws the detail that it lacks.",
    "FILE.png: the larger picture, or several side by side; a folder: one file each",
    Options,
    run,
    needs=("Upscaling",),
    media=("image",),
)
