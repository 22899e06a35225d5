"""Deep Boltzmann machines: energies, bound, partition function and gradients against enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from castalia import recipes
from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.energy.dbm import DBM, DBMConfig, DBMOptions
from castalia.recipes import dbm as own
from tests.tools import Table

SPEC = ImageSpec(1, 2, 2)


def dbm(**config: Any) -> DBM:
    settings: dict[str, Any] = {"widths": (4, 3), "binarise": "threshold", "chains": 10, "fields": 60} | config
    made = build(DBM, DBMConfig(**settings), SPEC)
    assert isinstance(made, DBM)
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
        made.machine.weight.mul_(made.between)
    return made.eval()


def states(n: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)


@torch.no_grad()
def log_terms(model: DBM) -> tuple[Tensor, Tensor]:
    """The logarithm of every term of Z, by the definition, layer by layer; (pictures, states of the hidden layers)."""
    sizes = (4, *model.config.widths)
    m = model.machine
    w, even, odd = m.weight.double(), m.visible.double(), m.hidden.double()
    where: dict[int, slice] = {}
    for parity in (0, 1):
        at = 0
        for layer in range(parity, len(sizes), 2):
            where[layer] = slice(at, at + sizes[layer])
            at += sizes[layer]
    every = states(sum(sizes))
    parts = list(every.split(sizes, 1))
    total = torch.zeros(len(every), dtype=torch.float64)
    for layer, h in enumerate(parts):
        total += h @ (odd if layer % 2 else even)[where[layer]]
    for low, (h, above) in enumerate(itertools.pairwise(parts)):
        block = w[where[low], where[low + 1]] if low % 2 == 0 else w[where[low + 1], where[low]].T
        total += ((h @ block) * above).sum(1)
    return total.view(16, -1), every


@pytest.mark.parametrize("widths", [(4, 3), (3, 3, 2), (2, 2, 2, 2)])
def test_probabilities_are_those_of_the_definition(widths: tuple[int, ...]) -> None:
    """Z by enumeration; all pictures sum to one; the bound is below the truth, and near it for weak weights."""
    model = dbm(widths=widths)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
    terms, every = log_terms(model)
    z = torch.logsumexp(terms.flatten(), 0)
    assert model.partition().log == pytest.approx(float(z), abs=1e-6)
    assert model.partition().kind == "exact"
    truth = torch.logsumexp(terms, 1) - z
    pictures = (every.view(16, -1, every.shape[1])[:, 0, :4] * 255).to(torch.uint8).view(16, 1, 2, 2)
    found = model.log_likelihood(Batch.of(pictures), rng=SampleRng(0, range(16)))
    assert found.kind == "bound"
    assert (found.nats <= truth + 1e-9).all()
    assert (truth - found.nats).max() < 0.15
    assert torch.logsumexp(truth, 0).item() == pytest.approx(0.0, abs=1e-9)


def test_mean_fields_are_a_fixed_point_and_the_best_bound() -> None:
    model = dbm()
    v = states(4).float()
    even, odd = model.infer(v)
    m = model.machine
    torch.testing.assert_close(even[:, 4:], torch.sigmoid(m.down(odd))[:, 4:], atol=1e-5, rtol=0)
    torch.testing.assert_close(odd, m.hidden_mean(even), atol=1e-5, rtol=0)
    fewer = dbm(fields=1)
    assert (model.bound(v) >= fewer.bound(v) - 1e-6).all()


def test_annealing_agrees_with_enumeration() -> None:
    model = dbm(widths=(6, 5))
    exact = model.partition().log
    found = model.machine.partition(0, 3_000, 300, exact=False)
    assert found.log == pytest.approx(exact, abs=0.1)
    assert found.reverse == pytest.approx(exact, abs=0.2)


@pytest.mark.parametrize("pretrain", [0.0, 0.5])
def test_layers_that_are_no_neighbours_stay_apart(pretrain: float) -> None:
    model = dbm(widths=(3, 3, 2)) if not pretrain else dbm(pretrain=pretrain)
    x = (states(4)[:8] * 255).to(torch.uint8).view(8, 1, 2, 2)
    model.initialise(Table(x, SPEC), BatchRng(0, total=1), {})
    batch, rng = Batch(x, torch.arange(8)), BatchRng(0, total=8)
    for stage in model.stages():
        if stage.enter:
            stage.enter(BatchRng(1, total=1))
        for step in range(3):
            with torch.no_grad():
                stage.objectives[0].step(batch, rng.at(step), Progress(step, 3))  # type: ignore[union-attr]
    assert (model.machine.weight[model.between == 0] == 0).all()
    if pretrain:
        first, second = model._greedy(0), model._greedy(1)
        assert torch.equal(first.weight[:4], first.weight[4:])
        assert torch.equal(second.weight[:, :3], second.weight[:, 3:])


def test_the_greedy_machines_become_the_whole() -> None:
    """Given pixels, the first layer of the whole gets half of the first machine's input, and the second's on top."""
    model = dbm(pretrain=0.5)
    first, second = model._greedy(0), model._greedy(1)
    with torch.no_grad():
        first.weight[4:] = first.weight[:4]
        second.weight[:, 3:] = second.weight[:, :3]
        second.hidden[3:] = second.hidden[:3]
        first.visible[4:] = first.visible[:4]
    model._join(BatchRng(0, total=1))
    m = model.machine
    v, h2 = states(4).float(), states(3).float()[3].expand(16, -1)
    inputs = m.up(torch.cat([v, h2], 1))
    expected = v @ first.weight[:4] + h2 @ second.weight[:, :3].T + 0.5 * (first.hidden + second.visible)
    torch.testing.assert_close(inputs, expected, atol=1e-5, rtol=1e-5)
    h1 = states(4).float()
    below, above = m.down(h1).split([4, 3], 1)
    torch.testing.assert_close(below, first.down(h1)[:, :4])
    torch.testing.assert_close(above, second.up(h1)[:, :3])


@pytest.mark.parametrize("widths", [(4, 3), (3, 3, 2), (2, 2, 2, 2)])
@torch.no_grad()
def test_biases_follow_those_weights_that_there_are(widths: tuple[int, ...]) -> None:
    """Centred: b + W lambda moves by the difference of the means, which the offsets tell; c + mu W likewise."""
    model = dbm(widths=widths, decay=0.0, rate=0.1)
    x = (states(4)[:8] * 255).to(torch.uint8).view(8, 1, 2, 2)
    model.initialise(Table(x, SPEC), BatchRng(0, total=1), {})
    m, batch, rng = model.machine, Batch(x, torch.arange(8)), BatchRng(0, total=8)
    m.offset_v.copy_(torch.linspace(0.2, 0.9, m.units.size))
    m.offset_h.copy_(torch.linspace(0.9, 0.1, m.size))
    before = {name: t.clone() for name, t in m.state_dict().items()}
    even = model.infer(model.coding.encode(batch.x, rng))[0]
    odd = m.hidden_mean(even)
    m.step(even, rng, model.rates(Progress(0, 10), 2), model.between)
    mu, lam = before["offset_v"], before["offset_h"]
    v_mean, h_mean = ((new - old) / 0.01 + old for new, old in ((m.offset_v, mu), (m.offset_h, lam)))
    dw = m.weight - before["weight"]
    dv, dh = (m.visible - before["visible"]) + dw @ lam, (m.hidden - before["hidden"]) + mu @ dw
    assert (dw[model.between == 0] == 0).all()
    torch.testing.assert_close(dv, 0.1 * (even.mean(0) - v_mean), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(dh, 0.1 * (odd.mean(0) - h_mean), atol=1e-5, rtol=1e-4)


def test_training_climbs_the_likelihood() -> None:
    """Of four pictures, by enumeration; the gradient's data side are mean fields, its model side chains."""
    model = dbm(rate=0.5, decay=0.0, fields=10, chains=100)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.05)
    x = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.uint8).view(4, 1, 2, 2) * 255
    x = x.repeat(5, 1, 1, 1)
    model.initialise(Table(x, SPEC), BatchRng(0, total=1), {})

    def mean() -> float:
        terms, _ = log_terms(model)
        log_p = torch.logsumexp(terms, 1) - torch.logsumexp(terms.flatten(), 0)
        seen = [0b1100, 0b0011, 0b1010, 0b1111]
        return float(log_p[seen].mean())

    before, batch = mean(), Batch(x, torch.arange(20))
    with torch.no_grad():
        for step in range(1_500):
            model.diverge(batch, BatchRng(step, total=20), Progress(step, 1_500))
    assert before < -2.5
    assert mean() > before + 0.7  # the best there is: log 1/4 = -1.39


def test_filling_in_holds_what_is_known() -> None:
    model = dbm()
    x = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).view(1, 1, 2, 2).repeat(6, 1, 1, 1)
    mask = torch.tensor([[True, False], [False, False]]).view(1, 1, 2, 2)
    options = DBMOptions(steps=20, pixels="sample")
    y = model.refine(Batch.of(x), mask=mask, rng=SampleRng(0, range(6)), options=options).x
    assert torch.equal(y[..., 0, 1], x[..., 0, 1])
    assert torch.equal(y[..., 1, :], x[..., 1, :])
    assert y[:, 0, 0, 0].unique().numel() == 2


def test_the_size_of_the_paper() -> None:
    """784 - 500 - 1000: two blocks of weights; the two sides have one matrix, of which nothing else is used."""
    recipe = recipes.recipe("dbm-mnist")
    with torch.device("meta"):
        model = DBM(recipe.config, ImageSpec(1, 28, 28))  # type: ignore[arg-type]
    assert sum(p.numel() for p in model.machine.parameters()) == (784 + 1000) * 500 + 784 + 500 + 1000
    assert own.mnist_paper().config.pretrain > 0  # type: ignore[attr-defined]


@torch.no_grad()
def test_the_greedy_machines_see_the_data_and_hand_on_their_offsets() -> None:
    def after(x: Tensor) -> DBM:
        model = dbm(pretrain=0.5, rate=0.5)
        model.initialise(Table(x, SPEC), BatchRng(0, total=1), {})
        for stage in model.stages()[:2]:
            if stage.enter:
                stage.enter(BatchRng(1, total=1))
            stage.objectives[0].step(Batch(x, torch.arange(8)), BatchRng(0, total=8), Progress(0, 3))  # type: ignore[union-attr]
        return model

    x = (states(4)[:8] * 255).to(torch.uint8).view(8, 1, 2, 2)
    one, two = after(x), after(255 - x)
    first, second = one._greedy(0), one._greedy(1)
    assert not torch.equal(first.weight, two._greedy(0).weight)
    one.second(Batch(x, torch.arange(8)), BatchRng(2, total=8), Progress(0, 3))
    same = after(x)
    same.second(Batch(255 - x, torch.arange(8)), BatchRng(2, total=8), Progress(0, 3))
    assert not torch.equal(second.weight, same._greedy(1).weight)
    one._join(BatchRng(0, total=1))
    assert torch.equal(one.machine.offset_h, first.offset_h)
    assert torch.equal(one.machine.offset_v[4:], second.offset_h[:3])


@torch.no_grad()
def test_chains_are_turned_on_during_the_first_half(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = dbm(), []
    gibbs = model.machine.gibbs

    def watched(v: Tensor, rng: Any, *, at: float, temperature: float) -> Any:
        seen.append(at)
        return gibbs(v, rng, at=at, temperature=temperature)

    monkeypatch.setattr(model.machine, "gibbs", watched)
    model.sample(2, rng=SampleRng(0, range(2)), options=DBMOptions(steps=8))
    assert seen == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert [model.rates(Progress(s, 10), 1).rate for s in (0, 5)] == [0.02, 0.01]


@torch.no_grad()
def test_what_is_drawn_goes_on_from_the_chains_of_the_training() -> None:
    model, drawn = dbm(), []
    options = DBMOptions(steps=1, start="chains", temperature=0.0)
    for state in (0.0, 1.0):
        model.machine.chain.fill_(state)
        drawn.append(model.sample(3, rng=SampleRng(0, range(3)), options=options).x)
        v = (model.machine.down(model.machine.chain[:3]) > 0).float()
        expected = model.machine.units.mean(model.machine.down((model.machine.up(v) > 0).float()))
        assert torch.equal(drawn[-1], model.coding.decode(expected[:, :4]))
    assert not torch.equal(*drawn)


def test_features_are_the_means_of_all_hidden_units() -> None:
    model = dbm(widths=(3, 5, 2))
    x = (states(4) * 255).to(torch.uint8).view(16, 1, 2, 2)
    even, odd = model.infer(states(4).float())
    assert torch.equal(model.features(Batch.of(x)), torch.cat([odd, even[:, 4:]], 1))


@pytest.mark.parametrize(
    "wrong", [{"widths": (3,)}, {"widths": (3, 3, 3), "pretrain": 1.0}, {"rate": 0.0}, {"runs": 1}, {"momentum": 1.0}]
)
def test_wrong_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        DBMConfig(**wrong)
