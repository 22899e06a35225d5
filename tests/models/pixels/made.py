"""Networks of the family for tests: every kind, with weights that make everything matter."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from castalia import recipes
from castalia.catalogue import entry
from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.base import PixelModel
from castalia.models.pixels.pixelcnn import PixelCNN, PixelCNNConfig
from castalia.models.pixels.pixelcnn_pp import PixelCNNPP, PixelCNNPPConfig
from castalia.models.pixels.pixelrnn import PixelRNN, PixelRNNConfig
from castalia.models.pixels.taps import Taps

SMALL = {"maps": 12, "layers": 2, "first": 5, "head": 24}

KINDS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "gated": (PixelCNN, PixelCNNConfig, {"network": "gated", **SMALL}),
    "plain": (PixelCNN, PixelCNNConfig, {"network": "plain", **SMALL}),
    "nowhere": (PixelCNN, PixelCNNConfig, {"network": "gated", "places": False, **SMALL}),
    "row": (PixelRNN, PixelRNNConfig, {"network": "row", **SMALL}),
    "diagonal": (PixelRNN, PixelRNNConfig, {"network": "diagonal", **SMALL}),
    "streams": (PixelCNNPP, PixelCNNPPConfig, {"maps": 6, "resnets": 1, "levels": 2, "mixtures": 3}),
}

NAMES = tuple(KINDS)


def made(kind: str, spec: ImageSpec, stir: float = 0.3, **changes: Any) -> PixelModel[Any]:
    """A model in evaluation mode, its weights changed at random."""
    cls, config, base = KINDS[kind]
    changes = {"likelihood": "bernoulli", **changes}
    model = build(cls, config(**{**base, **changes}), spec)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(stir * torch.randn(p.shape, generator=g))
    return model.eval()


# plain implementations

HEIGHT, WIDTH = 5, 6


def square(taps: Taps, kernel: int) -> torch.Tensor:
    """The whole kernel (outputs, inputs, kernel, kernel), with zeros where nothing may be seen."""
    rows, columns = taps.size
    own = taps.kernel().detach().view(taps.outputs, rows, columns, taps.inputs).permute(0, 3, 1, 2)
    whole = torch.zeros(taps.outputs, taps.inputs, kernel, kernel, dtype=own.dtype)
    bottom = kernel // 2 + 1 - taps.above
    first = kernel // 2 - taps.left
    whole[:, :, bottom - rows : bottom, first : first + columns] = own
    return whole


def masked(taps: Taps, x: torch.Tensor, kernel: int = 3) -> torch.Tensor:
    """A masked convolution as the paper has it: a square kernel, padding on all sides."""
    kernel = max(kernel, taps.size[1])
    return F.conv2d(x, square(taps, kernel), taps.bias, padding=kernel // 2)


def features(channels: int = 1) -> torch.Tensor:
    return torch.randn(2, channels, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def headed(head, x):
    return masked(head.out, F.relu(masked(head.hidden, F.relu(x))))


def used(recipe: str, spec: ImageSpec) -> int:
    """Numbers of a recipe's network that matter: none that a mask hides."""
    found = recipes.recipe(recipe)
    model = build(entry(found.model).load(), found.config, spec)
    inside = [part for part in model.modules() if isinstance(part, Taps)]
    ours = {id(p) for part in inside for p in part.parameters()}
    return sum(part.seen() for part in inside) + sum(p.numel() for p in model.parameters() if id(p) not in ours)
