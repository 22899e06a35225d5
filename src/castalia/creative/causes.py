"""Which units of a generator cause a concept: average causal effects.

Papers
    Bau et al. 2019, "GAN Dissection" (arXiv:1811.10597): section 3.2, eq. 3 to 6. Units are switched off, and driven to
    their usual value for the concept (inserted); the effect is how much more of the concept there is with the one than
    with the other. A soft choice alpha of units is optimised, with a penalty on its size.

What differs, and why
    Rates and penalty are those of the code published with the paper (Adam at 0.01, 0.005 times the sum of alpha^2, cut
    to 0 to 1). Units are switched off everywhere, and what goes is divided by how much of the concept there is; what
    comes is a share of the place where it is inserted: both lie between 0 and 1 for concepts of any size.
    What was inserted is looked for where it was inserted, at a candidate place without the concept. (The published code
    looks where the concept was already.)
    Without gradients units are ranked by what switching each off alone takes away: :func:`ranked`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.core.guest import guest
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given
from castalia.creative.concepts import Segmenter
from castalia.creative.dissection import Dissection, Source, chunks
from castalia.creative.units import Change, rendered

ABSENT = 0.05
"""A cell with at most so much of a concept is without it."""

ALIKE = 0.01
"""Where every cell has some, those with at most so much more than the least count as equals."""


@dataclass(frozen=True)
class Causes:
    """Units that cause a concept, the strongest first.

    Attributes:
        concept: its name.
        units: numbers of the units.
        weights: of each: alpha, or the share of the concept that goes with it.
        before: mean share of a picture that is of the concept.
        without: the same with these units switched off.
        random: the same with as many other units, drawn at random, switched off.
        how: how they were found.
    """

    concept: str
    units: tuple[int, ...]
    weights: tuple[float, ...]
    before: float
    without: float
    random: float
    how: str


def ranked(
    source: Source, segmenter: Segmenter, concept: int, n: int = 64, show: Callable[[str], None] | None = None
) -> Tensor:
    """The share of a concept that goes when a unit is switched off alone, ``float32`` (U,); below 0: there is more.

    Args:
        source: pictures and units.
        segmenter: of the concepts.
        concept: number of one.
        n: pictures.
        show: receives lines of progress.

    Raises:
        UsageError: the pictures have nothing of the concept.
    """
    before = share(source, segmenter, concept, n, None)
    if before <= 0:
        raise UsageError(f"None of {n} pictures has any {segmenter.names[concept]!r}: nothing can be its cause.")
    effects = []
    for unit in range(source.units.count):
        after = share(source, segmenter, concept, n, source.units.ablation([unit]))
        effects.append(1 - after / before)
        if show is not None:
            show(f"switching off: {unit + 1} of {source.units.count} units")
    return torch.tensor(effects)


def share(source: Source, segmenter: Segmenter, concept: int, n: int, change: Change | None) -> float:
    """How much of ``n`` pictures is of a concept, mean over pixels of how sure the segmenter is."""
    total = 0.0
    for rows in chunks(n):
        with torch.no_grad():
            total += float(segmenter(source.changed(rows, change))[:, concept].mean((1, 2)).sum())
    return total / n


def optimised(
    source: Source,
    segmenter: Segmenter,
    concept: int,
    value: Tensor,
    start: Tensor,
    steps: int = 200,
    batch: int = 16,
    rate: float = 0.01,
    penalty: float = 0.005,
    show: Callable[[str], None] | None = None,
) -> Tensor:
    """Eq. 6: the choice alpha of units, ``float32`` (U,) in [0, 1], of the largest causal effect.

    Args:
        source: pictures and units; the generator must give gradients.
        segmenter: of the concepts; gradients must flow through it.
        concept: number of one.
        value: (U,) what units are driven to: their mean where the concept is.
        start: (U,) where alpha begins: intersections over unions.
        steps: of Adam.
        batch: pictures in each.
        rate: of Adam.
        penalty: times the sum of alpha^2.
        show: receives lines of progress.

    Raises:
        UsageError: the generator or the segmenter gives no gradients, or no picture has anything of the concept.
    """
    usual = share(source, segmenter, concept, 4 * batch, None)
    if usual <= 0:
        raise UsageError(f"No picture has any {segmenter.names[concept]!r}: nothing can be its cause.")
    model = source.units.model
    with guest():
        device = source.latents(range(1))[0].device
        value = value.to(device)
        alpha = (start / start.max().clamp(min=1e-9)).to(device).clone().requires_grad_(True)
        optimizer = torch.optim.Adam([alpha], lr=rate)
        for step in range(steps):
            rows = range(step * batch, (step + 1) * batch)
            z, given = source.latents(rows)
            with torch.no_grad():
                there = segmenter(rendered(model, z, given).clamp(0, 255))[:, concept]
            place = candidates(there, source.units.size, SampleRng(source.seed, rows, device))
            inserted = _seen(source, segmenter, concept, z, given, Change(alpha, value, place))
            switched = _seen(source, segmenter, concept, z, given, Change(alpha, torch.zeros_like(value)))
            # where it was inserted, not where it has been before
            gained = ((inserted - there) * place[:, 0]).sum((1, 2)) / place[:, 0].sum((1, 2))
            lost = (there - switched).mean((1, 2))
            effect = gained.mean() + lost.mean() / usual
            loss = -effect + penalty * alpha.square().sum()
            if not effect.requires_grad:
                raise UsageError("Optimised effects need a segmenter through which gradients flow; rank units instead.")
            (alpha.grad,) = torch.autograd.grad(loss, alpha)
            optimizer.step()
            with torch.no_grad():
                alpha.clamp_(0, 1)
            if show is not None and (step + 1) % 20 == 0:
                show(f"optimising: {step + 1} of {steps} steps, effect {effect.item():.3f}")
        return alpha.detach().cpu()


def candidates(there: Tensor, size: tuple[int, int], rng: SampleRng) -> Tensor:
    """One cell of a layer for each picture in which there is least of a concept; among equals by lot.

    Args:
        there: how sure the segmenter is, (B, H, W).
        size: (h, w) of the layer.
        rng: one row for each picture.

    Returns:
        ``float32`` (B, 1, H, W): 1 in the cell, 0 elsewhere.
    """
    cells = F.interpolate(there[:, None].float(), size, mode="area").flatten(1)
    # what is absent is absent: a trace of it less does not make one place better than another
    most = (cells.amin(1, keepdim=True) + ALIKE).clamp(min=ABSENT)
    lot = (cells > most).float() + 0.5 * rng.uniform("candidate", cells.shape[1])
    chosen = F.one_hot(lot.argmin(1), cells.shape[1]).float().view(-1, 1, *size)
    return F.interpolate(chosen, there.shape[1:], mode="nearest")


def _seen(source: Source, segmenter: Segmenter, concept: int, z: Tensor, given: Given, change: Change) -> Tensor:
    """How sure the segmenter is of a concept, (B, H, W), with units changed."""
    with source.units.changed(change):
        return segmenter(rendered(source.units.model, z, given).clamp(0, 255))[:, concept]


def causes(
    source: Source,
    segmenter: Segmenter,
    dissection: Dissection,
    concept: str,
    how: str = "rank",
    most: int = 20,
    n: int = 64,
    show: Callable[[str], None] | None = None,
) -> Causes:
    """The units that cause a concept, and what becomes of it without them and without as many others.

    Args:
        source: pictures and units.
        segmenter: of the concepts.
        dissection: of the same.
        concept: name of one.
        how: ``rank`` or ``optimise``.
        most: units that are named, at most; those without any effect are not.
        n: pictures behind each number.
        show: receives lines of progress.
    """
    k = dissection.concept(concept)
    if how == "rank":
        weights = ranked(source, segmenter, k, n, show)
    else:
        weights = optimised(source, segmenter, k, dissection.values[:, k], dissection.iou[:, k].float(), show=show)
    chosen: Sequence[int] = [u for u in weights.argsort(descending=True).tolist() if weights[u] > 0][:most]
    others = [u for u in range(source.units.count) if u not in chosen]
    lot = SampleRng(source.seed, [0]).uniform("others", max(len(others), 1))[0].argsort().tolist()
    drawn = [others[i] for i in lot[: min(len(chosen), len(others))]] if others else []

    def without(units: Sequence[int]) -> float:
        return share(source, segmenter, k, n, source.units.ablation(units) if units else None)

    before = without(())
    told = {"rank": "switched off alone", "optimise": "optimised alpha"}[how]
    return Causes(
        concept, tuple(chosen), tuple(weights[chosen].tolist()), before, without(chosen), without(drawn), told
    )
