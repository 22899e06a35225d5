"""Programs that a language model writes, judged by running tests.

Papers
    Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv:2107.03374): functions from their
    headers, and pass@k without bias (section 2.1, equation 1). Bavarian et al. 2022
    (arXiv:2207.14255): the same with something behind the gap (``suffix``).

Problems are JSON lines as those of HumanEval: ``prompt``, ``test`` (defines ``check(candidate)``), ``entry_point``;
``task_id``, ``canonical_solution`` and ``suffix`` may be there.
"""

from __future__ import annotations

import itertools
import keyword
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castalia.core.errors import DataError
from castalia.core.files import json_lines

OWN = Path(__file__).with_name("problems.jsonl")
"""Small problems that come with the package."""

LARGEST = 64 << 20
"""Bytes of a file of problems."""


@dataclass(frozen=True)
class Problem:
    """A program with a gap, and how it is told whether it does what it should.

    Attributes:
        name: what it is called.
        prompt: what stands before the gap.
        suffix: what stands behind it; empty: nothing.
        test: defines ``check(candidate)``.
        entry: name of what is checked.
        solution: what could stand in the gap; empty where nobody says so.
    """

    name: str
    prompt: str
    suffix: str
    test: str
    entry: str
    solution: str

    def program(self, answer: str) -> str:
        """The whole program, whose last line checks it."""
        return f"{self.prompt}{answer}{self.suffix}\n\n{self.test}\n\ncheck({self.entry})\n"

    def cut(self, answer: str) -> str:
        """The answer up to the next line that is not indented; with something behind the gap it ends by itself."""
        if self.suffix:
            return answer
        first, *rest = answer.split("\n")
        kept = itertools.takewhile(lambda line: not line.strip() or line[0] in " \t)]}", rest)
        return "\n".join([first, *kept])


def read_problems(path: Path) -> list[Problem]:
    """Problems from JSON lines.

    Raises:
        DataError: a line is none; the text names file and line.
    """
    return [_problem(data, where) for where, data in json_lines(path, LARGEST)]


def _problem(data: dict[str, Any], where: str) -> Problem:
    names = ("prompt", "test", "entry_point")
    for name in (*names, "suffix", "canonical_solution", "task_id"):
        if not isinstance(data.get(name, None if name in names else ""), str):
            raise DataError(f"{where}: expected a text {name!r}.")
    if not data["entry_point"].isidentifier() or keyword.iskeyword(data["entry_point"]):
        raise DataError(f"{where}: entry_point is the name of a function, not {data['entry_point'][:40]!r}.")
    return Problem(
        data.get("task_id", where),
        data["prompt"],
        data.get("suffix", ""),
        data["test"],
        data["entry_point"],
        data.get("canonical_solution", ""),
    )


def pass_at(k: int, passed: Sequence[int], n: int) -> tuple[float, float | None]:
    """The chance that one of ``k`` answers is right, from ``n`` answers to each problem, and its standard error.

    Of a single problem nobody knows the error: None.

    Args:
        k: at most ``n``.
        passed: how many of the answers to each problem were right.
        n: answers to each.
    """
    shares = [1 - math.comb(n - c, k) / math.comb(n, k) for c in passed]
    mean = sum(shares) / len(shares)
    if len(shares) == 1:
        return mean, None
    spread = sum((share - mean) ** 2 for share in shares) / (len(shares) - 1)
    return mean, math.sqrt(spread / len(shares))
