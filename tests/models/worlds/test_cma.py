"""CMA-ES on functions that everybody knows, beside the package ``cma``."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.models.worlds.cma import CMA


def sphere(x: Tensor) -> Tensor:
    return -x.square().sum(-1)


def rosenbrock(x: Tensor) -> Tensor:
    return -(100 * (x[..., 1:] - x[..., :-1] ** 2).square() + (1 - x[..., :-1]).square()).sum(-1)


def cigar(x: Tensor) -> Tensor:
    return -(x[..., 0].square() + 1e6 * x[..., 1:].square().sum(-1))


def generations(
    f: Callable[[Tensor], Tensor], size: int, seed: int, covariance: str = "full", target: float = -1e-9
) -> int:
    """Until the best of all is good enough, from ones, sigma 0.3."""
    search = CMA(size, 4 + int(3 * np.log(size)), 0.3, covariance)  # type: ignore[arg-type]
    search.mean.fill_(0.7)
    random = torch.Generator().manual_seed(seed)
    for g in range(1, 5000):
        x = search.ask(torch.randn(search.population, size, generator=random))
        search.tell(x, f(x))
        if search.best_fitness > target:
            assert f(search.best) == search.best_fitness
            return g
    return 5000


@pytest.mark.parametrize(("f", "size"), [(sphere, 10), (rosenbrock, 6), (cigar, 6)])
def test_it_is_as_quick_as_the_package(f: Callable[[Tensor], Tensor], size: int) -> None:
    """Median of seven seeds: at most 1.3 times its generations (which also uses the worst candidates)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cma
    ours = sorted(generations(f, size, seed) for seed in range(7))[3]
    theirs = []
    for seed in range(7):
        options = {"seed": seed + 1, "verbose": -9, "CMA_active": False, "ftarget": 1e-9, "tolfun": 0, "tolx": 0}
        found = cma.CMAEvolutionStrategy(size * [0.7], 0.3, options)
        while not found.stop():
            x = found.ask()
            found.tell(x, (-f(torch.tensor(np.array(x)))).tolist())
        theirs.append(found.countiter)
    assert ours <= 1.3 * sorted(theirs)[3], (ours, sorted(theirs)[3])


def test_the_diagonal_form_is_quicker_where_axes_are_those_of_the_numbers() -> None:
    full = sorted(generations(cigar, 12, seed, "full") for seed in range(3))[1]
    diagonal = sorted(generations(cigar, 12, seed, "diagonal") for seed in range(3))[1]
    assert diagonal < 0.7 * full


def test_its_state_is_in_buffers() -> None:
    """A copy goes on bit for bit; there is nothing beside them."""
    for covariance in ("full", "diagonal"):
        one = CMA(5, 8, 0.5, covariance)  # type: ignore[arg-type]
        noise = torch.randn(30, 8, 5, generator=torch.Generator().manual_seed(0))
        for z in noise[:15]:
            one.tell(x := one.ask(z), rosenbrock(x))
        other = CMA(5, 8, 0.5, covariance)  # type: ignore[arg-type]
        other.load_state_dict(one.state_dict())
        for z in noise[15:]:
            for search in (one, other):
                search.tell(x := search.ask(z), rosenbrock(x))
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
        assert int(one.generation) == 30


def test_worse_and_broken_candidates_have_no_weight() -> None:
    search = CMA(3, 6, 1.0)
    x = search.ask(torch.eye(6)[:, :3] * 2)
    fitness = torch.tensor([1.0, float("nan"), 3.0, float("-inf"), 2.0, float("nan")], dtype=torch.float64)
    search.tell(x, fitness)
    weights = torch.tensor(search.weights, dtype=torch.float64)
    assert torch.allclose(search.mean, weights[0] * x[2] + weights[1] * x[4] + weights[2] * x[0])
    assert search.best_fitness == 3
    assert torch.equal(search.best, x[2])
    assert all(value.isfinite().all() for value in search.state_dict().values())


def test_candidates_have_the_covariance_that_it_learnt() -> None:
    search = CMA(4, 64, 0.5)
    random = torch.Generator().manual_seed(3)
    for _ in range(20 * search.lazy):
        search.tell(x := search.ask(torch.randn(64, 4, generator=random)), cigar(x))
    x = search.ask(torch.randn(200_000, 4, generator=random))
    wanted = search.sigma.square() * (search.axes * search.lengths.square()) @ search.axes.T
    found = torch.cov(x.T)
    assert (found - wanted).abs().max() < 0.03 * wanted.abs().max()
