"""Our U-Net beside diffusers' ``UNet2DModel`` with the same weights: a training step, and steps of DDIM.

Equal precision: the same arithmetic on both sides; ours in channels-last order as in Castalia's loop, theirs in torch's
default order as diffusers' own scripts have it, and once more in channels-last order, which a person would have to
think of. Both sides have the same batch, threads, clipping (of gradients, and of denoised examples) and allocator.
Defaults: theirs as in its training example and its pipeline (float32, default order, ``AdamW``); ours as
``castalia train`` and ``castalia sample`` choose (bfloat16 where it was measured to be faster), in a process that keeps
its memory, as those do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import ceilings
from benchmarks.harness import Options, Row, Run, alternate, gflop, profile
from benchmarks.sides import HeldTraining, Side
from castalia import api
from castalia.catalogue import entry
from castalia.configuration import Data, Recipe, Training
from castalia.core.model import Model, build
from castalia.core.precision import Precision, precision_context
from castalia.core.specs.image import ImageSpec
from castalia.interop.diffusers_layout import to_theirs, to_unet2d
from castalia.media.image.array import ImageArray
from castalia.models.diffusion.ddpm import DDPMConfig, DDPMOptions
from castalia.nn.unet import UNet, UNetConfig, ddpm_cifar, small_28

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@dataclass(frozen=True)
class Case:
    """A network and what it is given.

    Attributes:
        name: for the table.
        config: of the network.
        channels: of the pictures.
        side: of the pictures.
        batch: of training; 0 where only sampling is compared.
        steps: of sampling.
        samples: at once.
    """

    name: str
    config: UNetConfig
    channels: int
    side: int
    batch: int
    steps: int = 50
    samples: int = 16


CASES = (
    Case("32-64-64, 28x28 grey", small_28(), 1, 28, 32),
    Case(
        "64-128-128, 32x32 colour",
        UNetConfig(channels=(64, 128, 128), attention=(1,), head_channels=64, eps=1e-5),
        3,
        32,
        16,
    ),
    Case("32-64-64, 28x28 grey", small_28(), 1, 28, 0, samples=1),
    Case("128-256-256-256, 32x32 colour (Ho et al., CIFAR-10)", ddpm_cifar(), 3, 32, 0, 5),
)

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def pair(case: Case) -> tuple[Model, nn.Module]:
    """Our DDPM and their network, with the same random weights, also in two processes."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    model = build(entry("ddpm").load(), DDPMConfig(unet=case.config), ImageSpec(case.channels, case.side, case.side), 0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    network = model.get_submodule("network")
    assert isinstance(network, UNet)
    theirs = UNet2DModel(**asdict(to_unet2d(case.config, case.channels, case.channels, 0, (case.side, case.side))))
    theirs.load_state_dict(to_theirs(network, network.state_dict()))
    return model.to(memory_format=torch.channels_last), theirs  # type: ignore[call-overload]


def training_step(call: Callable[[Tensor], Tensor], net: nn.Module, x: Tensor, precision: Precision) -> Run:
    """Forward and backward passes and an optimizer's step on a batch."""
    optimizer = torch.optim.AdamW(net.train().parameters(), 1e-4, fused=True)

    def run() -> None:
        with precision_context(precision, x.device):
            loss = F.mse_loss(call(x).float(), x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def batch(case: Case) -> tuple[Tensor, Tensor]:
    """Noisy pictures, channels last, and their times."""
    x = torch.randn(case.batch, case.channels, case.side, case.side).to(memory_format=torch.channels_last)
    return x, torch.randint(1000, (case.batch,))


def our_training(case: Case, precision: Precision) -> Run:
    """A step of ours."""
    network = pair(case)[0].get_submodule("network")
    x, t = batch(case)
    return training_step(lambda x: network(x, t.float()), network, x, precision)


def their_training(case: Case, precision: Precision, last: bool) -> Run:
    """A step of theirs; ``last``: in channels-last order."""
    net = pair(case)[1]
    x, t = batch(case)
    if last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return training_step(lambda x: net(x, t).sample, net, x if last else x.contiguous(), precision)


def our_sampling(case: Case, precision: Precision) -> Run:
    """DDIM as ``castalia sample`` does it."""
    model, how = pair(case)[0].eval(), DDPMOptions(sampler="ddim", steps=case.steps, grid="leading")
    return lambda: api.draw(model, case.samples, options=how, precision=precision).x


def their_sampling(case: Case, precision: Precision, last: bool) -> Run:
    """DDIM with their scheduler around their network, as their pipeline does it (which fails in bfloat16)."""
    from diffusers import DDIMPipeline, DDIMScheduler

    net, dtype = pair(case)[1].eval(), getattr(torch, precision)
    net.to(dtype)
    if last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scheduler = DDIMScheduler()
    if dtype == torch.float32 and not last:
        pipeline = DDIMPipeline(net, scheduler)
        pipeline.set_progress_bar_config(disable=True)
        return lambda: pipeline(batch_size=case.samples, num_inference_steps=case.steps, output_type="np")

    def run() -> None:
        x = torch.randn(case.samples, case.channels, case.side, case.side, dtype=dtype)
        x = x.to(memory_format=torch.channels_last) if last else x
        scheduler.set_timesteps(case.steps)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t).sample, t, x).prev_sample

    return run


def rows(options: Options) -> Iterator[Row]:
    """Each network, training and sampling, both precisions, both layouts of theirs; and the defaults."""
    for case in CASES[:1] if options.quick else CASES:
        for work, target, ours, theirs in (
            (f"training step, batch {case.batch}", 1.1, our_training, their_training),
            (f"{case.steps} steps of DDIM, samples: {case.samples}", 1.3, our_sampling, their_sampling),
        )[0 if case.batch else 1 :]:
            for precision in PRECISIONS:
                if not options.wants(f"{case.name}: {work}, {precision}"):
                    continue
                ceiling = ceilings.convolution(getattr(torch, precision), options.threads)
                run = ours(case, precision)
                count, shares = gflop(run), profile(run)
                for last in (False, True):
                    with (
                        Side(ours, case, precision, threads=options.threads, keeps=True) as mine,
                        Side(theirs, case, precision, last, threads=options.threads, keeps=True) as other,
                    ):
                        timing = alternate(mine, other, options.rounds)
                    yield timing.row(
                        "unet",
                        f"{case.name}: {work}, {precision}",
                        "diffusers, channels-last" if last else "diffusers",
                        target=None if last else target,
                        gflop=count,
                        ceiling=(f"convolution {precision}", ceiling),
                        profile=shares,
                    )
        if case.batch and options.wants(f"{case.name}: each at its defaults"):
            yield from _defaults(case, options)


DEFAULT_STEPS = 5
"""Training steps of one timing at defaults."""


def their_default_training(case: Case) -> Run:
    """Steps as diffusers' training example makes them."""
    from diffusers import DDPMScheduler

    net = pair(case)[1]
    scheduler, pixels = DDPMScheduler(), pictures(case)
    optimizer = torch.optim.AdamW(net.train().parameters(), 1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)

    def run() -> None:
        for _ in range(DEFAULT_STEPS):
            clean = pixels[torch.randint(len(pixels), (case.batch,))].float() / 127.5 - 1
            noise, t = torch.randn_like(clean), torch.randint(1000, (case.batch,))
            loss = F.mse_loss(net(scheduler.add_noise(clean, noise, t), t).sample, noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return run


def pictures(case: Case) -> Tensor:
    """Random ones, ``uint8``."""
    return torch.randint(0, 256, (512, case.channels, case.side, case.side), dtype=torch.uint8)


def _defaults(case: Case, options: Options) -> Iterator[Row]:
    """What a person meets who changes nothing."""
    recipe = Recipe(
        "ddpm",
        DDPMConfig(unet=case.config),
        Data("digits"),
        Training(
            steps=10**6,
            batch_size=case.batch,
            lr=1e-4,
            threads=options.threads,
            checkpoint_every=10**9,
            sample_every=10**9,
            samples=1,
        ),
    )
    data = ImageArray(pictures(case).numpy(), name="random")
    with (
        Side(HeldTraining, recipe, data, DEFAULT_STEPS, threads=options.threads, keeps=True) as mine,
        Side(their_default_training, case, threads=options.threads) as other,
    ):
        timing, chosen = alternate(mine, other, options.rounds), mine.ask("precision")
    yield timing.row(
        "unet",
        f"{case.name}: training step, batch {case.batch}, each at its defaults",
        "diffusers",
        target=2.0,
        per=DEFAULT_STEPS,
        note="ours is castalia's loop with averaging and checks, without clipping, and keeps its memory; theirs clips "
        "gradients, and has the allocator as it comes",
    )
    with (
        Side(our_sampling, case, chosen, threads=options.threads, keeps=True) as mine,
        Side(their_sampling, case, "float32", False, threads=options.threads) as other,
    ):
        timing = alternate(mine, other, options.rounds)
    yield timing.row(
        "unet",
        f"{case.name}: {case.steps} steps of DDIM, samples: {case.samples}, each at its defaults (ours: {chosen})",
        "diffusers",
        target=2.0,
        note="ours keeps its memory; theirs is in float32, with the allocator as it comes",
    )
