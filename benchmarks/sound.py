"""How many samples of sound a second WaveNet makes: one stream, streams side by side, and computing everything anew.

    OMP_NUM_THREADS=1 python -m benchmarks.sound [--recipe wavenet-digits]
    OMP_NUM_THREADS=1 python -m benchmarks.sound --recipe samplernn-digits
    OMP_NUM_THREADS=1 python -m benchmarks.sound --recipe diffwave-digits --set betas=0.0001,0.001,0.01,0.05,0.2,0.5

Of other systems, sounds of a quarter of a second, one and eight at a time. Random weights: the work is the same. Times
are of the processor (one thread), the best of some turns, because other work on the machine takes its part of the time.
"""

from __future__ import annotations

import argparse
import time

import torch

from castalia import recipes
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.model import Generator, build
from castalia.core.rng import SampleRng
from castalia.core.specs.audio import AudioSpec
from castalia.drawing import sampling_options
from castalia.models.sound.streams import WaveNetSampling
from castalia.models.sound.wavenet import PIECE, WaveNet, WaveNetConfig

STREAMS = (1, 8, 64)
TURNS = 5
NAIVE_STEPS = 20
SOUND = 2000
SPOKEN = tuple(str(i) for i in range(10))


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


def others(recipe: Recipe, settings: list[str]) -> None:
    """Any system: what it takes to draw short sounds, in times of how long they last."""
    model = build(entry(recipe.model).load(), recipe.config, AudioSpec(8000, 1, 2000, SPOKEN)).eval()
    assert isinstance(model, Generator)
    drawing = sampling_options(model, (f"length={SOUND}", *settings))
    count = sum(p.numel() for p in model.parameters())
    print(f"{recipe.model}: {count:,} parameters, {SOUND} samples of 8 kHz, one thread")
    for n in (1, 8):
        best = float("inf")
        for _ in range(2):
            begun = time.process_time()
            model.sample(n, rng=SampleRng(0, range(n)), options=drawing)
            best = min(best, time.process_time() - begun)
        real = best * 8000 / (n * SOUND)
        print(f"{n} at a time: {n * SOUND / best:,.0f} samples/s in all, {real:.2f} s for a second of sound")


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--recipe", default="wavenet-digits", help="whose network (wavenet-digits)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a sampling option")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = recipes.recipe(options.recipe)
    config = recipe.config
    if not isinstance(config, WaveNetConfig):
        others(recipe, options.set)
        return
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
