"""GPT-3: its sizes, its bands, the cache of a band, and how its batch grows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from castalia import recipes
from castalia.core.data import Batch
from castalia.core.model import Progress
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.gpt3 import GPT3, PRINTED, SIZES, GPT3Config
from castalia.models.sequence.writing import WritingOptions
from castalia.nn.banded import BandedAttention, BandedBlock, attend_band
from castalia.nn.causal import Cache, CausalAttention, hidden
from tests.models.sequence.toys import letters, made, prompts, rows, streams


def small(length: int = 8, **config: object) -> GPT3:
    given = {"layers": 4, "heads": 2, "dim": 16, "init": 0.3, "window": 3, **config}
    model = made(GPT3, GPT3Config(**given), letters(length))  # type: ignore[arg-type]
    assert isinstance(model, GPT3)
    return model


def count(config: GPT3Config) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in GPT3(config, TextSpec("bytes", 50257, 2048)).parameters())


def test_parameters_of_all_sizes() -> None:
    """Millions as in table D.1 of the paper (its 125M and 356M are rounded more)."""
    counts = {name: count(config) for name, config in SIZES.items()}
    assert counts == {
        "125m": 125_226_240,
        "350m": 355_871_744,
        "760m": 760_300_032,
        "1.3b": 1_315_723_264,
        "2.7b": 2_651_553_280,
        "6.7b": 6_658_404_352,
        "13b": 12_853_386_240,
        "175b": 174_604_259_328,
    }
    published = (125, 356, 760, 1_320, 2_650, 6_660, 12_850, 174_600)
    for found, millions in zip(counts.values(), published, strict=True):
        assert found / 1e6 == pytest.approx(millions, rel=0.004)


def test_sizes_as_printed_do_not_have_the_numbers_that_are_printed() -> None:
    assert (count(PRINTED["1.3b"]), count(PRINTED["13b"])) == (1_517_123_584, 12_936_488_380)
    assert PRINTED["1.3b"].inner == 3072
    assert PRINTED["13b"].inner == 5120


def test_every_second_block_is_banded() -> None:
    model = small()
    assert [isinstance(block, BandedBlock) for block in model.blocks] == [False, True, False, True]
    with torch.no_grad():  # where a band is as wide as the context, it is GPT-2
        plain = made(GPT2, GPT2Config(4, 2, 16, init=0.3), letters())
        wide = small(window=8)
        wide.load_state_dict(plain.state_dict())
        x = torch.randint(0, 11, (3, 8), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(wide(x), plain(x), atol=1e-5, rtol=0)
        model.load_state_dict(plain.state_dict())
        assert not torch.allclose(model(x)[:, 4:], plain(x)[:, 4:], atol=1e-2)
        torch.testing.assert_close(model(x)[:, :3], plain(x)[:, :3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("t", "window"), [(1, 1), (7, 3), (20, 3), (21, 5), (16, 4), (9, 1), (12, 40)])
def test_a_band_is_a_dense_mask(t: int, window: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(t)
    q, k, v = (torch.randn(2, 3, t, 4, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3))
    scores = (q.double() @ k.double().mT / 2).masked_fill(hidden(t, window, torch.device("cpu")), -math.inf)
    exact = torch.softmax(scores, -1) @ v.double()
    found = attend_band(q, k, v, window)
    tolerance = 1e-12 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(found.double(), exact, atol=tolerance, rtol=0)
    ours = torch.autograd.grad(found.double().square().sum(), (q, k, v))
    theirs = torch.autograd.grad(exact.square().sum(), (q, k, v))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=20 * tolerance, rtol=0.1 if dtype == torch.bfloat16 else 0)


@pytest.mark.parametrize("pieces", [(1,) * 17, (9, 1, 1, 1, 5), (2, 3, 12), (17,)])
def test_the_ring_of_a_band(pieces: tuple[int, ...]) -> None:
    """However many tokens are read at a time, and whatever lay in the ring, it is attention with a window."""
    torch.manual_seed(0)
    layer = BandedAttention(8, 2, 4).double().eval()
    dense = CausalAttention(8, 2, window=4).double().eval()
    dense.load_state_dict(layer.state_dict())
    x = torch.randn(2, 17, 8, dtype=torch.float64)
    ring = Cache.empty(2, 2, 4, 4, torch.float64, torch.device("cpu"))
    ring.keys.normal_()
    ring.values.normal_()
    parts, at = [], 0
    for size in pieces:
        places = torch.arange(at, at + size).expand(2, -1)
        parts.append(layer(x[:, at : at + size], ring, places))
        at += size
    torch.testing.assert_close(torch.cat(parts, 1), dense(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(layer(x), dense(x), atol=1e-12, rtol=0)


def test_rows_of_different_lengths_in_a_ring() -> None:
    torch.manual_seed(0)
    layer = BandedAttention(8, 2, 3).double().eval()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    ring = Cache.empty(2, 2, 3, 4, torch.float64, torch.device("cpu"))
    places = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 1, 1, 1, 1]])
    padded = torch.stack([x[i, row] for i, row in enumerate(places)])
    first = layer(padded, ring, places)
    torch.testing.assert_close(first[0], layer(x[:1, :6])[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(first[1, :2], layer(x[1:, :2])[0], atol=1e-12, rtol=0)
    then = layer(torch.stack([x[0, 6:7], x[1, 2:3]]), ring, torch.tensor([[6], [2]]))
    torch.testing.assert_close(then[0, 0], layer(x[:1, :7])[0, 6], atol=1e-12, rtol=0)
    torch.testing.assert_close(then[1, 0], layer(x[1:, :3])[0, 2], atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", [8, 40])
@pytest.mark.parametrize("given", [None, ("abc", "d", ""), ("abcdefghij" * 2, "jihgfedcb", "aaaaaaaaaaaaaaaa")])
def test_cached_sampling_is_anew_sampling(length: int, given: tuple[str, ...] | None) -> None:
    """Also beyond the context, where the first half is forgotten; the cache of a band has the size of the band."""
    model, what = small(length), None if given is None else prompts(*given)
    for options in (WritingOptions(length=30, end=False), WritingOptions(length=25, temperature=0.8, top_k=5)):
        fast = model.sample(3, what, rng=streams(3), options=options).x
        assert torch.equal(fast, model.naive(3, what or {}, streams(3), options).x)
        for i in range(3):
            alone = model.sample(
                1, what and {"prompt": what["prompt"][i : i + 1]}, rng=SampleRng(3, [i]), options=options
            )
            assert rows(alone.x) == [rows(fast)[i]]
    assert [cache.keys.shape[2] for cache in model.caches(1, torch.float32)] == [length, 3, length, 3]


def test_numbers_are_those_of_gpt_neo() -> None:
    """GPT-Neo is the same network without a scale of attention and without biases of queries, keys and values."""
    transformers: Any = pytest.importorskip("transformers")
    model = small(24, window=5, heads=4, dim=32)
    config = transformers.GPTNeoConfig(
        vocab_size=11,
        max_position_embeddings=24,
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=5,
        resid_dropout=0.0,
        embed_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=10,
        eos_token_id=10,
    )
    theirs = transformers.GPTNeoForCausalLM(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        state = {"transformer.wte.weight": model.tokens.weight, "transformer.wpe.weight": model.places.weight}
        state |= {f"transformer.ln_f.{k}": v for k, v in model.norm.state_dict().items()}
        for i, block in enumerate(model.blocks):
            block.attention.qkv.bias.zero_()  # type: ignore[union-attr,operator]
            q, k, v = block.attention.qkv.weight.split(32)  # type: ignore[union-attr,operator]
            parts = {"attn.attention.q_proj.weight": q * 8**-0.5, "attn.attention.k_proj.weight": k}
            parts["attn.attention.v_proj.weight"] = v
            for name, layer in (
                ("attn.attention.out_proj", block.attention.out),  # type: ignore[union-attr]
                ("ln_1", block.norm1),
                ("ln_2", block.norm2),
                ("mlp.c_fc", block.up),
                ("mlp.c_proj", block.down),
            ):
                parts |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}  # type: ignore[union-attr]
            state |= {f"transformer.h.{i}.{key}": value for key, value in parts.items()}
        state["lm_head.weight"] = model.tokens.weight
        theirs.load_state_dict(state)
        x = torch.randint(0, 11, (3, 24), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(model(x), theirs(x).logits, atol=1e-5, rtol=0)
        assert model(x).std() > 0.5


def test_a_token_sees_none_after_it() -> None:
    model = small(20).double()
    x = torch.randint(0, 11, (4, 20), generator=torch.Generator().manual_seed(0))
    before = model(x)
    for t in (1, 6, 7, 13, 19):
        changed = x.clone()
        changed[:, t:] = (changed[:, t:] + 3) % 11
        assert torch.equal(before[:, :t], model(changed)[:, :t])


def test_a_batch_that_grows() -> None:
    model = small(ramp=0.4, begin=4)
    x = torch.randint(0, 10, (16, 9), generator=torch.Generator().manual_seed(0))
    whole = BatchRng(0, total=16)
    for step, apart in ((0, 4), (19, 4), (20, 2), (39, 2), (40, 1), (99, 1)):
        assert model.apart(Progress(step, 100)) == apart
        loss, _ = model.loss(Batch.of(x), whole, Progress(step, 100))
        assert loss.item() == small().loss(Batch.of(x[::apart]), whole, Progress(0, 1))[0].item()
        # two processes, or two parts of a batch, have an equal share of it
        parts = [model.loss(Batch.of(x[i : i + 8]), whole, Progress(step, 100))[0].item() for i in (0, 8)]
        assert sum(parts) / 2 == pytest.approx(loss.item(), rel=1e-6)
    assert model.loss(Batch.of(x[:2]), BatchRng(0, total=2), Progress(0, 100))[0].isfinite()


def test_ramps_of_the_recipes() -> None:
    """32 thousand tokens at first, or a little less; the batch is whole after 4 to 12 thousand million."""
    for size in SIZES:
        recipe = recipes.recipe(f"gpt3-{size}")
        training, config = recipe.training, recipe.config
        assert isinstance(config, GPT3Config)
        whole = training.batch_size * 2048
        assert 30_000 <= whole / config.begin <= 50_000
        assert training.batch_size // training.accumulate % config.begin == 0
        levels = int(math.log2(config.begin))
        seen = sum(whole / (config.begin >> level) for level in range(levels)) / levels * config.ramp * training.steps
        assert 3.9e9 < seen < 12.1e9


@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"window": 0}, {"begin": 3}, {"ramp": 2.0}, {"head_dim": -1}, {"dropout": 1.0}]
)
def test_configurations_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        GPT3Config(**{"dim": 16, "heads": 2, **wrong})
