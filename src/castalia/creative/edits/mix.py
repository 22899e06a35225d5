"""Coarse styles of some pictures with the fine styles of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Grid, Work, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which pictures, and which of their layers."""

    rows: tuple[int, ...] = option((), "numbers of the pictures on the left; without them, four", metavar="N")
    columns: tuple[int, ...] = option((), "numbers of the pictures above; without them, six", metavar="N")
    what: Literal["coarse", "middle", "fine"] = option(
        "coarse", "which styles come from the pictures above: of the first third of the layers, the second, the third"
    )
    psi: float = option(0.7, "distance from the mean style: less is more typical (0.7)")
    label: str | None = option(None, "ask a conditional model for this class, by name or number", metavar="CLASS")
    seed: int = option(0, "other pictures")


def run(work: Work, options: Options) -> Grid:
    """Render every combination; the pictures themselves stand above and on the left, the mean one in the corner.

    Raises:
        UsageError: a number below 0.
    """
    import torch

    from castalia.core.data import Batch

    model = work.model
    rows, columns = options.rows or tuple(range(4)), options.columns or tuple(range(4, 10))
    if min(*rows, *columns) < 0:
        raise UsageError("Pictures are numbered from 0.")
    label = work.label(options.label)

    def styles_of(numbers: tuple[int, ...]) -> Tensor:
        found = []
        for number in numbers:
            z = work.rng(options.seed, range(number, number + 1)).normal("latent", model.latent_dims)
            given = None if label is None else {"label": torch.full((1,), label, device=z.device)}
            found.append(model.styles(z, given))
        return torch.cat(found)

    left, above = styles_of(rows), styles_of(columns)
    mean = mean_styles(work, label)
    left, above = mean + options.psi * (left - mean), mean + options.psi * (above - mean)
    layers = model.style_layers
    first, last = layers * PLACES[options.what] // 3, layers * (PLACES[options.what] + 1) // 3
    first, last = min(first, layers - 1), max(last, first + 1)
    table = [mean, *above.split(1)]
    for row in left.split(1):
        table.append(row)
        for column in above.split(1):
            mixed = row.clone()
            mixed[:, first:last] = column[:, first:last]
            table.append(mixed)
    pictures = [
        model.render(torch.cat(table[start : start + work.at_once])) for start in range(0, len(table), work.at_once)
    ]
    x = torch.cat(pictures).round().clamp(0, 255).to(torch.uint8).cpu()
    return Grid(Batch.of(x), columns=1 + len(columns), recipe={"layers": [first, last]})


PLACES = {"coarse": 0, "middle": 1, "fine": 2}
"""Which third of the layers."""

MANY = 4096
"""Latents whose mean style is taken."""


def mean_styles(work: Work, label: int | None) -> Tensor:
    """The mean style of each layer (1, layers, w), of the class where one is asked for."""
    import torch

    from castalia.core.rng import BatchRng

    z = BatchRng(0, total=MANY).normal("mean style", work.model.latent_dims).to(work.model.device)
    given = None if label is None else {"label": torch.full((MANY,), label, device=z.device)}
    return work.model.styles(z, given).mean(0, keepdim=True)


EDIT = Edit(
    "mix",
    "Mix the styles of pictures: shapes of some, details of others.",
    "FILE.png: a table of all combinations",
    Options,
    run,
    needs=("Styled",),
    media=("image",),
)
