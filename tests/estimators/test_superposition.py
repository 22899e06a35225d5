"""TM-score, GDT-TS, lDDT and superpositions, beside biotite and scipy, and where they are known."""

from __future__ import annotations

import biotite.structure as structure
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from castalia.estimators.superposition import gdt_ts, kabsch, lddt, rmsd, tm_scale, tm_score


def walk(n: int = 60, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=(n, 3))
    return np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)


def moved(x: np.ndarray, seed: int = 1) -> np.ndarray:
    return x @ Rotation.random(random_state=seed).as_matrix().T + [10, -20, 5]


def as_atoms(x: np.ndarray) -> structure.AtomArray:
    out = structure.AtomArray(len(x))
    out.coord = x.astype(np.float32)
    out.atom_name[:], out.res_name[:], out.element[:], out.chain_id[:] = "CA", "ALA", "C", "A"
    out.res_id = np.arange(1, len(x) + 1)
    return out


def test_kabsch_is_that_of_scipy() -> None:
    a, b = walk(), walk(seed=4)
    weight = np.random.default_rng(0).random(60)
    r, t = kabsch(a, b, weight)
    w = weight / weight.sum()
    expected, _ = Rotation.align_vectors(b - w @ b, a - w @ a, weights=weight)
    assert r == pytest.approx(expected.as_matrix(), abs=1e-9)
    assert t == pytest.approx(w @ b - r @ (w @ a))
    assert np.linalg.det(kabsch(a, a * [1, 1, -1])[0]) == pytest.approx(1)  # no reflections
    many = kabsch(np.stack([a, b]), np.stack([b, a]))
    assert many[0][0] == pytest.approx(kabsch(a, b)[0])
    r, t = kabsch(a, moved(a))
    assert a @ r.T + t == pytest.approx(moved(a))


def test_rmsd_is_that_of_biotite() -> None:
    a, b = walk(), walk() + np.random.default_rng(2).normal(size=(60, 3))
    fitted, _ = structure.superimpose(as_atoms(b), as_atoms(moved(a)))
    assert rmsd(moved(a), b) == pytest.approx(structure.rmsd(as_atoms(b), fitted), rel=1e-4)


def test_lddt_is_that_of_biotite() -> None:
    a, b = walk() + np.random.default_rng(2).normal(size=(60, 3)), walk()
    expected = structure.lddt(as_atoms(b), as_atoms(moved(a)), aggregation="residue")
    assert lddt(moved(a), b) == pytest.approx(100 * np.asarray(expected), rel=1e-4)
    assert lddt(a, a) == pytest.approx(100)
    assert np.isnan(lddt(np.array([[0.0, 0, 0], [99, 0, 0]]), np.array([[0.0, 0, 0], [99, 0, 0]]))).all()


def test_tm_score_finds_the_best_superposition() -> None:
    """Never below that of the least squares (biotite's, superimposed), and 1 for equal chains."""
    b = walk(80)
    assert tm_score(moved(b), b) == pytest.approx(1)
    a = b + np.random.default_rng(3).normal(size=b.shape)
    a[:30] = a[:30] @ Rotation.random(random_state=7).as_matrix().T  # one half is turned away
    fitted, _ = structure.superimpose(as_atoms(b), as_atoms(a))
    index = np.arange(len(b))
    least = structure.tm_score(as_atoms(b), fitted, index, index)
    found = tm_score(a, b)
    assert found > least + 0.05
    r, t = kabsch(a[30:], b[30:])
    far = np.linalg.norm(a @ r.T + t - b, axis=1)
    assert found >= (1 / (1 + (far / tm_scale(80)) ** 2)).mean() - 1e-9
    fitted.coord = (a @ r.T + t).astype(np.float32)
    expected = structure.tm_score(as_atoms(b), fitted, index, index)
    assert (1 / (1 + (far / tm_scale(80)) ** 2)).mean() == pytest.approx(expected, rel=1e-4)
    assert tm_score(a[:40], b[:40], 80) == pytest.approx(tm_score(a[:40], b[:40], 80))
    assert tm_score(moved(b[:40]), b[:40], 80) == pytest.approx(0.5)
    assert tm_scale(100) == pytest.approx(1.24 * 85 ** (1 / 3) - 1.8)
    assert tm_scale(10) == tm_scale(16) == 0.5


def test_gdt_counts_what_comes_near() -> None:
    b = walk(50)
    assert gdt_ts(moved(b), b) == pytest.approx(100)
    a = b.copy()
    a[:10] += [30, 0, 0]
    assert gdt_ts(moved(a), b) == pytest.approx(80, abs=2)
    one = b.copy()
    one[0] += [3, 0, 0]  # within 4 and 8 Å alone
    assert gdt_ts(one, b) == pytest.approx(100 * (49 / 50 + 49 / 50 + 1 + 1) / 4)
    assert gdt_ts(moved(b[:25]), b[:25], 50) == pytest.approx(50)


def test_short_chains_are_measured_too() -> None:
    b = walk(4)
    assert tm_score(moved(b), b) == pytest.approx(1)
    assert gdt_ts(b, moved(b)) == pytest.approx(100)
    mirrored = b * [1, 1, -1]
    assert rmsd(mirrored, b) > 0.1
