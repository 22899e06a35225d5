"""Recipes: what to run and what to expect from it.

A recipe is a function without arguments that returns one complete :class:`castalia.configuration.Recipe`; a variant
calls the base and replaces fields. Those of a system stand in ``recipes/<system>.py`` (a hyphen of its name is an
underscore there), which has

- ``RECIPES``: the functions, by the name that ``--recipe`` takes; no two systems share a name;
- ``DEFAULTS``: the recipe for a named set, for any data of a medium (``"points:*"``), and for any data (``"*"``);
- ``DEMO``: the recipe that shows the system on built-in data; ``castalia demo`` runs them all;
- ``TINY``: a recipe on built-in data with at most 50,000 parameters; the conformance suite runs it;
- ``PRESETS``, where it has some: for people's own data of a medium, recipes by what time they take
  (:class:`~castalia.recipes.preset.Preset`), from the quickest to the best.

The systems are those of the catalogue, and a file is imported when something of it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castalia.catalogue import CATALOGUE, entry
from castalia.core.errors import UsageError, near
from castalia.recipes.preset import Preset

if TYPE_CHECKING:
    from castalia.configuration import Recipe


@dataclass(frozen=True)
class Room:
    """What ``recipes/<system>.py`` says; the fields are described above."""

    recipes: Mapping[str, Callable[[], Recipe]]
    defaults: Mapping[str, str]
    demo: str
    tiny: str
    presets: Mapping[str, tuple[Preset, ...]]


def of(system: str) -> Room:
    """The recipes of a system of the catalogue.

    Raises:
        UsageError: there is no such system, or it has no recipes.
    """
    name = entry(system).name  # of our own table: nothing from outside chooses what is imported
    file = name.replace("-", "_")
    try:
        found = importlib.import_module(f"{__name__}.{file}")  # safe: a name of the catalogue
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{file}":
            raise
        raise UsageError(f"{system} has no recipes: there is no castalia/recipes/{file}.py.") from error
    return Room(found.RECIPES, found.DEFAULTS, found.DEMO, found.TINY, vars(found).get("PRESETS", {}))


def names() -> list[str]:
    """Names of all recipes, system by system."""
    return [name for system in CATALOGUE for name in of(system).recipes]


def recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UsageError: there is none; near matches are listed.
    """
    # a recipe is mostly named after its system: look there first, and import the others only where it is not there
    for known in dict.fromkeys((name, name.lower())):
        for system in sorted(CATALOGUE, key=lambda s: (not known.startswith(s), s not in known)):
            if known in (found := of(system).recipes):
                return found[known]()
    raise UsageError(f"There is no recipe {name!r}. {near(name, names())}")


def demo(model: str) -> Recipe:
    """Return the recipe that shows a system on built-in data."""
    room = of(model)
    return room.recipes[room.demo]()


def tiny(model: str) -> Recipe:
    """Return the recipe with which a system is tested: built-in data, at most 50,000 parameters."""
    room = of(model)
    return room.recipes[room.tiny]()


def default(model: str, source: str, medium: str) -> Recipe:
    """Return the recipe that ``model`` uses for the data ``source``.

    Args:
        model: name in the catalogue.
        source: a named set or a path.
        medium: what it holds.

    Raises:
        UsageError: there is no such model, or it has no recipe for such data.
    """
    room = of(model)
    for kind in (source, f"{medium}:*", "*"):
        if kind in room.defaults:
            return room.recipes[room.defaults[kind]]()
    raise UsageError(f"{model} has no recipe for {source!r}; name one with --recipe. {near(model, room.recipes)}")


def presets(model: str, source: str, medium: str) -> tuple[Preset, ...]:
    """The presets from which to choose for the data ``source``; none where the system has a recipe for just these."""
    room = of(model)
    return () if source in room.defaults else room.presets.get(medium, ())
