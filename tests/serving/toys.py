"""Small language models of every kind for the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from castalia.core import assets
from castalia.core.model import Generator
from castalia.core.rng import SampleRng
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.gpt3 import GPT3, GPT3Config
from castalia.models.sequence.gpt_modern import GPTModern, GPTModernConfig
from castalia.models.sequence.lora import LoRA, LoRAConfig
from castalia.models.sequence.lstm import LSTM, LSTMConfig
from castalia.models.sequence.retro import Retro, RetroConfig
from castalia.serving.request import Request
from tests.models.sequence.toys import letters, made


def modern() -> Generator:
    model = made(GPTModern, GPTModernConfig(2, 2, 16, head_scale=1.0))
    assert isinstance(model, GPTModern)
    with torch.no_grad():  # what begins at zero would hide mistakes
        for i, p in enumerate(model.parameters()):
            p.add_(0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model


def retro() -> Generator:

    row = np.random.default_rng(0).integers(0, 10, 200).astype(np.uint16)
    database = assets.keep(row.tobytes(), "database-uint16.tokens")
    model = made(Retro, RetroConfig(2, 2, 16, init=0.4, cross=(2,), chunk=3, database=database, keys=16))
    return model


MODELS: dict[str, Callable[[], Generator]] = {
    "gpt2": lambda: made(GPT2, GPT2Config(2, 2, 16, init=0.4)),
    "gpt3": lambda: made(GPT3, GPT3Config(2, 2, 16, init=0.4, window=3)),
    "gpt-modern": modern,
    "lora": lambda: made(LoRA, LoRAConfig(2, 2, 16, init=0.4)),
    "lstm": lambda: made(LSTM, LSTMConfig(8, 12, 2)),
    "retro": retro,
}


def offline(model: Generator, request: Request) -> tuple[int, ...]:
    """What the model's own sampler writes behind a prompt."""
    given = {"prompt": torch.tensor([request.prompt])} if request.prompt else None
    x = model.sample(1, given, rng=SampleRng(request.seed, [request.number]), options=request.options).x[0].tolist()
    return tuple(token for token in x[len(request.prompt) :] if token >= 0)


def small() -> GPT2:
    """A GPT-2 of ten letters."""
    model = made(GPT2, GPT2Config(2, 2, 16, init=0.4), letters(8))
    assert isinstance(model, GPT2)
    return model
