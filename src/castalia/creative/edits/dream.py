"""A picture changed so that a network sees more of what it sees (DeepDream)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Film, One, Work, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is dreamed of, by which layer, and how far."""

    of: str | None = option(None, "the picture, of any size; none: noise", metavar="A.png", example=True)
    network: str | None = option(
        None,
        "which network looks: critic, encoder, energy, as the system has it; features: the house's own, trained on the "
        "run's data; or another run's folder (the first that there is)",
    )
    layer: str | None = option(None, "which layer; list shows them all (one in the middle)")
    unit: int | None = option(None, "only this map or value of the layer, from 0 (all)")
    guide: str | None = option(None, "dream of what is in this picture", metavar="B.png", example=True)
    octaves: int = option(4, "sizes to go through, the smallest first (4)", least=1)
    scale: float = option(1.4, "of each octave to the one before (1.4)")
    iterations: int = option(10, "steps in each octave (10)", least=1)
    step: float = option(1.5, "mean change of a value in each step, of 255 (1.5)")
    jitter: int = option(32, "the picture is moved by up to so many pixels before each step (32)")
    size: int | None = option(None, "scale the longer side to so many pixels first", least=1)
    frames: int = option(1, "how many, each a dream of the one before, enlarged (1)", least=1)
    zoom: float = option(0.05, "share of the sides that is lost between frames (0.05)")
    fps: float = option(12.0, "frames a second (12)")
    seed: int = option(0, "other noise, and other movements")


def run(work: Work, options: Options) -> Film | One:
    """Climb the layer's objective, in octaves.

    Raises:
        UsageError: there is no such network, layer or unit (those there are are listed), or an option makes no sense.
    """
    from castalia.core.data import Batch
    from castalia.creative import dreams
    from castalia.creative.looking import Layer, described, layers

    try:
        settings = dreams.Settings(options.octaves, options.scale, options.iterations, options.step, options.jitter)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    if not 0 <= options.zoom < 1:
        raise UsageError("--zoom lies between 0 and 1.")
    if options.unit is not None and options.guide is not None:
        raise UsageError("--guide is about all units of a layer; give it or --unit.")
    sight = work.sight(options.network)
    if options.layer == "list":
        found = described(layers(sight.network, sight.size, sight.channels))
        raise UsageError(f"Layers of the network {sight.name} that can be asked for with --layer:\n{found}")
    layer = Layer(sight.network, options.layer, sight.size, sight.channels)
    rng = work.rng(options.seed, range(1))

    def read(path: str) -> Tensor:
        return work.picture(path, sight.channels).to(rng.device).float()

    if options.of is not None:
        x = read(options.of)
        size = _scaled((x.shape[2], x.shape[3]), options.size)
        x = dreams.resized(x, size)
    else:
        x = dreams.noise(rng, sight.channels, _scaled(sight.size, options.size))
    if options.guide is not None:
        objective = dreams.guided(layer, read(options.guide))
    else:
        objective = dreams.seen_more(layer, options.unit)
    told = {"network": sight.name, "layer": layer.name}
    if options.frames == 1:
        dreamed = dreams.dream(objective, x, rng, settings)
        rises = [{"size": list(o.size), "before": o.before, "after": o.after} for o in dreamed.octaves]
        return One(Batch.of(_whole(dreamed.x)), {**told, "octaves": rises})
    frames = dreams.film(objective, x, rng, options.frames, options.zoom, settings)
    return Film(Batch.of(_whole(frames)), options.fps, recipe=told)


def _scaled(size: tuple[int, int], longer: int | None) -> tuple[int, int]:
    """(height, width) with the longer side as asked for."""
    if longer is None:
        return size
    height, width = (max(1, round(side * longer / max(size))) for side in size)
    return height, width


def _whole(x: Tensor) -> Tensor:
    """Pictures of 0 to 255, rounded, ``uint8`` on the CPU."""
    import torch

    return x.round().clamp(0, 255).to(torch.uint8).cpu()


EDIT = Edit(
    "dream",
    "Change a picture so that a network sees more of what it sees in it (DeepDream).",
    "FILE.png; of several frames FILE.gif, .mp4 or .webp, or FILE.png for a strip",
    Options,
    run,
    media=("image",),
)
"""Needs no capability: what has no network that looks at pictures dreams with the house's feature network."""
