"""Glow: classes, its size, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.flows.couplings import SigmoidAffine
from castalia.models.flows.glow import Glow, GlowConfig
from tests.models.flows.test_flows import PICTURES, made


def test_classes_move_the_last_gaussian_only() -> None:
    model, _ = made(*PICTURES["glow, by class"]())
    model = model.float()
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    by = [model.decode(z, {"label": torch.full((3,), k)}).x for k in range(3)]
    assert not torch.equal(by[0], by[1])
    assert not torch.equal(by[0], model.decode(z).x)
    drawn = model.sample(50, rng=SampleRng(0, range(50)))
    assert drawn.label is not None
    assert set(drawn.label.tolist()) == {0, 1, 2}


def test_the_size_of_the_paper() -> None:
    """CIFAR-10, L = 3, K = 32, 512 channels: "44M" in the table of Durkan et al. 2019 (arXiv:1906.04032, second-hand)."""
    with torch.device("meta"):
        model = Glow(GlowConfig(lu=False), ImageSpec(3, 32, 32))
    count, channels = 0, 3
    for level in range(3):
        channels *= 4
        net = (channels // 2) * 512 * 9 + 512 * 512 + 512 * channels * 9 + 2 * 512 + 2 * 512 + 2 * channels
        count += 32 * (net + channels**2 + 2 * channels)
        if level < 2:
            count += channels // 2 * channels * 9 + 2 * channels
            channels //= 2
    count += 2 * channels
    assert sum(p.numel() for p in model.parameters()) == count
    assert round(count / 1e6) == 44


def test_no_sample_is_stretched_without_bound() -> None:
    h = torch.tensor([[0.0, -1e4]])
    assert SigmoidAffine(1e-3).inverse(torch.ones(1, 1), h).item() == pytest.approx(1000.0, rel=1e-4)


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(UsageError, match=r"twice, and config\.levels asks for 3"):
        build(Glow, GlowConfig(width=4, steps=1), ImageSpec(1, 28, 28))
    with pytest.raises(UsageError, match=r"config\.halvings asks for 3"):
        build(Glow, GlowConfig(width=4, steps=1, levels=1, halvings=3), ImageSpec(1, 28, 28))


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.5}, {"bits": 9}, {"steps": 0}, {"label_drop": 0.0}, {"hidden_kernel": 5}]
)
def test_wrong_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        GlowConfig(**wrong)


def test_labels_are_needed_to_learn_them() -> None:
    with pytest.raises(UsageError, match="no labels"):
        build(Glow, GlowConfig(levels=1, steps=1, width=4, conditional=True), ImageSpec(1, 4, 4))
