"""CTGAN, and what the systems of tables share: modes, training by sampling, packs, conditions and rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.table import Part, TableSpec
from castalia.media.table.array import TableArray
from castalia.media.table.read import TableOptions, open_table
from castalia.media.table.sets import people
from castalia.models.tables.columns import Columns, fit_modes
from castalia.models.tables.conditions import RowSampling, rule_of, satisfied
from castalia.models.tables.ctgan import CTGAN, Balanced, CTGANConfig
from castalia.models.tables.tabddpm import TabDDPM, TabDDPMConfig
from castalia.models.tables.tvae import TVAE, TVAEConfig

DATA = people("train")
MODES = fit_modes(DATA, DATA.spec)
ALL = DATA.batch(np.arange(1000))


def ctgan(**options) -> CTGAN:
    config = CTGANConfig(16, (32,), (32,), modes=MODES, **options)
    model = build(CTGAN, config, DATA.spec, 0)
    model.initialise(DATA, BatchRng(0, total=1), {})
    return model


def tabddpm(**options) -> TabDDPM:
    model = build(TabDDPM, TabDDPMConfig((32,), 16, steps=20, **options), DATA.spec, 0)
    model.initialise(DATA, BatchRng(0, total=1), {})
    return model


def test_modes_are_a_mixture() -> None:
    assert [len(m) > 0 for m in MODES] == [not part.listed for part in DATA.spec.parts]
    age = np.array(MODES[0])
    assert age[:, 0].sum() == pytest.approx(1)
    assert 2 <= len(age) <= 10
    there = ALL.x[:, 0].numpy()
    assert (age[:, 0] * age[:, 1]).sum() == pytest.approx(there.mean(), abs=1.5)


def test_rows_come_back_from_what_networks_see() -> None:
    columns = Columns(DATA.spec, MODES)
    for rng in (None, BatchRng(3, total=len(ALL))):
        back = columns.outside(columns.inside(ALL, rng))
        assert torch.equal(back.extra["missing"], ALL.extra["missing"])
        for j, part in enumerate(DATA.spec.parts):
            gap = (back.x[:, j] - ALL.x[:, j]).abs()
            # numbers beyond four deviations of their mode are cut off: few
            limit = 0 if part.listed else 1.01 * (part.step or 1e-3)
            assert (gap <= limit).double().mean() > 0.97, part.name


def test_modes_are_drawn_by_their_odds() -> None:
    spec = TableSpec((Part("x", "number", low=-10, high=10),))
    columns = Columns(spec, (((0.75, 0.0, 1.0), (0.25, 0.0, 1.0)),))
    batch = Batch.of(torch.zeros(20_000, 1, dtype=torch.float64), None, {"missing": torch.zeros(20_000, 1).byte()})
    seen = columns.inside(batch, BatchRng(0, total=20_000))
    assert seen[:, 1].mean().item() == pytest.approx(0.75, abs=0.01)


def test_training_by_sampling_has_its_odds() -> None:
    table = Balanced(DATA, DATA.spec)
    n = 30_000
    batch = table.batch(np.zeros(n, np.int64), BatchRng(1, total=n))
    asked = batch.extra["asked"]
    lists = [j for j, part in enumerate(DATA.spec.parts) if part.listed]
    assert torch.bincount(asked).tolist() == pytest.approx([n / 3] * 3, rel=0.05)
    for k, j in enumerate(lists):
        counts = torch.bincount(DATA.x[:, j].long()).double()
        expected = (counts + 1).log() / (counts + 1).log().sum()
        seen = torch.bincount(batch.x[asked == k, j].long()).double()
        torch.testing.assert_close(seen / seen.sum(), expected, rtol=0, atol=0.02)
    again = table.batch(np.zeros(n, np.int64), BatchRng(1, total=n))
    assert torch.equal(batch.x, again.x)
    halves = [table.batch(np.zeros(n // 2, np.int64), BatchRng(1, total=n, start=s, rows=n // 2)) for s in (0, n // 2)]
    assert torch.equal(torch.cat([h.x for h in halves]), batch.x)


def test_what_the_generator_is_told() -> None:
    model = ctgan()
    batch = Balanced(DATA, DATA.spec).batch(np.arange(50), BatchRng(0, total=50))
    told = model.told(batch)
    assert torch.equal(told.sum(1), torch.ones(50))
    start = [0, 3, 7]  # education, city, owner
    for row, k, x in zip(told, batch.extra["asked"].tolist(), batch.x, strict=True):
        j = [2, 4, 5][k]
        assert row.argmax() == start[k] + int(x[j])
    n = 20_000
    sampled = model.wanted({}, SampleRng(0, range(n)))
    share = sampled[:, 3:7].sum(0) / sampled[:, 3:7].sum()
    truth = torch.bincount(DATA.x[:, 4].long()).float()
    torch.testing.assert_close(share, truth / truth.sum(), rtol=0, atol=0.02)
    only = model.wanted({"city": torch.full((5,), 2)}, SampleRng(0, range(5)))
    assert torch.equal(only.argmax(1), torch.full((5,), 5))


def test_packs() -> None:
    model = ctgan(pack=4)
    rows, told = torch.arange(10.0)[:, None].expand(10, model.columns.size), torch.zeros(10, model.told_size)
    packed = model.packed(rows, told)
    assert packed.shape == (2, 4 * (model.columns.size + model.told_size))
    assert packed[1].unique().tolist() == [0, 4, 5, 6, 7]
    with pytest.raises(ValueError, match="does not fill a pack"):
        model.packed(rows[:3], told[:3])


def test_fake_rows_are_shares() -> None:
    model = ctgan()
    fake, _ = model.make(torch.zeros(6, model.told_size), torch.randn(6, 16), BatchRng(0, total=6))
    for span in model.columns.spans:
        part = fake[:, span.slice]
        if span.scalar:
            assert part.abs().max() <= 1
        else:
            torch.testing.assert_close(part.sum(1), torch.ones(6))


def test_no_row_of_the_data_is_in_a_model() -> None:
    rows = {row.tobytes() for row in DATA.x.numpy()}
    for model in (ctgan(), tabddpm(), build(TVAE, TVAEConfig(4, (8,), (8,), modes=MODES), DATA.spec, 0)):
        for name, tensor in model.state_dict().items():
            assert tensor.numel() < 60_000, name
            if tensor.ndim == 2 and tensor.shape[1] == len(DATA.spec.parts):
                assert not any(row.tobytes() in rows for row in tensor.double().numpy()), name


# what is asked for


def drawer(x: torch.Tensor):
    """Draws rows of ``x`` at random, by the streams."""

    def draw(rng: SampleRng) -> Batch:
        i = (rng.uniform("row") * len(x)).long()
        return Batch.of(x[i].clone(), None, {"missing": torch.zeros(len(i), x.shape[1]).byte()})

    return draw


def test_values_and_rules_are_met() -> None:
    x, spec, n = DATA.x[DATA.missing.sum(1) == 0], DATA.spec, 40
    rng = SampleRng(0, range(n))
    given = {"city": torch.full((n,), 3), "age": torch.full((n,), 50.0)}
    found = satisfied(drawer(x), spec, given, rng, RowSampling(tries=400))
    assert (found.x[:, 4] == 3).all()
    assert (found.x[:, 0] == 50).all()
    rules = ("age >= 30", "income < 2500", "city != Oslo", "since <= 2015-01-01")
    found = satisfied(drawer(x), spec, {}, rng, RowSampling(rules=rules, tries=400)).x
    assert (found[:, 0] >= 30).all()
    assert (found[:, 1] < 2500).all()
    assert (found[:, 4] != 1).all()
    alone = satisfied(drawer(x), spec, {}, SampleRng(0, [7]), RowSampling(rules=rules, tries=400)).x
    assert torch.equal(alone[0], found[7])
    with pytest.raises(UsageError, match="40 of 40 rows broke a rule"):
        satisfied(drawer(x), spec, {}, rng, RowSampling(rules=("age > income",), tries=3))


def test_rows_that_are_asked_for_are_distributed_as_they_should() -> None:
    """Given a city, the other columns have their distribution among the rows with that city."""
    x, n = DATA.x[DATA.missing.sum(1) == 0], 1500
    given = {"city": torch.full((n,), 0)}
    found = satisfied(drawer(x), DATA.spec, given, SampleRng(0, range(n)), RowSampling(tries=60)).x
    truth = x[x[:, 4] == 0]
    for j in (0, 2, 5):
        assert found[:, j].mean().item() == pytest.approx(
            truth[:, j].mean().item(), abs=4 * float(truth[:, j].std()) / 30
        )


def test_rules_between_columns() -> None:
    spec = TableSpec(tuple(Part(name, "number", low=0, high=10) for name in ("a", "b", "c")))
    x = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 1.0]], dtype=torch.float64)
    for text, broken in (
        ("a = b + c", [False, True]),
        ("a <= b", [True, True]),
        ("c < a", [False, False]),
        ("a = b * 3", [False, False]),
        ("b - c", None),
    ):
        if broken is None:
            with pytest.raises(ValueError, match="not of the form"):
                RowSampling(rules=(text,))
            continue
        slack = rule_of(text, spec).slack(x, spec)
        assert (slack > 0).tolist() == broken, text
    for text, what in (("d > 1", "no column 'd'"), ("a > high", "neither a column"), ("a > inf", "not a finite")):
        with pytest.raises(UsageError, match=what):
            rule_of(text, spec)


def test_a_table_of_numbers_alone_and_one_of_categories_alone(tmp_path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "n.csv").write_text("a,b\n" + "\n".join(f"{u:.3f},{v:.3f}" for u, v in rng.normal(size=(60, 2))))
    (tmp_path / "c.csv").write_text(
        "a,b\n" + "\n".join(f"{'xy'[u]},{'pqr'[v]}" for u, v in rng.integers(2, size=(60, 2)))
    )
    for name in ("n", "c"):
        data = open_table(tmp_path / f"{name}.csv", TableOptions())
        for kind, config in ((CTGAN, CTGANConfig(8, (16,), (16,), pack=2)), (TVAE, TVAEConfig(4, (8,), (8,)))):
            model = build(kind, kind.complete(config, data), data.spec, 0)
            model.initialise(data, BatchRng(0, total=1), {})
            table = model.stages()[0].data
            batch = (table(data) if table else data).batch(np.arange(8), BatchRng(0, total=8))
            for objective in model.stages()[0].objectives:
                loss, _ = objective.loss(batch, BatchRng(0, total=8), None)
                assert loss.isfinite()
            assert model.eval().sample(5, rng=SampleRng(0, range(5))).x.shape == (5, 2)
        model = build(TabDDPM, TabDDPMConfig((16,), 8, steps=4), data.spec, 0)
        model.initialise(data, BatchRng(0, total=1), {})
        loss, _ = model.loss(data.batch(np.arange(8)), BatchRng(0, total=8), None)
        assert loss.isfinite()
        assert model.eval().sample(5, rng=SampleRng(0, range(5))).x.shape == (5, 2)


def test_categories_are_counted_over_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TableSpec((Part("a", "category", ("x", "y")),))
    data = TableArray(np.repeat([0.0, 1.0], 100)[:, None], None, spec, name="sorted")
    monkeypatch.setattr("castalia.models.tables.ctgan.COUNTED", 50)
    model = build(CTGAN, CTGANConfig(4, (8,), (8,), modes=((),)), spec, 0)
    model.initialise(data, BatchRng(0, total=1), {})
    assert model.get_buffer("share_0").tolist() == pytest.approx([0.5, 0.5], abs=0.03)


def test_a_rule_needs_values_that_compare() -> None:
    places = (Part("born", "category", ("Oslo", "Riga")), Part("lives", "category", ("Oslo", "Riga")))
    spec = TableSpec((*places, Part("works", "category", ("Lyon", "Oslo")), Part("age", "integer", high=9.0)))
    assert rule_of("born = lives", spec).right == 1
    for text in ("born = works", "born <= age", "age < born"):
        with pytest.raises(UsageError, match="the same values"):
            rule_of(text, spec)
