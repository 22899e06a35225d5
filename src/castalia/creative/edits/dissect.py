"""A page of a generator's units: what each stands for, and what it causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Page, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which layer, against which concepts, on how many pictures."""

    layer: str | None = option(None, "which layer of the generator; list shows them all (one in the middle)")
    n: int = option(1000, "pictures (1000)", flag="-n", least=1)
    threshold: Literal["quantile", "information"] = option(
        "information",
        "a unit is on where it tells most of a concept, or in the highest 0.5 % of its values (information)",
    )
    segmenter: str | None = option(
        None, "says where concepts are: an ONNX network from pictures to maps (colours, light, edges, places)"
    )
    names: str | None = option(None, "of the segmenter's concepts: a text file, one in a line", metavar="FILE.txt")
    classes: bool = option(False, "take the classes of the run's data as concepts too, by the house's feature network")
    cause: str | None = option(None, "find the units that cause this concept", metavar="CONCEPT")
    how: Literal["rank", "optimise"] = option(
        "rank", "by switching each off alone, or by the choice of the largest effect, as in the paper (rank)"
    )
    most: int = option(20, "units that are named as causes, at most (20)", least=1)
    shown: int = option(40, "units that are shown with pictures, the best first (40)", least=1)
    label: str | None = option(None, "ask a conditional model for this class, by name or number", metavar="CLASS")
    seed: int = option(0, "other pictures")


def run(work: Work, options: Options) -> Page:
    """Dissect the layer, find causes if asked, and write it all on a page.

    Raises:
        UsageError: there is no such layer or concept (those there are are listed), or the segmenter cannot be used.
    """
    from castalia.creative.causes import causes
    from castalia.creative.concepts import Segmenter, Several, Simple
    from castalia.creative.dissection import Source, dissect
    from castalia.creative.looking import described
    from castalia.creative.unit_page import unit_page
    from castalia.creative.units import Units, unit_layers

    if options.layer == "list":
        raise UsageError(f"Layers that can be asked for with --layer:\n{described(unit_layers(work.model))}")
    if options.names and not options.segmenter:
        raise UsageError("--names are those of a --segmenter.")
    parts: list[Segmenter] = []
    parts.append(work.segmenter(options.segmenter, options.names) if options.segmenter else Simple(work.spec.channels))
    if options.classes:
        parts.append(work.classifier())
    segmenter = Several(parts)
    if options.cause is not None and options.cause not in segmenter.names:
        raise UsageError(f"There is no concept {options.cause!r}. There is: {', '.join(segmenter.names)}.")
    source = Source(Units(work.model, options.layer), options.seed, work.label(options.label))
    found = dissect(source, segmenter, options.n, options.threshold)
    caused = None
    if options.cause is not None:
        caused = causes(source, segmenter, found, options.cause, options.how, options.most)
    return unit_page(source, segmenter, found, caused, options.shown, work.title)


EDIT = Edit(
    "dissect",
    "Find out what the units of a generator stand for, and what they cause (GAN dissection).",
    "FILE.html, a page that needs nothing from elsewhere, and FILE.json with all numbers",
    Options,
    run,
    needs=("Latents",),
    media=("image",),
)
