"""The built-in set: helices, hairpins and loops made by rule, so that folding can be learned in seconds.

Each residue has the torsions that its letter says, so the sequence says where everything is: those that like helices
(A, E, K, L, M, Q, R) turn as in one, those that like strands (V, I, T, Y, F, W) are stretched, and the rest make turns
and loops. Atoms lie at ideal bonds (``geometry.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

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
    chains = [fold(rng, f"{split}/{i:03d}", options.sequences) for i in range(COUNTS[split])]
    found = gathered(chains, options, NAME, [], NAME, like)
    found.notes = ()  # what is left out of a set made by rule is no news
    return found  # pyright: ignore[reportReturnType]


def fold(rng: np.random.Generator, name: str, sequences: int = 1) -> Chain:
    """One chain: a helix, a hairpin, or two of helix and strand with a loop between."""

    def piece(letters: str, low: int, high: int) -> str:
        return "".join(rng.choice(list(letters), int(rng.integers(low, high + 1))))

    kind = int(rng.integers(4))
    if kind == 0:
        letters = piece(HELIX, 8, 16)
    elif kind == 1:
        half = int(rng.integers(3, 8))
        letters = piece(STRAND, half, half) + "NG" + piece(STRAND, half, half)
    elif kind == 2:
        letters = piece(HELIX, 5, 12) + str(rng.choice(LOOPS)) + piece(HELIX, 5, 12)
    else:
        letters = piece(HELIX, 4, 10) + str(rng.choice(LOOPS)) + piece(STRAND, 4, 8)
    residues = numbers(letters)
    phi, psi = np.deg2rad(np.array([TORSIONS[letter] for letter in letters])).T
    x = chain(phi, psi, residues)
    there = np.ones(x.shape[:2], np.uint8)
    relatives = [_relative(rng, letters) for _ in range(int(rng.integers(sequences // 2, sequences)))]
    msa = np.stack([residues, *relatives]) if sequences > 1 else None
    x = (x - x[:, 1].mean(0)).astype(np.float32)
    return Chain(name, residues, x, there, np.full(len(letters), 100, np.float32), msa)


def _relative(rng: np.random.Generator, letters: str) -> np.ndarray:
    """A row of an alignment: residues changed for others of the same torsions, a few gaps and deletions."""
    row = []
    for letter in letters:
        alike = HELIX if letter in HELIX else STRAND if letter in STRAND else letter
        other = str(rng.choice(list(alike))) if rng.random() < 0.4 else letter
        gap = rng.random() < 0.05
        deleted = int(rng.integers(1, 4)) if rng.random() < 0.03 else 0
        row.append((GAP if gap else LETTERS.index(other)) + STATES * deleted)
    return np.array(row, np.int64)
