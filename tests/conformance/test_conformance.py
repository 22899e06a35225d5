"""One suite over every system of the catalogue and every capability that it declares.

A model listed in the catalogue, with a tiny recipe, is tested here with no further line.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from castalia import api, checkpoints, recipes, runs
from castalia.catalogue import CATALOGUE
from castalia.configuration import recipe_from_json
from castalia.core.capabilities import (
    Density,
    Exportable,
    Inference,
    Latents,
    Matching,
    Meshing,
    Perception,
    Refinement,
    Reversible,
    Searchable,
    Streaming,
    Styled,
    Upscaling,
)
from castalia.core.config import from_json, to_json
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import CAPABILITIES, Generator, Model, Objective, Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.sampling import Preview, Sampling
from castalia.core.spec import Field, LabelSpec, ScalarSpec, Spec
from castalia.core.weights import load_tensors, save_tensors
from castalia.media.rooms import medium_of
from castalia.training.loop import train
from tests.tools import FAMILIES, MODELS, Few, Lazily, small_recipe, trained_once, two_processes


def having(capability: type) -> list[str]:
    return [n for n in MODELS if capability.__name__ in CATALOGUE[n].capabilities]


every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def data() -> dict[str, Dataset]:
    return Lazily(lambda name: api.training_data(small_recipe(name)))


@pytest.fixture(scope="module")
def trained(data: dict[str, Dataset], shared_folder: Path) -> dict[str, runs.Run]:
    """A short, uninterrupted run of every model."""
    return Lazily(lambda name: trained_once(name, data[name], shared_folder / "trained"))


def make(name: str, data: Dataset, seed: int = 0) -> Model:
    kind = CATALOGUE[name].load()
    model = build(kind, kind.complete(small_recipe(name).config, data), data.spec, seed)
    model.initialise(data, BatchRng(0, total=1), {})
    return model


M = TypeVar("M", bound=torch.nn.Module)


@torch.no_grad()
def stirred(model: M) -> M:
    """The model with all weights changed: where a layer starts at zero, nothing before it matters until then."""
    for p in model.parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
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
    model, other = stirred(make(name, data[name])), make(name, data[name], seed=1)
    before = drawn_by(other)
    save_tensors(tmp_path / "w.safetensors", model.state_dict())
    runs.load_weights(other, load_tensors(tmp_path / "w.safetensors")[0], tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    after, right = drawn_by(other), drawn_by(model)
    if before is not None and after is not None and right is not None:
        assert same(after, right)
        assert not same(after, before), "weights do not matter to its samples"


def drawn_by(model: Model) -> Batch | None:
    """Two short examples of a generator."""
    if not isinstance(model, Generator):
        return None
    return model.sample(2, rng=SampleRng(0, range(2)), options=short(model))


@every_model
def test_an_objective_moves_its_module_and_nothing_else(name: str, data: dict[str, Dataset]) -> None:
    model = make(name, data[name]).train()
    for stage in model.stages():
        batch = first(stage.data(data[name]) if stage.data else data[name])
        if stage.transform:
            batch = stage.transform(batch, BatchRng(1, total=len(batch)), Progress(0, 1))
        for objective in stage.objectives:
            if not isinstance(objective, Objective):
                continue
            still = {id(p) for part in model.frozen() for p in part.parameters()}
            own = {id(p) for p in objective.module.parameters()} - still
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


every_generator = pytest.mark.parametrize("name", having(Generator))


def same(a: Batch, b: Batch) -> bool:
    """Whether two batches have the same parts, bit for bit."""
    return (
        a.x.shape == b.x.shape and torch.equal(a.x, b.x) and all(torch.equal(a.extra[k], b.extra[k]) for k in a.extra)
    )


def check_units(batch: Batch, spec: Spec) -> None:
    """Every part has the type, shape and range that the spec declares."""
    for key, field in spec.fields().items():
        part = batch.part(key)
        assert part is not None, key
        assert part.dtype == field.dtype, key
        assert all(d in (None, size) for d, size in zip(field.shape, part.shape[1:], strict=True)), key
        inside = part[part != field.padding] if None in field.shape else part
        if inside.numel() and field.low is not None:
            assert inside.min() >= field.low, key
        if inside.numel() and field.high is not None:
            assert inside.max() <= field.high, key


@every_generator
def test_samples_are_in_natural_units(name: str, data: dict[str, Dataset]) -> None:
    model = make(name, data[name]).eval()
    check_units(first(data[name]), model.spec)
    for options in (model.SampleOptions(), model.SampleOptions(temperature=0.0)):
        drawn = model.sample(5, rng=SampleRng(3, range(5)), options=options)
        assert len(drawn) == 5
        check_units(drawn, model.spec)


@every_generator
def test_same_seed_same_samples(name: str, trained: dict[str, runs.Run]) -> None:
    options = short(trained[name].model()[0])
    one, again, other = (api.sample(trained[name], 4, seed=s, options=options) for s in (7, 7, 8))
    assert same(one, again)
    assert not same(one, other)


@every_generator
def test_a_sample_does_not_depend_on_its_neighbours(name: str, trained: dict[str, runs.Run]) -> None:
    """Tolerance: one grey level, 1e-4 of a floating medium (sums in another order round otherwise), no token."""
    options = short(trained[name].model()[0])
    many = api.sample(trained[name], 9, seed=7, options=options)
    alone = api.sample(trained[name], 1, seed=7, start=6, options=options)
    for key, field in trained[name].spec.fields().items():
        part, one = many.part(key), alone.part(key)
        assert part is not None
        assert one is not None
        row = part[(slice(6, 7), *(slice(0, n) for n in one.shape[1:]))]
        limit = 1 if field.dtype == torch.uint8 else 1e-4 if field.dtype.is_floating_point else 0
        assert (row.double() - one.double()).abs().max() <= limit


@every_model
def test_overfits_one_batch(name: str, data: dict[str, Dataset], tmp_path: Path) -> None:
    """Trained on eight examples alone, its samples come to resemble them, in the medium's own distance."""
    table = Few(data[name], 8)
    spec, medium = table.spec, medium_of(table.spec)
    model = make(name, table).eval()
    if not isinstance(model, Generator):
        return
    start = end = medium.distance(api.draw(model, 32), table.all, spec)
    for steps in (120, 250):  # most need no more than the first
        run = train(small_recipe(name, steps=steps), table, tmp_path / str(steps), quiet=True)
        end = medium.distance(api.sample(run, 32), table.all, spec)
        if end < 0.7 * start:
            break
    assert end < 0.7 * start, f"the distance went from {start:.3f} to {end:.3f}"


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
                torch.testing.assert_close(
                    left[key], right[key], atol=tolerance, rtol=tolerance, msg=lambda m, k=f"{group} {key}": f"{k}: {m}"
                )
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


@every_model
def test_published_weights(name: str, trained: dict[str, runs.Run], data: dict[str, Dataset]) -> None:
    """``run.model()`` is what the averages of the last checkpoint say; what is frozen is as it began."""
    found = checkpoints.newest(trained[name].checkpoints)
    assert found is not None
    averages, model = found.tensors("ema"), trained[name].model()[0]
    assert averages.keys() == model.state_dict().keys()
    assert all(torch.equal(averages[key], value) for key, value in model.state_dict().items())
    if model.frozen():
        begun = make(name, data[name], trained[name].recipe.training.seed)
        for one, other in zip(begun.frozen(), model.frozen(), strict=True):
            assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("name", having(Density))
def test_density(name: str, data: dict[str, Dataset]) -> None:
    model = make(name, data[name]).eval()
    assert isinstance(model, Density)
    batch = first(data[name], 6)
    whole = model.log_likelihood(batch, rng=SampleRng(1, range(6)), samples=60)
    assert whole.nats.shape == (6,)
    assert whole.nats.dtype == torch.float64
    assert whole.nats.isfinite().all()
    assert whole.preprocessing
    part = model.log_likelihood(batch[4:], rng=SampleRng(1, [4, 5]), samples=60)
    torch.testing.assert_close(part.nats, whole.nats[4:], rtol=1e-5, atol=1e-3)
    assert whole.kind in ("exact", "bound", "estimate")


@pytest.mark.parametrize("name", having(Streaming))
def test_streaming(name: str, trained: dict[str, runs.Run]) -> None:
    """The pieces of a stream are the example, and so is what is computed anew for each piece."""
    model = trained[name].model()[0]
    assert isinstance(model, Streaming)
    assert isinstance(model, Generator)
    options = short(model)
    rng = SampleRng(5, range(3))
    drawn = model.sample(3, rng=rng, options=options)
    with torch.no_grad():
        slow = model.naive(3, {}, rng, options)
        state, pieces = model.start(3, {}, rng, options), []
        try:
            while True:
                piece, state = model.advance(state)
                pieces.append(piece)
        except StopIteration:
            pass
    assert same_within(drawn, slow, model.spec)
    axis = model.along % drawn.x.ndim
    stream = torch.cat([p.unsqueeze(axis) if p.ndim < drawn.x.ndim else p for p in pieces], axis)
    assert same_within(drawn, Batch.of(stream.narrow(axis, 0, drawn.x.shape[axis])), model.spec)


def short(model: Model) -> Any:
    """Sampling options that make a short example, in few steps."""
    assert isinstance(model, Generator)
    names = {f.name for f in fields(model.SampleOptions)}
    return model.SampleOptions(**{name: value for name, value in {"length": 40, "steps": 6}.items() if name in names})


def same_within(a: Batch, b: Batch, spec: Spec) -> bool:
    """Equal: exactly, or within 1e-4 for floating media."""
    if a.x.shape != b.x.shape:
        return False
    return (a.x.double() - b.x.double()).abs().max().item() <= (1e-4 if a.x.dtype.is_floating_point else 0)


@pytest.mark.parametrize("name", having(Latents))
def test_latents(name: str, data: dict[str, Dataset], trained: dict[str, runs.Run]) -> None:
    model = stirred(trained[name].model()[0])
    assert isinstance(model, Latents)
    z = SampleRng(0, range(4)).normal("latent", model.latent_dims)
    decoded = model.decode(z).x
    check_units(model.decode(z), data[name].spec)
    assert torch.equal(decoded, model.decode(z).x)
    assert not torch.equal(decoded, model.decode(-z).x), "latents do not matter"
    if "label" in model.accepts():
        label = torch.full((4,), len(model.accepts()["label"].classes) - 1)
        assert not torch.equal(model.decode(z, {"label": label}).x, model.decode(z, {"label": 0 * label}).x), (
            "labels do not matter"
        )


@pytest.mark.parametrize("name", having(Styled))
def test_styled(name: str, trained: dict[str, runs.Run]) -> None:
    model, _ = trained[name].model()
    assert isinstance(model, Styled)
    z = torch.randn(3, model.latent_dims)
    w = model.styles(z)
    assert w.shape == (3, model.style_layers, model.style_dims)
    assert w.dtype == torch.float32
    x = model.render(w)
    assert torch.equal(x.round().clamp(0, 255).to(torch.uint8), model.decode(z).x)
    with torch.enable_grad():
        w = w.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(model.render(w).sum(), w)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(2) > 0).all()  # every style has an effect
    with torch.enable_grad():
        noise = [torch.randn(1, 1, *size, requires_grad=True) for size in model.noise_sizes]
        slopes = torch.autograd.grad(model.render(w, noise=noise).square().sum(), noise) if noise else ()
    assert all((slope != 0).any() for slope in slopes)  # so has all noise


@pytest.mark.parametrize("name", having(Meshing))
def test_meshing(name: str, data: dict[str, Dataset], trained: dict[str, runs.Run]) -> None:
    """Closed meshes with a texture, each its latents' own, which can be looked at from all around."""
    model = trained[name].model()[0]
    assert isinstance(model, Meshing)
    z = SampleRng(0, range(3)).normal("latent", model.latent_dims)
    meshes = model.mesh(z)
    assert len(meshes) == 3
    assert meshes.vertices.shape[::2] == (3, 3)
    assert meshes.vertices.isfinite().all()
    assert meshes.faces.dtype == torch.int64
    assert int(meshes.faces.max()) + 1 == meshes.vertices.shape[1]
    assert meshes.places.shape == (len(meshes.faces), 3, 2)
    assert meshes.texture.dtype == torch.uint8
    edges = torch.cat([meshes.faces[:, [0, 1]], meshes.faces[:, [1, 2]], meshes.faces[:, [2, 0]]])
    forth, back = {tuple(e) for e in edges.tolist()}, {tuple(e) for e in edges.flip(1).tolist()}
    assert forth == back  # each edge has two triangles, which run along it in opposite directions
    assert len(forth) == len(edges)
    torch.testing.assert_close(model.mesh(z[1:2]).vertices, meshes.vertices[1:2], atol=1e-4, rtol=0)
    assert not torch.allclose(meshes.vertices[0], meshes.vertices[1], atol=1e-6)
    degrees = torch.tensor([0.0, 90.0, 360.0])
    pictures = model.look(meshes[torch.tensor([0, 0, 0])], degrees)
    check_units(Batch.of(pictures), data[name].spec)
    assert torch.equal(pictures[0], pictures[2]) or (pictures[0].double() - pictures[2].double()).abs().mean() < 1
    assert not torch.equal(pictures[0], pictures[1])


@pytest.mark.parametrize("name", having(Perception))
def test_perception(name: str, trained: dict[str, runs.Run], data: dict[str, Dataset]) -> None:
    model, _ = trained[name].model()
    assert isinstance(model, Perception)
    networks = model.perceive()
    assert networks
    pictures = data[name].batch(np.arange(4)).x.float().to(model.device)
    for network in networks.values():
        with torch.enable_grad():
            x = pictures.clone().requires_grad_(True)
            seen = network(x)
            (gradient,) = torch.autograd.grad(seen.float().square().sum(), x)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", having(Matching))
def test_matching(name: str, trained: dict[str, runs.Run], data: dict[str, Dataset]) -> None:
    """Unit vectors of pictures and of texts, of one length, each on its own."""
    model, _ = trained[name].model()
    assert isinstance(model, Matching)
    pictures, texts = data[name].batch(np.arange(4)).x, ["a red heart", "", "något annat", "a"]
    u, v = model.of_pictures(pictures), model.of_texts(texts)
    assert u.shape == v.shape == (4, u.shape[1])
    for vectors in (u, v):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(model.of_pictures(pictures[2:]), u[2:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.of_texts(texts[2:]), v[2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", having(Inference))
def test_inference(name: str, data: dict[str, Dataset]) -> None:
    model = make(name, data[name]).eval()
    assert isinstance(model, Inference)
    batch = first(data[name], 6)
    z = model.encode(batch)
    assert z.shape == (6, model.latent_dims)
    assert torch.equal(z, model.encode(batch))
    assert not torch.equal(model.encode(batch, rng=SampleRng(0, range(6))), z)
    for decoded in (model.decode(z), model.decode(z, rng=SampleRng(0, range(6)))):
        check_units(decoded, data[name].spec)
    kl = model.posterior_kl(batch)
    assert kl.shape == z.shape
    assert (kl >= -1e-5).all()


@pytest.mark.parametrize("name", having(Searchable))
def test_search(name: str, trained: dict[str, runs.Run]) -> None:
    """Of what the model made: what is found is the example's own, and nearer than the middle of the prior."""
    model = trained[name].model()[0]
    assert isinstance(model, Searchable)
    batch = model.decode(2 * torch.randn(4, model.latent_dims, generator=torch.Generator().manual_seed(0)))
    z = model.search(batch, steps=20)
    assert z.shape == (4, model.latent_dims)
    assert torch.equal(z, model.search(batch, steps=20))
    torch.testing.assert_close(model.search(batch[2:3], steps=20), z[2:3], atol=1e-3, rtol=0)
    assert not torch.equal(model.search(batch, rng=SampleRng(0, range(4)), steps=1), model.search(batch, steps=1))
    medium = medium_of(model.spec)
    found, middle = model.decode(z), model.decode(torch.zeros_like(z))
    far = [sum(medium.distance(x[i : i + 1], batch[i : i + 1], model.spec) for i in range(4)) for x in (found, middle)]
    assert far[0] < far[1]


@every_generator
def test_what_is_given(name: str, trained: dict[str, runs.Run], data: dict[str, Dataset]) -> None:
    """Each input that the model declares changes its output; what does not fit, and everything else, is refused."""
    model = stirred(trained[name].model()[0])
    assert isinstance(model, Generator)
    rng, options = SampleRng(3, range(4)), short(model)
    if "label" not in model.accepts():
        with pytest.raises(UsageError, match="not conditional"):
            model.sample(4, {"label": torch.zeros(4, dtype=torch.int64)}, rng=rng, options=options)
    with pytest.raises(UsageError, match="cannot be given 'a wish'"):
        model.sample(4, {"a wish": torch.zeros(4)}, rng=rng, options=options)
    for given, spec in model.accepts().items():
        one, other = examples_of(given, spec, data[name])
        drawn = model.sample(4, {given: one}, rng=rng, options=options)
        assert same(drawn, model.sample(4, {given: one}, rng=rng, options=options))
        assert not same(drawn, model.sample(4, {given: other}, rng=rng, options=options)), f"{given} does not matter"
        odd = one.double() if one.dtype != torch.float64 else one.float()
        for wrong in (one[:2], odd):
            with pytest.raises(UsageError, match=given):
                model.sample(4, {given: wrong}, rng=rng, options=options)
        high = spec.fields()["x"].high
        if high is not None and (one.is_floating_point() or high < torch.iinfo(one.dtype).max):
            with pytest.raises(UsageError, match=given):
                model.sample(4, {given: one + int(high) + 1}, rng=rng, options=options)


def examples_of(given: str, spec: Spec, data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Four values of an input, and four others."""
    if isinstance(spec, LabelSpec):
        label = torch.tensor([0, 1, 0, 1]) % len(spec.classes)
        return label, 1 - label
    if isinstance(spec, ScalarSpec):
        low, high = spec.low or 0.0, spec.high if spec.high is not None else (spec.low or 0.0) + 1
        return torch.full((4,), low), torch.full((4,), high)
    batch = data.batch(np.arange(8))
    part, field = batch.part(given), spec.fields()["x"]
    if part is None and (field.dtype, field.shape) != (batch.x.dtype, tuple(batch.x.shape[1:])):
        part = made_up(field) if None not in field.shape else None
    part = batch.x if part is None else part
    if None in spec.fields()["x"].shape:  # the beginning of an example
        part = part[..., : max(1, part.shape[-1] // 4)]
    return part[:4], part[4:]


def made_up(field: Field) -> torch.Tensor:
    """Eight values of an input that the data do not have."""
    g = torch.Generator().manual_seed(0)
    if field.dtype.is_floating_point:
        return torch.randn(8, *field.shape, generator=g)
    return torch.randint(field.low or 0, (field.high or 255) + 1, (8, *field.shape), generator=g).to(field.dtype)


@every_generator
def test_sampling_options(name: str, trained: dict[str, runs.Run]) -> None:
    """They are plain data with defaults; those of another system are refused; the steps announced are watched."""
    model = trained[name].model()[0]
    assert isinstance(model, Generator)
    options = model.SampleOptions()
    assert from_json(type(options), json.loads(json.dumps(to_json(options)))) == options
    seen: list[Preview] = []
    drawn = model.sample(2, rng=SampleRng(0, range(2)), options=options, watch=seen.append)
    assert same(drawn, model.sample(2, rng=SampleRng(0, range(2))))
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    assert all(p.steps >= len(seen) for p in seen)
    if seen:
        check_units(seen[0].examples(), model.spec)
        assert same(seen[-1].examples(), drawn) or drawn.x.dtype == torch.float32

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
    for wrong in ({"strength": 1.5}, {"strength": float("nan")}, {"mask": mask[..., 1:]}, {"mask": mask.float()}):
        with pytest.raises(UsageError, match=r"strength|mask"):
            refine(**wrong)
    alone = model.refine(Batch.of(x[2:]), mask=mask, rng=SampleRng(0, [2])).x
    assert (alone.double() - filled[2:].double()).abs().max() <= 1


@pytest.mark.parametrize("name", having(Reversible))
def test_sampling_backwards(name: str, data: dict[str, Dataset], trained: dict[str, runs.Run]) -> None:
    model = trained[name].model()[0]
    assert isinstance(model, Reversible)
    x, rng, few = first(data[name], 3).x, SampleRng(0, range(3)), model.SampleOptions(steps=12)  # type: ignore[attr-defined]
    before = model.recast(Batch.of(x), rng=rng, options=few).x
    assert before.shape == x.shape
    assert before.dtype == x.dtype
    assert (before.double() - x.double()).abs().mean() < 12, "what is drawn as what it was comes back"
    alone = model.recast(Batch.of(x[2:]), rng=SampleRng(0, [2]), options=few).x
    assert (alone.double() - before[2:].double()).abs().max() <= 1
    for wrong in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="strength"):
            model.recast(Batch.of(x), rng=rng, strength=wrong)


@pytest.mark.parametrize("name", having(Upscaling))
def test_upscaling(name: str, data: dict[str, Dataset], trained: dict[str, runs.Run]) -> None:
    model = trained[name].model()[0]
    assert isinstance(model, Upscaling)
    x = first(data[name], 3).x[:, :, :-1]  # of another size than that of the data
    seen: list[Preview] = []
    large = model.upscale(x, rng=SampleRng(0, range(3)), watch=seen.append)
    assert large.shape == (*x.shape[:2], model.times * x.shape[2], model.times * x.shape[3])
    assert large.dtype == torch.uint8
    assert [preview.step for preview in seen] == list(range(1, seen[-1].steps + 1))
    assert torch.equal(large, model.upscale(x, rng=SampleRng(0, range(3))))
    assert not torch.equal(large, model.upscale(x, rng=SampleRng(1, range(3))))
    alone = model.upscale(x[2:], rng=SampleRng(0, [2]))
    assert (alone.double() - large[2:].double()).abs().max() <= 1
    for wrong in (x.float(), x[0], x[:, :, :0], torch.cat([x, x, x, x, x], 1)):
        with pytest.raises(UsageError, match="Upscaling takes"):
            model.upscale(wrong, rng=SampleRng(0, range(3)))


@pytest.mark.parametrize("name", having(Exportable))
def test_export_round_trip(name: str, trained: dict[str, runs.Run], tmp_path: Path) -> None:
    from castalia.interop.folder import export_folder, import_folder

    export_folder(trained[name], tmp_path / "folder")
    back = import_folder(tmp_path / "folder", tmp_path / "run")
    if isinstance(back.model()[0], Generator):
        assert same(api.sample(back, 3, seed=1), api.sample(trained[name], 3, seed=1))
    model = trained[name].model()[0]
    assert isinstance(model, Exportable)
    for call, (module, inputs) in model.export_calls().items():
        free = tuple({0: torch.export.Dim("batch", min=1)} if one.ndim else {} for one in inputs)
        program = torch.export.export(module, inputs, dynamic_shapes=free)
        three = tuple(torch.cat([one, one[:1]]) if one.ndim else one for one in inputs)  # another batch than was seen
        torch.testing.assert_close(program.module()(*three), module(*three), msg=call)
