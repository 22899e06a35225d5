"""Run under torchrun by ``test_many_processes.py``: the GPTs in two processes, in three ways.

<name>-ddp, <name>-fsdp, <name>-tensor   from start to end
<name>-half    blocks are shared; stopped after a checkpoint, to be resumed by one process
<name>-again   stopped likewise, resumed here
<name>-back    begun by one process before, resumed by these, which share blocks
<name>-dense   blocks are shared and computed again
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from castalia import api
from castalia.configuration import Recipe, Schedule
from castalia.core.data import Dataset
from castalia.training.loop import train
from tests.tools import small_recipe
from tests.training.sharded import Stop, stop, whole_matrices_not_needed

GPTS = ("gpt2", "gpt3", "gpt-modern")


def case(name: str, **changes: object) -> tuple[Recipe, Dataset]:
    """What is trained, here and by the test in one process."""
    recipe = whole_matrices_not_needed(small_recipe(name, checkpoint_every=6, threads=1, log_every=1))
    quick = {"clip": 0.5, "lr": 3e-3, "schedule": Schedule("constant", warmup=0), **changes}
    recipe = replace(recipe, training=replace(recipe.training, **quick))  # type: ignore[arg-type]
    return recipe, api.training_data(recipe)


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    for name in GPTS:
        recipe, data = case(name)
        train(recipe, data, folder / f"{name}-ddp", quiet=True)
        train(recipe, data, folder / f"{name}-fsdp", quiet=True, shard=True)
        train(recipe, data, folder / f"{name}-tensor", quiet=True, tensor=2)
        with contextlib.suppress(Stop):
            train(recipe, data, folder / f"{name}-half", quiet=True, tensor=2, callback=stop)
        if dist.get_rank() == 0:
            shutil.copytree(folder / f"{name}-half", folder / f"{name}-again")
        dist.barrier()
        for kind in ("again", "back"):
            train(recipe, data, folder / f"{name}-{kind}", quiet=True, tensor=2, resume=True)
        again, _ = case(name, recompute=True)
        train(again, data, folder / f"{name}-dense", quiet=True, tensor=2)
        train(again, data, folder / f"{name}-fsdp-dense", quiet=True, shard=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
