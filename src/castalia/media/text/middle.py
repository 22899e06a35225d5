"""Gaps in texts: how a model that writes from left to right learns to fill them, and how it is asked to.

Papers
    Bavarian et al. 2022 (arXiv:2207.14255), "Efficient Training of Language Models to Fill in the Middle": a text is
    cut at two characters anywhere, and its middle is moved to the end. With the marks P, S, M and the end E

    PSM:  P before S behind M middle E          SPM:  P S behind M before middle E

What differs, and why
    A text that goes on beyond its window is cut so short that marks and end fit. So every middle is followed by the
    end, in whatever window it stands, and the model learns where a gap is full.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from castalia.core.errors import UsageError
from castalia.core.rng import Rng
from castalia.core.specs.text import TextSpec
from castalia.media.text.tokens import Tokens, tokens_of

TEXTS = 8
"""Texts of a window that may be rearranged; those behind them are left."""
LEAST = 4
"""Tokens that a text must have in its window."""

Cut = tuple[list[int], list[int], list[int]]
"""What stands before a gap, in it, and behind it."""


class Gaps:
    """Rearranges windows of training.

    Args:
        spec: their shape, with marks.
        share: of the texts, how many are rearranged.
        suffix_first: of these, how many are SPM.
    """

    def __init__(self, spec: TextSpec, share: float, suffix_first: float) -> None:
        self.spec, self.share, self.suffix_first = spec, share, suffix_first
        self.tokens = tokens_of(spec)

    def rearranged(self, x: np.ndarray, rng: Rng) -> np.ndarray:
        """Windows ``int64`` (B, T), padded with -1, with gaps in some of their texts."""
        draws = rng.uniform("middle", TEXTS, 4).cpu().double().numpy()
        out = np.full_like(x, -1)
        for row, (tokens, numbers) in enumerate(zip(x, draws, strict=True)):
            made = self._window(tokens[tokens >= 0].tolist(), numbers)[: x.shape[1]]
            out[row, : len(made)] = made
        return out

    def _window(self, tokens: list[int], draws: np.ndarray) -> list[int]:
        end, out, number, at = self.spec.end, list[int](), 0, 0
        while at < len(tokens):
            stop = tokens.index(end, at) if end in tokens[at:] else len(tokens)
            text, rest = tokens[at:stop], tokens[stop : stop + 1]
            at = stop + 1
            if text and number < TEXTS:
                if draws[number, 0] < self.share:
                    found = self._gap(text, draws[number, 1:], len(tokens) - len(out))
                    text, rest = (text, rest) if found is None else (found, [end])
                number += 1
            out += text + rest
        return out

    def _gap(self, text: list[int], draws: np.ndarray, room: int) -> list[int] | None:
        """A text with a gap, and without its end, in at most ``room`` - 1 tokens; None where it does not fit."""
        text = text[: room - 4]
        if len(text) < LEAST:
            return None
        found = cut(self.spec, self.tokens, text, draws[0], draws[1])
        if found is None:
            return None
        before, middle, behind = found
        if (more := len(before) + len(middle) + len(behind) - (room - 4)) > 0:  # pieces that were cut are more pieces
            if more >= len(behind):
                return None
            behind = behind[:-more]
        p, s, m = self.spec.marks
        if draws[2] < self.suffix_first:
            return [p, s, *behind, m, *before, *middle]
        return [p, *before, s, *behind, m, *middle]


def cut(spec: TextSpec, tokens: Tokens, text: list[int], first: float, second: float) -> Cut | None:
    """Cut a text at two characters, told by numbers in [0, 1); None where it begins or ends within a character."""
    low, high = sorted((first, second))
    if spec.kind == "chars":
        places = list(range(len(text) + 1))
    elif spec.kind == "bytes":
        places = [i for i, byte in enumerate(text) if not 0x80 <= byte < 0xC0] + [len(text)]
    else:
        whole = tokens.decode(text)
        if "\ufffd" in whole:
            return None
        a, b = (int(number * (len(whole) + 1)) for number in (low, high))
        before, middle, behind = (tokens.encode(part).tolist() for part in (whole[:a], whole[a:b], whole[b:]))
        return before, middle, behind
    a, b = (places[int(number * len(places))] for number in (low, high))
    return text[:a], text[a:b], text[b:]


def asked(spec: TextSpec, before: str, behind: str, room: int, suffix_first: bool = False) -> list[int]:
    """A prompt that asks for what belongs between two texts.

    Of long ones that is taken what lies nearest to the gap: up to two thirds of the room before it, the rest behind it.

    Args:
        spec: of a run that knows gaps.
        before: what stands before the gap.
        behind: what stands behind it.
        room: tokens that the prompt may have.
        suffix_first: ask in the form SPM.

    Raises:
        UsageError: the run knows no gaps, or there is no room.
    """
    if not spec.middles:
        raise UsageError("This model has not learned to fill gaps: train it with --set data.options.middle=0.5.")
    if (room := room - 3) < 1:
        raise UsageError("There is no room left for what stands around the gap: ask for fewer tokens.")
    encode: Callable[[str], list[int]] = lambda text: tokens_of(spec).encode(text).tolist()  # noqa: E731
    first, last = encode(before), encode(behind)
    if len(first) + len(last) > room:
        share = min(len(first), max(room * 2 // 3, room - len(last)))
        first, last = first[len(first) - share :], last[: room - share]
    p, s, m = spec.marks
    return [p, s, *last, m, *first] if suffix_first else [p, *first, s, *last, m]
