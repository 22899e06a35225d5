"""Texts of a GPT-2 of 124 million random weights, beside transformers': ``python -m benchmarks.generation``.

The same prompts and the same number of tokens, the likeliest token each time, with caches, on one thread. Rounds go
through all settings one after the other; a line has the median of tokens per second of processor time, and of the ratio
to transformers in the same round. What a round takes on the clock depends on what else the machine does; this hardly
does. Beside it stands what the weights, read once for a token of every text, are of the memory's speed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from castalia.core.model import build
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2, SIZES
from castalia.models.sequence.writing import WritingOptions
from castalia.serving.engine import Engine
from castalia.serving.int8 import to_int8
from castalia.serving.request import Request

WEIGHTS, BYTES = 124_439_808, {"float32": 4, "bfloat16": 2, "int8": 1}
"""Of the network, and of one of them."""


def engine(int8: bool, precision: Any, rows: int) -> Engine:
    """An engine of the smallest GPT-2; its 50,256 characters stand for pieces."""
    alphabet = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 80_000) if not 0xD800 <= code < 0xE000)[:50_256]
    model = build(GPT2, SIZES["small"], TextSpec("chars", 50_257, 1_024, alphabet=alphabet)).eval()
    assert isinstance(model, GPT2)
    return Engine(to_int8(model) if int8 else model, rows=rows, precision=precision)


def ours(made: Engine, prompts: list[list[int]], length: int) -> Callable[[], object]:
    """Write with the engine."""
    options = WritingOptions(temperature=0, length=length, end=False)
    requests = [Request(tuple(prompt), options) for prompt in prompts]
    return lambda: made.run(requests)


def theirs(model: Any, prompts: list[list[int]], length: int) -> Callable[[], object]:
    """Write with ``generate``."""
    x = torch.tensor(prompts)
    return lambda: model.generate(
        x, attention_mask=torch.ones_like(x), do_sample=False, max_new_tokens=length, eos_token_id=None, pad_token_id=0
    )


def reading() -> float:
    """Bytes that one thread reads a second of processor time: what weights that are read once a token allow."""
    x, times = torch.ones(128 << 20), []
    for _ in range(5):
        started = time.process_time()
        x.sum()
        times.append(time.process_time() - started)
    return 4 * x.numel() / min(times)


def main() -> None:
    """Measure."""
    import transformers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--length", type=int, default=64, help="tokens")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        theirs_float = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
        theirs_half = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval().bfloat16()
        for batch in options.batches:
            generator = torch.Generator().manual_seed(0)
            prompts = torch.randint(0, 50_000, (batch, options.prompt), generator=generator).tolist()
            settings = {
                "transformers float32": theirs(theirs_float, prompts, options.length),
                "transformers bfloat16": theirs(theirs_half, prompts, options.length),
                "engine float32": ours(engine(False, "float32", batch), prompts, options.length),
                "engine bfloat16": ours(engine(False, "bfloat16", batch), prompts, options.length),
                "engine int8": ours(engine(True, "float32", batch), prompts, options.length),
            }
            speeds: dict[str, list[float]] = {name: [] for name in settings}
            for _ in range(options.rounds):
                for name, write in settings.items():
                    started = time.process_time()
                    write()
                    speeds[name].append(batch * options.length / (time.process_time() - started))
            memory = reading()
            for name, found in speeds.items():
                ratio = statistics.median(a / b for a, b in zip(found, speeds["transformers float32"], strict=True))
                speed = statistics.median(found)
                share = WEIGHTS * BYTES[name.split()[1]] * speed / batch / memory
                print(
                    f"{batch} texts  {name:22} {speed:7.1f} tokens/s  {ratio:5.2f} times  {share:4.0%} of reading "
                    f"at {memory / 1e9:.1f} GB/s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
