"""PixelCNN's networks beside square kernels full of zeros on the same weights, and their sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.taps import Taps
from tests.models.pixels.made import HEIGHT, WIDTH, features, headed, made, masked, used


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_plain(channels):
    net, x = made("plain", ImageSpec(channels, HEIGHT, WIDTH)).double().network, features(channels)
    h = masked(net.first, x, 5) + net.place
    for block in net.blocks:
        h = h + masked(block.up, F.relu(masked(block.across, F.relu(masked(block.down, F.relu(h))))))
    torch.testing.assert_close(net(x), headed(net.head, h), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_gated(channels):
    """Figure 2 of van den Oord et al. 2016b with square kernels; the vertical stack moved down only at the first."""
    net, x = made("gated", ImageSpec(channels, HEIGHT, WIDTH)).double().network, features(channels)
    v = h = x
    for i, layer in enumerate(net.layers):
        above = masked(layer.vertical, v, 5 if i == 0 else 3)
        beside = masked(layer.horizontal, h, 5 if i == 0 else 3) + masked(layer.link, above)
        if i == 0:
            above, beside = above + net.place[: 2 * net.maps], beside + net.place[2 * net.maps :]
        v = torch.tanh(above[:, : net.maps]) * torch.sigmoid(above[:, net.maps :])
        new = masked(layer.out, torch.tanh(beside[:, : net.maps]) * torch.sigmoid(beside[:, net.maps :]))
        h = new if i == 0 else h + new
    torch.testing.assert_close(net(x), headed(net.head, h), rtol=1e-10, atol=1e-10)


def test_sizes_of_the_papers():
    """By hand, from the papers' tables: kernels without what masks hide, and biases."""
    h, blocks, head = 16, 15, 32
    first = (3 * 7 + 3) * 2 * h + 2 * h
    block = (2 * h * h + h) + (5 * h * h + h) + (2 * h * h + 2 * h)
    ends = (2 * h * head + head) + (head + 1)
    assert used("pixelcnn-mnist-paper", ImageSpec(1, 28, 28)) == first + blocks * block + ends


def test_masked_weights_are_zero_and_stay_hidden():
    taps = Taps(6, 12, (2, 3), left=1, mask="A", channels=3, parts=2)
    kernel = taps.kernel().view(12, 2, 3, 6)
    assert (kernel[:, 1, 2] == 0).all()
    assert (kernel[0, 1, 1] == 0).all()
    assert (kernel[2, 1, 1, :2] != 0).all()
    assert (kernel[2, 1, 1, 2:] == 0).all()
    assert torch.equal(
        kernel != 0, Taps(6, 12, (2, 3), left=1, mask="A", channels=3, parts=2).kernel().view_as(kernel) != 0
    )
