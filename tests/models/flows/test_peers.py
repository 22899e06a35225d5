"""The same weights in normflows give the same latents and densities, to 1e-6 in float64.

normflows writes a flow from latents to data; its ``inverse`` is our ``forward``, but for RealNVP, whose formula it has
the other way round.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.autoregressive import Autoregressive
from castalia.models.flows.conditioners import GlowNet, NormedConv
from castalia.models.flows.couplings import Halves, TanhAffine
from castalia.models.flows.glow import Glow, GlowConfig
from castalia.models.flows.layers import LOG_SCALE_FACTOR, ActNorm, Mixing
from castalia.models.flows.priors import LearnedNormal
from castalia.models.flows.realnvp import RealNVP, RealNVPConfig
from castalia.models.flows.splines import LEAST, Spline
from castalia.nn.made import MADE, Masked
from tests.models.flows.test_layers import stir

nf = pytest.importorskip("normflows", reason="the test extra installs normflows")


def folded(conv: NormedConv) -> tuple[Tensor, Tensor]:
    """Weight and bias of the plain convolution that it is."""
    scale = torch.exp(LOG_SCALE_FACTOR * conv.log_scale)
    return conv.weight * scale[:, None, None, None], conv.bias * scale


@torch.no_grad()
def fill(theirs: nn.Module, actnorm: ActNorm, mixing: Mixing, coupling: Halves) -> None:
    """Copy a step of Glow into a block of normflows."""
    block, one, norm = theirs.flows
    norm.s.copy_(-LOG_SCALE_FACTOR * actnorm.log_scale.view_as(norm.s))
    norm.t.copy_(-actnorm.bias.view_as(norm.t))
    norm.data_dep_init_done.fill_(1.0)
    if mixing.lu:
        one.P.copy_(mixing.permutation)
        one.L.copy_(mixing.lower)
        one.U.copy_(mixing.upper)
        one.sign_S.copy_(mixing.sign)
        one.log_S.copy_(mixing.log_diagonal)
    else:
        one.W.copy_(mixing.weight)
    net = coupling.net
    assert isinstance(net, GlowNet)
    hidden = net.hidden[0]
    assert isinstance(hidden, NormedConv)
    convs = [part for part in block.flows[1].param_map.net if isinstance(part, nn.Conv2d)]
    for conv, own in zip(convs, (net.first, hidden, net.last), strict=True):
        weight, bias = folded(own)
        if own is net.last:  # ours: shifts, then scales; theirs in turns, and the shift is subtracted
            half = len(bias) // 2
            weight = torch.stack([-weight[:half], weight[half:]], 1).flatten(0, 1)
            bias = torch.stack([-bias[:half], bias[half:]], 1).flatten()
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)


@pytest.mark.parametrize("lu", [False, True])
def test_glow(lu: bool) -> None:
    levels, steps, width, spec = 2, 3, 8, ImageSpec(3, 8, 8)
    model = build(Glow, GlowConfig(levels=levels, steps=steps, width=width, lu=lu, least_scale=0.0), spec).double()
    assert isinstance(model, Glow)
    kept = model.layers.factors[0].state_dict()
    stir(model, width=0.1)
    model.layers.factors[0].load_state_dict({name: 0 * value for name, value in kept.items()})  # theirs is not learned
    flows, merges, bases, channels, size = [], [], [], 3, 8
    for level, own in enumerate(model.layers.levels):
        channels, size = 4 * channels, size // 2
        layers = list(own)[1:]
        blocks = [nf.flows.GlowBlock(channels, width, use_lu=lu).double() for _ in range(steps)]
        for number, block in enumerate(blocks):
            fill(block, *layers[3 * number : 3 * number + 3])
        flows.insert(0, [*blocks[::-1], nf.flows.Squeeze()])
        last = level == levels - 1
        shape = (channels if last else channels // 2, size, size)
        base = nf.distributions.DiagGaussian(shape).double()
        bases.insert(0, base)
        if last:
            prior = model.layers.prior
            assert isinstance(prior, LearnedNormal)
            with torch.no_grad():
                base.loc.copy_(prior.mean[:, None, None].expand(shape))
                base.log_scale.copy_(LOG_SCALE_FACTOR * prior.log_std[:, None, None].expand(shape))
        else:
            merges.insert(0, nf.flows.Merge())
            channels //= 2
    theirs = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    y = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    eps, log_p = model.layers(y)
    z, _ = theirs.inverse_and_log_det(y)
    assert (theirs.log_prob(y, None) - log_p).abs().max() < 1e-6
    top = (z[0] - bases[0].loc) * torch.exp(-bases[0].log_scale)
    assert (torch.cat([top.flatten(1), z[1].flatten(1)], 1) - eps).abs().max() < 1e-6


class _Part(nn.Module):
    """Scales or shifts of one of our couplings, as a function of the whole masked vector."""

    def __init__(self, coupling: Halves, which: int) -> None:
        super().__init__()
        self.coupling, self.which = coupling, which

    def forward(self, x: Tensor) -> Tensor:
        a, _ = self.coupling._cut(x)
        t, s = self.coupling.net(a).chunk(2, 1)
        how = self.coupling.move
        assert isinstance(how, TanhAffine)
        return self.coupling._join(torch.zeros_like(a), how.most * torch.tanh(s) if self.which else t)


def test_realnvp() -> None:
    model = build(RealNVP, RealNVPConfig(couplings=4, widths=(16, 16), normalise=False), PointsSpec(5)).double()
    assert isinstance(model, RealNVP)
    stir(model, width=0.3)
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h, total = x, torch.zeros(50, dtype=torch.float64)
    for number, layer in enumerate(model.layers.levels[0]):
        assert isinstance(layer, Halves)
        mask = ((torch.arange(5) < 3) == (number % 2 == 0)).double()
        flow = nf.flows.MaskedAffineFlow(mask, t=_Part(layer, 0), s=_Part(layer, 1))
        h, change = flow(h)
        total = total + change
    eps, log_p = model.layers(x)
    assert (h - eps).abs().max() < 1e-6
    base = nf.distributions.DiagGaussian(5, trainable=False).double()
    assert (base.log_prob(h) + total - log_p).abs().max() < 1e-6


def test_spline_networks() -> None:
    """A residual masked network and its splines against normflows', with its weights."""
    dims, width, blocks, bins, bound = 5, 12, 2, 6, 2.5
    theirs = nf.flows.AutoregressiveRationalQuadraticSpline(
        dims, blocks, width, num_bins=bins, tail_bound=bound, init_identity=False
    ).double()
    made = theirs.mprqat.autoregressive_net
    own = MADE(dims, (width,) * (2 * blocks + 1), 3 * bins - 1, residual=True).double().eval()
    inner = [layer for block in made.blocks for layer in block.linear_layers]
    with torch.no_grad():
        for one, two in zip(own.layers, [made.initial_layer, *inner], strict=True):
            assert isinstance(one, Masked)
            assert torch.equal(one.mask, two.mask)
            one.weight.copy_(two.weight)
            one.bias.copy_(two.bias)
        # theirs: all numbers of a value side by side
        own.last.weight.copy_(made.final_layer.weight.view(dims, -1, width).transpose(0, 1).flatten(0, 1))
        own.last.bias.copy_(made.final_layer.bias.view(dims, -1).t().flatten())
        own.last.bias[2 * bins * dims :] -= math.log(math.exp(1 - LEAST) - 1)  # our zero is the identity
    layer = Autoregressive(own, Spline(bins, bound))
    x = 1.5 * torch.randn(50, dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        y, log_slope = theirs.mprqat(x)
        found, own_slope = layer(x)
    # theirs divides widths and heights by the square root of the width of the network, where it knows that
    scale = width**0.5 if hasattr(made, "hidden_features") else 1.0
    if scale != 1.0:
        with torch.no_grad():
            for part in (own.last.weight, own.last.bias):
                part.view(3 * bins - 1, -1)[: 2 * bins] /= scale
            found, own_slope = layer(x)
    assert (found - y).abs().max() < 1e-6
    assert (own_slope - log_slope).abs().max() < 1e-6


def test_masked_affine() -> None:
    """A layer of MAF as zuko's autoregressive transform of the same network, both ways."""
    zuko = pytest.importorskip("zuko", reason="the test extra installs zuko")
    net, move = MADE(4, (16, 16), 2), TanhAffine(1)
    layer = Autoregressive(net, move).double().eval()
    stir(layer, width=0.5)

    def affine(x: Tensor) -> Tensor:
        t, raw = net(x).chunk(2, 1)
        s = move.most * torch.tanh(raw)
        s = s / (1 - (s / math.log(1e-3)).abs())  # theirs clips softly
        return zuko.transforms.MonotonicAffineTransform(t, s, slope=1e-3)

    theirs = zuko.transforms.AutoregressiveTransform(affine, passes=4)
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        y, log_slope = theirs.call_and_ladj(x)
        found, own_slope = layer(x)
        assert (theirs.inv(found) - layer.inverse(found)).abs().max() < 1e-6
    assert (found - y).abs().max() < 1e-6
    assert (own_slope - log_slope.sum(1)).abs().max() < 1e-6
