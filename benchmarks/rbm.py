"""Training of a restricted Boltzmann machine beside scikit-learn's ``BernoulliRBM``.

Both sides do persistent contrastive divergence with one Gibbs step, as many chains as examples in a batch, plain
gradients of the same sizes, on the same binary vectors (scikit-learn's in float32, which it keeps). Ours runs in the
training loop, which looks for what is not finite and averages weights, but draws and saves nothing. One row has float32
on both sides; in the other one ours has centred gradients and bfloat16 products, its defaults where the hardware has
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from sklearn.neural_network import BernoulliRBM

from benchmarks.harness import Options, Row, Run, alternate
from benchmarks.loops import quiet
from benchmarks.sides import HeldTraining, Side
from castalia import recipes
from castalia.core.precision import Precision
from castalia.media.image.array import ImageArray
from castalia.models.energy.rbm import RBMConfig

BATCH = 100


def pictures(n: int) -> ImageArray:
    """Random black and white pictures with a fifth of their pixels on."""
    x = (np.random.default_rng(0).random((n, 1, 28, 28)) < 0.2).astype(np.uint8) * 255
    return ImageArray(x, name="random")


def theirs(x: np.ndarray, hidden: int, rate: float) -> Run:
    """An epoch of scikit-learn's."""
    flat = (x.reshape(len(x), -1) > 127).astype(np.float32)
    model = BernoulliRBM(n_components=hidden, learning_rate=rate, batch_size=BATCH, n_iter=1, random_state=0)

    def run() -> None:
        model.fit(flat)

    return run


def rows(options: Options) -> Iterator[Row]:
    """Time of an epoch, theirs / ours."""
    n, hidden = (500, 32) if options.quick else (10_000, 500)
    data = pictures(n)
    for name, centred, precision in (
        ("float32", False, "float32"),
        ("at defaults of each", True, "bfloat16"),
    ):
        config = RBMConfig(hidden=hidden, binarise="threshold", chains=BATCH, centred=centred)
        yield _row(options, data, config, name, precision)  # type: ignore[arg-type]


def _row(options: Options, data: ImageArray, config: RBMConfig, name: str, precision: Precision) -> Row:
    base = recipes.recipe("rbm-mnist")
    recipe = quiet(replace(base, config=config), options.threads, batch_size=BATCH, precision=precision)
    steps, keeps = len(data) // BATCH, name == "float32"
    with (
        Side(HeldTraining, recipe, data, steps, threads=options.threads, keeps=True) as ours,
        Side(theirs, data.x.numpy(), config.hidden, config.rate, threads=options.threads, keeps=keeps) as other,
    ):
        timing = alternate(ours, other, options.rounds)
    note = "" if keeps else "ours keeps its memory, as castalia train does, and multiplies in bfloat16"
    work = f"step of an RBM 784-{config.hidden}, PCD-1, batch {BATCH}, {name}"
    return timing.row("rbm", work, "scikit-learn", target=1.5, per=steps, note=note)
