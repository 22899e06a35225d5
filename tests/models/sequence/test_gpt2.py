"""GPT-2: its sizes, its equations, that it looks back only, and its likelihood."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from castalia.core.data import Batch
from castalia.core.model import Progress
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.text import TextSpec
from castalia.media.text.sets import tiny
from castalia.models.sequence.gpt2 import GPT2, SIZES, GPT2Config
from castalia.nn.causal import CausalAttention, CausalBlock, attend_back, hidden
from tests.models.sequence.toys import letters, made

NOW = Progress(0, 1)


def small(**config: object) -> GPT2:
    model = made(GPT2, GPT2Config(**{"layers": 2, "heads": 2, "dim": 16, "init": 0.3, **config}))  # type: ignore[arg-type]
    assert isinstance(model, GPT2)
    return model


def test_parameters_of_all_sizes() -> None:
    spec = TextSpec("bytes", 50257, 1024)
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in GPT2(c, spec).parameters()) for name, c in SIZES.items()}
    assert counts == {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080, "xl": 1_557_611_200}


def test_weights_start_as_published() -> None:
    model = made(GPT2, GPT2Config(4, 2, 64))
    block = model.blocks[1]
    assert isinstance(block, CausalBlock)
    for layer, std in ((block.attention.qkv, 0.02), (block.up, 0.02), (block.down, 0.02 / math.sqrt(8))):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert not layer.bias.any()
    assert block.attention.out.weight.std().item() == pytest.approx(0.02 / math.sqrt(8), rel=0.05)
    assert model.tokens.weight.std().item() == pytest.approx(0.02, rel=0.1)
    x = torch.randint(0, 11, (64, 9))
    loss, _ = model.loss(Batch.of(x), BatchRng(0, total=64), NOW)
    assert loss.item() == pytest.approx(math.log(11), abs=0.1)


def test_equations_one_by_one() -> None:
    """The whole network written out with loops over tokens and heads."""
    model = small().double()
    x = torch.tensor([[3, 1, 4, 1, 5]])
    h = model.tokens.weight[x[0]] + model.places.weight[:5]
    for block in model.blocks:
        assert isinstance(block, CausalBlock)
        n = F.layer_norm(h, (16,), block.norm1.weight, block.norm1.bias, 1e-5)
        q, k, v = (n @ block.attention.qkv.weight.T + block.attention.qkv.bias).split(16, dim=1)
        mixed = torch.zeros_like(h)
        for head in (slice(0, 8), slice(8, 16)):
            for t in range(5):
                weights = torch.softmax(q[t, head] @ k[: t + 1, head].T / math.sqrt(8), 0)
                mixed[t, head] = weights @ v[: t + 1, head]
        h = h + mixed @ block.attention.out.weight.T + block.attention.out.bias
        n = F.layer_norm(h, (16,), block.norm2.weight, block.norm2.bias, 1e-5)
        u = n @ block.up.weight.T + block.up.bias
        gelu = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        h = h + gelu @ block.down.weight.T + block.down.bias
    logits = F.layer_norm(h, (16,), model.norm.weight, model.norm.bias, 1e-5) @ model.tokens.weight.T
    torch.testing.assert_close(model(x)[0], logits, atol=1e-12, rtol=0)


def test_a_token_sees_none_after_it() -> None:
    model = small().double()
    x = torch.randint(0, 11, (4, 8), generator=torch.Generator().manual_seed(0))
    before = model(x)
    for t in range(1, 8):
        changed = x.clone()
        changed[:, t:] = (changed[:, t:] + 3) % 11
        after = model(changed)
        assert torch.equal(before[:, :t], after[:, :t])
        assert not torch.allclose(before[:, t], after[:, t])
    e = model.tokens(x).detach().requires_grad_()
    model.tokens.forward = lambda _: e  # type: ignore[method-assign]
    for t in range(8):
        (gradient,) = torch.autograd.grad(model.features(x)[:, t, 0].sum(), e, retain_graph=True)
        assert not gradient[:, t + 1 :].any()
        assert gradient[:, : t + 1].abs().sum(-1).min() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 3])
def test_attention_in_every_form(dtype: torch.dtype, window: int | None) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 10, 4, generator=g).to(dtype) for _ in range(3))
    scores = q.double() @ k.double().mT / 2
    back = torch.arange(10)[:, None] - torch.arange(10)
    seen = (back >= 0) & (back < (window or 99))
    assert torch.equal(~seen, hidden(10, window, torch.device("cpu")))
    exact = torch.softmax(scores.masked_fill(~seen, -math.inf), -1) @ v.double()
    tolerance = 1e-6 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(attend_back(q, k, v, window=window).double(), exact, atol=tolerance, rtol=0)


def test_windows_of_attention_with_a_cache() -> None:
    """A layer that sees three tokens only gives the same whether it reads all at once or one after another."""
    from castalia.nn.causal import Cache

    torch.manual_seed(0)
    layer = CausalAttention(8, 2, window=3).eval()
    x = torch.randn(2, 7, 8)
    whole = layer(x)
    cache = Cache.empty(2, 2, 7, 4, torch.float32, torch.device("cpu"))
    parts = [layer(x[:, t : t + 1], cache, torch.full((2, 1), t)) for t in range(7)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-6, rtol=0)


def test_likelihood_is_the_loss_and_sums_to_one() -> None:
    model = small().double()
    every = torch.cartesian_prod(*[torch.arange(11)] * 3)
    x = torch.cat([torch.full((len(every), 1), 10), every], 1)
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x))))
    assert found.kind == "exact"
    assert found.nats.exp().sum().item() == pytest.approx(1, abs=1e-9)
    loss, logs = model.loss(Batch.of(x), BatchRng(0, total=len(x)), NOW)
    assert loss.item() == pytest.approx(-found.nats.mean().item() / 3, rel=1e-6)
    assert logs["nats_per_token"].item() == loss.item()


def test_padding_and_long_texts() -> None:
    model = small().double()
    x = torch.randint(0, 11, (2, 20), generator=torch.Generator().manual_seed(0))
    whole = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(2))).nats
    parts = [x[:, 0:9], x[:, 8:17], x[:, 16:20]]  # windows share one token
    total = sum(model.log_likelihood(Batch.of(p), rng=SampleRng(0, range(2))).nats for p in parts)
    torch.testing.assert_close(whole, total)
    padded = torch.cat([x, torch.full((2, 7), -1)], 1)
    padded[1, 5:] = -1
    found = model.log_likelihood(Batch.of(padded), rng=SampleRng(0, range(2))).nats
    assert found[0] == pytest.approx(whole[0].item(), rel=1e-12)
    alone = model.log_likelihood(Batch.of(x[1:, :5]), rng=SampleRng(0, [1])).nats
    assert found[1] == pytest.approx(alone.item(), rel=1e-12)
    nothing = model.log_likelihood(Batch.of(x[:, :1]), rng=SampleRng(0, range(2))).nats
    assert nothing.tolist() == [0, 0]


def test_restarts_put_an_end_before_some_windows() -> None:
    model = small(restarts=1.0)
    x = torch.randint(0, 10, (6, 9), generator=torch.Generator().manual_seed(0))
    rng = BatchRng(0, total=6)
    loss, _ = model.loss(Batch.of(x), rng, NOW)
    anew = torch.cat([torch.full((6, 1), 10), x[:, 1:]], 1)
    assert loss.item() == small().loss(Batch.of(anew), rng, NOW)[0].item()


@pytest.mark.parametrize("count", range(40))
def test_how_much_is_forgotten(count: int) -> None:
    forgotten = small().forgotten(count)
    assert forgotten % 4 == 0
    assert count - forgotten <= 8
    assert count <= 8 or count - forgotten > 4
    assert (forgotten == 0) == (count <= 8)


def test_dropout_is_for_training_only() -> None:
    model = small(dropout=0.5)
    x = torch.randint(0, 11, (2, 8))
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_bfloat16_samples_with_a_cache_of_its_own_type() -> None:
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        x = model.sample(3, rng=SampleRng(0, range(3))).x
    assert x.shape[0] == 3


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"layers": 0}, {"dropout": 1.0}, {"restarts": 2.0}])
def test_configurations_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        GPT2Config(**{"dim": 16, "heads": 2, **wrong})  # type: ignore[arg-type]


def test_it_learns_to_count() -> None:
    data = tiny()
    model = made(GPT2, GPT2Config(2, 2, 32, dropout=0.0), data.spec).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(250):
        rng = BatchRng(step, total=16)
        ids = rng.integers("rows", len(data)).numpy()
        loss, _ = model.loss(data.batch(ids, rng), rng, NOW)  # type: ignore[attr-defined]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.9  # log 12 = 2.5 at first; 2.2 by the shares of the characters alone


def test_export_calls_are_the_network() -> None:
    model = small()
    network, (x,) = model.export_calls()["logits"]
    assert network(x).shape == (2, letters().length, 11)
    assert np.isfinite(network(x).detach().numpy()).all()
