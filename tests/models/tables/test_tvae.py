"""TVAE: its loss."""

from __future__ import annotations

import math

import numpy as np
import torch

from castalia.core.model import build
from castalia.media.table.sets import people
from castalia.models.tables.columns import fit_modes
from castalia.models.tables.tvae import TVAE, TVAEConfig

DATA = people("train")
MODES = fit_modes(DATA, DATA.spec)
ALL = DATA.batch(np.arange(1000))


def test_tvae_costs_what_its_header_says() -> None:
    model = build(TVAE, TVAEConfig(4, (8,), (8,), modes=MODES), DATA.spec, 0)
    seen = model.columns.inside(ALL[:7], None)
    raw = torch.randn(7, model.columns.size, generator=torch.Generator().manual_seed(0))
    total, k = torch.zeros(7), 0
    for span in model.columns.spans:
        if span.scalar:
            d = model.deviation[k].clamp(0.01, 1)
            normal = torch.distributions.Normal(torch.tanh(raw[:, span.start]), d)
            total -= normal.log_prob(seen[:, span.start]) + 0.5 * math.log(2 * math.pi)
            k += 1
        else:
            total -= (raw[:, span.slice].log_softmax(1) * seen[:, span.slice]).sum(1)
    torch.testing.assert_close(model.cost_of(raw, seen), total)
