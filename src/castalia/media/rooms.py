"""The one literal table of media: looked up by name, imported when used. Each lives in a folder beside this file."""

from __future__ import annotations

import importlib
from functools import cache

from castalia.core.errors import UsageError, near
from castalia.core.spec import Spec
from castalia.media.base import Medium

ROOMS: dict[str, str | type[Medium]] = {
    "episode": "episode.medium:EpisodeMedium",
    "image": "image.medium:ImageMedium",
    "molecule": "molecule.medium:MoleculeMedium",
    "points": "points.medium:PointsMedium",
    "table": "table.medium:TableMedium",
    "audio": "audio.medium:AudioMedium",
    "music": "music.medium:MusicMedium",
    "motion": "motion.medium:MotionMedium",
    "video": "video.medium:VideoMedium",
    "shape": "shape.medium:ShapeMedium",
    "protein": "protein.medium:ProteinMedium",
    "text": "text.medium:TextMedium",
}
"""Module and class below ``castalia.media``, by the medium's name (or the class itself, of a guest). The first that
reads a path gets it."""


@cache
def room(name: str) -> Medium:
    """The medium of that name.

    Raises:
        UsageError: there is none; near matches are listed.
    """
    if name not in ROOMS:
        raise UsageError(f"There is no medium {name!r}. {near(name, ROOMS)}")
    where = ROOMS[name]
    if not isinstance(where, str):
        return where()
    module, _, kind = where.partition(":")
    return getattr(importlib.import_module(f"castalia.media.{module}"), kind)()  # safe: from the literal table above


def rooms() -> tuple[Medium, ...]:
    """All media."""
    return tuple(room(name) for name in ROOMS)


def medium_of(spec: Spec) -> Medium:
    """The medium whose examples ``spec`` describes."""
    for medium in rooms():
        if type(spec) is medium.spec:
            return medium
    raise UsageError(f"No medium of {', '.join(ROOMS)} describes its examples by {type(spec).__name__}.")
