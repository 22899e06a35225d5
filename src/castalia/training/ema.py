"""Averaged weights, by half-life in examples.

Karras et al. 2020 (arXiv:2006.06676) and 2022 (arXiv:2206.00364): the half-life is counted in examples, so
it does not change its meaning with the batch size, and it is ramped up while few examples have been seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from castalia.core.errors import RunError
from castalia.training.sharding import local, place

RAMP = 0.05
"""The half-life never exceeds this share of the examples seen so far."""

EVERY = 8
"""Steps between updates: averaging costs a pass over the weights, and neighbours hardly differ."""


def averaged(module: nn.Module) -> dict[str, Tensor]:
    """What is averaged: all parameters, and the statistics of batch normalisation, which belong to the weights.

    Batch statistics of today's weights do not fit averaged weights. Other buffers (chains, counters) are state.
    """
    found: dict[str, Tensor] = {name: p.detach() for name, p in module.named_parameters()}
    for prefix, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for name, buffer in part.named_buffers(prefix, recurse=False):
                if buffer.is_floating_point():
                    found[name] = buffer
    return found


class Ema:
    """Running average of a module's weights (see :func:`averaged`); other buffers are taken as they are.

    Args:
        module: the whole model.
        half_life: in examples; 0 keeps the current weights instead of an average.
    """

    def __init__(self, module: nn.Module, half_life: float) -> None:
        self.module, self.half_life = module, half_life
        self.averages = {name: t.clone() for name, t in averaged(module).items()} if half_life else {}

    @torch.no_grad()
    def update(self, step: int, batch_size: int, *, last: bool = False) -> None:
        """Account for the step just done (``step`` counts from 1)."""
        if not self.averages or (step % EVERY and not last):
            return
        passed = (step % EVERY or EVERY) * batch_size
        half_life = min(self.half_life, RAMP * step * batch_size)
        decay = 0.5 ** (passed / max(half_life, 1e-8))
        current = [local(t) for t in averaged(self.module).values()]
        torch._foreach_lerp_([local(t) for t in self.averages.values()], current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def state(self) -> dict[str, Tensor]:
        """The model's state dict with weights replaced by their averages."""
        return {**self.module.state_dict(), **self.averages}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the averages from :meth:`state`.

        Raises:
            RunError: the tensors are not those of this module.
        """
        for name, average in self.averages.items():
            if name not in tensors or tensors[name].shape != average.shape:
                raise RunError(f"The averages of the checkpoint do not fit the model: {name!r}.")
        place(self.averages, {name: tensors[name] for name in self.averages})

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Run a block with the averaged weights in place and the module in evaluation mode."""
        places = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        kept = {name: places[name].data for name in self.averages}
        training = self.module.training
        try:
            for name, average in self.averages.items():
                places[name].data = average
            self.module.eval()
            yield
        finally:
            for name, data in kept.items():
                places[name].data = data
            self.module.train(training)
