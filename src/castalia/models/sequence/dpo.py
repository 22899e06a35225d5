"""DPO: a language model that is taught by pairs of answers which of the two people prefer.

Papers
    Rafailov et al. 2023 (arXiv:2305.18290), "Direct Preference Optimization: Your Language Model is Secretly a Reward
    Model": equations 5 and 7. Mitchell 2023, "A note on DPO with noisy preferences": ``noise``.
    Pang et al. 2024 (arXiv:2404.19733), "Iterative Reasoning Preference Optimization", equation 1: ``likelihood``.
    Hu et al. 2021: adapters (``lora.py``).

    r(y) = beta (log pi(y | x) - log pi_ref(y | x)),   loss = -log sigmoid(r(chosen) - r(rejected))

What differs, and why
    The policy is the reference with adapters on: the network that a run starts from is not held twice, and the first
    loss is log 2 to the last bit. So no weights but those of adapters are trained.
    Log-probabilities are sums over prompt and answer. Those of the prompt are the same in both texts and cancel.

Expected: see ``recipes/dpo.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Objective, Progress, Stage
from castalia.core.rng import Rng
from castalia.core.spec import Spec
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.lora import LoRA, LoRAConfig
from castalia.models.sequence.writing import full
from castalia.nn.adapters import AdaptedLinear


@dataclass(frozen=True)
class DPOConfig(LoRAConfig):
    """Configuration of DPO; those of GPT-2 and of adapters are as in LoRA.

    Attributes:
        beta: how dear it is to leave the reference.
        noise: share of the pairs that are believed to be the wrong way round, below a half.
        likelihood: weight of the negative log-likelihood of what was chosen, per token of the context; 0: none.
    """

    beta: float = 0.1
    noise: float = 0.0
    likelihood: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0 or not 0 <= self.noise < 0.5 or self.likelihood < 0:
            raise ValueError("beta must be positive, noise at least 0 and below a half, likelihood not negative")
        if self.restarts:
            raise ValueError("restarts are for windows of long texts; every pair begins anew")


class DPO(LoRA):
    """GPT-2, frozen, with adapters that learn what is preferred."""

    Config = DPOConfig
    config: DPOConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: DPOConfig, spec: TextSpec) -> None:
        if "rejected" not in dict(spec.columns):
            raise UsageError(
                "DPO learns from pairs: rows with prompt, chosen and rejected, and data.options.pairs=true."
            )
        super().__init__(config, spec)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Run a block with the network below, without adapters."""
        layers = [module for module in self.modules() if isinstance(module, AdaptedLinear)]
        try:
            for layer in layers:
                layer.off = True
            yield
        finally:
            for layer in layers:
                layer.off = False

    def score(self, x: Tensor) -> Tensor:
        """Log pi ``float32`` (n,) of texts ``int64`` (n, t), padded with -1, but for their first token."""
        logits = full(self(x[:, :-1])).mT
        return -F.cross_entropy(logits, x[:, 1:], ignore_index=-1, reduction="none").sum(1)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("dpo", self.added, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The loss of pairs, averaged; logged are the share in the right order and by how much."""
        c, texts = self.config, (batch.x, batch.extra["rejected"])
        chosen, rejected = (self.score(x) for x in texts)
        with torch.no_grad(), self.reference():
            before = [self.score(x) for x in texts]
        margin = c.beta * ((chosen - before[0]) - (rejected - before[1]))
        loss = -(1 - c.noise) * F.logsigmoid(margin) - c.noise * F.logsigmoid(-margin)
        whole = (loss - c.likelihood * chosen / self.spec.length).mean()
        right = (margin > 0).float().mean()
        return whole, {"dpo": loss.mean().detach(), "right": right, "margin": margin.mean().detach()}

    def accepts(self) -> dict[str, Spec]:
        return {"prompt": replace(self.spec, columns=())}
