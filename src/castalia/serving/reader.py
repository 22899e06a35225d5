"""A process that reads grammars and follows texts with them; ``grammars.py`` starts it and talks to it, line by line.

Whoever asks for a text writes its grammar, and there are short ones (intersections of expressions, above all) that keep
the library busy for ever in one step that nothing interrupts. A process can be ended, and its memory is bounded.

It runs alone, without the package: the first line that it is told are the bytes of all tokens, each further
one is a question.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

MEMORY = 2 << 30
"""Bytes of address space."""
STATES = 50_000
"""Of the lexer of one text, one or two kilobytes each."""
SETTINGS = '\n%llguidance {"no_forcing": true}\n'
"""Behind every grammar: all ways to spell a text with the tokens are open, not a tokenizer's own one only."""


class Words:
    """A vocabulary as the library asks for it."""

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens, self.eos_token_id = tokens, len(tokens) - 1
        self.bos_token_id, self.special_token_ids = None, ()

    def __call__(self, text: bytes) -> list[int]:
        """The tokens of a text, which nobody needs where no text is forced."""
        return []


class Reader:
    """Answers questions.

    Args:
        pieces: the bytes of every token; the last one is the end.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        import llguidance

        # the library takes what begins with this byte, which is in no text of UTF-8, for tokens of its own
        words = Words([b"" if piece.startswith(b"\xff") else piece for piece in pieces])
        self.matcher = llguidance.LLMatcher
        self.tokens = llguidance.LLTokenizer(llguidance.TokenizerWrapper(words), slices=[])
        self.limits = llguidance.LLParserLimits(max_lexer_states=STATES, verbose_errors=False)
        self.texts: dict[int, Any] = {}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What may come next in text ``number``, begun with ``grammar`` where there is one, after ``tokens`` more.

        Returns:
            ``wrong``: what is wrong with the grammar, empty: nothing; ``stuck``: nothing may come any more;
            ``mask``: a bit for each token, hexadecimal; ``end``: whether the text may end.
        """
        for gone in question["gone"]:
            self.texts.pop(gone, None)
        if "grammar" in question:
            grammar = self.matcher.grammar_from_lark(question["grammar"] + SETTINGS)
            begun = self.matcher(self.tokens, grammar, limits=self.limits, log_level=0)
            if begun.is_error():
                return {"wrong": sentence(begun.get_error())}
            self.texts[question["number"]] = begun
        text = self.texts[question["number"]]
        text.consume_tokens(question["tokens"])
        mask, end = text.compute_bitmask(), text.is_accepting()
        return {"wrong": "", "stuck": text.is_error(), "mask": mask.hex(), "end": end}


def sentence(words: str) -> str:
    """What the library says, without the grammar and without where in its own code it was."""
    if words.startswith("panic"):
        return "the library fails at it."
    lines = words.split("\n<")[0].splitlines()
    told = [line.strip() for line in lines if line.strip() and not line.lstrip("0123456789 ").startswith("|")]
    return " ".join(line for line in told if set(line) != {"^"})[:300]


def main() -> None:
    """Answer until nobody asks any more."""
    sys.path.append(sys.argv[1])
    with contextlib.suppress(ImportError, ValueError, OSError):  # not everywhere
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    reader = Reader([bytes.fromhex(piece) for piece in json.loads(sys.stdin.readline())])
    print(flush=True)
    for line in sys.stdin:
        print(json.dumps(reader.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
