"""Lines that are missing in texts, put back by a language model that learned to fill gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Page, Work, option

if TYPE_CHECKING:
    from castalia.creative.infilling import Form, Gap

SHOWN = 20
"""Lines that stand on the page."""
AROUND = 200
"""Characters around a gap that are shown."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which lines, and how long answers may be."""

    of: str | None = option(None, "texts whose lines are taken out (the run's held-out part)", metavar="SOURCE")
    n: int = option(200, "lines (200)", flag="-n", least=1)
    length: int | None = option(None, "tokens of an answer, at most (a third of the context)", least=1)
    seed: int = option(0, "other lines")


def run(work: Work, options: Options) -> Page:
    """Take lines out, ask for them in every form, and say on a page how many came back as they were.

    Raises:
        UsageError: the run has not learned to fill gaps, or there are hardly any lines.
    """
    from castalia.creative.infilling import FORMS, gaps_of
    from castalia.media.text.packed import PackedText
    from castalia.page import Page as Html

    data = work.held_out(options.of)
    if not work.spec.middles:
        raise UsageError("This run has not learned to fill gaps: train one with --set data.options.middle=0.5.")
    length = options.length or max(work.spec.length // 3, 1)
    if not isinstance(data, PackedText) or length + 8 > work.spec.length:
        raise UsageError(f"Lines are taken out of texts, and answers must fit into {work.spec.length} tokens.")
    gaps = gaps_of(data, options.n, options.seed)
    answers = {form: _written(work, gaps, form, length, options.seed) for form in FORMS}
    bits = {form: _bits(work, gaps, form, length) for form in FORMS}
    right = {form: [gap.right(a) for gap, a in zip(gaps, answers[form], strict=True)] for form in FORMS}
    shares = {form: sum(marks) / len(gaps) for form, marks in right.items()}
    html = Html(f"{work.title}: {len(gaps)} lines of {data.name} taken out and put back")
    html.text(
        "Most likely token after most likely token, up to the end of the line; right is what is the same but for white "
        "space around it. Left to right sees what stands before the gap only, and more of that. Bits are what the "
        "lines themselves cost, without their ends."
    )
    errors = {form: (share * (1 - share) / len(gaps)) ** 0.5 for form, share in shares.items()}
    html.table(
        ["form", "right", "standard error", "bits per byte of the lines"],
        [[form, shares[form], errors[form], bits[form]] for form in FORMS],
    )
    html.section(f"The first {min(SHOWN, len(gaps))}")
    html.table(
        ["before", "the line", "behind", *FORMS],
        [
            [gap.before[-AROUND:], gap.line, gap.behind[:AROUND], *(answers[form][i] for form in FORMS)]
            for i, gap in enumerate(gaps[:SHOWN])
        ],
    )
    told = [
        {"line": gap.line, **{form: answers[form][i] for form in FORMS}, "right": [f for f in FORMS if right[f][i]]}
        for i, gap in enumerate(gaps)
    ]
    exact = {
        form.replace(" ", "_"): {"exact": shares[form], "error": errors[form], "bits_per_byte": bits[form]}
        for form in FORMS
    }
    return Page(html, {**exact, "n": len(gaps), "lines": told})


def _bits(work: Work, gaps: list[Gap], form: Form, length: int) -> float:
    """Bits per byte of the lines, given what the model is asked with; of long lines the first ``length`` tokens."""
    import math

    import torch

    from castalia.core.data import Batch
    from castalia.creative.infilling import prompt_of, together
    from castalia.media.text.tokens import tokens_of

    tokens, nats, size = tokens_of(work.spec), 0.0, 0
    for start in range(0, len(gaps), work.at_once):
        some = gaps[start : start + work.at_once]
        prompts = [prompt_of(work.spec, gap, form, length) for gap in some]
        lines = [torch.from_numpy(tokens.encode(gap.line))[:length] for gap in some]
        whole = [torch.cat(pair) for pair in zip(prompts, lines, strict=True)]
        rng = work.rng(0, range(len(some)))
        both = (work.model.log_likelihood(Batch.of(together(rows)), rng=rng).nats for rows in (prompts, whole))
        before, after = both
        nats += float((before - after).sum())
        size += sum(int(tokens.lengths[line.numpy()].sum()) for line in lines)
    return nats / size / math.log(2)


def _written(work: Work, gaps: list[Gap], form: Form, length: int, seed: int) -> list[str]:
    """The line that the model writes for each gap."""
    from castalia.creative.infilling import prompt_of, written

    sampling = work.sampling(("temperature=0", f"length={length}", "stop=\n"))
    prompts = [prompt_of(work.spec, gap, form, length) for gap in gaps]
    return [text.split("\n")[0] for text in written(work, prompts, sampling, seed)]


EDIT = Edit(
    "infill",
    "Take lines out of texts, and say how many are put back as they were.",
    "FILE.html, a page that needs nothing from elsewhere, and FILE.json with all numbers",
    Options,
    run,
    needs=("Density", "Streaming"),
    media=("text",),
)
