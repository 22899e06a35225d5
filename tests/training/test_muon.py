"""Muon and AdamW in one: against torch's own two."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from castalia.training import muon
from castalia.training.muon import Muon, hidden_matrices, orthogonal


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(7, 6), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6), nn.Linear(6, 6), nn.LayerNorm(6)
    )


def test_it_moves_as_torchs_two_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "SMALL", 0)  # torch's products are in bfloat16 always
    a, b = network(), network()
    matrices = hidden_matrices(a)
    assert len(matrices) == 3
    kept = {id(p) for p in matrices}
    rest = [p for p in a.parameters() if id(p) not in kept]
    one = Muon(
        [{"params": matrices, "muon": True}, {"params": rest, "lr": 0.01, "weight_decay": 0.0}], 0.02, weight_decay=0.1
    )
    theirs = hidden_matrices(b)
    kept = {id(p) for p in theirs}
    two = (
        torch.optim.Muon(theirs, 0.02, weight_decay=0.1, momentum=0.95),
        torch.optim.AdamW([p for p in b.parameters() if id(p) not in kept], 0.01, (0.9, 0.99), weight_decay=0.0),
    )
    x = torch.randint(0, 7, (20, 5))
    for _ in range(10):
        for model, optimizers in ((a, (one,)), (b, two)):
            model.zero_grad()
            (model(x) ** 3).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        # the products are in bfloat16: one rounding of an update of 0.02 is 1e-4
        torch.testing.assert_close(p, q, atol=2e-3 if p.ndim == 2 and name != "0.weight" else 1e-5, rtol=0)


@pytest.mark.parametrize("small", [0, 1 << 14])
def test_singular_values_come_near_one(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "SMALL", small)
    x = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    y = orthogonal(x).float()
    values = torch.linalg.svdvals(y)
    assert values.min() > 0.6
    assert values.max() < 1.3
    inner = u.mT @ y @ v.mT  # diagonal where the singular vectors are the same
    torch.testing.assert_close(inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)), atol=0.05, rtol=0)


def test_tied_heads_are_embeddings_and_vectors_are_refused() -> None:
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7))
    model[1].weight = model[0].weight
    assert hidden_matrices(model) == []
    with pytest.raises(ValueError, match="matrices only"):
        Muon([{"params": [nn.Parameter(torch.zeros(3))], "muon": True}])
