"""Recording: episodes of an environment of ``castalia.environments``, into files.

    python -m castalia.media.episode.record carracing FOLDER --episodes 100

The files can be opened as data. The named sets of this medium are recorded in the same way, into the cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from castalia.core.errors import CastaliaError, UsageError
from castalia.core.files import disk_error
from castalia.core.rng import derive
from castalia.environments.base import ENVIRONMENTS, Wandering, about, make
from castalia.media.episode.shards import SUFFIX, Episode, is_shard, write_episode
from castalia.media.sets import Progress

LANES = 8
"""Episodes recorded side by side."""


def recorded(
    name: str,
    count: int,
    *,
    size: int,
    seed: int = 0,
    split: str = "train",
    walk: float = 0.15,
    steps: int = 0,
    start: int = 0,
) -> Iterator[Episode]:
    """Record episodes, one after the other; what comes out depends on the arguments only.

    Args:
        name: of the environment.
        count: how many.
        size: pixels along the side of a frame.
        seed: of everything; episode i of a split is the same however many there are.
        split: ``train`` or ``test``: other seeds.
        walk: see :class:`castalia.environments.base.Wandering`.
        steps: cut off after so many; 0 where the environment does.
        start: number of the first; those before it are left out.

    Raises:
        MissingExtra: what the environment needs is not installed.
    """
    known = about(name)
    most = min(steps or known.longest, known.longest)
    said = {
        "environment": name,
        "actions": list(known.actions),
        "low": list(known.low),
        "high": list(known.high),
        "fps": known.fps,
    }
    for first in range(start, count, LANES):
        seeds = [derive(seed, "episode", split, i) for i in range(first, min(first + LANES, count))]
        lanes = len(seeds)
        world = make(name, lanes, size)
        act = Wandering(known, [derive(s, "actions") for s in seeds], walk)
        frames, over = world.reset(seeds), np.zeros(lanes, bool)
        kept: list[tuple[list[np.ndarray], ...]] = [([], [], []) for _ in range(lanes)]
        ended = np.zeros(lanes, bool)
        for t in range(most):
            actions = act()
            after = world.step(actions)
            for i in np.flatnonzero(~over).tolist():
                for part, value in zip(kept[i], (frames[i], actions[i], after.rewards[i]), strict=True):
                    part.append(value)
            # who is cut off by the clock is not over: the world would go on
            ended |= after.dones & ~over & (t + 1 < known.longest)
            frames, over = after.frames, after.dones
            if over.all():
                break
        for i, (seen, done, won) in enumerate(kept):
            x = np.stack(seen).transpose(0, 2, 3, 1)
            rewards = np.array(won, np.float32)
            yield Episode(x, np.stack(done), rewards, bool(ended[i]), said, f"{split}-{first + i:05d}")


def record(folder: Path, name: str, count: int, progress: Progress | None = None, **how: object) -> None:
    """Record into files ``00000.npz``, ...; what is there already is not recorded again.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error
    names = [folder / f"{i:05d}{SUFFIX}" for i in range(count)]
    start = next((i for i, path in enumerate(names) if not (path.is_file() and is_shard(path))), count)
    for i, episode in enumerate(recorded(name, count, start=start, **how), start=start):  # type: ignore[arg-type]
        write_episode(names[i], episode)
        if progress is not None:
            progress(i + 1, count)


def main(arguments: list[str] | None = None) -> int:
    """Record, and say where."""
    parser = argparse.ArgumentParser(
        prog="python -m castalia.media.episode.record", description="Record episodes of an environment."
    )
    parser.add_argument("environment", help=f"one of {', '.join(ENVIRONMENTS)}")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--size", type=int, default=64, help="pixels along the side of a frame (64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--walk", type=float, default=0.15, help="deviation of a step of the actions (0.15); 0: white noise"
    )
    parser.add_argument("--steps", type=int, default=0, help="cut episodes off after so many")
    options = parser.parse_args(arguments)
    try:
        if not (1 <= options.episodes <= 1_000_000 and 8 <= options.size <= 512 and 0 <= options.walk <= 10):
            raise UsageError("--episodes is at least 1, --size 8 to 512, --walk 0 to 10.")
        how = {"size": options.size, "seed": options.seed, "walk": options.walk, "steps": options.steps}

        def show(done: int, total: int) -> None:
            print(f"\r{done} of {total} episodes", end="", file=sys.stderr, flush=True)

        record(options.folder, options.environment, options.episodes, show, **how)
    except CastaliaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"\nRecorded: {options.folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
