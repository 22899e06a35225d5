"""A prior fitted after training: it finds the clusters of the latents, and its draws keep the rules of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from castalia import api
from castalia.core.capabilities import Inference
from castalia.core.data import Batch
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given
from castalia.core.specs.image import ImageSpec
from castalia.creative.priors import fit_mixture
from tests.tools import Table


class Corners(Inference):
    """Latents are the two values of a picture, moved and scaled."""

    latent_dims = 2

    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        return batch.x.flatten(1).float() / 255 * 4 - 2

    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        return Batch.of(((z + 2) / 4 * 255).clamp(0, 255).round().to(torch.uint8).view(-1, 1, 1, 2))

    def posterior_kl(self, batch: Batch) -> Tensor:
        return torch.zeros(len(batch), 2)


def test_draws_come_from_where_the_data_are() -> None:
    """Two clusters in opposite corners, one three times as large; N(0, I) would fall between them."""
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([[40.0, 40.0]] * 300 + [[215.0, 215.0]] * 100)
    x = (centres + 8 * torch.randn(400, 2, generator=g)).clamp(0, 255).to(torch.uint8).view(-1, 1, 1, 2)
    mixture = fit_mixture(Corners(), Table(x, ImageSpec(1, 1, 2)))
    drawn = mixture.sample(SampleRng(0, range(2000)))
    low = (drawn < 0).all(1)
    high = (drawn > 0).all(1)
    assert bool((low | high).all()), "nothing between the clusters"
    assert abs(low.float().mean().item() - 0.75) < 0.04
    torch.testing.assert_close(drawn[low].mean(0), torch.full((2,), 40 / 255 * 4 - 2), atol=0.03, rtol=0)
    frozen = mixture.sample(SampleRng(0, range(500)), temperature=0.0)
    assert len(frozen.unique(dim=0)) <= len(mixture.means)


def test_a_draw_depends_on_its_number_only() -> None:
    run = api.train("vae", "digits", _folder(), steps=3, precision="float32", quiet=True)
    many = api.sample(run, 6, seed=2, prior="fitted").x
    one = api.sample(run, 1, seed=2, start=4, prior="fitted").x
    assert (many[4:5].int() - one.int()).abs().max() <= 1
    assert not torch.equal(many, api.sample(run, 6, seed=2).x)


def _folder() -> str:
    import tempfile

    return tempfile.mkdtemp()
