"""The bytes of tokens, for whoever has a spec and no tokenizer: models that stop at a text, rates per byte.

A vocabulary of pieces is an asset: JSON with ``pieces``, in token order and GPT-2's spelling of bytes, and ``merges``.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from castalia.core import assets
from castalia.core.assets import Asset
from castalia.core.errors import RunError
from castalia.core.specs.text import TextSpec


def pieces_of(spec: TextSpec) -> list[bytes]:
    """The bytes of every token; none for the last one, which ends a text, and for marks.

    Raises:
        RunError: the vocabulary that belongs to the run is missing or damaged.
    """
    rest = [b""] * (4 if spec.middles else 1)
    if spec.kind == "chars":
        return [*(c.encode("utf-8", "surrogatepass") for c in spec.alphabet), *rest]
    if spec.kind == "bytes":
        return [*(bytes([b]) for b in range(256)), *rest]
    try:
        return [bytes(BYTES[c] for c in piece) for piece in read_vocabulary(spec.vocabulary)["pieces"][:-1]] + rest
    except (KeyError, TypeError) as error:
        raise RunError(f"The vocabulary of a run is damaged: a piece is not spelled in bytes ({error}).") from error


def read_vocabulary(asset: Asset | None) -> dict[str, Any]:
    """What the asset holds.

    Raises:
        RunError: there is none, or it is damaged.
    """
    if asset is None:
        raise RunError("The shape of these texts names no vocabulary, which pieces of bytes need.")
    return _read(asset)


@lru_cache(maxsize=8)
def _read(asset: Asset) -> dict[str, Any]:
    try:
        data = json.loads(assets.read(asset))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{asset.name} is not a vocabulary ({str(error)[:200]}).") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("pieces", "merges")):
        raise RunError(f"{asset.name} is not a vocabulary: it lists no pieces or no merges.")
    return data


def _byte_spelling() -> dict[str, int]:
    """Printable bytes as themselves, the others as characters from U+0100 on, in order (openai/gpt-2, encoder.py)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {**{chr(b): b for b in printable}, **{chr(256 + i): b for i, b in enumerate(others)}}


BYTES = _byte_spelling()
"""GPT-2's spelling of bytes: the byte of each character."""
