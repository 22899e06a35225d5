"""A class, or a word of the captions, added to an example and taken away from it."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.errors import UsageError, near
from castalia.creative.edit import Edit, Film, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is added to what, and how much of it."""

    of: str = option(help="the picture to change", metavar="A.png", example=True)
    add: str = option(help="a class name, or a word of the captions", metavar="NAME")
    data: str | None = option(None, "labelled or captioned data (the run's own)")
    strength: float = option(2.0, "from -strength to strength (2)")
    frames: int = option(9, "how many steps (9)", least=1)


def run(work: Work, options: Options) -> Film:
    """Move the example along the direction from those without the attribute to those with it.

    Raises:
        UsageError: the data have no such class or word; near matches are listed.
    """
    import torch

    from castalia.core.data import Batch
    from castalia.creative import attributes

    x = work.examples([options.of]).x
    vectors = attributes.attribute_vectors(work.model, work.data(options.data))
    if options.add not in vectors:
        raise UsageError(f"The data have no class or frequent word {options.add!r}. {near(options.add, vectors)}")
    strengths = torch.linspace(-options.strength, options.strength, options.frames).tolist()
    frames = attributes.apply_attribute(work.model, x, vectors[options.add], strengths)[0]
    return Film(Batch.of(frames.cpu()), boomerang=True)


EDIT = Edit(
    "attribute",
    "Add a class or a caption word to a picture, in steps.",
    "FILE.png for a strip, or a film",
    Options,
    run,
    needs=("Inference",),
)
