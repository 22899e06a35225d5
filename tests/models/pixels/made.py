"""Networks of the family for tests: every kind, with weights that make everything matter."""

from __future__ import annotations

from typing import Any

import torch

from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.base import PixelModel
from castalia.models.pixels.pixelcnn import PixelCNN, PixelCNNConfig
from castalia.models.pixels.pixelcnn_pp import PixelCNNPP, PixelCNNPPConfig
from castalia.models.pixels.pixelrnn import PixelRNN, PixelRNNConfig

SMALL = {"maps": 12, "layers": 2, "first": 5, "head": 24}

KINDS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "gated": (PixelCNN, PixelCNNConfig, {"network": "gated", **SMALL}),
    "plain": (PixelCNN, PixelCNNConfig, {"network": "plain", **SMALL}),
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
