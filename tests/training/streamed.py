"""Run under torchrun by ``test_streaming.py``: one run from shards; each process notes which examples it read."""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import torch.distributed as dist

from castalia import api
from castalia.configuration import Recipe
from castalia.media.image.shards import ImageShards
from castalia.training import stage
from castalia.training.loop import train

STEPS = 12


def recipe(folder: Path) -> Recipe:
    training = ("batch_size=8", "checkpoint_every=4", "threads=1", "samples=4", "log_every=3", "sample_every=100")
    small = ("config.network=dense", "config.widths=[16]", "config.latent_dims=4")
    settings = [*(f"training.{text}" for text in training), *small]
    return api.make_recipe("vae", str(folder), size=8, steps=STEPS, precision="float32", settings=settings)


def main(folder: Path, out: Path) -> None:
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    made = recipe(folder)
    stage.cores = lambda: 1  # nothing is read ahead, so what is read between two steps belongs to the second
    data = api.training_data(made)
    assert isinstance(data, ImageShards)
    read, source = list[int](), data.source.read
    data.source.read = lambda i: read.append(i) or source(i)  # type: ignore[method-assign]
    marks = list[int]()
    train(made, data, out / "both", quiet=True, callback=lambda step, logs: marks.append(len(read)))
    # of each step, without what initialise and the drawing of samples looked at
    steps = [read[a:b] for a, b in pairwise(marks)]
    (out / f"read-{rank}.json").write_text(json.dumps(steps))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
