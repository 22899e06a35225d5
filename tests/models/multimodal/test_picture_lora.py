"""LoRA of pictures: the equation, merging, which matrices, and how many numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from castalia import runs
from castalia.core.captions import bytes_of
from castalia.models.multimodal.latent_diffusion import LatentDiffusion
from castalia.models.multimodal.unet import Attention, WordUNet
from castalia.nn.adapters import AdaptedLinear, Adapter
from castalia.nn.unet import UNetConfig
from tests.models.multimodal.subjects import begun, stir


@pytest.mark.parametrize("name", ["picture-lora", "dreambooth"])
def test_merged_and_unmerged_are_the_same(start: runs.Run, name: str) -> None:
    model = begun(start, name, rank=3, alpha=6.0).eval()
    stir(model)
    below = start.model()[0]
    assert isinstance(below, LatentDiffusion)
    tokens = model.words.tokens(bytes_of(["a sks star", "a red ring"]))
    x, t = torch.randn(2, *model.shape), torch.tensor([3.0, 700.0])

    def output(net: Any) -> torch.Tensor:
        with torch.no_grad():
            return net.calling(2, tokens, None)(x, t)

    apart, weights = output(model), {k: v.clone() for k, v in model.state_dict().items()}
    assert not torch.allclose(apart, output(below), atol=1e-4)
    model.merge()
    torch.testing.assert_close(output(model), apart, atol=1e-6, rtol=1e-6)
    below.load_state_dict(model.plain())
    torch.testing.assert_close(output(below), apart, atol=1e-6, rtol=1e-6)
    model.unmerge()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[key], atol=1e-6, rtol=1e-6)
    below.load_state_dict(model.plain())
    torch.testing.assert_close(output(below), apart, atol=1e-6, rtol=1e-6)


def test_the_equation_of_an_adapter(start: runs.Run) -> None:
    model = begun(start, "picture-lora", rank=3, alpha=6.0)
    stir(model)
    layer = next(part for part in model.modules() if isinstance(part, AdaptedLinear))
    a, b = layer.beside[0].a.weight, layer.beside[0].b.weight
    x = torch.randn(4, layer.in_features)
    expected = torch.nn.functional.linear(x, layer.weight + 2 * b @ a, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert torch.linalg.matrix_rank(b @ a) == 3


def test_which_matrices_are_adapted(start: runs.Run) -> None:
    every = begun(start, "picture-lora").added
    assert {key.rsplit("-", 2)[1] for key in every} == {"own", "cross"}
    cross = begun(start, "picture-lora", places="cross", targets=("key", "value")).added
    assert cross.keys() == {k for k in every if k.endswith(("cross-key", "cross-value"))}


def test_adapters_of_the_papers_network() -> None:
    """Rank 4 at all attention of the network of 860 million with words of 768: 797,184 numbers, as its files hold."""
    with torch.device("meta"):
        config = UNetConfig(channels=(320, 640, 1280, 1280), blocks=2, attention=(0, 1, 2), heads=8, groups=32)
        network = WordUNet(config, 4, 4, 768)
        count = 0
        for part in network.modules():
            if isinstance(part, Attention):
                for name in ("query", "key", "value", "out"):
                    layer = getattr(part, name)
                    count += sum(p.numel() for p in Adapter(layer.in_features, layer.out_features, 4, 4.0).parameters())
    assert count == 797_184
