"""What is measured of folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.media.base import Work
from castalia.media.protein import measures
from castalia.media.protein.chains import Chain, numbers
from castalia.media.protein.compare import Nearest, as_helix, continued, fit
from castalia.media.protein.folds import folds
from castalia.media.protein.geometry import chain, helix
from castalia.media.protein.read import ProteinOptions
from castalia.media.protein.write import chains_of


def of(letters: str, x: np.ndarray) -> Chain:
    residues = numbers(letters)
    return Chain("x", residues, x.astype(np.float32), np.ones(x.shape[:2], np.uint8), np.full(len(x), 100, np.float32))


def work(change: float = 0.0, n: int = 20) -> Work:
    """Held-out chains as samples, with noise."""
    held = folds("test")
    ids = np.arange(n)
    real = held.batch(ids)
    noise = change * torch.randn(real.x.shape, generator=torch.Generator().manual_seed(0))
    sure = torch.where(real.extra["sequence"] >= 0, 70.0, 0.0)
    return Work(
        held.spec, Batch.of(real.x + noise, None, {**real.extra, "confidence": sure}), folds("train"), held, ids
    )


def test_the_truth_fits_itself() -> None:
    found = measures.folding(work())
    assert found["fold_tm"].value == pytest.approx(1, abs=1e-6)
    assert found["fold_lddt"].value == pytest.approx(100)
    assert found["fold_gdt"].value == pytest.approx(100)
    assert found["fold_rmsd"].value == pytest.approx(0, abs=1e-4)
    assert found["fold_tm_ceiling"].value < 1
    assert found["fold_lddt_gain"].value > 0
    assert "fold_confidence" not in found  # it says the same of all
    noisy = measures.folding(work(1.0))
    assert noisy["fold_lddt"].value < found["fold_lddt"].value
    assert noisy["fold_tm"].value < found["fold_tm"].value


def test_without_given_sequences_there_is_nothing_to_compare() -> None:
    one = work()
    assert measures.folding(Work(one.spec, one.samples, one.train, one.held_out)) == {}


def test_confidence_that_knows_is_told_from_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    real = [rng.uniform(20, 90, 30) for _ in range(40)]
    good = measures._confidence([r + rng.normal(size=30) for r in real], real, 0)
    bad = measures._confidence([rng.uniform(0, 100, 30) for _ in real], real, 0)
    assert good["fold_confidence_residues"].value > 0.99
    assert abs(bad["fold_confidence_residues"].value) < 0.15
    low, high = good["fold_confidence"].interval
    assert low <= good["fold_confidence"].value <= high


def test_a_part_that_is_unknown_is_not_compared() -> None:
    x = helix(numbers("A" * 12))
    one = of("A" * 12, x)
    there = one.there.copy()
    there[3:5] = 0
    hidden = Chain("x", one.residues, np.where(there[..., None], one.x, 0), there, one.confidence)
    found = fit(x, hidden)
    assert found is not None
    assert found.tm == pytest.approx(1)
    assert np.isnan(found.residues[3:5]).all()
    there[2:] = 0
    assert fit(x, Chain("x", one.residues, one.x, there, one.confidence)) is None


def test_the_nearest_training_chain() -> None:
    train = folds("train")
    nearest = Nearest(train)
    mine = train.chains[7]
    assert nearest.likeness(mine.residues) == 1
    assert fit(nearest.structure(mine), mine).tm == pytest.approx(1, abs=1e-6)
    longer = Chain.bare("x", np.concatenate([numbers("WW"), mine.residues, numbers("CCC")]))
    k, shift = nearest.match(longer.residues)
    assert (k, shift) == (7, -2)
    x = nearest.structure(longer)
    assert x.shape == (len(longer.residues), 5, 3)
    assert x[2:-3] == pytest.approx(mine.x)
    assert np.linalg.norm(np.diff(x[:, 1], axis=0), axis=1).max() < 6  # the ends go on from there


def test_what_is_missing_goes_on_as_a_helix() -> None:
    letters = "A" * 16
    ideal = helix(numbers(letters))
    there = np.ones(16, bool)
    there[:5] = there[12:] = False
    found = continued(np.where(there[:, None, None], ideal, 0), there, of(letters, ideal))
    assert found == pytest.approx(ideal, abs=1e-6)
    assert continued(np.zeros((16, 5, 3)), np.zeros(16, bool), of(letters, ideal)) == pytest.approx(
        as_helix(of(letters, ideal))
    )


def test_bonds_clashes_and_torsions() -> None:
    x = helix(numbers("A" * 20))
    assert measures.bonds(of("A" * 20, x)) == pytest.approx(3.80, abs=0.03)
    assert measures.clashes(of("A" * 20, x)) == 0
    squeezed = measures.clashes(of("A" * 20, 0.3 * x))
    assert squeezed > 50
    strand = chain(np.full(20, -2.1), np.full(20, 2.3), numbers("V" * 20))
    a, b = (measures.plot([of("A" * 20, y)]) for y in (x, strand))
    assert a.sum() == pytest.approx(1)
    assert measures.divergence(a, b) == pytest.approx(1)
    assert measures.divergence(a, a) == 0
    found = measures.ramachandran(work(0.3))
    assert found["ramachandran"].value > 0.01
    assert measures.ramachandran(work())["ramachandran"].value == pytest.approx(0, abs=1e-9)


def test_contacts_of_a_hairpin() -> None:
    """Two strands side by side, 5 Å apart: nearest pairs are in contact; of a helix none is."""
    step = np.arange(15)
    ca = np.concatenate(
        [np.stack([3.3 * step, 0 * step, 0 * step], 1), np.stack([3.3 * step[::-1], 0 * step + 5, 0 * step], 1)]
    )
    offsets = np.array([[-1.2, 0.0, 0.8], [0, 0, 0], [1.2, 0.0, 0.8], [1.2, 0.0, 2.0], [0, 0, -1.5]])
    hairpin = of("V" * 30, ca[:, None] + offsets)
    assert fit(hairpin.x, hairpin).contacts == 1
    assert fit(as_helix(hairpin), hairpin).contacts < 0.5
    assert np.isnan(fit(hairpin.x[:15], of("V" * 15, hairpin.x[:15])).contacts)  # there are none


def test_sequences_have_no_folds() -> None:
    spec = folds("test", ProteinOptions(kind="structure")).spec.columns[0][1]
    one = Work(spec, Batch.of(torch.zeros(2, 3, dtype=torch.long)), folds("train"), folds("test"), np.arange(2))
    assert measures.folding(one) == measures.ramachandran(one) == {}
    assert chains_of(folds("test").batch(np.arange(2)))
