"""LoRA: nothing at first, its equation, merging, what learns, and starting from a run of GPT-2."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from castalia import api
from castalia.core.model import Progress, build, training_mode
from castalia.core.rng import BatchRng
from castalia.core.specs.text import TextSpec
from castalia.media.text.sets import tiny
from castalia.models.sequence.gpt2 import GPT2, SIZES, GPT2Config
from castalia.models.sequence.lora import LoRA, LoRAConfig
from castalia.nn.adapters import AdaptedLinear, Adapter
from castalia.training.loop import train
from tests.models.sequence.toys import made
from tests.tools import small_recipe

EVERYWHERE = ("qkv", "out", "up", "down")
X = torch.randint(0, 11, (4, 8), generator=torch.Generator().manual_seed(0))


def small(stir: bool = True, **config: object) -> LoRA:
    given = {
        "layers": 2,
        "heads": 2,
        "dim": 16,
        "dropout": 0.0,
        "init": 0.3,
        "rank": 3,
        "targets": EVERYWHERE,
        **config,
    }
    model = made(LoRA, LoRAConfig(**given))  # type: ignore[arg-type]
    assert isinstance(model, LoRA)
    if stir:
        with torch.no_grad():
            for i, p in enumerate(model.added.parameters()):
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model


def plain(model: LoRA) -> GPT2:
    c = model.config
    built = made(GPT2, GPT2Config(c.layers, c.heads, c.dim, 0.0, c.init))
    assert isinstance(built, GPT2)
    built.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("added.")})
    return built


def test_at_first_it_is_the_network_below() -> None:
    model = small(stir=False)
    assert torch.equal(model(X), plain(model)(X))
    assert all(not adapter.b.weight.any() for adapter in model.added.values())  # type: ignore[union-attr]
    adapter = model.added["0-qkv"]
    assert isinstance(adapter, Adapter)
    first = adapter.a.weight
    assert first.abs().max() <= math.sqrt(1 / 16)
    assert first.std().item() == pytest.approx(math.sqrt(1 / 48), rel=0.3)
    assert not torch.allclose(small()(X), plain(model)(X), atol=1e-2)


def test_the_equation_and_merging() -> None:
    model: Any = small().double()
    state = plain(model).double().state_dict()
    with torch.no_grad():
        for key, adapter in model.added.items():
            number, name = key.split("-")
            inside = "attention." if name in ("qkv", "out") else ""
            state[f"blocks.{number}.{inside}{name}.weight"] += (32 / 3) * adapter.b.weight @ adapter.a.weight  # type: ignore[union-attr]
    by_hand = plain(model).double()
    by_hand.load_state_dict(state)
    before = model(X)
    torch.testing.assert_close(before, by_hand(X), atol=1e-12, rtol=0)
    assert set(model.plain()) == set(state)
    assert all(torch.allclose(model.plain()[key], value, atol=1e-12) for key, value in state.items())
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    model.merge()
    model.merge()  # a second time changes nothing
    assert not torch.equal(model.state_dict()["blocks.0.up.weight"], kept["blocks.0.up.weight"])
    torch.testing.assert_close(model(X), before, atol=1e-12, rtol=0)
    assert all(torch.allclose(model.plain()[key], value, atol=1e-12) for key, value in state.items())
    model.unmerge()
    model.unmerge()
    torch.testing.assert_close(model.state_dict(), kept, atol=1e-12, rtol=0)
    torch.testing.assert_close(model(X), before, atol=1e-12, rtol=0)


def test_a_copy_has_adapters_of_its_own() -> None:
    model = small()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.added.parameters():
            p.zero_()
    assert torch.equal(other(X), plain(model)(X))
    assert not torch.equal(model(X), plain(model)(X))
    layer = other.blocks[0].up  # type: ignore[union-attr]
    assert isinstance(layer, AdaptedLinear)
    assert layer.beside[0] is other.added["0-up"]


def test_only_adapters_learn() -> None:
    data = tiny()
    model = build(LoRA, LoRAConfig(2, 2, 32, 0.0, 0.3, rank=8, targets=EVERYWHERE), data.spec)
    training_mode(model)
    begun = {key: value.clone() for key, value in model.state_dict().items()}
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if n.startswith("added.")
    }
    optimizer = torch.optim.AdamW(model.added.parameters(), 1e-2)  # type: ignore[attr-defined]
    losses = []
    for step in range(120):
        rng = BatchRng(step, total=16)
        batch = data.batch(rng.integers("rows", len(data)).numpy(), rng)
        loss, _ = model.loss(batch, rng, Progress(0, 1))  # type: ignore[attr-defined]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < losses[0] - 0.7
    for key, value in model.state_dict().items():
        assert torch.equal(value, begun[key]) != key.startswith("added."), key


def test_numbers_of_the_paper() -> None:
    """Rank 4 beside queries, keys and values; the authors report 0.35 and 0.77 million."""
    spec = TextSpec("bytes", 50257, 1024)
    found = {}
    with torch.device("meta"):
        for name in ("medium", "large"):
            c = SIZES[name]
            model = LoRA(LoRAConfig(c.layers, c.heads, c.dim, rank=4), spec)
            found[name] = sum(p.numel() for p in model.added.parameters())
    assert found == {"medium": 24 * 4 * (1024 + 3072), "large": 36 * 4 * (1280 + 3840)}
    assert [round(n / 1e6, 2) for n in found.values()] == [0.39, 0.74]


@pytest.mark.parametrize("merged", [False, True])
def test_a_run_starts_from_gpt2(tmp_path: Path, merged: bool) -> None:
    parent = small_recipe("gpt2", steps=6)
    first = train(parent, api.training_data(parent), tmp_path / "gpt2", quiet=True)
    recipe = replace(small_recipe("lora", steps=6), parents=(("start", str(first.path)),))
    run = train(recipe, api.training_data(recipe), tmp_path / "lora", quiet=True)
    model, below = run.model()[0], first.model()[0]
    assert isinstance(model, LoRA)
    state = below.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if key in state)
    x = torch.randint(0, 12, (2, 9), generator=torch.Generator().manual_seed(0))
    assert isinstance(below, GPT2)
    assert not torch.equal(model(x), below(x))
    if merged:
        before = model(x)
        below.load_state_dict(model.plain())
        torch.testing.assert_close(below(x), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"alpha": 0.0}, {"drop": 1.0}, {"targets": ()}, {"targets": ("up", "up")}, {"heads": 3}]
)
def test_configurations_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        LoRAConfig(**{"dim": 16, "heads": 2, **wrong})
