"""LoRA: a language model that is taught a manner by a small addition to its matrices, while they stay as they are.

Papers
    Hu et al. 2021 (arXiv:2106.09685), "LoRA: Low-Rank Adaptation of Large Language Models": equation 3, section 4.
    Radford et al. 2019: the network below is GPT-2 (``gpt2.py``), and a run of it is the start (``--start``).

    h = W x + (alpha / r) B A x,   A of r rows from U(-sqrt(1 / n), sqrt(1 / n)) for n columns, B = 0 at first

What differs, and why
    A starts as in the authors' code (Kaiming's uniform with a = sqrt 5), where the paper says Gaussian.
    The paper adapts queries and values; GPT-2's queries, keys and values are one matrix here (``qkv``), as in the
    authors' code for it. ``targets`` may name the other matrices too.
    Without a run to start from the frozen part is a random network: of use in tests only.

Expected: see ``recipes/lora.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.model import Cut, Objective, Stage
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.nn.causal import CausalBlock

Target = Literal["qkv", "out", "up", "down"]


@dataclass(frozen=True)
class LoRAConfig(GPT2Config):
    """Configuration of LoRA on GPT-2; the first six options are those of the run that it starts from.

    Attributes:
        layers: blocks.
        heads: of attention.
        dim: of a token.
        dropout: share that is dropped inside the network, which is 0 where it is frozen.
        init: standard deviation of the weights at the start, where there is no run to start from.
        restarts: share of training windows that are read as beginnings of texts.
        rank: r, of what is added to a matrix.
        alpha: what is added is multiplied by alpha / r.
        targets: to which matrices: of attention ``qkv`` and ``out``, of the perceptron ``up`` and ``down``.
        drop: share that is dropped of what an adapter reads.
    """

    rank: int = 8
    alpha: float = 32.0
    targets: tuple[Target, ...] = ("qkv",)
    drop: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.drop < 1:
            raise ValueError("rank and alpha must be positive, drop is a share")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets names at least one of {', '.join(get_args(Target))}, each once")


class Adapter(nn.Module):
    """(alpha / r) B A x.

    Args:
        inputs: numbers of x.
        outputs: of what is added.
        config: of the system.
    """

    def __init__(self, inputs: int, outputs: int, config: LoRAConfig) -> None:
        super().__init__()
        self.scale, self.drop = config.alpha / config.rank, config.drop
        self.a, self.b = nn.Linear(inputs, config.rank, bias=False), nn.Linear(config.rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.a.weight, math.sqrt(5))
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What is added for (..., inputs)."""
        return self.scale * self.b(self.a(F.dropout(x, self.drop, self.training)))

    def matrix(self) -> Tensor:
        """The matrix (outputs, inputs) that is added."""
        return self.scale * self.b.weight @ self.a.weight


class AdaptedLinear(nn.Linear):
    """A linear layer beside an adapter, which is no part of it: so the one can be frozen and the other not.

    Args:
        inputs: numbers that it reads.
        outputs: that it gives.
        adapter: what is added.

    Attributes:
        merged: whether it has been put into the matrix.
        off: whether it is left out for now.
    """

    def __init__(self, inputs: int, outputs: int, adapter: Adapter) -> None:
        super().__init__(inputs, outputs)
        self.beside = (adapter,)
        self.merged = self.off = False

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return y if self.merged or self.off else y + self.beside[0](input)


class LoRA(GPT2):
    """GPT-2, frozen, with adapters."""

    Config = LoRAConfig
    config: LoRAConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    shard_units = ()
    cuts: ClassVar[Mapping[str, Cut]] = {}

    def __init__(self, config: LoRAConfig, spec: TextSpec) -> None:
        super().__init__(config, spec)
        self.added = nn.ModuleDict()
        for number, block in enumerate(self.blocks):
            assert isinstance(block, CausalBlock)
            for name in config.targets:
                owner = block.attention if name in ("qkv", "out") else block
                old: nn.Linear = getattr(owner, name)
                adapter = Adapter(old.in_features, old.out_features, config)
                new = AdaptedLinear(old.in_features, old.out_features, adapter)
                new.load_state_dict(old.state_dict())
                setattr(owner, name, new)
                self.added[f"{number}-{name}"] = adapter

    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.tokens, self.places, self.blocks, self.norm)

    def adapters(self) -> tuple[nn.Module, ...]:
        return (self.added,)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("lora", self.added, self.loss),)),)

    # into the matrices and out again

    @torch.no_grad()
    def merge(self) -> None:
        """Put what is added into the matrices: the same function, at no further cost. Not for training."""
        self._into(1)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take it out again."""
        self._into(-1)

    def _into(self, sign: int) -> None:
        for module in self.modules():
            if isinstance(module, AdaptedLinear) and module.merged == (sign < 0):
                module.weight += sign * module.beside[0].matrix().to(module.weight.dtype)
                module.merged = sign > 0

    @torch.no_grad()
    def plain(self) -> Mapping[str, Tensor]:
        """Weights of a GPT-2 that is the same function, by its names."""
        state = {key: value.clone() for key, value in self.state_dict().items() if not key.startswith("added.")}
        for name, module in self.named_modules():
            if isinstance(module, AdaptedLinear) and not module.merged:
                state[f"{name}.weight"] += module.beside[0].matrix()
        return state
