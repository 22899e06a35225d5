"""A ball falls, a paddle catches it: an environment small enough to learn in minutes, in which memory pays.

The field is one unit wide and high. The ball falls :data:`FALL` a step and moves sideways at a speed that a single
frame does not show; walls throw it back. The paddle is slower than the ball can be, so who only follows the ball comes
too
late: where it will land has to be told from how it has moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from castalia.environments.base import ENVIRONMENTS, Environment, Step

FALL = 1 / 14
FASTEST = 0.09
"""Of the ball, sideways, a step."""
SPEED = 0.05
"""Of the paddle at most, a step."""
HALF = 0.14
"""Half of the paddle's width."""
RADIUS = 0.07
GROUND = 0.9
"""How deep a ball falls until it is caught or missed."""
_FIELD, _BALL, _PADDLE = ((22, 24, 44), (255, 176, 92), (118, 196, 255))


@final
class Paddle(Environment):
    """Rewards: 1 for a ball that is caught, -1 for one that is missed, which ends the episode."""

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        self.random = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        n = len(self.random)
        self.paddle, self.over, self.steps = np.full(n, 0.5), np.zeros(n, bool), 0
        self.x, self.y, self.speed = (np.zeros(n) for _ in range(3))
        self._new(np.arange(n))
        return self._frames()

    def _new(self, lanes: np.ndarray) -> None:
        """A new ball at the top of these lanes."""
        for i in lanes.tolist():
            self.x[i], self.speed[i] = self.random[i].uniform(0.1, 0.9), self.random[i].uniform(-FASTEST, FASTEST)
            self.y[i] = RADIUS

    def step(self, actions: np.ndarray) -> Step:
        alive = ~self.over
        moved = self.paddle + SPEED * np.clip(actions[:, 0].astype(np.float64), -1, 1)
        self.paddle = np.where(alive, np.clip(moved, HALF, 1 - HALF), self.paddle)
        x = self.x + self.speed
        back = (x < RADIUS) | (x > 1 - RADIUS)
        x = np.where(x < RADIUS, 2 * RADIUS - x, np.where(x > 1 - RADIUS, 2 * (1 - RADIUS) - x, x))
        self.speed = np.where(back & alive, -self.speed, self.speed)
        self.x = np.where(alive, x, self.x)
        self.y = np.where(alive, self.y + FALL, self.y)
        down = alive & (self.y >= GROUND)
        caught = down & (np.abs(self.x - self.paddle) <= HALF + RADIUS / 2)
        rewards = caught.astype(np.float32) - (down & ~caught)
        self.steps += 1
        self.over = self.over | (down & ~caught) | (self.steps >= ENVIRONMENTS["paddle"].longest)
        self._new(np.flatnonzero(caught & ~self.over))
        return Step(self._frames(), rewards.astype(np.float32), self.over.copy())

    def _frames(self) -> np.ndarray:
        """``uint8`` (N, 3, size, size), smooth at the edges."""
        s = self.size
        at = (np.arange(s) + 0.5) / s
        away = np.hypot(at[None, None, :] - self.x[:, None, None], at[None, :, None] - self.y[:, None, None])
        ball = np.clip((RADIUS - away) * s + 0.5, 0, 1)
        across = np.clip((HALF - np.abs(at[None, :] - self.paddle[:, None])) * s + 0.5, 0, 1)
        along = np.clip((0.03 - np.abs(at - (GROUND + 0.06))) * s + 0.5, 0, 1)
        paddle = along[None, :, None] * across[:, None, :]
        colours = np.array([_FIELD, _BALL, _PADDLE], np.float64)
        out = colours[0][None, :, None, None] * (1 - ball[:, None]) + colours[1][None, :, None, None] * ball[:, None]
        out = out * (1 - paddle[:, None]) + colours[2][None, :, None, None] * paddle[:, None]
        return np.rint(out).astype(np.uint8)
