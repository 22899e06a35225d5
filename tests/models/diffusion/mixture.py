"""A mixture of Gaussians whose denoiser, density and moments are known: the truth that samplers are measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


class Mixture:
    """Five anisotropic Gaussians in the plane, in ``float64``."""

    def __init__(self, seed: int = 1, components: int = 5, dims: int = 2) -> None:
        g = torch.Generator().manual_seed(seed)
        self.means = torch.randn(components, dims, generator=g, dtype=torch.float64)
        roots = 0.4 * torch.randn(components, dims, dims, generator=g, dtype=torch.float64)
        covariances = roots @ roots.mT + 0.05 * torch.eye(dims, dtype=torch.float64)
        self.weights = torch.softmax(0.5 * torch.randn(components, generator=g, dtype=torch.float64), 0)
        self.variances, self.axes = torch.linalg.eigh(covariances)
        self.covariances = covariances

    def _parts(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets along the axes, total variances, and joint log-densities (B, K), at noise level ``sigma``."""
        y = torch.einsum("kij,bki->bkj", self.axes, x[:, None] - self.means)
        total = self.variances + sigma**2
        log_p = self.weights.log() - 0.5 * (y**2 / total + total.log() + math.log(2 * math.pi)).sum(-1)
        return y, total, log_p

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        y, total, log_p = self._parts(x, sigma)
        means = self.means + torch.einsum("kij,bkj->bki", self.axes, y * (self.variances / total))
        return (torch.softmax(log_p, 1)[..., None] * means).sum(1)

    def log_density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        return torch.logsumexp(self._parts(x, sigma)[2], 1)

    def moments(self) -> tuple[Tensor, Tensor]:
        mean = self.weights @ self.means
        centred = self.means - mean
        within = (self.weights[:, None, None] * self.covariances).sum(0)
        return mean, within + torch.einsum("k,ki,kj->ij", self.weights, centred, centred)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=g)
        z = torch.randn(n, self.means.shape[1], generator=g, dtype=torch.float64)
        return self.means[chosen] + torch.einsum("bij,bj->bi", self.axes[chosen], z * self.variances[chosen].sqrt())

    def flow(self, x: Tensor, sigmas: Sequence[float]) -> Tensor:
        """The probability-flow equation, by the classic Runge-Kutta method in log sigma."""
        for a, b in pairwise(sigmas):
            h, middle = math.log(b / a), math.sqrt(a * b)
            k1 = x - self.denoise(x, a)
            k2 = x + h / 2 * k1 - self.denoise(x + h / 2 * k1, middle)
            k3 = x + h / 2 * k2 - self.denoise(x + h / 2 * k2, middle)
            k4 = x + h * k3 - self.denoise(x + h * k3, b)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x


def noise_source(seed: int, like: Tensor):
    """Noise for samplers: step i is drawn from a stream of its own."""

    def noise(step: int) -> Tensor:
        g = torch.Generator().manual_seed(seed * 100_003 + step)
        return torch.randn(like.shape, generator=g, dtype=like.dtype)

    return noise
