"""Sets of episodes that have a name: environments, recorded when they are first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from castalia.core.specs.episode import EpisodeSpec
from castalia.media.episode.read import EpisodeOptions, open_episodes, spec_for, table
from castalia.media.episode.record import record, recorded
from castalia.media.episode.table import Episodes
from castalia.media.sets import NamedData, Progress, cache_folder

TINY, CARS = "paddle", "carracing"

SETS: Mapping[str, NamedData] = {
    TINY: NamedData(
        "a ball falls, a paddle that wanders catches it or not: recorded when it is asked for",
        "none needed: computed",
        (),
        {"train": 0, "test": 0},
        {},
    ),
    CARS: NamedData(
        "gymnasium's CarRacing, driven at random: recorded when it is first asked for, and kept "
        "(needs castalia[worlds])",
        "MIT (gymnasium)",
        (),
        {"train": 0, "test": 0},
        {},
    ),
}


def open_set(
    name: str, options: EpisodeOptions, split: str, like: EpisodeSpec | None, progress: Progress | None
) -> Episodes:
    """Open a named set, recording it where that was not done before.

    Raises:
        MissingExtra: what the environment needs is not installed.
    """
    if like is not None:
        options = replace(options, length=like.length, size=like.height)
    count = options.episodes if split == "train" else max(1, options.episodes // 10)
    size = options.size or 64
    how = {"size": size, "seed": options.seed, "split": split, "walk": options.walk, "steps": options.steps}
    if name == TINY:
        episodes = list(recorded(name, count, **how))  # type: ignore[arg-type]
        return table(episodes, like or spec_for(episodes, options), options, name)
    folder = cache_folder() / name / "-".join(map(str, (split, count, *how.values())))
    record(folder, name, count, progress, **how)
    return open_episodes(folder, replace(options, size=size), like=like, name=name, progress=progress)


def paddles() -> Episodes:
    """A few short stretches of small frames."""
    return open_set(TINY, EpisodeOptions(length=16, size=16, episodes=24), "train", None, None)
