"""RETRO: what depends on which neighbours, what it is without them, its encoder, its cache, and its database."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from castalia import api, runs
from castalia.core import assets
from castalia.core.data import Batch
from castalia.core.errors import RunError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.text import TextSpec
from castalia.media.text.packed import PackedText, pack
from castalia.media.text.sets import tiny
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.retro import SIZES, CrossAttention, Encoder, Retro, RetroConfig
from castalia.models.sequence.writing import WritingOptions
from castalia.training.loop import train
from tests.models.sequence.toys import LETTERS, letters, prompts, rows, streams
from tests.tools import small_recipe

CHUNK, LENGTH = 3, 14
NOW = Progress(0, 1)


def texts(length: int = LENGTH) -> PackedText:
    g = torch.Generator().manual_seed(5)
    made = ["".join(LETTERS[i] for i in torch.randint(0, 10, (n,), generator=g).tolist()) for n in (40, 17, 60, 33, 8)]
    return pack(made, letters(length), name="letters")


def small(length: int = LENGTH, **config: object) -> Retro:
    """With weights that are not zero anywhere."""
    given = {"layers": 3, "heads": 2, "dim": 16, "init": 0.3, "cross": (2, 3), "chunk": CHUNK, "keys": 64, **config}
    data = texts(length)
    chosen = Retro.complete(RetroConfig(**given), data)  # type: ignore[arg-type]
    model = build(Retro, chosen, data.spec).eval()
    assert isinstance(model, Retro)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


def some(n: int = 4, t: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, 11, (n, t), generator=torch.Generator().manual_seed(0))


def test_sizes() -> None:
    """Decoders without embeddings and what reads neighbours, in millions; the paper's have relative positions too."""
    spec = TextSpec("bytes", 32_000, 2048)
    found = {}
    with torch.device("meta"):
        for name, config in SIZES.items():
            model = Retro(config, spec)
            added = sum(p.numel() for part in (model.crosses, model.encoder) for p in part.parameters())
            found[name] = round(sum(p.numel() for p in model.blocks.parameters()) / 1e6), round(added / 1e6)
    assert found == {"172m": (116, 35), "425m": (340, 104), "1.5b": (1209, 235), "7.5b": (6444, 1075)}


def test_a_future_chunk_and_its_neighbours_change_nothing_before() -> None:
    """Bit for bit: tokens see neighbours of chunks that lie before them or end with them, and of no others."""
    model = small().double()
    x = some()
    near = model.near(x)
    before = model(x, near)
    assert torch.equal(before, model(x))
    for u in range(LENGTH // CHUNK):
        changed = near.clone()
        changed[:, u] = torch.where(changed[:, u] >= 0, (changed[:, u] + 3) % 11, -1)
        after = model(x, changed)
        first = (u + 1) * CHUNK - 1  # the last token of the chunk
        assert torch.equal(before[:, :first], after[:, :first])
        assert not torch.allclose(before[:, first], after[:, first])
        # from the next chunk's last token on it matters through attention in the decoder only
        assert not torch.allclose(before[:, min(first + CHUNK, LENGTH - 1)], after[:, min(first + CHUNK, LENGTH - 1)])
    for t in range(1, LENGTH):
        changed = x.clone()
        changed[:, t:] = (changed[:, t:] + 3) % 11
        after = model(changed)
        assert torch.equal(before[:, :t], after[:, :t])
        assert not torch.allclose(before[:, t], after[:, t])


def test_chunked_cross_attention_one_by_one() -> None:
    """Token i attends to the neighbours of chunk (i + 1) // m - 1, and to nothing where there is none."""
    model = small().double()
    x, m = some(), CHUNK
    near = model.near(x)
    h = torch.randn(4, LENGTH, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    add = model._whole(x, near, None, None)
    found = add("2", h)
    encoded = [model._encode(near[:, u], h[:, u * m : (u + 1) * m]) for u in range(LENGTH // m)]
    cross = model.crosses["2"]
    assert isinstance(cross, CrossAttention)
    for i in range(LENGTH):
        u = (i + 1) // m - 1
        exact = cross(h[:, i : i + 1], *encoded[u])[:, 0] if u >= 0 else torch.zeros(4, 16, dtype=torch.float64)
        torch.testing.assert_close(found[:, i], exact, atol=1e-12, rtol=0)


def test_cross_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    cross = CrossAttention(8, 2).double()
    x, seen = torch.randn(1, 3, 8).double(), torch.randn(1, 5, 8).double()
    there = torch.tensor([[True, True, False, True, False]])
    q = F.layer_norm(x[0], (8,)) @ cross.q.weight.T + cross.q.bias
    k, v = (seen[0] @ cross.kv.weight.T + cross.kv.bias).split(8, 1)
    parts = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = (q[:, head] @ k[:, head].T / 2).masked_fill(~there, -math.inf)
        parts.append(torch.softmax(scores, -1) @ v[:, head])
    exact = torch.cat(parts, 1) @ cross.out.weight.T + cross.out.bias
    torch.testing.assert_close(cross(x, seen, there)[0], exact, atol=1e-12, rtol=0)


def test_the_encoder_looks_both_ways() -> None:
    model = small().double()
    assert isinstance(model.encoder, Encoder)
    g = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, 2, 2 * CHUNK, 16, generator=g, dtype=torch.float64)
    chunk = torch.randn(1, CHUNK, 16, generator=g, dtype=torch.float64)
    there = torch.ones(1, 2, 2 * CHUNK, dtype=torch.bool)
    there[0, 1, 4:] = False
    before, seen = model.encoder(tokens, there, chunk)
    assert torch.equal(seen, there.flatten(1))
    later = tokens.clone()
    later[0, 0, -1] += 1
    after, _ = model.encoder(later, there, chunk)
    assert (before[0, :6] != after[0, :6]).any(1).all()  # all of that neighbour
    assert torch.equal(before[0, 6:], after[0, 6:])  # not the other one
    later = tokens.clone()
    later[0, 1, 5] += 1  # what is not there
    assert torch.equal(model.encoder(later, there, chunk)[0][0, 6:10], before[0, 6:10])
    assert not torch.allclose(model.encoder(tokens, there, chunk + 1)[0], before)


def test_without_neighbours_it_is_gpt2() -> None:
    """Where no block attends to them, and at the start, when what is added is nothing yet."""
    config = GPT2Config(3, 2, 16, dropout=0.0, init=0.3)
    plain = build(GPT2, config, letters(LENGTH)).eval()
    off = build(Retro, RetroConfig(3, 2, 16, init=0.3, cross=()), letters(LENGTH)).eval()
    off.load_state_dict(plain.state_dict())
    assert torch.equal(off(some()), plain(some()))
    options = WritingOptions(length=20)
    assert isinstance(off, Retro)
    assert isinstance(plain, GPT2)
    drawn = off.sample(3, rng=streams(3), options=options).x
    assert torch.equal(drawn, plain.sample(3, rng=streams(3), options=options).x)
    chosen = Retro.complete(RetroConfig(3, 2, 16, init=0.3, cross=(2,), chunk=CHUNK, keys=64), texts())
    fresh = build(Retro, chosen, letters(LENGTH)).eval()
    missing = fresh.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith(("crosses.", "encoder.")) for key in missing.missing_keys)
    assert torch.equal(fresh(some()), plain(some()))


@pytest.mark.parametrize("length", [8, LENGTH, 40])
@pytest.mark.parametrize("given", [None, ("abc", "d", ""), ("abcdefghij" * 2, "jihgfedcb", "aaaaaaaaaaaaaaaa")])
@pytest.mark.parametrize("index", ["vectors", "terms"])
def test_cached_sampling_is_anew_sampling(length: int, given: tuple[str, ...] | None, index: str) -> None:
    """Neighbours are looked for at the ends of chunks, each text's own, also where its beginning is forgotten."""
    model, what = small(length, index=index), None if given is None else prompts(*given)
    for options in (WritingOptions(length=30, end=False), WritingOptions(length=25, temperature=0.8, top_k=5)):
        fast = model.sample(3, what, rng=streams(3), options=options).x
        assert torch.equal(fast, model.naive(3, what or {}, streams(3), options).x)
        for i in range(3):
            one = what and {"prompt": what["prompt"][i : i + 1]}
            assert rows(model.sample(1, one, rng=SampleRng(3, [i]), options=options).x) == [rows(fast)[i]]


def test_logits_with_a_cache_are_those_without() -> None:
    model = small().double()
    from castalia.models.sequence.retro import _Recalling

    x = some(2)
    reader = _Recalling(model, 2)
    exact = model(x)
    found = reader.read(x[:, :5], torch.tensor([5, 2]))
    torch.testing.assert_close(found.double(), torch.stack([exact[0, 4], exact[1, 1]]), atol=1e-5, rtol=0)
    for t in range(9):
        step = torch.stack([x[0, 5 + t : 6 + t], x[1, 2 + t : 3 + t]])
        found = reader.read(step, torch.tensor([1, 1])).double()
        torch.testing.assert_close(found, torch.stack([exact[0, 5 + t], exact[1, 2 + t]]), atol=1e-5, rtol=0)


def test_neighbours_matter_to_samples() -> None:
    model, options = small(), WritingOptions(length=30, end=False)
    one = model.sample(4, rng=streams(4), options=options).x
    other = small()
    other.config = replace(other.config, database=assets.keep(b"\1\0" * 60, "database-uint16.tokens"))
    assert not torch.equal(one, other.sample(4, rng=streams(4), options=options).x)


def test_the_database_is_the_data() -> None:
    data = texts()
    found = small().database
    assert found.row.tolist() == data.row.tolist()
    few = Retro.complete(replace(small().config, database=None, most=31), data).database
    assert few is not None
    assert np.frombuffer(assets.read(few), np.uint16).tolist() == data.row[:31].tolist()
    with pytest.raises(RunError, match="no database"):
        _ = build(Retro, replace(small().config, database=None), letters(LENGTH)).database  # type: ignore[union-attr]
    broken = replace(small().config, database=assets.keep(b"\1\0\2", "database-uint16.tokens"))
    with pytest.raises(RunError, match="within a token"):
        _ = build(Retro, broken, letters(LENGTH)).database  # type: ignore[union-attr]
    unknown = replace(small().config, database=assets.keep(b"\1\1" * 9, "database-uint16.tokens"))
    with pytest.raises(RunError, match="does not know"):
        _ = build(Retro, unknown, letters(LENGTH)).database  # type: ignore[union-attr]


def test_training_does_not_see_its_own_text() -> None:
    """Of every window, wherever it begins, no neighbour lies in a text that the window touches."""
    model, data = small(), texts()
    base, asked = model.database, []
    find = base.index.search

    def search(queries: torch.Tensor, k: int, barred: torch.Tensor | None = None):
        found = find(queries, k, barred)
        asked.append(found[1])
        return found

    base.index.search = search  # type: ignore[method-assign]
    try:
        for step in range(20):
            ids = np.arange(len(data))
            rng = BatchRng(step, total=len(ids))
            starts = np.minimum(ids * LENGTH + rng.integers("shift", LENGTH).numpy(), len(data.row) - 1 - LENGTH)
            model.loss(data.batch(ids, rng), rng, NOW)
            per_row = asked[-1].view(len(ids), -1)
            for start, found in zip(starts.tolist(), per_row, strict=True):
                own = base.section_of[start : start + LENGTH + 1]
                for number in found[found >= 0].tolist():
                    chunk = base.section_of[number * CHUNK : (number + 1) * CHUNK]
                    assert not set(chunk.tolist()) & set(own.tolist())
    finally:
        base.index.search = find  # type: ignore[method-assign]
    assert sum((found >= 0).sum().item() for found in asked) > 500


def test_the_loss_is_that_of_barred_neighbours() -> None:
    model, data = small(restarts=1.0), texts()
    batch, rng = data.batch(np.arange(6)), BatchRng(0, total=6)
    loss, _ = model.loss(batch, rng, NOW)
    x = torch.cat([torch.full((6, 1), 10), batch.x[:, 1:]], 1)
    barred = model.database.sections((batch.ids - 1).clamp(min=0) * LENGTH, (batch.ids + 2) * LENGTH)
    logits = model(x[:, :-1], model.near(x[:, :-1], barred))
    assert loss.item() == pytest.approx(F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten()).item(), rel=1e-6)
    free = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()).item()
    assert loss.item() != pytest.approx(free, rel=1e-4)


def test_likelihood_sums_to_one() -> None:
    model = small(chunk=2, runs=(1,)).double()
    every = torch.cartesian_prod(*[torch.arange(11)] * 3)
    x = torch.cat([torch.full((len(every), 1), 10), every], 1)
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x))))
    assert found.nats.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_run_keeps_its_database_and_starts_from_gpt2(tmp_path: Path) -> None:
    parent = small_recipe("gpt2", steps=8)
    parent = replace(parent, config=replace(parent.config, layers=2, heads=2, dim=24))  # type: ignore[type-var]
    first = train(parent, api.training_data(parent), tmp_path / "gpt2", quiet=True)
    recipe = replace(small_recipe("retro", steps=4), parents=(("start", str(first.path)),))
    run = train(recipe, api.training_data(recipe), tmp_path / "retro", quiet=True)
    assert len(list((run.path / "assets").glob("*database-uint16.tokens"))) == 1
    model, _ = runs.open_run(run.path).model()
    assert isinstance(model, Retro)
    assert model.database.row.tolist() == _row_of(recipe)
    learned = first.model()[0].state_dict()
    own = model.state_dict()
    assert all((own[key] - value).abs().max() < 0.5 for key, value in learned.items())
    fresh = build(Retro, model.config, model.spec, recipe.training.seed).state_dict()
    nearer = [((own[k] - v).norm() < (fresh[k] - v).norm()).item() for k, v in learned.items() if v.ndim == 2]
    assert all(nearer)


def _row_of(recipe: Any) -> list[int]:
    data = api.training_data(recipe)
    assert isinstance(data, PackedText)
    return data.row.tolist()


def test_it_learns_what_stands_in_the_database() -> None:
    """Texts of random letters, each twice: only who looks them up can know the second half of the second copy."""
    g = torch.Generator().manual_seed(0)
    several = ["".join(LETTERS[i] for i in torch.randint(0, 10, (15,), generator=g).tolist()) for _ in range(150)]
    data = pack([*several, *several], letters(16), name="twice")

    def trained(cross: tuple[int, ...]) -> float:
        config = RetroConfig(2, 2, 32, cross=cross, chunk=4, encoder=1, runs=(2, 3), keys=256)
        model = build(Retro, Retro.complete(config, data), data.spec).train()
        optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.1)
        losses = []
        for step in range(260):
            rng = BatchRng(step, total=24)
            batch = data.batch(rng.integers("rows", len(data)).numpy())
            loss, _ = model.loss(batch, rng, NOW)  # type: ignore[attr-defined]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses[-20:]))

    with_neighbours, without = trained((2,)), trained(())
    assert with_neighbours < without - 0.15


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunk": 0},
        {"cross": (0,)},
        {"cross": (4,)},
        {"cross": (2, 2)},
        {"runs": ()},
        {"runs": (4,)},
        {"most": 1 << 40},
    ],
)
def test_configurations_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RetroConfig(**{"layers": 3, "dim": 16, "heads": 2, "cross": (2,), "chunk": 3, **wrong})
    assert tiny().spec.length == 32
    with pytest.raises(ValueError, match="longer than the context"):
        build(Retro, RetroConfig(2, 2, 16, cross=(1,), chunk=9), letters(8))
