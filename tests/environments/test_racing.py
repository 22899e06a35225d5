"""Frames of CarRacing beside gymnasium's own, and what goes on in it."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import carracing
from castalia import recipes
from castalia.configuration import Data
from castalia.environments.base import ENVIRONMENTS, make
from castalia.environments.camera import Camera, Pose
from castalia.environments.racing import blind, ground_of, pose_of
from castalia.environments.track import BLOCK, FIELD, Ground, packed, unpacked
from castalia.media.episode.read import EpisodeOptions
from castalia.media.named import open_data
from castalia.training.loop import train


def gymnasium() -> Any:
    blind()  # imports it as it has to be
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gymnasium.envs.box2d.car_racing import CarRacing

        return CarRacing()


@pytest.mark.filterwarnings("ignore")
def test_frames_are_gymnasiums() -> None:
    """Mean difference and share of pixels that differ by more than 8 levels, of the rows above the bar, and of the bar.

    After the first second: 0.3 levels and 2 % on any frame, 0.15 and 0.8 % on average; in it, while the camera comes
    down: 1 and 4 %. The score in the corner of the bar is not painted, so its columns are left out.
    """
    camera, near, far, bars = Camera(96, bar=True, samples=3), [], [], []
    for seed in (1, 4):
        world = gymnasium()
        theirs, _ = world.reset(seed=seed)
        ground = ground_of(world)
        number = {t.idx: i for i, (_, colour) in enumerate(world.road_poly) for t in world.road if t.color is colour}
        for steps in range(1, 141):
            for wheel in world.car.wheels:
                for tile in wheel.tiles:
                    ground.paint(number[tile.idx], world.road_color)
            if steps % 4 == 1:
                ours = camera.frame(ground, pose_of(world, steps)).transpose(1, 2, 0)
                away = np.abs(ours.astype(int) - theirs)
                row = away[:84].mean(), (away[:84].max(-1) > 8).mean()
                (near if steps > 50 else far).append(row)
                bars.append(away[84:, 24:].mean())
            theirs = world.step(np.array([0.4 * np.sin(steps / 15), 0.3, 0.1 * (steps > 100)]))[0]
    near, far = np.array(near), np.array(far)
    assert (near.max(0) < [0.3, 0.02]).all(), near.max(0)
    assert (near.mean(0) < [0.15, 0.008]).all(), near.mean(0)
    assert (far.max(0) < [1.0, 0.04]).all(), far.max(0)
    assert np.max(bars) < 0.5


@pytest.mark.filterwarnings("ignore")
def test_small_frames_are_gymnasiums_made_smaller() -> None:
    """64 pixels of the 84 upper rows: below one and a half levels from an average of gymnasium's."""
    world = gymnasium()
    theirs, _ = world.reset(seed=2)
    for _ in range(90):
        theirs = world.step(np.array([0.05, 0.3, 0.0]))[0]
    ours = Camera(64).frame(ground_of(world), pose_of(world, 91))
    wide = np.repeat(np.repeat(theirs[:84].astype(float), 16, 0), 2, 1)  # 1344 rows, 192 columns
    small = wide.reshape(64, 21, 64, 3, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(ours - small).mean() < 1.5


def test_physics_and_rewards_are_gymnasiums() -> None:
    actions = [np.array([0.1 * np.sin(t / 9), 0.4, 0.0], np.float32) for t in range(60)]
    world = blind()()
    world.reset(seed=11)
    wanted = [world.step(a.astype(np.float64))[1] for a in actions]
    lanes = make("carracing", 2, 32)
    lanes.reset([12, 11])
    found = [lanes.step(np.stack([np.zeros(3, np.float32), a])).rewards[1] for a in actions]
    assert np.allclose(found, wanted, atol=1e-5)
    assert max(wanted) > 1  # it drove over tiles


def test_lanes_that_are_over_stay_and_episodes_are_cut_off() -> None:
    lanes = make("carracing", 1, 16)
    frames = lanes.reset([3])
    lanes.worlds[0].car.hull.position = (2 * FIELD, 0.0)  # type: ignore[attr-defined]
    step = lanes.step(np.zeros((1, 3), np.float32))
    assert step.rewards[0] == -100
    assert step.dones[0]
    again = lanes.step(np.ones((1, 3), np.float32))
    assert again.rewards[0] == 0
    assert np.array_equal(again.frames, step.frames)
    assert frames.shape == (1, 3, 16, 16)
    assert ENVIRONMENTS["carracing"].longest == 1000


def test_a_road_changes_its_colour_where_a_car_was() -> None:
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 5.0
    ground = Ground([square], np.array([[107.0, 107.0, 107.0]]))
    pose = Pose(0, -4, 0, 60, (0, 0), (0, 0, 0, 0))
    before = Camera(64).frame(ground, pose)
    ground.paint(0, np.array([102.0, 102.0, 102.0]))
    after = Camera(64).frame(ground, pose)
    changed = (before != after).any(0)
    assert (before[:, changed].max(0) == 105).mean() > 0.5
    assert (after[:, changed].max(0) == 100).mean() > 0.5


def test_the_ground_has_plain_grass_and_an_end() -> None:
    ground = Ground([], np.zeros((0, 3)))

    def at(x: float, y: float) -> list[int]:
        cells = [np.array([int((v / BLOCK + 24) * 128 * 65536)], np.int32) for v in (x, y)]
        return unpacked(ground.look(cells[0], cells[1], 1.0))[0].tolist()

    assert at(0.5 * BLOCK, 0.5 * BLOCK) == [102, 230, 102]
    assert at(1.5 * BLOCK, 0.5 * BLOCK) == [102, 204, 102]
    assert at(-0.5 * BLOCK, 2.5 * BLOCK) == [102, 204, 102]
    assert at(FIELD + 1, 0) == [0, 0, 0]
    far = [np.array([int(24.5 * 128 * 65536)], np.int32)] * 2
    for spacing in (1.0, 10.0, 100.0):
        assert unpacked(ground.look(far[0], far[1], spacing))[0].tolist() == [102, 230, 102]
    colours = np.array([[1, 2, 3], [255, 0, 7]])
    assert np.array_equal(unpacked(packed(colours)), colours)


def test_polygons_lie_where_they_should_and_later_ones_above() -> None:
    first = np.array([(0, 0), (20, 0), (20, 20), (0, 20)], float)
    ground = Ground([first, first + 10], np.array([[255.0, 0, 0], [0, 0, 255.0]]))
    points = np.random.default_rng(0).uniform(-5, 35, (4000, 2))
    cells = [((points[:, i] / BLOCK + 24) * 128 * 65536).astype(np.int32) for i in range(2)]
    found = unpacked(ground.look(cells[0], cells[1], 1.0))
    one, other = (((points > low) & (points < low + 20)).all(1) for low in (0, 10))
    inner = np.abs(points[:, :, None] - np.array([0, 10, 20, 30])).min((1, 2)) > 0.2  # away from edges
    assert (found[other & inner] == [0, 0, 255]).all()
    assert (found[one & ~other & inner] == [255, 0, 0]).all()
    assert (found[~one & ~other & inner][:, 0] == 102).all()


@pytest.mark.filterwarnings("ignore")
def test_a_controller_of_cars_is_trained_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path / "cache"))
    base = recipes.tiny("world-model")
    data = Data("carracing", medium="episode", options=EpisodeOptions(length=8, size=16, episodes=2, steps=16))
    recipe = replace(
        base,
        config=replace(base.config, rewards=False, ends=False, steps=4),  # type: ignore[type-var]
        data=data,
        training=replace(base.training, steps=20, threads=1, precision="float32"),
    )
    run = train(recipe, open_data("carracing", data.options), tmp_path / "cars", quiet=True)
    # four steps without a tile: a tenth less for each
    assert run.metrics()[-1]["evolve/best"] >= -0.41
    out = tmp_path / "out.json"
    told = ["--tracks", "2", "--steps", "6", "--frames", "4", "--json", str(out)]
    assert carracing.main([str(run.path), *told]) == 0
    rows = {row["work"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["ours, 64 pixels, frames a second"]["mean"] > 0
    assert -0.7 < rows["cars (z+h)"]["mean"] < 40
    assert rows["random"]["interval"][0] <= rows["random"]["mean"] <= rows["random"]["interval"][1]
    assert "2 tracks" in capsys.readouterr().out
