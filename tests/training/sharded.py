"""Run under torchrun by ``test_sharding.py``: every system and every toy, sharded over the processes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from castalia import api
from castalia.training.loop import train
from tests.tools import MODELS, small_recipe
from tests.training import toys


class Stop(Exception):
    pass


def stop(step: int, logs: object) -> None:
    if step == 8:
        raise Stop


def main(folder: Path, precision: str) -> None:
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    for name in MODELS:
        recipe = small_recipe(name)
        recipe = replace(
            recipe, training=replace(recipe.training, checkpoint_every=6, threads=1, precision=precision)
        )
        data = api.training_data(recipe)
        train(recipe, data, folder / f"{name}-whole", quiet=True, shard=True)
        if precision == "float32":
            with contextlib.suppress(Stop):
                train(recipe, data, folder / f"{name}-half", quiet=True, shard=True, callback=stop)
            dist.barrier()
            train(recipe, data, folder / f"{name}-back", quiet=True, shard=True, resume=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
