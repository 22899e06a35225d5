"""Texts of a grammar, and JSON under a schema, whatever the model thinks of them.

The library ``llguidance`` reads the grammar, follows the text with an Earley parser over bytes, and says which tokens
may come next, so that tokens of several bytes and half characters are no matter. Grammars are written as for Lark, with
the library's own additions, of which ``%json {...}`` is one: a JSON schema in place of a rule. The library runs in a
process of its own (``reader.py``), which is ended where it takes too long.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from castalia.core.errors import CastaliaError, MissingExtra, UsageError
from castalia.serving import reader

LONGEST = 50_000
"""Characters of a grammar."""
SECONDS = 2.0
"""On the clock: a grammar that is not read by then is refused, and a step that takes longer ends the text."""
STARTING = 60.0
"""Seconds until the process must be there."""
SPACE = " "
"""White space that may stand between two parts of a JSON text: with more of it weak models fill lines with nothing."""


def of_schema(schema: Mapping[str, Any] | bool) -> str:
    """The grammar of the JSON texts that a schema admits, keys in its order.

    Args:
        schema: JSON schema, without ``$ref`` to other places. Keywords that the library does not know are refused with
            the grammar, not passed over.
    """
    if isinstance(schema, Mapping):
        schema = {"x-guidance": {"whitespace_pattern": SPACE}, **schema}
    return "start: %json " + json.dumps(schema)


class Grammar:
    """What a text has to be, and how far it has come.

    Attributes:
        stuck: whether the text ends because nothing that the grammar allows can be spelled with the tokens there are,
            or because that took too long to find.

    Raises:
        UsageError: it is no grammar, takes too long to read, or nothing can be written under it.
    """

    def __init__(self, text: str, over: Grammars) -> None:
        self._text, self._over, self._tokens = text, over, list[int]()
        self._told = 0  # tokens that the process knows of
        self._process: subprocess.Popen[str] | None = None  # that knows this text
        self._allowed: Tensor | None = None
        self.stuck = False
        self._number = next(over.numbers)
        weakref.finalize(self, over.gone.append, self._number)
        try:
            self._allowed = self._find()
        except TimeoutError:
            raise UsageError(f"The grammar cannot be used: it takes more than {SECONDS:g} seconds to read.") from None
        if self.stuck:
            raise UsageError("No text can be written under this grammar with the tokens of this model.")

    def add(self, token: int) -> None:
        """Take note of a token."""
        self._tokens.append(token)
        self._allowed = None

    def allowed(self) -> Tensor:
        """Which tokens may come next, bool (size,); at least one."""
        if self._allowed is None:
            try:
                self._allowed = self._find()
            except (TimeoutError, UsageError):
                self._allowed = self._only_the_end()
        return self._allowed

    def _find(self) -> Tensor:
        over = self._over
        if self.stuck:
            return self._only_the_end()
        question: dict[str, Any] = {"number": self._number}
        if self._process is None or self._process is not over.process:  # another text has made an end of it
            self._told, question["grammar"] = 0, self._text
        question["tokens"] = self._tokens[self._told :]
        answer = over.ask(question)
        if answer["wrong"]:
            raise UsageError(f"The grammar cannot be used: {answer['wrong']}")
        self._process, self._told = over.process, len(self._tokens)
        mask = np.frombuffer(bytes.fromhex(answer["mask"]), np.uint8)
        found = np.unpackbits(mask, bitorder="little")[: over.size].astype(bool) & over.spelled
        found[over.end] = answer["end"]
        if answer["stuck"] or not found.any():
            return self._only_the_end()
        return torch.from_numpy(found).to(over.device)

    def _only_the_end(self) -> Tensor:
        self.stuck = True
        found = torch.zeros(self._over.size, dtype=torch.bool, device=self._over.device)
        found[self._over.end] = True
        return found


class Grammars:
    """Grammars over one vocabulary, and the process that reads them.

    Args:
        pieces: the bytes of every token; the last one is the end.
        device: where logits are.

    Attributes:
        process: that is running.
        numbers: of texts.
        gone: numbers of texts that nobody follows any more.

    Raises:
        MissingExtra: ``llguidance`` is not installed.
    """

    def __init__(self, pieces: Sequence[bytes], device: torch.device) -> None:
        found = importlib.util.find_spec("llguidance")
        if found is None or found.origin is None:
            raise MissingExtra("A grammar for texts", "serve")
        self._at, self._pieces, self.device = str(Path(found.origin).parent.parent), list(pieces), device
        self.size, self.end = len(pieces), len(pieces) - 1
        self.spelled = np.array([bool(piece) for piece in pieces])
        self.process: subprocess.Popen[str] | None = None
        self.numbers, self.gone = itertools.count(), list[int]()
        self._end = lambda: None

    def of(self, text: str) -> Grammar:
        """A grammar, at its beginning.

        Raises:
            UsageError: it is none, too long, too large, or nothing can be written under it.
        """
        if len(text) > LONGEST:
            raise UsageError(f"The grammar has {len(text):,} characters, and may have {LONGEST:,}.")
        return Grammar(text, self)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The process's answer.

        Raises:
            TimeoutError: it did not come in time, or it took too much memory; the process is ended.
            CastaliaError: the process does not begin.
        """
        gone, self.gone[:] = list(self.gone), []
        if self.process is None:
            self._start()
        try:
            return json.loads(self._say({**question, "gone": gone}, SECONDS))
        except ValueError:
            self._end()
            self.process = None
            raise TimeoutError from None

    def _start(self) -> None:
        command = [sys.executable, "-I", reader.__file__, self._at]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
        self._end = weakref.finalize(self, _stop, self.process)
        if not self._say([piece.hex() for piece in self._pieces], STARTING):
            self._end()
            self.process = None
            raise CastaliaError("The process that reads grammars does not begin.")

    def _say(self, what: Any, seconds: float) -> str:
        """A line, and the line that answers it; empty: the process has ended, by itself or because time was over."""
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        clock = threading.Timer(seconds, process.kill)
        clock.start()
        try:
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            return process.stdout.readline()
        except OSError:
            return ""
        finally:
            clock.cancel()


def _stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
