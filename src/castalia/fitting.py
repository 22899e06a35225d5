"""A default that fits the data and the time: which of a system's presets to train on somebody's own data.

A preset is a recipe of the system that names no data set. How fast this machine trains each is measured, the quickest
first, up to the best that gets as many steps as it wants within the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.config import differences, to_json
from castalia.core.data import Dataset
from castalia.core.errors import UsageError
from castalia.core.spec import LabelSpec
from castalia.media.rooms import room
from castalia.recipes.preset import Preset
from castalia.training.planning import foresee
from castalia.training.progress import duration

USUAL_MINUTES = 10.0
"""Where nobody says how long."""

LABELS_SHOWN = 6


@dataclass(frozen=True)
class Fitted:
    """What was chosen.

    Attributes:
        recipe: the recipe to train.
        data: its training data, opened.
        said: sentences: what was chosen and why, what to expect, what is left out.
    """

    recipe: Recipe
    data: Dataset
    said: tuple[str, ...]


def fit(
    presets: Sequence[Preset],
    make: Callable[[str, Sequence[str]], Recipe],
    opened_by: Callable[[Recipe], Dataset],
    *,
    classes: bool | None = None,
    sized: bool = False,
) -> Fitted:
    """Choose a preset.

    Args:
        presets: of one system and medium, from the quickest to the best.
        make: a preset's recipe, by its name, with what the person asked for; the texts are settings to begin with.
        opened_by: the training data of a recipe.
        classes: learn the labels; None: where the data have some and the system can.
        sized: the person said how large pictures are.

    Raises:
        UsageError: labels were asked for, and there are none or the system cannot learn them.
    """
    opened: dict[str, Dataset] = {}
    candidates = [_candidate(preset, make, opened_by, opened, classes, sized) for preset in presets]
    taken, steps = candidates[-1], 0
    if not candidates[-1].recipe.training.minutes:  # the person says how many steps
        enough = [one for one in candidates if one.preset.steps <= one.recipe.training.steps]
        taken = enough[-1] if enough else candidates[0]
    elif os.environ.get("WORLD_SIZE", "1") == "1":  # a cluster has time, and its processes must agree
        taken, steps = candidates[0], foresee(candidates[0].recipe, candidates[0].data).stages[0]
        for larger in candidates[1:]:
            if steps < larger.preset.steps:  # and a larger network gets fewer
                break
            fitting = foresee(larger.recipe, larger.data).stages[0]
            if fitting < larger.preset.steps:
                break
            taken, steps = larger, fitting
    better = candidates[candidates.index(taken) + 1 :]
    return Fitted(taken.recipe, taken.data, tuple(_sentences(taken, better, steps)))


@dataclass(frozen=True)
class _Candidate:
    """A preset on the data.

    Attributes:
        preset: the preset.
        recipe: what it would train.
        data: its training data.
        classes: names of the classes that it would learn.
    """

    preset: Preset
    recipe: Recipe
    data: Dataset
    classes: tuple[str, ...]


def _candidate(
    preset: Preset,
    make: Callable[[str, Sequence[str]], Recipe],
    opened_by: Callable[[Recipe], Dataset],
    opened: dict[str, Dataset],
    classes: bool | None,
    sized: bool,
) -> _Candidate:
    recipe = make(preset.recipe, ())
    source = recipe.data
    if not sized:
        source = replace(source, options=room(source.medium).as_found(source.source, source.options))
    recipe = replace(recipe, data=source)
    key = repr(source)
    if key not in opened:
        opened[key] = opened_by(recipe)
    data = opened[key]
    names = _classes(data)
    if classes and not names:
        raise UsageError(f"{source.source} has no classes to learn.")
    if classes and not preset.labelled:
        raise UsageError(f"{entry(recipe.model).title} cannot learn classes. Leave --classes out.")
    if not names or not preset.labelled or classes is False:
        return _Candidate(preset, recipe, data, ())
    return _Candidate(preset, replace(make(preset.recipe, preset.labelled), data=source), data, names)


def _classes(data: Dataset) -> tuple[str, ...]:
    """Names of the classes of labelled data; none where all are of one."""
    label = data.spec.sides().get("label")
    found = label.classes if isinstance(label, LabelSpec) and data.labels is not None else ()
    return found if len(found) > 1 else ()


def _sentences(taken: _Candidate, better: Sequence[_Candidate], steps: int) -> list[str]:
    """What was chosen, in words; ``steps`` fit into the time, 0: nobody looked."""
    preset, minutes = taken.preset, taken.recipe.training.minutes
    shape = " x ".join(str(d or "any") for d in taken.data.spec.fields()["x"].shape)
    said = [
        f"Chosen: {preset.recipe}, for examples of {shape}"
        + (f" and {minutes:g} minute{'' if minutes == 1 else 's'} here." if steps else ".")
    ]
    expect = "Expect" if preset.seen else "Nobody has measured it on own data yet; what can be hoped for:"
    if steps:

        def here(count: int) -> str:
            return duration(60 * count * minutes / steps)

        said.append(f"About {steps:,} steps fit.")
        if steps < preset.steps:
            said.append(f"That is little: it wants {preset.steps:,}, about {here(preset.steps)} here. Expect blur.")
        elif steps < preset.good:
            said.append(f"{expect} {preset.result}; it gets better until about {here(preset.good)} here.")
        else:
            said.append(f"{expect} {preset.result}; more time brings it little.")
        if better:
            said.append(f"With more minutes a larger network is taken: {better[0].preset.recipe}.")
    if taken.classes:
        some = ", ".join(taken.classes[:LABELS_SHOWN]) + (", ..." if len(taken.classes) > LABELS_SHOWN else "")
        said.append(f"It learns the {len(taken.classes)} classes of the data ({some}); --no-classes leaves them out.")
    return said


def chosen_before(presets: Sequence[Preset], make: Callable[[str, Sequence[str]], Recipe], stored: Recipe) -> Recipe:
    """The recipe that comes nearest to that of a run which is to be resumed: with the same words it is the same.

    How files are read is taken from the run, which found it out from the data.
    """

    def candidate(preset: Preset, settings: Sequence[str]) -> Recipe:
        recipe = make(preset.recipe, settings)
        return replace(recipe, data=replace(recipe.data, options=stored.data.options))

    candidates = [candidate(preset, settings) for preset in presets for settings in ((), preset.labelled)]
    return min(candidates, key=lambda one: len(differences(to_json(stored), to_json(one))))
