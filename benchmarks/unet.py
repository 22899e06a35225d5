"""Our U-Net beside diffusers' ``UNet2DModel`` with the same weights: a training step, and 50 steps of DDIM.

Equal precision: the same arithmetic on both sides; ours in channels-last order as in Castalia's loop, theirs in torch's
default order as diffusers' own scripts have it, and once more in channels-last order, which a person would have to
think of. Defaults: theirs as in its training example and its pipeline (float32, default order, ``AdamW``); ours as
``castalia train`` and ``castalia sample`` choose (bfloat16 where it was measured to be faster).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import ceilings
from benchmarks.harness import Options, Row, Run, alternate, gflop, profile
from benchmarks.held import HeldTraining
from castalia import api
from castalia.catalogue import entry
from castalia.configuration import Data, Recipe, Training
from castalia.core.data import ImageSpec
from castalia.core.model import Model, build
from castalia.interop.diffusers_layout import to_theirs, to_unet2d
from castalia.media.image.array import ImageArray
from castalia.models.diffusion.ddpm import DDPMConfig, DDPMOptions
from castalia.nn.unet import UNet, UNetConfig, small_28

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

SIZES: dict[str, tuple[UNetConfig, int, int, int]] = {
    "32-64-64, 28x28 grey": (small_28(), 1, 28, 32),
    "64-128-128, 32x32 colour": (
        UNetConfig(channels=(64, 128, 128), attention=(1,), head_channels=64, eps=1e-5),
        3,
        32,
        16,
    ),
}
"""By name: configuration, channels, side, batch of training."""

STEPS = 50
SAMPLES = 16


def pair(config: UNetConfig, channels: int, side: int) -> tuple[Model, nn.Module]:
    """Our DDPM and their network, with the same random weights."""
    from diffusers import UNet2DModel

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    model = build(entry("ddpm").load(), DDPMConfig(unet=config), ImageSpec(channels, side, side), 0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    network = model.get_submodule("network")
    assert isinstance(network, UNet)
    theirs = UNet2DModel(**asdict(to_unet2d(config, channels, channels, 0, (side, side))))
    theirs.load_state_dict(to_theirs(network, network.state_dict()))
    return model.to(memory_format=torch.channels_last), theirs  # type: ignore[call-overload]


def training_step(call: object, net: nn.Module, x: Tensor, bf16: bool, *, fused: bool = True) -> Run:
    """Forward and backward passes and an optimizer's step on a batch."""
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=fused or None)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.mse_loss(call(x).float(), x)  # type: ignore[operator]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def their_sampling(net: nn.Module, channels: int, side: int, dtype: torch.dtype, last: bool) -> Run:
    """DDIM with their scheduler around their network, as their pipeline does it (which fails in bfloat16)."""
    from diffusers import DDIMPipeline, DDIMScheduler

    net.eval().to(dtype)
    if last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scheduler = DDIMScheduler()
    if dtype == torch.float32 and not last:
        pipeline = DDIMPipeline(net, scheduler)
        pipeline.set_progress_bar_config(disable=True)
        return lambda: pipeline(batch_size=SAMPLES, num_inference_steps=STEPS, output_type="np")

    def run() -> None:
        x = torch.randn(SAMPLES, channels, side, side, dtype=dtype)
        x = x.to(memory_format=torch.channels_last) if last else x
        scheduler.set_timesteps(STEPS)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t).sample, t, x).prev_sample

    return run


def our_sampling(model: Model, precision: str) -> Run:
    """DDIM as ``castalia sample`` does it."""
    how = DDPMOptions(sampler="ddim", steps=STEPS, grid="leading")
    model.eval()
    return lambda: api.draw(model, SAMPLES, options=how, precision=precision)  # type: ignore[arg-type]


def rows(options: Options) -> Iterator[Row]:
    """Both sizes, training and sampling, both precisions, both layouts of theirs; and the defaults."""
    sizes = dict(list(SIZES.items())[:1]) if options.quick else SIZES
    for name, (config, channels, side, batch) in sizes.items():
        x, t = torch.randn(batch, channels, side, side), torch.randint(1000, (batch,))
        for bf16 in (False, True):
            kind = "bfloat16 autocast" if bf16 else "float32"
            for last in (False, True):
                model, net = pair(config, channels, side)
                network = model.get_submodule("network")
                if last:
                    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                their_x = x.to(memory_format=torch.channels_last) if last else x
                mine = training_step(
                    lambda x, n=network, t=t: n(x, t.float()), network, x.to(memory_format=torch.channels_last), bf16
                )
                other = training_step(lambda x, n=net, t=t: n(x, t).sample, net, their_x, bf16)
                dtype = torch.bfloat16 if bf16 else torch.float32
                yield alternate(mine, other, options.rounds).row(
                    "unet",
                    f"{name}: training step, batch {batch}, {kind}",
                    "diffusers, channels-last" if last else "diffusers",
                    target=None if last else 1.1,
                    gflop=gflop(mine),
                    ceiling=(f"convolution {kind.split()[0]}", ceilings.convolution(dtype, options.threads)),
                    profile=profile(mine),
                )
        for bf16 in (False, True):
            for last in (False, True):
                model, net = pair(config, channels, side)
                dtype, precision = (torch.bfloat16, "bfloat16") if bf16 else (torch.float32, "float32")
                mine = our_sampling(model, precision)
                yield alternate(mine, their_sampling(net, channels, side, dtype, last), options.rounds).row(
                    "unet",
                    f"{name}: {STEPS} steps of DDIM, {SAMPLES} samples, {precision}",
                    "diffusers, channels-last" if last else "diffusers",
                    target=None if last else 1.3,
                    gflop=gflop(mine),
                    ceiling=(f"convolution {precision}", ceilings.convolution(dtype, options.threads)),
                    profile=profile(mine),
                )
        yield from _defaults(name, config, channels, side, batch, options)


def _defaults(name: str, config: UNetConfig, channels: int, side: int, batch: int, options: Options) -> Iterator[Row]:
    """What a person meets who changes nothing."""
    from diffusers import DDPMScheduler

    model, net = pair(config, channels, side)
    scheduler, pixels = DDPMScheduler(), torch.randint(0, 256, (512, channels, side, side), dtype=torch.uint8)
    optimizer = torch.optim.AdamW(net.train().parameters(), 1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    steps = 5

    def theirs() -> None:
        for _ in range(steps):
            clean = pixels[torch.randint(512, (batch,))].float() / 127.5 - 1
            noise, t = torch.randn_like(clean), torch.randint(1000, (batch,))
            loss = F.mse_loss(net(scheduler.add_noise(clean, noise, t), t).sample, noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    mine = HeldTraining(
        Recipe(
            "ddpm",
            DDPMConfig(unet=config),
            Data("digits"),
            Training(
                steps=10**6,
                batch_size=batch,
                lr=1e-4,
                threads=options.threads,
                checkpoint_every=10**9,
                sample_every=10**9,
                samples=1,
            ),
        ),
        ImageArray(pixels.numpy(), name="random"),
        steps,
    )
    try:
        yield alternate(mine, theirs, options.rounds).row(
            "unet",
            f"{name}: training step, batch {batch}, each at its defaults",
            "diffusers",
            target=2.0,
            per=steps,
            note="ours is castalia's loop with averaging and checks",
        )
    finally:
        mine.close()
    model, net = pair(config, channels, side)
    chosen = (
        "bfloat16"
        if ceilings.matmul(torch.bfloat16, options.threads) > 1.5 * ceilings.matmul(torch.float32, options.threads)
        else "float32"
    )
    yield alternate(
        our_sampling(model, chosen), their_sampling(net, channels, side, torch.float32, False), options.rounds
    ).row(
        "unet",
        f"{name}: {STEPS} steps of DDIM, {SAMPLES} samples, each at its defaults (ours: {chosen})",
        "diffusers",
        target=2.0,
    )
