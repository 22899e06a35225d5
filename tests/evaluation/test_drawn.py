"""Samples measured end to end, with models whose distribution is known."""

from dataclasses import dataclass

import pytest
import torch

from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import NonFiniteError, UsageError
from castalia.core.model import Generator
from castalia.core.sampling import Sampling
from castalia.core.spec import LabelSpec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.evaluation.drawn import NAMES, draw, is_of_samples, measure_samples, trivial
from castalia.evaluation.feature_network import FeatureSettings, feature_space
from castalia.evaluation.features import Coordinates
from castalia.evaluation.user_features import UserFeatures
from castalia.media.image.array import ImageArray
from castalia.media.image.stacked import StackedArray
from castalia.media.points.array import PointsArray
from castalia.media.points.toys import RING, RING_STD

from ..tools import Table
from .test_features import bars


@dataclass(frozen=True)
class ToyOptions(Sampling):
    shift: float = 0.0
    steps: int = 5


class Toy(Generator):
    """Samples are ``make(rng, label, options)``."""

    Config = Config
    SampleOptions = ToyOptions

    def __init__(self, spec, make, classes=0):
        super().__init__()
        self.spec, self.make, self.classes = spec, make, classes
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def stages(self):
        return ()

    def accepts(self):
        names = self.spec.classes or tuple(map(str, range(self.classes)))
        return {"label": LabelSpec(names)} if self.classes else {}

    def draw(self, n, given, rng, options, watch):
        assert rng.rows == n <= 256
        return Batch.of(self.make(rng, given.get("label"), options))


def ring(n, seed, modes=8, std=RING_STD):
    g = torch.Generator().manual_seed(seed)
    which = torch.randint(modes, (n,), generator=g)
    x = torch.from_numpy(RING).float()[which] + std * torch.randn(n, 2, generator=g)
    names = [str(i) for i in range(8)]
    return PointsArray(x.numpy(), name="ring", labels=which.numpy(), classes=names, modes=RING, mode_std=RING_STD)


def ring_model(modes=8, std=RING_STD, classes=0):
    def make(rng, condition, options):
        which = rng.integers("mode", modes) if condition is None else condition % modes
        return torch.from_numpy(RING).float()[which] + std * rng.normal("noise", 2) + options.shift

    return Toy(PointsSpec(2), make, classes)


COMPARED = {"frechet", "sliced", "precision", "recall", "density", "coverage", "variety"}


def with_ends(names):
    return {name + suffix for name in names for suffix in ("", "_floor", "_ceiling")}


def test_a_perfect_model_of_points_meets_the_floor():
    train, test = ring(3000, 1), ring(800, 2)
    found = measure_samples(ring_model(), train, test, n=1000)
    out = found.metrics
    modes = {"modes", "mode_quality", "mode_kl"}
    assert set(out) == with_ends(COMPARED | {"energy"} | modes) | {"memorisation", "sampling_speed"}
    assert all(is_of_samples(name) for name in out if name != "sampling_speed")
    assert not is_of_samples("nll")
    # the same counts everywhere, and what was done is in words
    shares, varied = with_ends({"precision", "recall", "density", "coverage"}), with_ends({"variety"})
    assert {m.n for name, m in out.items() if name not in shares | varied} == {1000}
    assert {out[name].n for name in shares} == {800}
    assert out["frechet"].detail == (
        "1000 samples against 800 of ring; features: coordinates as they are, resize: none"
    )
    assert out["frechet_floor"].detail.startswith("1000 real training examples against 800")
    for name in ("frechet", "sliced", "energy"):
        low, high = out[name].interval
        assert low <= out[name].value <= high
        assert out[name].value < 4 * abs(out[f"{name}_floor"].value) + 0.01
    assert out["sliced"].value < out["sliced_ceiling"].value / 2
    assert out["precision"].value > 0.9 > 0.3 > out["precision_ceiling"].value
    assert out["coverage"].value == pytest.approx(out["coverage_floor"].value, abs=0.1)
    assert out["modes"].value == 8
    assert out["mode_quality"].value == pytest.approx(0.989, abs=0.02)
    assert out["mode_quality_ceiling"].value < 0.1
    assert out["mode_kl"].value < 0.02
    assert out["memorisation"].interval[0] < 1 < out["memorisation"].interval[1]
    assert found.drawn.x.shape == (1000, 2)
    assert found.nearest.ids.shape == (1000,)
    assert found.nearest_features is None


def test_what_a_model_lacks_is_seen():
    train, test = ring(2000, 1), ring(800, 2)
    dropped = measure_samples(ring_model(modes=4), train, test, n=500).metrics
    assert dropped["modes"].value == 4
    assert dropped["mode_kl"].value == pytest.approx(0.693, abs=0.05)
    assert dropped["recall"].value < 0.6 < dropped["precision"].value
    wide = measure_samples(ring_model(std=0.2), train, test, n=500).metrics
    assert wide["precision"].value < 0.3
    assert wide["mode_quality"].value < 0.2
    copies = Toy(PointsSpec(2), lambda rng, condition, options: train.x[rng.integers("which", len(train))])
    copied = measure_samples(copies, train, test, n=500).metrics
    assert copied["memorisation"].value == 0
    assert copied["frechet"].value < 0.01


def test_the_seed_decides_everything_but_the_speed():
    train, test = ring(600, 1), ring(300, 2)
    a, b, c = (measure_samples(ring_model(), train, test, n=300, seed=s).metrics for s in (1, 1, 2))
    for out in (a, b, c):
        del out["sampling_speed"]
    assert a == b
    assert a["frechet"].value != c["frechet"].value


def test_samples_do_not_depend_on_how_many_are_drawn():
    few, many = draw(ring_model(), 40, seed=3), draw(ring_model(), 600, seed=3)
    assert torch.equal(few.x, many.x[:40])
    assert many.seconds > 0


def test_no_more_samples_than_training_examples_so_that_the_floor_has_as_many():
    found = measure_samples(ring_model(), ring(150, 1), ring(100, 2), n=1000)
    assert {m.n for m in found.metrics.values()} == {150, 100}  # precision and its kin at equal counts


def test_options_are_used_and_said():
    train, test = ring(300, 1), ring(100, 2)
    out = measure_samples(ring_model(), train, test, n=100, options=ToyOptions(shift=5.0)).metrics
    assert out["frechet"].value > 20
    assert out["frechet"].detail.endswith("; sampling options shift = 5.0")
    assert out["sampling_speed"].detail.endswith("; sampling options shift = 5.0")
    assert "options" not in out["frechet_floor"].detail
    plain = measure_samples(ring_model(), train, test, n=100, options=ToyOptions()).metrics
    assert "options" not in plain["frechet"].detail


def test_points_asked_for_by_class():
    train, test = ring(300, 1), ring(100, 2)
    out = measure_samples(ring_model(classes=8), train, test, n=200).metrics
    assert out["condition_accuracy"].value == out["condition_accuracy_floor"].value == 1
    assert out["condition_accuracy_ceiling"].value < 0.4
    half = measure_samples(ring_model(modes=4, classes=8), train, test, n=200).metrics
    assert half["condition_accuracy"].value == pytest.approx(0.5, abs=0.15)
    assert half["condition_accuracy"].interval[0] < half["condition_accuracy"].value


def bars_model(train, right=True, classes=2):
    def make(rng, condition, options):
        own = rng.integers("class", 2) if condition is None else condition
        wanted = own if right else 1 - own
        place = 2 * rng.integers("which", len(train) // 2) + wanted
        noise = rng.integers("noise", 9, *train.spec.shape)
        return (train.x[place].long() + noise).clamp(max=255).to(torch.uint8)

    return Toy(train.spec, make, classes)


def test_pictures_by_class():
    train, test = bars(300), bars(200, seed=1)
    space = feature_space(train, FeatureSettings(steps=60))
    found = measure_samples(bars_model(train), train, test, n=250, space=space)
    out = found.metrics
    names = COMPARED | {"kernel", "modes", "mode_kl", "condition_accuracy"}
    rest = {"memorisation", "memorisation_features", "sampling_speed"}
    assert set(out) == with_ends(names) | rest
    assert {name.removesuffix("_floor").removesuffix("_ceiling") for name in out} - {"sampling_speed"} <= NAMES
    assert all(space.name in out[name].detail for name in ("frechet", "kernel", "precision", "mode_kl"))
    assert out["condition_accuracy"].value > 0.9
    assert out["condition_accuracy_floor"].value > 0.9
    assert out["modes"].value == 2
    assert out["frechet"].value < out["frechet_ceiling"].value / 3
    assert out["memorisation"].value < 0.6
    assert found.nearest.ids.shape == found.nearest_features.ids.shape == (250,)
    wrong = measure_samples(bars_model(train, right=False), train, test, n=250, space=space).metrics
    assert wrong["condition_accuracy"].value < 0.1
    free = measure_samples(bars_model(train, classes=0), train, test, n=250, space=space).metrics
    assert "condition_accuracy" not in free


def test_a_stack_of_digits_has_all_combinations_as_modes():
    source = bars(300)
    base = ImageArray(source.x.numpy(), name="bars", labels=source.labels.numpy(), classes=source.spec.classes)
    train, test = (StackedArray(base, name="stacked", split=split) for split in ("train", "test"))
    space = feature_space(train, FeatureSettings(steps=60))
    small = [Table(d.batch(torch.arange(400).numpy()).x, d.spec, d.labels[:400]) for d in (train, test)]
    red = Toy(train.spec, lambda rng, c, o: small[0].x[rng.integers("which", 400)][:, :1].expand(-1, 3, -1, -1))
    out = measure_samples(red, *small, n=300, space=space).metrics
    # the channels always agree: 2 of 8 modes
    assert out["modes"].value == 2
    assert out["modes_floor"].value == 8
    assert out["mode_kl"].value == pytest.approx(1.386, abs=0.15)
    assert out["mode_kl_floor"].value < 0.1


def test_distances_in_an_inception_network_are_called_fid(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from .test_user_features import graph

    train, test = bars(60), bars(40, seed=1)
    space = UserFeatures(graph(tmp_path / "i.onnx", channels=1), inception=True)
    out = measure_samples(bars_model(train, classes=0), train, test, n=50, space=space).metrics
    assert {"fid", "fid_floor", "fid_ceiling"} <= set(out)
    assert "frechet" not in out
    assert "modes" not in out


def test_trivial_examples_keep_marginals_and_nothing_else():
    x = torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2)
    y = trivial(x)
    assert y.dtype == torch.uint8
    assert torch.equal(y.flatten(1).sort(0).values, x.flatten(1))
    assert not torch.equal(x, y)
    assert torch.equal(y, trivial(x))
    points = torch.randn(500, 2) * torch.tensor([1.0, 5.0])
    noise = trivial(points)
    assert noise.dtype == torch.float32
    assert (noise >= points.min(0).values).all()
    assert (noise <= points.max(0).values).all()
    assert float(noise[:, 1].std()) == pytest.approx(float(points[:, 1].max() - points[:, 1].min()) / 12**0.5, rel=0.1)


def test_broken_samples_and_too_few_examples_are_refused():
    train, test = ring(100, 1), ring(100, 2)
    nan = Toy(PointsSpec(2), lambda rng, c, o: torch.where(rng.uniform("x", 2) < 0.1, torch.nan, 0.0))
    with pytest.raises(NonFiniteError, match="of 50 samples are not finite"):
        measure_samples(nan, train, test, n=50)
    for n, a, b in ((10, train, test), (50, ring(10, 1), test), (50, train, ring(10, 2))):
        with pytest.raises(UsageError, match="at least 20"):
            measure_samples(ring_model(), a, b, n=n)


def test_a_collapsed_model_is_measured():
    train, test = ring(200, 1), ring(100, 2)
    one = Toy(PointsSpec(2), lambda rng, c, o: torch.ones(rng.rows, 2))
    out = measure_samples(one, train, test, n=100).metrics
    assert out["recall"].value == 0
    assert out["modes"].value == 0
    assert isinstance(feature_space(train), Coordinates)
    grey = Table(torch.randint(256, (60, 1, 6, 6), dtype=torch.uint8), ImageSpec(1, 6, 6))
    black = Toy(grey.spec, lambda rng, c, o: torch.zeros(rng.rows, 1, 6, 6, dtype=torch.uint8))
    space = feature_space(grey, FeatureSettings(steps=3))
    assert measure_samples(black, grey, grey, n=40, space=space).metrics["recall"].value == 0
