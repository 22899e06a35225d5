"""Decoders of a latent vector into voices on a grid: one LSTM over all steps, or one for each bar below a conductor.

Roberts et al. 2018 (arXiv:1803.05428), sections 3.1 and 3.2. Both are used in two ways: over a whole given grid at once
(teacher forcing), and step by step, when what comes next depends on what was chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""h and c, each (layers, n, hidden)."""

Pick = Callable[[int, int, Tensor], Tensor]
"""(step, voice, logits (n, size)) to the value that is taken, ``int64`` (n,)."""

Forced = Callable[[int, Tensor], Tensor]
"""(step, values chosen (n, V)) to what the next step is told that they were."""


class Core(nn.Module):
    """An LSTM that begins in a state found from a vector, and sees that vector beside each step's values.

    Args:
        given: length of the vector.
        sizes: values of each voice that it reads and writes.
        hidden: units of each layer.
    """

    def __init__(self, given: int, sizes: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        if len(set(hidden)) != 1:
            raise ValueError("all layers of an LSTM have the same width")
        self.sizes, self.layers, self.hidden = tuple(sizes), len(hidden), hidden[0]
        self.begin = nn.Linear(given, 2 * self.layers * self.hidden)
        self.cells = nn.LSTM(sum(sizes) + given, self.hidden, self.layers, batch_first=True)
        self.out = nn.Linear(self.hidden, sum(sizes))

    def state(self, given: Tensor) -> State:
        """The state (layers, n, hidden) before the first step, for vectors (n, given)."""
        h, c = torch.tanh(self.begin(given)).view(len(given), 2, self.layers, self.hidden).permute(1, 2, 0, 3)
        return h.contiguous(), c.contiguous()

    def forward(self, before: Tensor, given: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (n, T, sum of sizes) after values ``int64`` (n, T, voices), -1 for none, and vectors (n, given)."""
        seen = one_hot(before, self.sizes).to(given.dtype)
        h, state = self.cells(torch.cat([seen, given[:, None].expand(-1, seen.shape[1], -1)], 2), state)
        return self.out(h), state


def one_hot(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Values ``int64`` (..., voices) as ``float32`` (..., sum of sizes); -1 is all zero."""
    parts = [F.one_hot(x[..., v] + 1, size + 1)[..., 1:] for v, size in enumerate(sizes)]
    return torch.cat(parts, -1).float()


def shifted(x: Tensor) -> Tensor:
    """What stands before each step of (n, T, V): nothing (-1), then all but the last."""
    return torch.cat([torch.full_like(x[:, :1], -1), x[:, :-1]], 1)


class Decoder(nn.Module, ABC):
    """Latents to voices.

    Attributes:
        sizes: values of each voice.
    """

    sizes: tuple[int, ...]

    @abstractmethod
    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Logits (n, T, sum of sizes) of each step of ``int64`` (n, T, V), given all steps before it."""

    @abstractmethod
    def unroll(self, z: Tensor, steps: int, pick: Pick, forced: Forced) -> tuple[Tensor, Tensor]:
        """Step by step.

        Args:
            z: latents (n, z).
            steps: how many.
            pick: chooses each value.
            forced: tells the next step.

        Returns:
            Values ``int64`` (n, steps, V) as chosen, and the logits (n, steps, sum of sizes).
        """


class Flat(Decoder):
    """One LSTM over all steps and voices.

    Args:
        latents: length of a latent vector.
        sizes: values of each voice.
        hidden: units of each layer.
    """

    def __init__(self, latents: int, sizes: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.core = Core(latents, sizes, hidden)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.core(shifted(x), z, self.core.state(z))[0]

    def unroll(self, z: Tensor, steps: int, pick: Pick, forced: Forced) -> tuple[Tensor, Tensor]:
        state = self.core.state(z)
        told = torch.full((len(z), len(self.sizes)), -1, device=z.device)
        made, seen = [], []
        for t in range(steps):
            logits, state = self.core(told[:, None], z, state)
            values = chosen(logits[:, 0], self.sizes, lambda v, part, t=t: pick(t, v, part))
            made.append(values)
            seen.append(logits)
            told = forced(t, values)
        return torch.stack(made, 1), torch.cat(seen, 1)


class Hierarchical(Decoder):
    """A conductor makes a vector for each bar; from it a decoder for each voice plays the bar.

    A bar's decoder begins anew: what it knows of the bars before it is what the conductor says, and the last value.

    Args:
        latents: length of a latent vector.
        sizes: values of each voice.
        conductor: units of each layer of the conductor.
        hidden: units of each layer of the bars' decoders.
        bar: steps of a bar.
    """

    def __init__(
        self, latents: int, sizes: Sequence[int], conductor: Sequence[int], hidden: Sequence[int], bar: int
    ) -> None:
        super().__init__()
        if len(set(conductor)) != 1:
            raise ValueError("all layers of an LSTM have the same width")
        self.sizes, self.bar, self.layers, self.width = tuple(sizes), bar, len(conductor), conductor[0]
        self.begin = nn.Linear(latents, 2 * self.layers * self.width)
        self.conductor = nn.LSTM(1, self.width, self.layers, batch_first=True)
        self.cores = [Core(self.width, [size], hidden) for size in sizes]
        self.voices = nn.ModuleList(self.cores)

    def bars(self, z: Tensor, count: int) -> Tensor:
        """The vector of each bar (n, count, width). The conductor is told nothing but the latents."""
        h, c = torch.tanh(self.begin(z)).view(len(z), 2, self.layers, self.width).permute(1, 2, 0, 3)
        nothing = z.new_zeros(len(z), count, 1)
        return self.conductor(nothing, (h.contiguous(), c.contiguous()))[0]

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        n, steps, voices = x.shape
        count = steps // self.bar
        given = self.bars(z, count).flatten(0, 1)
        before = shifted(x).view(n * count, self.bar, voices)
        parts = []
        for v, core in enumerate(self.cores):
            logits, _ = core(before[:, :, v : v + 1], given, core.state(given))
            parts.append(logits.view(n, steps, -1))
        return torch.cat(parts, 2)

    def unroll(self, z: Tensor, steps: int, pick: Pick, forced: Forced) -> tuple[Tensor, Tensor]:
        given = self.bars(z, steps // self.bar)
        told = torch.full((len(z), len(self.sizes)), -1, device=z.device)
        made, seen, states = [], [], []
        for t in range(steps):
            now = given[:, t // self.bar]
            if t % self.bar == 0:
                states = [core.state(now) for core in self.cores]
            parts = []
            for v, core in enumerate(self.cores):
                logits, states[v] = core(told[:, None, v : v + 1], now, states[v])
                parts.append(logits)
            whole = torch.cat(parts, 2)
            values = chosen(whole[:, 0], self.sizes, lambda v, part, t=t: pick(t, v, part))
            made.append(values)
            seen.append(whole)
            told = forced(t, values)
        return torch.stack(made, 1), torch.cat(seen, 1)


def chosen(logits: Tensor, sizes: Sequence[int], pick: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The value of each voice, ``int64`` (n, V), from logits (n, sum of sizes)."""
    return torch.stack([pick(v, part) for v, part in enumerate(logits.split(list(sizes), -1))], 1)
