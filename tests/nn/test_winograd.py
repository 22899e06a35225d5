"""3x3 convolutions with fewer multiplications equal the others, and stay where they are meant to be."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from castalia.nn import winograd
from castalia.nn.convolutions import convolve
from castalia.nn.unet import UNet, UNetConfig

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def case(
    shape: tuple[int, ...], outputs: int, dtype: torch.dtype, layout: torch.memory_format
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=layout)
    weight = torch.randn(outputs, shape[1], 3, 3, dtype=dtype).contiguous(memory_format=layout)
    return x, weight, torch.randn(outputs, dtype=dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cached", [1, 40, 130, 1 << 14])
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((3, 5, 8, 12), 4), ((1, 2, 1, 1), 1), ((5, 3, 7, 7), 6), ((2, 4, 13, 6), 3), ((4, 1, 3, 17), 2)],
)
def test_it_is_the_convolution(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    outputs: int,
    cached: int,
    layout: torch.memory_format,
):
    """In float64 to 1e-11, whatever the sides, and however the work is cut."""
    monkeypatch.setattr(winograd, "CACHED", cached)
    x, weight, bias = case(shape, outputs, torch.float64, layout)
    y = winograd.convolve(x, weight, bias)
    torch.testing.assert_close(y, F.conv2d(x, weight, bias, padding=1), atol=1e-11, rtol=0)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_rounding_is_as_small_as_the_module_says():
    x, weight, bias = case((4, 128, 16, 16), 128, torch.float32, torch.channels_last)
    weight /= (9 * 128) ** 0.5
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    plain = (F.conv2d(x, weight, bias, padding=1) - exact).std()
    this = (winograd.convolve(x, weight, bias) - exact).std()
    assert plain < this < 12 * plain
    assert this < 1e-5


def test_derivatives():
    """Of sums of it, as forward and backward derivatives, and for each example."""
    x, weight, bias = case((2, 3, 6, 5), 4, torch.float64, torch.channels_last)
    direction = torch.randn_like(x)
    forward = torch.func.jvp(lambda x: winograd.convolve(x, weight, bias), (x,), (direction,))[1]
    torch.testing.assert_close(forward, F.conv2d(direction, weight, padding=1), atol=1e-11, rtol=0)
    each = torch.func.vmap(lambda x: winograd.convolve(x[None], weight, bias)[0])(x)
    torch.testing.assert_close(each, F.conv2d(x, weight, bias, padding=1), atol=1e-11, rtol=0)
    results = []
    for call in (winograd.convolve, lambda x, w, b: F.conv2d(x, w, b, padding=1)):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        results.append(torch.autograd.grad(call(*leaves).sin().sum(), leaves))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("shape", "outputs", "pays"),
    [
        ((16, 128, 16, 16), 128, True),
        ((16, 256, 16, 16), 256, True),
        ((2, 128, 32, 32), 128, True),
        ((16, 256, 8, 8), 256, True),
        ((1, 128, 8, 8), 128, False),  # kernels are to be transformed for four tiles
        ((16, 64, 32, 32), 64, False),
        ((16, 3, 32, 32), 128, False),
        ((16, 128, 32, 32), 3, False),
        ((16, 128, 5, 5), 128, False),  # most of four tiles is not wanted
    ],
)
def test_where_it_pays(shape: tuple[int, ...], outputs: int, pays: bool):
    assert winograd.pays(torch.Size(shape), outputs) == pays


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes for which it was used."""
    seen: list[torch.Size] = []
    real = winograd.convolve

    def watched(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        seen.append(x.shape)
        return real(x, weight, bias)

    monkeypatch.setattr(winograd, "convolve", watched)
    return seen


def test_it_is_used_without_gradients_in_float32_only(calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch):
    conv = nn.Conv2d(128, 128, 3, padding=1)
    x, other = torch.randn(8, 128, 16, 16), torch.randn(128)
    expected = conv(x)
    torch.testing.assert_close(convolve(conv, x), expected)
    assert not calls
    with torch.no_grad():
        torch.testing.assert_close(convolve(conv, x), expected, atol=1e-4, rtol=0)
        assert len(calls) == 1
        moved = F.conv2d(x, conv.weight, other, padding=1)
        torch.testing.assert_close(convolve(conv, x, other), moved, atol=1e-4, rtol=0)
        assert len(calls) == 2
        convolve(conv, x[:1, :, :8, :8])
        with torch.autocast("cpu", torch.bfloat16):
            convolve(conv, x)
        convolve(copy.deepcopy(conv).double(), x.double())
        convolve(copy.deepcopy(conv).bfloat16(), x.bfloat16())
        convolve(nn.Conv2d(128, 128, 3, padding=1, bias=False), x)
        torch.set_float32_matmul_precision("medium")
        try:
            torch.testing.assert_close(convolve(conv, x), expected)  # products in bfloat16 would be off by 0.4
        finally:
            torch.set_float32_matmul_precision("highest")
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        convolve(conv, x)
    assert len(calls) == 2


def test_layers_that_were_changed_are_called_as_they_are(calls: list[torch.Size]):
    x = torch.randn(8, 128, 16, 16)
    heard: list[str] = []

    class Wrapped(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            heard.append("forward")
            return 2 * super().forward(x)

    watched, before = nn.Conv2d(128, 128, 3, padding=1), nn.Conv2d(128, 128, 3, padding=1)
    watched.register_forward_hook(lambda *_: heard.append("after"))
    before.register_forward_pre_hook(lambda *_: heard.append("before"))
    pruned = prune.l1_unstructured(nn.Conv2d(128, 128, 3, padding=1), "weight", 0.5)
    for layer in (watched, before, pruned, Wrapped(128, 128, 3, padding=1)):
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                torch.testing.assert_close(convolve(layer, x), layer(x))
    assert heard == ["after"] * 4 + ["before"] * 4 + ["forward"] * 4
    assert not calls


def test_a_network_with_it_is_the_same_network(calls: list[torch.Size]):
    """To 2e-5 of the largest output."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(channels=(128, 128), blocks=1, attention=(), head_channels=64), 3, 3).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    x, t = torch.randn(8, 3, 20, 20), torch.linspace(1, 900, 8)
    plain = net(x, t).detach()
    assert not calls
    with torch.no_grad():
        this = net(x, t)
        alike = net.forward_embedded(x, net.embed(t[:1]))
    assert len(calls) >= 12
    torch.testing.assert_close(this, plain, atol=2e-5 * float(plain.abs().max()), rtol=0)
    torch.testing.assert_close(alike[0], plain[0], atol=2e-5 * float(plain.abs().max()), rtol=0)
