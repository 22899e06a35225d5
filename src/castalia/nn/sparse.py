"""Which tokens before it a token sees, where it does not see all: the patterns of sparse transformers.

Child, Gray, Radford & Sutskever 2019, "Generating Long Sequences with Sparse Transformers" (arXiv:1904.10509), section
4.2; Dhariwal et al. 2020, "Jukebox" (arXiv:2005.00341), figure 3, for rows, columns and rows before. Each is a function
of the place that looks and of places not after it; two layers of complementary patterns connect everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from castalia.nn.causal import Pattern


def local(size: int) -> Pattern:
    """The last ``size`` tokens, itself among them: the first half of the strided pattern."""
    return lambda i, j: i - j < size


def strided(stride: int) -> Pattern:
    """Every ``stride``-th token back from itself: the second half of the strided pattern."""
    return lambda i, j: (i - j) % stride == 0


def block(size: int) -> Pattern:
    """Those in its own block of ``size`` tokens: the first half of the fixed pattern, and Jukebox's rows."""
    return lambda i, j: torch.div(i, size, rounding_mode="floor") == torch.div(j, size, rounding_mode="floor")


def summaries(size: int, count: int) -> Pattern:
    """The last ``count`` tokens of every block, and itself: the second half of the fixed pattern."""
    return lambda i, j: (j % size >= size - count) | (i == j)


def column(size: int) -> Pattern:
    """Those at the same place of their blocks: Jukebox's columns."""
    return strided(size)


def previous(size: int) -> Pattern:
    """All of the block before its own; in the first block only itself, so that there is something to see."""

    def pattern(i: Tensor, j: Tensor) -> Tensor:
        mine, its = (torch.div(k, size, rounding_mode="floor") for k in (i, j))
        return (its == mine - 1) | ((mine == 0) & (i == j))

    return pattern


def alternating(kind: str, layers: int, size: int) -> Sequence[Pattern | None]:
    """The pattern of each layer.

    Args:
        kind: ``dense``: all see everything; ``strided`` or ``fixed``: the paper's two halves in turn; ``banded``: dense
            and local in turn, as in GPT-3.
        layers: how many.
        size: stride, block or band.
    """
    turns: dict[str, tuple[Pattern | None, ...]] = {
        "dense": (None,),
        "strided": (local(size), strided(size)),
        "fixed": (block(size), summaries(size, max(1, size // 16))),
        "banded": (None, local(size)),
    }
    return [turns[kind][i % len(turns[kind])] for i in range(layers)]
