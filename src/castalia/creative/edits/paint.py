"""Units of a generator switched off or driven to a value, everywhere or at a place."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Grid, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which units, where, and in how many pictures."""

    layer: str | None = option(None, "which layer of the generator; list shows them all (one in the middle)")
    remove: str | None = option(None, "units that are switched off", metavar="3,5")
    draw: str | None = option(None, "units that are driven to their highest values (99 of 100 are lower)", metavar="7")
    strength: float = option(1.0, "of those values (1)")
    mask: str | None = option(None, "white where; none: everywhere", metavar="MASK.png", mask=True)
    label: str | None = option(None, "ask a conditional model for this class, by name or number", metavar="CLASS")
    n: int = option(8, "how many pictures (8)", flag="-n", least=1)
    seed: int = option(0, "other pictures")


def run(work: Work, options: Options) -> Grid:
    """Make pictures, and below them the same with the units changed.

    Raises:
        UsageError: there is no such layer or unit, or nothing is to be done.
    """
    import torch

    from castalia.core.data import Batch
    from castalia.creative.dissection import AT_ONCE, Source, chunks
    from castalia.creative.looking import described
    from castalia.creative.units import Change, Units, unit_layers

    if options.layer == "list":
        raise UsageError(f"Layers that can be asked for with --layer:\n{described(unit_layers(work.model))}")
    removed, drawn = numbers("remove", options.remove), numbers("draw", options.draw)
    if not removed and not drawn:
        raise UsageError("Name units: --remove switches them off, --draw drives them up.")
    if set(removed) & set(drawn):
        raise UsageError("A unit is either switched off or driven up.")
    units = Units(work.model, options.layer)
    source = Source(units, options.seed, work.label(options.label))
    values = [0.0] * len(removed)
    if drawn:
        maps = torch.cat([source.pictures(rows)[1].transpose(0, 1).flatten(1).cpu() for rows in chunks(4 * AT_ONCE)], 1)
        units.ablation(drawn)  # refuses units that there are not
        values += [float(maps[u].kthvalue(round(0.99 * maps.shape[1])).values) * options.strength for u in drawn]
    change: Change = units.insertion([*removed, *drawn], values, work.mask(options.mask) if options.mask else None)
    before = torch.cat([source.pictures(rows)[0].cpu() for rows in chunks(options.n)])
    after = torch.cat([source.changed(rows, change).cpu() for rows in chunks(options.n)])
    pictures = Batch.of(torch.cat([before, after]).to(torch.uint8))
    told = {"layer": units.layer, "driven_to": dict(zip(map(str, [*removed, *drawn]), values, strict=True))}
    return Grid(pictures, options.n, given=options.n, recipe=told)


def numbers(name: str, text: str | None) -> list[int]:
    """Numbers of units as they are typed.

    Raises:
        UsageError: they are no numbers.
    """
    try:
        return [] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--{name} takes numbers of units with commas between, not {text!r}.") from None


EDIT = Edit(
    "paint",
    "Switch units of a generator off, or drive them, everywhere or where a mask is white.",
    "FILE.png: pictures, and below them what became of them; a folder: the changed ones alone",
    Options,
    run,
    needs=("Latents",),
    media=("image",),
)
