"""Find the styles of a picture, so that it can be made again.

Karras et al. 2020a (arXiv:1912.04958), appendix D: from the mean style, with noise on the styles that fades out.
Abdal et al. 2019 (arXiv:1904.03189): a style of its own for each layer. What is compared are the pictures and what the
run's own critic sees in them, where the paper takes a network trained on photographs: nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Film, Grid, Work, option

if TYPE_CHECKING:
    from torch import Tensor

RATE = 0.1
"""Largest learning rate."""

SHAKEN = 0.05
"""Noise on the styles at the beginning, in deviations of styles."""

FADING = 0.75
"""Share of the search in which it fades out."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which picture, and how it is searched."""

    of: str = option(help="the picture to find", flag="", metavar="A.png", example=True)
    steps: int = option(400, "steps of the search (400)", least=1)
    each: bool = option(False, "a style of its own for each layer: closer to the picture, further from the model")
    seen: float = option(0.1, "weight of what the critic sees; 0: pixels only (0.1)")
    frames: int = option(24, "pictures of the search in the film (24)", least=2)
    fps: float = option(12.0, "frames a second (12)")
    seed: int = option(0, "other noise")


def run(work: Work, options: Options) -> Film:
    """Move the styles until the picture is like the one given; the film shows the search.

    Raises:
        UsageError: a negative weight.
    """
    import torch

    from castalia.core.data import Batch

    if options.seen < 0:
        raise UsageError("--seen must not be negative.")
    target = work.examples([options.of]).x
    frames, styles, error = search(work, target, options)
    x = torch.cat(frames).round().clamp(0, 255).to(torch.uint8).cpu()
    still = Grid(Batch.of(torch.cat([target.cpu(), x[-1:]])), columns=2, given=1)
    found = [[round(value, 5) for value in layer] for layer in (styles[0] if options.each else styles[0, :1]).tolist()]
    return Film(Batch.of(x), options.fps, still=still, recipe={"styles": found, "error": error})


def search(work: Work, target: Tensor, options: Options) -> tuple[list[Tensor], Tensor, float]:
    """Styles (1, layers, w) whose picture is like ``target`` (1, C, H, W), pictures on the way, and the error.

    The error is the mean squared difference of pictures scaled to 0 to 1.
    """
    import torch

    from castalia.core.capabilities import Perception
    from castalia.core.rng import BatchRng

    model: Any = work.model
    wanted = target.to(model.device).float()
    rng = BatchRng(options.seed, total=1, device=model.device)
    z = BatchRng(0, total=4096).normal("mean style", model.latent_dims).to(model.device)
    many = model.styles(z)[:, 0]
    mean, deviation = many.mean(0), (many - many.mean(0)).square().sum(1).mean().sqrt()
    seeing = work.model if options.seen and isinstance(work.model, Perception) else None
    network = None if seeing is None else next(iter(seeing.perceive().values()))
    layers = model.style_layers if options.each else 1
    w = mean.expand(1, layers, -1).clone()
    seen_of = None if network is None else layers_of(network)
    with torch.enable_grad():
        w.requires_grad_(True)
        optimizer = torch.optim.Adam([w], RATE)
        goal = None if seen_of is None else [part.detach() for part in seen_of(wanted)]
        frames, best, least = [], w.detach().clone(), float("inf")
        for step in range(options.steps):
            share = step / options.steps
            for group in optimizer.param_groups:
                group["lr"] = RATE * ramp(share)
            strength = SHAKEN * deviation / mean.numel() ** 0.5 * max(0.0, 1 - share / FADING) ** 2
            shaken = w + strength * rng.at("step", step).normal("shake", *w.shape[1:])
            picture = model.render(shaken.expand(-1, model.style_layers, -1))
            error = ((picture - wanted) / 255).square().mean()
            loss = error
            if seen_of is not None and goal is not None:
                parts = zip(seen_of(picture), goal, strict=True)
                loss = loss + options.seen * sum(
                    (a - b).square().mean() / b.square().mean().clamp(min=1e-8) for a, b in parts
                ) / len(goal)
            (w.grad,) = torch.autograd.grad(loss, w)
            optimizer.step()
            if step * (options.frames - 1) // options.steps >= len(frames):
                frames.append(picture.detach())
            if error.item() < least:
                best, least = shaken.detach().clone(), error.item()
    styles = best.expand(-1, model.style_layers, -1)
    frames.append(model.render(styles))
    return frames, styles, least


def ramp(share: float) -> float:
    """Learning rate at a share of the search: up in the first twentieth, down along a cosine in the last quarter."""
    import math

    down = min(1.0, (1 - share) / 0.25)
    return (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, (share + 1e-3) / 0.05)


def layers_of(network: Any) -> Callable[[Tensor], list[Tensor]]:
    """A function from pictures to the outputs of all convolutions of a network."""
    from torch import nn

    from castalia.nn.equalised import EqualConv2d

    def look(x: Tensor) -> list[Tensor]:
        seen: list[Tensor] = []
        parts = [m for m in network.modules() if isinstance(m, nn.Conv2d | EqualConv2d)]

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


EDIT = Edit(
    "project",
    "Find the styles that make a picture.",
    "FILE.gif, .mp4 or .webp: the search; FILE.png: the picture beside what was found",
    Options,
    run,
    needs=("Styled",),
    media=("image",),
)
