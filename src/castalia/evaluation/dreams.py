"""How well dreams of an environment hold against recordings of it, and what a controller wins there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.errors import NonFiniteError
from castalia.core.rng import SampleRng, derive
from castalia.core.specs.episode import EpisodeSpec
from castalia.environments.base import ENVIRONMENTS
from castalia.estimators.metric import Metric, mean_metric
from castalia.estimators.progress import Show, Ticker

AT_ONCE = 16
STEPS = (1, 2, 4, 8, 16, 32)
"""How far dreams are followed."""
WORLDS = 100
"""Episodes that a controller plays where that takes seconds."""


@runtime_checkable
class Dreaming(Protocol):
    """A model that shows frames again, goes on from them, and acts."""

    def reconstructed(self, frames: Tensor) -> Tensor: ...

    def imagined(self, batch: Batch, context: int, *, rng: SampleRng, temperature: float = 1.0) -> Tensor: ...

    def foreseen(self, batch: Batch) -> Tensor: ...

    def score(self, seeds: list[int], steps: int = 0) -> np.ndarray: ...


def dreams(
    model: Dreaming, data: Dataset, ids: np.ndarray, *, seed: int = 0, show: Show | None = None
) -> dict[str, Metric]:
    """What is told of a world model without looking at samples.

    ``frame_mse``: squared error of held-out frames shown again, values in [0, 1]. ``dream_mse_K``: of the frame K steps
    after the model last saw one, having been told what was done; beside it the same frame shown again (``_floor``) and
    the last frame seen, held still (``_ceiling``). ``memory_nats``: per latent of the next frame, given those before.
    Frames after an end are left out.

    Args:
        model: dreams.
        data: stretches of episodes.
        ids: which, ``int64`` (N,).
        seed: of the dreams and intervals.
        show: receives lines of progress.
    """
    spec = data.spec
    assert isinstance(spec, EpisodeSpec)
    device, ticker = getattr(model, "device", torch.device("cpu")), Ticker("dreams", len(ids), show)
    context = max(1, spec.length // 4)
    steps = [k for k in STEPS if context - 1 + k < spec.length]
    again: list[Tensor] = []
    nats: list[Tensor] = []
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(ids), AT_ONCE):
        mine = ids[start : start + AT_ONCE]
        batch = data.batch(mine).to(device)
        alive = _alive(batch)
        shown = model.reconstructed(batch.x)
        error = _error(shown, batch.x)
        again.append(error[alive])
        goes_on = alive[:, 1]
        nats.append(model.foreseen(batch)[goes_on].cpu())
        dreamt = model.imagined(batch, context, rng=SampleRng(seed, mine.tolist(), device))
        for k in steps:
            t = context - 1 + k
            there = alive[:, t]
            x = batch.x[:, t]
            for suffix, y in (("", dreamt[:, k - 1]), ("_floor", shown[:, t]), ("_ceiling", batch.x[:, context - 1])):
                found.setdefault(f"dream_mse_{k}{suffix}", []).append(_error(y, x)[there])
        ticker.step(len(mine))
    unit, out = "squared error, values in [0, 1]", {}
    out["frame_mse"] = _mean(again, unit, seed, "held-out frames shown again, of the mean latents")
    out["memory_nats"] = _mean(nats, "nats/latent", seed, "mean latents of the next frame, given those before")
    words = {"": "dreamt", "_floor": "the frame itself, shown again", "_ceiling": "the last frame seen, held still"}
    for name, parts in found.items():
        if sum(map(len, parts)):
            suffix = next((s for s in ("_floor", "_ceiling") if name.endswith(s)), "")
            out[name] = _mean(parts, unit, seed, f"{words[suffix]}; {context} frames were seen")
    return out


def _alive(batch: Batch) -> Tensor:
    """Which frames were seen before the end, bool (B, T): all until after the first done."""
    dones = batch.extra["dones"] > 0
    return torch.cat([torch.ones_like(dones[:, :1]), ~dones[:, :-1]], 1)


def _error(a: Tensor, b: Tensor) -> Tensor:
    return ((a.double() - b.double()) / 255).square().mean((-3, -2, -1))


def _mean(parts: Sequence[Tensor], unit: str, seed: int, detail: str) -> Metric:
    values = torch.cat([p.double().cpu() for p in parts]).numpy()
    if not np.isfinite(values).all():
        raise NonFiniteError("Some dreams are not finite. Nothing was recorded.")
    return mean_metric(values, unit, "measured", seed, detail)


def score(model: Dreaming, spec: EpisodeSpec, *, seed: int = 0) -> dict[str, Metric]:
    """Mean reward of the controller over :data:`WORLDS` new episodes, where the environment is known and quick."""
    known = ENVIRONMENTS.get(spec.environment)
    if known is None or not known.quick:
        return {}
    seeds = [derive(seed, "score", i) for i in range(WORLDS)]
    detail = f"sum of rewards of an episode of {spec.environment}, {WORLDS} episodes"
    return {"score": mean_metric(model.score(seeds), "reward", "measured; interval: bootstrap", seed, detail)}
