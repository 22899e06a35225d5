"""Controllers tried out: in an environment, and in dreams of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.core.rng import Rng
from castalia.environments.base import Environment, about, make

if TYPE_CHECKING:
    from castalia.models.worlds.world_model import WorldModel

MOST_LANES, QUICK_LANES = 64, 1024
"""Worlds that are stepped side by side, where they are dear and where they are cheap."""


@lru_cache(maxsize=2)
def _world(name: str, lanes: int, size: int) -> Environment:
    """Worlds are made once: a population tries them generation after generation, and each begins with a reset."""
    return make(name, lanes, size)


@torch.no_grad()
def in_world(model: WorldModel, numbers: Tensor | None, seeds: Sequence[int], steps: int = 0) -> np.ndarray:
    """Scores of controllers in the environment that the data were recorded in.

    Args:
        model: sees and remembers.
        numbers: the controllers (P, size); None is the model's own alone.
        seeds: of the episodes, the same for each.
        steps: cut off after so many; 0 where the environment does.

    Returns:
        ``float64`` (P, episodes), sums of rewards.

    Raises:
        UsageError: the data were recorded in no environment that is known.
        MissingExtra: what the environment needs is not installed.
    """
    spec = model.spec
    if not spec.environment:
        raise UsageError(
            "The data were recorded in no environment that Castalia knows, so controllers cannot be tried in it. "
            "Let them practise in dreams: config.practice=dream config.rewards=true config.ends=true."
        )
    known = about(spec.environment)
    count = 1 if numbers is None else len(numbers)
    lanes = [(p, r) for p in range(count) for r in range(len(seeds))]
    scores = np.zeros((count, len(seeds)))
    most = QUICK_LANES if known.quick else MOST_LANES
    for first in range(0, len(lanes), most):
        mine = lanes[first : first + most]
        own = None if numbers is None else numbers[[p for p, _ in mine]].float()
        world = _world(spec.environment, len(mine), spec.height)
        won = _played(model, own, world, [seeds[r] for _, r in mine], min(steps or known.longest, known.longest))
        for (p, r), score in zip(mine, won.tolist(), strict=True):
            scores[p, r] = score
    return scores


def _played(
    model: WorldModel, numbers: Tensor | None, world: Environment, seeds: Sequence[int], steps: int
) -> np.ndarray:
    """Sums of rewards ``float64`` (N,) of one episode in each lane."""
    frames, n, device = world.reset(seeds), len(seeds), model.device
    won = np.zeros(n)
    h, c = model.memory.begin(n)
    h, c = h.clone(), c.clone()
    actions = np.zeros((n, len(model.spec.actions)), np.float32)
    alive = np.arange(n)
    for _ in range(steps):
        rows = torch.from_numpy(alive).to(device)
        z = model.vision.posterior(torch.from_numpy(frames[alive]).to(device))[0]
        state = h[rows], c[rows]
        unit = model.controller.acts(model.told(z, state), None if numbers is None else numbers[rows])
        done = model.in_range(unit)
        if model.config.controller != "z":
            _, (h[rows], c[rows]) = model.memory(z[:, None], done[:, None], state)
        actions[alive] = done.float().cpu().numpy()
        step = world.step(actions)
        frames = step.frames
        won[alive] += step.rewards[alive]
        alive = np.flatnonzero(~step.dones)
        if not len(alive):
            break
    return won


@torch.no_grad()
def in_dream(model: WorldModel, numbers: Tensor, rng: Rng, rollouts: int, steps: int, temperature: float) -> np.ndarray:
    """What controllers win in dreams.

    Dreams are the same for all of them as far as their actions are. A reward counts by how likely it is that the dream
    has not ended before; where rewards are not predicted, each step is one.

    Args:
        model: dreams.
        numbers: the controllers (P, size).
        rng: randomness of ``rollouts`` rows.
        rollouts: dreams of each.
        steps: of a dream.
        temperature: of the dreams.

    Returns:
        ``float64`` (P,), means over dreams.
    """
    count = len(numbers)

    def each(x: Tensor) -> Tensor:
        return x[None].expand(count, *x.shape).flatten(0, 1)

    own = numbers.float()[:, None].expand(-1, rollouts, -1).flatten(0, 1)
    z = each(model.begun(rng))
    uniform, noise = rng.uniform("which", steps, model.config.latents), rng.normal("noise", steps, model.config.latents)
    state = model.memory.begin(len(z))
    alive = torch.ones(len(z), device=z.device)
    won = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    for t in range(steps):
        actions = model.in_range(model.controller.acts(model.told(z, state), own))
        h, state = model.memory(z[:, None], actions[:, None], state)
        after = model.memory.outlook(h[:, 0])
        won += (alive * (1.0 if after.reward is None else after.reward)).double()
        if after.end is not None:
            alive = alive * torch.sigmoid(-after.end)
        z = after.drawn(each(uniform[:, t]), each(noise[:, t]), temperature)
    return won.view(count, rollouts).mean(1).cpu().numpy()


def wandering(name: str, seeds: Sequence[int], size: int, act: Callable[[], np.ndarray], steps: int = 0) -> np.ndarray:
    """Scores ``float64`` (N,) of actions that do not look: what a controller has to be better than.

    Args:
        name: of the environment.
        seeds: one for each episode.
        size: pixels along the side of a frame.
        act: the next actions of all lanes (N, A), in the environment's own ranges.
        steps: cut off after so many; 0 where the environment does.
    """
    world, known, won = _world(name, len(seeds), size), about(name), np.zeros(len(seeds))
    world.reset(seeds)
    for _ in range(steps or known.longest):
        step = world.step(act())
        won += step.rewards
        if step.dones.all():
            break
    return won
