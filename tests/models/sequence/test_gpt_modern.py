"""The modern GPT: its equations, its start, that it looks back only, and its cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.model import Progress
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt_modern import GPTModern, GPTModernConfig, ModernBlock, norm, turned
from castalia.models.sequence.writing import WritingOptions
from castalia.training.muon import hidden_matrices
from tests.models.sequence.toys import letters, made, prompts, rows, streams


def small(length: int = 8, **config: object) -> GPTModern:
    """With weights that are not zero anywhere."""
    given = {"layers": 2, "heads": 2, "dim": 16, "head_scale": 0.5, **config}
    model = made(GPTModern, GPTModernConfig(**given), letters(length))  # type: ignore[arg-type]
    assert isinstance(model, GPTModern)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model


def test_parameters() -> None:
    with torch.device("meta"):
        plays = GPTModern(GPTModernConfig(4, 4, 128), TextSpec("bytes", 66, 128))
        whole = GPTModern(GPTModernConfig(), TextSpec("bytes", 50257, 1024))
    assert sum(p.numel() for p in plays.parameters()) == 12 * 4 * 128**2 + 2 * 66 * 128 == 803_328
    assert sum(p.numel() for p in whole.parameters()) == 12 * 12 * 768**2 + 2 * 50257 * 768


def test_it_starts_as_a_model_that_knows_nothing() -> None:
    """Blocks add nothing, and all tokens are equally likely; Muon moves the matrices and neither table."""
    model = made(GPTModern, GPTModernConfig(2, 2, 32), letters())
    assert isinstance(model, GPTModern)
    x = torch.randint(0, 11, (4, 8))
    assert not model(x).any()
    torch.testing.assert_close(model.features(x), norm(norm(model.tokens(x))))
    for block in model.blocks:
        assert isinstance(block, ModernBlock)
        for layer in (block.q, block.k, block.v, block.up):
            assert layer.weight.abs().max() <= math.sqrt(3 / 32)
            assert layer.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
    moved = {id(w) for w in hidden_matrices(model)}
    assert len(moved) == 2 * 6
    assert id(model.tokens.weight) not in moved
    assert id(model.head.weight) not in moved


def test_equations_one_by_one() -> None:
    """The whole network written out, with loops over tokens and heads and complex numbers for the rotations."""
    model = small().double()
    x = torch.tensor([[3, 1, 4, 1, 5]])

    def normed(z: torch.Tensor) -> torch.Tensor:
        return z / (z.square().mean(-1, keepdim=True) + torch.finfo(z.dtype).eps).sqrt()

    def rotated(z: torch.Tensor, t: int) -> torch.Tensor:
        speeds = 10_000.0 ** (-torch.arange(4).double() / 4)
        w = torch.complex(z[:4], z[4:]) * torch.polar(torch.ones(4).double(), t * speeds)
        return torch.cat([w.real, w.imag])

    h = normed(model.tokens.weight[x[0]])
    for block in model.blocks:
        assert isinstance(block, ModernBlock)
        n = normed(h)
        q, k, v = (n @ layer.weight.T for layer in (block.q, block.k, block.v))
        mixed = torch.zeros_like(h)
        for head in (slice(0, 8), slice(8, 16)):
            for t in range(5):
                query = rotated(normed(q[t, head]) * 1.2, t)
                keys = torch.stack([rotated(normed(k[s, head]) * 1.2, s) for s in range(t + 1)])
                mixed[t, head] = torch.softmax(keys @ query / math.sqrt(8), 0) @ v[: t + 1, head]
        h = h + mixed @ block.out.weight.T
        h = h + (normed(h) @ block.up.weight.T).clamp(min=0).square() @ block.down.weight.T
    logits = 0.5 * normed(h) @ model.head.weight.T
    torch.testing.assert_close(model(x)[0], logits, atol=1e-6, rtol=1e-6)  # angles are in single precision


def test_rotations_know_distances_only() -> None:
    model = small()
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 2, 1, 8, generator=g), torch.randn(1, 2, 1, 8, generator=g)

    def product(i: int, j: int) -> torch.Tensor:
        one, other = (model.angles(torch.tensor([[place]])) for place in (i, j))
        return (turned(q, one) * turned(k, other)).sum(-1)

    torch.testing.assert_close(product(7, 3), product(104, 100), atol=1e-4, rtol=0)
    assert not torch.allclose(product(7, 3), product(7, 5), atol=1e-2)
    torch.testing.assert_close(turned(q, model.angles(torch.tensor([[5]]))).norm(dim=-1), q.norm(dim=-1))


def test_a_token_sees_none_after_it() -> None:
    model = small(12).double()
    x = torch.randint(0, 11, (4, 12), generator=torch.Generator().manual_seed(0))
    before = model(x)
    for t in range(1, 12):
        changed = x.clone()
        changed[:, t:] = (changed[:, t:] + 3) % 11
        after = model(changed)
        assert torch.equal(before[:, :t], after[:, :t])
        assert not torch.allclose(before[:, t], after[:, t])


@pytest.mark.parametrize("given", [None, ("abc", "d", ""), ("abcdefghij" * 2, "jihgfedcb", "aaaaaaaaaaaaaaaa")])
def test_cached_sampling_is_anew_sampling(given: tuple[str, ...] | None) -> None:
    model, what = small(), None if given is None else prompts(*given)
    for options in (WritingOptions(length=30, end=False), WritingOptions(length=25, temperature=0.8, top_k=5)):
        fast = model.sample(3, what, rng=streams(3), options=options).x
        assert torch.equal(fast, model.naive(3, what or {}, streams(3), options).x)
        for i in range(3):
            one = what and {"prompt": what["prompt"][i : i + 1]}
            alone = model.sample(1, one, rng=SampleRng(3, [i]), options=options).x
            assert rows(alone) == [rows(fast)[i]]


def test_likelihood_is_the_loss_and_sums_to_one() -> None:
    model = small().double()
    every = torch.cartesian_prod(*[torch.arange(11)] * 3)
    x = torch.cat([torch.full((len(every), 1), 10), every], 1)
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x))))
    assert found.nats.exp().sum().item() == pytest.approx(1, abs=1e-9)
    loss, _ = model.loss(Batch.of(x), BatchRng(0, total=len(x)), Progress(0, 1))
    assert loss.item() == pytest.approx(-found.nats.mean().item() / 3, rel=1e-6)


def test_in_bfloat16() -> None:
    model = small()
    x = torch.randint(0, 11, (4, 8), generator=torch.Generator().manual_seed(0))
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).float(), exact, atol=0.15, rtol=0.05)
        assert model.sample(3, rng=SampleRng(0, range(3))).x.shape[0] == 3


@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"layers": 0}, {"heads": 16}, {"dropout": 1.0}, {"base": 1.0}, {"head_scale": 0.0}]
)
def test_configurations_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        GPTModernConfig(**{"dim": 16, "heads": 2, **wrong})
