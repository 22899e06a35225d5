"""Which search fits a model, and beginning it."""

from __future__ import annotations

import numpy as np

from castalia.chemistry.properties import score_of
from castalia.core.capabilities import Inference
from castalia.core.errors import UsageError
from castalia.creative.directed import genetic, latent, learned
from castalia.creative.directed.oracle import Oracle
from castalia.estimators.metric import generator
from castalia.media.molecule.table import Molecules
from castalia.models.molecules.smiles_gpt import SmilesGPT

METHODS = ("learned", "latent", "genetic", "screen")


def method_for(model: object, wanted: str) -> str:
    """The search to use.

    Raises:
        UsageError: the model cannot be used so.
    """
    able = {"learned": isinstance(model, SmilesGPT), "latent": isinstance(model, Inference)}
    if wanted == "auto":
        return next((name for name, can in able.items() if can), "genetic")
    if not able.get(wanted, True):
        needs = "a smiles-gpt" if wanted == "learned" else "an autoencoder, such as selfies-vae"
        raise UsageError(f"--how {wanted} needs a run of {needs}; --how genetic needs no model at all.")
    return wanted


def begin(model: object, table: Molecules, method: str, score: str, budget: int, seed: int) -> Oracle:
    """Search with a method of :data:`METHODS` until the budget is spent.

    Args:
        model: what is used, where the method uses one.
        table: molecules to begin with.
        method: how.
        score: of :func:`castalia.chemistry.properties.score_of`.
        budget: calls.
        seed: of everything.

    Raises:
        UsageError: there is no such score.
    """
    oracle = Oracle(score_of(score), budget)
    rng = generator(seed, "directed", method)

    if method == "learned":
        assert isinstance(model, SmilesGPT)
        learned.search(oracle, model, seed, rng)
        return oracle
    count = {"latent": latent.FIRST, "genetic": genetic.POPULATION, "screen": 4 * budget}[method]
    ids = np.sort(generator(seed, "start").permutation(len(table))[:count])
    ids = ids[generator(seed, "order").permutation(len(ids))]
    smiles = [table.files[i] for i in ids.tolist()]
    if method == "genetic":
        genetic.search(oracle, smiles, rng)
    elif method == "latent":
        assert isinstance(model, Inference)
        latent.search(oracle, model, table.batch(ids), smiles, rng)
    else:
        from castalia.chemistry.molecules import read_smiles

        for at in range(0, len(smiles), 100):
            if oracle.spent:
                break
            oracle([read_smiles(text) for text in smiles[at : at + 100]])
    return oracle
