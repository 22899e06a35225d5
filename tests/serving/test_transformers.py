"""The same tokens as transformers from the same random GPT-2: sampled with the same draws, and by beams."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.writing import WritingOptions, choose
from castalia.serving.beams import search
from castalia.serving.choosing import Choosing
from castalia.serving.engine import Engine
from castalia.serving.request import Request
from tests.models.sequence.toys import letters, made
from tests.serving.toys import MODELS

transformers = pytest.importorskip("transformers")
END, LENGTH = 10, 24


@pytest.fixture(scope="module")
def ours() -> GPT2:
    model = made(GPT2, GPT2Config(2, 2, 16, init=0.3), letters(LENGTH))
    assert isinstance(model, GPT2)
    return model


@pytest.fixture(scope="module")
def theirs(ours: GPT2) -> Any:
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2, bos_token_id=END, eos_token_id=END
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    state = {f"transformer.{name}": value for name, value in _named(ours).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert missing == ["lm_head.weight"]
    model.tie_weights()
    x = torch.tensor([[1, 2, 3, 4]])
    torch.testing.assert_close(model(x).logits, ours(x), atol=1e-5, rtol=0)
    return model


def _named(model: GPT2) -> dict[str, torch.Tensor]:
    """Our weights by their names."""
    from castalia.interop.gpt2 import _LAYERS, _WHOLE

    state = model.state_dict()
    found = {theirs: state[ours] for theirs, ours in _WHOLE.items()}
    for layer in range(model.config.layers):
        for theirs, ours in _LAYERS.items():
            for part in ("weight", "bias"):
                value = state[f"blocks.{layer}.{ours}.{part}"]
                found[f"h.{layer}.{theirs}.{part}"] = value.T if part == "weight" and value.ndim == 2 else value
    return found


SHAPES = [
    {},
    {"top_k": 4},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"temperature": 0.6, "top_k": 6, "top_p": 0.9, "repetition": 1.4},
    {"temperature": 1.5, "top_p": 0.95, "min_p": 0.05},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sampled_with_the_same_draws(
    ours: GPT2, theirs: Any, shape: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sampler draws with our numbers instead of its own."""
    options = WritingOptions(length=20, end=False, **shape)  # type: ignore[arg-type]
    for seed in range(4):
        request = Request((1, 2, 3), options, seed=seed)
        numbers = Choosing(request, torch.device("cpu"))
        step = iter(range(99))

        def draw(p: torch.Tensor, num_samples: int, step: Any = step, numbers: Choosing = numbers) -> torch.Tensor:
            return choose(p.double().log(), numbers.uniform(next(step)))[:, None]

        with monkeypatch.context() as patch:
            patch.setattr(torch, "multinomial", draw)
            their = theirs.generate(
                torch.tensor([request.prompt]),
                do_sample=True,
                max_new_tokens=20,
                temperature=float(shape.get("temperature", 1.0)),
                top_k=int(shape.get("top_k", 0)),
                top_p=float(shape.get("top_p", 1.0)),
                min_p=float(shape.get("min_p", 0.0)) or None,
                repetition_penalty=float(shape.get("repetition", 1.0)),
                eos_token_id=None,
                pad_token_id=0,
            )
        (text,) = Engine(ours).run([request])
        assert list(text.tokens) == their[0, 3:].tolist()


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("early", ["no", "yes", "never"])
def test_beams(ours: GPT2, theirs: Any, beams: int, penalty: float, early: Any) -> None:
    for prompt in ([1, 2, 3], [7], [4, 4, 4, 4, 9, 0]):
        found = search(ours, prompt, beams=beams, length=14, penalty=penalty, early=early)
        if beams == 1:  # theirs is another function then
            if early != "yes":  # which may go on for something better
                continue
            (text,) = Engine(ours).run([Request(tuple(prompt), WritingOptions(length=14, temperature=0))])
            assert found[0].tokens == text.tokens
            continue
        their = theirs.generate(
            torch.tensor([prompt]),
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            max_new_tokens=14,
            length_penalty=penalty,
            early_stopping={"no": False, "yes": True, "never": "never"}[early],
            eos_token_id=END,
            pad_token_id=END,
            return_dict_in_generate=True,
            output_scores=True,
        )
        for beam, tokens, score in zip(found, their.sequences.tolist(), their.sequences_scores.tolist(), strict=True):
            assert list(beam.tokens) == tokens[len(prompt) :][: len(beam.tokens)]
            assert all(token == END for token in tokens[len(prompt) + len(beam.tokens) :])
            assert beam.score == pytest.approx(score, rel=1e-5)


def test_beams_of_other_models_and_what_is_refused(ours: GPT2) -> None:
    for name in ("gpt3", "gpt-modern", "lstm"):
        model = MODELS[name]()
        (best, *_), (greedy,) = search(model, (1,), beams=11, length=2), search(model, (1,), beams=1, length=2)
        every = [[a, b] for a in range(10) for b in range(11)]
        logs = torch.log_softmax(model(torch.tensor([[1, a] for a, _ in every])), -1) if name != "lstm" else None
        if logs is not None:
            scores = [(logs[i, 0, a] + logs[i, 1, b]).item() / 2 for i, (a, b) in enumerate(every)]
            scores.append(logs[0, 0, END].item())
            assert best.score == pytest.approx(max(scores), abs=1e-5)
        assert best.score >= greedy.score - 1e-6
    with pytest.raises(UsageError, match="several ways"):
        search(MODELS["retro"](), (1,), length=2)
    with pytest.raises(UsageError, match="do not fit"):
        search(ours, (1,), length=LENGTH + 1)
