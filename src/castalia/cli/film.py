"""A film of the sampling: what the first pictures would become, step after step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.core.sampling import Preview
from castalia.media.image.video import save_walk

SHOWN = 8
"""Pictures side by side."""

FRAMES = 60
"""Frames at most."""


class Film:
    """Collects the previews of the first batch of samples."""

    def __init__(self) -> None:
        self.frames: list[Tensor] = []
        self._finished = False

    def add(self, preview: Preview) -> None:
        """Keep what the examples look like now; later batches are not filmed."""
        if self._finished:
            return
        if preview.step % max(1, preview.steps // FRAMES) == 0 or preview.step == preview.steps:
            self.frames.append(torch.cat(list(preview.examples().x[:SHOWN].cpu()), dim=-1))
        self._finished = preview.step == preview.steps

    def save(self, path: Path, recipe: Mapping[str, Any]) -> None:
        """Write the film.

        Raises:
            UsageError: the model does not sample in steps.
        """
        if not self.frames:
            raise UsageError("--previews: this model makes its samples at once, so there are no steps to film.")
        save_walk(torch.stack(self.frames), path, recipe=recipe)
