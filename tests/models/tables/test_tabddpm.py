"""TabDDPM: its size, the bell curve, multinomial noise and its posterior, classes and missing values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from castalia.core.model import build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.table import Part, TableSpec
from castalia.media.table.sets import people
from castalia.models.tables.columns import fit_modes
from castalia.models.tables.tabddpm import TabDDPM, TabDDPMConfig

DATA = people("train")
MODES = fit_modes(DATA, DATA.spec)
ALL = DATA.batch(np.arange(1000))


def tabddpm(**options) -> TabDDPM:
    model = build(TabDDPM, TabDDPMConfig((32,), 16, steps=20, **options), DATA.spec, 0)
    model.initialise(DATA, BatchRng(0, total=1), {})
    return model


def test_the_size_of_the_authors_for_adult() -> None:
    sizes = (9, 16, 7, 15, 6, 5, 2, 42)
    parts = [Part(f"n{i}", "integer", low=0, high=9) for i in range(6)]
    parts += [Part(f"c{i}", "category", tuple(map(str, range(k)))) for i, k in enumerate(sizes)]
    spec = TableSpec((*parts, Part("income", "category", ("no", "yes"))), "income")
    with torch.device("meta"):
        model = TabDDPM(TabDDPMConfig(), spec)
    assert sum(p.numel() for p in model.network.parameters()) == 3_782_380


def test_numbers_on_the_bell_curve_and_back() -> None:
    model = tabddpm()
    for i, j in enumerate(model.numbers):
        x = ALL.x[ALL.extra["missing"][:, j] == 0, j]
        z = model.bell(x, i, torch.full((len(x),), 0.5))
        assert abs(z.mean().item()) < 0.15
        assert z.std().item() == pytest.approx(1, abs=0.15)
        part = DATA.spec.parts[j]
        gap = (model.unbell(z, i) - x).abs()
        assert (gap <= max(part.step, 1e-2) + 0.01 * (part.high - part.low)).double().mean() > 0.98, part.name


def test_a_spoiled_category_has_its_odds() -> None:
    model, n, size = tabddpm(), 60_000, 4
    alpha, abar = model.levels()
    for step in (2, 10):
        t = torch.full((n,), step)
        state = model.spoiled(torch.full((n,), 1), size, t, BatchRng(step, total=n))
        share = torch.bincount(state, minlength=size) / n
        expected = torch.full((size,), (1 - float(abar[step])) / size)
        expected[1] += float(abar[step])
        torch.testing.assert_close(share, expected, rtol=0, atol=0.01)
        assert alpha[step] < 1


def test_the_posterior_is_bayes() -> None:
    model, size, step = tabddpm(), 3, 7
    alpha, abar = model.levels()
    a, before = float(alpha[step]), float(abar[step - 1])
    forward = a * torch.eye(size).double() + (1 - a) / size  # x_t-1 -> x_t
    for clean in range(size):
        prior = before * torch.eye(size).double()[clean] + (1 - before) / size
        for state in range(size):
            truth = prior * forward[:, state]
            truth = truth / truth.sum()
            hot = torch.eye(size)[clean][None]
            found = model.posterior(torch.tensor([state]), hot, size, torch.tensor([step]))
            torch.testing.assert_close(found[0], truth)


def test_the_divergence_is_zero_for_the_truth_only() -> None:
    model, t = tabddpm(), torch.tensor([5, 5, 0])
    which, state = torch.tensor([1, 2, 0]), torch.tensor([0, 2, 1])
    right = 40.0 * torch.nn.functional.one_hot(which, 3).float()
    assert model.divergence(which, state, right, 3, t).abs().max() < 1e-6
    assert (model.divergence(which, state, right.roll(1, 1), 3, t) > 1e-3).all()


def test_class_and_missing_values() -> None:
    model = tabddpm()
    assert model.target == DATA.spec.place("owner")
    drawn = model.sample(50, {"owner": torch.ones(50).long()}, rng=SampleRng(0, range(50)))
    assert (drawn.x[:, model.target] == 1).all()
    gone = [lot for lot in model.lots if lot.gone]
    assert [lot.column for lot in gone] == [1]
    assert (drawn.x[drawn.extra["missing"] == 1] == 0).all()


def test_the_first_step_draws_from_the_shares() -> None:
    shares = torch.tensor([[0.2, 0.3, 0.5]]).double()
    found = tabddpm().posterior(torch.tensor([0]), shares, 3, torch.tensor([0]))
    torch.testing.assert_close(found, shares)
