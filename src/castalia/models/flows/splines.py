"""Monotone rational-quadratic splines: a map of each value by itself that bends where the data want it.

Papers
    Durkan et al. 2019, "Neural Spline Flows" (arXiv:1906.04032), section 3 and appendix A; the segments are those of
    Gregory & Delbourgo 1982. Between knots (x_k, y_k) with slopes d_k, and with s = dy / dx of the segment and
    t in [0, 1] the place in it,

        y = y_k + h (s t^2 + d_k t (1 - t)) / (s + (d_k + d_k+1 - 2 s) t (1 - t))                             (eq. 4)
        dy/dx = s^2 (d_k+1 t^2 + 2 s t (1 - t) + d_k (1 - t)^2) / (s + (d_k + d_k+1 - 2 s) t (1 - t))^2       (eq. 5)

    Outside of [-bound, bound] the map is the identity, and the outermost slopes are 1.
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.models.flows.couplings import Move

LEAST = 1e-3
"""Smallest width and height of a segment, as a share, and smallest slope at a knot."""


@final
class Spline(Move):
    """A spline of ``bins`` segments for each value.

    Args:
        bins: K.
        bound: B; beyond it values stay.
    """

    def __init__(self, bins: int, bound: float) -> None:
        super().__init__()
        if bins < 1 or bins * LEAST >= 1 or bound <= 0:
            raise ValueError("bins and bound must be positive, and there is no room for so many bins")
        self.bins, self.bound, self.outputs = bins, bound, 3 * bins - 1

    def _knots(self, h: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Knots and slopes, each (K + 1, B, C, ...)."""
        parts = h.unflatten(1, (self.outputs, shape[1])).movedim(1, 0)
        widths, heights, slopes = parts.split([self.bins, self.bins, self.bins - 1])
        one = slopes.new_ones(1, *shape)
        # a network whose last layer is zero gives the identity: softplus of this is 1 - LEAST
        slopes = torch.cat([one, LEAST + F.softplus(slopes + math.log(math.exp(1 - LEAST) - 1)), one])
        return self._edges(widths), self._edges(heights), slopes

    def _edges(self, raw: Tensor) -> Tensor:
        shares = LEAST + (1 - LEAST * self.bins) * torch.softmax(raw, 0)
        inner = (2 * self.bound * shares[:-1].cumsum(0)) - self.bound
        end = raw.new_full((1, *raw.shape[1:]), self.bound)
        return torch.cat([-end, inner, end])

    def _segment(self, at: Tensor, edges: Tensor, *knots: Tensor) -> list[Tensor]:
        """Of every value the two knots around it, by where it lies among ``edges``; both of each of ``knots``."""
        number = (at.unsqueeze(0) >= edges[1:-1]).sum(0, keepdim=True)
        both = torch.cat([number, number + 1])
        return [knot for table in knots for knot in table.gather(0, both).unbind(0)]

    def forward(self, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        xs, ys, slopes = self._knots(h.to(b.dtype), b.shape)
        x = b.clamp(-self.bound, self.bound)
        x0, x1, y0, y1, d0, d1 = self._segment(x, xs, xs, ys, slopes)
        s, t = (y1 - y0) / (x1 - x0), (x - x0) / (x1 - x0)
        u = t * (1 - t)
        low = s + (d0 + d1 - 2 * s) * u
        y = y0 + (y1 - y0) * (s * t.square() + d0 * u) / low
        slope = s.square() * (d1 * t.square() + 2 * s * u + d0 * (1 - t).square())
        inside = b.abs() < self.bound
        return torch.where(inside, y, b), torch.where(inside, slope.log() - 2 * low.log(), 0.0)

    def inverse(self, b: Tensor, h: Tensor) -> Tensor:
        """The root of a quadratic equation, in the form that does not cancel (appendix A.2, eq. 29)."""
        xs, ys, slopes = self._knots(h.to(b.dtype), b.shape)
        y = b.clamp(-self.bound, self.bound)
        x0, x1, y0, y1, d0, d1 = self._segment(y, ys, xs, ys, slopes)
        s, rise, bend = (y1 - y0) / (x1 - x0), y - y0, d0 + d1
        bend = bend - 2 * s
        p = (y1 - y0) * (s - d0) + rise * bend
        q = (y1 - y0) * d0 - rise * bend
        root = (q.square() + 4 * p * s * rise).clamp(min=0).sqrt()  # c = -s rise
        t = 2 * s * rise / (q + root).clamp(min=1e-30)
        return torch.where(b.abs() < self.bound, x0 + t * (x1 - x0), b)
