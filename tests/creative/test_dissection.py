"""Dissection: thresholds, planted units, causes; and that hooks change nothing that they are not to change."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.core.errors import DataError, UsageError
from castalia.core.rng import SampleRng
from castalia.creative import causes as causing
from castalia.creative import dissection
from castalia.creative.concepts import COLOURS, Own, Several, Simple
from castalia.creative.dissection import TOP, Source, TopQuantiles, _Counts, dissect
from castalia.creative.unit_page import LINE, outlined
from castalia.creative.units import Change, Units, unit_layers
from tests.creative.painter import NAMES, SIZE, Painter, by_colour


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(Units(Painter().eval(), "squares"))


# hooks


def test_layers_of_units() -> None:
    assert unit_layers(Painter()) == {"squares": (6, 12, 12), "colours": (3, 12, 12)}
    with pytest.raises(UsageError, match=r"Did you mean 'squares'(.|\n)*squares: 6 maps of 12x12"):
        Units(Painter(), "square")


def test_nothing_changed_is_bit_identical(source: Source) -> None:
    rows = range(5)
    x, maps = source.pictures(rows)
    assert torch.equal(source.changed(rows, None), x)
    assert torch.equal(source.changed(rows, source.units.ablation([])), x)
    nowhere = torch.zeros(1, 1, SIZE, SIZE)
    assert torch.equal(source.changed(rows, source.units.insertion([0, 1], [5.0, 5.0], nowhere)), x)
    change = Change(torch.zeros(6), torch.full((6,), 3.7))
    assert torch.equal(change.applied(maps), maps)
    layer = source.units.model.squares  # type: ignore[attr-defined]
    assert not layer._forward_hooks, "a hook stays"


def test_hooks_go_when_something_fails(source: Source) -> None:
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        source.units.watched(),
        source.units.changed(source.units.ablation([0])),
    ):
        raise RuntimeError("on purpose")
    assert not source.units.model.squares._forward_hooks  # type: ignore[attr-defined]


def test_pictures_do_not_depend_on_how_many_are_made(source: Source) -> None:
    many, alone = source.pictures(range(9))[0], source.pictures(range(6, 7))[0]
    assert torch.equal(many[6:7], alone)


def test_ablation_removes_just_its_colour(source: Source) -> None:
    rows = range(30)
    x = source.pictures(rows)[0]
    without = source.changed(rows, source.units.ablation([1]))
    assert x[:, 1].max() == 255
    assert (without[:, 1] == 0).all()
    assert torch.equal(without[:, [0, 2]], x[:, [0, 2]])


def test_ablation_and_insertion_at_a_place(source: Source) -> None:
    rows, where = range(30), torch.zeros(1, 1, SIZE, SIZE)
    where[..., :6] = 1
    x = source.pictures(rows)[0]
    without = source.changed(rows, source.units.ablation([0], where))
    assert (without[:, 0, :, :6] == 0).all()
    assert torch.equal(without[..., 6:], x[..., 6:])
    drawn = source.changed(rows, source.units.insertion([2], [1.0], where))
    assert (drawn[:, 2, :, :6] == 255).all()
    assert torch.equal(drawn[..., 6:], x[..., 6:])
    assert torch.equal(drawn[:, :2], x[:, :2])
    # a place smaller than a cell of the layer counts by its share
    half = Change(torch.ones(1), torch.zeros(1), torch.eye(2).view(1, 1, 2, 2)).applied(torch.ones(1, 1, 1, 1))
    assert half.item() == 0.5
    with pytest.raises(UsageError, match="0 to 5"):
        source.units.ablation([6])


# thresholds


@pytest.mark.parametrize("share", [0.005, 0.02, 0.1])
def test_thresholds_against_brute_force(share: float) -> None:
    values = torch.randn(4, 3000, generator=torch.Generator().manual_seed(0))
    quantiles = TopQuantiles(4, 3000, share)
    for part in values.split([1, 999, 1500, 500], 1):
        quantiles.add(part)
    threshold = quantiles.threshold(share)
    assert ((values > threshold[:, None]).sum(1) == math.floor(share * 3000)).all()
    assert torch.equal(threshold, values.sort(1, descending=True).values[:, math.floor(share * 3000)])
    np.testing.assert_allclose(threshold, np.quantile(values, 1 - share, axis=1), atol=0.02)


def test_thresholds_refuse_what_they_cannot_know() -> None:
    quantiles = TopQuantiles(1, 10, 0.1)
    quantiles.add(torch.arange(9.0)[None])
    with pytest.raises(ValueError, match="9 have come"):
        quantiles.threshold(0.1)
    quantiles.add(torch.full((1, 1), 100.0))
    assert quantiles.threshold(0.1).item() == 8
    with pytest.raises(ValueError, match="larger"):
        quantiles.threshold(0.5)


def test_counts_against_brute_force() -> None:
    generator = torch.Generator().manual_seed(1)
    maps, x = torch.randn(3, 2, 6, 6, generator=generator), 255 * torch.rand(3, 3, 6, 6, generator=generator)
    segmenter = by_colour()
    thresholds = torch.tensor([[0.0, 0.5], [1.0, -0.5]])
    counts = _Counts(thresholds, segmenter)
    counts.add(x[:2], maps[:2])
    counts.add(x[2:], maps[2:])
    there = segmenter(x) > 0.5
    iou, information = counts.iou(), counts.information()
    for level in range(2):
        for unit in range(2):
            for k in range(3):
                on, of = maps[:, unit] > thresholds[level, unit], there[:, k]
                assert iou[level, unit, k].item() == pytest.approx(((on & of).sum() / (on | of).sum()).item(), abs=1e-6)
                assert information[level, unit, k].item() == pytest.approx(_quality(on, of), abs=1e-6)
                assert counts.values()[unit, k].item() == pytest.approx(maps[:, unit][of].mean().item(), abs=1e-5)


def _quality(a: Tensor, b: Tensor) -> float:
    """I(a; b) / H(a, b), cell by cell."""
    joint = mutual = 0.0
    for on in (True, False):
        for there in (True, False):
            p = ((a == on) & (b == there)).double().mean().item()
            if p:
                joint -= p * math.log(p)
                mutual += p * math.log(p / ((a == on).double().mean().item() * (b == there).double().mean().item()))
    return mutual / joint


def test_many_values_are_thinned_out(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dissect(source, by_colour(), 150, "quantile")
    monkeypatch.setattr(dissection, "KEPT", 40)
    thin = dissect(source, by_colour(), 150, "quantile")
    assert not torch.equal(whole.thresholds, thin.thresholds)
    torch.testing.assert_close(whole.thresholds, thin.thresholds, rtol=0, atol=0.05)


class Stripes:
    """Pictures of 48 pixels whose one unit is strong in every sixth column; in place of a source."""

    units = SimpleNamespace(count=1, layer="stripes")

    def pictures(self, rows: range) -> tuple[Tensor, Tensor]:
        maps = SampleRng(0, rows).normal("maps", 1, 48, 48) * (1.2 + torch.cos(torch.arange(48) * math.pi / 3))
        return torch.zeros(len(rows), 3, 48, 48), maps


def test_thinning_out_meets_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of places above the threshold is the one asked for where the step would divide the width."""
    source: Any = Stripes()
    monkeypatch.setattr(dissection, "KEPT", 768)
    found = dissect(source, by_colour(), 400, "quantile")
    maps = source.pictures(range(400))[1]
    assert TOP * maps.numel() / 768 == 6
    assert (maps > found.thresholds[0, 0]).float().mean().item() == pytest.approx(TOP, rel=0.12)


@pytest.mark.parametrize(("least", "pixels", "every"), [(0.1, 144, 1), (3.5, 48 * 48, 5), (55.3, 192 * 192, 59)])
def test_steps_have_no_divisor_in_common_with_the_pixels(least: float, pixels: int, every: int) -> None:
    assert dissection.stride(least, pixels) == every


# planted units


def test_planted_units_are_found(source: Source) -> None:
    """With the share of pixels that the squares really have, the intersection over union is one."""
    found = dissect(source, by_colour(), 200, "information")
    best = {f.concept: f for f in found.found if f.iou > 0.5}
    assert {name: best[name].unit for name in NAMES} == {"red": 0, "green": 1, "blue": 2}
    assert all(f.iou < 0.2 for f in found.found if f.unit >= 3), "units that draw nothing"
    assert found.rule == "the largest information quality ratio"
    assert len({f.unit for f in found.found}) == 6
    assert [f.iou - f.chance for f in found.found] == sorted((f.iou - f.chance for f in found.found), reverse=True)
    red = best["red"]
    peaks = source.pictures(range(200))[1].amax((2, 3))
    assert list(red.top) == peaks[:, 0].argsort(descending=True)[:8].tolist()
    assert found.values[0, 0] == pytest.approx(1.08, abs=0.05)


def test_planted_units_have_an_intersection_of_one_at_the_right_threshold(source: Source) -> None:
    counts = _Counts(torch.full((1, 6), 0.5), by_colour())
    for start in range(0, 100, 50):
        counts.add(*source.pictures(range(start, start + 50)))
    iou = counts.iou()[0]
    assert torch.equal(iou[:3], torch.eye(3, dtype=torch.float64))
    assert iou[3:].max() < 0.1


def test_chance_is_what_unrelated_maps_have() -> None:
    x, maps = torch.zeros(400, 3, 12, 12), torch.rand(400, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    x[:, 0] = 255 * (torch.rand(400, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.8)
    counts = _Counts(torch.tensor([[0.7]]), by_colour())
    counts.add(x, maps)
    assert counts.chance()[0, 0, 0].item() == pytest.approx(0.24 / 0.86, abs=0.01)
    assert counts.iou()[0, 0, 0].item() == pytest.approx(counts.chance()[0, 0, 0].item(), abs=0.005)
    assert counts.chance()[0, 0, 1] == 0  # a concept that is nowhere


def test_a_quantile(source: Source) -> None:
    found = dissect(source, by_colour(), 100, "quantile")
    for f in found.found[:3]:
        assert f.share == pytest.approx(TOP, abs=2e-4)
    with pytest.raises(UsageError, match="at least one picture"):
        dissect(source, by_colour(), 0)
    with pytest.raises(UsageError, match="red, green, blue"):
        found.concept("yellow")


# causes


def test_the_planted_cause_is_found_by_both_ways(source: Source) -> None:
    segmenter = by_colour()
    found = dissect(source, segmenter, 100, "information")
    effects = causing.ranked(source, segmenter, 1, 32)
    torch.testing.assert_close(effects, torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0]))
    for how in ("rank", "optimise"):
        known = causing.causes(source, segmenter, found, "blue", how, most=1, n=32)
        assert known.units == (2,)
        assert known.before > 0
        assert known.without == 0
        assert known.random == pytest.approx(known.before), "a unit of no use does nothing"


def test_optimised_choice_leaves_the_others_out(source: Source) -> None:
    """Begun from nothing, the cause rises and what has no effect stays at nothing."""
    segmenter, value = by_colour(), torch.ones(6)
    alpha = causing.optimised(source, segmenter, 0, value, torch.tensor([0.3, 0.3, 0.3, 0.3, 0.3, 1.0]), steps=120)
    assert alpha[0] > 0.9
    assert alpha[1:].max() < 0.4
    assert alpha.argmax() == 0


def test_what_is_inserted_is_looked_for_where_it_is_inserted() -> None:
    """The place is one cell, has none of the concept where there is such a cell, and differs between pictures."""
    there = torch.zeros(40, 12, 12)
    there[:, :8] = 1
    place = causing.candidates(there, (6, 6), SampleRng(0, range(40)))
    assert place.shape == (40, 1, 12, 12)
    assert (place.sum((1, 2, 3)) == 4).all()
    assert (place[:, 0] * there).sum() == 0
    assert len({tuple(p.flatten().nonzero().flatten().tolist()) for p in place}) > 6


def test_where_a_concept_is_everywhere_there_is_least_of_it() -> None:
    """No cell is without it: the one with least is taken, or by lot one that has hardly more."""
    there = torch.linspace(0.3, 1, 36).view(6, 6).expand(40, 6, 6).clone()
    there[:, 4, 5] = 0.2
    place = causing.candidates(there, (6, 6), SampleRng(0, range(40)))[:, 0]
    assert (place[:, 4, 5] == 1).all()
    there[:, 2, 3] = 0.205
    place = causing.candidates(there, (6, 6), SampleRng(0, range(40)))[:, 0]
    assert place[:, 4, 5].sum() + place[:, 2, 3].sum() == 40
    assert 10 < place[:, 4, 5].sum() < 30


def test_what_is_not_there_has_no_cause(source: Source) -> None:
    nothing = Own(("nothing",), lambda x: 0 * x[:, :1])
    with pytest.raises(UsageError, match="'nothing'"):
        causing.ranked(source, nothing, 0, 8)
    with pytest.raises(UsageError, match="'nothing'"):
        causing.optimised(source, nothing, 0, torch.ones(6), torch.ones(6))
    hard = Own(NAMES, lambda x: (by_colour()(x) > 0.5).float())
    with pytest.raises(UsageError, match="gradients"):
        causing.optimised(source, hard, 0, torch.ones(6), torch.ones(6), steps=1)


# concepts


def test_colours_are_named() -> None:
    simple = Simple(3)
    for name, value in COLOURS.items():
        x = torch.tensor(value, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 9, 9)
        maps = simple(x)[0]
        on = {n for n, m in zip(simple.names, maps, strict=True) if m[4, 4] > 0.5}
        assert name in on
        assert on & set(COLOURS) == {name}
        assert {"middle", "centre"} <= on
        assert ("dark" in on) == (name == "black")
        assert "edge" not in on


def test_places_and_edges() -> None:
    simple, x = Simple(1), torch.zeros(1, 1, 9, 12)
    x[..., 6:] = 255
    maps = dict(zip(simple.names, simple(x)[0] > 0.5, strict=True))
    assert "red" not in maps
    assert maps["top"][:3].all()
    assert not maps["top"][3:].any()
    assert maps["right"][:, 8:].all()
    assert not maps["right"][:, :8].any()
    assert maps["edge"][:, 5:7].all()
    assert not maps["edge"][:, [4, 7]].any()
    assert torch.equal(maps["bright"], x[0, 0] > 128)
    assert torch.equal(maps["dark"], x[0, 0] < 128)


def test_gradients_flow_through_simple_concepts() -> None:
    x = (255 * torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))).requires_grad_(True)
    simple = Simple(4)
    maps = simple(x)
    for name in ("red", "bright", "edge"):
        (gradient,) = torch.autograd.grad(maps[:, simple.names.index(name)].sum(), x, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_segmenters_of_ones_own() -> None:
    x = torch.rand(2, 3, 8, 8) * 255
    half, whole = Own(["a"], lambda x: x[:, :1, ::2, ::2]), Own(["b", "c"], lambda x: torch.tensor([[0.0, 1.0]] * 2))
    both = Several([half, whole])
    assert both.names == ("a", "b", "c")
    assert both(x).shape == (2, 3, 8, 8)
    assert (both(x)[:, 2] == 1).all()
    with pytest.raises(DataError, match=r"1 concepts must give \(2, 1"):
        Own(["a"], lambda x: x)(x)


# the page


def test_a_region_is_outlined() -> None:
    x, maps = torch.full((1, 1, 4, 4), 200.0), torch.zeros(1, 2, 4, 4)
    maps[0, 1, :, :2] = 1
    seen = outlined(x, maps, 1, 0.5)
    assert seen.shape == (1, 3, 96, 96)
    assert seen[0, :, 50, 10].tolist() == [200] * 3, "where it is on the picture is as it was"
    assert seen[0, :, 50, 90].tolist() == [round(128 + 0.3 * 72)] * 3
    assert seen[0, :, 50, 47].tolist() == list(LINE)
    assert (seen[0, 0, :, :40] == 200).all(), "no line at the picture's edge"
    assert (outlined(x, maps, 0, 0.5)[0, 0] == 150).all()
