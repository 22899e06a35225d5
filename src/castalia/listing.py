"""What there is to know about each system: for ``castalia models``."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from castalia import recipes
from castalia.catalogue import CATALOGUE, Entry, entry


def page(name: str) -> str:
    """The documentation of a system, from the top of the repository or of the web site."""
    return f"docs/systems/{name}.md"


def short(e: Entry) -> str:
    """A system in one line; nothing is imported for it."""
    return f"{e.name:<20}{e.title} ({e.family}; {', '.join(e.media)})"


def describe(name: str) -> dict[str, Any]:
    """All about one system, as JSON.

    Returns:
        ``name``, ``title``, ``family``, ``media``, ``paper``, ``capabilities`` and ``good`` of the catalogue;
        ``recipes``, what each is for by its name; ``presets``, those for own data by medium; ``default``, the recipe by
        data (a named set, ``"points:*"`` any points, ``"*"`` anything); ``demo``, a recipe; ``expected``, what recipes
        were seen to reach (those that nobody measured are not there); ``docs``, the page.

    Raises:
        UsageError: there is no such system.
    """
    e, room = entry(name), recipes.of(name)
    promised = {recipe: make().expected for recipe, make in room.recipes.items()}
    return {
        **{field: getattr(e, field) for field in ("name", "title", "family", "media", "paper", "capabilities", "good")},
        "recipes": {recipe: first_sentence(make.__doc__) for recipe, make in room.recipes.items()},
        "presets": {medium: [preset.recipe for preset in found] for medium, found in room.presets.items()},
        "default": dict(room.defaults),
        "demo": room.demo,
        "expected": {recipe: [asdict(x) for x in found] for recipe, found in promised.items() if found},
        "docs": page(e.name),
    }


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, without its full stop."""
    words = re.sub(r":\w+:`([^`]+)`", r"\1", " ".join((text or "").split("\n\n")[0].split()))
    return re.split(r"(?<!al)\.(?: |$)", words)[0]


def full(name: str) -> str:
    """All about one system, in words.

    Raises:
        UsageError: there is no such system.
    """
    found = describe(name)
    default = ", ".join(f"{recipe} for {source}" for source, recipe in found["default"].items())
    lines = [
        f"{found['name']}: {found['title']} ({found['family']}; {', '.join(found['media'])})",
        *([found["good"]] if found["good"] else []),
        f"paper: {found['paper']}",
        f"can: {', '.join(c.lower() for c in found['capabilities'])}",
        "recipes:",
        *(f"  {recipe:<28}{what}" for recipe, what in found["recipes"].items()),
        *(f"chosen from, for your own {medium}: {', '.join(some)}" for medium, some in found["presets"].items()),
        f"where none is named: {default}",
        f"demo: {found['demo']}",
    ]
    for recipe, results in found["expected"].items():
        reached = ", ".join(f"{x['metric']} at most {x['at_most']:g} in {x['minutes']:g} minutes" for x in results)
        lines.append(f"expected of {recipe}: {reached}")
    return "\n".join([*lines, f"more: {found['docs']}"])


def everything() -> list[dict[str, Any]]:
    """:func:`describe` of every system."""
    return [describe(name) for name in CATALOGUE]
