"""Boltzmann machines: against enumeration, closed forms and scikit-learn."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

from castalia import api, recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.estimators.annealing import schedule
from castalia.models.energy.machine import Machine, Rates
from castalia.models.energy.rbm import RBM, RBMConfig, RBMOptions
from castalia.models.energy.units import Binary, Categorical, Gaussian, Joined, Units
from castalia.training.loop import train
from tests.tools import Table, small_recipe


def machine(units: Units, hidden: int, chains: int = 0, scale: float = 1.0, momentum: float = 0.0) -> Machine:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Machine(units, hidden, chains, scale, momentum)
        with torch.no_grad():
            made.visible.copy_(torch.randn(units.size))
            made.hidden.copy_(torch.randn(hidden))
            made.base.copy_(0.5 * made.visible)
    return made


def states(n: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)))


def exact_statistics(m: Machine) -> tuple[Tensor, Tensor, Tensor]:
    """<v h>, <v>, <h> of a machine of binary units, by enumeration, in float64."""
    v, h = states(m.units.size).double(), states(m.size).double()
    w, b, c = m.weight.double(), m.visible.double(), m.hidden.double()
    log = (v @ b)[:, None] + (h @ c)[None] + v @ w @ h.T
    p = (log - torch.logsumexp(log.flatten(), 0)).exp()
    return v.T @ p @ h, p.sum(1) @ v, p.sum(0) @ h


# units


@pytest.mark.parametrize("units", [Binary(3), Categorical(2, 3), Joined([Binary(2), Categorical(1, 4)])])
def test_log_partitions_are_sums_over_all_values(units: Units) -> None:
    a = torch.randn(5, units.size, generator=torch.Generator().manual_seed(0)).double()

    def values(u: Units) -> list[tuple[float, ...]]:
        if isinstance(u, Categorical):
            one = [tuple(float(i == j) for j in range(u.levels)) for i in range(u.levels)]
            return [sum(x, ()) for x in itertools.product(one, repeat=u.groups)]
        if isinstance(u, Joined):
            return [sum(x, ()) for x in itertools.product(*map(values, u.parts))]
        return list(itertools.product((0.0, 1.0), repeat=u.size))

    v = torch.tensor(values(units)).double()
    torch.testing.assert_close(units.log_partition(a), torch.logsumexp(a @ v.T, 1), rtol=1e-12, atol=1e-12)
    p = torch.softmax(a @ v.T, 1)
    torch.testing.assert_close(units.mean(a).double(), p @ v, rtol=1e-5, atol=1e-6)
    n = 20_000
    drawn = units.sample(a[:1].expand(n, -1).float(), BatchRng(0, total=n), "v")
    torch.testing.assert_close(drawn.mean(0).double(), (p @ v)[0], atol=0.015, rtol=0)
    assert set(map(tuple, drawn[:100].tolist())) <= set(map(tuple, v.tolist()))


def test_gaussian_units_integrate() -> None:
    units, a = Gaussian(1), torch.tensor([[0.7], [-2.0]]).double()
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    inside = torch.exp(-0.5 * grid**2 + a * grid).sum(1) * (grid[1] - grid[0])
    torch.testing.assert_close(units.log_partition(a), inside.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("units", [Binary(3), Categorical(2, 3)])
def test_a_bias_has_the_mean_that_was_asked_for(units: Units) -> None:
    mean = units.mean(torch.randn(1, units.size, generator=torch.Generator().manual_seed(1)))[0]
    torch.testing.assert_close(units.mean(units.bias(mean)[None])[0], mean, atol=0.01, rtol=0)


# the gradient


@pytest.mark.parametrize("centred", [False, True])
def test_the_gradient_is_that_of_the_likelihood(centred: bool) -> None:
    """6 x 4 units against enumeration; with 200,000 exact chains the error of sampling is below 0.005."""
    n = 200_000
    m = machine(Binary(6), 4, n, 0.5)
    vh, v_mean, h_mean = exact_statistics(m)
    log = torch.stack([-m.free_energy(states(6)[i : i + 1])[0] for i in range(64)]).double()
    g = torch.Generator().manual_seed(0)
    v = states(6)[torch.multinomial(torch.softmax(log, 0), n, True, generator=g)]
    with torch.no_grad():
        m.chain.copy_((torch.rand(n, 4, generator=g) < m.hidden_mean(v)).float())
        m.offset_v.copy_(torch.rand(6, generator=g))
        m.offset_h.copy_(torch.rand(4, generator=g))
    mu, lam = m.offset_v.clone().double(), m.offset_h.clone().double()
    data = (torch.rand(50, 6, generator=g) < 0.3).float()
    p = m.hidden_mean(data).double().detach()
    dv, dh = data.double().mean(0) - v_mean, p.mean(0) - h_mean
    dw = data.double().T @ p / 50 - vh
    if centred:
        dw = dw - torch.outer(mu, dh) - torch.outer(dv, lam)
        dv, dh = dv - dw @ lam, dh - mu @ dw
    before = [t.detach().clone() for t in (m.weight, m.visible, m.hidden)]
    with torch.no_grad():
        m.step(data, BatchRng(0, total=50), Rates(1.0, centred=centred))
    for now, old, right in zip((m.weight, m.visible, m.hidden), before, (dw, dv, dh), strict=True):
        torch.testing.assert_close((now - old).detach().double(), right, atol=0.005, rtol=0)


def test_contrastive_divergence_comes_to_the_same_with_many_steps() -> None:
    n = 100_000
    m = machine(Binary(6), 4, scale=0.5)
    vh, _, _ = exact_statistics(m)
    data = (torch.rand(1, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float().expand(n, -1)
    right = data[:1].double().T @ m.hidden_mean(data[:1]).double().detach() - vh
    before = m.weight.detach().clone()
    with torch.no_grad():
        m.step(data, BatchRng(0, total=n), Rates(1.0, centred=False, steps=30))
    torch.testing.assert_close((m.weight - before).detach().double(), right, atol=0.01, rtol=0)


def test_momentum_and_decay() -> None:
    m = machine(Binary(6), 4, 5, momentum=0.5)
    with torch.no_grad():
        m.before.copy_(m.weight - 0.2)
        m.before_v.copy_(m.visible)
        m.before_h.copy_(m.hidden)
    plain, data = machine(Binary(6), 4, 5), states(6)[:10]
    with torch.no_grad():
        m.step(data, BatchRng(0, total=10), Rates(0.1, decay=0.01))
        plain.step(data, BatchRng(0, total=10), Rates(0.1))
    old = machine(Binary(6), 4, 5).weight
    torch.testing.assert_close(m.weight, plain.weight + 0.5 * 0.2 - 0.1 * 0.01 * old, atol=1e-6, rtol=0)


# likelihoods


def test_free_energy_is_that_of_scikit_learn() -> None:
    m = machine(Binary(12), 7)
    other = BernoulliRBM(n_components=7)
    other.components_ = m.weight.detach().double().numpy().T
    other.intercept_visible_, other.intercept_hidden_ = (t.detach().double().numpy() for t in (m.visible, m.hidden))
    v = (torch.rand(20, 12, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    theirs = torch.from_numpy(other._free_energy(v.numpy()))
    torch.testing.assert_close(m.double().free_energy(v), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("config", "levels"),
    [({"binarise": "threshold"}, (0, 255)), ({"units": "categorical", "levels": 3}, (0, 128, 255))],
)
def test_all_pictures_sum_to_one(config: dict[str, object], levels: tuple[int, ...]) -> None:
    spec = ImageSpec(1, 3, 3) if len(levels) == 2 else ImageSpec(1, 2, 3)
    model = build(RBM, RBMConfig(hidden=5, init=1.0, **config), spec)  # type: ignore[arg-type]
    assert isinstance(model, RBM)
    every = torch.tensor(list(itertools.product(levels, repeat=spec.dims)), dtype=torch.uint8).view(-1, *spec.shape)
    found = model.log_likelihood(Batch.of(every), rng=SampleRng(0, range(len(every))))
    assert found.kind == "exact"
    assert torch.logsumexp(found.nats, 0).item() == pytest.approx(0, abs=1e-5)


def test_a_gaussian_density_integrates_to_one() -> None:
    """One pixel: the density of (x + u) / 256, over all reals, is what is left after dequantisation."""
    model = build(RBM, RBMConfig(hidden=4, units="gaussian", init=1.0), ImageSpec(1, 1, 1))
    assert isinstance(model, RBM)
    v = torch.linspace(-15, 15, 30_001)[:, None]
    z = model.partition()
    assert z.kind == "exact"
    total = (-model.machine.free_energy(v).double() - z.log).exp().sum() * 0.001
    assert total.item() == pytest.approx(1, abs=1e-4)


def test_both_sums_agree() -> None:
    m = machine(Binary(6), 4)
    turned = machine(Binary(4), 6)
    with torch.no_grad():
        turned.weight.copy_(m.weight.T)
        turned.visible.copy_(m.hidden)
        turned.hidden.copy_(m.visible)
    assert m.sum() == pytest.approx(turned.sum(), abs=1e-6)


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> RBM:
    """A machine with 16 hidden units that has learned digits."""
    recipe = small_recipe("rbm", steps=800, batch_size=100)
    model = train(recipe, api.training_data(recipe), tmp_path_factory.mktemp("rbm") / "run", quiet=True).model()[0]
    assert isinstance(model, RBM)
    return model


def test_annealing_finds_the_sum(sixteen: RBM) -> None:
    """Within 0.05 nat, from both sides."""
    truth = sixteen.partition()
    assert truth.kind == "exact"
    found = sixteen.machine.partition(0, 2000, 500, exact=False)
    assert found.kind == "estimate"
    assert found.trusted
    assert found.log == pytest.approx(truth.log, abs=0.05)
    assert found.reverse == pytest.approx(truth.log, abs=0.05)
    assert found.low < truth.log < found.high
    assert "DISAGREE" not in found.detail


def test_the_two_sides_bracket_the_truth_where_annealing_is_too_fast(sixteen: RBM) -> None:
    truth = sixteen.partition().log
    found = [sixteen.machine.partition(seed, 8, 100, exact=False) for seed in range(8)]
    assert sum(f.log for f in found) / 8 < truth
    assert sum(f.reverse or 0 for f in found) / 8 > truth


def test_disagreement_is_said() -> None:
    m = machine(Binary(40), 40, scale=3.0)
    found = m.partition(0, 3, 10)
    assert not found.trusted
    assert "DISAGREE" in found.detail


def two_modes(chains: int) -> Machine:
    """All pixels off or all on, e^6 times as likely on, while the known distribution has them off."""
    made = machine(Binary(60), 16, chains)
    with torch.no_grad():
        made.weight.fill_(0.375)
        made.visible.fill_(-0.5 * 16 * 0.375 + 6 / 60)
        made.hidden.fill_(-0.5 * 60 * 0.375)
        made.base.fill_(-1.0)
        made.chain.fill_(1.0)  # where a training would have left them
    return made


def test_a_mode_that_the_forward_chains_miss_is_known_to_the_chains_of_the_training() -> None:
    """Without them both sides start in the wrong mode, agree with each other, and are five nats off."""
    found = two_modes(20).partition(0, 500, 100, exact=False)
    truth = two_modes(0).sum()
    assert found.log < truth - 3
    assert not found.trusted
    assert "DISAGREE" in found.detail
    blind = two_modes(0).partition(0, 500, 100, exact=False)
    assert blind.log < truth - 3
    assert blind.trusted  # what nobody can see from where they start: the page says so


def test_the_partition_function_is_computed_once_for_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    m, calls = machine(Binary(5), 3), []
    monkeypatch.setattr(Machine, "sum", lambda self: calls.append(1) or 1.0)
    assert m.partition(0, 10, 10) is m.partition(0, 10, 10)
    assert len(calls) == 1
    with torch.no_grad():
        m.weight += 1
    m.partition(0, 10, 10)
    assert len(calls) == 2


@pytest.mark.parametrize("count", [1, 7, 1000, 14_500])
def test_schedule(count: int) -> None:
    betas = schedule(count)
    assert len(betas) == count + 1
    assert (betas.diff() > 0).all()
    assert betas[0] == 0
    assert betas[-1] == 1
    if count == 14_500:  # 0:1/1000:0.5, 0.5:1/10,000:0.9, 0.9:1/100,000:1
        for at, step in ((10, 1e-3), (1000, 1e-4), (10_000, 1e-5)):
            assert float(betas[at + 1] - betas[at]) == pytest.approx(step, rel=1e-6)


# sampling


def test_gibbs_sampling_has_the_right_marginals() -> None:
    m, n = machine(Binary(5), 3), 20_000
    _, v_mean, _ = exact_statistics(m)
    rng, v = BatchRng(0, total=n), torch.zeros(n, 5)
    with torch.no_grad():
        for step in range(60):
            v, _ = m.gibbs(v, rng.at(step))
    torch.testing.assert_close(v.mean(0).double(), v_mean, atol=0.015, rtol=0)


def test_what_is_held_conditions_what_is_filled_in() -> None:
    """Two pixels that are always equal: the one follows the other."""
    spec = ImageSpec(1, 1, 2)
    model = build(RBM, RBMConfig(hidden=1, binarise="threshold"), spec)
    assert isinstance(model, RBM)
    with torch.no_grad():
        model.machine.weight.fill_(12.0)
        model.machine.visible.fill_(-6.0)
        model.machine.hidden.fill_(-12.0)
    x = torch.tensor([[0, 0], [255, 0]], dtype=torch.uint8).view(2, 1, 1, 2)
    mask = torch.tensor([False, True]).view(1, 1, 1, 2)
    filled = model.refine(Batch.of(x), mask=mask, rng=SampleRng(0, range(2))).x.flatten(1)
    assert filled[0].tolist()[0] == 0
    assert filled[0, 1] < 10
    assert filled[1, 1] > 245


def test_chains_start_from_the_data_biases_and_are_refused_where_there_are_none() -> None:
    spec, g = ImageSpec(1, 4, 4), torch.Generator().manual_seed(0)
    x = ((torch.rand(500, 1, 4, 4, generator=g) < 0.2) * 255).to(torch.uint8)
    model = build(RBM, RBMConfig(hidden=3, method="cd", binarise="threshold"), spec)
    assert isinstance(model, RBM)
    model.initialise(Table(x, spec), BatchRng(0, total=1), {})
    rates = (x.float() / 255).mean(0).flatten()
    torch.testing.assert_close(torch.sigmoid(model.machine.visible), rates, atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match="no chains"):
        model.sample(2, rng=SampleRng(0, range(2)), options=RBMOptions(start="chains"))


def test_k_and_the_rate_follow_the_progress() -> None:
    config = RBMConfig(method="cd", steps=1, steps_end=25, rate=0.1, rate_end=0.2)
    assert [config.rates(Progress(i, 10)).steps for i in (0, 5, 10)] == [1, 13, 25]
    assert config.rates(Progress(5, 10)).rate == pytest.approx(0.06)


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"momentum": 1.0}, {"levels": 1}, {"rate": 0.0}, {"runs": 1}])
def test_bad_configurations_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RBMConfig(**wrong)  # type: ignore[arg-type]


def test_sizes_of_the_paper() -> None:
    """784 - 500: weights and both biases."""
    model = build(RBM, recipes.recipe("rbm-mnist").config, ImageSpec(1, 28, 28))
    assert sum(p.numel() for p in model.parameters()) == 784 * 500 + 784 + 500 == 393_284


def test_learning_raises_the_likelihood(sixteen: RBM, tmp_path: Path) -> None:
    """Beyond independent pixels by several nats, exactly."""
    data = api.training_data(small_recipe("rbm"))
    batch = data.batch(torch.arange(500).numpy())
    fresh = build(RBM, sixteen.config, sixteen.spec)
    assert isinstance(fresh, RBM)
    fresh.initialise(data, BatchRng(0, total=1), {})
    nats = [m.log_likelihood(batch, rng=SampleRng(0, range(500))).nats.mean().item() for m in (fresh, sixteen)]
    assert nats[1] > nats[0] + 2
    assert math.isfinite(nats[1])
