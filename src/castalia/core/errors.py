"""Errors that people read.

Every error that a user can cause derives from :class:`CastaliaError`; the command line prints its text
without a stack trace and exits with ``exit_code``. A good text names the file or the option, says what was
found, and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 3000
"""Characters of an error's text."""


HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Characters that a terminal or a page does not show, but obeys."""


def shown(text: str) -> str:
    """A text as a terminal or a page may show it: what steers a terminal, or turns writing round, is escaped.

    Names come from strangers: members of archives, columns, keys, sources of data. Everything that quotes them passes
    here.
    """
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class CastaliaError(Exception):
    """A failure whose text is meant for a person (exit code 1)."""

    exit_code = 1

    def __str__(self) -> str:
        """The text; where it quotes something endless from a file, without its middle."""
        text = shown(super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 600]} [...] {text[-500:]}"


class UsageError(CastaliaError):
    """The request itself is wrong: an unknown name, a bad value, a missing option (exit code 2)."""

    exit_code = 2


class UnbuildableError(UsageError, ValueError):
    """Options of a model that do not fit each other, or the data: what its constructor raised as a ``ValueError``."""


class DataError(CastaliaError):
    """A data file or folder cannot be used; the text names it."""


class RunError(CastaliaError):
    """A run folder is missing, damaged, or not what was asked for."""


class MissingExtra(CastaliaError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency; install it with: pip install 'castalia[{extra}]'")


class NonFiniteError(CastaliaError):
    """Training was stopped because loss or gradients stayed non-finite."""


class Interrupted(CastaliaError):
    """A signal asked the process to end; the run was saved first."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def near(name: str, known: Iterable[str]) -> str:
    """Return a sentence that helps somebody who mistyped ``name``.

    Args:
        name: what was asked for.
        known: what there is.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(repr(c) for c in close)}?"
    return "There is: " + (", ".join(names) if names else "nothing yet") + "."
