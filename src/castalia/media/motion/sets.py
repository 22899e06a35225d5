"""Sets of motion that have a name, and the tiny one that is built in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from castalia.core.rng import derive
from castalia.core.specs.motion import Joint, MotionSpec
from castalia.media.motion.bvh import Clip
from castalia.media.motion.read import MotionOptions, Motions, open_motion, spec_for, windows
from castalia.media.sets import DataFile, NamedData, Progress, find

MOTION, TINY = "motion", "walkers"
KINDS = ("hop", "walk", "wave")
_SWING = {"hop": (0.35, 0.35), "walk": (0.6, -0.6), "wave": (0.0, 0.0)}

SETS: Mapping[str, NamedData] = {
    MOTION: NamedData(
        "clips of people who walk, run, bow, wave or fight, in fifteen styles; the kind of motion is the class",
        "CC BY-NC 4.0",
        (),
        {"train": 196, "test": 16},
        {"all": (DataFile("bvh.zip", "acb79e127c76468c697fa34e683909e04ce4f5bad68262814fef2b9d4ae53520"),)},
        "the folder dataset-1 of https://github.com/BandaiNamcoResearchInc/Bandai-Namco-Research-Motiondataset can be "
        "opened by its path with data.options.labels=dataset-*_{label}_*_*",
    ),
    TINY: NamedData(
        "a figure of nine bones that walks, hops or waves, made by a rule",
        "none needed: computed",
        (),
        {"train": 240, "test": 48},
        {},
    ),
}


def open_set(
    name: str, options: MotionOptions, split: str, like: MotionSpec | None, progress: Progress | None
) -> Motions:
    """Open a named set."""
    if name == TINY:
        return walkers(split, options, like)
    entry = SETS[name]
    path = find(name, entry, entry.files["all"][0], progress)
    options = replace(options, labels="dataset-*_{label}_*_*") if options.labels == "folders" else options
    return open_motion(path, options, split=split, like=like, name=name, progress=progress)


FIGURE = (
    Joint("Hips", -1, (0, 0, 0)),
    Joint("Chest", 0, (0, 30, 0)),
    Joint("Head", 1, (0, 25, 0)),
    Joint("Arm_L", 1, (15, 15, 0)),
    Joint("Arm_R", 1, (-15, 15, 0)),
    Joint("Leg_L", 0, (10, -5, 0)),
    Joint("Shin_L", 5, (0, -40, 0)),
    Joint("Leg_R", 0, (-10, -5, 0)),
    Joint("Shin_R", 7, (0, -40, 0)),
)
ENDS = ((2, 0.0, 15.0, 0.0), (3, 0.0, -45.0, 0.0), (4, 0.0, -45.0, 0.0), (6, 0.0, -40.0, 0.0), (8, 0.0, -40.0, 0.0))


def walkers(split: str = "train", options: MotionOptions | None = None, like: MotionSpec | None = None) -> Motions:
    """A figure by a rule: legs and arms swing, or a hand is waved, or both feet leave the ground."""
    options = options or MotionOptions(length=24, fps=12)
    rng = np.random.Generator(np.random.Philox(derive(19, split)))
    clips = []
    length = options.length if like is None else like.length
    fps = options.fps if like is None else like.fps
    for i in range(SETS[TINY].counts[split]):
        kind = int(rng.integers(len(KINDS)))
        clips.append((f"{split}/{KINDS[kind]}-{i:03d}", _moved(KINDS[kind], length, fps, rng), kind))
    spec = like if like is not None else spec_for(clips[0][1], options, () if options.labels == "none" else KINDS)
    return windows(clips, spec, replace(options, hop=length), TINY, [])


def _moved(kind: str, length: int, fps: float, rng: np.random.Generator) -> Clip:
    t = np.arange(length) / fps
    rate, phase, strength = rng.uniform(0.8, 1.4), rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.2)
    wave = np.sin(2 * np.pi * rate * t + phase)
    left, right = (strength * s * wave for s in _SWING[kind])
    angles = np.zeros((len(FIGURE), length, 3))  # about x, y, z
    angles[5, :, 0], angles[7, :, 0] = left, right
    angles[6, :, 0], angles[8, :, 0] = 0.5 * np.maximum(left, 0), 0.5 * np.maximum(right, 0)
    angles[3, :, 0], angles[4, :, 0] = -0.8 * left, -0.8 * right
    if kind == "wave":
        angles[4, :, 2] = -2.4 + 0.5 * strength * wave
    turned = np.stack([Rotation.from_euler("xyz", a).as_matrix() for a in angles], 1)
    root = np.zeros((length, 3))
    root[:, 1] = 85 + (25 * strength * np.abs(wave) if kind == "hop" else 2 * np.abs(wave))
    if kind == "walk":
        root[:, 2] = 60 * rate * strength * t
    turn = Rotation.from_euler("y", rng.uniform(0, 2 * np.pi)).as_matrix()
    turned[:, 0] = turn @ turned[:, 0]
    return Clip(FIGURE, ENDS, fps, root @ turn.T, turned)
