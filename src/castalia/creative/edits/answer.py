"""Questions answered by a language model, with examples in the prompt instead of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Page, Work, option

if TYPE_CHECKING:
    from castalia.creative.fewshot import Asked, Question

SHOWN = 20
"""Questions that stand on the page."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which questions, with how many examples, and how answers are chosen."""

    of: str = option(
        help="questions, one JSON object in a line: context with choices and answer (from 0), or with target",
        metavar="FILE.jsonl",
    )
    shots: int = option(5, "examples in the prompt (5)", least=0)
    examples: str | None = option(None, "more questions, to take the examples from (the others)", metavar="FILE.jsonl")
    score: Literal["mean", "sum", "ratio"] = option(
        "mean", "of choices: log-probability per token, of all tokens, or against that without the question (mean)"
    )
    alone: str = option("Answer:", "ratio: what stands before an answer without the question (Answer:)", metavar="TEXT")
    between: str = option("\n\n", "what stands between examples (an empty line)", metavar="TEXT")
    length: int = option(32, "tokens that an answer may have that is written (32)", least=1)
    n: int | None = option(None, "the first so many questions only", flag="-n", least=1)
    seed: int = option(0, "other examples")


def run(work: Work, options: Options) -> Page:
    """Ask every question, and say on a page how many were answered right.

    Raises:
        UsageError: there is no such file.
        DataError: a line is no question.
    """
    from pathlib import Path

    from castalia.creative.fewshot import Asked, Marks, demonstrations, prompt_of, read_questions
    from castalia.page import Page as Html

    for path in filter(None, (options.of, options.examples)):
        if not Path(path).is_file():
            raise UsageError(f"There is no file {path}.")
    questions = read_questions(Path(options.of))[: options.n]
    pool = read_questions(Path(options.examples)) if options.examples else questions
    asked = Asked(work.model, work.spec, work.model.device)
    told: list[dict[str, object]] = []
    for number, question in enumerate(questions):
        answers = question.choices or ("x" * options.length,)
        longest = max(asked.length(f" {answer}") for answer in answers) if question.choices else options.length
        shown = demonstrations(pool, question, options.shots, options.seed, number)
        prompt = prompt_of(question, shown, options.between, asked.fits(longest))
        if question.choices:
            chosen, scores = asked.choose(prompt, question.choices, options.score, options.alone)
            said, right = question.choices[chosen], chosen == question.answer
        else:
            said, scores = _written(work, asked, prompt, options), None
            right = said == question.target
        told.append({"prompt": prompt, "said": said, "right": right, "target": question.target, "scores": scores})
    chance = sum(1 / len(q.choices) if q.choices else 0.0 for q in questions) / len(questions)
    marks = Marks(sum(bool(one["right"]) for one in told), len(told), chance)
    html = Html(f"{work.title}: {len(told)} questions with {options.shots} examples each")
    html.table(
        ["right", "standard error", "guessing", "above guessing", "questions"],
        [[marks.share, marks.error, marks.chance, marks.centred, marks.n]],
    )
    html.section(f"The first {min(SHOWN, len(told))}")
    html.table(
        ["question", "said", "right answer"], [_row(*pair) for pair in zip(questions[:SHOWN], told, strict=False)]
    )
    numbers = {"accuracy": marks.share, "error": marks.error, "chance": marks.chance, "centred": marks.centred}
    return Page(html, {**numbers, "n": marks.n, "answers": told})


def _row(question: Question, one: dict[str, object]) -> list[str]:
    return [question.context, str(one["said"]), question.target]


def _written(work: Work, asked: Asked, prompt: str, options: Options) -> str:
    """The line that the model writes behind a prompt, most likely token after most likely token."""
    import torch

    tokens = torch.from_numpy(asked.tokens.encode(prompt))[None]
    sampling = work.sampling(("temperature=0", f"length={options.length}", "stop=\n"))
    whole = work.model.sample(1, {"prompt": tokens}, rng=work.rng(options.seed, range(1)), options=sampling)
    return asked.tokens.decode(whole.x[0, tokens.shape[1] :].cpu().numpy(), "\n").split("\n")[0].strip()


EDIT = Edit(
    "answer",
    "Answer questions with examples in the prompt, and say how many were right.",
    "FILE.html, a page that needs nothing from elsewhere, and FILE.json with all numbers",
    Options,
    run,
    needs=("Density", "Streaming"),
    media=("text",),
)
