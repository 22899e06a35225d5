"""Sequences and alignments: FASTA, A3M and Stockholm, read and checked line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from castalia.core.errors import DataError
from castalia.core.specs.protein import GAP, LETTERS, MOST_DELETED, STATES, UNKNOWN

FASTA = frozenset({".fasta", ".fa", ".faa"})
ALIGNED = frozenset({".a3m", ".sto", ".stockholm"})
LARGEST = 256 << 20
MOST_ROWS = 1 << 17

_CODES = frozenset("ABCDEFGHIKLMNOPQRSTUVWXYZJ")
"""The twenty, what stands for one of several (B, J, X, Z), and the two rare ones (O, U); those count as unknown."""
_VALUE = {**dict.fromkeys(_CODES, UNKNOWN), **{letter: i for i, letter in enumerate(LETTERS[:20])}, "-": GAP, ".": GAP}


def decode(data: bytes, name: str) -> str:
    """The text of a file.

    Raises:
        DataError: it is none.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not a text file (byte {error.start} is not UTF-8).") from error
    if "\0" in text:
        raise DataError(f"{name}: not a text file: it holds null bytes.")
    return text


def records(text: str, name: str) -> list[tuple[str, str, int]]:
    """The entries of a FASTA or A3M file: title, letters without blanks, number of the line of the title.

    Raises:
        DataError: it does not begin with ``>``, or an entry is empty.
    """
    found: list[tuple[str, list[str], int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith((";", "#")):
            continue
        if line.startswith(">"):
            found.append((line[1:].strip(), [], number))
        elif not found:
            raise DataError(f"{name}, line {number}: a sequence has a line before it that begins with '>'.")
        else:
            found[-1][1].append(line.replace(" ", ""))
    if not found:
        raise DataError(f"{name}: holds no sequence.")
    for title, parts, number in found:
        if not any(parts):
            raise DataError(f"{name}, line {number}: the entry {title[:60]!a} has no sequence.")
    return [(title, "".join(parts), number) for title, parts, number in found]


def residues_of(letters: str, where: str) -> np.ndarray:
    """The numbers of one-letter codes, ``int64``; rare and ambiguous ones are unknown; a ``*`` at the end is dropped.

    Raises:
        DataError: something else stands among them; ``where`` names the place.
    """
    letters = letters.upper().removesuffix("*")
    wrong = next((letter for letter in letters if letter not in _CODES), None)
    if wrong is not None:
        raise DataError(f"{where}: {wrong!a} is not the one-letter code of an amino acid.")
    if not letters:
        raise DataError(f"{where}: there is no residue.")
    return np.array([_VALUE[letter] for letter in letters], np.int64)


def read_fasta(data: bytes, name: str) -> list[tuple[str, np.ndarray]]:
    """Titles and residues of a FASTA file; gaps are left out.

    Raises:
        DataError: it is none; the text names the line.
    """
    return [
        (title, residues_of(letters.replace("-", "").replace(".", ""), f"{name}, line {number}"))
        for title, letters, number in records(decode(data, name), name)
    ]


def read_alignment(data: bytes, name: str, most: int) -> np.ndarray:
    """An alignment to its first sequence, ``int64`` (S, L): cells as in ``core/specs/protein.py``.

    Of A3M, small letters are residues that the first sequence lacks: they are counted as deletions before the next
    cell. Of FASTA and Stockholm, so are those in columns where the first sequence has a gap.

    Args:
        data: the file.
        name: what to call it in errors; its ending tells the format.
        most: rows that are kept, the first ones.

    Raises:
        DataError: rows of different lengths, letters that are none, no row at all.
    """
    text = decode(data, name)
    rows = (_stockholm if text.lstrip().startswith("# STOCKHOLM") else records)(text, name)
    if len(rows) > MOST_ROWS:
        raise DataError(f"{name}: {len(rows):,} rows, more than {MOST_ROWS:,}; filter the alignment first.")
    first = rows[0][1]
    small = any(re.search("[a-z]", letters) for _, letters, _ in rows[: most or None])
    if not small and re.search("[-.]", first):  # columns in which the first has a gap: insertions of the others
        inside = [letter not in "-." for letter in first]
        rows = [(title, _insertions(letters, inside, f"{name}, line {at}"), at) for title, letters, at in rows[:most]]
    return np.stack([_row(letters, f"{name}, line {at}", at, rows[0]) for _, letters, at in rows[:most]])


def _insertions(letters: str, inside: Sequence[bool], where: str) -> str:
    if len(letters) != len(inside):
        raise DataError(f"{where}: {len(letters)} columns where the first row has {len(inside)}.")
    return "".join(
        letter if keep else ("" if letter in "-." else letter.lower())
        for letter, keep in zip(letters.upper(), inside, strict=True)
    )


def _row(letters: str, where: str, at: int, first: tuple[str, str, int]) -> np.ndarray:
    cells, waiting = [], 0
    for letter in letters:
        if letter == "." or letter == "*":
            continue  # A3M's padding of insertions
        if letter.islower():
            waiting += 1
            continue
        if letter not in _VALUE:
            raise DataError(f"{where}: {letter!a} is not the one-letter code of an amino acid, or a gap.")
        cells.append(_VALUE[letter] + STATES * min(waiting, MOST_DELETED))
        waiting = 0
    width = sum(not letter.islower() and letter not in ".*" for letter in first[1])
    if len(cells) != width or not cells:
        raise DataError(f"{where}: {len(cells)} columns where the first row has {width}.")
    if at == first[2] and GAP in (np.array(cells) % STATES):
        raise DataError(f"{where}: the first row is the sequence itself, and must have no gaps.")
    return np.array(cells, np.int64)


def _stockholm(text: str, name: str) -> list[tuple[str, str, int]]:
    parts: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("//"):
            break
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 2:
            raise DataError(f"{name}, line {number}: a row has a name and letters, not {len(words)} words.")
        parts.setdefault(words[0], []).append(words[1].replace(".", "-"))
        first.setdefault(words[0], number)
    if not parts:
        raise DataError(f"{name}: holds no rows.")
    return [(title, "".join(letters).upper(), first[title]) for title, letters in parts.items()]
