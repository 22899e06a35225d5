"""PixelRNN's LSTMs beside eq. 3 pixel by pixel on the same weights, and their sizes."""

from __future__ import annotations

import torch

from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.lstms import skew, straight
from tests.models.pixels.made import HEIGHT, WIDTH, features, headed, made, masked, used


def lstm(gates, before):
    o, f, i, g = gates.chunk(4, -1)
    c = torch.sigmoid(f) * before + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@torch.no_grad()
def test_row_lstm():
    """Pixel by pixel, eq. 3; the cell's state is kept in float32, and so are tolerances."""
    net, x = made("row", ImageSpec(1, HEIGHT, WIDTH)).network, features().float()
    y = masked(net.first, x, 5)
    for layer in net.layers:
        gates, p = masked(layer.inward, y), net.maps
        states = layer.state.weight.view(4 * p, 3, p)
        h, c = torch.zeros(2, HEIGHT + 1, WIDTH + 2, p), torch.zeros(2, HEIGHT + 1, WIDTH + 2, p)
        for row in range(HEIGHT):
            for column in range(WIDTH):
                own = gates[:, :, row, column].clone()
                for tap in range(3):
                    own += h[:, row, column + tap] @ states[:, tap].T
                h[:, row + 1, column + 1], c[:, row + 1, column + 1] = lstm(own, c[:, row, column + 1])
        y = y + masked(layer.up, h[:, 1:, 1:-1].permute(0, 3, 1, 2))
    torch.testing.assert_close(net(x), headed(net.head, y), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_diagonal_lstm():
    """Without skewing: each pixel from its left and its upper neighbour."""
    net, x, p = made("diagonal", ImageSpec(1, HEIGHT, WIDTH)).network, features().float(), 12

    def one(side, y):
        gates = masked(side.inward, y)
        h, c = torch.zeros(2, HEIGHT + 1, WIDTH + 1, p), torch.zeros(2, HEIGHT + 1, WIDTH + 1, p)
        for row in range(HEIGHT):
            for column in range(WIDTH):
                seen = torch.cat([h[:, row + 1, column], h[:, row, column + 1]], 1)
                own = gates[:, :, row, column] + side.state(seen)
                h[:, row + 1, column + 1], c[:, row + 1, column + 1] = lstm(own, c[:, row + 1, column])
        return h[:, 1:, 1:].permute(0, 3, 1, 2)

    y = masked(net.first, x, 5)
    for layer in net.layers:
        other = one(layer.right, y.flip(3)).flip(3)
        moved = torch.cat([torch.zeros_like(other[:, :, :1]), other[:, :, :-1]], 2)
        y = y + masked(layer.up, one(layer.left, y) + moved)
    torch.testing.assert_close(net(x), headed(net.head, y), rtol=1e-4, atol=1e-5)


def test_skewing_and_back():
    x = torch.arange(24.0).view(1, 4, 6)
    assert torch.equal(skew(x)[0, 2, 2:8], x[0, 2])
    assert skew(x).count_nonzero() == x.count_nonzero()
    assert torch.equal(straight(skew(x), 6), x)


def test_size_of_the_paper():
    """By hand, from the paper's table: kernels without what masks hide, and biases."""
    h, layers, head = 16, 7, 32
    first = (3 * 7 + 3) * 2 * h + 2 * h
    side = (2 * h * 4 * h + 4 * h) + 2 * h * 4 * h
    layer = 2 * side + (2 * h * h + 2 * h)
    ends = (2 * h * head + head) + (head + 1)
    assert used("pixelrnn-mnist-paper", ImageSpec(1, 28, 28)) == first + layers * layer + ends
