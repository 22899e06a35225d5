"""Search in the latent space of an autoencoder, led by a Gaussian process.

Papers
    Gomez-Bombarelli et al. 2018 (arXiv:1610.02415): search among latents by what a Gaussian process predicts.
    Eriksson et al. 2019 (arXiv:1910.01739), TuRBO: within a region around the best, which grows with success and
    shrinks without; Thompson sampling: of each candidate one value of the process is drawn, and the highest are tried.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from castalia.chemistry.molecules import molecules_of, read_smiles
from castalia.core.capabilities import Inference
from castalia.core.data import Batch
from castalia.creative.directed.oracle import Oracle

FIRST, BATCH, CANDIDATES, REMEMBERED = 200, 20, 1_000, 300
WIDEST, NARROWEST = 1.6, 0.05
STALE = 30


def search(
    oracle: Oracle,
    model: Inference,
    start: Batch,
    smiles: Sequence[str],
    rng: np.random.Generator,
) -> None:
    """Search until the oracle's budget is spent.

    Args:
        oracle: what is asked.
        model: encodes and decodes.
        start: molecules to begin with.
        smiles: the same as SMILES.
        rng: decides everything.
    """
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    z = model.encode(start[:FIRST].to(device)).double().cpu().numpy()
    y = oracle([read_smiles(text) for text in smiles[:FIRST]])
    radius, stale = 0.8, 0
    while not oracle.spent and stale < STALE:
        before, best = len(oracle.found), y.max()
        kept = np.argsort(-y, kind="stable")[:REMEMBERED]
        z, y = z[kept], y[kept]
        candidates = _around(z, y, radius, rng)
        chosen = candidates[_drawn(z, y, candidates, rng)]
        made = model.decode(torch.from_numpy(chosen).float().to(device))
        scores = oracle(molecules_of(made.cpu(), model.spec))  # type: ignore[attr-defined]
        z, y = np.concatenate([z, chosen]), np.concatenate([y, scores])
        better = scores.max(initial=0.0) > best + 1e-6
        radius = min(radius * 1.5, WIDEST) if better else max(radius * 0.9, NARROWEST)
        if radius <= NARROWEST:
            radius = 0.8  # begin anew, wide
        stale = stale + 1 if len(oracle.found) == before else 0


def _around(z: np.ndarray, y: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Candidates (CANDIDATES, dims) near the best latents, the better ones more often."""
    weight = np.exp(-np.arange(len(z)) / 10.0)
    centre = z[rng.choice(len(z), CANDIDATES, p=weight / weight.sum())]
    moved = rng.random(centre.shape) < max(0.1, 20 / z.shape[1])  # a few coordinates at a time, as TuRBO does
    return centre + radius * moved * rng.normal(size=centre.shape)


def _drawn(z: np.ndarray, y: np.ndarray, candidates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The numbers of candidates that are tried: each draw of the process names one."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    scale = float(np.sqrt(z.shape[1]))
    kernel = ConstantKernel(1.0) * Matern(scale, (0.1 * scale, 10 * scale), nu=2.5) + WhiteKernel(0.1, (1e-3, 1.0))
    spread = y.std() or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound of the kernel is reached; it serves as well
        process = GaussianProcessRegressor(kernel, alpha=1e-6, random_state=0).fit(z, (y - y.mean()) / spread)
    some = rng.choice(len(candidates), min(len(candidates), 400), replace=False)
    draws = process.sample_y(candidates[some], BATCH, random_state=int(rng.integers(1 << 31)))
    return some[np.unique(draws.argmax(0))]
