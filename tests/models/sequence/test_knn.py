"""kNN-LM: keys, exactness, probabilities, the mixture at its ends, and that memory helps where it should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from castalia import api, editing
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.creative.edit import Page
from castalia.media.text.sets import tiny
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.gpt3 import GPT3, GPT3Config
from castalia.models.sequence.gpt_modern import GPTModern, GPTModernConfig
from castalia.models.sequence.knn import Datastore, chance, keyed, mixed, told
from castalia.models.sequence.lstm import LSTM, LSTMConfig
from castalia.nn.causal import CausalBlock
from castalia.training.loop import train
from tests.models.sequence.toys import made
from tests.tools import small_recipe

MODELS: dict[str, Callable[[], Generator]] = {
    "gpt2": lambda: made(GPT2, GPT2Config(2, 2, 16, init=0.4), tiny().spec),
    "gpt3": lambda: made(GPT3, GPT3Config(2, 2, 16, init=0.4), tiny().spec),
    "gpt-modern": lambda: made(GPTModern, GPTModernConfig(2, 2, 16), tiny().spec),
    "lstm": lambda: made(LSTM, LSTMConfig(8, 12, 2, tied=True), tiny().spec),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_language_model_has_keys(name: str) -> None:
    model: Any = MODELS[name]()
    data = tiny()
    some = told(model, data, np.arange(len(data)))
    assert len(some.targets) == len(data.row) - 1
    assert torch.equal(some.targets, torch.from_numpy(data.row[1:].astype(np.int64)))
    window, column = some.windows[40].tolist()
    assert data.batch(np.array([window])).x[0, column + 1] == some.targets[40]
    whole = model.log_likelihood(data.batch(np.arange(len(data))), rng=None).nats.sum()  # type: ignore[arg-type]
    assert some.nats.sum().item() == pytest.approx(whole.item(), rel=1e-5)
    keys, logs = keyed(model, torch.tensor([[1, 2, 3], [1, 2, 4]]))
    assert keys.shape[:2] == (2, 3)
    assert torch.equal(keys[0, :2], keys[1, :2])  # a key knows what is before it and itself
    assert not torch.equal(keys[0, 2], keys[1, 2])
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))


def test_a_key_is_what_the_last_perceptron_reads() -> None:
    model: Any = MODELS["gpt2"]()
    x = torch.tensor([[1, 2, 3, 4]])
    h = model.tokens(x) + model.places.weight[:4]
    h = model.blocks[0](h)
    last = model.blocks[1]
    assert isinstance(last, CausalBlock)
    h = h + last.attention(last.norm1(h))
    torch.testing.assert_close(keyed(model, x)[0], last.norm2(h))
    with pytest.raises(UsageError, match="no language model"):
        keyed(nn.Linear(2, 2), x)


def test_probabilities_are_brute_force_and_sum_to_one() -> None:
    model = MODELS["gpt2"]()
    data = tiny()
    store = Datastore(told(model, data, np.arange(len(data) // 2)))
    some = told(model, data, np.arange(len(data) // 2, len(data)))
    for k, temperature in ((1, 1.0), (5, 0.7), (10_000, 20.0)):
        found = store.probabilities(some.keys, k, temperature, data.spec.size)
        torch.testing.assert_close(found.sum(1), torch.ones(len(found), dtype=torch.float64))
        keys, queries = store.stored.keys.double().numpy(), some.keys.double().numpy()
        for i in range(0, len(found), 17):
            distances = np.square(keys - queries[i]).sum(1)
            nearest = np.argsort(distances, kind="stable")[:k]
            weights = np.exp(-(distances[nearest] - distances[nearest].min()) / temperature)
            exact = np.bincount(
                store.stored.targets[nearest].numpy(), weights / weights.sum(), minlength=data.spec.size
            )
            assert found[i].numpy() == pytest.approx(exact, abs=1e-4)
        scores, numbers = store.nearest(some.keys, k)
        looked = chance(scores, store.values(numbers), some.targets, temperature)
        torch.testing.assert_close(looked, found.gather(1, some.targets[:, None])[:, 0])


def test_the_mixture() -> None:
    g = torch.Generator().manual_seed(0)
    lm = torch.softmax(torch.randn(6, 9, generator=g).double(), -1)
    looked = torch.softmax(torch.randn(6, 9, generator=g).double() * 4, -1)
    looked[0, :8], looked[0, 8] = 0, 1  # of what was not found the model alone speaks
    for share in (0.0, 0.25, 1.0):
        found = mixed(lm.log(), looked, share)
        torch.testing.assert_close(found.exp(), share * looked + (1 - share) * lm)
        torch.testing.assert_close(found.exp().sum(1), torch.ones(6, dtype=torch.float64))
    assert torch.equal(mixed(lm.log(), looked, 0.0), lm.log())
    torch.testing.assert_close(mixed(lm.log(), looked, 1.0), looked.log())


def test_memory_of_the_same_author_helps(tmp_path: Path) -> None:
    """Trained on numbers, read on words: with words of the same author in memory they become likelier."""
    g = torch.Generator().manual_seed(1)
    names = ["".join("0123456789"[i] for i in torch.randint(0, 10, (6,), generator=g).tolist()) for _ in range(12)]

    def author(count: int) -> str:
        return " ".join(names[i] for i in torch.randint(0, 12, (count,), generator=g).tolist())

    (tmp_path / "memory.txt").write_text(author(260))
    (tmp_path / "read.txt").write_text(author(120))
    recipe = small_recipe("gpt2", steps=60)
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    sources = {"data": str(tmp_path / "memory.txt"), "of": str(tmp_path / "read.txt")}
    product = editing.edit(run, "recall", **sources, n=20)
    assert isinstance(product, Page)
    found = product.numbers
    assert found["nats_per_token_recalled"] < found["nats_per_token"] - 0.2
    assert found["gain"] > 4 * found["error"] > 0
    assert found["share"] > 0
    editing.write(product, run.spec, tmp_path / "page.html")
    assert json.loads((tmp_path / "page.json").read_text())["contexts"] == found["contexts"] > 1000
    own = editing.edit(run, "recall", n=8, most=2_000)  # its own data, which it knows anyway
    assert isinstance(own, Page)
    assert own.numbers["contexts"] <= 2_000
    (tmp_path / "short.txt").write_text("1 2 3")
    with pytest.raises(UsageError, match="at least 4"):
        editing.edit(run, "recall", of=str(tmp_path / "short.txt"))
