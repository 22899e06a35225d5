"""The paddle: its rules, and that memory pays."""

from __future__ import annotations

import numpy as np
import pytest

from castalia.core.errors import UsageError
from castalia.environments.base import ENVIRONMENTS, Wandering, about, make
from castalia.environments.paddle import FALL, GROUND, HALF, RADIUS, Paddle


def played(policy, n: int = 200, size: int = 8) -> tuple[np.ndarray, Paddle]:
    world = Paddle(n, size)
    world.reset(range(n))
    total = np.zeros(n)
    while True:
        step = world.step(policy(world)[:, None].astype(np.float32))
        total += step.rewards
        if step.dones.all():
            return total, world


def test_who_looks_ahead_wins_more_than_who_follows() -> None:
    def follows(world: Paddle) -> np.ndarray:
        return 20 * (world.x - world.paddle)

    def foresees(world: Paddle) -> np.ndarray:
        steps = np.ceil((GROUND - world.y) / FALL - 1e-9)
        x = world.x - RADIUS + world.speed * steps
        room = 1 - 2 * RADIUS
        x = RADIUS + room - np.abs(np.mod(x, 2 * room) - room)
        return 20 * (x - world.paddle)

    ahead, behind = played(foresees)[0].mean(), played(follows)[0].mean()
    still = played(lambda world: np.zeros(world.lanes))[0].mean()
    assert ahead > 1.5 * behind > still
    assert ahead > 8.5  # of ten balls in 128 steps


def test_a_miss_ends_an_episode_and_nothing_happens_after() -> None:
    world = Paddle(30, 16)
    world.reset(range(30))
    over = np.zeros(30, bool)
    frames = None
    for t in range(ENVIRONMENTS["paddle"].longest):
        step = world.step(np.full((30, 1), -1, np.float32))
        new = step.dones & ~over
        if t + 1 < ENVIRONMENTS["paddle"].longest:
            assert (step.rewards[new] == -1).all()
        assert (step.rewards[over] == 0).all()
        if frames is not None:
            assert np.array_equal(step.frames[over], frames[over])
        over, frames = step.dones, step.frames
    assert over.all()
    assert (world.paddle == HALF).all()


def test_a_lane_depends_on_its_seed_only() -> None:
    def run(seeds: list[int]) -> np.ndarray:
        world = Paddle(len(seeds), 16)
        frames = [world.reset(seeds)]
        frames += [world.step(np.zeros((len(seeds), 1), np.float32)).frames for _ in range(20)]
        return np.stack(frames, 1)

    many = run([5, 6, 7])
    assert np.array_equal(many[1], run([6])[0])
    assert not np.array_equal(many[0], many[1])


def test_frames_show_ball_and_paddle() -> None:
    world = Paddle(1, 32)
    frame = world.reset([0])[0]
    assert frame.shape == (3, 32, 32)
    assert frame.dtype == np.uint8
    warm = frame[0].astype(int) - frame[2]
    y, x = np.unravel_index(warm.argmax(), warm.shape)
    assert abs((x + 0.5) / 32 - world.x[0]) < RADIUS
    assert abs((y + 0.5) / 32 - world.y[0]) < RADIUS
    cool = frame[2].astype(int) - frame[0]
    middle = (cool[30] > 30).nonzero()[0].mean()
    assert abs((middle + 0.5) / 32 - 0.5) < 0.03
    assert cool[30].max() > 60
    assert cool[20].max() < 60


def test_environments_by_name() -> None:
    with pytest.raises(UsageError, match="Did you mean 'paddle'"):
        make("padle", 1, 16)
    for name, known in ENVIRONMENTS.items():
        assert about(name) is known
        assert len(known.actions) == len(known.low) == len(known.high) == len(known.squash)


def test_wandering_stays_in_range_and_wanders() -> None:
    known = about("carracing")
    walk = Wandering(known, range(50), 0.15)
    seen = np.stack([walk() for _ in range(200)], 1)
    assert (seen >= np.array(known.low)).all()
    assert (seen <= np.array(known.high)).all()
    assert 0.3 < (seen[..., 2] == 0).mean() < 0.7  # half of the time nobody brakes
    near = np.abs(np.diff(seen[..., 0], axis=1)).mean()
    white = Wandering(known, range(50), 0.0)
    far = np.abs(np.diff(np.stack([white() for _ in range(200)], 1)[..., 0], axis=1)).mean()
    assert near < 0.3 * far
