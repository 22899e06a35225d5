"""Projection: the styles, and the noise, from which a generator makes a picture that is given.

Papers
    Karras et al. 2020a, "Analyzing and Improving the Image Quality of StyleGAN" (arXiv:1912.04958): appendix D. The
    search begins with the mean style and with drawn noise maps; Adam at a rate that goes up to 0.1 and down; styles are
    shaken by normal noise of deviation 0.05 sigma t^2 while t goes from 1 to 0 in three quarters of the search, where
    sigma^2 is the mean squared distance of a style from the mean one. Noise maps are searched too: they pay 10^5 times
    the squared correlations of neighbours, at all scales down to 8 pixels, and have mean 0 and variance 1 after each
    step, so that no picture hides in them.
    Abdal et al. 2019 (arXiv:1904.03189): a style of its own for each layer.

What differs, and why
    What is compared are the pictures, and what the run's own critic sees in them. The paper takes a network trained on
    photographs (LPIPS): nothing is downloaded, and emoji are no photographs.
    The result is the step of the smallest error, and not the last.
    The paper makes 1,000 steps; how many is a setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Perception, Styled
from castalia.core.guest import guest
from castalia.core.rng import BatchRng
from castalia.core.sampling import Given
from castalia.nn.equalised import EqualConv2d

RATE = 0.1
"""Largest learning rate."""

MANY = 10_000
"""Latents from which the mean style is computed."""

SHAKEN = 0.05
"""Deviation of the noise on the styles at the beginning, of the root of their mean squared distance from the mean."""

FADING = 0.75
"""Share of the search in which it fades out."""

WHITE = 1e5
"""Weight of the noise maps' squared correlations."""

SMALLEST = 8
"""Pixels of a side of the smallest scale at which they are looked at."""


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        steps: of Adam.
        each: a style of its own for each layer.
        seen: weight of what the critic sees; 0: pixels only.
        noise: search the noise maps as well; else the model's constant ones stay.
        frames: pictures of the search that are kept, at least two, the last of them what was found.
    """

    steps: int = 400
    each: bool = False
    seen: float = 0.1
    noise: bool = True
    frames: int = 24

    def __post_init__(self) -> None:
        if self.steps < 1 or self.frames < 2 or not self.seen >= 0:
            raise ValueError("steps must be positive, frames at least 2, seen not negative")


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        styles: ``float32`` (1, layers, w).
        noise: maps ``float32`` (1, 1, h, w), one for each layer that has noise; None: the model's constant ones.
        frames: pictures ``float32`` (frames, C, H, W) on the way, of about 0 to 255; the last is what was found. Where
            there are fewer steps than frames, some stand there more than once.
        error: mean squared difference of the picture found, of values scaled to 0 to 1.
        before: that of the mean style's picture, with the constant noise.
    """

    styles: Tensor
    noise: tuple[Tensor, ...] | None
    frames: Tensor
    error: float
    before: float


def project(
    model: Styled,
    target: Tensor,
    rng: BatchRng,
    settings: Settings | None = None,
    given: Given | None = None,
) -> Found:
    """Search the styles, and the noise, that make a picture.

    Args:
        model: in evaluation mode.
        target: ``float32`` (1, C, H, W), 0 to 255, on the model's device.
        rng: one row, on the model's device.
        settings: None for the usual ones.
        given: what the model is told beside latents: rows of one, such as a label (1,). Its mean style is begun from.
    """
    settings = settings or Settings()
    with torch.no_grad():
        mean, deviation = middle(model, given, target.device)
        before = difference(model.render(mean.expand(1, model.style_layers, -1)), target).item()
    networks = list(model.perceive().values()) if settings.seen and isinstance(model, Perception) else []
    look = layers_of(networks[0]) if networks else None
    w = mean.expand(1, model.style_layers if settings.each else 1, -1).clone()
    maps = []
    if settings.noise:
        maps = [rng.normal(f"noise {layer}", 1, *size) for layer, size in enumerate(model.noise_sizes)]
        whiten(maps)
    searched = [w, *maps]
    for part in searched:
        part.requires_grad_(True)
    frames, best, least = [], (w.detach(), maps), math.inf
    with guest():
        optimizer = torch.optim.Adam(searched, RATE)
        goal = None if look is None else [part.detach() for part in look(target)]
        for step in range(settings.steps):
            share = step / settings.steps
            for group in optimizer.param_groups:
                group["lr"] = RATE * ramp(share)
            strength = SHAKEN * deviation * max(0.0, 1 - share / FADING) ** 2
            shaken = w + strength * rng.at("step", step).normal("shake", *w.shape[1:])
            picture = model.render(shaken.expand(-1, model.style_layers, -1), noise=maps or None)
            error = difference(picture, target)
            loss = error
            if look is not None and goal is not None:
                loss = loss + settings.seen * seen_apart(look(picture), goal)
            if maps:
                loss = loss + WHITE * torch.stack([correlation(part) for part in maps]).sum()
            while len(frames) * settings.steps < (step + 1) * (settings.frames - 1):
                frames.append(picture.detach())
            if error.item() < least:
                best, least = (shaken.detach().clone(), [part.detach().clone() for part in maps]), error.item()
            for part, slope in zip(searched, torch.autograd.grad(loss, searched), strict=True):
                part.grad = slope
            optimizer.step()
            whiten(maps)
    styles, noise = best[0].expand(-1, model.style_layers, -1), tuple(best[1]) or None
    with torch.no_grad():
        frames.append(model.render(styles, noise=noise))
    return Found(styles, noise, torch.cat(frames), least, before)


def middle(model: Styled, given: Given | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """The mean style (w,), and the root () of the mean squared distance of styles from it."""
    z = BatchRng(0, total=MANY, device=device).normal("mean style", model.latent_dims)
    told = None if given is None else {name: value.expand(MANY, *value.shape[1:]) for name, value in given.items()}
    many = model.styles(z, told)[:, 0]
    mean = many.mean(0)
    return mean, (many - mean).square().sum(1).mean().sqrt()


def difference(picture: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of pictures of 0 to 255, of values scaled to 0 to 1."""
    return ((picture - target) / 255).square().mean()


def ramp(share: float) -> float:
    """Learning rate at a share of the search: up in the first twentieth, down along a cosine in the last quarter."""
    down = min(1.0, (1 - share) / 0.25)
    return (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, (share + 1e-3) / 0.05)


# noise maps


def correlation(noise: Tensor) -> Tensor:
    """Squared correlations of a map (1, 1, h, w) with itself one place on, across and down, summed over its scales.

    The map wraps around. It is halved, by means of four that keep the variance of white noise, while both sides can be
    and are above :data:`SMALLEST`.
    """
    total = noise.new_zeros(())
    while True:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, axis)).mean().square()
        h, w = noise.shape[2:]
        if min(h, w) <= SMALLEST or h % 2 or w % 2:
            return total
        noise = 2 * F.avg_pool2d(noise, 2)


@torch.no_grad()
def whiten(maps: Sequence[Tensor]) -> None:
    """Bring maps to mean 0 and variance 1, in place."""
    for noise in maps:
        noise -= noise.mean()
        noise *= torch.rsqrt(noise.square().mean().clamp(min=1e-12))


# what a critic sees


def seen_apart(seen: Sequence[Tensor], goal: Sequence[Tensor]) -> Tensor:
    """Squared differences of what layers see, relative to the squares of what they are to see, mean over layers."""
    parts = zip(seen, goal, strict=True)
    return torch.stack([(a - b).square().mean() / b.square().mean().clamp(min=1e-8) for a, b in parts]).mean()


def layers_of(network: nn.Module) -> Callable[[Tensor], list[Tensor]]:
    """A function from pictures to the outputs of all convolutions of a network."""
    parts = [m for m in network.modules() if isinstance(m, nn.Conv2d | EqualConv2d)]

    def look(x: Tensor) -> list[Tensor]:
        seen: list[Tensor] = []

        def note(module: nn.Module, inputs: Any, out: Tensor) -> None:
            seen.append(out)

        hooks = [part.register_forward_hook(note) for part in parts]
        try:
            network(x)
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    return look
