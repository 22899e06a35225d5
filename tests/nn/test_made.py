"""Masked networks: nobody sees what it must not, everybody sees the rest, and one value after another is the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from castalia.nn.made import MADE

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"widths": (16,)},
    "two layers, tanh": {"widths": (16, 20), "activation": "tanh"},
    "backwards": {"widths": (16, 16), "order": range(5, 0, -1)},
    "some order": {"widths": (16, 16), "order": (3, 1, 5, 2, 4), "activation": "elu"},
    "residual": {"widths": (16,) * 5, "residual": True},
    "with a context": {"widths": (16, 16), "context": 3},
    "residual, with a context": {"widths": (16,) * 3, "residual": True, "context": 3, "order": (2, 1, 4, 3, 5)},
    "narrow": {"widths": (2, 3)},
}


def made(name: str, dims: int = 5, outputs: int = 2) -> MADE:
    torch.manual_seed(0)
    return MADE(dims, outputs=outputs, still=False, **KINDS[name]).double().eval()


@pytest.mark.parametrize("name", KINDS)
def test_no_output_sees_its_own_value_or_a_later_one(name: str) -> None:
    net = made(name)
    context = torch.randn(30, 3, dtype=torch.float64) if net.into is not None else None
    x = torch.randn(30, 5, dtype=torch.float64)
    whole = torch.autograd.functional.jacobian(lambda x: net(x, context), x)
    jacobian = whole.abs().sum((0, 2))  # type: ignore[union-attr]  # of thirty examples: some units of each are off
    degree = {place: d for d, place in enumerate(net.places)}
    for output in range(2):
        for i in range(5):
            for j in range(5):
                slope = float(jacobian[output * 5 + i, j])
                if degree[j] >= degree[i]:
                    assert slope == 0.0
                elif name != "narrow":
                    assert slope != 0.0


@pytest.mark.parametrize("name", [n for n in KINDS if "context" in KINDS[n]])
@pytest.mark.parametrize("dims", [1, 5])
def test_every_output_sees_the_context(name: str, dims: int) -> None:
    kind = {k: v for k, v in KINDS[name].items() if k != "order"}
    net = MADE(dims, outputs=2, still=False, **kind).double()
    context = torch.randn(1, 3, dtype=torch.float64)
    x = torch.randn(1, dims, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda c: net(x, c)[0], context)[:, 0]  # type: ignore[index]
    assert (jacobian != 0).any(1).all()


@pytest.mark.parametrize("name", KINDS)
def test_value_by_value_equals_all_at_once(name: str) -> None:
    net = made(name)
    x = torch.randn(7, 5, dtype=torch.float64)
    context = torch.randn(7, 3, dtype=torch.float64) if net.into is not None else None
    whole = net(x, context).view(7, 2, 5)
    state = net.begin(7, x, context)
    for number, place in enumerate(net.places):
        torch.testing.assert_close(net.next(state, number), whole[:, :, place], atol=1e-12, rtol=0)
        net.put(state, number, x[:, place])


def test_orders_and_residual_widths_are_checked() -> None:
    with pytest.raises(ValueError, match="each once"):
        MADE(3, (4,), 1, order=(1, 1, 2))
    with pytest.raises(ValueError, match="odd number"):
        MADE(3, (4, 4), 1, residual=True)
