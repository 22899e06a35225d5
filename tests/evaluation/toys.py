"""A linear-Gaussian model whose every likelihood is known in closed form, and data for it."""

import math

import numpy as np
import torch

from castalia.core.capabilities import Density, Inference, Likelihood
from castalia.core.data import Batch, Dataset
from castalia.core.specs.image import ImageSpec


class Pictures(Dataset):
    def __init__(self, x, name="toys"):
        self.x, self.name, self.fingerprint = x, name, f"toys-{len(x)}"
        self.spec = ImageSpec(*x.shape[1:])

    def __len__(self):
        return len(self.x)

    def batch(self, ids, rng=None):
        index = torch.from_numpy(ids)
        return Batch(self.x[index], index)


def random_pictures(n, shape=(1, 2, 2), seed=0):
    g = torch.Generator().manual_seed(seed)
    return Pictures(torch.randint(256, (n, *shape), generator=g, dtype=torch.uint8))


class LinearGaussian(Density, Inference):
    """z ~ N(0, I), v | z ~ N(W z, s^2 I), v = x / 255. The encoder is the true posterior, widened by ``wide``.

    With ``wide`` = 1 every importance weight equals the marginal; wider, the bound is loose and rises with K.
    """

    latent_dims = 2
    device = torch.device("cpu")

    def __init__(self, d=4, noise=0.3, wide=1.0, kind="bound"):
        g = torch.Generator().manual_seed(5)
        self.w = torch.randn(d, 2, generator=g, dtype=torch.float64) * 0.3
        self.noise, self.wide, self.kind = noise, wide, kind
        self.asked = []
        precision = torch.eye(2, dtype=torch.float64) + self.w.T @ self.w / noise**2
        self.cov = torch.linalg.inv(precision)
        self.marginal = torch.distributions.MultivariateNormal(
            torch.zeros(d, dtype=torch.float64),
            self.w @ self.w.T + noise**2 * torch.eye(d, dtype=torch.float64),
        )

    def _flat(self, x):
        return x.flatten(1).double() / 255

    def truth(self, x):
        return self.marginal.log_prob(self._flat(x))

    def encode(self, batch, *, rng=None):
        return self._flat(batch.x) @ self.w @ self.cov / self.noise**2

    def decode(self, z, given=None, *, rng=None):
        return Batch.of(((z @ self.w.T) * 255).round().clamp(0, 255).to(torch.uint8).view(-1, 1, 2, 2))

    def posterior_kl(self, batch):
        var = self.cov.diagonal()
        return 0.5 * (self.encode(batch) ** 2 + var - 1 - var.log())

    def log_likelihood(self, batch, *, rng, samples=1):
        x = batch.x
        self.asked.append((len(x), samples))
        if self.kind == "exact":
            return Likelihood(self.truth(x), "exact", "", "none (8-bit values)")
        scale = self.wide * torch.linalg.cholesky(self.cov)
        noise = rng.normal("latent", samples, 2).double().transpose(0, 1)
        z = self.encode(batch) + noise @ scale.T
        log_q = -0.5 * (noise**2).sum(-1) - math.log(2 * math.pi) - scale.logdet()
        log_prior = -0.5 * (z**2).sum(-1) - math.log(2 * math.pi)
        error = (self._flat(x) - z @ self.w.T) / self.noise
        log_x = (-0.5 * error**2 - math.log(self.noise) - 0.5 * math.log(2 * math.pi)).sum(-1)
        nats = torch.logsumexp(log_x + log_prior - log_q, 0) - math.log(samples)
        return Likelihood(nats, "bound", f"importance weighted, K = {samples}", "none (8-bit values)")


def all_ids(data):
    return np.arange(len(data), dtype=np.int64)
