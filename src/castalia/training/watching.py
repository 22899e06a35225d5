"""The page of a training: what was chosen, how far it is, grids over time, curves, in one file renewed now and then."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from castalia import card, health
from castalia.catalogue import entry
from castalia.page import Page
from castalia.runs import Run
from castalia.training.progress import duration

EVERY = 20.0
"""Seconds between renewals, at least."""

GRIDS = 6
"""Pictures of samples on the page, spread over the training."""

NAME = "index.html"


class Watching:
    """Renews ``RUN/index.html`` while a training goes on.

    Args:
        run: the run.
        notes: sentences said at the start.
    """

    def __init__(self, run: Run, notes: Sequence[str]) -> None:
        self.run, self.notes = run, notes
        self.last = -EVERY

    @property
    def path(self) -> Path:
        """The page."""
        return self.run.path / NAME

    def renew(self, now: float, step: int, steps: int, left: float, *, done: bool = False) -> None:
        """Write the page anew if that is due.

        Args:
            now: a clock's seconds.
            step: steps done.
            steps: steps planned.
            left: seconds left, as far as can be told.
            done: the training is over.
        """
        if not done and now - self.last < EVERY:
            return
        self.last = now
        try:
            self._page(step, steps, left, done).write(self.path)
        except Exception:  # a page is not worth a training
            return

    def _page(self, step: int, steps: int, left: float, done: bool) -> Page:
        run, system = self.run, entry(self.run.recipe.model)
        page = Page(f"{system.title} on {Path(run.recipe.data.source).name}", renewed=None if done else EVERY)
        state = "The training is over" if done else f"{duration(left)} left"
        page.text(f"{state}: step {step:,} of {steps:,}.")
        page.progress(step / max(steps, 1))
        for line in health.lines(run, run.results().get("metrics", {})) if done else ():
            page.text(line)
        for text in (*run.said, *self.notes):
            page.text(text)
        grids = sorted((run.path / "samples").glob("step-*.png"))
        if grids:
            page.heading("Samples")
            chosen = (
                grids
                if len(grids) <= GRIDS
                else [grids[round(i * (len(grids) - 1) / (GRIDS - 1))] for i in range(GRIDS)]
            )
            page.gallery([(grid.read_bytes(), f"step {int(grid.stem[5:]):,}") for grid in reversed(chosen)])
        losses = run.losses()
        if losses:
            page.heading("Losses").curve(losses, "step", "loss")
        page.heading("Go on with it")
        page.code("\n".join([*card.commands(run), f"castalia info {shlex.quote(run.path.as_posix())}"]))
        return page
