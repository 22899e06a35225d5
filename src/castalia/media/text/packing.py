"""From people's files to one file of tokens, which is made once and kept in the cache.

It lies there under the hash of everything that it was made from, and is mapped into memory, never read as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from castalia.core import assets
from castalia.core.config import Config, from_json, to_json
from castalia.core.errors import DataError, RunError, UsageError
from castalia.core.files import disk_error, read_sealed, remove, sha256, write_sealed
from castalia.core.specs.text import TextSpec
from castalia.media.sets import Progress, cache_folder
from castalia.media.splits import held_out, names_telling_splits, own_split
from castalia.media.text.middle import Gaps
from castalia.media.text.packed import PackedText, token_type
from castalia.media.text.read import Document, Errors, Source, documents, find_files
from castalia.media.text.tokens import (
    MARKS,
    PIECE,
    Bytes,
    Characters,
    Pieces,
    Tokens,
    cut,
    name_characters,
    read_pieces,
    tokens_of,
    train_pieces,
)

VERIFIED = 1 << 30
"""Bytes of a packed file up to which all of it is compared with its hash when it is opened."""

LEARNED = 256 << 20
"""Characters from which byte pair encoding is learned."""


@dataclass(frozen=True)
class TextOptions(Config):
    """How texts are read.

    Attributes:
        tokens: ``chars``; ``bytes``; ``bpe``, found in the texts themselves; ``gpt2``, read from ``vocabulary_path``.
        vocabulary: ``bpe``: number of tokens, the one that ends a text among them.
        vocabulary_path: ``gpt2``: ``vocab.json`` (``merges.txt`` beside it), ``tokenizer.json``, or their folder.
        length: tokens that a window predicts: the context of a model.
        field: the field of JSONL, or column of Parquet, that holds the text.
        encoding: what happens to bytes that are no UTF-8: ``strict`` is an error, ``replace`` makes them U+FFFD.
        pairs: rows are pairs of answers, ``prompt``, ``chosen`` and ``rejected``, for what learns from preferences.
        middle: share of the texts in training windows in which a part is moved behind the rest, so that a model learns
            to fill gaps; above 0 the vocabulary has marks for that.
        suffix_first: share of these in which what stands behind the gap comes first.
        unknown: what happens to characters that a run's alphabet does not have: ``error``, or ``skip`` with a note.
    """

    tokens: Literal["chars", "bytes", "bpe", "gpt2"] = "bytes"
    vocabulary: int = 4096
    vocabulary_path: str = ""
    length: int = 256
    field: str = "text"
    encoding: Errors = "strict"
    unknown: Literal["error", "skip"] = "error"
    pairs: bool = False
    middle: float = 0.0
    suffix_first: float = 0.5

    def __post_init__(self) -> None:
        if self.length < 1 or self.vocabulary < 257:
            raise ValueError("length must be at least 1, and vocabulary at least 257")
        if not 0 <= self.middle <= 1 or not 0 <= self.suffix_first <= 1:
            raise ValueError("middle and suffix_first are shares")
        if self.middle and self.pairs:
            raise ValueError("pairs of answers have no middles: leave middle=0")
        if self.tokens == "gpt2" and not self.vocabulary_path:
            raise ValueError("tokens='gpt2' needs vocabulary_path: the folder of vocab.json and merges.txt")


def open_texts(
    path: Path,
    options: TextOptions,
    split: str | None,
    like: TextSpec | None = None,
    progress: Progress | None = None,
    name: str | None = None,
    source: Source | None = None,
) -> PackedText:
    """Open a source of texts: a file, or a folder of them.

    Where the names of all files tell splits (``train.txt``, ``test/7.txt``), these are the splits. Otherwise a tenth of
    the documents is ``test``, by a hash of their names; of a single document, such as a play, its last tenth.

    Args:
        path: what to read.
        options: how; what ``like`` settles is not looked at.
        split: the split, or None (see :meth:`castalia.media.base.Medium.open`).
        like: the shape of a run's data, whose vocabulary and length are used.
        progress: called with (files done, files).
        name: what to call the data; None for the last part of the path.
        source: the files, where they are known already.

    Raises:
        DataError: a file cannot be read, there is no text, or no such split.
        UsageError: the vocabulary cannot be as large as asked for.
        MissingExtra: ``tokenizers`` or ``pyarrow`` is needed and not installed.
    """
    source = source or find_files(path)
    split = None if split == "all" else split
    names = names_telling_splits(source.path, source.files)
    own, files, notes = own_split(source.files, names, split, str(source.path))
    learn = files if own is None else own_split(source.files, names, None, str(source.path))[1]
    made = _Packing(source, tuple(files), tuple(learn), options, split if own is None else None, like, progress)
    folder, key = cache_folder() / "packed", made.key()
    packed, about = folder / f"{key}.tokens", folder / f"{key}.json"
    found = _cached(packed, about) or made.write(packed, about)
    spec = like or replace(found.spec, length=options.length)
    row = np.memmap(packed, token_type(spec.size), mode="r")
    texts = [*source.notes, *notes, *found.notes]
    gaps = Gaps(spec, options.middle, options.suffix_first) if spec.middles and options.middle else None
    return PackedText(row, spec, name=name or source.path.name, notes=texts, digest=found.digest, gaps=gaps)


@dataclass(frozen=True)
class _Packed:
    """What is known about a packed file.

    Attributes:
        spec: of its windows; the length does not count.
        tokens: how many.
        digest: SHA-256 of the file.
        notes: what a person should know.
    """

    spec: TextSpec
    tokens: int
    digest: str
    notes: tuple[str, ...]


def _cached(packed: Path, about: Path) -> _Packed | None:
    """What was packed before, where it is still there, whole, and what it was."""
    if not (packed.is_file() and about.is_file()):
        return None
    try:
        found = from_json(_Packed, read_sealed(about))
        assets.look_in(about.parent)
        tokens_of(found.spec)
        size = packed.stat().st_size
        whole = size == found.tokens * np.dtype(token_type(found.spec.size)).itemsize
        return found if whole and (size > VERIFIED or sha256(packed) == found.digest) else None
    except (RunError, UsageError, OSError):
        return None  # it is made again


@dataclass(frozen=True)
class _Packing:
    """A source on its way into one file.

    Attributes:
        source: all of its files.
        files: those that are packed.
        learn: those from which a vocabulary is learned.
        options: how they are read.
        split: what is taken of their documents; None for all.
        like: has the vocabulary, where one is given.
        progress: told of files.
    """

    source: Source
    files: tuple[Path, ...]
    learn: tuple[Path, ...]
    options: TextOptions
    split: str | None
    like: TextSpec | None
    progress: Progress | None

    def key(self) -> str:
        """A hash of everything that the packed file is made from; of files their sizes and times."""
        used = self.files if self.like is not None else (*self.files, *self.source.files)
        stats = [(self.source.name(f), s.st_size, s.st_mtime_ns, s.st_ino) for f in used for s in [f.stat()]]
        options, like = to_json(self.options) | {"length": 0, "suffix_first": 0}, to_json(self.like)
        options["middle"] = self.options.middle > 0  # of which only the marks are in the file
        if self.options.tokens == "gpt2" and self.like is None:
            options["vocabulary"] = hashlib.sha256(self._given().data()).hexdigest()
        if like is not None:
            like["length"] = 0
        whole = [1, str(self.source.path.absolute()), stats, options, self.split, like]
        return hashlib.blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=16).hexdigest()

    def write(self, packed: Path, about: Path) -> _Packed:
        """Pack. The file and what is known about it appear whole or not at all."""
        parts, notes = self._parts(self.split)
        spec = self._spec(self._tokens())
        tokens = tokens_of(spec)
        encode = _Encoder(tokens, self.options.unknown)
        kind = token_type(tokens.size)
        temporary = packed.with_name(f".{packed.name}.tmp-{uuid.uuid4().hex[:8]}")
        digest, count = hashlib.sha256(), 0
        try:
            packed.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                for block in _packed(parts, encode):
                    data = block.astype(kind).tobytes()
                    digest.update(data)
                    file.write(data)
                    count += len(block)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, packed)
        except OSError as error:
            raise disk_error(packed, error) from error
        finally:
            remove(temporary)
        found = _Packed(spec, count, digest.hexdigest(), (*notes, *encode.notes()))
        assets.store(about.parent, found.spec)
        write_sealed(about, to_json(found))
        return found

    def _documents(self, files: tuple[Path, ...], loud: bool = False) -> Iterator[Document]:
        for done, file in enumerate(files):
            yield from documents(self.source, (file,), self.options.field, self.options.encoding)
            if loud and self.progress is not None:
                self.progress(done + 1, len(files))

    def _parts(self, split: str | None) -> tuple[Iterator[tuple[str, str]], list[str]]:
        """What a split takes: (name of the document, a part of it) one after another; and notes."""
        sizes, held = [], []
        for document in self._documents(self.files):
            sizes.append(sum(map(len, document.parts())))
            held.append(document.name)
        test = held_out(held)
        if not sum(sizes):
            raise DataError(f"{self.source.path} holds no text: its {len(sizes):,} documents are empty.")
        whole, notes = (0, max(sizes)), []
        if split is None:
            wanted = dict.fromkeys(range(len(sizes)), whole)
        elif split not in ("train", "test"):
            where = self.source.path
            raise DataError(f"{where} has no splits, so only 'train' and 'test' can be made; not {split!r}.")
        elif len(sizes) == 1:
            at = sizes[0] * 9 // 10
            wanted = {0: (0, at) if split == "train" else (at, sizes[0])}
            notes = [f"A single document: 'train' is its first nine tenths ({at:,} characters), 'test' is the rest."]
        else:
            chosen = np.flatnonzero(test == (split == "test")).tolist()
            wanted = dict.fromkeys(chosen, whole)
            if not chosen:
                raise DataError(f"{self.source.path} has only {len(sizes)} documents, too few for a {split!r} split.")
            share = f"{len(chosen):,} of {len(sizes):,} documents"
            notes = [f"No splits of its own: {split!r} is {share}, by a hash of their names."]
        return self._taken(wanted), notes

    def _taken(self, wanted: dict[int, tuple[int, int]]) -> Iterator[tuple[str, str]]:
        for number, document in enumerate(self._documents(self.files, loud=True)):
            if number not in wanted:
                continue
            (start, stop), at = wanted[number], 0
            for part in document.parts():
                yield document.name, part[max(start - at, 0) : max(stop - at, 0)]
                at += len(part)

    def _tokens(self) -> Tokens:
        o = self.options
        if self.like is not None:
            return tokens_of(self.like)
        if o.tokens == "chars":
            seen: set[str] = set()
            for document in self._documents(self.source.files):
                for part in document.parts():
                    seen.update(part)
            return Characters("".join(sorted(seen)))
        if o.tokens == "bytes":
            return Bytes()
        return self._given() if o.tokens == "gpt2" else train_pieces(self._learned(), o.vocabulary)

    def _given(self) -> Pieces:
        return read_pieces(Path(self.options.vocabulary_path).expanduser())

    def _learned(self) -> Iterator[str]:
        """What byte pair encoding is learned from: the training part, as far as that can be told."""
        left = LEARNED
        taken = replace(self, files=self.learn, progress=None)
        for _, part in taken._parts(self.split and "train")[0]:
            yield part
            left -= len(part)
            if left <= 0:
                return

    def _spec(self, tokens: Tokens) -> TextSpec:
        if self.like is not None:
            return self.like
        length, middles = self.options.length, self.options.middle > 0
        size = tokens.size + MARKS * middles
        if isinstance(tokens, Characters):
            return TextSpec("chars", size, length, alphabet=tokens.alphabet, middles=middles)
        if isinstance(tokens, Pieces):
            vocabulary = assets.keep(tokens.data(), "vocabulary.json")
            return TextSpec("bpe", size, length, vocabulary=vocabulary, middles=middles)
        return TextSpec("bytes", size, length, middles=middles)


class _Encoder:
    """Encodes texts, and minds the characters that the vocabulary does not have."""

    def __init__(self, tokens: Tokens, unknown: str) -> None:
        self.tokens, self.unknown = tokens, unknown
        self.end = np.array([tokens.end])
        self.skipped: dict[str, int] = {}

    def __call__(self, text: str, name: str) -> np.ndarray:
        if not isinstance(self.tokens, Characters):
            return self.tokens.encode(text)
        ids, known = self.tokens.look_up(text)
        if known.all():
            return ids
        others = [text[i] for i in np.flatnonzero(~known)]
        if self.unknown == "error":
            raise DataError(
                f"{name}: holds characters that the vocabulary does not have: {name_characters(others)}. Leave them "
                "out with unknown=skip, or train with a vocabulary of bytes."
            )
        for c in others:
            self.skipped[c] = self.skipped.get(c, 0) + 1
        return ids[known]

    def notes(self) -> list[str]:
        if not self.skipped:
            return []
        count = sum(self.skipped.values())
        return [
            f"{count:,} characters were left out that the vocabulary does not have: {name_characters(self.skipped)}."
        ]


def _packed(parts: Iterable[tuple[str, str]], encode: _Encoder) -> Iterator[np.ndarray]:
    """Tokens of texts, with an end before, between and behind them."""
    yield encode.end
    before, waiting = None, ""
    for name, part in parts:
        if before is not None and name != before:
            yield encode(waiting, before)
            yield encode.end
            waiting = ""
        before, waiting = name, waiting + part
        if len(waiting) > 4 * PIECE:
            *whole, waiting = cut(waiting)
            for piece in whole:
                yield encode(piece, name)
    if before is not None:
        yield encode(waiting, before)
        yield encode.end
