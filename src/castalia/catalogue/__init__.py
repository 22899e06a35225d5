"""The one table of systems: looked up by name, imported only when used.

There is a file for each family of ``models/``, and an entry there is all that the command line, the conformance suite
and the demo need to find a system. What else they need lies where the name says: ``recipes/<name>.py``,
``docs/systems/<name>.md``, ``docs/results/<name>.json``.
"""

from __future__ import annotations

from castalia.catalogue import (
    adversarial,
    autoencoders,
    diffusion,
    energy,
    flows,
    molecules,
    motion,
    multimodal,
    music,
    pixels,
    proteins,
    sequence,
    shapes,
    sound,
    tables,
    video,
    worlds,
)
from castalia.catalogue.record import Entry
from castalia.core.errors import UsageError, near

FAMILIES = (
    autoencoders,
    adversarial,
    diffusion,
    flows,
    pixels,
    sequence,
    sound,
    music,
    energy,
    molecules,
    tables,
    proteins,
    shapes,
    motion,
    video,
    multimodal,
    worlds,
)
"""The files of this folder, in the order in which systems are listed."""

CATALOGUE: dict[str, Entry] = {entry.name: entry for family in FAMILIES for entry in family.ENTRIES}

__all__ = ["CATALOGUE", "FAMILIES", "Entry", "entry"]


def entry(name: str) -> Entry:
    """Look a system up; whatever the case of its letters.

    Raises:
        UsageError: there is none of that name; near matches are listed.
    """
    known = name if name in CATALOGUE else name.lower()
    if known not in CATALOGUE:
        raise UsageError(f"There is no model {name!r}. {near(known, CATALOGUE)}")
    return CATALOGUE[known]
