"""Controllers on random tracks of CarRacing, and the speed of our frames: ``python -m benchmarks.carracing [RUN ...]``.

    python -m benchmarks.carracing runs/cars runs/cars-z --tracks 100 --json FILE

Each run of ``world-model`` on ``carracing`` drives the same tracks (seeds of ``--seed``), each for 1,000 steps at most,
as gymnasium's ``CarRacing-v3`` does; told are the mean reward, its standard deviation over tracks, as papers give it,
and a bootstrap interval of the mean. ``random`` is the policy of the recordings. Without a run only frames are timed:
of ours in 64 and 96 pixels, and gymnasium's own. Scores of papers are of ``CarRacing-v0``, whose rules for the end of a
lap differ.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from castalia import runs
from castalia.core.rng import derive
from castalia.environments.base import Wandering, about
from castalia.environments.camera import Camera
from castalia.environments.racing import blind, ground_of, pose_of
from castalia.estimators.metric import mean_metric
from castalia.models.worlds.playing import wandering
from castalia.models.worlds.world_model import WorldModel

AT_ONCE = 25
"""Tracks driven at once at random."""


def main(arguments: list[str] | None = None) -> int:
    """Drive, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.carracing", description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="runs of world-model on carracing")
    parser.add_argument("--tracks", type=int, default=100)
    parser.add_argument("--steps", type=int, default=0, help="cut episodes off after so many (1,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=400, help="frames that are timed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seeds = [derive(options.seed, "track", i) for i in range(options.tracks)]
    rows = [{"work": f"{name}, frames a second", "mean": value} for name, value in speeds(options.frames).items()]
    for row in rows:
        print(f"{row['work']:40} {row['mean']:9.0f}", flush=True)
    if options.runs:
        found = [
            wandering("carracing", part, 64, walk(part), options.steps)
            for part in (seeds[i : i + AT_ONCE] for i in range(0, len(seeds), AT_ONCE))
        ]
        rows.append(said("random", np.concatenate(found)))
    for path in options.runs:
        model = runs.open_run(path).model()[0].eval()
        if not isinstance(model, WorldModel) or model.spec.environment != "carracing":
            parser.error(f"{path} is no run of world-model on carracing")
        started = time.monotonic()
        row = said(f"{path.name} ({model.config.controller})", model.score(seeds, options.steps))
        rows.append({**row, "seconds": time.monotonic() - started})
    if options.json:
        told = {"tracks": options.tracks, "steps": options.steps or 1000, "seed": options.seed, "rows": rows}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


def walk(seeds: list[int]) -> Wandering:
    """The recordings' policy on these tracks."""
    return Wandering(about("carracing"), [derive(seed, "actions") for seed in seeds], 0.15)


def said(name: str, scores: np.ndarray) -> dict[str, object]:
    """A row, printed."""
    found = mean_metric(scores, "reward", "measured; interval: bootstrap", 0)
    assert found.interval is not None
    low, high = found.interval
    print(
        f"{name:40} {scores.mean():9.1f} ± {scores.std():.0f}  ({low:.1f} to {high:.1f}; {len(scores)} tracks, best "
        f"{scores.max():.0f}, worst {scores.min():.0f})",
        flush=True,
    )
    return {"work": name, "mean": float(scores.mean()), "deviation": float(scores.std()), "interval": [low, high]}


def speeds(frames: int) -> dict[str, float]:
    """Frames a second of a processor, after the first second of an episode."""
    kind = blind()
    world = kind()
    world.reset(seed=1)
    for _ in range(60):
        world.step(np.array([0.0, 0.3, 0.0]))
    ground, pose = ground_of(world), pose_of(world, 61)
    out = {}
    for name, camera in (("ours, 64 pixels", Camera(64)), ("ours, 96 pixels", Camera(96, bar=True, samples=3))):
        camera.frame(ground, pose)
        begun = time.process_time()
        for _ in range(frames):
            camera.frame(ground, pose)
        out[name] = frames / (time.process_time() - begun)
    begun = time.process_time()
    for _ in range(max(1, frames // 20)):
        ground_of(world)
    out["ours, new tracks"] = max(1, frames // 20) / (time.process_time() - begun)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gymnasium.envs.box2d.car_racing import CarRacing

        theirs = CarRacing()
        theirs.reset(seed=1)
        begun = time.process_time()
        for _ in range(max(1, frames // 4)):
            theirs._render("state_pixels")
        out["gymnasium, 96 pixels"] = max(1, frames // 4) / (time.process_time() - begun)
    return out


if __name__ == "__main__":
    raise SystemExit(main())
