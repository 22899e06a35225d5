"""Divergence, seen and undone: weights that were calm are kept, and taken back when energies run away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

KEPT_EVERY = 100
"""Calm steps between two copies of the weights."""

TRUSTED_AFTER = 2
"""Copies after which a copy is taken back: the newest may already be on the way to divergence."""

EASE = 1.002
"""By which caution grows back towards 1 in each calm step."""


@final
class Guard(nn.Module):
    """Watches energies, keeps copies of calm weights, and makes steps smaller after it had to take one back.

    What it sees is put into ``seen`` with this process's share, so that several processes come to one judgement; it
    judges in the step after.

    Args:
        network: whose weights it keeps.
        limit: of energies and of the gap between data and samples.
    """

    seen: Tensor
    caution: Tensor
    recoveries: Tensor
    calm: Tensor

    def __init__(self, network: nn.Module, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self._network = (network,)  # not a part: its weights are the model's already
        for name in ("before", *(f"kept_{i}" for i in range(TRUSTED_AFTER))):
            for i, p in enumerate(self._weights()):
                self.register_buffer(f"{name}_{i}", p.detach().clone())
        self.register_buffer("seen", torch.zeros(2))  # gap and size of the energies in the last step
        self.register_buffer("caution", torch.ones(()))
        self.register_buffer("recoveries", torch.zeros((), dtype=torch.int64))
        self.register_buffer("calm", torch.zeros((), dtype=torch.int64))  # steps in a row
        self._noted: list[Tensor] = []

    def _weights(self) -> list[nn.Parameter]:
        """Looked up each time: sharded training puts others in their place."""
        return list(self._network[0].parameters())

    def _copies(self, name: str) -> list[Tensor]:
        return [self.get_buffer(f"{name}_{i}") for i in range(len(self._weights()))]

    def note(self, real: Tensor, made: Tensor) -> None:
        """Be told of the energies of data and samples in this step."""
        size = torch.stack([real, made]).detach().abs().mean()
        self._noted.append(torch.stack([(real.mean() - made.mean()).detach(), size]))

    @torch.no_grad()
    def project(self) -> None:
        """Shorten the last move of the weights by the caution."""
        caution, before = float(self.caution), self._copies("before")
        for weight, old in zip(self._weights(), before, strict=True):
            if caution < 1:
                weight.copy_(torch.lerp(old, weight, caution))
            old.copy_(weight)

    def look(self, share: float) -> bool:
        """Judge the step before, and put down what was seen in this one; whether the weights were taken back."""
        diverged = bool((self.seen.abs() > self.limit).any())
        noted, self._noted = self._noted, []
        now = torch.stack(noted).mean(0) if noted and not diverged else torch.zeros_like(self.seen)
        self.seen.add_(now - self.seen, alpha=share)  # what processes change is added up
        if diverged:
            self._back()
            return True
        self.calm += 1
        self.caution.mul_(EASE).clamp_(max=1.0)
        if int(self.calm) % KEPT_EVERY == 0:
            for i in range(TRUSTED_AFTER - 1, 0, -1):
                copy(self._copies(f"kept_{i - 1}"), self._copies(f"kept_{i}"))
            copy(self._weights(), self._copies("kept_0"))
        return False

    def _back(self) -> None:
        """Take the weights of some time ago, and be careful from now on."""
        old = self._copies(f"kept_{TRUSTED_AFTER - 1}")
        copy(old, self._weights())
        copy(old, self._copies("before"))
        for i in range(TRUSTED_AFTER - 1):
            copy(old, self._copies(f"kept_{i}"))
        self.caution.mul_(0.5).clamp_(min=1 / 64)
        self.recoveries += 1
        self.calm.zero_()


def copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    """Copy values from tensors to tensors."""
    for a, b in zip(source, target, strict=True):
        b.copy_(a)
