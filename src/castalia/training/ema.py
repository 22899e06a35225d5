"""Averaged weights, by half-life in examples.

Karras et al. 2020 (arXiv:2006.06676) and 2022 (arXiv:2206.00364): the half-life is counted in examples, so
it does not change its meaning with the batch size, and it is ramped up while few examples have been seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

RAMP = 0.05
"""The half-life never exceeds this share of the examples seen so far."""

EVERY = 8
"""Steps between updates: averaging costs a pass over the weights, and neighbours hardly differ."""


class Ema:
    """Running average of a module's parameters; buffers are taken as they are.

    Args:
        module: the whole model.
        half_life: in examples; 0 keeps the current weights instead of an average.
    """

    def __init__(self, module: nn.Module, half_life: float) -> None:
        self.module, self.half_life = module, half_life
        self.averages = {name: p.detach().clone() for name, p in module.named_parameters()} if half_life else {}

    @torch.no_grad()
    def update(self, step: int, batch_size: int, *, last: bool = False) -> None:
        """Account for the step just done (``step`` counts from 1)."""
        if not self.averages or (step % EVERY and not last):
            return
        passed = (step % EVERY or EVERY) * batch_size
        half_life = min(self.half_life, RAMP * step * batch_size)
        decay = 0.5 ** (passed / max(half_life, 1e-8))
        parameters = [p.detach() for p in self.module.parameters()]
        torch._foreach_lerp_(list(self.averages.values()), parameters, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def state(self) -> dict[str, Tensor]:
        """The model's state dict with parameters replaced by their averages."""
        return {**self.module.state_dict(), **self.averages}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the averages from :meth:`state`."""
        for name, average in self.averages.items():
            average.copy_(tensors[name])

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Run a block with the averaged weights in place and the module in evaluation mode."""
        kept = {name: p.data for name, p in self.module.named_parameters()}
        training = self.module.training
        try:
            for name, p in self.module.named_parameters():
                p.data = self.averages.get(name, p.data)
            self.module.eval()
            yield
        finally:
            for name, p in self.module.named_parameters():
                p.data = kept[name]
            self.module.train(training)
