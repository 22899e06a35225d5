"""The harmonium: one layer of visible and one of hidden units, its gradient by chains, and its partition function.

    p(v, h) = exp(base(v) + b v + c h + v W h) / Z
    F(v) = -base(v) - b v - sum_j log(1 + exp(c_j + (v W)_j)),      p(v) = exp(-F(v)) / Z

Smolensky 1986; Hinton 2002 (contrastive divergence, CD-k); Tieleman 2008 (persistent chains, PCD); Montavon & Mueller
2012 and Melchior, Fischer & Wiskott 2016 (arXiv:1311.1354; centred gradients). Shared by the restricted Boltzmann
machine and the deep belief net.

The centred gradient is that of the same machine written with v - mu and h - lambda; here the parameters stay those of
the equation above, and the biases follow the change of W as the centred ones would:

    dW = <(v - mu)(h - lambda)>_data - <...>_model,    db = <v>_data - <v>_model - dW lambda,    dc likewise

The offsets are moving averages over the negative particles, to which each process adds its share (``Update.apart``).

Momentum is the heavy ball, w' = w + rate * gradient + momentum * (w - w_before): what is kept is the weights before,
which several processes have in common, and no sum of gradients, which each would have of its own rows.

Data and model enter one matrix product, (v; v') with (p; -p' n / m): the difference of the two statistics is
rounded once, and not each of them before.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.model import Logs
from castalia.core.rng import BatchRng, Rng
from castalia.estimators.annealing import Partition, anneal
from castalia.models.energy.units import Binary, Units, drawn

EXACT = 20
"""A side of at most so many binary units is summed over; 2^20 terms."""

AT_ONCE = 1 << 12
"""States summed over at once; bounds the memory."""

LOOKED_AT = 32
"""Rows of which free energies are logged."""


@dataclass(frozen=True)
class Rates:
    """How one step moves the weights.

    Attributes:
        rate: learning rate.
        decay: pulls the weights (not the biases) to 0, per unit of rate.
        steps: of Gibbs sampling for the negative particles, k.
        centred: subtract offsets.
        offsets: rate of the moving averages.
        told: whether the step has something to log, which costs a little.
    """

    rate: float
    decay: float = 0.0
    steps: int = 1
    centred: bool = True
    offsets: float = 0.01
    told: bool = True


@final
class Machine(nn.Module):
    """A harmonium with binary hidden units.

    Args:
        units: the visible side.
        hidden: number of hidden units.
        chains: persistent chains; 0 for contrastive divergence, whose chains start from the data.
        init: deviation of the weights at the start.
        momentum: share of the last move that is made again.
    """

    base: Tensor
    chain: Tensor
    before: Tensor
    before_v: Tensor
    before_h: Tensor
    offset_v: Tensor
    offset_h: Tensor

    def __init__(self, units: Units, hidden: int, chains: int = 0, init: float = 0.01, momentum: float = 0.0) -> None:
        super().__init__()
        self.units, self.size, self.chains, self.momentum = units, hidden, chains, momentum
        self.weight = nn.Parameter(init * torch.randn(units.size, hidden))
        self.visible = nn.Parameter(torch.zeros(units.size))
        self.hidden = nn.Parameter(torch.zeros(hidden))
        self.register_buffer("base", torch.zeros(units.size))  # biases of the independent units to anneal from
        self.register_buffer("chain", torch.zeros(chains, hidden))
        for name, parameter in self._moved():  # without momentum nothing is kept
            self.register_buffer(name, parameter.detach().clone() if momentum else torch.zeros(0))
        self.register_buffer("offset_v", torch.zeros(units.size))
        self.register_buffer("offset_h", torch.full((hidden,), 0.5))
        self._known: tuple[str, Partition] | None = None

    @torch.no_grad()
    def begin(self, mean: Tensor, rng: Rng) -> None:
        """Start as the independent units whose means (size,) are given, and with chains drawn from them."""
        bias = self.units.bias(mean)
        self.base.copy_(bias)
        self.visible.copy_(bias)
        self.offset_v.copy_(mean)
        self.rest()
        if self.chains:
            here = rng.shared(self.chains)
            v = self.units.sample(bias.expand(self.chains, -1), here, "chain")
            self.chain.copy_(drawn(self.hidden_mean(v), here, "hidden"))

    def _moved(self) -> tuple[tuple[str, nn.Parameter], ...]:
        return ("before", self.weight), ("before_v", self.visible), ("before_h", self.hidden)

    @torch.no_grad()
    def rest(self) -> None:
        """Forget the last move."""
        if self.momentum:
            for name, parameter in self._moved():
                self.get_buffer(name).copy_(parameter)

    @property
    def offsets(self) -> tuple[Tensor, ...]:
        """What several processes add up; see :class:`castalia.core.model.Update`."""
        return self.offset_v, self.offset_h

    # both sides

    def up(self, v: Tensor) -> Tensor:
        """Inputs of the hidden units, ``float32`` (n, hidden)."""
        return torch.addmm(self.hidden, v, self.weight).float()

    def down(self, h: Tensor) -> Tensor:
        """Inputs of the visible units, ``float32`` (n, size)."""
        return torch.addmm(self.visible, h, self.weight.T).float()

    def hidden_mean(self, v: Tensor) -> Tensor:
        """P(h = 1 | v), (n, hidden): the features of v."""
        return torch.sigmoid(self.up(v))

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v), (n,), in the precision of the weights."""
        a = F.linear(v, self.weight.T, self.hidden)
        return -(self.units.log_base(v) + v @ self.visible + F.softplus(a).sum(-1))

    # training

    def step(self, v: Tensor, rng: Rng, rates: Rates, between: Tensor | None = None) -> tuple[Tensor, Logs]:
        """Move the weights by one step for visible vectors (n, size); with ``between`` (size, hidden), those with a 1.

        Returns:
            The negative particles (chains or n, size), and what to log.
        """
        n = len(v)
        if self.chains:
            here, h = rng.shared(self.chains), self.chain
            for k in range(rates.steps - 1):
                other = self.units.sample(self.down(h), here, f"visible {k}")
                h = drawn(self.hidden_mean(other), here, f"hidden {k}")
            other = self.units.sample(self.down(h), here, "visible last")
            both = torch.cat([v, other])
            both_inputs = self.up(both)  # one product for data and chains, which is faster than two
            both_p = torch.sigmoid(both_inputs)
            self.chain.copy_(drawn(both_p[n:], here, "hidden last"))
        else:
            inputs, other_inputs = self.up(v), v
            p, other, other_p = torch.sigmoid(inputs), v, v
            h = drawn(p, rng, "first")
            for k in range(rates.steps):
                other = self.units.sample(self.down(h), rng, f"visible {k}")
                other_inputs = self.up(other)
                other_p = torch.sigmoid(other_inputs)
                if k < rates.steps - 1:
                    h = drawn(other_p, rng, f"hidden {k}")
            both, both_inputs, both_p = (torch.cat(t) for t in ((v, other), (inputs, other_inputs), (p, other_p)))
        m, logs = len(other), {}
        if rates.told:  # before the move: the same in all processes
            few, fewer = slice(0, min(n, LOOKED_AT)), slice(n, n + LOOKED_AT)
            energies = [self._energy(both[rows], both_inputs[rows]).mean() for rows in (few, fewer)]
            logs["free_energy_gap"] = energies[0] - energies[1]
            logs["weight"] = self.weight.norm() / math.sqrt(self.weight.numel())
        v_mean, h_mean = other.mean(0), both_p[n:].mean(0)
        dv, dh = v.mean(0) - v_mean, both_p[:n].mean(0) - h_mean
        both_p[n:] *= -n / m
        dw = (both.T @ both_p).float()  # n times what is wanted
        if rates.centred:
            mu, lam = self.offset_v, self.offset_h
            dw.addmm_(torch.stack([mu, dv], 1), torch.stack([dh, lam]), alpha=-n)
        if between is not None:  # before the biases, which follow what the weights do
            dw.mul_(between)
        if rates.centred:
            mu, lam = self.offset_v, self.offset_h
            dv, dh = dv - dw @ lam / n, dh - mu @ dw / n
            mu.lerp_(v_mean, rates.offsets * rng.share)
            lam.lerp_(h_mean, rates.offsets * rng.share)
        if rates.decay:
            dw.sub_(self.weight, alpha=rates.decay * n)
        for parameter, before, change, rate in (
            (self.weight, self.before, dw, rates.rate / n),
            (self.visible, self.before_v, dv, rates.rate),
            (self.hidden, self.before_h, dh, rates.rate),
        ):
            if self.momentum:
                change.mul_(rate).add_(parameter, alpha=self.momentum).sub_(before, alpha=self.momentum)
                before.copy_(parameter)
                parameter.add_(change)
            else:
                parameter.add_(change, alpha=rate)
        return other, logs

    def _energy(self, v: Tensor, inputs: Tensor) -> Tensor:
        return -(self.units.log_base(v) + v @ self.visible + F.softplus(inputs).sum(-1))

    # sampling

    def gibbs(
        self, v: Tensor, rng: Rng, *, at: float = 1.0, temperature: float = 1.0, inputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """A step v -> h -> v' at a share ``at`` of the way from the independent units to the machine.

        Returns:
            v' (n, size), and the inputs from which it was drawn.
        """
        a = self.up(v) if inputs is None else inputs
        h = Binary(self.size).sample(a if at == 1 else at * a, rng, "hidden", temperature)
        b = self.down(h)
        if at != 1:
            b = torch.lerp(self.base.expand_as(b), b, at)
        return self.units.sample(b, rng, "visible", temperature), b

    # the partition function

    def partition(self, seed: int, temperatures: int, runs: int, *, exact: bool = True) -> Partition:
        """Log Z: summed where one side is small enough, else annealed from both sides.

        It is computed once for the weights as they are.

        Args:
            seed: of the chains.
            temperatures: steps of the annealing.
            runs: chains each way.
            exact: whether it may be summed.
        """
        key = f"{self._state()}/{seed}/{temperatures}/{runs}/{exact}"
        if self._known is None or self._known[0] != key:
            if exact and min(self.size, self.units.size if self.units.countable else self.size) <= EXACT:
                made = Partition(log := self.sum(), "exact", "log Z summed over all states", log, log)
            else:
                rng = BatchRng(seed, total=runs, device=self.weight.device)
                # chains of the training know modes that the forward chains may have missed
                own = self.chain.repeat(-(-runs // len(self.chain)), 1)[:runs] if self.chains else None
                examples = None if own is None else self.units.sample(self.down(own), rng.at("own"), "visible")
                made = anneal(Annealed(self), rng, temperatures, examples, moves=max(100, temperatures // 10))
            self._known = key, made
        return self._known[1]

    def _state(self) -> str:
        """What the partition function depends on, as a short text."""
        found = hashlib.blake2b(digest_size=12)
        for tensor in (self.weight, self.visible, self.hidden, self.base, self.chain):
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    @torch.no_grad()
    def sum(self) -> float:
        """Log Z by summing over all states of the smaller side, in float64."""
        w, b, c = self.weight.double(), self.visible.double(), self.hidden.double()
        by_hidden = self.size <= self.units.size or not self.units.countable
        bits = self.size if by_hidden else self.units.size
        powers = 2 ** torch.arange(bits, device=w.device)
        parts = []
        for start in range(0, 1 << bits, AT_ONCE):
            numbers = torch.arange(start, min(start + AT_ONCE, 1 << bits), device=w.device)
            s = ((numbers[:, None] & powers) != 0).double()
            if by_hidden:
                terms = s @ c + self.units.log_partition(b + s @ w.T)
            else:
                terms = s @ b + F.softplus(c + s @ w).sum(-1)
            parts.append(torch.logsumexp(terms, 0))
        return float(torch.logsumexp(torch.stack(parts), 0))


class Annealed:
    """The path f_t(v) = exp(base(v) + ((1 - t) b_0 + t b) v) prod_j (1 + exp(t (c + v W)_j)) of a machine.

    b_0 are the biases of independent units with the means of the data (Salakhutdinov & Murray 2008).
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.units = machine, machine.units
        self._last: tuple[Tensor, Tensor] | None = None

    def inputs(self, v: Tensor) -> Tensor:
        """Those of the hidden units, computed once for the same vectors."""
        if self._last is None or self._last[0] is not v:
            self._last = v, self.machine.up(v)
        return self._last[1]

    def base(self) -> float:
        m = self.machine
        return m.size * math.log(2) + float(self.units.log_partition(m.base.double()))

    def start(self, rng: Rng) -> Tensor:
        return self.units.sample(self.machine.base.expand(rng.rows, -1), rng, "visible")

    def move(self, x: Tensor, at: float, rng: Rng) -> Tensor:
        return self.machine.gibbs(x, rng, at=at, inputs=self.inputs(x))[0]

    def rise(self, x: Tensor, before: float, after: float) -> Tensor:
        m, a = self.machine, self.inputs(x)
        linear = (after - before) * (x @ (m.visible - m.base))
        return linear.double() + (F.softplus(after * a) - F.softplus(before * a)).sum(-1, dtype=torch.float64)
