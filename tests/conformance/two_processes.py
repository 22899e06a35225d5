"""Run under torchrun by the conformance suite: the models asked for in two processes.

<name>-whole   from start to end

and, for one model of each family:

<name>-half    stopped after a checkpoint, to be resumed by one process
<name>-back    begun by one process here (rank 0, alone), resumed by two
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from castalia import api
from castalia.configuration import Recipe
from castalia.core.data import Dataset
from castalia.training.loop import train
from tests.tools import FAMILIES, small_recipe


class Stop(Exception):
    pass


def stop_after(number: int):
    def callback(step: int, logs: object) -> None:
        if step == number:
            raise Stop

    return callback


def alone(recipe: Recipe, data: Dataset, out: Path) -> None:
    """Begin a run in this process without its peer."""
    kept = {key: os.environ.pop(key) for key in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if key in os.environ}
    try:
        train(recipe, data, out, quiet=True, callback=stop_after(8))
    except Stop:
        pass
    finally:
        os.environ.update(kept)


def main(folder: Path, names: list[str]) -> None:
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    for name in names:
        recipe = small_recipe(name)
        recipe = replace(recipe, training=replace(recipe.training, checkpoint_every=6, threads=1))
        data = api.training_data(recipe)
        train(recipe, data, folder / f"{name}-whole", quiet=True)
        if name not in FAMILIES:
            continue
        with contextlib.suppress(Stop):
            train(recipe, data, folder / f"{name}-half", quiet=True, callback=stop_after(8))
        if rank == 0:
            alone(recipe, data, folder / f"{name}-back")
        dist.barrier()
        train(recipe, data, folder / f"{name}-back", quiet=True, resume=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
