"""What a system makes of people's own data in so much time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A recipe for people's own data, and what it takes; those of a medium stand from the quickest to the best.

    Attributes:
        recipe: its name; of pictures it gives the largest side, smaller ones stay as they are.
        steps: from so many steps of its first stage on it is taken instead of the preset before it.
        good: from so many steps on, more are thought to bring little.
        result: what can be expected, as the end of a sentence: "sharp letters, soft photographs".
        seen: whether ``result`` was looked at after about ``steps`` steps on pictures that nobody had tuned for; else
            all three are a guess from other recipes, and the person is told so.
        labelled: settings (``config.conditional=true``) that make it learn the labels of data that have some; none
            where the system cannot.
    """

    recipe: str
    steps: int
    good: int
    result: str
    labelled: tuple[str, ...] = ()
    seen: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= self.good:
            raise ValueError("steps and good must rise")
