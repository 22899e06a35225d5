import numpy as np
import pytest
import torch

from castalia.core.errors import NonFiniteError, UsageError
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.core.weights import load_tensors, save_tensors
from castalia.evaluation.feature_network import (
    FeatureNetwork,
    FeatureSettings,
    cache_path,
    feature_space,
    train_features,
)
from castalia.evaluation.features import Coordinates, NetworkFeatures, StackedFeatures, prepare, see_all, see_data
from castalia.media.named import open_data
from castalia.media.points.toys import toy

from ..tools import Table

QUICK = FeatureSettings(steps=60)


def bars(n, *, labelled=True, channels=1, height=12, width=12, seed=0):
    """Pictures of a bright bar: class 0 lying, class 1 standing."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(60, (n, channels, height, width), generator=g, dtype=torch.uint8)
    label = torch.arange(n) % 2
    for i in range(n):
        place = int(torch.randint(1, min(height, width) - 3, (1,), generator=g))
        if label[i]:
            x[i, :, :, place : place + 2] = 220
        else:
            x[i, :, place : place + 2] = 220
    classes = ("lying", "standing") if labelled else ()
    data = Table(x, ImageSpec(channels, height, width, classes), label if labelled else None)
    data.name, data.fingerprint = "bars", f"bars-{n}-{labelled}-{channels}-{height}-{seed}"
    return data


def all_ids(data):
    return np.arange(len(data), dtype=np.int64)


def test_a_network_learns_the_labels_and_names_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path))
    train, test = bars(300), bars(100, seed=1)
    lines = []
    space = train_features(train, QUICK, lines.append)
    seen = see_data(space, test, all_ids(test))
    assert seen.features.shape == (100, 128)
    assert seen.features.dtype == torch.float32
    probabilities = space.probabilities(test.x)
    assert probabilities.shape == (100, 2)
    assert torch.allclose(probabilities.sum(1), torch.ones(100))
    assert torch.equal(probabilities.argmax(1), seen.labels)
    assert (seen.labels == test.labels).float().mean() > 0.95
    assert space.classes == ("lying", "standing")
    assert space.describe().startswith("features: bars class network ")
    assert space.describe().endswith("resize: none")
    assert "of classes right" in lines[-1]


def test_the_weights_are_made_once_kept_and_made_again_when_damaged(monkeypatch, tmp_path):
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path))
    train, lines = bars(100), []
    first = feature_space(train, QUICK, lines.append)
    path = cache_path(train, QUICK)
    assert path.parent == tmp_path / "features"
    made = path.read_bytes()
    lines.clear()
    assert feature_space(train, QUICK, lines.append).name == first.name
    assert not lines

    # a flipped bit; other tensors; other data: each is noticed, said, and repaired to the same weights
    damaged = bytearray(made)
    damaged[-5] ^= 1
    tensors, metadata = load_tensors(path)
    other = {**tensors, "head.bias": torch.zeros(7)}
    for content in (bytes(damaged), other, {**metadata, "fingerprint": "x"}):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_tensors(path, other if content is other else tensors, metadata if content is other else content)
        lines.clear()
        assert feature_space(train, QUICK, lines.append).name == first.name
        assert "trained again" in lines[0]
        assert load_tensors(path)[0].keys() == tensors.keys()
        assert all(torch.equal(a, tensors[k]) for k, a in load_tensors(path)[0].items())

    assert cache_path(train, FeatureSettings(steps=61)) != path
    assert cache_path(bars(100, seed=3), QUICK) != path


def test_a_cache_that_cannot_be_written_costs_time_only(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path / "file"))
    lines = []
    space = feature_space(bars(40), FeatureSettings(steps=4), lines.append)
    assert isinstance(space, NetworkFeatures)
    assert "not kept" in lines[-1]


def test_the_seed_decides_and_nothing_else_is_disturbed(monkeypatch, tmp_path):
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path))
    train = bars(60)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    a, b, c = (train_features(train, FeatureSettings(steps=5, seed=s)).name for s in (0, 0, 1))
    assert a == b != c
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("channels", "height", "width", "size"), [
    (1, 5, 9, (9, 9)), (3, 8, 8, (8, 8)), (4, 70, 33, (64, 64)),
])  # fmt: skip
def test_without_labels_it_tells_rotations_apart_whatever_the_shape(
    monkeypatch, tmp_path, channels, height, width, size
):
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path))
    data = bars(40, labelled=False, channels=channels, height=height, width=width)
    space = feature_space(data, FeatureSettings(steps=3))
    assert isinstance(space, NetworkFeatures)
    assert space.size == size
    assert "rotation network" in space.name
    assert (space.resize == "none") == ((height, width) == size)
    seen = see_data(space, data, all_ids(data))
    assert seen.features.shape == (40, 128)
    assert seen.labels is None
    assert space.probabilities(data.x) is None


def test_rotations_are_learnt():
    x = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    x[:, :, :3] = torch.randint(100, 256, (200, 1, 3, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Table(x, ImageSpec(1, 8, 8))
    data.fingerprint = "tops"
    lines = []
    train_features(data, QUICK, lines.append)
    assert lines[-1].startswith("features of table: 100.00% of rotations")


def test_an_example_does_not_depend_on_its_neighbours():
    data = bars(40)
    space = feature_space(data, FeatureSettings(steps=3))
    together = see_all(space, data.x)
    alone = space.see(data.x[7:8])
    # another batch size may take another kernel of the matrix product
    assert torch.allclose(together.features[7:8], alone.features, atol=1e-5)


def test_the_network_takes_any_size():
    for shape in ((1, 1, 1), (3, 2, 50), (4, 64, 64), (1, 28, 28)):
        network = FeatureNetwork(shape, 5, FeatureSettings()).eval()
        features, logits = network(torch.rand(2, *shape))
        assert features.shape == (2, 128)
        assert logits.shape == (2, 5)


def test_colours_that_cannot_be_seen_do_not_count():
    x = torch.randint(256, (2, 4, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = x.clone()
    x[:, 3, :2] = y[:, 3, :2] = 0
    y[:, :3, :2] = 77
    assert torch.equal(prepare(x, (6, 6)), prepare(y, (6, 6)))
    assert prepare(x, (3, 3)).shape == (2, 4, 3, 3)


def test_points_are_their_own_features():
    data = Table(torch.randn(30, 3), PointsSpec(3))
    space = feature_space(data)
    assert isinstance(space, Coordinates)
    seen = see_data(space, data, all_ids(data))
    assert torch.equal(seen.features, data.x)
    with pytest.raises(NonFiniteError, match="1 of 30"):
        see_all(space, torch.cat([data.x[:29], torch.full((1, 3), torch.nan)]))
    with pytest.raises(UsageError, match="no pictures"):
        train_features(data)


def test_points_around_known_centres_have_classes():
    data = toy("ring-8", "test")
    space = feature_space(data)
    assert torch.equal(see_data(space, data, all_ids(data)).labels, data.labels)
    assert torch.equal(space.probabilities(data.x[:5]).argmax(1), data.labels[:5])
    assert feature_space(toy("swiss-roll", "test")).classes == ()


def test_too_few_pictures_are_refused():
    with pytest.raises(UsageError, match="at least 8"):
        feature_space(bars(7))


def test_a_stack_is_seen_channel_by_channel():
    base = bars(60, seed=5)
    single = feature_space(base, QUICK)
    space = StackedFeatures(single, 3)
    assert space.classes[:3] == ("lyinglyinglying", "lyinglyingstanding", "lyingstandinglying")
    index = torch.tensor([[0, 1, 2], [1, 1, 1], [3, 0, 0]])
    x = torch.stack([torch.cat([base.x[i] for i in row]) for row in index])
    seen = see_all(space, x)
    parts = single.see(base.x[:4])
    assert torch.allclose(seen.features[0], parts.features[:3].flatten(), atol=1e-5)
    expected = torch.einsum("a,b,c->abc", *single.probabilities(base.x[:3])).flatten()
    assert torch.allclose(space.probabilities(x)[0], expected, atol=1e-6)
    assert seen.labels.tolist() == [2, 7, 4]
    with pytest.raises(UsageError, match="3 channels"):
        space.see(base.x[:4])


def test_mnist_digits_are_told_apart(castalia_data, monkeypatch, tmp_path):
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path))
    train, test = (open_data("mnist", split=s) for s in ("train", "test"))
    space = feature_space(train, FeatureSettings(steps=500))
    right = see_data(space, test, all_ids(test)).labels == test.labels
    assert right.float().mean() >= 0.985
