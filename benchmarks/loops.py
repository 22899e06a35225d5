"""The training loop beside a bare PyTorch loop over the same networks and the same arithmetic.

The bare loop does what a person would write: index, loss, backward, clip where the recipe does, a fused optimizer. It
does not average weights, look for NaN, log, draw or save; ours does all of that, except drawing and saving, which are
switched off because a bare loop would have to do them too. Both sides keep their memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness import Options, Row, Run, alternate
from benchmarks.sides import HeldTraining, Side
from castalia import recipes
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.data import Batch, Order
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, derive
from castalia.media.image.array import ImageArray
from castalia.models.adversarial.players import Players
from castalia.models.autoencoders.vae import VAE, VAEConfig


def pictures(size: int, n: int = 12_800) -> ImageArray:
    """Random pictures: the arithmetic does not care."""
    x = np.random.default_rng(0).integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    return ImageArray(x, name="random")


def quiet(recipe: Recipe, threads: int, **changes: object) -> Recipe:
    """The recipe without drawing and saving, endless, in float32."""
    settings = {
        "steps": 10**6,
        "sample_every": 10**9,
        "checkpoint_every": 10**9,
        "samples": 1,
        "precision": "float32",
        "threads": threads,
        **changes,
    }
    return replace(recipe, training=replace(recipe.training, **settings))  # type: ignore[arg-type]


def bare_vae(recipe: Recipe, data: ImageArray, steps: int) -> Run:
    """The loop that a person would write; a run is ``steps`` steps."""
    settings, spec = recipe.training, data.spec
    model = build(entry(recipe.model).load(), recipe.config, spec, 0).train()
    assert isinstance(model, VAE)
    if any(p.ndim == 4 for p in model.parameters()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, betas=(0.9, 0.99), fused=True)
    order, x, parameters, done = Order(len(data), settings.batch_size, 0), data.x, list(model.parameters()), [0]

    def run() -> None:
        for step in range(done[0], done[0] + steps):
            ids = torch.from_numpy(order.ids(step))
            batch = Batch(x[ids], ids)
            rng = BatchRng(derive(0, step), total=len(batch))
            optimizer.zero_grad(set_to_none=True)
            loss, _ = model.loss(batch, rng, Progress(step, 10**6))
            loss.backward()
            if settings.clip:
                torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
        done[0] += steps

    return run


def bare_gan(recipe: Recipe, data: ImageArray, steps: int, penalty: float, critic_steps: int) -> Run:
    """DCGAN (``penalty`` 0) or WGAN-GP as in any tutorial, over our networks; a run is ``steps`` steps."""
    settings = recipe.training
    model = build(entry(recipe.model).load(), recipe.config, data.spec, 0).train()
    assert isinstance(model, Players)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator, critic, size, z = model.generator, model.critic, settings.batch_size, model.latent_dims
    rates = {"lr": settings.lr, "betas": settings.optimizer.betas, "fused": True}
    moves = {net: torch.optim.Adam(net.parameters(), **rates) for net in (generator, critic)}
    x = data.x

    def move(net: nn.Module, loss: torch.Tensor) -> None:
        moves[net].zero_grad(set_to_none=True)
        loss.backward()
        moves[net].step()

    def critic_loss() -> torch.Tensor:
        real = x[torch.randint(len(x), (size,))].float() / 127.5 - 1
        with torch.no_grad():
            fake = generator(torch.randn(size, z), None)
        if not penalty:
            on_real, on_fake = critic(real, None), critic(fake, None)
            return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        share = torch.rand(size, 1, 1, 1)
        between = (share * real + (1 - share) * fake).requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(between, None).sum(), between, create_graph=True)
        excess = gradient.flatten(1).norm(dim=1) - 1
        return critic(fake, None).mean() - critic(real, None).mean() + penalty * excess.square().mean()

    def generator_loss() -> torch.Tensor:
        critic.requires_grad_(False)
        on_fake = critic(generator(torch.randn(size, z), None), None)
        critic.requires_grad_(True)
        return -on_fake.mean() if penalty else F.softplus(-on_fake).mean()

    def run() -> None:
        for _ in range(steps):
            for _ in range(critic_steps):
                move(critic, critic_loss())
            move(generator, generator_loss())

    return run


@dataclass(frozen=True)
class Case:
    """A training.

    Attributes:
        name: for the table.
        recipe: what ours trains.
        side: of the pictures.
        steps: of one timing.
        bare: makes the other side.
        arguments: for it, after the recipe, the pictures and the steps.
    """

    name: str
    recipe: Recipe
    side: int
    steps: int
    bare: Callable[..., Run]
    arguments: tuple[Any, ...] = ()


def cases(threads: int) -> Iterator[Case]:
    """Three sizes of a VAE, DCGAN and WGAN-GP."""
    base = recipes.recipe("vae-mnist")
    tiny = VAEConfig(network="dense", widths=(64,), latent_dims=8)
    middle = VAEConfig(network="dense", widths=(400,), latent_dims=20)
    for name, config, side, size in (
        ("VAE 64-64-8, 8x8, batch 64", tiny, 8, 64),
        ("VAE 784-400-20, batch 128", middle, 28, 128),
        ("VAE convolutions 32-64, 28x28, batch 64", base.config, 28, 64),
    ):
        recipe = quiet(replace(base, config=config), threads, batch_size=size, clip=200.0)
        yield Case(name, recipe, side, 20, bare_vae)
    for name, short, steps, penalty, repeats in (
        ("DCGAN 64-128, 28x28, batch 64", "dcgan-mnist", 20, 0.0, 1),
        ("WGAN-GP 64-128, 28x28, batch 64, 5 critic updates", "wgan-gp-mnist", 4, 10.0, 5),
    ):
        recipe = quiet(recipes.recipe(short), threads, batch_size=64)
        yield Case(name, recipe, 28, steps, bare_gan, (penalty, repeats))


def rows(options: Options) -> Iterator[Row]:
    """Speed of ours as a share of the bare loop's."""
    for case in cases(options.threads):
        if not options.wants(f"step of {case.name}, float32"):
            continue
        data = pictures(case.side)
        with (
            Side(HeldTraining, case.recipe, data, case.steps, threads=options.threads, keeps=True) as ours,
            Side(
                case.bare, case.recipe, data, case.steps, *case.arguments, threads=options.threads, keeps=True
            ) as bare,
        ):
            timing = alternate(ours, bare, options.rounds)
        row = timing.row("loops", f"step of {case.name}, float32", "bare loop", target=0.97, per=case.steps)
        assert row.theirs is not None
        if row.theirs < 5:
            over = row.ours - row.theirs
            note = f"small: judged by the overhead, {over:+.2f} ms a step (at most 0.30)"
            row = replace(row, value=over, low=over, high=over, cpu=None, target=0.3, direction="at most", note=note)
        yield row
