"""What the tests of language models need."""

from __future__ import annotations

import torch

from castalia.core.config import Config
from castalia.core.model import Generator, Model, build
from castalia.core.rng import SampleRng
from castalia.core.specs.text import TextSpec

LETTERS = "abcdefghij"


def letters(length: int = 8) -> TextSpec:
    """Ten letters and the end."""
    return TextSpec("chars", len(LETTERS) + 1, length, alphabet=LETTERS)


def made(cls: type[Model], config: Config, spec: TextSpec | None = None, seed: int = 0) -> Generator:
    """A model in evaluation mode."""
    model = build(cls, config, spec or letters(), seed)
    assert isinstance(model, Generator)
    return model.eval()


def prompts(*texts: str) -> dict[str, torch.Tensor]:
    """Prompts of different lengths."""
    longest = max(map(len, texts))
    rows = [[LETTERS.index(c) for c in text] + [-1] * (longest - len(text)) for text in texts]
    return {"prompt": torch.tensor(rows, dtype=torch.int64).reshape(len(texts), longest)}


def streams(n: int, seed: int = 3) -> SampleRng:
    """One stream per text."""
    return SampleRng(seed, range(n))


def rows(x: torch.Tensor) -> list[list[int]]:
    """Texts without their padding, which may only stand behind them."""
    found = []
    for row in x.tolist():
        size = sum(token >= 0 for token in row)
        assert all(token == -1 for token in row[size:])
        found.append(row[:size])
    return found
