from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.decomposition import PCA

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.creative import maps
from tests.creative.toy import SCALE, Linear, pictures
from tests.tools import Table


def correlated(n: int) -> torch.Tensor:
    """Pictures whose first two pixels vary most, together."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 2)) @ np.array([[30, 25, 2, 0], [6, -8, 0, 3]])
    return torch.from_numpy((z + 128).round().clip(0, 255).astype(np.uint8)).view(n, 1, 2, 2)


def test_quantiles_are_those_of_equal_probabilities():
    z = maps.normal_quantiles(7, 2.0).numpy()
    assert z[0] == -2
    assert z[-1] == 2
    assert z[3] == 0
    np.testing.assert_allclose(np.diff(norm.cdf(z)), (norm.cdf(2) - norm.cdf(-2)) / 6, atol=1e-7)


def test_two_latent_dimensions_are_mapped_like_a_plot():
    model = Linear(2)  # pictures of 2 rows, 1 column: row 0 shows the first latent, row 1 the second
    out = maps.latent_map(model, 5, 2.0)
    assert out.shape == (5, 5, 1, 2, 1)
    assert out.dtype == torch.uint8
    expected = (128 + SCALE * maps.normal_quantiles(5, 2.0)).round().to(torch.uint8)
    for row in range(5):
        assert torch.equal(out[row, :, 0, 0, 0], expected)
        assert torch.equal(out[:, row, 0, 1, 0], expected.flip(0))


def test_chosen_dimensions():
    plane = maps.plane_of_dims(Linear(), (3, 1))
    out = maps.latent_map(Linear(), 3, 1.0, plane=plane)
    assert out[0, 2].flatten().tolist() == [128, 144, 128, 144]
    assert out[2, 2].flatten().tolist() == [128, 112, 128, 144]
    for bad in ((1, 1), (0, 4), (-1, 0), (0,), (0, 1, 2)):
        with pytest.raises(UsageError):
            maps.plane_of_dims(Linear(), bad)


def test_principal_plane_agrees_with_scikit_learn():
    z = Linear().encode(Batch.of(correlated(500)))
    plane, reference = maps.principal_plane(z), PCA(2).fit(z.numpy().astype(np.float64))
    axes = plane.axes.double().numpy()
    cosines = (axes * reference.components_).sum(1) / np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-6)
    coordinates = plane.coordinates(z).double().numpy()
    np.testing.assert_allclose(coordinates.std(0), 1, atol=1e-4)
    theirs = reference.transform(z.numpy().astype(np.float64)) * np.sign(cosines)
    np.testing.assert_allclose(coordinates, theirs / theirs.std(0), atol=1e-4)
    assert (axes[np.arange(2), np.abs(axes).argmax(1)] > 0).all()


def test_points_of_a_plane_have_their_coordinates():
    plane = maps.principal_plane(Linear().encode(Batch.of(correlated(200))))
    points = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(plane.coordinates(plane.latents(points)), points, atol=1e-5)


def test_map_of_more_dimensions_follows_the_data():
    x = correlated(300)
    out = maps.latent_map(Linear(), 3, 1.0, x=x)
    plane = maps.principal_plane(Linear().encode(Batch.of(x)))
    centre = (128 + SCALE * plane.origin).round()
    right = (128 + SCALE * (plane.origin + plane.axes[0])).round()
    assert torch.equal(out[1, 1].flatten().float(), centre)
    assert torch.equal(out[1, 2].flatten().float(), right)
    with pytest.raises(UsageError, match="4 latent dimensions"):
        maps.latent_map(Linear(), 3)
    for cells, span in ((1, 1.0), (3, 0.0), (3, float("nan"))):
        with pytest.raises(UsageError):
            maps.latent_map(Linear(2), cells, span)


def test_embedding_carries_labels_and_ids():
    x, labels = correlated(400), torch.arange(400) % 5
    found = maps.embed(Linear(), Table(x, ImageSpec(1, 2, 2), labels), limit=50)
    assert found.coordinates.shape == (50, 2)
    assert found.ids[0] == 0
    assert found.ids[-1] == 399
    assert found.labels is not None
    assert torch.equal(found.labels, labels[torch.from_numpy(found.ids)])
    again = maps.embed(Linear(), Table(x, ImageSpec(1, 2, 2)), plane=found.plane)
    assert again.labels is None
    assert torch.allclose(again.coordinates[found.ids], found.coordinates)


def test_two_latent_dimensions_are_their_own_coordinates():
    x = pictures(20, dims=2)
    found = maps.embed(Linear(2), Table(x, ImageSpec(1, 2, 1)))
    assert torch.equal(found.coordinates, Linear(2).encode(Batch.of(x)))


def test_data_that_do_not_vary_lie_in_the_middle():
    x = torch.full((4, 1, 2, 2), 100, dtype=torch.uint8)
    found = maps.embed(Linear(), Table(x, ImageSpec(1, 2, 2)))
    assert torch.equal(found.coordinates, torch.zeros(4, 2))
    with pytest.raises(UsageError):
        maps.embed(Linear(), Table(x[:1], ImageSpec(1, 2, 2)))
