"""The contract of a medium: samples become files and one overview picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from PIL.Image import Image
from torch import Tensor

from castalia.core.data import Spec
from castalia.media.image.write import save_image


class Medium(ABC):
    """A kind of thing that models make.

    Samples are in natural units (for pictures ``uint8`` (N, C, H, W)), so a medium knows no model.

    Attributes:
        name: what the medium is called in configurations and reports.
        spec: how the shape of one example is described.
        shown: how many examples one drawing shows well.
    """

    name: ClassVar[str]
    spec: ClassVar[type[Spec]]
    shown: ClassVar[int]

    @abstractmethod
    def write(
        self, samples: Tensor, folder: Path, stem_start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write one file per sample, named by number, or one file of rows; return the paths in sample order.

        Args:
            samples: natural units, first dimension N.
            folder: where to write; made when missing.
            stem_start: number of the first sample; the others follow.
            recipe: everything needed to make the samples again (JSON values); kept in or beside each file.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """

    @abstractmethod
    def picture(self, samples: Tensor, columns: int | None = None) -> Image:
        """All samples in one picture.

        Args:
            samples: natural units, first dimension N >= 1.
            columns: samples per row, for media that lay them out in rows; None for about a square.
        """

    @final
    def draw(self, samples: Tensor, path: Path, recipe: Mapping[str, Any] | None = None) -> None:
        """Write :meth:`picture` as a PNG with the recipe in it and beside it.

        Args:
            samples: natural units, first dimension N >= 1.
            path: the picture.
            recipe: as in :meth:`write`.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        save_image(self.picture(samples), path, recipe)
