"""Averaged weights, by half-life in examples.

Karras et al. 2020 (arXiv:2006.06676) and 2022 (arXiv:2206.00364): the half-life is counted in examples, so
it does not change its meaning with the batch size, and it is ramped up while few examples have been seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    """What can be averaged: all parameters, and the statistics of batch normalisation, which belong to the weights.

    Batch statistics of today's weights do not fit averaged weights. Other buffers (chains, counters) are state. A
    tensor that has several names (tied weights) has its first one here.
    """
    found: dict[str, Tensor] = {name: p.detach() for name, p in module.named_parameters()}
    for prefix, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for name, buffer in part.named_buffers(prefix, recurse=False):
                if buffer.is_floating_point():
                    found[name] = buffer
    return found


def other_names(module: nn.Module) -> dict[str, str]:
    """Further names of tied parameters and buffers, each with the first name of the same tensor."""
    first: dict[int, str] = {}
    every = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: known for name, p in every if (known := first.setdefault(id(p), name)) != name}


class Ema:
    """Running average of the weights that a stage of training moves; all others are taken as they are.

    A stage begins with its weights as their average. At its end, what the next stage does not move is set to its
    average (:meth:`settle`), so that later stages build on what is published.

    Args:
        module: the whole model.
        half_life: in examples; 0 keeps the current weights instead of an average.
    """

    def __init__(self, module: nn.Module, half_life: float) -> None:
        self.module, self.half_life = module, half_life
        self.averages: dict[str, Tensor] = {}
        self.begin([module])

    def begin(self, moved: Iterable[nn.Module]) -> None:
        """Average what these modules hold from now on, beginning with what it is."""
        everything = averaged(self.module) if self.half_life else {}
        places = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        ids = {id(t) for t in _tensors(moved)}
        self.averages = {name: t.clone() for name, t in everything.items() if id(places[name]) in ids}

    @torch.no_grad()
    def update(self, step: int, batch_size: int, *, last: bool = False) -> None:
        """Account for the step just done (``step`` counts from 1 in the stage)."""
        if not self.averages or (step % EVERY and not last):
            return
        passed = (step % EVERY or EVERY) * batch_size
        half_life = min(self.half_life, RAMP * step * batch_size)
        decay = 0.5 ** (passed / max(half_life, 1e-8))
        current = self._current()
        torch._foreach_lerp_([local(t) for t in self.averages.values()], current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def _current(self) -> list[Tensor]:
        everything = averaged(self.module)
        return [local(everything[name]) for name in self.averages]

    @torch.no_grad()
    def settle(self, moved_next: Iterable[nn.Module]) -> None:
        """Set the weights to their averages, but for those that the next stage goes on to move."""
        going_on = {id(t) for t in _tensors(moved_next)}
        places = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        for name, average in self.averages.items():
            if id(places[name]) not in going_on:
                local(places[name]).copy_(local(average))

    def state(self) -> dict[str, Tensor]:
        """The model's state dict with weights replaced by their averages."""
        tied = {
            name: self.averages[first] for name, first in other_names(self.module).items() if first in self.averages
        }
        return {**self.module.state_dict(), **self.averages, **tied}

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
        modes = {part: part.training for part in self.module.modules()}
        try:
            for name, average in self.averages.items():
                places[name].data = average
            self.module.eval()
            yield
        finally:
            for name, data in kept.items():
                places[name].data = data
            for part, training in modes.items():
                part.training = training


def _tensors(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Parameters and buffers that modules and their parts hold."""
    for module in modules:
        yield from module.parameters()
        yield from module.buffers()
