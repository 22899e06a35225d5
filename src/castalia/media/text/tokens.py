"""Text as numbers: characters, bytes, or pieces found by byte pair encoding.

The last token of every vocabulary ends a text and has no bytes. It is no part of the tokenizer, so nothing that a
person writes can become it: ``<|endoftext|>`` in a text is thirteen characters like any others.

Byte pair encoding is GPT-2's (Radford et al. 2019, section 2.2): bytes, cut at words by GPT-2's pattern, merged in the
order of the merges. Vocabularies are trained and applied by Hugging Face's ``tokenizers`` (``castalia[text]``).
"""

from __future__ import annotations

import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast, final

import numpy as np

from castalia.core.assets import Asset
from castalia.core.errors import DataError, MissingExtra, RunError, UsageError
from castalia.core.files import read_bounded, read_json
from castalia.core.specs.text import TextSpec
from castalia.core.vocabulary import BYTES, read_vocabulary

END = "<|endoftext|>"
"""How the end of a text is shown, and what it is called in GPT-2's vocabulary."""

PIECE = 1 << 18
"""Characters that are encoded at once; bounds the memory."""

LARGEST_VOCABULARY = 1 << 22
LARGEST_FILE = 128 << 20


MARKS = 3
"""Tokens without bytes that stand before the end in some vocabularies; see ``middle.py``."""


class Tokens(ABC):
    """A vocabulary.

    Attributes:
        size: number of tokens; the last one ends a text, and those before it may be marks.
    """

    size: int

    @property
    def end(self) -> int:
        """The token that ends a text."""
        return self.size - 1

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Tokens ``int64`` (T,) of a text, without an end.

        Raises:
            UsageError: it holds characters that the vocabulary does not have.
        """

    @cached_property
    @abstractmethod
    def pieces(self) -> list[bytes]:
        """The bytes of every token; none for the end."""

    @cached_property
    def lengths(self) -> np.ndarray:
        """Bytes of UTF-8 in every token, ``int64`` (size,); 0 for the end."""
        return np.array([len(piece) for piece in self.pieces], np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray, end: str = "") -> str:
        """The text of tokens.

        Args:
            ids: the tokens; those below 0 are padding. A last one that ends the text is left out.
            end: what is written where a text ends and another one begins.

        Returns:
            The text. Bytes that are no UTF-8, which a model can make, become U+FFFD.
        """
        kept = [int(i) for i in ids if i >= 0]
        if kept and kept[-1] == self.end:
            kept.pop()
        mark = end.encode()
        return b"".join(mark if i == self.end else self.pieces[i] for i in kept).decode("utf-8", "replace")


@final
class Characters(Tokens):
    """One token for each character of an alphabet.

    Args:
        alphabet: the characters, in token order.
        marks: whether there are marks.
    """

    def __init__(self, alphabet: str, marks: bool = False) -> None:
        self.alphabet, self.size = alphabet, len(alphabet) + 1 + MARKS * marks
        points = _points(alphabet)
        if len(np.unique(points)) != len(points):
            raise ValueError("a character is twice in the alphabet")
        self._order = np.argsort(points)
        self._sorted = points[self._order]

    def encode(self, text: str) -> np.ndarray:
        ids, known = self.look_up(text)
        if not known.all():
            raise UsageError(f"The vocabulary has no {name_characters(itertools.compress(text, ~known))}.")
        return ids

    def look_up(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens ``int64`` (T,), and which of them are known, bool (T,); the others are 0."""
        points = _points(text)
        if not len(self._sorted):
            return np.zeros(len(points), np.int64), np.zeros(len(points), bool)
        place = np.minimum(np.searchsorted(self._sorted, points), len(self._sorted) - 1)
        known = self._sorted[place] == points
        return np.where(known, self._order[place], 0), known

    @cached_property
    def pieces(self) -> list[bytes]:
        known = [c.encode("utf-8", "surrogatepass") for c in self.alphabet]
        return known + [b""] * (self.size - len(known))


@final
class Bytes(Tokens):
    """The 256 bytes of UTF-8.

    Args:
        marks: whether there are marks.
    """

    def __init__(self, marks: bool = False) -> None:
        self.size = 257 + MARKS * marks

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(_utf8(text), np.uint8).astype(np.int64)

    @cached_property
    def pieces(self) -> list[bytes]:
        return [bytes([b]) for b in range(256)] + [b""] * (self.size - 256)


@final
class Pieces(Tokens):
    """Byte pair encoding.

    Args:
        vocabulary: token by piece, pieces in GPT-2's spelling of bytes; numbered from 0 without gaps. The end is
            ``<|endoftext|>`` where that has the last number, else one number more.
        merges: pairs of pieces, first the one that is merged first.
        marks: whether there are marks; then the end comes behind them.
    """

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], marks: bool = False) -> None:
        named = vocabulary.get(END) == len(vocabulary) - 1
        self.size = len(vocabulary) + (not named) + MARKS * marks
        self.merges = tuple(merges)
        self.vocabulary = {**vocabulary, END: self.end}
        self._tokenizer = _tokenizer({k: v for k, v in vocabulary.items() if not (named and k == END)}, merges)

    def encode(self, text: str) -> np.ndarray:
        _utf8(text)
        parts = [self._tokenizer.encode(part, add_special_tokens=False).ids for part in cut(text)]
        return np.concatenate([np.array(part, np.int64) for part in parts]) if parts else np.zeros(0, np.int64)

    @cached_property
    def pieces(self) -> list[bytes]:
        found = [b""] * self.size
        for piece, number in self.vocabulary.items():
            if number != self.end:
                found[number] = bytes(BYTES[c] for c in piece)
        return found

    def data(self) -> bytes:
        """What an asset keeps: the vocabulary as JSON."""
        whole = {"merges": [list(pair) for pair in self.merges], "pieces": sorted(self.vocabulary, key=self._number)}
        return json.dumps(whole, ensure_ascii=True, separators=(",", ":")).encode()

    def _number(self, piece: str) -> int:
        return self.vocabulary[piece]


def tokens_of(spec: TextSpec) -> Tokens:
    """The vocabulary of a run's texts.

    Raises:
        MissingExtra: ``tokenizers`` is not installed.
        RunError: the vocabulary that belongs to the run is missing or damaged.
    """
    if spec.kind == "chars":
        return Characters(spec.alphabet, spec.middles)
    if spec.kind == "bytes":
        return Bytes(spec.middles)
    return _pieces(spec.vocabulary, spec.middles)


@lru_cache(maxsize=8)
def _pieces(asset: Asset | None, marks: bool = False) -> Pieces:
    data = read_vocabulary(asset)
    name = "The vocabulary of the run"
    try:
        vocabulary = {piece: i for i, piece in enumerate(data["pieces"])}
        return _checked(vocabulary, [_pair(merge, name) for merge in data["merges"]], name, marks)
    except (DataError, TypeError, ValueError) as error:
        raise RunError(f"{name} is damaged ({error}).") from error


def train_pieces(texts: Iterable[str], size: int) -> Pieces:
    """Find the merges of byte pair encoding; the same texts give the same ones.

    Args:
        texts: to learn from, read once.
        size: number of tokens, the end among them; at least 257. Few texts give fewer.

    Raises:
        MissingExtra: ``tokenizers`` is not installed.
    """
    if not 257 <= size <= LARGEST_VOCABULARY:
        raise UsageError(f"A vocabulary of pieces has between 257 and {LARGEST_VOCABULARY:,} tokens, not {size:,}.")
    library = _library()
    tokenizer = _tokenizer({}, ())
    trainer = library.trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=sorted(BYTES), show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator((part for text in texts for part in cut(text)), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return Pieces(dict(model["vocab"]), [_pair(merge, "") for merge in model["merges"]])


def read_pieces(path: Path) -> Pieces:
    """Read GPT-2's vocabulary, or another one of its kind.

    Args:
        path: ``tokenizer.json``; ``vocab.json`` with ``merges.txt`` beside it; or a folder that holds either.

    Raises:
        DataError: there is none, or it is not byte pair encoding over bytes.
        MissingExtra: ``tokenizers`` is not installed.
    """
    if path.is_dir():
        found = next((path / name for name in ("vocab.json", "tokenizer.json") if (path / name).exists()), None)
        if found is None:
            raise DataError(f"{path} holds neither vocab.json with merges.txt nor tokenizer.json.")
        path = found
    if not path.exists():
        raise DataError(f"There is no vocabulary at {path}: name vocab.json, tokenizer.json or their folder.")
    try:
        data = read_json(path, LARGEST_FILE)
        if path.name == "vocab.json":
            merges = _merges(path.with_name("merges.txt"))
        else:
            model = data["model"]
            if (other := _other(data)) is not None:
                raise DataError(f"{path}: not byte pair encoding over bytes as GPT-2's is ({other}).")
            added = {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
            data = {**model["vocab"], **({END: added[END]} if END in added else {})}
            merges = [_pair(merge, str(path)) for merge in model["merges"]]
        return _checked(data, merges, str(path))
    except RunError as error:
        raise DataError(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a vocabulary of byte pair encoding ({type(error).__name__}: {error}).") from error


def _other(data: dict[str, Any]) -> str | None:
    """What a ``tokenizer.json`` does otherwise than GPT-2: such a one would quietly give other tokens."""
    model, cut_by = data["model"], data.get("pre_tokenizer") or {}
    plain: dict[str, tuple[Any, Any, Any]] = {
        "model.type": (model.get("type", "BPE"), "BPE", "BPE"),
        "model.dropout": (model.get("dropout"), None, 0.0),
        "model.ignore_merges": (model.get("ignore_merges"), None, False),
        "model.byte_fallback": (model.get("byte_fallback"), None, False),
        "model.continuing_subword_prefix": (model.get("continuing_subword_prefix"), None, ""),
        "model.end_of_word_suffix": (model.get("end_of_word_suffix"), None, ""),
        "normalizer": (data.get("normalizer"), None, None),
        "pre_tokenizer.type": (cut_by.get("type"), "ByteLevel", "ByteLevel"),
        "pre_tokenizer.use_regex": (cut_by.get("use_regex", True), True, True),
        "pre_tokenizer.add_prefix_space": (cut_by.get("add_prefix_space", False), False, False),
    }
    return next((f"{name} is {str(v)[:60]!r}" for name, (v, *good) in plain.items() if v not in good), None)


def _merges(path: Path) -> list[tuple[str, str]]:
    lines = read_bounded(path, LARGEST_FILE).decode("utf-8").split("\n")
    start = 1 if lines[0].startswith("#version") else 0
    return [_pair(line, f"{path}, line {i + 1}") for i, line in enumerate(lines) if i >= start and line]


def _pair(merge: Any, where: str) -> tuple[str, str]:
    """Two pieces, in either spelling of ``tokenizer.json``: a list, or a text with a space."""
    parts = merge.split(" ") if isinstance(merge, str) else list(merge)
    if len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise DataError(f"{where}: {str(merge)[:80]!r} is not a pair of pieces.")
    return parts[0], parts[1]


def _checked(vocabulary: dict[str, int], merges: list[tuple[str, str]], where: str, marks: bool = False) -> Pieces:
    """The vocabulary, if every text can be encoded with it, and decoded again."""
    if not isinstance(vocabulary, dict) or not 256 <= len(vocabulary) <= LARGEST_VOCABULARY:
        raise DataError(f"{where}: not a vocabulary of 256 to {LARGEST_VOCABULARY:,} pieces.")
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise DataError(f"{where}: its tokens are not numbered from 0 without gaps.")
    named = vocabulary.get(END) == len(vocabulary) - 1
    for piece in vocabulary:
        if not piece or (any(c not in BYTES for c in piece) and not (named and piece == END)):
            raise DataError(f"{where}: the piece {piece[:40]!r} is not spelled in bytes.")
    if missing := [c for c in BYTES if c not in vocabulary]:
        raise DataError(f"{where}: it lacks {len(missing)} of the 256 bytes.")
    for a, b in merges:
        if a not in vocabulary or b not in vocabulary or a + b not in vocabulary:
            raise DataError(f"{where}: the merge of {a[:40]!r} and {b[:40]!r} is not in the vocabulary.")
    return Pieces(vocabulary, merges, marks)


def _tokenizer(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> Any:
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return tokenizer


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra("Byte pair encoding", "text") from error
    return cast(Any, tokenizers)


_CUT = re.compile(r"(?<=\S\n)(?=\S)")


def cut(text: str) -> Iterable[str]:
    """Parts of a text of about ``PIECE`` characters, cut where no token can reach across.

    Between a line and the next one, neither of which has white space at the cut, GPT-2's pattern cuts as well. A text
    without such a place is cut anywhere, which can give other tokens there, of the same text.
    """
    start = 0
    while len(text) - start > PIECE:
        found = None
        for found in _CUT.finditer(text, start + PIECE // 2, start + PIECE):  # noqa: B007 - the last one is wanted
            pass
        end = found.start() if found else start + PIECE
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def name_characters(characters: Iterable[str]) -> str:
    """Characters for people, each once: as they are, and by number."""
    distinct = sorted({str(c) for c in characters})
    shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in distinct[:8])
    return shown + (f" and {len(distinct) - 8} more" if len(distinct) > 8 else "")


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"Character {error.start} of the text is half of a pair (a surrogate).") from error
