"""Pictures of digits stacked as colours: 1,000 modes of known probability.

Three digits drawn at random become the red, green and blue channel of one picture, and the label is the number that
they spell. The protocol of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) and PacGAN (Lin et al. 2018,
arXiv:1712.04086): 128,000 pictures to train, 26,000 to measure.
"""

from __future__ import annotations

import hashlib
from typing import final

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.rng import Rng, derive
from castalia.core.specs.image import ImageSpec
from castalia.media.image.array import ImageArray, mirror

CHANNELS = 3
STACKS = {"train": 128_000, "test": 26_000}
"""Pictures by split."""


@final
class StackedArray(Dataset):
    """Three grey pictures of a labelled set as the channels of one; composed when asked for.

    Attributes:
        base: the grey pictures, with labels.
        index: ``int64`` (N, 3), which picture of ``base`` each channel is.
        labels: ``int64`` (N,): the labels of the channels read as the digits of one number, red first.
    """

    def __init__(self, base: ImageArray, *, name: str, split: str) -> None:
        digits = len(base.spec.classes)
        if base.spec.channels != 1 or base.labels is None or not 0 < digits <= 10:
            raise ValueError("a stack is made of grey pictures with at most ten classes")
        self.base = base
        generator = np.random.Generator(np.random.Philox(derive(0, "stacked", split)))
        self.index = torch.from_numpy(generator.integers(0, len(base), (STACKS[split], CHANNELS)))
        place = torch.tensor([digits**2, digits, 1])
        self.labels: Tensor = (  # pyright: ignore[reportIncompatibleVariableOverride]
            base.labels[self.index] * place
        ).sum(dim=1)
        names = base.spec.classes
        # Narrower than the base class says, and never set again.
        self.spec: ImageSpec = ImageSpec(  # pyright: ignore[reportIncompatibleVariableOverride]
            CHANNELS, base.spec.height, base.spec.width, tuple(a + b + c for a in names for b in names for c in names)
        )
        self.name, self.notes = name, base.notes
        digest = hashlib.blake2b(base.fingerprint.encode(), digest_size=16)
        digest.update(self.index.numpy().data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """Return the examples ``ids`` (``int64`` (B,)), mirrored at random where ``base`` is read with ``flip``."""
        wanted = torch.from_numpy(ids)
        rows = self.index.index_select(0, wanted).flatten()
        x = self.base.x.index_select(0, rows).view(len(ids), CHANNELS, self.spec.height, self.spec.width)
        if self.base.flip and rng is not None:
            x = mirror(x, rng)
        return Batch(x, wanted, self.labels.index_select(0, wanted))


def check_channels(name: str, channels: int | None) -> None:
    """Refuse to read a stack with other channels than it has.

    Raises:
        UsageError: ``channels`` is neither None nor 3.
    """
    if channels not in (None, CHANNELS):
        raise UsageError(f"{name} has three channels, one for each digit; it cannot be read with {channels}.")
