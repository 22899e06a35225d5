"""Text as a medium."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError, RunError, UsageError
from castalia.core.files import read_bounded
from castalia.core.spec import Spec
from castalia.core.specs.text import TextSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.sets import NamedData, Progress
from castalia.media.text.draw import texts_image
from castalia.media.text.measures import MEASURES, pair_shares, total_variation
from castalia.media.text.packed import PackedText
from castalia.media.text.packing import TextOptions, open_texts
from castalia.media.text.pairs import open_pairs
from castalia.media.text.read import kind, text_columns
from castalia.media.text.sets import SETS, open_set, tiny
from castalia.media.text.tokens import END, tokens_of
from castalia.media.text.write import write_texts

LOOKED_AT = 400
"""Files of a folder that are looked at to tell what it holds."""
LARGEST_PROMPT = 16 << 20

_OTHER_NAMES = """
.zip .png .jpg .jpeg .webp .gif .bmp .tif .tiff .npy .npz .csv .tsv .tar .wav .flac .mp3 .ogg .mid .midi .mp4
"""
_OTHERS = frozenset(_OTHER_NAMES.split())


@final
class TextMedium(Medium):
    """Text: ``int64`` (T,) tokens, padded with -1, written as one UTF-8 file each."""

    name: ClassVar[str] = "text"
    spec: ClassVar[type[Spec]] = TextSpec
    options: ClassVar[type[Config]] = TextOptions
    shown: ClassVar[int] = 4
    reading: ClassVar[str] = "text files, source code, .jsonl, Parquet with a column of texts (also .gz), or a folder"
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        """Told by names: a file of text; a folder that has as many texts as other files, and none of another medium."""
        if path.is_file():
            return _is_text(path)
        texts = others = 0
        for _, (folder, folders, names) in zip(range(LOOKED_AT), os.walk(path), strict=False):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in [name for name in sorted(names) if not name.startswith(".")][:LOOKED_AT]:
                if os.path.splitext(name)[1].lower() in _OTHERS:
                    return False
                found = _is_text(Path(folder, name))
                texts, others = texts + found, others + (not found)
        return 0 < texts >= others

    def open(
        self,
        path: Path,
        options: TextOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        shape = _text(like)
        if options.pairs if shape is None else bool(shape.columns):
            return open_pairs(path, options, None if split == "all" else split, shape)
        return open_texts(path, options, split, shape, progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: TextOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_set(name, options, split, _text(like), progress)

    def tiny(self) -> PackedText:
        return tiny()

    def read(self, text: str, spec: TextSpec) -> Tensor:
        """Tokens ``int64`` (T,) of a text, without an end; special tokens are text like any other."""
        return torch.from_numpy(tokens_of(spec).encode(text))

    def read_file(self, path: Path, spec: TextSpec) -> Tensor:
        """The same of a whole file in UTF-8."""
        try:
            text = read_bounded(path, LARGEST_PROMPT).decode("utf-8-sig")
            return self.read(text, spec)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: byte {error.start:,} is not UTF-8.") from error
        except (RunError, UsageError) as error:
            raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from error

    def write(
        self, batch: Batch, spec: TextSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``0000.txt``, ... A text that ended, with another one behind it, has ``<|endoftext|>`` in between."""
        return write_texts(self.texts(batch, spec), folder, start, recipe)

    def picture(self, batch: Batch, spec: TextSpec, columns: int | None = None) -> Image:
        return texts_image(self.texts(batch, spec), columns)

    def texts(self, batch: Batch, spec: TextSpec) -> list[str]:
        """The texts of tokens (B, T)."""
        tokens = tokens_of(spec)
        return [tokens.decode(row, f"\n{END}\n") for row in batch.x.cpu().numpy()]

    def rates(self, batch: Batch, spec: TextSpec) -> Mapping[str, Rate]:
        """Nats per token, and bits per byte of UTF-8, of all tokens but the first of each row.

        An end of a text is a token, and its nats are paid for, but it has no bytes.
        """
        predicted = batch.x[:, 1:].cpu()
        lengths = torch.from_numpy(tokens_of(spec).lengths)
        there = predicted >= 0
        bytes_ = torch.where(there, lengths[predicted.clamp(min=0)], 0).sum(1)
        return {
            "nats_per_token": Rate("nats/token", math.e, there.sum(1).double()),
            "bits_per_byte": Rate("bits/byte", 2, bytes_.double()),
        }

    def distance(self, a: Batch, b: Batch, spec: TextSpec) -> float:
        """Half the sum of absolute differences of the shares of neighbouring pairs of tokens, 0 to 1."""
        first, second = (pair_shares(batch.x.cpu().numpy(), spec.size) for batch in (a, b))
        return total_variation(first, second)


def _text(like: Spec | None) -> TextSpec | None:
    if like is not None and not isinstance(like, TextSpec):
        raise UsageError("Texts can only be read like texts.")
    return like


def _is_text(path: Path) -> bool:
    """Whether a file is one of this medium; a table of Parquet where it has texts and no pictures or sounds."""
    what = kind(path)
    if what != "parquet":
        return what is not None and path.name != "metadata.jsonl"
    try:
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
    except Exception:  # pyarrow is missing, or this is no Parquet: other readers say so
        return False
    return bool(text_columns(path)) and not any("struct" in str(f.type) or "binary" in str(f.type) for f in schema)
