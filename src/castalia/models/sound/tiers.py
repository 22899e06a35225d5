"""SampleRNN's network: recurrent tiers over ever finer frames of sound, and a perceptron for each sample.

Mehri et al. 2017 (arXiv:1612.07837), section 2. :class:`Steps` computes it sample by sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

State = tuple[Tensor, ...]
"""Of each tier (layers, n, dim)."""


class Tier(nn.Module):
    """GRUs over frames of ``frame`` samples, and one vector for each of ``ratio`` parts of a frame (section 2.1).

    Args:
        frame: samples of a frame.
        ratio: parts of it that the next tier distinguishes.
        dim: units.
        layers: of GRUs.
        normed: whether linear layers have weight normalisation.
    """

    def __init__(self, frame: int, ratio: int, dim: int, layers: int, normed: bool) -> None:
        super().__init__()
        self.frame, self.ratio, self.dim = frame, ratio, dim
        self.into = _linear(frame, dim, normed)
        self.cells = nn.GRU(dim, dim, layers, batch_first=True)
        self.first = nn.Parameter(torch.zeros(layers, dim))
        self.up = _linear(dim, ratio * dim, normed)

    def forward(self, frames: Tensor, above: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (n, frames * ratio, dim) and the state, from (n, frames, frame) and what the tier above says."""
        h = self.into(frames)
        h, state = self.cells(h if above is None else h + above, state)
        return self.up(h).view(len(h), -1, self.dim), state


def _linear(inputs: int, outputs: int, normed: bool, scale: float = 1.0) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    with torch.no_grad():
        layer.weight.mul_(scale)
    nn.init.zeros_(layer.bias)
    if normed:
        weight_norm(layer)
    return layer


class Network(nn.Module):
    """Logits of each sample from all before it.

    Args:
        frames: samples of a frame of each tier, the largest first; each is a multiple of the next.
        dim: units of all layers.
        layers: GRUs in each tier.
        codes: values of a sample.
        embedding: dimensions of a code.
        silence: the code that stands before the first sample.
        classes: number of labels; 0 for none.
        normed: whether linear layers have weight normalisation.
    """

    def __init__(
        self,
        frames: Sequence[int],
        dim: int,
        layers: int,
        codes: int,
        embedding: int,
        silence: int,
        classes: int,
        normed: bool,
    ) -> None:
        super().__init__()
        self.frames, self.codes, self.silence, self.layers = tuple(frames), codes, silence, layers
        ratios = [a // b for a, b in zip(frames, [*frames[1:], 1], strict=True)]
        self.stack = [Tier(f, r, dim, layers, normed) for f, r in zip(frames, ratios, strict=True)]
        self.tiers = nn.ModuleList(self.stack)
        self.label = nn.Embedding(classes, dim) if classes else None
        self.embedding = nn.Embedding(codes, embedding)
        look = nn.Conv1d(embedding, dim, frames[-1], bias=False)
        nn.init.kaiming_uniform_(look.weight, nonlinearity="relu")
        self.look = weight_norm(look) if normed else look
        self.hidden = _linear(dim, dim, normed)
        self.out = _linear(dim, codes, normed, 0.1)  # quiet, so that training starts from the frequencies of values

    def begin(self, n: int) -> State:
        """The state before the first sample."""
        return tuple(tier.first[:, None].expand(-1, n, -1).contiguous() for tier in self.stack)

    def wave(self, codes: Tensor) -> Tensor:
        """Codes as numbers from -2 to 2, as the tiers see them."""
        return 4 * codes.float() / (self.codes - 1) - 2

    def forward(self, before: Tensor, codes: Tensor, state: State, label: Tensor | None) -> tuple[Tensor, State]:
        """Logits (n, T, codes) of codes (n, T), T whole frames, behind the frame ``before``; and the state after."""
        x = torch.cat([before, codes], 1)
        wave, whole, size = self.wave(x), self.frames[0], codes.shape[1]
        above = None if self.label is None or label is None else self.label(label)[:, None]
        after = []
        for tier, mine in zip(self.stack, state, strict=True):
            cut = wave[:, whole - tier.frame : whole + size - tier.frame].reshape(len(x), -1, tier.frame)
            above, mine = tier(cut, above, mine)
            after.append(mine)
        assert above is not None
        seen = self.embedding(x[:, whole - self.frames[-1] : -1]).transpose(1, 2)
        h = F.relu(self.look(seen).transpose(1, 2) + above)
        return self.out(F.relu(self.hidden(h))), tuple(after)


class Steps:
    """The network sample by sample: what a tier says is computed when its frame is full, the rest in plain tables."""

    def __init__(self, network: Network, n: int, label: Tensor | None) -> None:
        self.network, self.label = network, label
        self.state = list(network.begin(n))
        with torch.no_grad():
            table = torch.einsum("ce,dek->kcd", network.embedding.weight, network.look.weight)

            def numbers(x: Tensor) -> np.ndarray:
                return np.ascontiguousarray(x.detach().float().cpu().numpy())

            self.tables = numbers(table)
            self.hidden, self.out = (
                (numbers(layer.weight.T), numbers(layer.bias)) for layer in (network.hidden, network.out)
            )
        self.said: list[Tensor | None] = [None] * len(network.stack)
        self.low = np.zeros((n, 0, 0), np.float32)

    def hear(self, t: int, past: np.ndarray) -> None:
        """Take in what came before sample t: the last samples (n, largest frame) as codes, the newest last."""
        network = self.network
        above = None if network.label is None or self.label is None else network.label(self.label)[:, None]
        for k, tier in enumerate(network.stack):
            if t % tier.frame == 0:
                cut = torch.from_numpy(past[:, past.shape[1] - tier.frame :]).to(tier.first.device)
                self.said[k], self.state[k] = tier(network.wave(cut)[:, None], above, self.state[k])
                if k == len(network.stack) - 1:
                    said = self.said[k]
                    assert said is not None
                    self.low = said.float().cpu().numpy()
            said = self.said[k]
            assert said is not None
            part = t % tier.frame // (tier.frame // tier.ratio)
            above = said[:, part : part + 1]

    def look(self, t: int, past: np.ndarray) -> np.ndarray:
        """Logits (n, codes) of sample t."""
        frame = self.network.frames[-1]
        h = self.low[:, t % frame].copy()
        for k in range(frame):
            h += self.tables[k][past[:, past.shape[1] - frame + k]]
        np.maximum(h, 0, out=h)
        h = h @ self.hidden[0] + self.hidden[1]
        np.maximum(h, 0, out=h)
        return h @ self.out[0] + self.out[1]


def parameters_of(frames: Sequence[int], dim: int, layers: int, codes: int, embedding: int) -> int:
    """How many parameters a network without labels and weight normalisation has, by arithmetic."""
    total, rest = 0, [*frames[1:], 1]
    for frame, below in zip(frames, rest, strict=True):
        ratio = frame // below
        total += frame * dim + dim + layers * (6 * dim * dim + 6 * dim) + layers * dim + (dim + 1) * ratio * dim
    total += codes * embedding + embedding * dim * frames[-1]
    return total + dim * dim + dim + dim * codes + codes


def whole(length: int, frame: int) -> int:
    """``length`` rounded up to whole frames."""
    return math.ceil(length / frame) * frame
