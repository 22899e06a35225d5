"""From what a person says to a recipe: names, a few options, settings as texts or as keywords."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from castalia import recipes
from castalia.catalogue import entry
from castalia.configuration import Data, Recipe, Training, override_data
from castalia.core.config import override
from castalia.core.errors import UsageError, near
from castalia.media import named
from castalia.media.named import medium_for

MEANT = {"learning_rate": "lr", "epochs": "steps", "iterations": "steps", "batch": "batch_size", "image_size": "size"}
"""Settings by the names that people know from elsewhere."""


def make_recipe(
    model: str | None = None,
    data: str | None = None,
    *,
    recipe: str | None = None,
    size: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
    on_bad_file: str | None = None,
    start: str | None = None,
    parents: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> Recipe:
    """Put a recipe together from a name (or the model's default for the data) and changes.

    Args:
        model: name in the catalogue; may be left out where ``recipe`` is given.
        data: named set or path; may be left out where ``recipe`` is given.
        recipe: name of a recipe.
        size: pictures are scaled to this many pixels.
        steps: training steps.
        minutes: training time instead of steps.
        seed: of weights, order and noise.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        on_bad_file: ``error`` or ``skip``.
        start: a finished run of the same network, whose weights this one starts with.
        parents: other finished runs that the model needs, each as ``ROLE=RUN``; its page says which.
        settings: further changes as ``path.to.field=value`` texts.

    Raises:
        UsageError: an unknown name, or a value of the wrong type.
    """
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--minutes must be more than 0, not {minutes:g}.")
    if recipe is None:
        if model is None:
            raise UsageError("Say which model to train, or give a --recipe. See: castalia models")
        if data is None:
            raise UsageError("Say what to train on with --data: a folder, a file or a named set. See: castalia data")
        medium = medium_for(data, entry(model).media)
        made = recipes.default(model, data, medium.name)
    else:
        made = recipes.recipe(recipe)
        if model is not None and entry(model).name != made.model:
            raise UsageError(f"The recipe {recipe!r} is for {made.model!r}, not for {model!r}.")
        medium = medium_for(data, (made.data.medium, *entry(made.model).media)) if data is not None else None
    if data is not None and medium is not None:
        able = entry(made.model).media
        if medium.name not in able:
            raise UsageError(f"{data} is of the medium {medium.name!r}; {made.model} makes only {', '.join(able)}.")
        same = medium.name == made.data.medium
        name = source_of(data)
        source = replace(made.data, source=name) if same else Data(name, made.data.split, medium.name)
        made = replace(made, data=source)
    if start is not None:
        parents = (*parents, f"start={start}")
    if parents:
        made = replace(made, parents=tuple({**dict(made.parents), **dict(map(_parent, parents))}.items()))
    changes: list[str] = []
    for option, name, value in (
        ("--size", "data.options.size", size),
        ("--steps", "training.steps", steps),
        ("--minutes", "training.minutes", minutes),
        ("--seed", "training.seed", seed),
        ("--precision", "training.precision", precision),
        ("--on-bad-file", "data.options.on_bad_file", on_bad_file),
    ):
        if value is not None:
            if name.startswith("data.options.") and not hasattr(made.data.options, name[13:]):
                raise not_for(option, made.data.source, made.data.medium, made.data.options, "data.options.")
            changes.append(f"{name}={value}")
    config = override(made.config, [s[7:] for s in settings if s.startswith("config.")], "config")
    rest = replace(made, config=config)
    data_changes = [c[5:] for c in [*changes, *settings] if c.startswith("data.")]
    training_changes = [c[9:] for c in [*changes, *settings] if c.startswith("training.")]
    unknown = [s for s in settings if not s.startswith(("config.", "data.", "training."))]
    if unknown:
        name = unknown[0].partition("=")[0].strip()
        sections = {"training": made.training, "config": made.config, "data.options": made.data.options}
        meant = next((f"{section}.{unknown[0]}" for section, kind in sections.items() if hasattr(kind, name)), "")
        hint = f"Write --set {meant}" if meant else "Names start with config., data. or training."
        raise UsageError(f"--set {unknown[0]}: {hint}")
    return replace(
        rest,
        data=override_data(rest.data, data_changes),
        training=override(rest.training, training_changes, "training"),
    )


def _parent(text: str) -> tuple[str, str]:
    """Role and run folder of ``ROLE=RUN``."""
    role, _, run = text.partition("=")
    if not role or not run:
        raise UsageError(f"--parent {text}: write ROLE=RUN, as in teacher=runs/edm.")
    return role, run


def source_of(data: str) -> str:
    """A named set as it is, and a path as an absolute one, under which it is found from wherever a run is used."""
    return data if data in named.table() else str(Path(data).expanduser().resolve())


def as_settings(model: str | None, recipe: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords that are names of settings, as settings: ``lr=0.1`` is ``training.lr=0.1``.

    Raises:
        UsageError: there is no such setting; near matches are listed.
    """
    own = inspect.signature(make_recipe).parameters
    rest = {name: value for name, value in changes.items() if name not in own}
    found = {name: value for name, value in changes.items() if name in own}
    if not rest:
        return found
    system = entry(model) if model else entry(recipes.recipe(recipe).model) if recipe else None
    kinds = {"training": Training, **({"config": system.load().Config} if system else {})}
    texts = []
    for name, value in rest.items():
        section = next((s for s, kind in kinds.items() if name in {f.name for f in fields(kind)}), None)
        if section is None:
            known = [f.name for kind in kinds.values() for f in fields(kind)]
            hint = f"Write {MEANT[name]}=..." if name in MEANT else near(name, known)
            raise UsageError(f"There is no setting {name!r}. {hint}")
        texts.append(f"{section}.{name}={json.dumps(value) if not isinstance(value, str) else value}")
    return {**found, "settings": [*found.get("settings", ()), *texts]}


def not_for(flag: str, source: str, medium: str, options: Any, before: str = "") -> UsageError:
    """What is said of a flag that a medium does not have, and of those it has.

    Args:
        flag: as it was typed.
        source: of the data.
        medium: its name.
        options: of the medium, a dataclass or its class.
        before: what stands before their names behind ``--set``.
    """
    names = [f.name for f in fields(options)]
    own = f" {near(flag.strip('-').replace('-', '_'), names)} As --set {before}NAME=VALUE." if names else ""
    return UsageError(f"{flag} is for other media; {source} holds {medium}.{own}")
