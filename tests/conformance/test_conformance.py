"""One suite over every system of the catalogue and every capability that it declares.

A model listed in the catalogue, with a tiny recipe, is tested here with no further line.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from castalia import api, checkpoints, recipes, runs
from castalia.catalogue import CATALOGUE
from castalia.configuration import recipe_from_json
from castalia.core.config import from_json, to_json
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import (
    CAPABILITIES,
    Density,
    Exportable,
    Inference,
    Latents,
    Model,
    Objective,
    Preview,
    Progress,
    Refinement,
    Sampling,
    build,
)
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.weights import load_tensors, save_tensors
from castalia.training.loop import train
from tests.tools import FAMILIES, MODELS, Lazily, Table, small_recipe, trained_once, two_processes

every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def data() -> dict[str, Dataset]:
    return Lazily(lambda name: api.training_data(small_recipe(name)))


@pytest.fixture(scope="module")
def trained(data: dict[str, Dataset], shared_folder: Path) -> dict[str, runs.Run]:
    """A short, uninterrupted run of every model."""
    return Lazily(lambda name: trained_once(name, data[name], shared_folder / "trained"))


def make(name: str, data: Dataset, seed: int = 0) -> Model:
    model = build(CATALOGUE[name].load(), small_recipe(name).config, data.spec, seed)
    model.initialise(data, BatchRng(0, total=1), {})
    return model


def first(data: Dataset, n: int = 8) -> Batch:
    return data.batch(np.arange(n))


@every_model
def test_declares_what_it_can_do(name: str) -> None:
    cls = CATALOGUE[name].load()
    assert CATALOGUE[name].capabilities == tuple(c.__name__ for c in CAPABILITIES if issubclass(cls, c))
    assert cls.__doc__
    assert sys.modules[cls.__module__].__doc__


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_survives_json(name: str) -> None:
    recipe = recipes.recipe(name)
    assert recipe_from_json(json.loads(json.dumps(to_json(recipe)))) == recipe
    assert from_json(type(recipe.config), to_json(recipe.config)) == recipe.config
    assert type(recipe.config).__dataclass_params__.frozen  # type: ignore[attr-defined]


@every_model
def test_save_and_load_bit_for_bit(name: str, data: dict[str, Dataset], tmp_path: Path) -> None:
    model, other = make(name, data[name]), make(name, data[name], seed=1)
    with torch.no_grad():  # a network whose last layer starts at zero ignores all others until it is trained
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    before = other.sample(2, rng=SampleRng(0, range(2))).x
    save_tensors(tmp_path / "w.safetensors", model.state_dict())
    runs.load_weights(other, load_tensors(tmp_path / "w.safetensors")[0], tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    after = other.sample(2, rng=SampleRng(0, range(2))).x
    assert torch.equal(after, model.sample(2, rng=SampleRng(0, range(2))).x)
    assert not torch.equal(after, before), "weights do not matter to its samples"


@every_model
def test_an_objective_moves_its_module_and_nothing_else(name: str, data: dict[str, Dataset]) -> None:
    model = make(name, data[name]).train()
    for stage in model.stages():
        batch = first(data[name])
        if stage.transform:
            batch = stage.transform(batch, BatchRng(1, total=len(batch)), Progress(0, 1))
        for objective in stage.objectives:
            if not isinstance(objective, Objective):
                continue
            own = {id(p) for p in objective.module.parameters()}
            assert own, f"{objective.name} has no parameters"
            for p in model.parameters():
                p.grad = None
                p.requires_grad_(id(p) in own)
            loss, logs = objective.loss(batch, BatchRng(0, total=len(batch)), Progress(0, 1))
            assert loss.shape == ()
            assert loss.dtype == torch.float32
            assert all(v.shape == () for v in logs.values())
            loss.backward()
            for key, p in model.named_parameters():
                if id(p) in own:
                    assert p.grad is not None, f"{objective.name} does not reach {key}"
                    assert p.grad.isfinite().all(), f"{objective.name}: {key}"
                else:
                    assert p.grad is None, f"{objective.name} reaches {key}"


@every_model
def test_samples_are_in_natural_units(name: str, data: dict[str, Dataset]) -> None:
    model = make(name, data[name]).eval()
    x = first(data[name]).x
    drawn = model.sample(5, rng=SampleRng(3, range(5))).x
    assert drawn.shape == (5, *x.shape[1:])
    assert drawn.dtype == x.dtype
    cold = model.sample(5, rng=SampleRng(3, range(5)), options=model.SampleOptions(temperature=0.0)).x
    assert cold.shape == drawn.shape


@every_model
def test_same_seed_same_samples(name: str, data: dict[str, Dataset], trained: dict[str, runs.Run]) -> None:
    one, again, other = (api.sample(trained[name], 4, seed=s).x for s in (7, 7, 8))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@every_model
def test_a_sample_does_not_depend_on_its_neighbours(name: str, trained: dict[str, runs.Run]) -> None:
    """Tolerance: one unit of an integer medium, 1e-4 of a floating one (sums in another order round otherwise)."""
    many = api.sample(trained[name], 9, seed=7).x
    alone = api.sample(trained[name], 1, seed=7, start=6).x
    limit = 1e-4 if many.is_floating_point() else 1
    assert (many[6:7].double() - alone.double()).abs().max() <= limit


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|: 0 where two sets are distributed alike (Szekely & Rizzo 2013)."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


@every_model
def test_overfits_one_batch(name: str, data: dict[str, Dataset], tmp_path: Path) -> None:
    """Trained on eight examples alone, its samples come to resemble them."""
    batch = first(data[name])
    x = batch.x
    if x.dtype == torch.uint8:
        x = torch.where(x > 127, 255, 0).to(torch.uint8)  # black and white: no noise that nobody could learn
    table = Table(x, data[name].spec, batch.label)
    recipe = small_recipe(name, steps=250)
    before = api.draw(make(name, table).eval(), 64).x
    run = train(recipe, table, tmp_path / "run", quiet=True)
    start, end = (energy_distance(drawn, x) for drawn in (before, api.sample(run, 64).x))
    assert end < 0.7 * start, f"energy distance went from {start:.3f} to {end:.3f}"


def equal_runs(a: runs.Run, b: runs.Run, tolerance: float = 0.0) -> None:
    """Weights, averages, optimizer state and logged values agree (bit for bit without a tolerance)."""
    one, two = checkpoints.newest(a.checkpoints), checkpoints.newest(b.checkpoints)
    assert one is not None
    assert two is not None
    assert one.step == two.step
    for group in ("model", "ema", "optimizer"):
        left, right = one.tensors(group), two.tensors(group)
        assert left.keys() == right.keys()
        for key in left:
            if tolerance:
                torch.testing.assert_close(left[key], right[key], atol=tolerance, rtol=tolerance, msg=f"{group} {key}")
            else:
                assert torch.equal(left[key], right[key]), f"{group} {key}"
    logs = [[{k: v for k, v in m.items() if k != "seconds"} for m in r.metrics()] for r in (a, b)]
    assert len(logs[0]) == len(logs[1])
    for left, right in zip(*logs, strict=True):
        assert left.keys() == right.keys()
        for key, value in left.items():
            if tolerance and isinstance(value, float):
                assert right[key] == pytest.approx(value, rel=tolerance * 10, abs=tolerance), key
            else:
                assert right[key] == value, key


@every_model
@pytest.mark.parametrize("crash_after", [5])
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, crash_after: int, data: dict[str, Dataset], trained: dict[str, runs.Run], tmp_path: Path
) -> None:
    recipe = small_recipe(name)

    def crash(step: int, logs: object) -> None:
        if step == crash_after:
            raise RuntimeError("crash")

    every = replace(recipe, training=replace(recipe.training, checkpoint_every=3))
    with pytest.raises(RuntimeError, match="crash"):
        train(every, data[name], tmp_path / "run", quiet=True, callback=crash)
    resumed = train(every, data[name], tmp_path / "run", quiet=True, resume=True)
    equal_runs(trained[name], resumed)
    published, straight = load_tensors(resumed.weights)[0], load_tensors(trained[name].weights)[0]
    assert all(torch.equal(published[key], straight[key]) for key in straight)


@pytest.fixture(scope="module")
def paired(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes, of all models that are asked for: starting the two takes longer than a training."""
    folder = tmp_path_factory.mktemp("paired")
    asked = [item.callspec.params["name"] for item in request.session.items if "paired" in item.fixturenames]  # type: ignore[attr-defined]
    two_processes(Path(__file__).with_name("two_processes.py"), folder, *dict.fromkeys(asked), seconds=60 * len(asked))
    return folder


@every_model
def test_two_processes_equal_one(name: str, trained: dict[str, runs.Run], paired: Path) -> None:
    """Same losses and weights within 2e-5 (gradients are summed in another order)."""
    equal_runs(trained[name], runs.open_run(paired / f"{name}-whole"), tolerance=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_two_processes_and_one_take_turns(
    name: str, trained: dict[str, runs.Run], data: dict[str, Dataset], paired: Path
) -> None:
    """A checkpoint of two processes resumes on one, and one of one on two."""
    half = runs.open_run(paired / f"{name}-half")
    finished = train(half.recipe, data[name], half.path, quiet=True, resume=True)
    equal_runs(trained[name], finished, tolerance=2e-5)
    equal_runs(trained[name], runs.open_run(paired / f"{name}-back"), tolerance=2e-5)


def having(capability: type) -> list[str]:
    return [n for n in MODELS if capability.__name__ in CATALOGUE[n].capabilities]


@pytest.mark.parametrize("name", having(Density))
def test_density(name: str, data: dict[str, Dataset]) -> None:
    model = make(name, data[name]).eval()
    assert isinstance(model, Density)
    x = first(data[name], 6).x
    whole = model.log_likelihood(Batch.of(x), rng=SampleRng(1, range(6)), samples=60)
    assert whole.nats.shape == (6,)
    assert whole.nats.dtype == torch.float64
    assert whole.nats.isfinite().all()
    assert whole.preprocessing
    part = model.log_likelihood(Batch.of(x[4:]), rng=SampleRng(1, [4, 5]), samples=60)
    torch.testing.assert_close(part.nats, whole.nats[4:], rtol=1e-5, atol=1e-3)
    assert whole.kind in ("exact", "bound", "estimate")


@pytest.mark.parametrize("name", having(Latents))
def test_latents(name: str, data: dict[str, Dataset], trained: dict[str, runs.Run]) -> None:
    model = trained[name].model()[0]
    assert isinstance(model, Latents)
    x = first(data[name], 4).x
    z = SampleRng(0, range(4)).normal("latent", model.latent_dims)
    decoded = model.decode(z).x
    assert decoded.shape == x.shape
    assert decoded.dtype == x.dtype
    assert torch.equal(decoded, model.decode(z).x)
    assert not torch.equal(decoded, model.decode(-z).x), "latents do not matter"
    if "label" in model.accepts():
        label = torch.full((4,), len(model.accepts()["label"].classes) - 1)
        assert not torch.equal(model.decode(z, {"label": label}).x, model.decode(z, {"label": 0 * label}).x), (
            "labels do not matter"
        )


@pytest.mark.parametrize("name", having(Inference))
def test_inference(name: str, data: dict[str, Dataset]) -> None:
    model = make(name, data[name]).eval()
    assert isinstance(model, Inference)
    x = first(data[name], 6).x
    z = model.encode(Batch.of(x))
    assert z.shape == (6, model.latent_dims)
    assert torch.equal(z, model.encode(Batch.of(x)))
    assert not torch.equal(model.encode(Batch.of(x), rng=SampleRng(0, range(6))), z)
    for decoded in (model.decode(z).x, model.decode(z, rng=SampleRng(0, range(6))).x):
        assert decoded.shape == x.shape
        assert decoded.dtype == x.dtype
    kl = model.posterior_kl(Batch.of(x))
    assert kl.shape == z.shape
    assert (kl >= -1e-5).all()


@every_model
def test_conditions(name: str, trained: dict[str, runs.Run]) -> None:
    """Labels are taken where the model says so, refused elsewhere, and matter."""
    model = trained[name].model()[0]
    rng = SampleRng(3, range(4))
    if "label" not in model.accepts():
        with pytest.raises(UsageError, match="not conditional"):
            model.sample(4, {"label": torch.zeros(4, dtype=torch.int64)}, rng=rng)
        return
    classes = len(model.accepts()["label"].classes)
    label = torch.tensor([0, 1, 0, 1]) % classes
    drawn = model.sample(4, {"label": label}, rng=rng).x
    assert torch.equal(drawn, model.sample(4, {"label": label}, rng=rng).x)
    assert not torch.equal(drawn, model.sample(4, {"label": 1 - label}, rng=rng).x), "labels do not matter"
    for wrong in (label + classes, -1 - label, label[:2], label.float()):
        with pytest.raises(UsageError, match="label"):
            model.sample(4, {"label": wrong}, rng=rng)


@every_model
def test_sampling_options(name: str, trained: dict[str, runs.Run]) -> None:
    """They are plain data with defaults; those of another system are refused; the steps announced are watched."""
    model = trained[name].model()[0]
    options = model.SampleOptions()
    assert from_json(type(options), json.loads(json.dumps(to_json(options)))) == options
    seen: list[Preview] = []
    drawn = model.sample(2, rng=SampleRng(0, range(2)), options=options, watch=seen.append).x
    assert torch.equal(drawn, model.sample(2, rng=SampleRng(0, range(2))).x)
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    assert all(p.steps >= len(seen) for p in seen)
    if seen:
        assert seen[0].examples().x.dtype == drawn.dtype

    @dataclass(frozen=True)
    class Other(Sampling):
        pass

    if type(options) is not Sampling:
        with pytest.raises(UsageError, match=type(options).__name__):
            model.sample(2, rng=SampleRng(0, range(2)), options=Other())


@pytest.mark.parametrize("name", having(Refinement))
def test_refinement(name: str, data: dict[str, Dataset], trained: dict[str, runs.Run]) -> None:
    model = trained[name].model()[0]
    assert isinstance(model, Refinement)
    x = first(data[name], 3).x
    mask = torch.zeros(1, 1, *x.shape[-2:], dtype=torch.bool)
    mask[..., : x.shape[-1] // 2] = True

    def refine(**options: Any) -> torch.Tensor:
        return model.refine(Batch.of(x), rng=SampleRng(0, range(3)), **options).x

    filled = refine(mask=mask)
    assert filled.shape == x.shape
    assert filled.dtype == x.dtype
    assert torch.equal(filled[..., x.shape[-1] // 2 :], x[..., x.shape[-1] // 2 :]), "what was not masked changed"
    assert not torch.equal(filled, x)
    assert torch.equal(filled, refine(mask=mask))
    assert torch.equal(refine(strength=0.0), x)
    whole: list[Preview] = []
    half: list[Preview] = []
    refine(strength=1.0, watch=whole.append)
    refine(strength=0.5, watch=half.append)
    assert len(whole) == len(half), "the steps asked for are the steps run"
    alone = model.refine(Batch.of(x[2:]), mask=mask, rng=SampleRng(0, [2])).x
    assert (alone.double() - filled[2:].double()).abs().max() <= 1


@pytest.mark.parametrize("name", having(Exportable))
def test_export_round_trip(name: str, trained: dict[str, runs.Run], tmp_path: Path) -> None:
    from castalia.interop.folder import export_folder, import_folder

    export_folder(trained[name], tmp_path / "folder")
    back = import_folder(tmp_path / "folder", tmp_path / "run")
    assert torch.equal(api.sample(back, 3, seed=1).x, api.sample(trained[name], 3, seed=1).x)
    model = trained[name].model()[0]
    assert isinstance(model, Exportable)
    for call, (module, inputs) in model.export_calls().items():
        program = torch.export.export(module, inputs)
        out = program.module()(*inputs)
        torch.testing.assert_close(out, module(*inputs), msg=call)
