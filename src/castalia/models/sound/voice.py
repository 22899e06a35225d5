"""What a WaveNet is told beside the sound before: a word, a speaker, and frames of what is to be heard.

van den Oord et al. 2016, section 2.5: word and speaker are global conditions, one vector for a whole sound; frames are
a local one, a second series at a lower rate, each repeated until the next (the paper's simpler form of y = f(h)).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

SPEAKER = "speaker"
"""Name of the column and of what can be given."""


@dataclass(frozen=True)
class Voice:
    """Conditions of n sounds; None for what the model is not told.

    Attributes:
        label: ``int64`` (n,), the word.
        speaker: ``int64`` (n,).
        frames: ``float32`` (n, bands, F), for the whole sound.
        first: the position in the sound that comes first in what is asked about.
    """

    label: Tensor | None = None
    speaker: Tensor | None = None
    frames: Tensor | None = None
    first: int = 0

    def rows(self, mine: slice) -> Voice:
        """Of some of the sounds."""
        kept = {f.name: v[mine] for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **kept)

    def at(self, first: int) -> Voice:
        """For a stretch that begins at a position."""
        return replace(self, first=first)

    def frames_at(self, hop: int, count: int) -> Tensor:
        """Number of the frame of each of ``count`` positions from the first on, ``int64`` (count,)."""
        assert self.frames is not None
        place = torch.arange(self.first, self.first + count, device=self.frames.device)
        return torch.div(place, hop, rounding_mode="floor").clamp(max=self.frames.shape[2] - 1)
