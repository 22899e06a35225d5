"""NICE: its size, its volume, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.nice import NICE, NICEConfig
from tests.models.flows.test_layers import stir


def test_the_size_of_the_paper() -> None:
    """Four couplings of 392 - 5 x 1000 - 392 and a scaling of 784."""
    with torch.device("meta"):
        model = NICE(NICEConfig(), ImageSpec(1, 28, 28))
    net = 392 * 1000 + 1000 + 4 * (1000**2 + 1000) + 1000 * 392 + 392
    assert sum(p.numel() for p in model.parameters()) == 4 * net + 784


def test_volume_changes_by_the_scaling_alone() -> None:
    model = build(NICE, NICEConfig(couplings=3, widths=(16,)), PointsSpec(5))
    assert isinstance(model, NICE)
    stir(model)
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(20)
    layers = list(model.layers.levels[0])
    for layer in layers:
        x, log_det = layer(x)
        total = total + log_det
    torch.testing.assert_close(total, layers[-1].log_scale.sum().expand(20))


def test_an_odd_number_of_values() -> None:
    model = build(NICE, NICEConfig(couplings=2, widths=(8,)), ImageSpec(1, 3, 5))
    assert isinstance(model, NICE)
    stir(model)
    y = torch.randn(4, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.layers.inverse(model.layers(y)[0]).view_as(y), y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"couplings": 0}, {"widths": ()}, {"widths": (0,)}])
def test_wrong_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        NICEConfig(**wrong)  # type: ignore[arg-type]
