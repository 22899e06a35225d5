"""An example taken back to the noise that it comes from, and drawn again as something else."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.errors import UsageError
from castalia.creative.edit import Asking, Edit, Grid, Work, option


@dataclass(frozen=True, kw_only=True)
class Options(Asking):
    """Which examples, what they are taken for, and what they become."""

    of: tuple[str, ...] = option(help="the examples", flag="", metavar="FILE", example=True)
    was: str | None = option(
        None, "class that the examples are taken for, by name or number (of none in particular)", metavar="CLASS"
    )
    strength: float = option(1.0, "how far back: 1 is to pure noise, less keeps more (1)")
    seed: int = option(0, "where something has to be drawn all the same")


def run(work: Work, options: Options) -> Grid:
    """Below each example what comes back when it is drawn as what it was, and below that what was asked for.

    Raises:
        UsageError: the strength is not above 0 and at most 1, or the model accepts no such thing.
    """
    import torch

    from castalia.core.data import join
    from castalia.core.precision import precision_context

    if not 0 < options.strength <= 1:
        raise UsageError("--strength lies above 0 (hardly back) and at most at 1 (back to pure noise).")
    model, number = work.model, work.label(options.was)
    given = work.examples(options.of)
    n = len(given)
    was = {} if number is None else {"label": torch.full((n,), number, dtype=torch.int64, device=model.device)}
    precision, sampling = work.precision(options.precision), work.sampling(options.settings)
    plain = work.sampling([one for one in options.settings if not one.startswith("guidance")])
    rng, batch = work.rng(options.seed, range(n)), given.to(model.device)
    with precision_context(precision, model.device):
        back = model.recast(batch, was=was, given=was, strength=options.strength, rng=rng, options=plain)
        asked = work.given(options, n) or was
        made = model.recast(batch, was=was, given=asked, strength=options.strength, rng=rng, options=sampling)
    rows = join([given, back.cpu(), made.cpu()], work.spec)
    return Grid(rows, columns=n, given=2 * n, recipe={"precision": precision})


EDIT = Edit(
    "invert",
    "Take examples back to the noise that they come from, and draw them again as another class.",
    "FILE.png: the examples, what comes back, and below that what was asked for; a folder: the last, one file each",
    Options,
    run,
    needs=("Reversible",),
)
