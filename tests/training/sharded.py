"""Run under torchrun by ``test_sharding.py``: one system of each family and every toy, sharded over the processes.

<name>-whole   from start to end
<name>-half    stopped after a checkpoint, to be resumed by one process
<name>-again   stopped likewise, resumed here
<name>-back    begun by one process before, resumed by these
<name>-narrow  from start to end in bfloat16
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from castalia import api, catalogue
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.data import Dataset
from castalia.core.model import Optimizer, build
from castalia.training import parallel
from castalia.training.loop import train
from castalia.training.sharding import Shards, is_shard, local
from tests.tools import FAMILIES, small_recipe
from tests.training import toys

NARROW = ("vae", "ddpm", "gan")
"""Units of convolutions, units with embeddings, no units."""


class Stop(Exception):
    pass


def stop(step: int, logs: object) -> None:
    if step == 8:
        raise Stop


def whole_matrices_not_needed(recipe: Recipe) -> Recipe:
    """The recipe with another optimizer where it has Muon, which refuses shards."""
    if recipe.training.optimizer.name != "muon":
        return recipe
    return replace(recipe, training=replace(recipe.training, optimizer=Optimizer("adamw"), lr=1e-3))


def cases() -> dict[str, tuple[Recipe, Dataset]]:
    """What is trained, here and by the test in one process."""
    found = {}
    for name in FAMILIES:
        recipe = whole_matrices_not_needed(small_recipe(name, checkpoint_every=6, threads=1))
        found[name] = recipe, api.training_data(recipe)
    clipped = small_recipe("wgan", checkpoint_every=6, threads=1)
    settings = {"lipschitz": "clip", "critic_norm": "batch"}
    found["wgan-clip"] = replace(clipped, config=replace(clipped.config, **settings)), api.training_data(clipped)  # type: ignore[arg-type]
    for name in toys.TOYS:
        found[name] = toys.recipe(name, checkpoint_every=6, threads=1), toys.table()
    return found


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    catalogue.CATALOGUE.update(toys.entries())
    for name, (recipe, data) in cases().items():
        train(recipe, data, folder / f"{name}-whole", quiet=True, shard=True)
        with contextlib.suppress(Stop):
            train(recipe, data, folder / f"{name}-half", quiet=True, shard=True, callback=stop)
        if dist.get_rank() == 0:
            shutil.copytree(folder / f"{name}-half", folder / f"{name}-again")
        dist.barrier()
        for kind in ("again", "back"):
            train(recipe, data, folder / f"{name}-{kind}", quiet=True, shard=True, resume=True)
        if name in NARROW:
            narrow = replace(recipe, training=replace(recipe.training, precision="bfloat16"))
            train(narrow, data, folder / f"{name}-narrow", quiet=True, shard=True)
    parts()
    dist.barrier()
    dist.destroy_process_group()


def parts() -> None:
    """Each process holds about half of the parameters, and whole ones only inside a loss."""
    for name, (recipe, data) in cases().items():
        model = build(entry(recipe.model).load(), recipe.config, data.spec).train()
        total = sum(p.numel() for p in model.parameters())
        world = parallel.World(dist.get_rank(), 2, 2, torch.device("cpu"), sharded=True)
        shards = Shards(model, world, "float32")
        mine = sum(local(p).numel() for p in model.parameters())
        assert all(is_shard(p) for p in model.parameters())
        assert mine < 0.6 * total + 64, (name, mine, total)
        with shards.gathered():
            assert sum(p.numel() for p in model.parameters()) == total
            assert not any(is_shard(p) for p in model.parameters())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
