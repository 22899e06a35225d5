"""Mu-law: sixteen bits of sound in 256 values, fine where it is quiet and coarse where it is loud (ITU-T G.711).

The continuous curve with mu = 255, as WaveNet's paper writes it (van den Oord et al. 2016, section 2.2), not the
piecewise one of telephones: ``f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu)``, cut into 256 equal steps. Decoding a code
and encoding the result gives the code back, for all 256.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MU = 255
CODES = 256
SILENCE = 128
"""The code of a sample that is exactly 0."""


def encode(x: Tensor) -> Tensor:
    """Codes ``int64`` 0 to 255, of the shape of ``x``, from samples in [-1, 1]; what lies outside is clipped."""
    x = x.float().clamp(-1, 1)
    curve = torch.sign(x) * torch.log1p(MU * x.abs()) / math.log1p(MU)
    return ((curve + 1) / 2 * MU + 0.5).floor().long()


def decode(codes: Tensor) -> Tensor:
    """Samples ``float32`` in [-1, 1] from codes 0 to 255."""
    curve = 2 * codes.float() / MU - 1
    return torch.sign(curve) * torch.expm1(curve.abs() * math.log1p(MU)) / MU
