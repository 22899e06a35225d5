"""Convolutions: PyTorch's own, and right in bfloat16 where taps of a kernel see little but padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from castalia.models.energy.networks import Strided
from castalia.nn.trusted import Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d

LAYERS = [
    (Conv3d(16, 16, 3, 2, 1), 1),
    (Conv3d(16, 16, 3, 1, 1), 2),
    (Conv3d(16, 16, 5, 1, 2), 4),
    (ConvTranspose3d(16, 16, 3, 2, 1), 1),
    (ConvTranspose3d(16, 16, 3, 1, 1), 2),
    (Conv3d(16, 16, 3, 1, 1), 4),
    (ConvTranspose3d(16, 16, 4, 2, 1), 5),
    (Conv3d(16, 16, 2, 3, 1), 2),
    (Conv3d(16, 16, 2, 3, 1), 5),
    (ConvTranspose3d(16, 16, 4, 1, 2), 4),
    (Conv2d(16, 16, 3, 2, 1), 1),
    (Conv2d(16, 16, 5, 2, 2), 1),
    (Conv2d(16, 16, 5, 2, 2), 2),
    (Conv2d(16, 16, 3, 1, 1), 1),
    (ConvTranspose2d(16, 16, 3, 2, 1), 1),
    (ConvTranspose2d(16, 16, 4, 2, 1), 2),
]


def gradients(layer: nn.Module, x: Tensor, half: bool) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        y = layer(x)
    return [y.detach().float(), *torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize(("layer", "size"), LAYERS)
def test_gradients_in_half_precision_are_those_of_the_whole(layer: nn.Module, size: int) -> None:
    for seed in range(4):
        axes = 2 if isinstance(layer, Conv2d | ConvTranspose2d) else 3
        x = torch.randn(8, 16, *[size] * axes, generator=torch.Generator().manual_seed(seed))
        for half, whole in zip(gradients(layer, x, True), gradients(layer, x, False), strict=True):
            assert float((half.float() - whole).norm() / whole.norm()) < 0.02
        del half, whole  # what the next round finds in memory
        _ = [torch.full((16 * 16 * 125,), float("nan")) for _ in range(20)]


def test_without_autocast_they_are_pytorchs() -> None:
    mine, theirs = Conv3d(3, 4, 3, padding=1), nn.Conv3d(3, 4, 3, padding=1)
    theirs.load_state_dict(mine.state_dict())
    x = torch.randn(2, 3, 2, 5, 5)
    assert torch.equal(mine(x), theirs(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert mine(x).dtype == torch.float32, "two places under three taps"
        assert mine(torch.randn(2, 3, 3, 5, 5)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (Conv2d(4, 4, 3, 1, 1), 8),
        (Conv2d(4, 4, 4, 2, 1), 4),
        (ConvTranspose2d(4, 4, 4, 2, 1), 4),
        (Conv3d(4, 4, 4, 2, 1), 4),
    ],
)
def test_layers_that_are_fine_stay_in_half_precision(layer: nn.Module, size: int) -> None:
    x = torch.randn(2, 4, *[size] * (3 if isinstance(layer, Conv3d) else 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_small_pictures_of_energy_based_models_have_gradients() -> None:
    """Four halvings of eight pixels end at one place, where a stride of 2 leaves taps in the padding."""
    network = Strided((1, 8, 8), (16, 32, 64, 64), 32, 1)
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        for half, whole in zip(gradients(network, x, True), gradients(network, x, False), strict=True):
            assert float((half.float() - whole).norm()) < 0.05 * float(whole.norm()) + 1e-3
        _ = [torch.full((64 * 64 * 9,), float("nan")) for _ in range(20)]
