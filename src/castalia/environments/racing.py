"""CarRacing with gymnasium's physics (Box2D), and frames of our own in place of its pictures."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, final

import numpy as np

from castalia.core.errors import MissingExtra
from castalia.environments.base import ENVIRONMENTS, Environment, Step
from castalia.environments.camera import Camera, Pose
from castalia.environments.track import Ground


@cache
def blind() -> type:
    """Gymnasium's class, which paints nothing.

    Raises:
        MissingExtra: gymnasium, Box2D or pygame (which gymnasium's file imports) is not installed.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Box2D's bindings warn while they load, and do not survive an exception
            from gymnasium.envs.box2d.car_racing import CarRacing as Gymnasium
    except Exception as error:  # gymnasium raises an error of its own where Box2D is missing
        raise MissingExtra("CarRacing", "worlds") from error

    class Blind(Gymnasium):
        def _render(self, mode: str) -> None:
            return None

    return Blind


def ground_of(world: Any) -> Ground:
    """The map of a gymnasium world's track, as it is now."""
    polygons = [np.array(corners) for corners, _ in world.road_poly]
    colours = np.array([[float(c) for c in colour] for _, colour in world.road_poly])
    return Ground(polygons, colours, world.bg_color, world.grass_color)


def pose_of(world: Any, steps: int) -> Pose:
    """Where a gymnasium world's car is."""
    car = world.car
    wheels, hull = car.wheels, car.hull
    x, y = hull.position
    velocity = hull.linearVelocity
    return Pose(
        x,
        y,
        hull.angle,
        steps,
        (wheels[0].joint.angle, wheels[1].joint.angle),
        (wheels[0].phase, wheels[1].phase, wheels[2].phase, wheels[3].phase),
        (
            math.hypot(velocity[0], velocity[1]),
            *(wheel.omega for wheel in wheels),
            wheels[0].joint.angle,
            hull.angularVelocity,
        ),
    )


@final
class CarRacing(Environment):
    """``CarRacing-v3`` with continuous actions, cut off after 1,000 steps; rewards are gymnasium's.

    Frames are the upper 84 of its 96 rows, without the bar at the lower edge, averaged to ``size``.
    """

    def __init__(self, lanes: int, size: int) -> None:
        super().__init__(lanes, size)
        kind = blind()
        self.worlds: list[Any] = [kind() for _ in range(lanes)]
        self.camera = Camera(size)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        self.over, self.steps = np.zeros(len(seeds), bool), 0
        self.grounds: list[Ground] = []
        self.number: list[dict[int, int]] = []
        for world, seed in zip(self.worlds, seeds, strict=True):
            world.reset(seed=int(seed) % (1 << 31))
            self.grounds.append(ground_of(world))
            # tiles are painted in the order of the road, borders between them
            of_colour = {id(colour): i for i, (_, colour) in enumerate(world.road_poly)}
            self.number.append({tile.idx: of_colour[id(tile.color)] for tile in world.road})
        self.frames = np.stack([self._frame(i) for i in range(len(seeds))])
        return self.frames.copy()

    def step(self, actions: np.ndarray) -> Step:
        rewards = np.zeros(len(self.worlds), np.float32)
        self.steps += 1
        for i, world in enumerate(self.worlds):
            if self.over[i]:
                continue
            _, reward, ended, _, _ = world.step(actions[i].astype(np.float64))
            rewards[i], self.over[i] = reward, ended
            self.frames[i] = self._frame(i)
        self.over |= self.steps >= ENVIRONMENTS["carracing"].longest
        return Step(self.frames.copy(), rewards, self.over.copy())

    def _frame(self, i: int) -> np.ndarray:
        world, ground = self.worlds[i], self.grounds[i]
        for wheel in world.car.wheels:
            for tile in wheel.tiles:  # where a car has been the road has its plain colour
                ground.paint(self.number[i][tile.idx], world.road_color)
        return self.camera.frame(ground, pose_of(world, self.steps + 1))
