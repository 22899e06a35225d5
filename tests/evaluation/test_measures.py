"""A medium that brings its own measures: notes, of which some are silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.spec import Field, LabelSpec, ScalarSpec, Spec
from castalia.estimators.metric import Metric
from castalia.evaluation import measures
from castalia.evaluation.features import Coordinates
from castalia.media.base import Measure, Work
from castalia.media.measures import beside
from castalia.media.rooms import ROOMS

from ..tools import Table
from ..training.tenants import GraphMedium


@dataclass(frozen=True)
class NoteSpec(Spec):
    classes: tuple[str, ...] = ()

    def fields(self):
        return {"x": Field(torch.float32, (None,), padding=-1)}


def height(batch: Batch) -> np.ndarray:
    x = batch.x.double().numpy()
    return np.array([np.nan if (row < 0).all() else row[row >= 0].mean() for row in x])


def measure_height(work: Work) -> dict[str, Metric]:
    return beside("height", height, work, "steps", "mean height")


def measure_copies(work: Work) -> dict[str, Metric]:
    assert work.samples is not None
    return {"copies_longest": Metric(len(work.samples), "notes", "exact", len(work.samples), work.seed)}


def refuse(work: Work) -> dict[str, Metric]:
    raise AssertionError("no model here is a Density")


class NoteMedium(GraphMedium):
    name = "notes"
    spec = NoteSpec
    measures = (
        Measure("height", ("samples", "held-out"), measure_height),
        Measure("copies", ("samples", "train", "Generator"), measure_copies),
        Measure("guess", ("samples", "Density"), refuse),
    )


class Notes(Generator):
    """Notes of different lengths in each batch; every fourth one is silent."""

    Config = Config

    def __init__(self, classes=()):
        super().__init__()
        self.spec, self.nothing = NoteSpec(classes), torch.nn.Parameter(torch.zeros(1))

    def stages(self):
        return ()

    def accepts(self):
        return {"label": LabelSpec(self.spec.classes)} if self.spec.classes else {}

    def draw(self, n, given, rng, options, watch):
        x = rng.uniform("note", 2 + n % 3) if "label" not in given else given["label"][:, None].float().expand(n, 3)
        return Batch.of(torch.where(rng.uniform("silent")[:, None] < 0.25, torch.full_like(x, -1), x))


@pytest.fixture(autouse=True)
def medium(monkeypatch):
    monkeypatch.setitem(ROOMS, "notes", NoteMedium)


def notes(n, seed, classes=()):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2 if classes else None
    return Table(torch.rand(n, 4, generator=g), NoteSpec(classes), labels)


def test_samples_of_any_medium_are_measured_as_it_says():
    found = measures.measure(Notes(), notes(300, 1), notes(50, 2), n=290)
    out = found.metrics
    assert set(out) == {"sampling_speed", "height", "height_floor", "copies_longest"}
    assert len(found.drawn.examples) == out["copies_longest"].value == 290, "several batches, whose lengths differ"
    assert found.nearest is None
    assert out["height"].value == pytest.approx(0.5, abs=0.05)
    assert out["height_floor"].value == pytest.approx(0.5, abs=0.05)
    assert out["height_floor"].n == 50
    silent = 290 - out["height"].n
    assert 40 < silent < 110
    assert f"{out['height'].n} samples; {silent} more have none" in out["height"].detail
    assert measures.measure(Notes(), notes(300, 1), notes(50, 2), n=290).metrics["height"] == out["height"]


def test_samples_have_the_classes_of_the_data():
    out = measures.measure(Notes(("low", "high")), notes(80, 1, ("low", "high")), notes(9, 2, ("low", "high")), n=80)
    assert out.drawn.condition is not None
    assert out.drawn.condition.sum() == 40


def test_metrics_of_samples_are_known_by_their_measures():
    for name in ("height", "height_floor", "copies_longest", "frechet", "frechet_ceiling"):
        assert measures.measured_by(NoteSpec(), name)
    for name in ("nll", "sampling_speed", "heights"):
        assert not measures.measured_by(NoteSpec(), name)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UsageError, match=r"at least 2 .* 1, 300 and 50.* --drawn 0"):
        measures.measure(Notes(), notes(300, 1), notes(50, 2), n=1)
    with pytest.raises(UsageError, match="not compared in the features"):
        measures.measure(Notes(), notes(30, 1), notes(50, 2), n=9, space=Coordinates())


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (Measure("height", ("smaples",), measure_height), "not 'smaples'"),
        (Measure("depth", ("samples", "held-out"), measure_height), "'depth' of notes gave a metric called 'height'"),
    ],
)
def test_a_measure_that_breaks_the_rules_is_a_mistake_in_the_program(one, words, monkeypatch):
    monkeypatch.setattr(NoteMedium, "measures", (one,))
    with pytest.raises(ValueError, match=words):
        measures.measure(Notes(), notes(30, 1), notes(50, 2), n=9)


@dataclass(frozen=True)
class SongSpec(NoteSpec):
    pass


class SongMedium(NoteMedium):
    """Notes that have the wanted height beside them."""

    name = "songs"
    spec = SongSpec
    measures = (Measure("miss", ("samples", "held-out"), lambda work: measure_miss(work)),)


def measure_miss(work: Work) -> dict[str, Metric]:
    """How far samples lie from the held-out examples whose heights they were given."""
    if work.asked is None:
        return {}
    true = work.held_out.batch(work.asked).x
    far = (work.samples.x - true).abs().mean().item()
    return {"miss": Metric(far, "steps", "exact", len(true), work.seed)}


class Songs(Notes):
    """Sings the height that it is given, or 99."""

    def __init__(self, spec, takes):
        super().__init__()
        self.spec, self.takes = spec, takes

    def accepts(self):
        return dict(self.spec.columns) if self.takes else {}

    def draw(self, n, given, rng, options, watch):
        wanted = given["height"] if "height" in given else torch.full((n,), 99.0)
        return Batch.of(wanted[:, None].expand(n, 3).contiguous(), None, {"height": wanted})


class Heights(Table):
    def batch(self, ids, rng=None):
        plain = super().batch(ids, rng)
        return Batch(plain.x, plain.ids, None, {"height": plain.x[:, 0]})


@pytest.mark.parametrize("takes", [True, False])
def test_columns_of_held_out_examples_are_given(takes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that accepts what stands beside held-out examples is measured against those very examples."""
    monkeypatch.setitem(ROOMS, "songs", SongMedium)
    spec = SongSpec(columns=(("height", ScalarSpec("steps")),))
    train, held = (Heights(torch.rand(40, 1).expand(40, 3).contiguous() + k, spec) for k in range(2))
    model = Songs(spec, takes).eval()
    found = measures.measure(model, train, held, n=16)
    assert len(found.drawn.examples) == 16
    if takes:
        assert found.metrics["miss"].value == 0
        assert measures.columns_asked(model, held, 16, 0).tolist() == sorted(
            set(measures.columns_asked(model, held, 16, 0))
        )
        few = measures.measure(model, train, held, n=40)
        assert len(few.drawn.examples) == 40
    else:
        assert "miss" not in found.metrics
        assert measures.columns_asked(model, held, 16, 0) is None
