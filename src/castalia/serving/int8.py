"""Weights as whole numbers of eight bits: a quarter of the memory that has to be read for every token.

    y = s_w s_x (q_w q_x) + b,   q_w = round(w / s_w),   s_w = max |w| / 127 of each row of a matrix, s_x of each token

Products of whole numbers are exact, so that a token's numbers do not depend on those beside it. What is lost is lost in
rounding: texts are others than those of the float model, about as good. Only matrices are rounded; normalisations,
embeddings (but as the head) and attention stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.model import Generator
from castalia.models.sequence.gpt2 import GPT2
from castalia.models.sequence.gpt_modern import GPTModern
from castalia.models.sequence.lora import LoRA


class Int8Linear(nn.Module):
    """A linear layer whose matrix is of eight bits.

    Args:
        weight: the matrix (outputs, inputs).
        bias: (outputs,), or none.
    """

    matrix: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        weight = weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("matrix", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), ``float32``."""
        if x.device.type != "cpu":  # where small products of whole numbers are not to be had
            y = F.linear(x.float(), self.matrix.float()) * self.scale
            return y if self.bias is None else y + self.bias
        rows = x.reshape(-1, x.shape[-1]).float()
        size = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        y = (
            torch._int_mm(  # pyright: ignore[reportPrivateImportUsage]
                (rows / size).round().to(torch.int8), self.matrix.t()
            ).float()
            * size
            * self.scale
        )
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1)


@torch.no_grad()
def to_int8(model: Generator) -> Generator:
    """Round the matrices of a model, in place: it can write texts then, and nothing else."""
    if isinstance(model, LoRA):
        model.merge()
    for module in list(model.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Linear):
                setattr(module, name, Int8Linear(part.weight, part.bias))
    if isinstance(model, GPT2):  # the head is a table, not a layer
        scale = model.config.head_scale if isinstance(model, GPTModern) else 1.0
        head = Int8Linear((model.head if isinstance(model, GPTModern) else model.tokens).weight)
        object.__setattr__(model, "logits", lambda h: head(h) * scale)
    return model
