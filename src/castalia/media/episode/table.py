"""A data set of stretches of episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from castalia.core.data import Batch, Dataset
from castalia.core.rng import Rng
from castalia.core.specs.episode import START, EpisodeSpec
from castalia.media.episode.shards import Episode
from castalia.media.image.array import allocate


@final
class Episodes(Dataset):
    """Stretches of ``spec.length`` steps, beginning at every ``hop`` steps of each episode.

    The last one of an episode ends with it; a shorter episode is one stretch, filled up (see :class:`EpisodeSpec`).
    Frames lie in memory, or in a temporary file where they are many.

    Args:
        episodes: at least one.
        spec: the shape of a stretch.
        hop: steps from one beginning to the next.
        name: what to call the data.
        notes: what a person should know.
    """

    def __init__(
        self, episodes: Sequence[Episode], spec: EpisodeSpec, hop: int, *, name: str, notes: Sequence[str] = ()
    ) -> None:
        # Narrower than the base class says, and never set again.
        self.spec: EpisodeSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name = name
        total = sum(map(len, episodes))
        c, h, w = spec.frame
        self._frames = allocate((total, c, h, w))
        self._actions = np.concatenate([e.actions for e in episodes]).astype(np.float32)
        self._rewards = np.concatenate([e.rewards for e in episodes]).astype(np.float32)
        digest = hashlib.blake2b(f"{spec} {hop}".encode(), digest_size=16)
        starts: list[tuple[int, int, int, bool]] = []
        files: list[str] = []
        at = 0
        for episode in episodes:
            frames = np.ascontiguousarray(episode.frames.transpose(0, 3, 1, 2))
            self._frames[at : at + len(frames)] = frames
            digest.update(frames.data)
            last = max(len(frames) - spec.length, 0)
            begins = sorted({*range(0, last + 1, hop), last})
            starts += [(at + b, at, at + len(frames), episode.done) for b in begins]
            files += [f"{episode.name}@{b}" for b in begins]
            at += len(frames)
        digest.update(self._actions.tobytes() + self._rewards.tobytes())
        self._starts = starts
        self.files = tuple(files)
        self.fingerprint = digest.hexdigest()
        scores = np.array([e.rewards.sum() for e in episodes])
        lengths = [len(e) for e in episodes]
        words = f"{len(episodes)} episodes of {min(lengths)} to {max(lengths)} steps, {total:,} in all"
        self.notes = (f"{words}; rewards of an episode: {scores.mean():.4g} on average.", *notes)

    def __len__(self) -> int:
        return len(self._starts)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """The stretches ``ids``; there is no augmentation, so ``rng`` is not used."""
        length = self.spec.length
        chosen = [self._starts[i] for i in np.asarray(ids).tolist()]
        rows = np.stack([np.minimum(np.arange(start, start + length), end - 1) for start, _, end, _ in chosen])
        there = np.stack([np.arange(start, start + length) < end for start, _, end, _ in chosen])
        over = np.stack(
            [np.arange(start, start + length) >= (end - 1 if done else end) for start, _, end, done in chosen]
        )
        x = torch.from_numpy(self._frames[rows])
        extra = {
            "actions": torch.from_numpy(self._actions[rows] * there[..., None]),
            "rewards": torch.from_numpy(self._rewards[rows] * there),
            "dones": torch.from_numpy(over.astype(np.uint8)),
            START: x[:, 0].clone(),
        }
        return Batch(x, torch.from_numpy(np.asarray(ids, np.int64)), None, extra)
