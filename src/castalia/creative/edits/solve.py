"""Programs written by a language model, and run: how many do what they should."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Page, Work, option

if TYPE_CHECKING:
    from castalia.creative.solving import Problem

SHOWN = 40
"""Answers that stand on the page."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which problems, how many answers, and how they are run."""

    of: str | None = option(
        None, "problems as those of HumanEval, one JSON object in a line (24 small ones)", metavar="FILE.jsonl"
    )
    n: int = option(1, "answers to each (1)", flag="-n", least=1)
    at: tuple[int, ...] = option((1,), "k of pass@k, at most n (1)", metavar="K")
    length: int | None = option(None, "tokens of an answer, at most (half of the context)", least=1)
    run_code: bool = option(False, "yes, run what the model writes, in processes with limits")
    seconds: int = option(5, "that a program has (5)", least=1)
    memory: int = option(512, "MiB that it has (512)", least=64)
    settings: tuple[str, ...] = option(
        ("temperature=0.2", "top_p=0.95"),
        "sampling options (temperature=0.2 top_p=0.95)",
        flag="--set",
        metavar="NAME=VALUE",
    )
    seed: int = option(0, "other answers")


def run(work: Work, options: Options) -> Page:
    """Ask for every problem's gap ``n`` times, run all programs, and say how many came to their end.

    Raises:
        UsageError: nobody has said that programs may be run, there is no such file, or a problem has a gap in the
            middle and the run has not learned such.
        DataError: a line is no problem, or its own solution fails.
    """
    from pathlib import Path

    from castalia.core.errors import DataError
    from castalia.creative.sandbox import all_tried
    from castalia.creative.solving import OWN, pass_at, read_problems
    from castalia.page import Page as Html

    if not options.run_code:
        raise UsageError("This runs programs that nobody has read, in processes with limits: say --run-code.")
    if not options.at or min(options.at) < 1 or max(options.at) > options.n:
        raise UsageError(f"--at is of 1 to {options.n}, the number of answers (-n).")
    path = Path(options.of) if options.of else OWN
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    problems = read_problems(path)
    length = options.length or max(work.spec.length // 2, 1)
    if length + 8 > work.spec.length:
        raise UsageError(f"Answers must fit into {work.spec.length} tokens, beside what they are asked with.")
    if any(problem.suffix for problem in problems) and not work.spec.middles:
        raise UsageError(
            "Some problems have gaps in the middle, and this run has not learned to fill such: train one with "
            "--set data.options.middle=0.5."
        )
    memory = options.memory << 20
    known = [problem for problem in problems if problem.solution]
    for problem, outcome in zip(
        known, all_tried([p.program(p.solution) for p in known], options.seconds, memory), strict=True
    ):
        if not outcome.passed:
            raise DataError(f"{problem.name}: its own solution fails: {outcome.why}.")
    answers = [
        [problem.cut(a) for a in row]
        for problem, row in zip(problems, _written(work, problems, length, options), strict=True)
    ]
    programs = [problem.program(a) for problem, row in zip(problems, answers, strict=True) for a in row]
    outcomes = all_tried(programs, options.seconds, memory)
    rows = [outcomes[i : i + options.n] for i in range(0, len(outcomes), options.n)]
    passed = [sum(outcome.passed for outcome in row) for row in rows]
    found = {k: pass_at(k, passed, options.n) for k in options.at}
    walls = sorted({wall for outcome in outcomes for wall in outcome.walls})
    html = Html(f"{work.title}: {len(problems)} problems, {options.n} answers each")
    html.text(
        f"Right is what passes the tests of its problem within {options.seconds} seconds. Walls around the programs: "
        f"{', '.join(walls) or 'none'}."
    )
    if cut := sum(_tokens(work, problem) > work.spec.length - length for problem in problems):
        html.text(f"Of {cut} problems the model saw the end only: they do not fit beside an answer of {length} tokens.")
    html.table(
        ["k", "pass@k", "standard error"],
        [[f"{k}", share, "unknown" if error is None else error] for k, (share, error) in found.items()],
    )
    some = [
        (p, a, o) for p, row, ends in zip(problems, answers, rows, strict=True) for a, o in zip(row, ends, strict=True)
    ]
    html.section(f"{min(SHOWN, len(some))} of {len(some)} answers")
    html.table(
        ["problem", "answer", "right", "what was wrong"],
        [[problem.name, answer, "yes" if end.passed else "", end.why] for problem, answer, end in some[:SHOWN]],
    )
    told = [
        {"problem": problem.name, "answer": answer, "passed": end.passed, "wrong": end.why}
        for problem, answer, end in some
    ]
    numbers = {f"pass@{k}": {"share": share, "error": error} for k, (share, error) in found.items()}
    return Page(
        html, {**numbers, "problems": len(problems), "cut": cut, "n": options.n, "walls": walls, "answers": told}
    )


def _written(work: Work, problems: list[Problem], length: int, options: Options) -> list[list[str]]:
    """What the model puts into each gap, ``n`` times; a gap that ends with the text is gone on with."""
    from castalia.creative.infilling import Gap, prompt_of, written

    n, sampling, prompts = options.n, work.sampling((*options.settings, f"length={length}")), []
    for problem in problems:
        gap = Gap(problem.prompt, "", problem.suffix)
        prompts += [prompt_of(work.spec, gap, "suffix first" if problem.suffix else "left to right", length)] * n
    found = written(work, prompts, sampling, options.seed)
    return [found[i : i + n] for i in range(0, len(found), n)]


def _tokens(work: Work, problem: Problem) -> int:
    """Of what stands around a gap."""
    from castalia.media.text.tokens import tokens_of

    return len(tokens_of(work.spec).encode(problem.prompt + problem.suffix))


EDIT = Edit(
    "solve",
    "Write programs for problems with tests, run them, and say how many are right.",
    "FILE.html, a page that needs nothing from elsewhere, and FILE.json with all numbers",
    Options,
    run,
    needs=("Streaming",),
    media=("text",),
)
