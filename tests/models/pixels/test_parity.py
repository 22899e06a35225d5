"""The networks beside plain implementations of their papers' equations on the same weights, and their sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from castalia import recipes
from castalia.catalogue import entry
from castalia.core.model import build
from castalia.core.rng import BatchRng
from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.lstms import skew, straight
from castalia.models.pixels.pixelrnn import PixelRNN
from castalia.models.pixels.streams import Resnet
from castalia.models.pixels.taps import Taps
from tests.models.pixels.made import made
from tests.tools import Table

HEIGHT, WIDTH = 5, 6


def square(taps: Taps, kernel: int) -> torch.Tensor:
    """The whole kernel (outputs, inputs, kernel, kernel), with zeros where nothing may be seen."""
    rows, columns = taps.size
    own = taps.kernel().detach().view(taps.outputs, rows, columns, taps.inputs).permute(0, 3, 1, 2)
    whole = torch.zeros(taps.outputs, taps.inputs, kernel, kernel, dtype=own.dtype)
    bottom = kernel // 2 + 1 - taps.above
    first = kernel // 2 - taps.left
    whole[:, :, bottom - rows : bottom, first : first + columns] = own
    return whole


def masked(taps: Taps, x: torch.Tensor, kernel: int = 3) -> torch.Tensor:
    """A masked convolution as the paper has it: a square kernel, padding on all sides."""
    kernel = max(kernel, taps.size[1])
    return F.conv2d(x, square(taps, kernel), taps.bias, padding=kernel // 2)


def features(channels: int = 1) -> torch.Tensor:
    return torch.randn(2, channels, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def headed(head, x):
    return masked(head.out, F.relu(masked(head.hidden, F.relu(x))))


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_plain(channels):
    net, x = made("plain", ImageSpec(channels, HEIGHT, WIDTH)).double().network, features(channels)
    h = masked(net.first, x, 5)
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
        v = torch.tanh(above[:, : net.maps]) * torch.sigmoid(above[:, net.maps :])
        new = masked(layer.out, torch.tanh(beside[:, : net.maps]) * torch.sigmoid(beside[:, net.maps :]))
        h = new if i == 0 else h + new
    torch.testing.assert_close(net(x), headed(net.head, h), rtol=1e-10, atol=1e-10)


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


@torch.no_grad()
def test_streams():
    """The authors' order: shifts by padding and cutting, halving and enlarging, skip connections from the end."""
    model = made("streams", ImageSpec(2, HEIGHT, WIDTH), levels=3, resnets=2).double()
    net, x = model.network, features(2)

    def conv(taps, x, stride=1):
        (rows, columns), side = taps.size, (taps.size[1] - 1) // 2 if taps.size[1] == 3 else taps.size[1] - 1
        weight = taps.kernel().view(taps.outputs, rows, columns, taps.inputs).permute(0, 3, 1, 2)
        right = side if columns == 3 else 0
        return F.conv2d(F.pad(x, (side, right, rows - 1, 0)), weight, taps.bias, stride)

    def down(x):
        return F.pad(x, (0, 0, 1, 0))[:, :, :-1]

    def spread(layer, x, size):
        full = F.conv_transpose2d(x, layer.kernel().permute(3, 0, 1, 2), layer.taps.bias, stride=2)
        side = (layer.columns - 1) // 2
        return full[:, :, : size[0], side : side + size[1]]

    def elus(x):
        return F.elu(torch.cat([x, -x], 1))

    def resnet(layer: Resnet, x, beside=None):
        y = conv(layer.one, elus(x))
        if beside is not None:
            y = y + conv(layer.aside, elus(beside))
        a, b = conv(layer.two, elus(y)).chunk(2, 1)
        return x + a * torch.sigmoid(b)

    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    # theirs moves what was made, so that its first row is zero and not the bias
    left = conv(net.first_left, F.pad(x, (1, 0))[..., :-1])
    u, ul = [conv(net.first_u, down(x))], [conv(net.first_above, down(x)) + left]
    for level in range(3):
        if level:
            u.append(conv(net.u_halve[level - 1], u[-1], 2))
            ul.append(conv(net.ul_halve[level - 1], ul[-1], 2))
        for one, other in zip(net.u_down[level], net.ul_down[level], strict=True):
            u.append(resnet(one, u[-1]))
            ul.append(resnet(other, ul[-1], u[-1]))
    top, made_ = u.pop(), ul.pop()
    for level in (2, 1, 0):
        for one, other in zip(net.u_up[level], net.ul_up[level], strict=True):
            top = resnet(one, top, u.pop())
            made_ = resnet(other, made_, torch.cat([top, ul.pop()], 1))
        if level:
            size = u[-1].shape[2:]
            top, made_ = spread(net.u_spread[level - 1], top, size), spread(net.ul_spread[level - 1], made_, size)
    assert not u
    assert not ul
    expected = conv(net.out, F.elu(made_))
    torch.testing.assert_close(net(features(2)), expected, rtol=1e-9, atol=1e-9)


def test_gains_are_found_on_data():
    """Weight normalisation begins with outputs of mean 0 and deviation 1 on the data, layer by layer."""
    model = made("streams", ImageSpec(1, 8, 8), stir=0.0, binarise="threshold")
    x = torch.tensor([0, 255], dtype=torch.uint8)[torch.randint(2, (64, 1, 8, 8))]
    model.initialise(Table(x, model.spec), BatchRng(0, total=1), {})
    found = []
    layers = [part for part in model.modules() if isinstance(part, Resnet)]
    for layer in layers:
        layer.one.register_forward_hook(lambda _, __, made_: found.append(made_))
        layer.two.register_forward_hook(lambda _, __, made_: found.append(made_ * 10))
    with torch.no_grad():
        model.network(model.values.features(model.values.codes(x, None)))
    assert len(found) == 2 * len(layers)
    for y in found:
        assert y.mean((0, 2, 3)).abs().max() < 1e-3
        assert (y.std((0, 2, 3)) - 1).abs().max() < 1e-3


# sizes


def used(recipe: str, spec: ImageSpec) -> int:
    """Numbers of a recipe's network that matter: none that a mask hides."""
    found = recipes.recipe(recipe)
    model = build(entry(found.model).load(), found.config, spec)
    inside = [part for part in model.modules() if isinstance(part, Taps)]
    ours = {id(p) for part in inside for p in part.parameters()}
    return sum(part.seen() for part in inside) + sum(p.numel() for p in model.parameters() if id(p) not in ours)


def test_sizes_of_the_papers():
    """By hand, from the papers' tables: kernels without what masks hide, and biases."""
    grey = ImageSpec(1, 28, 28)
    h, blocks, head = 16, 15, 32
    first = (3 * 7 + 3) * 2 * h + 2 * h
    block = (2 * h * h + h) + (5 * h * h + h) + (2 * h * h + 2 * h)
    ends = (2 * h * head + head) + (head + 1)
    assert used("pixelcnn-mnist-paper", grey) == first + blocks * block + ends
    h, layers = 16, 7
    side = (2 * h * 4 * h + 4 * h) + 2 * h * 4 * h
    layer = 2 * side + (2 * h * h + 2 * h)
    assert used("pixelrnn-mnist-paper", grey) == first + layers * layer + ends


def test_size_of_pixelcnn_pp():
    """160 maps, 5 residual layers of a level, 10 components: every kernel, gain and bias of the authors' network."""
    p, counts = (
        160,
        (5, 5, 5),
    )
    up = (6, 6, 5)

    def size(inputs, outputs):
        return inputs * outputs + 2 * outputs

    def resnet(taps, aside):
        return size(taps * 2 * p, p) + (size(2 * aside, p) if aside else 0) + size(taps * 2 * p, 2 * p)

    total = size(6 * 4, p) + size(3 * 4, p) + size(2 * 4, p)
    total += sum(counts) * (resnet(6, 0) + resnet(4, p)) + sum(up) * (resnet(6, p) + resnet(4, 2 * p))
    total += 2 * 2 * (size(6 * p, p) + size(4 * p, p)) + size(p, 100)
    recipe = recipes.recipe("pixelcnn-pp-cifar-paper")
    with torch.device("meta"):
        model = entry("pixelcnn-pp").load()(recipe.config, ImageSpec(3, 32, 32))
    assert sum(q.numel() for q in model.parameters()) == total


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
    assert issubclass(PixelRNN, torch.nn.Module)
