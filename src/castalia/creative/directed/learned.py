"""A language model taught to please a score, and remembering its best.

Papers
    Olivecrona et al. 2017 (arXiv:1704.07555), REINVENT: the loss  (log p_prior(x) + sigma s(x) - log p_agent(x))^2.
    Gao et al. 2022 (PMO): replay of the best so far; its rate, batch, sigma and sizes of the replay.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

from castalia.chemistry.molecules import canonical, molecules_of
from castalia.core.data import Batch, pad
from castalia.core.rng import SampleRng
from castalia.creative.directed.oracle import Oracle
from castalia.models.molecules.smiles_gpt import SmilesGPT


@dataclass(frozen=True)
class Teaching:
    """How it is taught.

    Attributes:
        batch: molecules of a step.
        lr: rate of Adam.
        sigma: how much a score counts against the prior.
        remembered: molecules that are kept, the best ones.
        replayed: of them that are shown again in each step.
        most: steps at most; so many without anything new end the search too.
    """

    batch: int = 64
    lr: float = 5e-4
    sigma: float = 500.0
    remembered: int = 100
    replayed: int = 24
    most: int = 5_000
    stale: int = 20


def search(
    oracle: Oracle,
    prior: SmilesGPT,
    seed: int,
    rng: np.random.Generator,
    how: Teaching | None = None,
) -> SmilesGPT:
    """Teach a copy of ``prior`` until the oracle's budget is spent.

    Returns:
        The copy.
    """
    how = how or Teaching()
    agent = copy.deepcopy(prior).eval()  # without dropout: both must speak of the same distribution
    agent.requires_grad_(True)
    optimizer = torch.optim.Adam(agent.parameters(), lr=how.lr)
    memory: dict[str, tuple[float, torch.Tensor]] = {}
    stale = 0
    for step in range(how.most):
        if oracle.spent or stale >= how.stale:
            break
        before = len(oracle.found)
        rows = range(step * how.batch, (step + 1) * how.batch)
        made = agent.sample(how.batch, rng=SampleRng(seed, rows))
        # of several that are the same molecule one is enough
        mols = molecules_of(made.cpu(), prior.spec)
        keys = [None if mol is None else canonical(mol) for mol in mols]
        first = [i for i, key in enumerate(keys) if key is None or keys.index(key) == i]
        scores = oracle([mols[i] for i in first])
        x, wanted = [made.x[i : i + 1] for i in first], list(scores)
        if len(memory) >= how.replayed:
            best = sorted(memory.values(), key=lambda pair: -pair[0])
            weight = np.array([max(score, 0) for score, _ in best]) + 1e-9
            for i in rng.choice(len(best), how.replayed, replace=False, p=weight / weight.sum()).tolist():
                wanted.append(best[i][0])
                x.append(best[i][1])
        _teach(agent, prior, optimizer, pad(x, -1), np.array(wanted), how.sigma)
        for i, score in zip(first, scores, strict=True):
            key = keys[i]
            if key is not None and score > 0:
                memory[key] = (float(score), made.x[i : i + 1])
        memory = dict(sorted(memory.items(), key=lambda pair: -pair[1][0])[: how.remembered])
        stale = stale + 1 if len(oracle.found) == before else 0
    return agent


def _teach(
    agent: SmilesGPT,
    prior: SmilesGPT,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    scores: np.ndarray,
    sigma: float,
) -> None:
    wanted = torch.from_numpy(scores).float().to(x.device)
    with torch.no_grad():
        target = prior.score(x) + sigma * wanted
    with torch.enable_grad():
        loss = (target - agent.score(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
    optimizer.step()


def drawn(agent: SmilesGPT, n: int, seed: int) -> Batch:
    """New molecules of a taught model."""
    return agent.sample(n, rng=SampleRng(seed, range(n)))
