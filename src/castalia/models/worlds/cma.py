"""CMA-ES: a population that learns its own covariance, with all its state in buffers.

Hansen 2016, "The CMA Evolution Strategy: A Tutorial" (arXiv:1604.00772), with positive weights only; the
diagonal form is that of Ros & Hansen 2008 ("A Simple Modification in CMA-ES Achieving Linear Time and Space
Complexity").
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Covariance = Literal["full", "diagonal"]


class CMA(nn.Module):
    """Looks for numbers with a large fitness. All buffers are ``float64``.

    Args:
        size: how many numbers.
        population: candidates of a generation, at least 4.
        sigma: deviation at the beginning.
        covariance: ``full``, or ``diagonal``: linear in ``size``, and quicker to adapt.
    """

    def __init__(self, size: int, population: int, sigma: float, covariance: Covariance = "full") -> None:
        super().__init__()
        n, self.size, self.population, self.diagonal = size, size, population, covariance == "diagonal"
        parents = population // 2
        raw = [math.log((population + 1) / 2) - math.log(i + 1) for i in range(parents)]
        self.weights = tuple(weight / sum(raw) for weight in raw)
        mass = self.mass = 1 / sum(weight**2 for weight in self.weights)
        self.cs = (mass + 2) / (n + mass + 5)
        self.damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + self.cs
        self.cc = (4 + mass / n) / (n + 4 + 2 * mass / n)
        quicker = (n + 2) / 3 if self.diagonal else 1.0
        self.c1 = min(1.0, quicker * 2 / ((n + 1.3) ** 2 + mass))
        self.cmu = min(1 - self.c1, quicker * 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass))
        self.expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
        # the axes are found anew once the covariance has changed by about a tenth
        self.lazy = max(1, int(1 / (10 * n * (self.c1 + self.cmu))))
        kind = torch.float64
        shape = (n,) if self.diagonal else (n, n)
        self.register_buffer("mean", torch.zeros(n, dtype=kind))
        self.register_buffer("sigma", torch.tensor(float(sigma), dtype=kind))
        self.register_buffer("covariance", torch.ones(n, dtype=kind) if self.diagonal else torch.eye(n, dtype=kind))
        self.register_buffer("axes", torch.ones(shape, dtype=kind) if self.diagonal else torch.eye(n, dtype=kind))
        self.register_buffer("lengths", torch.ones(n, dtype=kind))
        self.register_buffer("path", torch.zeros(n, dtype=kind))
        self.register_buffer("step_path", torch.zeros(n, dtype=kind))
        self.register_buffer("generation", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best", torch.zeros(n, dtype=kind))
        self.register_buffer("best_fitness", torch.tensor(-torch.finfo(kind).max, dtype=kind))

    mean: Tensor
    sigma: Tensor
    covariance: Tensor
    axes: Tensor
    lengths: Tensor
    path: Tensor
    step_path: Tensor
    generation: Tensor
    best: Tensor
    best_fitness: Tensor

    def ask(self, noise: Tensor) -> Tensor:
        """Candidates ``float64`` (P, size) from standard normal numbers (P, size)."""
        z = noise.double() * self.lengths
        return self.mean + self.sigma * (z if self.diagonal else z @ self.axes.T)

    @torch.no_grad()
    def tell(self, x: Tensor, fitness: Tensor) -> None:
        """Learn from a generation.

        Args:
            x: what :meth:`ask` gave (P, size).
            fitness: of each, ``float64`` (P,), more is better; what is not a number counts as worst.
        """
        fitness = torch.where(fitness.isnan(), -torch.inf, fitness.double())
        order = fitness.argsort(descending=True, stable=True)
        if fitness[order[0]] > self.best_fitness:
            self.best_fitness.copy_(fitness[order[0]])
            self.best.copy_(x[order[0]])
        weights = torch.tensor(self.weights, dtype=torch.float64, device=x.device)
        steps = (x[order[: len(weights)]] - self.mean) / self.sigma
        move = weights @ steps
        self.mean += self.sigma * move
        self.generation += 1
        # the path of the steps in the population's own units says whether they are too short or too long
        white = move / self.lengths if self.diagonal else self.axes @ ((self.axes.T @ move) / self.lengths)
        self.step_path.mul_(1 - self.cs).add_(math.sqrt(self.cs * (2 - self.cs) * self.mass) * white)
        length = self.step_path.norm()
        usual = torch.sqrt(1 - torch.pow(torch.tensor(1 - self.cs, dtype=torch.float64), 2.0 * self.generation.cpu()))
        moving = bool(length / usual.to(length) < (1.4 + 2 / (self.size + 1)) * self.expected)
        self.path.mul_(1 - self.cc)
        if moving:
            self.path.add_(math.sqrt(self.cc * (2 - self.cc) * self.mass) * move)
        # where the path stands still, what it would have added to the covariance is given back
        keep = 1 - self.c1 - self.cmu + (0.0 if moving else self.c1 * self.cc * (2 - self.cc))
        if self.diagonal:
            new = self.c1 * self.path.square() + self.cmu * (weights @ steps.square())
        else:
            new = self.c1 * torch.outer(self.path, self.path) + self.cmu * (steps.T * weights) @ steps
        self.covariance.mul_(keep).add_(new)
        self.sigma.mul_(torch.exp(torch.clamp((self.cs / self.damping) * (length / self.expected - 1), max=1.0)))
        if int(self.generation) % self.lazy == 0:
            self._axes()

    def _axes(self) -> None:
        """Axes of the population and their lengths, from the covariance."""
        if self.diagonal:
            self.lengths.copy_(self.covariance.clamp(min=1e-20).sqrt())
            return
        self.covariance.copy_((self.covariance + self.covariance.T) / 2)
        values, vectors = torch.linalg.eigh(self.covariance)
        self.lengths.copy_(values.clamp(min=1e-20).sqrt())
        self.axes.copy_(vectors)
