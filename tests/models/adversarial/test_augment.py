"""Differentiable augmentation: nothing when off, row by row, gradients through all of it."""

from __future__ import annotations

import pytest
import torch

from castalia.core.rng import BatchRng, SampleRng
from castalia.models.adversarial.augment import Change, augment, colour, cutout, translation

ALL: tuple[Change, ...] = ("colour", "translation", "cutout")


def pictures(n: int = 4, channels: int = 3, size: int = 8) -> torch.Tensor:
    return torch.rand(n, channels, size, size + 1, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_off_is_the_identity() -> None:
    x = pictures()
    assert augment(x, (), BatchRng(0, total=4)) is x


@pytest.mark.parametrize("change", ALL)
def test_each_row_has_its_own_numbers(change: Change) -> None:
    x = pictures(64)
    x[:] = x[0]
    many = augment(x, (change,), SampleRng(3, range(64)))
    alone = augment(x[:1], (change,), SampleRng(3, [5]))
    assert torch.equal(many[5:6], alone)
    assert len(many.flatten(1).unique(dim=0)) > 5
    half = augment(x[:32], (change,), BatchRng(1, total=64, start=32, rows=32))
    assert torch.equal(half, augment(x, (change,), BatchRng(1, total=64))[32:]), "two processes change alike"


def test_gradients_flow_through() -> None:
    """The sum's gradient equals finite differences: all changes are linear in the picture, up to an offset."""
    x = pictures().double().requires_grad_(True)
    rng = BatchRng(0, total=4)
    weights = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (slope,) = torch.autograd.grad((augment(x, ALL, rng) * weights).sum(), x)
    direction = torch.rand(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ends = [(augment(x + h * direction, ALL, rng) * weights).sum() for h in (0.5, -0.5)]
    assert (ends[0] - ends[1]).item() == pytest.approx((slope * direction).sum().item(), rel=1e-9)


def test_translation_shifts_and_fills_with_zero() -> None:
    x = pictures(200, 1, 8)
    moved = translation(x, BatchRng(0, total=200))
    seen = set()
    for before, after in zip(x[:, 0], moved[:, 0], strict=True):
        found = [
            (dy, dx)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if torch.equal(
                after[max(0, -dy) : 8 - max(0, dy), max(0, -dx) : 9 - max(0, dx)],
                before[max(0, dy) : 8 - max(0, -dy), max(0, dx) : 9 - max(0, -dx)],
            )
            and int((after == 0).sum()) == 72 - (8 - abs(dy)) * (9 - abs(dx))
        ]
        assert len(found) == 1, "one shift of at most an eighth explains each picture"
        seen.add(found[0])
    assert len(seen) == 9


def test_cutout_makes_a_square_hole() -> None:
    x = torch.ones(300, 2, 8, 10)
    holes = cutout(x, BatchRng(0, total=300)) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    rows, columns = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), rows * columns), "a rectangle"
    assert (int(rows.max()), int(columns.max())) == (4, 5)
    assert int(rows.min()) >= 1


def test_colour_leaves_alpha_alone() -> None:
    x = pictures(16, 4)
    changed = colour(x, BatchRng(0, total=16))
    assert torch.equal(changed[:, 3], x[:, 3])
    assert not torch.equal(changed[:, :3], x[:, :3])
    grey = pictures(16, 1)
    assert colour(grey, BatchRng(0, total=16)).shape == grey.shape
    # brightness and contrast by their formulas, on one picture
    numbers = BatchRng(0, total=16).uniform("colour", 3, 1, 1, 1)[3].flatten()
    bright = grey[3] + numbers[0] - 0.5
    expected = (bright - bright.mean()) * (numbers[2] + 0.5) + bright.mean()
    torch.testing.assert_close(colour(grey, BatchRng(0, total=16))[3], expected)
