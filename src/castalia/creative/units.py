"""Units of a generator: the maps of one layer, watched, switched off, or driven to a value while it makes pictures.

Nothing is kept in the model: a hook stands while a block runs, and what is not changed comes out bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Latents, Styled
from castalia.core.errors import UsageError, near
from castalia.core.sampling import Given
from castalia.creative.looking import described, traced


@dataclass(frozen=True)
class Change:
    """What is done to the units of a layer: r becomes r + w (value - r), with w = strength x where.

    Attributes:
        strength: ``float32`` (U,), 0 to 1, for each unit: 0 leaves it alone.
        value: ``float32`` (U,) that the units are driven to; 0 switches them off.
        where: ``float32`` (B or 1, 1, H, W), 0 to 1, a picture of the places, of any size; None: everywhere.
    """

    strength: Tensor
    value: Tensor
    where: Tensor | None = None

    def applied(self, r: Tensor) -> Tensor:
        """Maps (B, U, h, w) after the change. Gradients flow to all parts of it."""
        shape = (1, -1, 1, 1)
        weight = self.strength.view(shape)
        if self.where is not None:
            # the share of each cell that is meant
            weight = weight * F.interpolate(self.where, r.shape[2:], mode="area")
        return r + weight * (self.value.view(shape) - r)


class Units:
    """The units of one layer of a model that makes pictures from latents.

    Args:
        model: in evaluation mode.
        layer: the name of a layer that returns maps (B, U, h, w) and runs once for a picture, or the end of its name;
            None for the one in the middle.

    Attributes:
        layer: the layer's name.
        count: how many units it has.
        size: (height, width) of their maps.

    Raises:
        UsageError: there is no such layer; those there are are listed.
    """

    def __init__(self, model: Latents, layer: str | None = None) -> None:
        found = unit_layers(model)
        if not found:
            raise UsageError("This model has no layer of maps: what it makes goes through no convolution.")
        if layer is not None and layer not in found:
            ends = [name for name in found if name.endswith(f".{layer}")]
            if len(ends) != 1:
                raise UsageError(f"There is no layer of units {layer!r}. {near(layer, found)}\n{described(found)}")
            (layer,) = ends
        self.model = model
        self.layer = list(found)[len(found) // 2] if layer is None else layer
        self.count, *size = found[self.layer]
        self.size = (size[0], size[1])
        assert isinstance(model, nn.Module)
        self._module = model.get_submodule(self.layer)

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """A block in which the maps (B, U, h, w) of each call are put into a list, as they are after any change."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, out: Tensor) -> None:
            kept.append(out.detach().float())

        handle = self._module.register_forward_hook(keep)
        try:
            yield kept
        finally:
            handle.remove()

    @contextmanager
    def changed(self, change: Change | None) -> Iterator[None]:
        """A block in which the units are changed; None changes nothing."""
        if change is None:
            yield
            return

        def apply(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
            return change.applied(out)

        handle = self._module.register_forward_hook(apply)
        try:
            yield
        finally:
            handle.remove()

    def ablation(self, units: Sequence[int], where: Tensor | None = None) -> Change:
        """These units switched off.

        Raises:
            UsageError: the layer has no such unit.
        """
        return self.insertion(units, [0.0] * len(units), where)

    def insertion(self, units: Sequence[int], values: Sequence[float], where: Tensor | None = None) -> Change:
        """These units driven to values; raises as :meth:`ablation`."""
        for unit in units:
            if not 0 <= unit < self.count:
                raise UsageError(f"{self.layer} has the units 0 to {self.count - 1}, and no unit {unit}.")
        device = next(self._parameters()).device
        strength, value = torch.zeros(2, self.count, device=device)
        strength[list(units)] = 1
        value[list(units)] = torch.tensor(values, device=device)
        return Change(strength, value, None if where is None else where.float().to(device))

    def _parameters(self) -> Iterator[nn.Parameter]:
        assert isinstance(self.model, nn.Module)
        return self.model.parameters()


def unit_layers(model: Latents) -> dict[str, tuple[int, ...]]:
    """Names and shapes (units, h, w) of the layers of a model that return maps while it makes a picture."""
    assert isinstance(model, nn.Module)
    device = next(model.parameters()).device
    z = torch.linspace(-1, 1, 2 * model.latent_dims, device=device).view(2, -1)
    found = traced(model, lambda: model.decode(z), lambda: model.decode(-z))
    return {name: shape for name, shape in found.items() if len(shape) == 3}


def rendered(model: Any, z: Tensor, given: Given | None = None) -> Tensor:
    """Pictures ``float32`` (B, C, H, W), 0 to 255, neither rounded nor cut off, through which gradients flow.

    Raises:
        UsageError: the model's pictures cannot be had before they are rounded.
    """
    if isinstance(model, Styled):
        return model.render(model.styles(z, given))
    if not all(hasattr(model, name) for name in ("generate", "labels")):
        raise UsageError(
            "Optimised effects need gradients through the generator, which this system does not give; "
            "rank its units instead."
        )
    label = given["label"] if given and "label" in given else model.labels.usual(len(z))
    return (model.generate(z, label, None) + 1) * 127.5
