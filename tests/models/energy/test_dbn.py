"""Deep belief nets: the bound and the top machine against enumeration, the up-down gradients against autograd."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from castalia import recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.energy.dbn import DBN, DBNConfig, log_bernoulli
from tests.tools import Table

LABELLED = ImageSpec(1, 2, 3, ("a", "b", "c"))


def dbn(spec: ImageSpec = LABELLED, **config: Any) -> DBN:
    settings = {"widths": (4, 5), "conditional": bool(spec.classes), "binarise": "threshold", "init": 1.0} | config
    made = build(DBN, DBNConfig(**settings), spec)
    assert isinstance(made, DBN)
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return made.eval()


def states(n: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)))


def every_picture(spec: ImageSpec) -> Batch:
    return Batch.of((states(spec.dims) * 255).to(torch.uint8).view(-1, *spec.shape))


def exact(model: DBN) -> Tensor:
    """log p(x) of every picture, by enumeration of the states of the one directed layer."""
    h, x = states(model.code), states(model.spec.dims)
    log_h = torch.logsumexp(-model.energies(h).double(), 1) - model.top.sum()
    layer = model._layers()[0]
    given = torch.stack([log_bernoulli(x, layer.down(one[None]).expand(len(x), -1)) for one in h]).double()
    return torch.logsumexp(given + log_h[:, None], 0)


def test_the_top_and_the_net_sum_to_one() -> None:
    model = dbn()
    h = states(model.code)
    assert torch.logsumexp(-model.energies(h).double().flatten(), 0).item() == pytest.approx(model.top.sum(), abs=1e-5)
    assert torch.logsumexp(exact(model), 0).item() == pytest.approx(0, abs=1e-5)


@torch.no_grad()
def test_the_bound_is_below_the_truth_and_rises_to_it() -> None:
    model = dbn()
    for p in model.parameters():
        p.mul_(0.5)
    model._layers()[0].tie()  # near to the posterior, and not it
    batch, truth = every_picture(model.spec), exact(model)
    n, found = len(batch), []
    for k in (1, 5, 400):
        draws = [model.log_likelihood(batch, rng=SampleRng(s, range(n)), samples=k) for s in range(1 if k > 5 else 40)]
        assert draws[0].kind == "bound"
        found.append(torch.stack([d.nats for d in draws]).mean(0))
    assert (found[0] - truth).mean() < (found[1] - truth).mean() < 0
    assert ((found[0] - truth) < 0.3).all()
    assert abs(float((found[2] - truth).mean())) < 0.03
    torch.testing.assert_close(found[2], truth, atol=0.3, rtol=0)


def test_energies_are_those_of_the_machine() -> None:
    model, h = dbn(), states(4)
    for y in range(3):
        v = model.with_label(h, torch.full((16,), y))
        torch.testing.assert_close(model.energies(h)[:, y], model.top.free_energy(v), atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_classes_are_told_by_free_energy() -> None:
    """Of a net with one deterministic layer, the label's posterior is that of the top machine."""
    model = dbn()
    layer = model._layers()[0]
    layer.up_weight.mul_(100)
    batch = every_picture(model.spec)
    h = torch.sigmoid(layer.up(states(6)))
    right = torch.stack([-model.top.free_energy(model.with_label(h, torch.full((64,), y))) for y in range(3)], 1)
    torch.testing.assert_close(model.classify(batch), torch.softmax(right, 1), atol=1e-5, rtol=1e-4)
    with pytest.raises(UsageError, match="without labels"):
        dbn(ImageSpec(1, 2, 3)).classify(batch)


def test_up_down_moves_along_the_gradients_of_both_directions() -> None:
    """Down: of log p(seen states); up: of log q(dreamt states); both against autograd."""
    model = dbn(widths=(5, 4, 6), updown=0.5, decay=0.0)
    batch = Batch(every_picture(model.spec).x[10:50], torch.arange(40), torch.arange(40) % 3)
    rng = BatchRng(0, total=40)
    with torch.no_grad():
        awake = model.rise(model.coding.encode(batch.x, rng), rng, 2)
    layers = model._layers()
    score = sum(log_bernoulli(a, layer.down(b)).mean() for layer, a, b in zip(layers, awake, awake[1:], strict=False))
    down = [p for layer in layers for p in (layer.machine.weight, layer.machine.visible)]
    right = torch.autograd.grad(score, down)  # type: ignore[arg-type]
    before = [p.detach().clone() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    with torch.no_grad():
        model.up_down(batch, rng, Progress(0, 100))
    moved = {n: (p - old).detach() for n, p, old in zip(names, model.parameters(), before, strict=True)}
    index = {id(p): n for n, p in model.named_parameters()}
    for p, gradient in zip(down, right, strict=True):
        torch.testing.assert_close(moved[index[id(p)]], 0.5 * gradient, atol=1e-5, rtol=1e-4)
    assert all(moved[f"layers.{i}.machine.hidden"].abs().max() == 0 for i in range(2))
    assert all(moved[f"layers.{i}.up_weight"].abs().max() > 0 for i in range(2))


@torch.no_grad()
def test_asleep_the_weights_up_learn_what_was_dreamt() -> None:
    """After many steps of up-down without data to learn, q(h | x) comes near to the posterior of the net's own dreams."""
    model = dbn(ImageSpec(1, 2, 3), widths=(3, 4), method="pcd", chains=500, updown=0.2, decay=0.0)
    layer, rng = model._layers()[0], BatchRng(0, total=64)
    kept = {n: p.detach().clone() for n, p in model.named_parameters() if "up_" not in n}
    x, h = states(6), states(3)
    log_h = torch.logsumexp(-model.energies(h).double(), 1)
    joint = torch.stack([log_bernoulli(x, layer.down(one[None]).expand(64, -1)) for one in h], 1).double() + log_h
    p_x, posterior = torch.softmax(torch.logsumexp(joint, 1), 0), torch.softmax(joint, 1)

    def divergence() -> float:
        q = torch.stack([log_bernoulli(one[None].expand(64, -1), layer.up(x)) for one in h], 1).double()
        return float((p_x[:, None] * posterior * (posterior.log() - q)).sum())

    start = divergence()
    for step in range(400):
        model.up_down(every_picture(model.spec), rng.at(step), Progress(step, 400))
        for name, p in model.named_parameters():
            if name in kept:
                p.copy_(kept[name])
    assert divergence() < 0.15 * start


def test_a_layer_of_the_turned_shape_starts_as_the_one_below() -> None:
    """With W2 = W1^T two layers are the one machine: the likelihood is what it was."""
    model = dbn(ImageSpec(1, 2, 3), widths=(4, 6))
    below = model._layers()[0]
    with torch.no_grad():
        below.tie()
        for stage in model.stages():
            if stage.name == "top" and stage.enter:
                stage.enter(BatchRng(0, total=1))
    single = -below.machine.free_energy(states(6)).double() - below.machine.sum()
    torch.testing.assert_close(exact(model), single, atol=1e-4, rtol=0)


def test_stages_begin_on_what_is_below(tmp_path: Any) -> None:
    spec = ImageSpec(1, 4, 4, ("a", "b"))
    x = torch.randint(0, 256, (100, 1, 4, 4), dtype=torch.uint8)
    model = build(DBN, DBNConfig(widths=(5, 6, 7), conditional=True), spec)
    assert isinstance(model, DBN)
    model.initialise(Table(x, spec, torch.arange(100) % 2), BatchRng(0, total=1), {})
    names = [s.name for s in model.stages()]
    assert names == ["layer 1", "layer 2", "top", "up-down"]
    assert [s.name for s in build(DBN, DBNConfig(widths=(5, 6), updown_share=0), spec).stages()] == ["layer 1", "top"]
    batch = Batch(x[:8], torch.arange(8), torch.arange(8) % 2)
    sizes = []
    for stage in model.stages()[:3]:
        assert stage.transform
        with torch.no_grad():
            sizes.append(stage.transform(batch, BatchRng(0, total=8), Progress(0, 1)).x.shape[1])
    assert sizes == [16, 5, 6]


def test_a_held_label_stays() -> None:
    model = dbn()
    with torch.no_grad():
        model.top.weight[model.code :] *= 5
    drawn = [model.sample(60, {"label": torch.full((60,), y)}, rng=SampleRng(0, range(60))).x for y in (0, 1)]
    assert (drawn[0].float().mean(0) - drawn[1].float().mean(0)).abs().max() > 10


@pytest.mark.parametrize("wrong", [{"widths": (3,)}, {"steps": ()}, {"rate": 0.0}, {"momentum": 1.0}])
def test_bad_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DBNConfig(**wrong)


def test_sizes_of_the_paper() -> None:
    """784-500-500-2000 with 10 labels: "about 1.7 million weights"."""
    spec = ImageSpec(1, 28, 28, tuple("0123456789"))
    model = build(DBN, recipes.recipe("dbn-mnist-paper").config, spec)
    assert isinstance(model, DBN)
    weights = [layer.machine.weight.numel() for layer in model._layers()] + [model.top.weight.numel()]
    assert weights == [784 * 500, 500 * 500, 510 * 2000]
    assert sum(weights) == 1_662_000
    assert math.isclose(sum(weights) / 1e6, 1.7, abs_tol=0.05)
