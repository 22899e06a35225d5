"""What one window of a GPT costs: parameters, operations, and what is kept for the backward pass.

Parameters are counted on a network without memory (torch's ``meta`` device), so that 175 thousand million of them take
seconds. Operations are those of matrix products, two for each multiplication, with attention to the whole square of a
window, as ``torch.utils.flop_counter`` and papers count them. What is kept follows the code of the blocks: the tensors
that autograd saves under autocast, with a fused kernel of attention. Korthikanti et al. 2022 (arXiv:2205.05198) do the
same for one block of GPT-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from castalia.core.errors import UsageError
from castalia.core.model import Cut
from castalia.core.precision import Precision
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.gpt3 import GPT3
from castalia.models.sequence.gpt_modern import GPTModern, GPTModernConfig, ModernBlock
from castalia.nn.banded import BandedAttention
from castalia.nn.causal import CausalBlock

KNOWN: tuple[type[GPT2], ...] = (GPT2, GPT3, GPTModern)
"""Systems whose costs are known."""

WIDE = 4
"""Bytes of a number of float32, which parameters, gradients, moments and the residual stream have."""


@dataclass(frozen=True)
class Piece:
    """A block, or what stands around the blocks. Bytes and operations are of one window.

    Attributes:
        split: parameters of which a tensor-parallel process has its part.
        whole: parameters that each of them has.
        multiplied: of all these, those of matrices: under autocast each has a copy in the narrow type.
        operations: of the forward pass that are shared by tensor-parallel processes; the backward pass has twice as
            many.
        repeated: operations that each of them does.
        kept_split: bytes kept for the backward pass, of which a tensor-parallel process has its part.
        kept_whole: bytes that each of them keeps.
        fixed: bytes that are kept once, however many windows there are.
        entry: bytes of its input, which is all that is kept where it is computed again.
        passing: bytes needed for a while at the peak.
        added: bytes that are added up over tensor-parallel processes in the forward pass, behind layers cut by inputs.
        returned: the same of gradients in the backward pass, before layers cut by outputs.
    """

    split: int = 0
    whole: int = 0
    multiplied: int = 0
    operations: float = 0.0
    repeated: float = 0.0
    kept_split: float = 0.0
    kept_whole: float = 0.0
    fixed: float = 0.0
    entry: float = 0.0
    passing: float = 0.0
    added: float = 0.0
    returned: float = 0.0


@dataclass(frozen=True)
class Costs:
    """Of a network and one window of its context.

    Attributes:
        blocks: in order.
        around: embeddings, the last normalisation, the head and the loss.
        cache: bytes of keys and values of one text that fills the context, in the narrow type.
        length: tokens of a window.
        narrow: bytes of a number in matrix products.
    """

    blocks: tuple[Piece, ...]
    around: Piece
    cache: int
    length: int
    narrow: int

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All of it."""
        return (*self.blocks, self.around)

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(p.split + p.whole for p in self.pieces)

    @property
    def forward(self) -> float:
        """Operations of a window's forward pass."""
        return sum(p.operations + p.repeated for p in self.pieces)

    @property
    def kept(self) -> float:
        """Bytes that one window keeps for its backward pass, without recomputation."""
        return sum(p.kept_split + p.kept_whole + p.fixed for p in self.pieces)


def of_system(kind: type, config: GPT2Config | GPTModernConfig, spec: TextSpec, precision: Precision) -> Costs:
    """The costs of a system; its network takes no memory.

    Raises:
        UsageError: it is none of those that are known.
    """
    if kind not in KNOWN:
        raise UsageError("castalia plan knows gpt2, gpt3 and gpt-modern; what other systems cost is not worked out.")
    with torch.device("meta"):  # not by ``build``, which leaves the caller's device
        model = kind(config, spec)
    assert isinstance(model, GPT2)
    return of_model(model, precision)


def of_model(model: GPT2, precision: Precision) -> Costs:
    """The costs of a network, which may be on the ``meta`` device."""
    narrow = 2 if precision == "bfloat16" else WIDE
    length = model.spec.length
    blocks = tuple(_block(block, model, length, narrow) for block in model.blocks)
    inside = sum(b.split + b.whole for b in blocks)
    total = sum(p.numel() for p in model.parameters())
    dim, size = model.config.dim, model.spec.size
    statistics = WIDE if isinstance(model, GPTModern) else 2 * WIDE  # of the last normalisation
    first = dim * WIDE + WIDE if isinstance(model, GPTModern) else 0  # the modern one normalises the embedding, too
    token = first + dim * WIDE + statistics  # what is normalised
    token += dim * narrow + size * WIDE  # what the head multiplies, and logarithms of probabilities
    dropped = dim if model.config.dropout else 0
    around = Piece(
        whole=total - inside,
        multiplied=size * dim,
        repeated=2.0 * length * size * dim,
        kept_whole=float(length * (token + dropped + 16)),  # 16: the token itself and the one that came next
        entry=float(length * dim * WIDE),
        passing=float(length * size * (WIDE + (narrow if narrow < WIDE else 0))),
    )
    with torch.device("meta"):
        caches = model.caches(1, torch.bfloat16 if narrow == 2 else torch.float32)
    cache = sum(t.numel() * t.element_size() for c in caches for t in (c.keys, c.values))
    return Costs(blocks, around, cache, length, narrow)


def _block(block: nn.Module, model: GPT2, length: int, narrow: int) -> Piece:
    if isinstance(block, ModernBlock):
        return _modern(block, model.cuts, length, narrow)
    assert isinstance(block, CausalBlock)
    return _causal(block, model.cuts, length, narrow)


def _causal(block: CausalBlock, cuts: Mapping[str, Cut], length: int, narrow: int) -> Piece:
    split, whole, matrices = _parameters(block, cuts)
    attention = block.attention
    dim, inner, hidden, heads = (
        attention.out.out_features,
        attention.out.in_features,
        block.up.out_features,
        attention.heads,
    )
    seen, scores, keys, fixed = length, WIDE, 1, 0.0
    if isinstance(attention, BandedAttention):
        band = attention.band
        if length > 2 * band:  # blocks of a band look at two; no fused kernel takes them, so that weights are kept
            seen, keys, scores = 2 * band, 2, 2 * band * narrow
        elif band < length:
            fixed = float(length * length * narrow)  # a mask
    token_split = (
        inner * narrow * (1 + 2 * keys)  # queries, keys, values
        + heads * scores  # the sums of softmax, or the weights themselves
        + inner * narrow  # what heads found
        + 2 * hidden * narrow  # before and after GELU
    )
    token_whole = (
        2 * (dim * WIDE + 2 * WIDE)  # what is normalised, with mean and deviation
        + 2 * dim * narrow  # what is multiplied after that
        + (2 * dim if block.dropout else 0)  # which were dropped
    )
    return Piece(
        split=split,
        whole=whole,
        multiplied=matrices,
        operations=float(length * (2 * matrices + 4 * seen * inner)),
        kept_split=float(length * token_split),
        kept_whole=float(length * token_whole),
        fixed=fixed,
        entry=float(length * dim * WIDE),
        added=float(2 * length * dim * narrow),
        returned=float(2 * length * dim * narrow),  # the perceptron's, and of queries, keys and values
    )


def _modern(block: ModernBlock, cuts: Mapping[str, Cut], length: int, narrow: int) -> Piece:
    split, whole, matrices = _parameters(block, cuts)
    dim, hidden, heads = block.q.in_features, block.up.out_features, block.heads
    inner = block.q.out_features
    copies = 3 if narrow < WIDE else 1  # autocast makes one for each of three products
    token_split = (
        2 * (inner * WIDE + heads * WIDE)  # queries and keys before they are normalised, with their deviations
        + 3 * inner * narrow  # queries, keys, values
        + heads * WIDE  # the sums of softmax
        + 2 * inner * narrow  # what heads found, and in the order in which it is multiplied
        + 2 * hidden * narrow  # behind the ReLU, and its square
    )
    token_whole = (
        2 * (dim * WIDE + WIDE)  # what is normalised, with its deviation
        + (copies + 1) * dim * narrow  # what is multiplied after that
        + (2 * dim if block.dropout else 0)
    )
    return Piece(
        split=split,
        whole=whole,
        multiplied=matrices,
        operations=float(length * (2 * matrices + 4 * length * inner)),
        kept_split=float(length * token_split),
        kept_whole=float(length * token_whole),
        fixed=float(length * (inner // heads) * 2 * narrow),  # sines and cosines of queries and of keys
        entry=float(length * dim * WIDE),
        added=float(2 * length * dim * narrow),
        returned=float(4 * length * dim * narrow),  # the perceptron's, queries', keys' and values'
    )


def _parameters(block: nn.Module, cuts: Mapping[str, Cut]) -> tuple[int, int, int]:
    """Parameters that are cut, those that are not, and those of matrices."""
    split = 0
    for name, cut in cuts.items():
        layer = block.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        split += layer.weight.numel()
        if layer.bias is not None and cut.of == "outputs":
            split += layer.bias.numel()
    total = sum(p.numel() for p in block.parameters())
    matrices = sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))
    return split, total - split, matrices
