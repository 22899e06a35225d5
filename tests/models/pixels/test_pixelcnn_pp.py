"""PixelCNN++ in the authors' order on the same weights, its start on data, and its size."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from castalia import recipes
from castalia.catalogue import entry
from castalia.core.rng import BatchRng
from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.streams import Resnet
from tests.models.pixels.made import HEIGHT, WIDTH, features, made
from tests.tools import Table


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
