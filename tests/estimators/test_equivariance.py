"""Equivariance: a picture that moves with its input, one that stays, one that moves by whole pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from castalia.estimators.equivariance import How, decibels, errors

SIDES = 40, 48
HOWS: tuple[How, ...] = ("integer", "fractional", "rotation")


def scene(move: Tensor) -> Tensor:
    """Waves of up to 6 periods along the shorter side, looked at where each place comes from."""
    g = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(12, generator=g)
    waves = 6 * torch.rand(12, generator=g)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    phases = 2 * math.pi * torch.rand(12, generator=g)
    h, w = SIDES
    right, down = (torch.arange(w) - (w - 1) / 2) / h, (torch.arange(h) - (h - 1) / 2) / h
    places = torch.stack([right.expand(h, w), down[:, None].expand(h, w), torch.ones(h, w)], 2)
    source = (move.float()[:, None, None] @ places[..., None]).squeeze(4)[..., :2]
    x = torch.sin(2 * math.pi * source @ waves.T + phases) / 4
    return torch.stack([x.sum(3), x[..., :6].sum(3)], 1)


def far(n: int = 6) -> Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("how", "least"), [("integer", 90), ("fractional", 45), ("rotation", 45)])
def test_a_scene_that_moves(how: How, least: float) -> None:
    assert decibels(errors(scene, how, far()).max().item()) > least


@pytest.mark.parametrize("how", HOWS)
def test_a_picture_that_stays(how: How) -> None:
    def stuck(move: Tensor) -> Tensor:
        return scene(torch.eye(3).expand(len(move), 3, 3))

    assert decibels(errors(stuck, how, far()).mean().item()) < 20


def test_details_that_stick_to_pixels() -> None:
    """Rounding moves to whole pixels is not seen in those, and seen in others."""

    def sticky(move: Tensor) -> Tensor:
        move = move.clone()
        move[:, :2, 2] = (move[:, :2, 2] * SIDES[0]).round() / SIDES[0]
        return scene(move)

    assert decibels(errors(sticky, "integer", far()).mean().item()) > 90
    assert decibels(errors(sticky, "fractional", far()).mean().item()) < 35


def test_a_turn_the_other_way_is_an_error() -> None:
    def mirrored(move: Tensor) -> Tensor:
        return scene(move.mT)

    assert decibels(errors(mirrored, "rotation", far()).mean().item()) < 20


def test_a_known_error() -> None:
    def noisy(move: Tensor) -> Tensor:
        moved = not torch.equal(move[0], torch.eye(3))
        return scene(move) + 0.1 * moved

    for how in HOWS:
        found = errors(noisy, how, far())
        assert decibels(found.mean().item()) == pytest.approx(10 * math.log10(4 / 0.01), abs=0.1)


def test_moves_reach_an_eighth_of_each_side() -> None:
    moves: list[Tensor] = []

    def watched(move: Tensor) -> Tensor:
        moves.append(move)
        return scene(move)

    errors(watched, "fractional", torch.tensor([[0.0, 1.0], [1.0, 0.5]]))
    torch.testing.assert_close(moves[1][:, :2, 2], torch.tensor([[6 / 40, -5 / 40], [-6 / 40, 0.0]]))
