"""What a pixel depends on, by gradients: nothing that comes after it, and all (or what the paper says) before."""

from __future__ import annotations

import pytest
import torch

from castalia.core.specs.image import ImageSpec
from tests.models.pixels.made import NAMES, made

HEIGHT, WIDTH = 6, 7
PLACES = [(0, 0), (1, 0), (2, 3), (3, 2), (4, 6), (5, 6)]


def seen(kind: str, channels: int, row: int, column: int, channel: int, **changes: object) -> torch.Tensor:
    """Which values (C, H, W) the outputs of a channel of a pixel depend on."""
    model = made(kind, ImageSpec(channels, HEIGHT, WIDTH), **changes).double()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, HEIGHT, WIDTH, dtype=torch.float64, generator=g).requires_grad_()
    maps = model.values.maps // model.values.looks
    outputs = model.network(x)[0, channel * maps : (channel + 1) * maps, row, column]
    (gradient,) = torch.autograd.grad(outputs.square().sum(), x)
    return gradient[0] != 0


def before(channels: int, row: int, column: int, channel: int) -> torch.Tensor:
    """The values before a channel of a pixel."""
    number = torch.arange(HEIGHT * WIDTH).view(1, HEIGHT, WIDTH).expand(channels, -1, -1)
    allowed = (number < row * WIDTH + column).clone()
    allowed[:channel, row, column] = True
    return allowed


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_after_a_value_is_seen(kind, channels):
    looks = 1 if kind == "streams" else channels
    for row, column in PLACES:
        for channel in range(looks):
            found, allowed = seen(kind, channels, row, column, channel), before(channels, row, column, channel)
            assert not (found & ~allowed).any(), (row, column, channel)


@pytest.mark.parametrize("kind", ["gated", "plain", "row", "diagonal"])
def test_channels_see_those_before_them(kind):
    for channel in range(3):  # at one pixel a ReLU may hide something
        found = torch.stack([seen(kind, 3, 3, column, channel)[:, 3, column] for column in range(WIDTH)]).any(0)
        assert found.tolist() == [c < channel for c in range(3)]


@pytest.mark.parametrize("kind", ["gated", "streams"])
def test_there_is_no_blind_spot(kind):
    layers = {"layers": 6} if kind == "gated" else {}
    for row, column in PLACES:
        assert torch.equal(seen(kind, 1, row, column, 0, **layers), before(1, row, column, 0))


def test_the_plain_network_has_one():
    """However many layers: what is to the right above lies outside the cone of 3x3 kernels after the first of 5x5."""
    found, allowed = seen("plain", 1, 4, 2, 0, layers=12), before(1, 4, 2, 0)
    blind = allowed & ~found
    assert blind[0, 3, 6], "far to the right in the row above"
    assert blind.any()
    assert not blind[0, :, :3].any()


def test_the_row_lstm_sees_a_triangle():
    found = seen("row", 1, 5, 3, 0, layers=1, first=3)[0]
    assert found[3, 3]
    assert found[5, :3].any()
    assert not found[4, 6], "beyond the triangle"


def test_the_diagonal_lstm_misses_one_pixel_at_most():
    """The first convolution leaves out its own pixel, and the one from the right is a row behind: of the row above, its
    last pixel is in no feature of that row. All else is seen."""
    for row, column in PLACES[1:]:
        missed = before(1, row, column, 0)[0] & ~seen("diagonal", 1, row, column, 0)[0]
        assert missed.nonzero().tolist() in ([], [[row - 1, WIDTH - 1]])
