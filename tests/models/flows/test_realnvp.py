"""RealNVP: how it starts, its size, its penalty, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.flows.realnvp import RealNVP, RealNVPConfig
from tests.models.flows.test_flows import examples
from tests.tools import Table


def test_a_start_in_gaussian_units_is_the_model_of_independent_pixels() -> None:
    """RealNVP without normalisation starts as the identity, and its bound is then the entropy of the margins."""
    x = examples()
    model = build(
        RealNVP, RealNVPConfig(scale="gaussian", scales=1, width=4, blocks=0, normalise=False), ImageSpec(1, 4, 4)
    )
    assert isinstance(model, RealNVP)
    model.initialise(Table(x, ImageSpec(1, 4, 4)), BatchRng(0, total=1), {})
    found = model.eval().log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x)))).nats.mean()
    counts = np.bincount(x.flatten().numpy(), minlength=256) + 0.5
    shares = counts / counts.sum()
    entropy = -np.log(shares[x.numpy()]).sum((1, 2, 3)).mean()
    assert float(found) == pytest.approx(-entropy, abs=1e-2)


def resnet(inputs: int, width: int, outputs: int, blocks: int) -> int:
    """Parameters: kernels as directions and lengths, biases, batch norms, skips."""

    def conv(a: int, b: int, k: int) -> int:
        return a * b * k * k + 2 * b

    block = 2 * conv(width, width, 3) + 4 * width
    skips = (blocks + 1) * conv(width, width, 1)
    return conv(inputs, width, 3) + blocks * block + skips + 2 * width + conv(width, outputs, 1)


def test_the_size_of_the_paper() -> None:
    """CIFAR-10: couplings of 64 maps and 3 channels, 128 maps and 6 of 12 channels, 128 maps and 6 channels."""
    with torch.device("meta"):
        model = RealNVP(RealNVPConfig(), ImageSpec(3, 32, 32))
    count = 3 * (resnet(3, 64, 6, 8) + 3) + 3 * (resnet(6, 128, 12, 8) + 6) + 4 * (resnet(6, 128, 12, 8) + 6)
    assert sum(p.numel() for p in model.parameters()) == count


def test_lengths_of_kernels_are_decayed() -> None:
    x, spec, losses, lengths = examples(), ImageSpec(1, 4, 4), [], torch.zeros(0)
    for decay in (0.0, 1.0):
        model = build(RealNVP, RealNVPConfig(scales=1, width=4, blocks=0, length_decay=decay), spec)
        assert isinstance(model, RealNVP)
        model.initialise(Table(x, spec), BatchRng(0, total=1), {})
        losses.append(model.loss(Batch.of(x), BatchRng(0, total=len(x)), Progress(0, 1))[0])
        lengths = torch.cat([p for name, p in model.named_parameters() if name.endswith("length")])
    torch.testing.assert_close(losses[1] - losses[0], lengths.square().sum(), atol=1e-3, rtol=1e-4)


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(UsageError, match=r"not at all, and config\.scales asks for 1"):
        build(RealNVP, RealNVPConfig(width=4, blocks=0), ImageSpec(1, 7, 8))
