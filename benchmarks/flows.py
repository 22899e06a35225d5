"""Glow and RealNVP beside normflows: training steps and samples, same layers, sizes, batch and optimizer, float32.

Both sides have the same values in memory and compute the density of the layers alone, without dequantisation. Networks
are of the same sizes; those of Glow have no norms inside on their side, and on ours norms that are folded into the
convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Options, Row, Run, alternate, profile
from benchmarks.sides import Side
from castalia.core.model import build, lay_out
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.base import Flow
from castalia.models.flows.glow import Glow, GlowConfig
from castalia.models.flows.realnvp import RealNVP, RealNVPConfig

CHANNELS, SIZE, LEVELS, STEPS, WIDTH = 3, 32, 2, 8, 64
"""Of Glow."""

DIMS, COUPLINGS, HIDDEN = 43, 8, 128
"""Of RealNVP; as many coordinates as MINIBOONE has."""


def training(density: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], x: Tensor) -> Run:
    """A step: density, gradients, Adam."""
    optimizer = torch.optim.Adam(parameters, 1e-4)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        (-density(x).mean()).backward()
        optimizer.step()

    return run


def our_work(model: Flow, x: Tensor, sampling: int) -> Run:
    """Sampling, or a training step where ``sampling`` is 0."""
    lay_out(model)
    model.layers.fit(x)
    if not sampling:
        return training(lambda y: model.layers(y)[1], list(model.layers.parameters()), x)
    eps = torch.randn(sampling, model.latent_dims)

    @torch.no_grad()
    def run() -> None:
        model.layers.inverse(eps)

    return run


def pictures(batch: int) -> Tensor:
    """Values of pictures."""
    return torch.randn(batch, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def points(batch: int) -> Tensor:
    """Values of points."""
    return torch.randn(batch, DIMS, generator=torch.Generator().manual_seed(0))


def our_glow(batch: int, sampling: int, lu: bool) -> Run:
    """Ours."""
    config = GlowConfig(levels=LEVELS, steps=STEPS, width=WIDTH, lu=lu, least_scale=0.0)
    model = build(Glow, config, ImageSpec(CHANNELS, SIZE, SIZE))
    assert isinstance(model, Glow)
    return our_work(model, pictures(batch), sampling)


def their_glow(batch: int, sampling: int, lu: bool) -> Run:
    """As the example of normflows puts it together."""
    import normflows as nf

    torch.manual_seed(0)
    flows, merges, bases, channels, size = [], [], [], CHANNELS, SIZE
    for level in range(LEVELS):
        channels, size = 4 * channels, size // 2
        flows.insert(0, [*(nf.flows.GlowBlock(channels, WIDTH, use_lu=lu) for _ in range(STEPS)), nf.flows.Squeeze()])
        last = level == LEVELS - 1
        channels = channels if last else channels // 2
        bases.insert(0, nf.distributions.DiagGaussian((channels, size, size)))
        if not last:
            merges.insert(0, nf.flows.Merge())
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    x = pictures(batch)
    model.log_prob(x, None)  # sets its activation norms
    if not sampling:
        return training(partial(model.log_prob, y=None), list(model.parameters()), x)

    @torch.no_grad()
    def run() -> None:
        model.sample(sampling)

    return run


def our_realnvp(batch: int, sampling: int) -> Run:
    """Ours."""
    config = RealNVPConfig(couplings=COUPLINGS, widths=(HIDDEN, HIDDEN), normalise=False)
    model = build(RealNVP, config, PointsSpec(DIMS))
    assert isinstance(model, RealNVP)
    return our_work(model, points(batch), sampling)


def their_realnvp(batch: int, sampling: int) -> Run:
    """One network for scales and shifts in each coupling, as ours."""
    import normflows as nf

    torch.manual_seed(0)
    flows: list[nn.Module] = []
    for i in range(COUPLINGS):
        # halves of 22 and 21, then of 21 and 22
        stays = DIMS - DIMS // 2 if i % 2 == 0 else DIMS // 2
        mode = "channel" if i % 2 == 0 else "channel_inv"
        net = nf.nets.MLP([DIMS - DIMS // 2 if mode == "channel" else DIMS // 2, HIDDEN, HIDDEN, 2 * (DIMS - stays)])
        flows.append(nf.flows.AffineCouplingBlock(net, scale_map="exp", split_mode=mode))
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(DIMS, trainable=False), flows)
    x = points(batch)
    if not sampling:
        return training(model.log_prob, list(model.parameters()), x)

    @torch.no_grad()
    def run() -> None:
        model.sample(sampling)

    return run


def rows(options: Options) -> Iterator[Row]:
    """Training steps and samples of both."""
    batch = 8 if options.quick else 64
    shape = f"L = {LEVELS}, K = {STEPS}, {WIDTH} channels, {CHANNELS}x{SIZE}x{SIZE}"
    for lu in (True, False):
        for sampling in (0, batch):
            what = f"{batch} samples" if sampling else f"training step, batch {batch}"
            with (
                Side(our_glow, batch, sampling, lu, threads=options.threads, keeps=True) as mine,
                Side(their_glow, batch, sampling, lu, threads=options.threads, keeps=True) as other,
            ):
                yield alternate(mine, other, options.rounds).row(
                    "flows",
                    f"Glow ({shape}, {'LU' if lu else 'free matrices'}): {what}, float32",
                    "normflows",
                    target=1.0,
                    profile=profile(our_glow(batch, sampling, lu)),
                )
    many = 64 if options.quick else 512
    for sampling in (0, many):
        what = f"{many} samples" if sampling else f"training step, batch {many}"
        with (
            Side(our_realnvp, many, sampling, threads=options.threads, keeps=True) as mine,
            Side(their_realnvp, many, sampling, threads=options.threads, keeps=True) as other,
        ):
            yield alternate(mine, other, options.rounds).row(
                "flows",
                f"RealNVP ({COUPLINGS} couplings of {HIDDEN}-{HIDDEN}, {DIMS} dimensions): {what}, float32",
                "normflows",
                target=1.0,
                profile=profile(our_realnvp(many, sampling)),
            )
