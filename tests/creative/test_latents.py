from __future__ import annotations

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.creative import latents
from castalia.models.autoencoders.vae import VAE, VAEConfig
from tests.creative.toy import SCALE, Linear, pictures


@pytest.fixture(scope="module")
def vae() -> VAE:
    config = VAEConfig(network="dense", latent_dims=5, widths=(16,))
    model = build(VAE, config, ImageSpec(1, 6, 5), seed=3).eval()
    assert isinstance(model, VAE)
    return model


def test_reconstruct_is_the_identity_of_the_linear_model_and_works_in_chunks():
    model, x = Linear(), pictures(600)
    assert torch.equal(latents.reconstruct(model, x), x)
    assert model.largest == latents.ROWS


def test_decode_keeps_leading_dimensions():
    z = torch.zeros(2, 3, 4)
    assert latents.decode(Linear(), z).shape == (2, 3, 1, 2, 2)


def test_interpolate_linear_is_the_mean_of_the_pictures_in_the_middle():
    a, b = pictures(3, seed=1), pictures(3, seed=2)
    a, b = a // 2 * 2, b // 2 * 2
    out = latents.interpolate(Linear(), a, b, 5, "linear")
    assert out.shape == (3, 5, 1, 2, 2)
    assert out.dtype == torch.uint8
    assert torch.equal(out[:, 0], a)
    assert torch.equal(out[:, -1], b)
    assert torch.equal(out[:, 2], ((a.int() + b.int()) // 2).to(torch.uint8))


@pytest.mark.parametrize("how", ["linear", "spherical"])
def test_interpolation_of_a_vae_starts_and_ends_at_reconstructions(vae, how):
    g = torch.Generator().manual_seed(0)
    a = torch.randint(256, (2, 1, 6, 5), generator=g, dtype=torch.uint8)
    b = torch.randint(256, (2, 1, 6, 5), generator=g, dtype=torch.uint8)
    out = latents.interpolate(vae, a, b, 4, how).int()
    # one grey level: matrix products may round differently in batches of other sizes
    assert (out[:, 0] - latents.reconstruct(vae, a)).abs().max() <= 1
    assert (out[:, -1] - latents.reconstruct(vae, b)).abs().max() <= 1


def test_interpolate_refuses_bad_requests():
    for a, b, frames in ((1, 2, 4), (1, 1, 1), (0, 0, 3)):
        with pytest.raises(UsageError):
            latents.interpolate(Linear(), pictures(a), pictures(b), frames)


def test_random_walk_visits_samples_of_the_model(vae):
    rng = SampleRng(5, range(3))
    film = latents.random_walk(vae, 3, 12, rng).int()
    assert film.shape == (12, 1, 6, 5)
    assert (film[::4] - vae.sample(3, rng=rng).x).abs().max() <= 1
    assert torch.equal(film, latents.random_walk(vae, 3, 12, SampleRng(5, range(3))).int())
    assert not torch.equal(film, latents.random_walk(vae, 3, 12, SampleRng(6, range(3))).int())
    with pytest.raises(UsageError, match="4 points"):
        latents.random_walk(vae, 4, 12, rng)


def test_informative_dims_are_those_of_largest_kl():
    x = torch.full((8, 1, 2, 2), 128, dtype=torch.uint8)
    x[:, 0, 0, 1], x[:, 0, 1, 0] = 200, 150
    assert latents.informative_dims(Linear(), x, 2) == [1, 2]
    assert latents.informative_dims(Linear(), x) == [1, 2, 0, 3]


def test_traverse_sets_one_dimension_at_a_time():
    x = pictures(3)
    values = (-2.0, 0.0, 1.5)
    out = latents.traverse(Linear(), x, [3, 0], values)
    assert out.shape == (2, 3, 1, 2, 2)
    assert out.dtype == torch.uint8
    for row, d in enumerate((3, 0)):
        for column, value in enumerate(values):
            expected = x[0].flatten().clone()
            expected[d] = int(128 + SCALE * value)
            assert torch.equal(out[row, column].flatten(), expected)


def test_traverse_chooses_dims_by_kl_and_can_start_from_the_prior():
    x = torch.full((4, 1, 2, 2), 128, dtype=torch.uint8)
    x[:, 0, 1, 1] = 220
    out = latents.traverse(Linear(), x, values=(0.0,))
    assert out.shape == (4, 1, 1, 2, 2)
    assert (out[0] == 128).all()  # the most informative dimension comes first; setting it to 0 erases it
    from_prior = latents.traverse(Linear(), None, [2], (1.0,))
    assert from_prior.flatten().tolist() == [128, 128, 144, 128]


def test_traverse_refuses_bad_requests():
    for x, dims, values in ((None, None, (0.0,)), (None, [4], (0.0,)), (None, [-1], (0.0,)), (None, [0], ())):
        with pytest.raises(UsageError):
            latents.traverse(Linear(), x, dims, values)
