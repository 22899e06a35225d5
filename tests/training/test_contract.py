"""The contract, tried with tenants of other worlds and with what broke it before."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from castalia import api, catalogue, checkpoints, runs, verbs
from castalia.cli.main import main
from castalia.configuration import Budget, Data, Recipe, spec_from_json, spec_to_json
from castalia.core import assets
from castalia.core.config import override
from castalia.core.data import Batch, Dataset, join
from castalia.core.errors import RunError, UsageError
from castalia.core.model import Generator, Objective, Progress, Stage, build
from castalia.core.rng import BatchRng, SampleRng, derive
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.core.specs.text import TextSpec
from castalia.core.weights import load_tensors
from castalia.media import rooms
from castalia.training import parallel, plan
from castalia.training.ema import Ema
from castalia.training.loop import train
from castalia.training.stage import ActiveStage
from tests.conformance.test_conformance import equal_runs
from tests.tools import Table
from tests.training import toys
from tests.training.tenants import TENANTS, Adapted, Fitted, Frozen, GraphMedium, Scorer, TenantConfig, graphs, pictures


@pytest.fixture(autouse=True)
def _tenants() -> Iterator[None]:
    kept = dict(catalogue.CATALOGUE)
    for name, (kind, _) in TENANTS.items():
        catalogue.CATALOGUE[name] = toys.entry_of(name, kind)
    rooms.ROOMS["graph"] = GraphMedium
    yield
    catalogue.CATALOGUE.clear()
    catalogue.CATALOGUE.update(kept)
    del rooms.ROOMS["graph"]
    rooms.room.cache_clear()


def recipe(name: str, **training: object) -> Recipe:
    return replace(toys.recipe(name, **training), config=TenantConfig(), data=Data("table"))


@pytest.mark.parametrize("name", TENANTS)
def test_a_tenant_lives_in_the_house(name: str, tmp_path: Path) -> None:
    """Trained, killed, resumed bit for bit; sampled with parts of the right types; what it accepts changes it."""
    _, data = TENANTS[name]
    straight = train(recipe(name), data, tmp_path / "straight", quiet=True)

    def crash(step: int, logs: object) -> None:
        if step == 8:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        train(recipe(name, checkpoint_every=3), data, tmp_path / "run", quiet=True, callback=crash)
    resumed = train(recipe(name, checkpoint_every=3), data, tmp_path / "run", quiet=True, resume=True)
    equal_runs(straight, resumed)
    model, _ = runs.open_run(tmp_path / "run").model()
    if not isinstance(model, Generator):
        with pytest.raises(UsageError, match="makes nothing"):
            api.sample(straight, 2)
        assert not (straight.path / "samples").exists()
        return
    drawn = model.sample(5, rng=SampleRng(0, range(5)))
    alone = model.sample(1, rng=SampleRng(0, [3]))
    for key, field in model.spec.fields().items():
        part, one = drawn.part(key), alone.part(key)
        assert part is not None
        assert one is not None
        assert part.dtype == field.dtype
        assert all(d in (None, s) for d, s in zip(field.shape, part.shape[1:], strict=True))
        own = part[(slice(3, 4), *(slice(0, n) for n in one.shape[1:]))]
        assert torch.allclose(own.double(), one.double(), atol=1), "a sample depends on its neighbours"
    some = data.batch(np.arange(4))
    for given, spec in model.accepts().items():
        value = some.part(given)
        assert value is not None
        other = value.flip(0)
        pair = [model.sample(4, {given: v}, rng=SampleRng(1, range(4))) for v in (value, other)]
        assert any(
            a.shape != b.shape or not torch.equal(a, b)
            for a, b in zip(pair[0].map(lambda t: t).extra.values(), pair[1].extra.values(), strict=True)
        ) or not torch.equal(pair[0].x, pair[1].x), f"{given} does not matter"
        with pytest.raises(UsageError, match=given):
            model.sample(4, {given: value[:2]}, rng=SampleRng(1, range(4)))
        assert spec_from_json(spec_to_json(spec)) == spec
    with pytest.raises(UsageError, match="cannot be given 'colour'"):
        model.sample(1, {"colour": torch.zeros(1)}, rng=SampleRng(1, [0]))


def test_batches_of_different_sizes_are_joined() -> None:
    data = graphs()
    whole = data.batch(np.arange(4))
    short = Batch(whole.x[:, :2], whole.ids, None, {"bonds": whole.extra["bonds"][:, :2, :2]})
    both = join([short, whole], data.spec)
    assert both.x.shape == (8, 5)
    assert (both.x[:4, 2:] == -1).all()
    assert both.extra["bonds"].shape == (8, 5, 5)
    assert both.extra.keys() == {"bonds"}, "what not all have is left out"


def test_a_frozen_encoder_stays_and_is_stored_once(tmp_path: Path) -> None:
    seen: list[nn.Module] = []
    kept = Frozen.initialise

    def spy(self: Frozen, *rest: object) -> None:
        kept(self, *rest)  # type: ignore[arg-type]
        seen.append(self)

    Frozen.initialise = spy  # type: ignore[method-assign]
    try:
        run = train(recipe("frozen"), pictures(), tmp_path / "run", quiet=True)
    finally:
        Frozen.initialise = kept  # type: ignore[method-assign]
    (model,) = seen
    assert isinstance(model, Frozen)
    assert {shape for shape, _ in model.seen} == {3}, "the stage has data of its own"
    assert not any(training for _, training in model.seen), "what is frozen is in evaluation mode"
    fresh = build(Frozen, TenantConfig(), ImageSpec(1, 4, 4), seed=0)
    fresh.initialise(pictures(), BatchRng(derive(0, "initialise"), total=1), {})
    for name, value in fresh.encoder.state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name]), name
    found = checkpoints.newest(run.checkpoints)
    assert found is not None
    assert not any(name.startswith("encoder.") for name in found.tensors("model"))
    assert not any(name.startswith("encoder.") for name in found.tensors("optimizer"))
    assert any(name.startswith("encoder.") for name in found.tensors("ema"))


def test_an_adapter_starts_from_a_run_without_it(tmp_path: Path) -> None:
    base = train(recipe("adapted"), pictures(), tmp_path / "base", quiet=True)
    made = replace(recipe("adapted"), config=TenantConfig(adapter=2), parents=(("start", str(base.path)),))
    run = train(made, pictures(), tmp_path / "tuned", quiet=True)
    before, after = base.model()[0], run.model()[0]
    assert isinstance(before, Adapted)
    assert isinstance(after, Adapted)
    assert torch.equal(before.base.weight, after.base.weight)
    assert after.adapter["up"].weight.abs().max() > 0, "the adapter has learnt"
    wrong = replace(made, config=TenantConfig())
    train(replace(wrong, parents=(("start", str(base.path)),)), pictures(), tmp_path / "same", quiet=True)
    with pytest.raises(RunError, match="does not fit"):
        train(replace(wrong, parents=(("start", str(run.path)),)), pictures(), tmp_path / "wrong", quiet=True)


def test_what_only_the_data_know_is_in_the_run(tmp_path: Path) -> None:
    _, data = TENANTS["fitted"]
    run = runs.open_run(train(recipe("fitted"), data, tmp_path / "run", quiet=True).path)
    assert run.recipe.config == TenantConfig(), "the recipe stays what was asked for"
    assert run.config == TenantConfig(modes=(0.0, 1.0, 2.0, 3.0, 4.0))
    model, _ = run.model()
    assert isinstance(model, Fitted)
    assert len(model.logits) == 5


def test_a_vocabulary_travels_with_the_run(tmp_path: Path) -> None:
    kept = assets.keep(b"a large vocabulary", "vocabulary.json")
    spec = TextSpec("bpe", 10, 4, vocabulary=kept)
    run = runs.create(tmp_path / "run", recipe("scorer"), spec, "x")
    assets._HELD.clear()
    opened = runs.open_run(run.path)
    assert opened.spec == spec
    assert assets.read(kept) == b"a large vocabulary"
    assets._HELD.clear()
    (file,) = (run.path / "assets").iterdir()
    file.write_bytes(b"another vocabulary")
    with pytest.raises(RunError, match="damaged"):
        assets.read(kept)
    file.unlink()
    with pytest.raises(RunError, match="not to be found"):
        assets.read(kept)


def test_a_network_that_cannot_be_rebuilt_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def grow(self: Scorer, data: Dataset, rng: object, parents: object) -> None:
        self.register_buffer("table", torch.zeros(len(data)))

    monkeypatch.setattr(Scorer, "initialise", grow)
    with pytest.raises(TypeError, match=r"initialise changed the shape or type of 'table'.*Model\.complete"):
        train(recipe("scorer"), pictures(), tmp_path / "run", quiet=True)


class Solid(Scorer):
    """Weights of four and of five dimensions."""

    def __init__(self, config: TenantConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.flat, self.deep = nn.Conv2d(1, 2, 3, padding=1), nn.Conv3d(1, 1, 1)
        self.norm = nn.BatchNorm2d(2)

    def loss(self, batch: Batch, rng: object, progress: Progress):
        y = self.norm(self.flat(batch.x.float() / 255))
        y = self.deep(y[:, None])[:, 0].mean(1)
        return F.mse_loss(self.score(y.flatten(1))[:, 0], y.new_zeros(len(y))), {}


def test_weights_of_four_and_five_dimensions(tmp_path: Path) -> None:
    catalogue.CATALOGUE["solid"] = toys.entry_of("solid", Solid)
    run = train(recipe("solid"), pictures(), tmp_path / "run", quiet=True)
    assert run.model()[0].flat.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[attr-defined]


# averages


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.b.weight = self.a.weight


def test_tied_weights_keep_their_average() -> None:
    net = Tied()
    ema = Ema(net, 10.0)
    with torch.no_grad():
        net.a.weight.add_(1)
    ema.update(1, 8, last=True)
    state = ema.state()
    assert not torch.equal(state["a.weight"], net.a.weight)
    assert torch.equal(state["a.weight"], state["b.weight"])
    other = Tied()
    other.load_state_dict(state)
    assert torch.equal(other.a.weight, state["a.weight"])


class Long(Scorer):
    """A long stage that leaves its weight at 0, and a short one that moves it to 5."""

    def __init__(self, config: TenantConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.first, self.value = nn.Linear(1, 1), nn.Parameter(torch.zeros(1))

    def stages(self) -> tuple[Stage, ...]:
        far, near = nn.ModuleList([self.first]), self
        return (
            Stage("long", (Objective("long", far, self.pull),), share=98),
            Stage("short", (Objective("short", near, self.jump),), share=2),
        )

    def pull(self, batch: Batch, rng: object, progress: Progress):
        return (self.first.weight - 1).square().sum() + self.first.bias.square().sum(), {}

    def jump(self, batch: Batch, rng: object, progress: Progress):
        rest = sum(p.sum() for p in self.parameters())
        return (self.value - 5).square().sum() + 0 * rest, {}


def test_a_short_last_stage_publishes_what_it_learnt(tmp_path: Path) -> None:
    catalogue.CATALOGUE["long"] = toys.entry_of("long", Long)
    made = recipe("long", steps=1000, ema_half_life=2000.0, lr=0.5)
    schedule = replace(made.training.schedule, shape="constant")
    run = train(
        replace(made, training=replace(made.training, schedule=schedule)), pictures(), tmp_path / "r", quiet=True
    )
    found = checkpoints.newest(run.checkpoints)
    assert found is not None
    raw, published = found.tensors("model")["value"].item(), run.model()[0].value.item()  # type: ignore[attr-defined]
    assert raw > 3
    assert published > 0.5 * raw


def test_the_published_weights_are_the_averages(tmp_path: Path) -> None:
    run = train(recipe("scorer"), pictures(), tmp_path / "run", quiet=True)
    found = checkpoints.newest(run.checkpoints)
    assert found is not None
    averages = found.tensors("ema")
    assert all(torch.equal(averages[k], v) for k, v in run.model()[0].state_dict().items())
    assert load_tensors(run.weights)[0].keys() == averages.keys()


def test_what_the_next_stage_leaves_is_set_to_its_average(tmp_path: Path) -> None:
    catalogue.CATALOGUE.update(toys.entries())
    run = train(toys.recipe("toy-stages", steps=300, ema_half_life=100.0), toys.table(), tmp_path / "run", quiet=True)
    found = checkpoints.newest(run.checkpoints)
    assert found is not None
    raw, averages = found.tensors("model"), found.tensors("ema")
    assert all(torch.equal(raw[name], averages[name]) for name in raw if not name.startswith("prior."))
    assert not torch.equal(raw["prior.bias"], averages["prior.bias"])


class Normed(toys.Stages):
    """Its frozen encoder has batch statistics, which the second stage must leave alone."""

    def __init__(self, config: toys.ToyConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.encoder = nn.Sequential(nn.Linear(16, 3), nn.BatchNorm1d(3))
        self.before: list[torch.Tensor] = []

    def start_prior(self, rng: object) -> None:
        super().start_prior(rng)  # type: ignore[arg-type]
        self.before.append(self.encoder[1].running_mean.clone())


def test_a_transform_leaves_batch_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from castalia.training import loop

    catalogue.CATALOGUE["normed"] = toys.entry_of("normed", Normed)
    made: list[Normed] = []

    def building(*args: object) -> object:
        made.append(build(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(loop, "build", building)
    train(toys.recipe("normed"), toys.table(), tmp_path / "run", quiet=True)
    model = made[0]
    assert torch.equal(model.before[0], model.encoder[1].running_mean)


# stages in the recipe


def test_a_recipe_gives_stages_their_budgets(tmp_path: Path) -> None:
    catalogue.CATALOGUE.update(toys.entries())
    made = toys.recipe("toy-stages", log_every=1)
    training = override(
        made.training, ["stages.prior.steps=5", "stages.codes.batch_size=3", "stages.prior.lr=0.5"], "training"
    )
    run = train(replace(made, training=training), toys.table(), tmp_path / "run", quiet=True)
    assert [m["stage"] for m in run.metrics()] == ["codes"] * 12 + ["prior"] * 5
    bad = replace(made, training=replace(training, stages={"priors": training.stages["prior"]}))
    with pytest.raises(UsageError, match=r"no stage 'priors'\. Did you mean 'prior'"):
        train(bad, toys.table(), tmp_path / "bad", quiet=True)


class Slow(toys.Stages):
    """A second stage that is twenty times as slow as the first; both are without gradients for the most part."""

    def predict(self, batch: Batch, rng: object, progress: Progress):
        import time

        time.sleep(0.02)
        return super().predict(batch, rng, progress)  # type: ignore[arg-type]


def test_minutes_are_shared_by_stages_of_different_speed(tmp_path: Path) -> None:
    catalogue.CATALOGUE["slow"] = toys.entry_of("slow", Slow)
    made = toys.recipe("slow", minutes=4 / 60, log_every=1)
    run = train(made, toys.table(), tmp_path / "run", quiet=True)
    lines = run.metrics()
    first = [m for m in lines if m["stage"] == "codes"]
    second = [m for m in lines if m["stage"] == "prior"]
    assert second, "the second stage never began"
    assert lines[-1]["seconds"] < 6
    assert 1.5 < first[-1]["seconds"] < 4, "two thirds of the time"
    assert '"timed": 2' in (run.path / "plan.json").read_text()
    assert len(second) > 10


class Scaled(toys.Stages):
    """What the second stage's ``enter`` finds is used where its examples are made."""

    def __init__(self, config: toys.ToyConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("scale", torch.ones(()))

    scale: torch.Tensor

    def stages(self) -> tuple[Stage, ...]:
        first, second = super().stages()
        return first, replace(second, data=self.scaled, transform=None, enter=self.find)

    def find(self, rng: object) -> None:
        self.scale.fill_(10)

    def scaled(self, data: Dataset) -> Dataset:
        x = data.batch(np.arange(len(data))).x.flatten(1).float() / 255
        return Table(self.encoder(x) * self.scale, PointsSpec(3))


@pytest.mark.parametrize("crash_after", [8, 9, 11])
def test_a_stage_is_entered_before_its_data_are_made(crash_after: int, tmp_path: Path) -> None:
    """Stages change after step 8: a resume behind that makes the same data as the training that went through."""
    catalogue.CATALOGUE["scaled"] = toys.entry_of("scaled", Scaled)
    straight = train(toys.recipe("scaled"), toys.table(), tmp_path / "straight", quiet=True)

    def crash(step: int, logs: object) -> None:
        if step == crash_after:
            raise RuntimeError("crash")

    made = toys.recipe("scaled", checkpoint_every=1)
    with pytest.raises(RuntimeError, match="crash"):
        train(made, toys.table(), tmp_path / "run", quiet=True, callback=crash)
    equal_runs(straight, train(made, toys.table(), tmp_path / "run", quiet=True, resume=True))


def test_a_stage_with_steps_of_its_own_leaves_time_to_the_others() -> None:
    made = toys.recipe("toy-stages", minutes=1.0, stages={"prior": Budget(steps=100)})
    stages = toys.Stages(toys.ToyConfig(), toys.SPEC).stages()
    assert plan.in_time(made, stages, 0, 60.0, 0.1) == [475, 100]
    greedy = toys.recipe("toy-stages", minutes=1.0, stages={"codes": Budget(steps=10_000)})
    assert plan.in_time(greedy, stages, 0, 60.0, 0.1) == [10_000, 28]
    assert plan.time_of(greedy, stages, 0, 60.0) == pytest.approx(57), "it is cut in time for the next"


# a guest in somebody's process


def test_a_training_leaves_the_callers_settings_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    torch.set_flush_denormal(False)
    try:
        train(recipe("scorer"), pictures(), tmp_path / "plain", quiet=True)
        assert torch.full((1,), 1e-40).mul(1).item() > 0, "flushing was left on"
    finally:
        torch.set_flush_denormal(True)
    assert torch.equal(torch.rand(3), expected), "the caller's generator was reseeded"
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            other = train(recipe("scorer"), pictures(), tmp_path / "odd", quiet=True)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float64
        model = other.model()[0]
        assert next(model.parameters()).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    equal_runs(runs.open_run(tmp_path / "plain"), other)


def test_the_verbs_are_guests_as_well(tmp_path: Path) -> None:
    """Under another default type, autocast and ``no_grad``: the same samples and numbers, and all is as it was."""
    run = api.train("vae", "digits", tmp_path / "run", recipe="vae-tiny", steps=2, quiet=True)
    plain = api.sample(run, 3).x, api.evaluate(run, samples=2, limit=5)["metrics"]["nll"]["value"]
    shown = warnings.showwarning
    try:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = api.sample(run, 3).x, api.evaluate(run, samples=2, limit=5)["metrics"]["nll"]["value"]
            assert main(["models"]) == 0
            assert torch.is_autocast_enabled("cpu")
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found[0], plain[0])
    assert found[1] == plain[1]
    assert warnings.showwarning is shown


@pytest.mark.parametrize(
    "ambient", [torch.inference_mode, lambda: torch.device("meta"), lambda: np.errstate(all="raise")]
)
def test_no_ambient_changes_a_verb(ambient: Callable[[], AbstractContextManager[Any]], tmp_path: Path) -> None:
    data = pictures()
    plain = train(recipe("scorer"), data, tmp_path / "plain", quiet=True)
    with ambient():
        other = train(recipe("scorer"), data, tmp_path / "odd", quiet=True)
        assert torch.is_inference_mode_enabled() == (ambient is torch.inference_mode)
    equal_runs(plain, other)
    run = api.train("vae", "digits", tmp_path / "run", recipe="vae-tiny", steps=1, quiet=True)
    drawn, numbers = api.sample(run, 3).x, api.evaluate(run, samples=2, limit=5)["metrics"]["nll"]["value"]
    with ambient():
        assert torch.equal(api.sample(run, 3).x, drawn)
        assert api.evaluate(run, samples=2, limit=5)["metrics"]["nll"]["value"] == numbers
        verbs.export(run, tmp_path / "exported")


def test_samples_in_float32_whatever_surrounds_them(tmp_path: Path) -> None:
    run = train(recipe("adapted"), pictures(), tmp_path / "run", quiet=True)
    plain = api.sample(run, 4, precision="float32").x
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(api.sample(run, 4, precision="float32").x, plain)


def test_points_of_a_spec_with_columns_survive_json() -> None:
    spec = graphs().spec
    assert spec_from_json(spec_to_json(spec)) == spec
    with pytest.raises(RunError, match="medium"):
        spec_from_json({"medium": "graph", "kinds": 3, "most": 5, "columns": {"a": {}}})
    assert Table(torch.zeros(2, 2), PointsSpec(2)).spec.sides() == {}


def test_an_update_computes_in_the_precision_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.CATALOGUE.update(toys.entries())
    seen: list[bool] = []
    plain = toys.Chain.diverge

    def diverge(self: toys.Chain, *arguments: object) -> object:
        seen.append(torch.is_autocast_enabled("cpu"))
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(toys.Chain, "diverge", diverge)
    for precision in ("float32", "bfloat16"):
        train(toys.recipe("toy-chain", steps=2, precision=precision), toys.table(), tmp_path / precision, quiet=True)
    assert seen == [False, False, True, True]


def test_measuring_the_speed_of_an_update_moves_nothing() -> None:
    model = build(toys.Chain, toys.ToyConfig(), toys.SPEC)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    world = parallel.World(0, 1, 1, torch.device("cpu"))
    (stage,) = model.stages()
    active = ActiveStage(stage, 0, 1, model, toys.table(), toys.recipe("toy-chain").training, world)
    active.attempt()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    with torch.no_grad():
        active.run(active.parts[0], 0, 0, "float32")
    assert not torch.equal(before["weight"], model.state_dict()["weight"])


def test_a_sampler_that_fails_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from castalia.models.autoencoders.vae import VAE

    def draw(*arguments: object) -> Batch:
        raise ValueError("it cannot")

    monkeypatch.setattr(VAE, "draw", draw)
    run = api.train("vae", "digits", tmp_path / "run", recipe="vae-tiny", steps=3)
    found = checkpoints.newest(run.checkpoints)
    assert found is not None
    assert found.step == 3
    assert "no samples were drawn (ValueError: it cannot)" in "".join(capsys.readouterr())
