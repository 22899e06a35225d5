"""Training a variational autoencoder beside pythae's pipeline: from pictures in memory to a finished folder.

The network is pythae's own default, a perceptron of one hidden layer of 512. For equal work ours neither draws binary
pixels anew for each batch nor averages weights, as theirs does not; at its defaults it does both. Beyond theirs it
checks every gradient, writes metrics and grids of samples, in both rows. Both have the same batch, threads and
allocator in the rows of equal work, and neither clips gradients.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks import ceilings
from benchmarks.harness import Options, Row, Run, alternate, gflop, profile
from benchmarks.loops import bare_vae
from benchmarks.sides import Side
from castalia import recipes
from castalia.catalogue import entry
from castalia.configuration import Recipe, Schedule, Training
from castalia.core.model import Progress, build
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import BatchRng
from castalia.core.specs.image import ImageSpec
from castalia.media.image.array import ImageArray
from castalia.models.autoencoders.vae import VAE, VAEConfig
from castalia.training.loop import train

LATENTS, HIDDEN = 16, 512


def recipe(training: Training, binarise: Literal["dynamic", "threshold"] = "dynamic") -> Recipe:
    """The perceptron of pythae as a recipe of ours."""
    config = VAEConfig(network="dense", latent_dims=LATENTS, widths=(HIDDEN,), binarise=binarise)
    return replace(recipes.recipe("vae-mnist-dense"), config=config, training=training)


def ours(pixels: np.ndarray, training: Training, binarise: Literal["dynamic", "threshold"] = "dynamic") -> Run:
    """Train from an array to a run."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(recipe(training, binarise), ImageArray(pixels, name="pictures"), Path(folder) / "run", quiet=True)

    return run


def bare(pixels: np.ndarray, training: Training) -> Run:
    """The same steps in the loop that a person would write."""
    return bare_vae(recipe(training, "threshold"), ImageArray(pixels, name="pictures"), training.steps)


def theirs(pixels: np.ndarray, epochs: int, batch: int, lr: float, precision: Precision = "float32") -> Run:
    """Train from an array to a folder with pythae's pipeline; its own mixed precision is for CUDA only."""
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig as PythaeConfig
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    logging.getLogger("pythae").setLevel(logging.ERROR)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("pythae"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def run() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stderr(io.StringIO()),
            precision_context(precision, torch.device("cpu")),
        ):
            model = PythaeVAE(PythaeConfig(input_dim=(1, 28, 28), latent_dim=LATENTS, reconstruction_loss="bce"))
            settings = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                per_device_train_batch_size=batch,
                learning_rate=lr,
                no_cuda=True,
            )
            TrainingPipeline(model=model, training_config=settings)(train_data=pixels.astype(np.float32) / 255)

    return run


def step(batch: int) -> tuple[VAE, Run]:
    """Forward and backward passes of one step, for counting operations."""
    model = build(entry("vae").load(), recipe(Training()).config, ImageSpec(1, 28, 28), 0).train()
    assert isinstance(model, VAE)
    data = ImageArray(np.zeros((batch, 1, 28, 28), np.uint8), name="zeros")

    def run() -> None:
        loss, _ = model.loss(data.batch(np.arange(batch)), BatchRng(0, total=batch), Progress(0, 1))
        loss.backward()

    return model, run


def rows(options: Options) -> Iterator[Row]:
    """Equal work, then each at its own defaults."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # also of the other processes
    n, epochs = (2_560, 1) if options.quick else (12_800, 5)
    pixels = np.random.default_rng(0).integers(0, 256, (n, 1, 28, 28), dtype=np.uint8)
    steps = epochs * n // 128
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        work = f"train a 784-{HIDDEN}-{LATENTS} perceptron, {n:,} pictures, {epochs} epochs, batch 128, {precision}"
        if not options.wants(work):
            continue
        equal = Training(
            steps=steps,
            batch_size=128,
            lr=1e-3,
            schedule=Schedule("constant", warmup=0),
            precision=precision,
            ema_half_life=0,
            threads=options.threads,
        )
        with (
            Side(ours, pixels, equal, "threshold", threads=options.threads, keeps=True) as mine,
            Side(theirs, pixels, epochs, 128, 1e-3, precision, threads=options.threads, keeps=True) as other,
        ):
            yield alternate(mine, other, options.rounds).row(
                "vae",
                work,
                "pythae",
                target=1.8,
                per=steps,
                gflop=gflop(step(128)[1]),
                ceiling=(
                    f"matrix product {precision}",
                    ceilings.matmul(getattr(torch, precision), options.threads),
                ),
                profile=profile(ours(pixels, equal, "threshold")),
                note="a step, of the whole pipeline's time; neither side draws binary pixels or averages weights",
            )
        if precision == "float32":
            with (
                Side(bare, pixels, equal, threads=options.threads, keeps=True) as mine,
                Side(theirs, pixels, epochs, 128, 1e-3, precision, threads=options.threads, keeps=True) as other,
            ):
                yield alternate(mine, other, options.rounds).row(
                    "vae",
                    "the same steps in a bare loop over our network, for comparison",
                    "pythae",
                    per=steps,
                    note="what is left where nothing is checked, logged, drawn or saved",
                )
    work = (
        f"the same network and {epochs} epochs, each at its own defaults (ours: batch 128, precision measured; "
        "pythae: batch 64)"
    )
    if not options.wants(work):
        return
    usual = Training(steps=steps, threads=options.threads)
    with (
        Side(ours, pixels, usual, threads=options.threads, keeps=True) as mine,
        Side(theirs, pixels, epochs, 64, 1e-4, threads=options.threads) as other,
    ):
        yield alternate(mine, other, options.rounds).row(
            "vae",
            work,
            "pythae",
            target=1.8,
            per=epochs,
            note="an epoch; ours keeps its memory, has twice the batch and so half the steps",
        )
