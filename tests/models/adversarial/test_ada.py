"""Adaptive augmentation: exact where it can be, in the right order, and a probability that follows the critic."""

from __future__ import annotations

import math

import pytest
import torch

from castalia.core.rng import BatchRng, SampleRng
from castalia.models.adversarial.ada import (
    KINDS,
    SYM6,
    Ada,
    Kind,
    about_luma,
    affine,
    bands,
    bank,
    blit,
    changed,
    colour,
    colour_matrix,
    cutout,
    geometry,
    mirror_pad,
    moved,
    resampled,
    turned,
)

ALWAYS, NEVER = torch.tensor(1.0), torch.tensor(0.0)


def pictures(n: int = 4, channels: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_never_is_the_identity_and_always_is_not(kind: Kind, channels: int) -> None:
    x = pictures(8, channels, 12, 20)
    rng = BatchRng(0, total=8)
    assert torch.equal(changed(x, (kind,), NEVER, rng), x)
    y = changed(x, (kind,), ALWAYS, rng)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert not torch.equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_has_its_own_numbers(kind: Kind) -> None:
    x = pictures(1).repeat(12, 1, 1, 1)
    p = torch.tensor(0.7)
    many = changed(x, (kind,), p, SampleRng(3, range(12)))
    alone = changed(x[:1], (kind,), p, SampleRng(3, [5]))
    torch.testing.assert_close(many[5:6], alone, atol=1e-5, rtol=0)
    assert len({tuple(row.flatten().tolist()) for row in many}) > 4
    half = changed(x[:6], (kind,), p, BatchRng(1, total=12, start=6, rows=6))
    torch.testing.assert_close(half, changed(x, (kind,), p, BatchRng(1, total=12))[6:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_pictures_are_changed_as_often_as_said(p: float) -> None:
    """Colour: brightness alone changes whoever it is chosen for; of 2,000 a share p, within four deviations."""
    m = colour_matrix(torch.tensor(p), BatchRng(0, total=2000), False, torch.device("cpu"))
    share = (m[:, 0, 3] != 0).float().mean().item()
    assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / 2000)


def test_flips_turns_and_shifts_are_exact() -> None:
    x = pictures(1, 2, 6, 6)
    no, none = torch.tensor([False]), torch.tensor([0])
    assert torch.equal(moved(x, ~no, none, none, none), x.flip(3))
    for k in range(4):
        assert torch.equal(moved(x, no, torch.tensor([k]), none, none), torch.rot90(x, k, (2, 3)))
        both = moved(x, ~no, torch.tensor([k]), none, none)
        assert torch.equal(both, torch.rot90(x.flip(3), k, (2, 3))), "first the flip, then the turn"
    shifted = moved(x, no, none, torch.tensor([2]), torch.tensor([-1]))
    assert torch.equal(shifted[:, :, 2:, :-1], x[:, :, :-2, 1:])
    assert torch.equal(shifted[:, :, 0, :-1], x[:, :, 2, 1:]), "mirrored at the edge, which is not repeated"
    last = moved(x, no, torch.tensor([1]), torch.tensor([2]), none)
    assert torch.equal(last[:, :, 2:], torch.rot90(x, 1, (2, 3))[:, :, :-2]), "the shift comes last"
    wide = pictures(1, 1, 4, 6)
    assert torch.equal(moved(wide, no, torch.tensor([2]), none, none), torch.rot90(wide, 2, (2, 3)))


def test_blits_reach_all_turns_and_shift_by_an_eighth() -> None:
    x = pictures(1, 1, 8, 8).repeat(400, 1, 1, 1)
    y = blit(x, ALWAYS, BatchRng(0, total=400))
    seen = {tuple(row.flatten().tolist()) for row in y}
    assert len(seen) == 8 * 9, "four turns, flipped or not, at nine places"


def test_the_filter_is_an_orthogonal_wavelet() -> None:
    h = torch.tensor(SYM6, dtype=torch.float64)
    assert h.sum().item() == pytest.approx(math.sqrt(2), abs=1e-10)
    for shift in range(0, 12, 2):
        product = (h[: len(h) - shift] * h[shift:]).sum().item()
        assert product == pytest.approx(float(shift == 0), abs=1e-10)


def test_resampling_by_whole_pixels_is_exact() -> None:
    x = pictures(2, 3, 16, 24)
    zero = torch.zeros(2)
    same = resampled(x, affine(zero + 1, zero + 1, zero, zero))
    torch.testing.assert_close(same, x, atol=1e-5, rtol=0)
    shifted = resampled(x, affine(zero + 1, zero + 1, zero - 3, zero + 2))  # 3 to the right, 2 up
    torch.testing.assert_close(shifted[:, :, :-2, 3:], x[:, :, 2:, :-3], atol=1e-5, rtol=0)


def test_a_turn_by_a_quarter_is_one() -> None:
    """A smooth picture, whose turn the filters cannot spoil."""
    at = torch.linspace(-1, 1, 32)
    x = (torch.exp(-((at[:, None] - 0.3) ** 2 + 2 * (at[None] + 0.2) ** 2) / 0.2))[None, None]
    quarter = torch.tensor([math.pi / 2])
    y = resampled(x, turned(-quarter))  # content turns from x (right) towards y (down)
    torch.testing.assert_close(y, torch.rot90(x, -1, (2, 3)), atol=0.02, rtol=0)


def test_scale_about_the_middle() -> None:
    at = torch.arange(32) - 15.5
    x = torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 3.0**2))[None, None]
    half, zero = torch.tensor([0.5]), torch.zeros(1)
    y = resampled(x, affine(half, half, zero, zero))  # twice as large
    expected = torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 6.0**2))[None, None]
    torch.testing.assert_close(y, expected, atol=0.02, rtol=0)


def test_order_of_the_matrices() -> None:
    """Of colours: brightness, then contrast, then luma flip; against the three steps by hand."""
    rng = BatchRng(4, total=64)
    x = pictures(64, 1)
    m = rng.at("c")
    bright = 0.2 * m.normal("brightness")
    contrast = torch.exp2(0.5 * m.normal("contrast"))
    flip = 1 - 2 * m.integers("luma", 2).float()
    by_hand = (x + bright.view(-1, 1, 1, 1)) * (contrast * flip).view(-1, 1, 1, 1)
    torch.testing.assert_close(colour(x, ALWAYS, m), by_hand)


def test_hue_turns_about_grey_and_saturation_keeps_luma() -> None:
    angle = torch.tensor([2 * math.pi / 3, 1.0])
    turned_colours = about_luma(angle)
    grey = torch.tensor([0.4, 0.4, 0.4, 1.0])
    torch.testing.assert_close(turned_colours @ grey, grey.expand(2, 4))
    red = torch.tensor([1.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(turned_colours[0] @ red, torch.tensor([0.0, 1.0, 0.0, 1.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(turned_colours[:, :3, :3] @ turned_colours[:, :3, :3].mT, torch.eye(3).expand(2, 3, 3))
    # of the whole: a grey stays grey whatever is chosen, and the last row is that of a unit matrix
    m = colour_matrix(ALWAYS, BatchRng(0, total=50), True, torch.device("cpu"))
    out = m @ grey
    torch.testing.assert_close(out[:, 0], out[:, 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[:, 0], out[:, 2], atol=1e-5, rtol=0)
    assert torch.equal(m[:, 3], torch.eye(4)[3].expand(50, 4))


def test_colour_leaves_alpha_alone() -> None:
    x = pictures(6, 4)
    y = colour(x, ALWAYS, BatchRng(0, total=6))
    assert torch.equal(y[:, 3], x[:, 3])
    assert not torch.equal(y[:, :3], x[:, :3])


def test_four_bands_sum_to_everything() -> None:
    filters = bank()
    assert filters.shape == (4, 43)
    whole = torch.zeros(43)
    whole[21] = 1
    torch.testing.assert_close(filters.sum(0), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(filters, filters.flip(1), atol=1e-7, rtol=0)
    # each passes its own frequencies best
    at = torch.arange(43) - 21
    middles = [0.03, 0.15, 0.3, 0.9]  # of pi
    response = torch.tensor([[(f * torch.cos(math.pi * m * at)).sum() for m in middles] for f in filters])
    assert response.argmax(1).tolist() == [0, 1, 2, 3]


def test_bands_keep_a_constant_picture_constant() -> None:
    x = torch.full((6, 2, 9, 13), 0.5)
    y = bands(x, ALWAYS, BatchRng(0, total=6))
    torch.testing.assert_close(y, y[:, :, :1, :1].expand_as(y), atol=1e-5, rtol=0)


def test_mirror_pad_may_be_wider_than_the_picture() -> None:
    x = torch.arange(3.0).view(1, 1, 1, 3)
    assert mirror_pad(x, 5)[0, 0, 0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]


def test_cutout_makes_a_hole_of_half_the_sides() -> None:
    x = torch.ones(300, 2, 16, 24)
    holes = cutout(x, ALWAYS, BatchRng(0, total=300)) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    rows, columns = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), rows * columns)
    assert (int(rows.max()), int(columns.max())) == (8, 12)


def test_gradients_flow_through_all() -> None:
    """All changes are affine in the picture: the gradient equals finite differences, whatever the step."""
    x = pictures(4, 3, 12, 12).requires_grad_(True)
    rng = BatchRng(0, total=4)
    weights = pictures(4, 3, 12, 12).flip(0)
    p = torch.tensor(0.8)
    (slope,) = torch.autograd.grad((changed(x, KINDS, p, rng) * weights).sum(), x)
    direction = pictures(4, 3, 12, 12).flip(3)
    with torch.no_grad():
        ends = [(changed(x + h * direction, KINDS, p, rng) * weights).sum() for h in (0.5, -0.5)]
    assert (ends[0] - ends[1]).item() == pytest.approx((slope * direction).sum().item(), rel=1e-3)


def test_the_probability_follows_a_script_of_signs() -> None:
    """Up while the critic is surer than the target, down while it is not, never outside of 0 to 1."""
    ada = Ada(("blit",), 0.0, 0.6, 1000.0)
    seen = []
    for sign in (0.5, 0.9, 0.7, 0.61, 0.2, 0.6, 0.9):
        ada.signs.fill_(sign)
        ada.heed(100)
        seen.append(round(ada.p.item(), 4))
    assert seen == [0.0, 0.1, 0.2, 0.3, 0.2, 0.2, 0.3]
    ada.signs.fill_(1.0)
    for _ in range(20):
        ada.heed(100)
    assert ada.p.item() == 1.0


def test_geometry_moves_pictures_and_leaves_others_bit_for_bit() -> None:
    x = pictures(200, 1, 8, 8)
    y = geometry(x, torch.tensor(0.1), BatchRng(0, total=200))
    same = (y == x).flatten(1).all(1)
    # scale, one or two turns, stretch, shift: four chances
    assert abs(same.float().mean().item() - 0.9**4) < 4 * math.sqrt(0.66 * 0.34 / 200)


class Fixed:
    """A source of numbers of which some are given."""

    def __init__(self, rng: BatchRng, **given: dict[str, float]) -> None:
        self.rng, self.given = rng, given

    def _all(self, value: float, *shape: int) -> torch.Tensor:
        return torch.full((self.rng.rows, *shape), value)

    def uniform(self, name: str, *shape: int) -> torch.Tensor:
        found = self.given.get("uniform", {}).get(name)
        return self.rng.uniform(name, *shape) if found is None else self._all(found, *shape)

    def normal(self, name: str, *shape: int) -> torch.Tensor:
        found = self.given.get("normal", {}).get(name)
        return self.rng.normal(name, *shape) if found is None else self._all(found, *shape)


def test_order_and_strength_of_geometric_changes() -> None:
    """What happens to a point, step by step: scale, turn, stretch, turn, shift; the matrix is not made from others."""
    x, rng = pictures(40, 1, 16, 24), BatchRng(3, total=40)
    scale, stretch = torch.exp2(0.2 * rng.normal("scale")), torch.exp2(0.2 * rng.normal("stretch"))
    angles = [(2 * rng.uniform(name) - 1) * math.pi for name in ("before", "after")]
    shift = 0.125 * 24 * rng.normal("right"), 0.125 * 16 * rng.normal("down")

    def moved_point(a: float, b: float) -> torch.Tensor:
        right, down = a * scale, b * scale
        for number, angle in enumerate(angles):
            right, down = right * angle.cos() - down * angle.sin(), right * angle.sin() + down * angle.cos()
            if number == 0:
                right, down = right * stretch, down / stretch
        return torch.stack([right + shift[0], down + shift[1], torch.ones(40)], 1)

    ends = torch.stack([moved_point(*at) for at in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))], 2)
    starts = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 1]])
    there = ends.double() @ torch.linalg.inv(starts.double())
    expected = resampled(x, torch.linalg.inv(there).float())
    torch.testing.assert_close(geometry(x, ALWAYS, rng), expected, atol=2e-3, rtol=0)


def test_one_turn_or_both_happen_as_often_as_said() -> None:
    """With nothing to scale, stretch and shift, a share p of the pictures is changed."""
    x, still = pictures(2000, 1, 4, 4), {"scale": 0.0, "stretch": 0.0, "down": 0.0, "right": 0.0}
    y = geometry(x, torch.tensor(0.3), Fixed(BatchRng(0, total=2000), normal=still))  # type: ignore[arg-type]
    share = (y != x).flatten(1).any(1).float().mean().item()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)


def test_strength_of_noise() -> None:
    """The deviation of each picture is a half-normal number of scale 0.1."""
    x = torch.zeros(1500, 1, 16, 16)
    deviation = changed(x, ("noise",), ALWAYS, BatchRng(0, total=1500)).square().mean((1, 2, 3)).sqrt()
    assert deviation.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.08)
    assert deviation.mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.08)


@pytest.mark.parametrize(("band", "kept"), [(0, 4 / math.sqrt((10 * 16 + 3) / 13)), (3, 1 / math.sqrt((12 + 16) / 13))])
def test_amplifying_a_band_keeps_the_power_of_the_whole(band: int, kept: float) -> None:
    """Four times one band; of a constant picture, which is all in the lowest, see the gain, across and down."""
    whether = {f"whether band {other}": 0.0 if other == band else 1.0 for other in range(4)}
    rng = Fixed(BatchRng(0, total=2), uniform=whether, normal={f"band {band}": 2.0})
    y = bands(torch.full((2, 3, 8, 8), 0.5), torch.tensor(0.5), rng)  # type: ignore[arg-type]
    torch.testing.assert_close(y, torch.full_like(y, 0.5 * kept**2), atol=1e-5, rtol=0)
