"""Examples that show themselves in a notebook."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL.Image import Image

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.spec import Spec
from castalia.core.specs.table import TableSpec
from castalia.media.rooms import medium_of


@dataclass(frozen=True)
class Samples(Batch):
    """Examples that know what they are of: the last line of a notebook's cell draws them.

    Attributes:
        spec: the shape of one example.
    """

    spec: Spec | None = None

    @classmethod
    def told(cls, batch: Batch, spec: Spec) -> Samples:
        """A batch with its spec."""
        return cls(batch.x, batch.ids, batch.label, batch.extra, spec)

    def picture(self, columns: int | None = None) -> Image:
        """One drawing of all of them, for Pillow: a grid of pictures, waveforms, pages of text.

        Args:
            columns: examples per row, for media that lay them out in rows; None for about a square.
        """
        assert self.spec is not None
        return medium_of(self.spec).picture(Batch(self.x, self.ids, self.label, self.extra), self.spec, columns)

    def pictures(self) -> list[Image]:
        """Each of them as a drawing of its own, for Pillow."""
        assert self.spec is not None
        medium, whole = medium_of(self.spec), Batch(self.x, self.ids, self.label, self.extra)
        return [medium.picture(whole[i : i + 1], self.spec) for i in range(len(self))]

    def frame(self) -> Any:
        """Rows of a table as a data frame of pandas, with the types of the data that the run was trained on.

        Raises:
            UsageError: they are no rows of a table.
            MissingExtra: pandas is not installed.
        """
        if not isinstance(self.spec, TableSpec):
            raise UsageError("Only rows of tables are a data frame; castalia.save writes other examples as files.")
        from castalia.media.table.medium import frame_of

        first = int(self.ids[0]) if self.ids is not None and len(self.ids) else 0
        return frame_of(Batch(self.x, self.ids, self.label, self.extra), self.spec, first)

    def _repr_html_(self) -> str:
        return tag(self.picture(), f"{len(self)} examples")


def tag(picture: Image, words: str) -> str:
    """A picture inside HTML."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(words)}" style="max-width:100%">'
