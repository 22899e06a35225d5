"""The page of a dissection: units, their concepts, and the pictures in which they are strongest."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from castalia.creative.causes import Causes
from castalia.creative.concepts import Segmenter
from castalia.creative.dissection import DETECTOR, Dissection, Source, enlarged
from castalia.creative.edit import Page
from castalia.media.image.write import grid_image, png_bytes
from castalia.page import Page as Html

LINE = (255, 0, 200)
"""Colour of the lines around regions: one that is rare in pictures."""

GREY, LEFT = 128.0, 0.3
"""What pictures fade to where a unit is off, and how much of them is left."""

SCALE = 96
"""Pixels of the shorter side of a picture on the page, about."""

SIDE_BY_SIDE = 8
"""Pictures with and without the units that cause a concept."""


def unit_page(
    source: Source, segmenter: Segmenter, found: Dissection, caused: Causes | None, shown: int, title: str
) -> Page:
    """The page, and its numbers.

    Args:
        source: pictures and units.
        segmenter: of the concepts.
        found: what the units stand for.
        caused: what causes a concept, if that was asked for.
        shown: units that are shown with pictures.
        title: of the system.
    """
    page = Html(f"Units of {title}: {found.layer}")
    detectors = found.detectors
    page.text(
        f"{len(found.found)} units of the layer {found.layer} were compared with {len(found.names)} concepts on "
        f"{found.pictures:,} pictures. A unit is on above {found.rule}; {len(detectors)} of them overlap with a "
        f"concept (intersection over union) by more than {DETECTOR:g} above chance."
    )
    if detectors:
        page.section("Concepts")
        kinds = Counter(f.concept for f in detectors)
        best = {name: next(f for f in detectors if f.concept == name) for name in kinds}
        shares = dict(zip(found.names, found.shares.tolist(), strict=True))
        page.table(
            ("concept", "units", "best unit", "its overlap", "by chance", "share of the pictures"),
            [
                (
                    name,
                    count,
                    best[name].unit,
                    best[name].iou,
                    best[name].chance,
                    shares[name],
                )
                for name, count in kinds.most_common()
            ],
        )
    if caused is not None:
        _causes(page, source, caused)
    page.section("Units")
    page.text("Each with the pictures in which it is strongest: grey where it is off, a line around where it is on.")
    strongest = {i for f in found.found[:shown] for i in f.top}
    pictures = {i: source.pictures(range(i, i + 1)) for i in sorted(strongest)}
    figures = []
    for f in found.found[:shown]:
        rows = [outlined(*pictures[i], f.unit, f.threshold) for i in f.top]
        figures.append(
            (_png(torch.cat(rows), 4), f"unit {f.unit}: {f.concept}, overlap {f.iou:.2f}, by chance {f.chance:.2f}")
        )
    page.gallery(figures)
    page.section("All numbers")
    page.table(
        ("unit", "concept", "overlap", "by chance", "threshold", "on in"),
        [(f.unit, f.concept, f.iou, f.chance, f.threshold, f.share) for f in found.found],
        "Overlap: intersection over union. By chance: what it would be if unit and concept, as large, had nothing to "
        "do with each other. On in: the share of the pictures' area.",
    )
    return Page(page, numbers(found, caused), {"layer": found.layer})


def _causes(page: Html, source: Source, caused: Causes) -> None:
    page.section(f"What causes {caused.concept}")
    if not caused.units:
        page.text("No unit has an effect on it by itself.")
        return
    named = ", ".join(f"{u} ({w:.2f})" for u, w in zip(caused.units, caused.weights, strict=True))
    page.text(
        f"Units found ({caused.how}): {named}. With them {caused.before:.2%} of the pictures is {caused.concept}, "
        f"without them {caused.without:.2%}; without as many others, drawn at random, {caused.random:.2%}."
    )
    rows = range(SIDE_BY_SIDE)
    both = torch.cat([source.pictures(rows)[0], source.changed(rows, source.units.ablation(caused.units))])
    page.png(_png(both, SIDE_BY_SIDE), f"Pictures, and below them the same without the units of {caused.concept}.")


def outlined(x: Tensor, maps: Tensor, unit: int, threshold: float) -> Tensor:
    """A picture, enlarged, greyed where a unit is off, a line around where it is on: ``uint8`` (1, 3 or 4, H', W').

    Args:
        x: the picture ``float32`` (1, C, H, W), 0 to 255.
        maps: of the layer, (1, U, h, w).
        unit: number of the unit.
        threshold: above it the unit is on.
    """
    times = max(1, round(SCALE / min(x.shape[2:])))
    on = enlarged(maps[:, unit : unit + 1], (times * x.shape[2], times * x.shape[3])) > threshold
    large = x.repeat_interleave(times, 2).repeat_interleave(times, 3)
    if large.shape[1] == 1:
        large = large.expand(-1, 3, -1, -1)
    pale = torch.cat([GREY + (large[:, :3] - GREY) * LEFT, large[:, 3:]], 1)
    # pixels that are on and have a neighbour that is not
    padded = torch.nn.functional.pad(on.float(), (1, 1, 1, 1), mode="replicate")
    inside = -torch.nn.functional.max_pool2d(-padded, 3, 1) > 0
    line = torch.tensor(LINE + (255,) * (large.shape[1] - 3), dtype=large.dtype, device=large.device).view(1, -1, 1, 1)
    return torch.where(on & ~inside, line, torch.where(on, large, pale)).round().clamp(0, 255).to(torch.uint8).cpu()


def _png(x: Tensor, columns: int) -> bytes:
    return png_bytes(grid_image(x.round().clamp(0, 255).to(torch.uint8).cpu(), columns))


def numbers(found: Dissection, caused: Causes | None) -> dict[str, Any]:
    """A dissection as plain values."""
    told: dict[str, Any] = {
        "layer": found.layer,
        "pictures": found.pictures,
        "rule": found.rule,
        "concepts": dict(zip(found.names, found.shares.tolist(), strict=True)),
        "units": [
            {**vars(f), "top": list(f.top), "all": dict(zip(found.names, found.iou[f.unit].tolist(), strict=True))}
            for f in found.found
        ],
    }
    if caused is not None:
        told["causes"] = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(caused).items()}
    return told
