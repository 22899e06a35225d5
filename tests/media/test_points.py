import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from castalia.configuration import medium_of, spec_from_json, spec_to_json
from castalia.core.data import Batch
from castalia.core.errors import RunError, UsageError
from castalia.core.rng import SampleRng
from castalia.core.specs.points import PointsSpec
from castalia.media.image.write import read_recipe
from castalia.media.named import open_data
from castalia.media.points.array import PointsArray
from castalia.media.points.draw import points_image, ticks
from castalia.media.points.files import read_table
from castalia.media.points.medium import PointsMedium
from castalia.media.points.toys import TOYS, toy

RECIPE = {"model": "wgan", "seed": 7}


def test_batch_is_rows_and_labels():
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    data = PointsArray(x, name="five", labels=np.array([0, 1, 0, 1, 1]), classes=("a", "b"))
    batch = data.batch(np.array([3, 0, 3]), SampleRng(0, range(3)))
    assert batch.x.tolist() == [[6, 7], [0, 1], [6, 7]]
    assert batch.label.tolist() == [1, 0, 1]
    assert batch.ids.tolist() == [3, 0, 3]
    assert batch.x.dtype == torch.float32
    assert data.spec == PointsSpec(2, ("a", "b"))
    assert data.modes is None
    assert data.mode_std == 0
    other = PointsArray(x, name="unlabelled")
    assert other.batch(np.array([1])).label is None
    assert other.fingerprint != data.fingerprint
    assert PointsArray(x.copy(), name="again").fingerprint == other.fingerprint
    moved = x.copy()
    moved[2, 1] += 1e-3
    assert PointsArray(moved, name="moved").fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "bad",
    [
        {"points": np.zeros((3, 2))},
        {"points": np.zeros(3, np.float32)},
        {"points": np.zeros((3, 0), np.float32)},
        {"points": np.zeros((3, 2), np.float32), "labels": np.zeros(2)},
        {"points": np.zeros((3, 2), np.float32), "modes": np.zeros((4, 3))},
    ],
)
def test_array_refuses_other_shapes(bad):
    with pytest.raises(ValueError):
        PointsArray(bad.pop("points"), name="bad", **bad)


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_deterministic(name):
    train, test = open_data(name), open_data(name, split="test")
    assert len(train) == 100_000
    assert len(test) == 10_000
    assert train.spec.shape == (2,)
    assert train.fingerprint == toy(name, "train").fingerprint != test.fingerprint
    assert train.name == name
    with pytest.raises(UsageError, match="It has: train, test"):
        open_data(name, split="validation")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("ring-8", [-0.7144539, -0.7173243]),
        ("grid-25", [1.9350783, 3.9910526]),
        ("swiss-roll", [-1.0553243, -0.8850114]),
        ("two-moons", [0.6671125, 0.7573917]),
        ("checkerboard", [1.1055366, -0.380861]),
    ],
)
def test_toys_stay_as_they_are(name, first):
    """Another stream of random numbers would make every run refuse to resume; to the last bit but one."""
    assert open_data(name).x[0].tolist() == pytest.approx(first, rel=1e-6)


def test_a_checkerboard_has_dark_squares_alone():
    x = open_data("checkerboard").x
    assert float(x.min()) >= -2.0
    assert float(x.max()) <= 2.0
    corner = (x + 2).floor().clamp(0, 3).long()
    assert ((corner[:, 0] + corner[:, 1]) % 2 == 0).all()
    counts = torch.bincount(4 * corner[:, 0] + corner[:, 1], minlength=16)
    assert (counts > 0).sum() == 8
    assert (counts[counts > 0].double() / len(x) - 1 / 8).abs().max() < 0.006  # five standard errors


@pytest.mark.parametrize(("name", "modes", "std", "radius"), [("ring-8", 8, 0.01, 1), ("grid-25", 25, 0.05, None)])
def test_mixtures_are_what_they_say(name, modes, std, radius):
    """Per mode: share, mean and deviation within five standard errors of the stated ones."""
    data = open_data(name)
    assert data.modes.shape == (modes, 2)
    assert data.modes.dtype == torch.float64
    assert data.mode_std == std
    assert data.spec.classes == tuple(map(str, range(modes)))
    if radius:
        assert torch.allclose(data.modes.norm(dim=1), torch.full((modes,), float(radius), dtype=torch.float64))
    else:
        assert sorted(set(data.modes.flatten().tolist())) == [-4, -2, 0, 2, 4]
    n = len(data)
    for k in range(modes):
        mine = data.x[data.labels == k].double()
        share = 1 / modes
        assert abs(len(mine) / n - share) < 5 * math.sqrt(share * (1 - share) / n)
        offset = mine - data.modes[k]
        assert offset.mean(dim=0).abs().max() < 5 * std / math.sqrt(len(mine))
        assert (offset.std(dim=0) / std - 1).abs().max() < 5 / math.sqrt(2 * len(mine))


def test_three_deviations_hold_what_a_gaussian_holds():
    """The share of points within 3 sigma of their mode is 1 - exp(-4.5) = 98.89 %, the ceiling of every metric."""
    data = open_data("grid-25")
    near = (torch.cdist(data.x.double(), data.modes).min(dim=1).values <= 3 * data.mode_std).double().mean()
    assert abs(near - (1 - math.exp(-4.5))) < 5 * math.sqrt(0.0111 / len(data))


def test_swiss_roll_is_the_one_of_the_paper():
    """scikit-learn's roll, coordinates 0 and 2, divided by 7.5: equal moments within five standard errors."""
    from sklearn.datasets import make_swiss_roll

    peer = torch.from_numpy(make_swiss_roll(100_000, noise=0.25, random_state=0)[0][:, [0, 2]] / 7.5)
    mine = open_data("swiss-roll").x.double()
    assert (mine.mean(0) - peer.mean(0)).abs().max() < 5 * math.sqrt(2) * mine.std(0).max() / math.sqrt(len(mine))
    assert (mine.std(0) / peer.std(0) - 1).abs().max() < 0.01
    radius = mine.norm(dim=1) * 7.5
    angle = torch.atan2(mine[:, 1], mine[:, 0]) % (2 * math.pi)
    turns = ((radius - angle) / (2 * math.pi)).round()
    assert (radius - angle - 2 * math.pi * turns).std() < 0.3, "the radius is the angle, up to the noise"


def test_two_moons_are_two_half_circles():
    data = open_data("two-moons", split="test")
    x = data.x.double()
    upper, lower = x[data.labels == 0], x[data.labels == 1]
    assert data.spec.classes == ("upper", "lower")
    for part, centre, sign in ((upper, (0, 0), 1), (lower, (1, 0.5), -1)):
        offset = part - torch.tensor(centre)
        assert abs(offset.norm(dim=1).mean() - 1) < 0.01
        assert abs(offset.norm(dim=1).std() - 0.05) < 0.005
        assert (sign * offset[:, 1] > -0.3).all()


# The medium


def test_spec_survives_json():
    spec = PointsSpec(3, ("a", "b"))
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    assert isinstance(medium_of(spec), PointsMedium)


def test_write_and_read_back_bit_for_bit(tmp_path):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32))
    x[0] = torch.tensor([1.2e-38, 3.4028235e38, -0.1])
    (path,) = PointsMedium().write(Batch.of(x), PointsSpec(3), tmp_path / "new", 0, RECIPE)
    assert path == tmp_path / "new" / "points.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["number", "x0", "x1", "x2"]
    assert [row[0] for row in rows[1:]] == list(map(str, range(200)))
    assert json.loads((tmp_path / "new" / "points.json").read_text()) == {**RECIPE, "start": 0, "n": 200}
    assert torch.equal(torch.from_numpy(read_table(path).points), x)
    assert read_table(path).notes == ["Coordinates: x0, x1, x2."]


def test_later_numbers_get_their_own_file(tmp_path):
    medium = PointsMedium()
    medium.write(Batch.of(torch.zeros(2, 1)), PointsSpec(1), tmp_path)
    (path,) = medium.write(Batch.of(torch.ones(2, 1)), PointsSpec(1), tmp_path, 100, RECIPE)
    assert path.read_text() == "number,x0\n100,1.0\n101,1.0\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["points-0100.csv", "points-0100.json", "points.csv"]


def test_drawing_carries_its_recipe(tmp_path):
    PointsMedium().draw(Batch.of(torch.randn(50, 2)), PointsSpec(2), tmp_path / "grid.png", RECIPE)
    assert read_recipe(tmp_path / "grid.png") == RECIPE
    assert json.loads((tmp_path / "grid.json").read_text()) == RECIPE
    with pytest.raises(UsageError, match=r"\.png"):
        PointsMedium().draw(Batch.of(torch.randn(50, 2)), PointsSpec(2), tmp_path / "grid.jpg")
    with pytest.raises(RunError, match="cannot be written"):
        PointsMedium().draw(Batch.of(torch.randn(50, 2)), PointsSpec(2), tmp_path / "missing" / "a.png")
    with pytest.raises(UsageError, match="at least one"):
        points_image(torch.zeros(0, 2))


def ink(image: Image.Image) -> np.ndarray:
    """Where the picture is blue, bool (H, W)."""
    pixels = np.asarray(image).astype(int)
    return pixels[:, :, 2] - pixels[:, :, 0] > 60


def test_points_are_drawn_where_they_are():
    """Corners of a rectangle twice as wide as high: the ink keeps the proportion, and up is up."""
    image = points_image(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    rows, columns = np.nonzero(ink(image))
    width, height = np.ptp(columns), np.ptp(rows)
    dot = 9
    assert abs((width - dot) / (height - dot) - 2) < 0.1
    left = rows[columns < columns.min() + dot]
    right = rows[columns > columns.max() - dot]
    assert np.ptp(left) > 100, "both ends of the left side"
    assert right.min() > rows.max() - dot - 2, "the point on the right lies below"


@pytest.mark.parametrize(("dims", "panels"), [(1, 1), (2, 1), (3, 3), (7, 3)])
def test_panels(dims, panels):
    one = points_image(torch.zeros(1, 2))
    image = points_image(torch.randn(20, dims))
    assert image.size == (panels * one.width, one.height)
    assert image.mode == "RGB"


def test_histogram_has_the_shape_of_its_counts():
    image = points_image(torch.tensor([[0.0]] * 30 + [[1.0]] * 10))
    tall = ink(image).sum(axis=0)
    left, right = tall[: len(tall) // 2].max(), tall[len(tall) // 2 :].max()
    assert abs(left / right - 3) < 0.1


@pytest.mark.parametrize(
    "x",
    [
        torch.full((4, 2), 7.0),
        torch.zeros(1, 1),
        torch.full((3, 2), float("nan")),
        torch.full((3, 1), float("inf")),
        torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]),
        torch.tensor([[3.4e38, -3.4e38], [-3.4e38, 3.4e38]]),
        torch.tensor([[1e-45, 0.0]]),
        torch.tensor([[1e30, 1e30]]),
        torch.tensor([[1e8, 0.0], [1e8 + 8, 0.0]]),
        torch.tensor([[1e-45], [0.0]]),
        torch.tensor([[123456.0, 0.00001]] * 2),
    ],
)
def test_anything_can_be_drawn(x):
    image = points_image(x)
    assert image.height > 400
    finite = bool(torch.isfinite(x).all(dim=1).any())
    assert bool(ink(image).any()) == finite


@pytest.mark.parametrize(
    ("low", "high"), [(-4.5, 4.5), (0, 1), (0.001, 0.0012), (-1e30, 1e30), (1e8, 1e8 + 8), (5, 1e5)]
)
def test_ticks_are_few_round_and_told_apart(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low <= value <= high for value, _ in found)
    assert len({text for _, text in found}) == len(found)
    assert all(abs(float(text) - value) <= 1e-6 * max(abs(low), abs(high)) for value, text in found)


def test_ticks_of_a_plain_axis():
    assert [text for _, text in ticks(-4.5, 4.5)] == ["-4", "-2", "0", "2", "4"]
    assert [text for _, text in ticks(0, 1)] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
