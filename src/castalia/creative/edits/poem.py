"""Poems with a form: syllables, rhyme and metre as conditions on what a language model writes.

Each line is drawn from the model again and again, given the lines before it, until one holds to the form: rejection
sampling, so a line is a draw from what the model itself would write there, under the condition that it fits. Where none
of ``tries`` draws fits, the one with the fewest faults stands, and the page says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Page, Work, option

if TYPE_CHECKING:
    from castalia.creative.verse import Ear, Form


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which form, and how hard to try."""

    form: str = option("haiku", "haiku, couplet, quatrain, limerick, sonnet, blank, or syllables as in 5,7,5 (haiku)")
    rhymes: str | None = option(None, "a letter for each line, as in ABAB; - for none (the form's own)")
    metre: str | None = option(None, "stresses that repeat, as in 01 for iambic; needs --sounds (the form's own)")
    opening: str = option("", "lines that stand before the poem: a title, a beginning to go on from")
    sounds: str | None = option(
        None, "a pronouncing dictionary (CMU's format); else words go by spelling", metavar="FILE"
    )
    n: int = option(4, "poems (4)", flag="-n", least=1)
    tries: int = option(256, "draws of a line, at most (256)", least=1)
    length: int = option(90, "tokens of a line, at most (90)", least=4)
    temperature: float = option(1.0, "of drawing (1)")
    seed: int = option(0, "other poems")


def run(work: Work, options: Options) -> Page:
    """Write poems line by line, and beside them as many lines without conditions, to say what the form changed.

    Raises:
        UsageError: the form makes no sense, or metre is asked for and nothing knows stress.
    """
    from castalia.creative.verse import Ear, Form, dictionary
    from castalia.page import Page as Html

    form = Form.of(options.form, options.rhymes, options.metre)
    if form.metre and not options.sounds:
        raise UsageError("Metre needs a pronouncing dictionary: --sounds FILE, in the format of the CMU dictionary.")
    ear = Ear(dictionary(options.sounds) if options.sounds else None)
    poems: list[dict[str, Any]] = []
    for number in range(options.n):
        lines: list[str] = []
        told = []
        for place in range(len(form.syllables)):
            line, draws, free = _line(work, options, form, ear, lines, number, place)
            told.append({"line": line, "draws": draws, "faults": form.faults(ear, lines, place, line), "free": free})
            lines.append(line)
        poems.append({"number": number, "lines": told})
    every = [line for poem in poems for line in poem["lines"]]
    held = sum(not any(line["faults"]) for line in every) / len(every)
    free = sum(not any(line["free"]) for line in every) / len(every)
    html = Html(f"{work.title}: {options.n} poems, {options.form}")
    html.text(
        f"{100 * held:.0f} % of {len(every)} lines hold to the form; of the first lines that the model wrote in these "
        f"places {100 * free:.0f} % do. Sounds are "
        f"{'from a dictionary' if options.sounds else 'guessed from spelling'}. "
        f"A line was drawn {sum(line['draws'] for line in every) / len(every):.0f} times on average."
    )
    for poem in poems:
        html.section(f"Number {poem['number']}")
        html.code("\n".join(line["line"] for line in poem["lines"]))
        if wrong := [i + 1 for i, line in enumerate(poem["lines"]) if any(line["faults"])]:
            html.text(f"Does not hold: line {', '.join(map(str, wrong))}.")
    return Page(html, {"held": held, "held_free": free, "lines": len(every), "poems": poems})


def _line(
    work: Work, options: Options, form: Form, ear: Ear, lines: list[str], number: int, place: int
) -> tuple[str, int, tuple[int, int, int]]:
    """A line, how often one was drawn for it, and the faults of the first that was."""
    import torch

    from castalia.core.rng import derive
    from castalia.media.text.tokens import tokens_of

    tokens = tokens_of(work.spec)
    opening = options.opening if options.opening.endswith("\n") or not options.opening else options.opening + "\n"
    before = torch.from_numpy(tokens.encode(opening + "".join(line + "\n" for line in lines)))
    room = max(work.spec.length - options.length, 1)
    sampling = work.sampling((f"temperature={options.temperature}", f"length={options.length}", "stop=\n"))
    best: tuple[tuple[int, int, int], str] | None = None
    first: tuple[int, int, int] | None = None
    seed, draws = derive(options.seed, "poem", number, place), 0
    while draws < options.tries:
        count = min(work.at_once, options.tries - draws)
        given = {"prompt": before[-room:].expand(count, -1)} if len(before) else {}
        whole = work.model.sample(count, given, rng=work.rng(seed, range(draws, draws + count)), options=sampling).x
        for row in whole.cpu().numpy():
            draws += 1
            written = tokens.decode(row[len(before[-room:]) :])
            line, end = written.split("\n")[0].rstrip(), "\n" in written
            faults = form.faults(ear, lines, place, line)
            first = first or faults
            if not line.strip() or not end:  # nothing, or a line that was cut
                continue
            if best is None or sum(faults) < sum(best[0]):
                best = (faults, line)
            if not any(faults):
                return line, draws, first
    if best is None:
        raise UsageError("The model wrote no whole line: give more tokens with --length, or another --opening.")
    return best[1], draws, first or best[0]


EDIT = Edit(
    "poem",
    "Write poems that hold to a form: syllables, rhyme, metre.",
    "FILE.html, a page that needs nothing from elsewhere, and FILE.json with all numbers",
    Options,
    run,
    needs=("Streaming",),
    media=("text",),
)
