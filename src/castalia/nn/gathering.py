"""Rows of all processes, for losses that compare examples with one another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from castalia.core.rng import BatchRng, Rng


def everyone(rows: Tensor, rng: Rng) -> Tensor:
    """The rows (B, ...) of all processes that share a batch, in order; gradients go back to whom they belong.

    Every process then computes the same loss of the whole batch; the mean of their gradients is that of one process
    with all rows. Where ``rng`` has the whole batch there is nobody to ask.
    """
    if not isinstance(rng, BatchRng) or rng.rows == rng.total:
        return rows
    return torch.cat(all_gather(rows.contiguous()))
