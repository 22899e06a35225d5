"""What the training loop costs beside a bare PyTorch loop over the same network and the same arithmetic.

    python benchmarks/loop_overhead.py [--steps 150] [--rounds 5] [--json FILE]

Both sides run in one process, in turn, on the same threads; a side's figure is its fastest round's milliseconds
per step, the overhead is the difference. The bare loop does what a person would write: index, loss, backward,
clip, fused AdamW. It does not average weights, check for NaN, log, draw or save; the loop does all of that except
drawing and saving, which are switched off because a bare loop would have to do them too.

Targets: at most 3 % for networks over 5 ms a step, at most 0.3 ms a step otherwise.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from castalia import recipes
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.data import Batch, ImageSpec, Order
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, derive
from castalia.media.image.array import ImageArray
from castalia.models.autoencoders.vae import VAE, VAEConfig
from castalia.training.loop import train
from castalia.training.plan import precision_context


def pictures(size: int, n: int = 12_800) -> ImageArray:
    """Random pictures: the arithmetic does not care."""
    x = np.random.default_rng(0).integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    return ImageArray(x, name="random")


def cases() -> dict[str, tuple[Recipe, ImageArray]]:
    """A tiny, a middling and a large network."""
    base = recipes.recipe("vae-mnist")
    quiet = replace(base.training, clip=200.0, sample_every=10**9, checkpoint_every=10**9, log_every=50)
    tiny = VAEConfig(network="dense", widths=(64,), latent_dims=8)
    middle = VAEConfig(network="dense", widths=(400,), latent_dims=20)
    return {
        "dense 64-8, 8x8, batch 64": (replace(base, config=tiny, training=replace(quiet, batch_size=64)), pictures(8)),
        "dense 784-400-20, batch 128": (replace(base, config=middle, training=quiet), pictures(28)),
        "conv 32-64, 28x28, batch 64": (replace(base, training=replace(quiet, batch_size=64)), pictures(28)),
    }


def bare(recipe: Recipe, data: ImageArray, steps: int, precision: str) -> float:
    """Milliseconds per step of the loop that a person would write."""
    settings = recipe.training
    spec = data.spec
    assert isinstance(spec, ImageSpec)
    model = build(entry(recipe.model).load(), recipe.config, spec, 0).train()
    assert isinstance(model, VAE)
    if any(p.ndim == 4 for p in model.parameters()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, betas=(0.9, 0.99), fused=True)
    order, x = Order(len(data), settings.batch_size, 0), data.x
    parameters = list(model.parameters())
    started = 0.0
    for step in range(steps + 5):
        if step == 5:
            started = time.perf_counter()
        ids = torch.from_numpy(order.ids(step))
        batch = Batch(x[ids], ids)
        rng = BatchRng(derive(0, step), total=len(batch))
        optimizer.zero_grad(set_to_none=True)
        with precision_context(precision, torch.device("cpu")):
            loss, _ = model.loss(batch, rng, Progress(step, steps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
    return 1000 * (time.perf_counter() - started) / steps


def loop(recipe: Recipe, data: ImageArray, steps: int, precision: str) -> float:
    """Milliseconds per step of Castalia's loop."""
    times: list[float] = []

    def callback(step: int, logs: object) -> None:
        if step in (5, steps + 5):
            times.append(time.perf_counter())

    timed = replace(recipe, training=replace(recipe.training, steps=steps + 6, precision=precision, samples=1))
    with tempfile.TemporaryDirectory() as folder:
        train(timed, data, Path(folder) / "run", quiet=True, callback=callback)
    return 1000 * (times[1] - times[0]) / steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for name, (recipe, data) in cases().items():
        pairs = []
        for _ in range(options.rounds):
            a = bare(recipe, data, options.steps, "float32")
            pairs.append((a, loop(recipe, data, options.steps, "float32")))
        a, b = (min(p[i] for p in pairs) for i in (0, 1))
        limit = 0.03 * a if a > 5 else 0.3
        rows.append(
            {
                "network": name,
                "bare_ms": a,
                "loop_ms": b,
                "overhead_ms": b - a,
                "overhead_share": b / a - 1,
                "limit_ms": limit,
                "median_overhead_ms": float(np.median([y - x for x, y in pairs])),
                "threads": torch.get_num_threads(),
            }
        )
        print(
            f"{name:<30} bare {a:8.3f} ms  loop {b:8.3f} ms  overhead {b - a:+7.3f} ms ({100 * (b / a - 1):+5.1f} %)"
            f"  limit {limit:.3f} ms  {'met' if b - a <= limit else 'MISSED'}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
