"""A prior fitted after training: where the encoder really puts the data.

An autoencoder that has learnt well leaves holes: places that its prior N(0, I) visits and its encoder never used.
Samples from there look like nothing. Drawing latents instead from a Gaussian mixture fitted to the encoded
training data (ex-post density estimation, Ghosh et al. 2020, arXiv:1903.12436, section 4) gives better pictures.
It is another model than the one that was trained: likelihoods measured with the trained prior do not hold for it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Inference
from castalia.core.data import Dataset
from castalia.core.rng import SampleRng
from castalia.creative.latents import encode_data

COMPONENTS = 64
"""Components at most; never more than one for ten examples."""

LIMIT = 20_000
"""Examples that are encoded at most."""


@dataclass(frozen=True)
class LatentMixture:
    """A mixture of Gaussians with full covariances over latents.

    Attributes:
        weights: ``float32`` (k,), adding to 1.
        means: ``float32`` (k, z).
        factors: ``float32`` (k, z, z), lower triangular, covariance = factor @ factor.T.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def sample(self, rng: SampleRng, temperature: float = 1.0) -> Tensor:
        """Draw latents ``float32`` (rng.rows, z); ``temperature`` scales the deviation from a component's mean."""
        edges = self.weights.cumsum(0)
        chosen = torch.searchsorted(edges, rng.uniform("component").cpu() * edges[-1]).clamp(max=len(edges) - 1)
        noise = temperature * rng.normal("latent", self.means.shape[1]).cpu()
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], noise)


def fit_mixture(model: Inference, data: Dataset, seed: int = 0) -> LatentMixture:
    """Fit a mixture to the mean latents of a data set by expectation maximisation.

    Args:
        model: any model with latents.
        data: what it was trained on.
        seed: of the start of the fit.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    z = encode_data(model, data, LIMIT)[0].double().numpy()
    k = int(np.clip(len(z) // 10, 1, COMPONENTS))
    # few examples per component: the ridge keeps their covariances from collapsing onto the examples
    ridge = 0.05 * float(z.var(0).mean()) + 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture that is still moving a little is good enough
        found = GaussianMixture(k, covariance_type="full", reg_covar=ridge, max_iter=30, random_state=seed).fit(z)
    covariances = torch.from_numpy(np.asarray(found.covariances_))
    weights, means = (torch.from_numpy(np.asarray(a)).float() for a in (found.weights_, found.means_))
    return LatentMixture(weights, means, torch.linalg.cholesky(covariances).float())
