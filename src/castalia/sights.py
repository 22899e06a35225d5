"""Networks that look at pictures: of a run, of another run, and the feature network of a run's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from castalia import api
from castalia.core.capabilities import Perception
from castalia.core.errors import RunError, UsageError, near
from castalia.core.guest import guest
from castalia.core.specs.image import ImageSpec
from castalia.creative.edit import Sight
from castalia.evaluation.feature_network import feature_space
from castalia.evaluation.features import NetworkFeatures
from castalia.nn.seeing import Seeing
from castalia.runs import Run

FEATURES = "features"
"""The name of the house's feature network."""

FOREIGN = (".onnx", ".pt2", ".pt", ".pth", ".ckpt")
"""Suffixes of networks that others have trained."""


def sight_of(run: Run, model: Any, name: str | None) -> Sight:
    """A network that looks at pictures.

    Args:
        run: the run.
        model: its model, in evaluation mode.
        name: as of :meth:`castalia.creative.edit.Work.sight`.

    Raises:
        UsageError: there is none of that name, or it is a file that no gradients can be had from.
    """
    if not isinstance(run.spec, ImageSpec):
        raise UsageError(f"{run.path} makes no pictures.")
    own = dict(model.perceive()) if isinstance(model, Perception) else {}
    if name is None and own:
        name = next(iter(own))
    if name in own:
        return Sight(name, own[name], run.spec.channels, (run.spec.height, run.spec.width))
    if name is None or name == FEATURES:
        return _features(run, model)
    return _elsewhere(name, own)


def _features(run: Run, model: Any) -> Sight:
    """The feature network of the run's data: trained now if it is not in the cache."""
    recipe = run.recipe.data
    data = api.open_data(recipe.source, split="train", options=recipe.options, like=run)
    with guest():  # edits run without gradients, and it may have to be trained
        space = feature_space(data)
    if not isinstance(space, NetworkFeatures):
        raise UsageError("The features of this data are those of several networks; name a network of the run's own.")
    assert isinstance(run.spec, ImageSpec)
    network = Seeing(space.network.to(model.device), _shares).eval()
    return Sight(FEATURES, network, run.spec.channels, space.size)


def _shares(x: Tensor) -> Tensor:
    """What the feature network sees, in [0, 1]: colours multiplied by their alpha."""
    x = x / 255
    return torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1) if x.shape[1] == 4 else x


def _elsewhere(name: str, own: dict[str, Any]) -> Sight:
    """A network of another run."""
    path, _, which = name.partition(":") if not Path(name).exists() else (name, "", "")
    if Path(path).suffix.lower() in FOREIGN:
        raise UsageError(
            f"{path}: a dream needs gradients, and a network file of others gives none here: an ONNX graph is run "
            "forward only, and a pickled or exported module could run code "  # safe: a sentence, which loads nothing
            "of its own. Name a run folder; in Python, any module can dream (castalia.creative.dreams)."
        )
    if not Path(path).is_dir():
        raise UsageError(
            f"There is no network {name!r}, and no run folder of that name. {near(name, [*own, FEATURES])}"
        )
    try:
        other = api.load(path)
    except RunError as error:
        raise UsageError(f"--network: {error}") from error
    model, _ = other.model()
    if not isinstance(model, Perception):
        raise UsageError(f"{path} is a {other.recipe.model}, which has no network that looks at pictures.")
    found = sight_of(other, model, which or None)
    return Sight(f"{other.path.name}:{found.name}", found.network, found.channels, found.size)
