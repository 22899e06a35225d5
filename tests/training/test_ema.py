"""Averaged weights, and the statistics of batch normalisation that go with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from castalia.training.ema import EVERY, Ema, averaged


def network() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    made.register_buffer("chain", torch.zeros(2))
    return made


def test_weights_and_batch_statistics_are_averaged_and_other_buffers_are_not() -> None:
    assert set(averaged(network())) == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}


def test_half_life() -> None:
    """After h examples the start's share is one half, for weights and for statistics alike."""
    net = network()
    half_life = 8 * 10.0
    ema = Ema(net, half_life)
    start = {k: v.clone() for k, v in averaged(net).items()}
    with torch.no_grad():
        for tensor in averaged(net).values():
            tensor.add_(1)
    far = 100_000  # so far on that the ramp does not bind
    ema.update(EVERY * far, 10)  # EVERY steps of 10 examples: one half-life
    for name, average in ema.averages.items():
        torch.testing.assert_close(average, start[name] + 0.5, msg=name)


def test_applied_puts_everything_back_also_after_an_error() -> None:
    net = network()
    ema = Ema(net, 10.0)
    with torch.no_grad():
        for tensor in averaged(net).values():
            tensor.add_(1)
    now = {k: v.clone() for k, v in net.state_dict().items()}

    def use() -> None:
        with ema.applied():
            assert not net.training
            assert torch.equal(net[1].running_mean, ema.averages["1.running_mean"])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        use()
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, now[name]), name


def test_state_is_complete_and_comes_back() -> None:
    net = network()
    ema = Ema(net, 10.0)
    with torch.no_grad():
        net[1].running_mean.add_(3)
    state = {k: v.clone() for k, v in ema.state().items()}
    assert state.keys() == net.state_dict().keys()
    assert float(state["1.running_mean"].sum()) == 0
    again = Ema(net, 10.0)
    again.load(state)
    assert torch.equal(again.averages["1.running_mean"], ema.averages["1.running_mean"])


def test_a_layer_of_two_names_has_one_average() -> None:
    """Batch statistics too: loading takes the last name, so each must say the same."""
    net = nn.Module()
    net.norm = nn.BatchNorm1d(2)
    net.again = net.norm
    ema = Ema(net, 100.0)
    with torch.no_grad():
        net.norm.running_mean.add_(5)
        net.norm.weight.add_(5)
    state = ema.state()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(state[f"norm.{name}"], state[f"again.{name}"]), name
    net.load_state_dict(state)
    assert float(net.norm.running_mean.sum()) == 0
