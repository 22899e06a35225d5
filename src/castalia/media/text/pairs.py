"""Pairs of answers of which people prefer one: rows with ``prompt``, ``chosen`` and ``rejected``.

An example is the prompt with the answer that was chosen; the same with the other one stands beside it, in the column
``rejected``. Both have the token that ends a text before and behind them, and are padded with -1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from castalia.core import assets
from castalia.core.config import to_json
from castalia.core.data import Batch, Dataset, pad
from castalia.core.errors import DataError
from castalia.core.rng import Rng
from castalia.core.specs.text import TextSpec
from castalia.media.splits import hashed_split, names_telling_splits, own_split
from castalia.media.text.read import documents, find_files, kind
from castalia.media.text.tokens import Bytes, Characters, Pieces, Tokens, read_pieces, tokens_of, train_pieces

if TYPE_CHECKING:
    from castalia.media.text.packing import TextOptions

FIELDS = ("prompt", "chosen", "rejected")

Pair = tuple[str, str, str]
"""Prompt, the answer that was chosen, and the other one."""


@final
class Pairs(Dataset):
    """Texts, and beside each what it was preferred to.

    Attributes:
        spec: the shape of a text, with the column ``rejected``.
    """

    def __init__(
        self, chosen: Sequence[Tensor], rejected: Sequence[Tensor], spec: TextSpec, name: str, notes: Iterable[str] = ()
    ) -> None:
        if not chosen:
            raise DataError(f"{name} has no pairs that fit into {spec.length} tokens.")
        self.chosen, self.rejected, self.name, self.notes = tuple(chosen), tuple(rejected), name, tuple(notes)
        # Narrower than the base class says, and never set again.
        self.spec: TextSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        digest = hashlib.blake2b(json.dumps(to_json(spec), sort_keys=True).encode(), digest_size=16)
        for row in (*self.chosen, *self.rejected):
            digest.update(row.numpy().tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """``x`` is ``int64`` (B, T), the texts that were chosen; ``rejected`` in ``extra`` likewise."""
        x, other = (pad([rows[i][None] for i in ids.tolist()], -1) for rows in (self.chosen, self.rejected))
        return Batch(x, torch.from_numpy(ids.astype(np.int64)), None, {"rejected": other})


def paired(spec: TextSpec) -> TextSpec:
    """The shape of pairs of texts of that shape."""
    plain = replace(spec, columns=())
    return replace(plain, columns=(("rejected", plain),))


def pair_up(pairs: Iterable[Pair], tokens: Tokens, spec: TextSpec, name: str, notes: Iterable[str] = ()) -> Pairs:
    """Pairs of texts as a data set; those of which one is longer than ``spec`` allows are left out, with a note."""
    ends = np.array([tokens.end])
    chosen: list[Tensor] = []
    rejected: list[Tensor] = []
    long = 0
    for prompt, *answers in pairs:
        begin = tokens.encode(prompt)
        rows = [torch.from_numpy(np.concatenate([ends, begin, tokens.encode(a), ends])) for a in answers]
        if max(map(len, rows)) > spec.length + 1:
            long += 1
            continue
        chosen.append(rows[0].long())
        rejected.append(rows[1].long())
    more = [f"{long:,} pairs are longer than {spec.length} tokens and were left out."] if long else []
    return Pairs(chosen, rejected, paired(spec), name, [*notes, *more])


def open_pairs(path: Path, options: TextOptions, split: str | None, like: TextSpec | None = None) -> Pairs:
    """Open rows of JSONL or Parquet with ``prompt``, ``chosen`` and ``rejected``.

    Args:
        path: a file, or a folder of them.
        options: how they are read; what ``like`` settles is not looked at.
        split: as for texts.
        like: the shape of a run's data, whose vocabulary and length are used.

    Raises:
        DataError: there are none, a file cannot be read, or a row lacks one of the three; the text names it.
    """
    source = find_files(path)
    files = [file for file in source.files if kind(file) in ("rows", "parquet")]
    if not files:
        raise DataError(f"{path} has no pairs: rows of .jsonl or .parquet with {', '.join(FIELDS)}.")
    own, files, notes = own_split(files, names_telling_splits(source.path, files), split, str(path))
    fields = [documents(source, files, field, options.encoding) for field in FIELDS]
    rows, names = [], []
    for parts in zip(*fields, strict=True):
        prompt, chosen, rejected = ("".join(part.parts()) for part in parts)
        if chosen == rejected:
            raise DataError(f"{path}: {parts[0].name}: both answers are the same, so that none is preferred.")
        rows.append((prompt, chosen, rejected))
        names.append(parts[0].name)
    kept, more = hashed_split(split, own, names, str(path), "pairs")
    rows = rows if kept is None else [rows[i] for i in kept.tolist()]
    tokens = _tokens(rows, options, like)
    spec = like or _spec(tokens, options)
    return pair_up(rows, tokens, spec, path.name, [*source.notes, *notes, *more])


def _tokens(rows: Sequence[Pair], options: TextOptions, like: TextSpec | None) -> Tokens:
    if like is not None:
        return tokens_of(like)
    made: dict[str, Callable[[], Tokens]] = {
        "chars": lambda: Characters("".join(sorted({c for row in rows for text in row for c in text}))),
        "bytes": Bytes,
        "gpt2": lambda: read_pieces(Path(options.vocabulary_path).expanduser()),
        "bpe": lambda: train_pieces((text for row in rows for text in row), options.vocabulary),
    }
    return made[options.tokens]()


def _spec(tokens: Tokens, options: TextOptions) -> TextSpec:
    if isinstance(tokens, Characters):
        return TextSpec("chars", tokens.size, options.length, alphabet=tokens.alphabet)
    if isinstance(tokens, Pieces):
        asset = assets.keep(tokens.data(), "vocabulary.json")
        return TextSpec("bpe", tokens.size, options.length, vocabulary=asset)
    return TextSpec("bytes", tokens.size, options.length)
