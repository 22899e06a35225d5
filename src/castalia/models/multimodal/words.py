"""Captions as tokens: frequent words of the data as pieces of their own, everything else byte by byte.

Papers of this family use 49,408 or 16,384 pieces of byte-pair encodings. Captions of one's own data have a few hundred
different words; with those as pieces a caption is a dozen tokens long, and with bytes for the rest nothing is lost.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from castalia.core.captions import CAPTION, texts_of
from castalia.core.data import Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.spec import Spec
from castalia.core.specs.text import TextSpec

END, START = 256, 257
FIRST_WORD = 258
FIT_EXAMPLES = 50_000
"""At most so many captions are read to find the words."""

_PIECE = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class WordsConfig:
    """How captions become tokens.

    Attributes:
        length: tokens of a caption, the start and the end among them; longer ones are cut.
        most: words that become pieces, at most.
        words: those words; found in the data where none are given.
    """

    length: int = 24
    most: int = 2_000
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.length <= 4_096 or not 0 <= self.most <= 100_000:
            raise ValueError("length lies between 2 and 4,096, most between 0 and 100,000")

    @property
    def size(self) -> int:
        """Different tokens: the bytes, end and start, the words."""
        return FIRST_WORD + len(self.words)


def captioned(spec: Spec) -> TextSpec:
    """The shape of the captions of such examples.

    Raises:
        UsageError: they have none.
    """
    found = dict(spec.columns).get(CAPTION)
    if not isinstance(found, TextSpec) or found.kind != "bytes":
        raise UsageError(
            "This system learns from pictures with captions, and the data have none that are read. Give data with "
            "captions (a folder with metadata.jsonl or metadata.csv, or .txt beside each picture) and keep them with "
            "--set data.options.captions=100; built in: --data scenes."
        )
    return found


def found_words(config: WordsConfig, data: Dataset) -> WordsConfig:
    """The configuration with the frequent words of the data, where it has none."""
    if config.words or not config.most:
        return config
    captioned(data.spec)
    counts: Counter[str] = Counter()
    ids = some_of(data, FIT_EXAMPLES)
    for some in np.array_split(ids, max(1, len(ids) // 1_000)):
        for text in texts_of(data.batch(some).extra[CAPTION]):
            counts.update(pieces(text))
    # a word that occurs once teaches nothing; equally frequent ones in the order of the alphabet
    kept = [w for w, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n > 1 and len(w) > 1]
    return WordsConfig(config.length, config.most, tuple(kept[: config.most]))


def pieces(text: str) -> list[str]:
    """Words and punctuation of a text, in small letters."""
    return _PIECE.findall(text.lower())


class Words:
    """Between captions and tokens."""

    def __init__(self, config: WordsConfig) -> None:
        self.config = config
        self.numbers = {word: FIRST_WORD + i for i, word in enumerate(config.words)}

    def tokens(self, captions: Tensor) -> Tensor:
        """Tokens ``int64`` (N, length): the start, the caption, ends to fill up; from bytes ``int64`` (N, T)."""
        length = self.config.length
        out = torch.full((len(captions), length), END, dtype=torch.int64)
        for row, text in zip(out, texts_of(captions), strict=True):
            found = [START]
            for piece in pieces(text):
                number = self.numbers.get(piece)
                found += list(piece.encode()) if number is None else [number]
            row[: min(len(found), length - 1)] = torch.tensor(found[: length - 1])
        return out.to(captions.device)

    def text(self, tokens: Tensor) -> str:
        """The caption of tokens ``int64`` (length,): words with spaces between, up to the first end."""
        out: list[str] = []
        raw = bytearray()
        for token in tokens.tolist():
            if token == END:
                break
            if token < END:
                raw.append(token)
                continue
            if raw:
                out.append(raw.decode("utf-8", "replace"))
                raw = bytearray()
            if FIRST_WORD <= token < self.config.size:
                out.append(self.config.words[token - FIRST_WORD])
        if raw:
            out.append(raw.decode("utf-8", "replace"))
        return " ".join(out)

    def nothing(self, n: int, device: torch.device) -> Tensor:
        """Tokens of an empty caption."""
        out = torch.full((n, self.config.length), END, dtype=torch.int64, device=device)
        out[:, 0] = START
        return out


def ends(tokens: Tensor) -> Tensor:
    """Place of the first end of each row ``int64`` (N,)."""
    return (tokens == END).int().argmax(1)
