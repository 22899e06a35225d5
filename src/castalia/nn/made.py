"""Networks in which no output sees the value that it is about, nor any later one.

Papers
    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation" (arXiv:1502.03509), eq. 8 and 9: every
    unit has a degree, and sees units of at most its own (hidden) or of a smaller one (outputs).
    The residual form: Durkan et al. 2019 (arXiv:1906.04032), section 4.1.

What differs, and why
    Degrees of hidden units run through 0 to D - 1 in turn where there is a context, so that the first value, which sees
    no other, is not blind for it; what conditional masks often forget. They are never drawn.
    :meth:`MADE.begin` computes the units of one degree at a time. Values that are found one after another, as in a
    sample, so take the work of a single pass, and not of one for each value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "elu": F.elu}


class Masked(nn.Module):
    """A linear map in which output j sees input i only where ``sees[j, i]``.

    Args:
        sees: ``bool`` (outputs, inputs).
    """

    mask: Tensor

    def __init__(self, sees: Tensor) -> None:
        super().__init__()
        layer = nn.Linear(sees.shape[1], sees.shape[0])
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("mask", sees.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)

    def rows(self, x: Tensor, at: slice) -> Tensor:
        """Outputs ``at`` alone."""
        return F.linear(x, self.weight[at] * self.mask[at], self.bias[at])


@dataclass
class Underway:
    """What is known of a network while its input is found value by value.

    Attributes:
        x: the values so far (B, D); zero where none is known.
        hidden: values of each hidden layer (B, width) before its nonlinearity; zero where they are not known, and then
            nothing that is asked for sees them.
        context: what the context adds to the first layer and to the outputs.
    """

    x: Tensor
    hidden: list[Tensor]
    context: tuple[Tensor, Tensor] | None


class MADE(nn.Module):
    """Vectors (B, D) to (B, outputs * D), where those of a value see the values before it, and the context.

    Args:
        dims: D.
        widths: of the hidden layers. In the residual form all are equal: the first is a linear map, every two that
            follow are a block.
        outputs: numbers for each value; the first D are the first of each.
        order: degree of each value, the numbers 1 to D in some order; None for their own order.
        context: length of a vector that every output may see; 0 for none.
        activation: ``relu``, ``tanh`` or ``elu``.
        residual: whether hidden layers are residual blocks (pre-activation).
        dropout: residual: share of units dropped in the middle of each block, in training.
        still: whether the outputs start at zero.
    """

    def __init__(
        self,
        dims: int,
        widths: tuple[int, ...],
        outputs: int,
        *,
        order: Sequence[int] | None = None,
        context: int = 0,
        activation: str = "relu",
        residual: bool = False,
        dropout: float = 0.0,
        still: bool = True,
    ) -> None:
        super().__init__()
        if residual and (len(set(widths)) != 1 or len(widths) % 2 == 0):
            raise ValueError("residual blocks need an odd number of hidden layers of equal width")
        self.dims, self.outputs, self.residual, self.dropout = dims, outputs, residual, dropout
        self.act = ACTIVATIONS[activation]
        degrees = list(range(1, dims + 1)) if order is None else list(order)
        if sorted(degrees) != list(range(1, dims + 1)):
            raise ValueError(f"order must hold the numbers 1 to {dims}, each once")
        degree = torch.tensor(degrees)
        self.least = 0 if context or dims == 1 else 1
        self.count = max(dims - self.least, 1)  # of degrees among hidden units, which have them in turn
        hidden = [torch.arange(width) % self.count + self.least for width in widths]
        below = [degree, *hidden]
        self.layers = nn.ModuleList(Masked(b[:, None] >= a) for a, b in zip(below, hidden, strict=False))
        self.last = Masked(degree.repeat(outputs)[:, None] > hidden[-1])
        self.into = nn.Linear(context, widths[0], bias=False) if context else None
        self.past = nn.Linear(context, outputs * dims, bias=False) if context else None
        if still:
            for part in (self.last, self.past):
                if part is not None:
                    nn.init.zeros_(part.weight)
            nn.init.zeros_(self.last.bias)
        self.places = sorted(range(dims), key=lambda p: degrees[p])  # places[d - 1] is the value of degree d

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs for examples (B, D) and contexts (B, C)."""
        h = self.layers[0](x)
        if self.into is not None:
            assert context is not None
            h = h + self.into(context)
        if self.residual:
            for one, two in zip(self.layers[1::2], self.layers[2::2], strict=True):
                inner = F.dropout(self.act(one(self.act(h))), self.dropout, self.training)
                h = h + two(inner)
        else:
            for layer in self.layers[1:]:
                h = layer(self.act(h))
            h = self.act(h)
        y = self.last(h)
        return y if self.past is None else y + self.past(context)

    # value by value

    def begin(self, n: int, like: Tensor, context: Tensor | None = None) -> Underway:
        """Nothing is known yet of ``n`` examples of the type and device of ``like``."""
        x = like.new_zeros(n, self.dims)
        hidden = [like.new_zeros(n, layer.weight.shape[0]) for layer in self._all()]
        added = None
        if self.into is not None and self.past is not None:
            assert context is not None
            added = self.into(context).to(like.dtype), self.past(context).to(like.dtype)
        return Underway(x, hidden, added)

    def _all(self) -> list[Masked]:
        return list(self.layers)  # type: ignore[arg-type]

    def next(self, state: Underway, number: int) -> Tensor:
        """The outputs (B, outputs) for the value of degree ``number`` + 1; all before it have been told to :meth:`put`.

        In evaluation mode; to be called for ``number`` 0, 1, ... in turn.
        """
        layers, h = self._all(), state.hidden
        if number >= self.least:  # units of that degree are new
            at = slice(number - self.least, None, self.count)
            h[0][:, at] = layers[0].rows(state.x, at)
            if state.context is not None:
                h[0][:, at] += state.context[0][:, at]
            if self.residual:
                for i in range(1, len(layers), 2):  # h[i + 1] is the sum after the block, h[i] its middle
                    h[i][:, at] = layers[i].rows(self.act(h[i - 1]), at)
                    h[i + 1][:, at] = h[i - 1][:, at] + layers[i + 1].rows(self.act(h[i]), at)
            else:
                for i in range(1, len(layers)):
                    h[i][:, at] = layers[i].rows(self.act(h[i - 1]), at)
        rows = slice(self.places[number], None, self.dims)
        y = self.last.rows(h[-1] if self.residual else self.act(h[-1]), rows)
        return y if state.context is None else y + state.context[1][:, rows]

    def put(self, state: Underway, number: int, value: Tensor) -> None:
        """Tell the value (B,) of degree ``number`` + 1."""
        state.x[:, self.places[number]] = value
