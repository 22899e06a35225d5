"""DPO: log 2 at first, its equation and slope, the reference, and that what is preferred becomes likelier."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from castalia import api
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.media.text.packing import TextOptions
from castalia.media.text.pairs import Pairs, paired
from castalia.media.text.sets import open_set
from castalia.models.sequence.dpo import DPO, DPOConfig
from castalia.models.sequence.gpt2 import GPT2
from castalia.models.sequence.writing import WritingOptions
from castalia.training.loop import train
from tests.models.sequence.toys import letters
from tests.tools import small_recipe

NOW = Progress(0, 1)


def small(stir: bool = True, **config: object) -> DPO:
    given = {
        "layers": 2,
        "heads": 2,
        "dim": 16,
        "dropout": 0.0,
        "init": 0.3,
        "rank": 3,
        "targets": ("qkv", "up"),
        **config,
    }
    model = build(DPO, DPOConfig(**given), paired(letters())).eval()  # type: ignore[arg-type]
    assert isinstance(model, DPO)
    if stir:
        with torch.no_grad():
            for i, p in enumerate(model.added.parameters()):
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model


def some() -> Batch:
    """Pairs that begin alike and end at different lengths."""
    g = torch.Generator().manual_seed(0)
    x, other = (torch.randint(0, 10, (6, 9), generator=g) for _ in range(2))
    other[:, :4] = x[:, :4]
    x[2, 7:], other[3, 5:] = -1, -1
    x[:, 0] = other[:, 0] = 10
    return Batch.of(x, None, {"rejected": other})


def logs(network: Any, x: torch.Tensor) -> torch.Tensor:
    """log p of each token of a text but the first, one after the other."""
    total = []
    for row in x:
        row = row[row >= 0]
        p = torch.log_softmax(network(row[None, :-1])[0], -1)
        total.append(p.gather(1, row[1:, None])[:, 0])
    return torch.stack([F.pad(t, (0, x.shape[1] - len(t))) for t in total])


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_first_loss_is_log_two(noise: float) -> None:
    loss, told = small(stir=False, noise=noise).loss(some(), BatchRng(0, total=6), NOW)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)
    assert told["margin"].item() == 0
    assert told["right"].item() == 0


def test_the_equation() -> None:
    """Over the answers alone, where the prompt is left out by hand: it cancels."""
    model, batch = small(beta=0.3, noise=0.1, likelihood=0.5).double(), some()
    below = build(GPT2, replace_config(model), letters()).double()
    below.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("added.")})
    x, other = batch.x, batch.extra["rejected"]
    with torch.no_grad():
        ours = [logs(model, rows)[:, 3:].sum(1) for rows in (x, other)]
        theirs = [logs(below, rows)[:, 3:].sum(1) for rows in (x, other)]
        margin = 0.3 * ((ours[0] - theirs[0]) - (ours[1] - theirs[1]))
        exact = (-0.9 * F.logsigmoid(margin) - 0.1 * F.logsigmoid(-margin)).mean()
        whole = exact - 0.5 * logs(model, x).sum(1).mean() / 8
        loss, told = model.loss(batch, BatchRng(0, total=6), NOW)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-9)
    assert told["dpo"].item() == pytest.approx(exact.item(), rel=1e-9)
    assert told["margin"].item() == pytest.approx(margin.mean().item(), rel=1e-9)
    assert told["right"].item() == pytest.approx((margin > 0).double().mean().item())
    assert 0 < told["right"].item() < 1


def replace_config(model: DPO) -> Any:
    from castalia.models.sequence.gpt2 import GPT2Config

    c = model.config
    return GPT2Config(c.layers, c.heads, c.dim, 0.0, c.init)


def test_the_slope_by_differences() -> None:
    model, batch = small(beta=0.5).double(), some()
    weight = model.added["0-up"].b.weight  # type: ignore[union-attr]
    assert isinstance(weight, torch.nn.Parameter)
    loss, _ = model.loss(batch, BatchRng(0, total=6), NOW)
    (slope,) = torch.autograd.grad(loss, weight)
    for at in ((0, 0), (5, 2), (40, 1)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[at] += step
                values.append(model.loss(batch, BatchRng(0, total=6), NOW)[0].item())
                weight[at] -= step
        assert slope[at].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-7)


def test_the_reference_is_the_network_below() -> None:
    model = small()
    below = build(GPT2, replace_config(model), letters())
    below.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("added.")})
    x = some().x[:, :-1].clamp(min=0)
    with model.reference():
        assert torch.equal(model(x), below(x))
    assert not torch.allclose(model(x), below(x), atol=1e-2)
    with pytest.raises(RuntimeError), model.reference():
        raise RuntimeError
    assert not torch.allclose(model(x), below(x), atol=1e-2)  # also after an error


def test_what_is_preferred_becomes_likelier(tmp_path: Path) -> None:
    """On a run that can count: of held-out pairs more are in the right order, and more than before."""
    parent = small_recipe("gpt2", steps=250)
    parent = replace(parent, config=replace(parent.config, restarts=0.5))  # type: ignore[type-var]
    first = train(parent, api.training_data(parent), tmp_path / "gpt2", quiet=True)
    from castalia import recipes

    recipe = recipes.recipe("dpo-counting")
    options = replace(recipe.training, steps=60)
    recipe = replace(recipe, training=options, parents=(("start", str(first.path)),))
    run = train(recipe, api.training_data(recipe), tmp_path / "dpo", quiet=True)
    begun = [m for m in run.metrics() if "dpo/dpo" in m]
    model, below = run.model()[0], first.model()[0]
    assert isinstance(model, DPO)
    assert isinstance(below, GPT2)
    held = api.open_data("counting-pairs", split="test", options=recipe.data.options)
    batch = held.batch(np.arange(len(held)))

    def order(network: Any) -> torch.Tensor:
        rng = SampleRng(0, range(len(batch)))
        one = network.log_likelihood(batch, rng=rng).nats
        return one - network.log_likelihood(Batch.of(batch.extra["rejected"]), rng=rng).nats

    before, after = order(below), order(model)
    assert (after - before).mean() > 1
    assert ((after - before) > 0).double().mean() > 0.9
    assert begun[-1]["dpo/dpo"] < math.log(2)
    state = below.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if key in state)
    drawn = model.sample(2, rng=SampleRng(0, range(2)), options=WritingOptions(length=8))
    assert drawn.x.shape[1] <= 8


def test_what_it_cannot_learn_from() -> None:
    with pytest.raises(UsageError, match=r"data\.options\.pairs=true"):
        build(DPO, DPOConfig(2, 2, 16), letters())
    data = open_set("counting-pairs", TextOptions(tokens="chars", length=32, pairs=True), "train")
    assert isinstance(data, Pairs)


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"noise": 0.5}, {"likelihood": -1.0}, {"restarts": 0.5}, {"rank": 0}])
def test_configurations_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        DPOConfig(**{"dim": 16, "heads": 2, **wrong})
