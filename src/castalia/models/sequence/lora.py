"""LoRA: a language model that is taught a manner by a small addition to its matrices, while they stay as they are.

Papers
    Hu et al. 2021 (arXiv:2106.09685), "LoRA: Low-Rank Adaptation of Large Language Models": equation 3, section 4.
    Radford et al. 2019: the network below is GPT-2 (``gpt2.py``), and a run of it is the start (``--start``).

    h = W x + (alpha / r) B A x,   A of r rows from U(-sqrt(1 / n), sqrt(1 / n)) for n columns, B = 0 at first

What differs, and why
    A starts as in the authors' code, see ``nn/adapters.py``.
    The paper adapts queries and values; GPT-2's queries, keys and values are one matrix here (``qkv``), as in the
    authors' code for it. ``targets`` may name the other matrices too.
    Without a run to start from the frozen part is a random network: of use in tests only.

Expected: see ``recipes/lora.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from castalia.core.model import Cut, Objective, Stage
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.nn.adapters import AdaptedLinear, Adapter, merge, plain_state
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
                adapter = Adapter(old.in_features, old.out_features, config.rank, config.alpha, config.drop)
                setattr(owner, name, AdaptedLinear.of(old, adapter))
                self.added[f"{number}-{name}"] = adapter

    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.tokens, self.places, self.blocks, self.norm)

    def adapters(self) -> tuple[nn.Module, ...]:
        return (self.added,)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("lora", self.added, self.loss),)),)

    # into the matrices and out again

    def merge(self) -> None:
        """Put what is added into the matrices: the same function, at no further cost. Not for training."""
        merge(self)

    def unmerge(self) -> None:
        """Take it out again."""
        merge(self, -1)

    def plain(self) -> Mapping[str, Tensor]:
        """Weights of a GPT-2 that is the same function, by its names."""
        return plain_state(self, "added.")
