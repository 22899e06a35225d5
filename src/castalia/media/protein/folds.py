"""The built-in set: helices, hairpins and loops made by rule, so that folding can be learned in seconds.

Each residue has the torsions that its letter says, so the sequence says where everything is: those that like helices
(A, E, K, L, M, Q, R) turn as in one, those that like strands (V, I, T, Y, F, W) are stretched, and the rest make turns
and loops. Atoms lie at ideal bonds (``geometry.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from castalia.core.rng import derive
from castalia.core.specs.protein import GAP, LETTERS, STATES, ProteinSpec
from castalia.media.protein.chains import Chain, Chains, numbers
from castalia.media.protein.geometry import chain
from castalia.media.protein.read import ProteinOptions, gathered

HELIX, STRAND = "AEKLMQR", "VITYFW"
TORSIONS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(HELIX, (-63.0, -42.0)),
    **dict.fromkeys(STRAND, (-120.0, 130.0)),
    "N": (55.0, 38.0),
    "G": (78.0, 20.0),
    "D": (-90.0, 0.0),
    "S": (-80.0, -20.0),
    "P": (-65.0, 140.0),
    "H": (-95.0, 110.0),
    "C": (-110.0, 120.0),
}
"""phi and psi by letter, degrees."""

LOOPS = ("GSP", "DGP", "SPGD", "PDG", "HCG", "GPS")
NAME = "folds"
COUNTS = {"train": 600, "test": 60}


def folds(split: str = "train", options: ProteinOptions | None = None, like: ProteinSpec | None = None) -> Chains:
    """The built-in set: chains of 8 to 30 residues, those that ``options`` leave in."""
    options = options or ProteinOptions()
    rng = np.random.Generator(np.random.Philox(derive(17, split)))
    made = [letters_of(rng) for _ in range(COUNTS[split])]
    rows = [_alignment(rng, letters, options.sequences) for letters in made]
    places = structures(made)
    chains = [
        Chain(f"{split}/{i:03d}", numbers(letters), x, np.ones(x.shape[:2], np.uint8), _sure(len(x)), msa)
        for i, (letters, x, msa) in enumerate(zip(made, places, rows, strict=True))
    ]
    found = gathered(chains, options, NAME, [], NAME, like)
    assert isinstance(found, Chains)
    found.notes = ()  # what is left out of a set made by rule is no news
    return found


def _sure(length: int) -> np.ndarray:
    return np.full(length, 100, np.float32)


def letters_of(rng: np.random.Generator) -> str:
    """The letters of one chain: a helix, a hairpin, or two of helix and strand with a loop between."""

    def piece(letters: str, low: int, high: int) -> str:
        return "".join(letters[int(i)] for i in rng.integers(0, len(letters), int(rng.integers(low, high + 1))))

    kind, loop = int(rng.integers(4)), LOOPS[int(rng.integers(len(LOOPS)))]
    if kind == 0:
        return piece(HELIX, 8, 16)
    if kind == 1:
        half = int(rng.integers(3, 8))
        return piece(STRAND, half, half) + "NG" + piece(STRAND, half, half)
    if kind == 2:
        return piece(HELIX, 5, 12) + loop + piece(HELIX, 5, 12)
    return piece(HELIX, 4, 10) + loop + piece(STRAND, 4, 8)


def structures(chains: Sequence[str]) -> list[np.ndarray]:
    """Where the atoms of chains are, ``float32`` (L, 5, 3) each, about their middle."""
    longest = max(map(len, chains))
    whole = [letters.ljust(longest, "A") for letters in chains]  # what follows moves nothing before it
    torsions = np.deg2rad([[TORSIONS[letter] for letter in letters] for letters in whole])
    x = chain(torsions[..., 0], torsions[..., 1], np.stack([numbers(letters) for letters in whole]))
    cut = [one[: len(letters)] for one, letters in zip(x, chains, strict=True)]
    return [(one - one[:, 1].mean(0)).astype(np.float32) for one in cut]


def _alignment(rng: np.random.Generator, letters: str, sequences: int) -> np.ndarray | None:
    """The sequence and up to ``sequences`` - 1 relatives; None where there are to be none."""
    if sequences == 1:
        return None
    count = int(rng.integers(sequences // 2, sequences))
    return np.stack([numbers(letters), *(_relative(rng, letters) for _ in range(count))])


def _relative(rng: np.random.Generator, letters: str) -> np.ndarray:
    """A row of an alignment: residues changed for others of the same torsions, a few gaps and deletions."""
    row = []
    for letter, (change, which, gap, deleted) in zip(letters, rng.random((len(letters), 4)), strict=True):
        alike = HELIX if letter in HELIX else STRAND if letter in STRAND else letter
        other = alike[int(which * len(alike))] if change < 0.4 else letter
        cell = GAP if gap < 0.05 else LETTERS.index(other)
        row.append(cell + STATES * (1 + int(deleted * 100) if deleted < 0.03 else 0))
    return np.array(row, np.int64)
