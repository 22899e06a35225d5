"""A language model of molecules, written as SMILES or SELFIES.

Papers
    Bagal, Aggarwal, Vinod & Priyakumar 2022, "MolGPT: Molecular Generation Using a Transformer-Decoder Model" (J. Chem.
    Inf. Model. 62): eight blocks of eight heads, 256 wide; 6.4 million parameters with the vocabulary of MOSES.
    Radford et al. 2019 (GPT-2): the network. Weininger 1988 (SMILES); Krenn et al. 2020 (arXiv:1905.13741, SELFIES).

    p(molecule) = prod_t p(x_t | x_1 ... x_{t-1}),  where the token that ends a molecule stands before the first one too

What differs, and why
    The network is the house's GPT-2 (GELU, normalisation before); MolGPT's tells it what is wanted by a further token
    at the front, where here wishes are met after training (``castalia edit direct``), for any score and without a
    training for each.
    The beginning of a molecule can be given, and is continued.

Expected: see ``recipes/smiles_gpt.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.capabilities import Likelihood
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Progress
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given
from castalia.core.spec import Spec
from castalia.core.specs.molecule import MoleculeSpec
from castalia.models.sequence.gpt2 import GPT2, LOGITS, GPT2Config
from castalia.models.sequence.writing import Writing, WritingOptions, full

MOLGPT = GPT2Config(layers=8, heads=8, dim=256)
"""The paper's size."""


class SmilesGPT(GPT2):
    """GPT-2 on rows that are one molecule each."""

    Config = GPT2Config
    spec: MoleculeSpec  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: GPT2Config, spec: MoleculeSpec) -> None:
        if spec.kind == "graph":
            raise UsageError("A language model writes strings: set data.options.kind to smiles or selfies.")
        if config.restarts:
            raise ValueError("restarts are for windows of long texts; every molecule begins anew")
        super().__init__(config, spec)  # pyright: ignore[reportArgumentType]

    def score(self, x: Tensor) -> Tensor:
        """Nats ``float32`` (n,) of whole molecules ``int64`` (n, t), ended and padded with -1; has gradients."""
        begun = F.pad(x[:, :-1], (1, 0), value=self.spec.end)
        logits = full(self(begun)).mT
        return -F.cross_entropy(logits, x, ignore_index=-1, reduction="none").sum(1)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per molecule, averaged over the batch, per place of a row.

        Not per token: the mean over a part of a batch would depend on how long its molecules are, and so what is
        learned on the number of processes.
        """
        nats = -self.score(batch.x).mean()
        return nats / self.spec.length, {"nats_per_molecule": nats.detach()}

    def accepts(self) -> Mapping[str, Spec]:
        return {"prompt": self.spec}

    @torch.no_grad()
    def start(self, n: int, given: Given, rng: SampleRng, options: WritingOptions) -> Writing:
        return super().start(n, opened(given, self.spec.end), rng, options)

    @torch.no_grad()
    def naive(self, n: int, given: Given, rng: SampleRng, options: WritingOptions) -> Batch:
        return super().naive(n, opened(given, self.spec.end), rng, options)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Nats of every molecule, its end included."""
        size = max(1, LOGITS // (batch.x.shape[1] * self.spec.size))
        nats = torch.cat([self.score(rows).double() for rows in batch.x.split(size)])
        return Likelihood(nats, "exact", "all tokens, the end included", "none")


def opened(given: Given, end: int) -> Given:
    """What is given, with the ends of prompts taken off, so that they go on."""
    if "prompt" not in given:
        return given
    prompt = given["prompt"]
    return {**given, "prompt": torch.where(prompt == end, -1, prompt)}
