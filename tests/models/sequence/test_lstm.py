"""The LSTM: its equations, its sizes, that it looks back only, and its likelihood."""

from __future__ import annotations

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.model import Progress
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.text import TextSpec
from castalia.models.sequence import lstm as module
from castalia.models.sequence.lstm import LSTM, LSTMConfig
from tests.models.sequence.toys import made

NOW = Progress(0, 1)


def small(**config: object) -> LSTM:
    model = made(LSTM, LSTMConfig(**{"embedding": 6, "hidden": 5, "layers": 2, **config}))  # type: ignore[arg-type]
    assert isinstance(model, LSTM)
    return model


def test_parameters_of_the_books_network() -> None:
    """2,407,248 in Keras, whose cell has one bias; torch's has two: 4 x 128 more."""
    with torch.device("meta"):
        model = LSTM(LSTMConfig(), TextSpec("bytes", 10_000, 200))
    assert sum(p.numel() for p in model.parameters()) == 2_407_248 + 512


@pytest.mark.parametrize("tied", [False, True])
def test_equations_one_by_one(tied: bool) -> None:
    model = small(tied=tied).double()
    x = torch.tensor([[3, 1, 4, 1, 5]])
    inputs = model.tokens.weight[x[0]]
    for layer in range(2):
        w, u, b, b2 = (
            model.cells.get_parameter(f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, c, outputs = torch.zeros(5).double(), torch.zeros(5).double(), []
        for token in inputs:
            i, f, g, o = (w @ token + b + u @ h + b2).split(5)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        inputs = torch.stack(outputs)
    seen = inputs @ model.narrow.weight.T if tied else inputs  # type: ignore[operator, union-attr]
    logits = seen @ (model.tokens.weight if tied else model.head.weight).T + model.head.bias
    torch.testing.assert_close(model(x)[0][0], logits, atol=1e-12, rtol=0)


def test_forget_gates_start_open_and_heads_are_shared() -> None:
    model = small(tied=True)
    assert model.head.weight is model.tokens.weight
    total = model.cells.bias_ih_l0 + model.cells.bias_hh_l0  # type: ignore[operator]
    assert total.tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10
    assert isinstance(small(tied=True, embedding=5).narrow, torch.nn.Identity)


def test_a_token_sees_none_after_it() -> None:
    model = small().double()
    x = torch.randint(0, 11, (4, 8), generator=torch.Generator().manual_seed(0))
    before = model(x)[0]
    for t in range(1, 8):
        changed = x.clone()
        changed[:, t:] = (changed[:, t:] + 3) % 11
        after = model(changed)[0]
        assert torch.equal(before[:, :t], after[:, :t])
        assert not torch.allclose(before[:, t], after[:, t])


def test_likelihood_is_the_loss_and_sums_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small().double()
    every = torch.cartesian_prod(*[torch.arange(11)] * 3)
    x = torch.cat([torch.full((len(every), 1), 10), every], 1)
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x))))
    assert found.nats.exp().sum().item() == pytest.approx(1, abs=1e-9)
    loss, _ = model.loss(Batch.of(x), BatchRng(0, total=len(x)), NOW)
    assert loss.item() == pytest.approx(-found.nats.mean().item() / 3, rel=1e-6)
    long = torch.randint(0, 11, (2, 30), generator=torch.Generator().manual_seed(0))
    long[1, 20:] = -1
    whole = model.log_likelihood(Batch.of(long), rng=SampleRng(0, range(2))).nats
    monkeypatch.setattr(module, "AT_ONCE", 7)  # the state is carried from part to part
    parts = model.log_likelihood(Batch.of(long), rng=SampleRng(0, range(2))).nats
    torch.testing.assert_close(whole, parts, atol=1e-9, rtol=0)
    short = model.log_likelihood(Batch.of(long[1:, :20]), rng=SampleRng(0, [1])).nats
    assert whole[1].item() == pytest.approx(short.item(), rel=1e-9)


def test_restarts_and_dropout() -> None:
    x = torch.randint(0, 10, (6, 9), generator=torch.Generator().manual_seed(0))
    rng = BatchRng(0, total=6)
    anew = torch.cat([torch.full((6, 1), 10), x[:, 1:]], 1)
    assert small(restarts=1.0).loss(Batch.of(x), rng, NOW)[0] == small().loss(Batch.of(anew), rng, NOW)[0]
    model = small(dropout=0.5)
    assert torch.equal(model(x)[0], model(x)[0])
    model.train()
    assert not torch.equal(model(x)[0], model(x)[0])


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"layers": 0}, {"dropout": 1.0}, {"restarts": -1.0}])
def test_configurations_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        LSTMConfig(**wrong)  # type: ignore[arg-type]
