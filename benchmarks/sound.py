"""How many samples of sound a second WaveNet makes: one stream, streams side by side, and computing everything anew.

    OMP_NUM_THREADS=1 python -m benchmarks.sound [--recipe wavenet-digits]

Random weights: the work is the same. Times are of the processor (one thread), the best of some turns, because other
work on the machine takes its part of the wall's clock.
"""

from __future__ import annotations

import argparse
import time

import torch

from castalia import recipes
from castalia.core.model import build
from castalia.core.rng import SampleRng
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.streams import WaveNetSampling
from castalia.models.sound.wavenet import PIECE, WaveNet, WaveNetConfig

STREAMS = (1, 8, 64)
TURNS = 5
NAIVE_STEPS = 20


def seconds_per_step(model: WaveNet, streams: int, steps: int) -> float:
    """Of the queues, for one sample of every stream; the best of some turns."""
    rng, best = SampleRng(0, range(streams)), float("inf")
    state = model.start(streams, {}, rng, WaveNetSampling(length=(TURNS + 1) * steps))
    _, state = model.advance(state)  # the first piece meets cold memory
    for _ in range(TURNS):
        begun = time.process_time()
        done = state.done
        _, state = model.advance(state)
        best = min(best, (time.process_time() - begun) / (state.done - done))
    return best


def seconds_per_naive_step(model: WaveNet) -> float:
    """Of computing the whole receptive field for every sample."""
    field = model.config.field
    given, rng = {"prompt": torch.zeros(1, 1, field)}, SampleRng(0, [0])
    model.naive(1, given, rng, WaveNetSampling(length=2))
    begun = time.process_time()
    model.naive(1, given, rng, WaveNetSampling(length=NAIVE_STEPS))
    return (time.process_time() - begun) / NAIVE_STEPS


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--recipe", default="wavenet-digits", help="whose network (wavenet-digits)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = recipes.recipe(options.recipe).config
    assert isinstance(config, WaveNetConfig)
    model = build(WaveNet, config, AudioSpec(8000, 1, 8000)).eval()
    assert isinstance(model, WaveNet)
    count = sum(p.numel() for p in model.parameters())
    print(f"{options.recipe}: {count:,} parameters, receptive field {config.field}, one thread")
    naive = seconds_per_naive_step(model)
    print(f"anew, 1 stream: {1 / naive:,.1f} samples/s")
    for streams in STREAMS:
        step = seconds_per_step(model, streams, PIECE)
        said = f"queues, {streams} stream{'s' if streams > 1 else ''}: {streams / step:,.0f} samples/s in all"
        print(said + (f", {naive / step:,.0f} times" if streams == 1 else f", {1 / step:,.0f} each"))


if __name__ == "__main__":
    main()
