"""Randomness that belongs to no row: the same for all processes, and whatever else is drawn."""

from __future__ import annotations

import torch

from castalia.core.rng import BatchRng, SampleRng


def test_what_is_shared_is_the_same_in_all_processes() -> None:
    whole = BatchRng(5, total=8)
    halves = [BatchRng(5, total=8, start=s, rows=4) for s in (0, 4)]
    drawn = [rng.at("step", 3).shared(7).normal("chains", 2) for rng in (whole, *halves)]
    assert drawn[0].shape == (7, 2)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][:4], halves[0].at("step", 3).normal("chains", 2))


def test_what_is_shared_does_not_depend_on_the_examples() -> None:
    one, other = SampleRng(5, range(3)), SampleRng(5, [7])
    assert torch.equal(one.shared(4).uniform("a", 2), other.shared(4).uniform("a", 2))
    assert not torch.equal(one.shared(4).uniform("a", 2), SampleRng(6, [7]).shared(4).uniform("a", 2))


def test_rows_know_their_share() -> None:
    assert BatchRng(0, total=8, start=2, rows=2).share == 0.25
    assert BatchRng(0, total=8, start=2, rows=2).start == 2
    assert BatchRng(0, total=8).at("x").share == 1
    assert SampleRng(0, range(3)).share == 1
