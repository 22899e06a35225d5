"""The shape of a molecule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from castalia.core.spec import Field, Spec, check_sizes

BONDS = 3
"""Kinds of bonds: single, double, triple. Rings are written with alternating ones (Kekule's form)."""

MOST_ATOMS = 512
"""Atoms of a graph."""


@dataclass(frozen=True)
class MoleculeSpec(Spec):
    """A molecule without its hydrogens, in one of three forms.

    ``graph``: ``x`` ``int64`` (length,), 0 where there is no atom, else 1 + the number of its kind; ``bonds`` ``int64``
    (length, length), symmetric, 0 none, 1 to 3 single, double, triple. Stereochemistry is left out.
    ``smiles`` and ``selfies``: ``x`` ``int64`` (T,) tokens, T open, padded with -1, ended by :attr:`end`.

    Attributes:
        kind: the form.
        length: atoms at most; or tokens that a row has at most, its end among them.
        atoms: ``graph``: the kinds: chemical symbols, with a charge where there is one: ``N``, ``O-``.
        tokens: strings: the texts of the tokens, in their order.
        classes: names of the labels, in label order; empty where there are none.
    """

    kind: Literal["graph", "smiles", "selfies"]
    length: int
    atoms: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, length=1 << 16)
        if self.kind == "graph" and self.length > MOST_ATOMS:
            raise ValueError(f"a graph has at most {MOST_ATOMS} atoms, not {self.length}")
        names = self.atoms if self.kind == "graph" else self.tokens
        if not names or len(set(names)) != len(names) or not all(names):
            raise ValueError("a graph has atoms, a string has tokens: texts that all differ")

    @property
    def size(self) -> int:
        """How many values a place has: kinds of atoms and none, or tokens and the end."""
        return 1 + len(self.atoms if self.kind == "graph" else self.tokens)

    @property
    def end(self) -> int:
        """Strings: the token that ends a molecule; the last."""
        return len(self.tokens)

    @property
    def stereo(self) -> bool:
        """Strings: whether they tell stereochemistry, of atoms or of double bonds."""
        return any(mark in token for token in self.tokens for mark in "@/\\")

    def fields(self) -> Mapping[str, Field]:
        if self.kind == "graph":
            return {
                "x": Field(torch.int64, (self.length,), low=0, high=len(self.atoms)),
                "bonds": Field(torch.int64, (self.length, self.length), low=0, high=BONDS),
            }
        return {"x": Field(torch.int64, (None,), padding=-1, low=0, high=self.end)}
