from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.config import from_json, to_json
from castalia.nn.attention import PictureAttention, attend
from castalia.nn.convolutions import up_convolve
from castalia.nn.embeddings import FourierFeatures, sinusoids
from castalia.nn.groupnorm import GroupNorm
from castalia.nn.unet import ResidualBlock, UNet, UNetConfig, ddpm_cifar, small_8, small_28

TINY = UNetConfig(channels=(8, 16, 16), blocks=1, attention=(1,), groups=4, head_channels=4)

VARIANTS = {
    "plain": TINY,
    "ddpm padding": replace(TINY, down_padding=0),
    "blocks": replace(TINY, down="block", up="block", conditioning="scale_shift", middle_groups=0),
    "pool": replace(TINY, down="pool", up="nearest", skip_rescale=True),
    "fourier": replace(TINY, time="fourier", cos_first=True, embedding=20, middle="plain"),
    "no middle": replace(TINY, middle="none", attention=(), blocks=2),
}


def network(config: UNetConfig, channels: int = 1, outputs: int = 1, classes: int = 0, seed: int = 0) -> UNet:
    """A network without the zeros that it begins with."""
    torch.manual_seed(seed)
    net = UNet(config, channels, outputs, classes).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return net


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# configuration


def test_the_network_of_ho_et_al_has_35_75_million_parameters():
    with torch.device("meta"):
        assert count(UNet(ddpm_cifar(), 3, 3)) == 35_746_307


def test_counts_of_the_other_named_configurations():
    """Counted by hand once: a change of them is a change of every recipe that uses them."""
    assert count(UNet(small_28(), 1, 1)) == 1_112_801
    assert count(UNet(small_8(), 1, 1)) == 701_345
    # one row of the table per class, and one for no class
    assert count(UNet(small_8(), 1, 1, 10)) - count(UNet(small_8(), 1, 1)) == 11 * 128
    assert count(UNet(replace(small_8(), null_class=False), 1, 1, 10)) - count(UNet(small_8(), 1, 1)) == 10 * 128


@pytest.mark.parametrize("config", [ddpm_cifar(), small_28(), small_8(), *VARIANTS.values()])
def test_configurations_survive_json(config):
    assert from_json(UNetConfig, json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"channels": ()}, "must be positive"),
        ({"blocks": 0}, "must be positive"),
        ({"groups": 3}, "groups=3 must divide"),
        ({"groups": 0}, "groups=0"),
        ({"attention": (3,)}, "levels 0 to 2"),
        ({"attention": (1, 1)}, "twice"),
        ({"middle_groups": 5}, "middle_groups=5"),
        ({"head_channels": 5}, "head_channels must divide"),
        ({"head_channels": None, "heads": 3}, "heads or head_channels"),
        ({"heads": 0}, "heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"eps": 0.0}, "eps"),
        ({"freq_shift": 4.0}, "freq_shift"),
        ({"max_period": 1.0}, "max_period"),
        ({"embedding": 0}, "embedding"),
    ],
)
def test_bad_configurations_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        replace(TINY, **change)


# what the network is


def test_it_starts_as_ddpm_does():
    """Last layers zero: every block is its skip, and the output is zero."""
    torch.manual_seed(0)
    net = UNet(TINY, 3, 6)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 500.0])
    assert torch.equal(net(x, t), torch.zeros(2, 6, 8, 8))
    block = ResidualBlock(8, 8, TINY)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    assert torch.equal(block(h := torch.randn(2, 8, 4, 4), torch.randn(2, 8)), h)
    # uniform with variance 2 / (fan-in + fan-out), also for the parts of joint matrices
    wide = UNet(replace(TINY, channels=(64, 64)), 3, 3)
    attention = wide.down[1].attentions[0]
    for weight, fans in (
        (wide.down[0].blocks[0].conv1.weight, 9 * (64 + 64)),
        (attention.qkv.weight[:64], 64 + 64),
        (wide.projection.weight[:64], 256 + 64),
    ):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.05)
        assert weight.abs().max() <= math.sqrt(6 / fans)
    assert all(not m.bias.any() for m in wide.modules() if isinstance(m, nn.Conv2d | nn.Linear))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_any_size_and_every_parameter_takes_part(config):
    net = network(config, 2, 4, classes=3)
    for height, width in ((8, 8), (7, 5), (28, 28), (3, 16), (1, 1)):
        out = net(torch.randn(2, 2, height, width), torch.tensor([0.0, 1.0]), torch.tensor([0, 3]))
        assert out.shape == (2, 4, height, width)
        assert torch.isfinite(out).all()
    out = net(torch.randn(4, 2, 8, 8), torch.rand(4), torch.tensor([0, 1, 2, 3]))
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_sides_are_halved_as_documented():
    """28 becomes 14, 7, 4 (or 3 with the padding of DDPM), and comes back."""
    seen: dict[str, list[int]] = {}
    for name in ("plain", "ddpm padding", "blocks", "pool"):
        config = replace(VARIANTS[name], channels=(8, 8, 8, 8))
        net, sides = network(config), []
        for level in net.down:
            level.blocks[0].register_forward_hook(lambda m, i, o, sides=sides: sides.append(o.shape[-1]))
        net(torch.randn(1, 1, 28, 28), torch.zeros(1))
        seen[name] = sides
    assert seen == {n: [28, 14, 7, 3 if n == "ddpm padding" else 4] for n in seen}


def test_skip_rescale_keeps_the_variance():
    torch.manual_seed(0)
    x = torch.randn(4, 8, 16, 16)
    block = ResidualBlock(8, 8, replace(TINY, skip_rescale=True))
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    torch.testing.assert_close(block(x, torch.zeros(4, 8)), x * math.sqrt(0.5))
    attention = PictureAttention(8, 2, 4, 1e-6, math.sqrt(0.5))
    nn.init.zeros_(attention.out.weight)
    nn.init.zeros_(attention.out.bias)
    torch.testing.assert_close(attention(x), x * math.sqrt(0.5))


def test_dropout_is_an_ordinary_layer():
    net = network(replace(TINY, dropout=0.5))
    x, t = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert torch.equal(net(x, t), net(x, t))
    net.train()
    torch.manual_seed(1)
    first, second = net(x, t), net(x, t)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(net(x, t), first)
    assert sum(isinstance(m, nn.Dropout) for m in net.modules()) == len(net.residual_blocks())


# time and label


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_embeddings_can_be_made_in_advance(config):
    net = network(config, classes=2)
    x, times, label = torch.randn(3, 1, 8, 8), torch.tensor([3.0, 1.5, 0.25]), torch.tensor([0, 1, 2])
    assert torch.equal(net.forward_embedded(x, net.embed(times, label)), net(x, times, label))
    table = net.embed(times, label)
    for i in range(3):
        alone = net.embed(times[i : i + 1], label[i : i + 1])
        torch.testing.assert_close(table[i : i + 1], alone, atol=2e-6, rtol=0)
        # one row for all examples; the sum of two terms is taken in another order
        everybody = net(x, times[i].expand(3), label[i].expand(3))
        torch.testing.assert_close(net.forward_embedded(x, table[i : i + 1]), everybody, atol=1e-5, rtol=0)


def test_no_label_is_the_null_class():
    net = network(TINY, classes=3)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    assert torch.equal(net(x, t), net(x, t, torch.tensor([3, 3])))
    assert not torch.allclose(net(x, t), net(x, t, torch.tensor([0, 0])), atol=1e-3)
    with pytest.raises(ValueError, match="without classes"):
        network(TINY)(x, t, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="no null class"):
        network(replace(TINY, null_class=False), classes=3)(x, t)


def test_sinusoids_against_their_formula():
    t = torch.tensor([0.0, 1.0, 999.0, 3.7])
    for dims, shift, period in ((8, 1.0, 10_000.0), (6, 0.0, 100.0), (7, 0.0, 100.0)):
        half = dims // 2
        waves = [[float(x) * period ** (-i / (half - shift)) for i in range(half)] for x in t]
        sin = torch.tensor([[math.sin(w) for w in row] for row in waves])
        cos = torch.tensor([[math.cos(w) for w in row] for row in waves])
        rest = torch.zeros(4, dims % 2)
        for cos_first, expected in ((False, (sin, cos, rest)), (True, (cos, sin, rest))):
            found = sinusoids(t, dims, cos_first=cos_first, freq_shift=shift, max_period=period)
            torch.testing.assert_close(found, torch.cat(expected, 1), atol=1e-4, rtol=0)  # float32 phases of 999


def test_fourier_features_survive_bfloat16():
    torch.manual_seed(0)
    features, t = FourierFeatures(32, 16.0), torch.tensor([-1.2, 0.0, 0.7])
    before = features(t)
    assert before.std() == pytest.approx(math.sqrt(0.5), abs=0.05)
    assert torch.equal(features.bfloat16()(t), before)


# layers, each against a plain formula


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_group_norm(layout, dtype, grad):
    """Also where bfloat16 takes the way through float32."""
    torch.manual_seed(0)
    norm = GroupNorm(4, 16, 1e-5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 16, 6, 5).to(dtype).contiguous(memory_format=layout)
    offset, both = torch.randn(3, 16).to(dtype), torch.randn(3, 32).to(dtype)
    expected = F.group_norm(
        x.double() + offset.double()[..., None, None], 4, norm.weight.double(), norm.bias.double(), 1e-5
    )
    scale, shift = both.double()[..., None, None].chunk(2, 1)
    expected = F.silu(expected * (1 + scale) + shift)
    found = norm(x.clone(memory_format=torch.preserve_format).requires_grad_(grad), offset=offset, scale_shift=both)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.08
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 49, 8).to(dtype) for _ in range(3))
    a, b, c = (z.double() for z in (q, k, v))
    expected = torch.softmax(a @ b.transpose(-1, -2) / math.sqrt(8), -1) @ c
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(attend(q, k, v).double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("examples", "side", "size"),
    [
        (4, (12, 12), (24, 24)),
        (5, (16, 9), (32, 18)),
        (32, (4, 4), (8, 8)),
        (32, (4, 4), (7, 7)),
        (43, (3, 4), (7, 8)),
        (1, (12, 12), (24, 24)),
    ],
)
def test_enlarging_and_convolving_in_one(layout, examples, side, size):
    """Values and gradients against the two steps, in float64 to 1e-12."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1).double().to(memory_format=layout)
    h = torch.randn(examples, 3, *side, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    results = []
    for call in (lambda: up_convolve(h, conv, size), lambda: conv(F.interpolate(h, size))):
        y = call()
        assert y.shape == (examples, 5, *size)
        results.append((y, *torch.autograd.grad(y.sin().sum(), (h, *conv.parameters()))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


# numbers


def test_examples_do_not_depend_on_their_batch():
    """To 2e-6 of the largest output: the processor's library adds in another order for other batches."""
    net = network(small_28()).to(memory_format=torch.channels_last)
    x, t = torch.randn(5, 1, 28, 28), torch.tensor([0.0, 10.0, 200.0, 999.0, 5.5])
    with torch.no_grad():
        whole = net(x, t)
        alone = torch.cat([net(x[i : i + 1], t[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(whole, alone, atol=2e-6 * float(whole.abs().max()), rtol=0)


def test_memory_layout_changes_nothing():
    net, x, t = network(small_28()), torch.randn(2, 1, 28, 28), torch.tensor([1.0, 700.0])
    plain = net(x, t)
    swapped = net.to(memory_format=torch.channels_last)(x, t)
    torch.testing.assert_close(plain, swapped, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [small_8(), VARIANTS["blocks"], VARIANTS["fourier"]])
def test_bfloat16_weights_and_autocast(config):
    """Within 3 % of the float32 output's deviation; the picture's type comes back."""
    net = network(config, classes=2).to(memory_format=torch.channels_last)
    x, t, label = torch.randn(8, 1, 8, 8), torch.linspace(0, 1, 8), torch.arange(8) % 3
    with torch.no_grad():
        exact = net(x, t, label)
        with torch.autocast("cpu", torch.bfloat16):
            cast = net(x, t, label)
        half = net.bfloat16()(x, t, label)
        table = net.forward_embedded(x.double(), net.embed(t, label))
    assert cast.dtype == half.dtype == torch.float32
    assert table.dtype == torch.float64
    for found in (cast, half, table.float()):
        assert (found - exact).std() < 0.03 * exact.std()


def test_exported_programs_take_any_batch():
    net = network(replace(small_28(), channels=(16, 16), attention=(1,), head_channels=8), classes=2)
    inputs = torch.randn(2, 1, 28, 28), torch.tensor([1.0, 2.0]), torch.tensor([0, 2])
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(net, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs)).module()
    for n in (1, 2, 5):
        x, t, label = torch.randn(n, 1, 28, 28), torch.rand(n) * 1000, torch.arange(n) % 3
        torch.testing.assert_close(program(x, t, label), net(x, t, label), atol=1e-6, rtol=0)


def test_derivatives_forwards_and_for_each_example():
    """What likelihoods by differential equations need: a Jacobian's products from both sides, and its trace."""
    net = network(replace(TINY, channels=(8, 8), groups=2))
    x, v = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    t = torch.tensor([1.0, 7.0])

    def one(x: Tensor, t: Tensor) -> Tensor:
        return net(x[None], t[None])[0]

    leaf = x.clone().requires_grad_()
    (backward,) = torch.autograd.grad(net(leaf, t), leaf, v)
    _, forward = torch.func.jvp(lambda x: net(x, t), (x,), (v,))
    torch.testing.assert_close((forward * v).sum(), (backward * v).sum(), atol=1e-5, rtol=1e-5)
    jacobian = torch.func.vmap(torch.func.jacrev(one))(x, t).reshape(2, 16, 16)
    torch.testing.assert_close(
        torch.einsum("bo,boi->bi", v.flatten(1), jacobian), backward.flatten(1), atol=1e-5, rtol=0
    )
