"""GPTs in two processes (DDP, FSDP2, tensor parallelism) against one; recomputation; shards of tokens."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia import api, checkpoints, recipes, runs
from castalia.catalogue import entry
from castalia.core.errors import UsageError
from castalia.core.model import Cut, Optimizer, build
from castalia.training import parallel, recomputing
from castalia.training.loop import train
from castalia.training.parallel import World
from castalia.training.splitting import Split, joined, part_of
from castalia.training.stage import ActiveStage
from tests.conformance.test_conformance import equal_runs
from tests.tools import small_recipe, two_processes
from tests.training.sharded import Stop, stop
from tests.training.shared_blocks import GPTS, case

CPU = torch.device("cpu")
CLOSE = 1e-5
"""Of losses; sums are in another order."""

WEIGHTS = 1e-4
"""Of weights and moments: Adam magnifies the rounding of gradients that are nearly nothing, by a rate of 0.003 here."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, and of two."""
    folder = tmp_path_factory.mktemp("many")
    for name in GPTS:
        recipe, data = case(name)
        train(recipe, data, folder / f"{name}-alone", quiet=True)
        with contextlib.suppress(Stop):
            train(recipe, data, folder / f"{name}-back", quiet=True, callback=stop)
    two_processes(Path(__file__).with_name("shared_blocks.py"), folder, seconds=600)
    return folder


def losses(run: runs.Run) -> list[float]:
    return [line[key] for line in run.metrics() for key in line if key.endswith("/loss")]


@pytest.mark.parametrize("name", GPTS)
@pytest.mark.parametrize("kind", ["ddp", "fsdp", "tensor", "dense", "fsdp-dense", "back"])
def test_two_processes_have_the_losses_of_one(name: str, kind: str, made: Path) -> None:
    alone, two = (losses(runs.open_run(made / f"{name}-{k}")) for k in ("alone", kind))
    assert len(alone) >= 10
    assert two == pytest.approx(alone, rel=0, abs=CLOSE)


@pytest.mark.parametrize("name", GPTS)
def test_processes_that_share_blocks(name: str, made: Path) -> None:
    """Weights and moments as well; a checkpoint is one of one process, and goes on there, and the other way round."""
    alone, two = (runs.open_run(made / f"{name}-{kind}") for kind in ("alone", "tensor"))
    found = checkpoints.newest(two.checkpoints)
    assert found is not None
    assert (found.path / "model.safetensors").exists()
    equal_runs(alone, two, tolerance=WEIGHTS)
    equal_runs(two, runs.open_run(made / f"{name}-again"))
    equal_runs(two, runs.open_run(made / f"{name}-dense"))
    equal_runs(alone, runs.open_run(made / f"{name}-back"), tolerance=WEIGHTS)
    recipe, data = case(name)
    equal_runs(alone, train(recipe, data, made / f"{name}-half", quiet=True, resume=True), tolerance=WEIGHTS)
    assert list((two.path / "samples").glob("*"))


@pytest.mark.parametrize("cut", [Cut("outputs"), Cut("outputs", 3), Cut("inputs")])
def test_parts_make_a_whole(cut: Cut) -> None:
    whole = torch.arange(12.0 * 6).view(12, 6)
    pieces = [part_of(whole, cut, rank, 2) for rank in range(2)]
    assert torch.equal(joined(pieces, cut), whole)
    if cut.parts == 3:  # queries, keys and values of the second half of the heads
        assert torch.equal(pieces[1][:, 0] / 6, torch.tensor([2.0, 3, 6, 7, 10, 11]))


@pytest.mark.parametrize("name", GPTS)
def test_recomputation_changes_no_bit(name: str, tmp_path: Path) -> None:
    """Not with dropout either; and a run may be continued with it, or without."""
    recipe, data = case(name)
    recipe = replace(recipe, config=replace(recipe.config, dropout=0.1))  # type: ignore[arg-type]
    again = replace(recipe, training=replace(recipe.training, recompute=True))
    plain = train(recipe, data, tmp_path / "plain", quiet=True)
    equal_runs(plain, train(again, data, tmp_path / "again", quiet=True))
    with contextlib.suppress(Stop):
        train(again, data, tmp_path / "half", quiet=True, callback=stop)
    equal_runs(plain, train(recipe, data, tmp_path / "half", quiet=True, resume=True))


def test_what_cannot_be_computed_again() -> None:
    recipe = small_recipe("gan")
    model = build(entry("gan").load(), recipe.config, api.training_data(recipe).spec)
    with pytest.raises(UsageError, match=r"leave training\.recompute out"):
        recomputing.recompute(model)


def test_refusals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World(0, 2, 2, CPU, tensor=2)
    for name, words in (("vae", "no plan"), ("retro", "no plan"), ("gpt2", "Muon needs whole")):
        recipe = recipes.tiny(name)
        data = api.training_data(recipe)
        kind = entry(name).load()
        model = build(kind, kind.complete(recipe.config, data), data.spec)
        with pytest.raises(UsageError, match=words):
            Split(model, world, model.stages(), recipe.training)
    recipe, data = case("gpt2")
    model = build(entry("gpt2").load(), recipe.config, data.spec)
    with pytest.raises(UsageError, match=r"2 heads of blocks\.0 cannot be shared evenly by 3"):
        Split(model, World(0, 3, 3, CPU, tensor=3), model.stages(), recipe.training)
    with pytest.raises(UsageError, match="torchrun --nproc_per_node 2"):
        train(recipe, data, tmp_path / "run", quiet=True, tensor=2)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one of the two"), parallel.world(CPU, shard=True, tensor=2):
        pass


@pytest.mark.parametrize("replicas", [2, 4])
def test_no_two_ranks_share_tokens(replicas: int) -> None:
    """Of an epoch every window is read by one replica, once; processes that share blocks read the same."""
    recipe = recipes.tiny("gpt2")
    data = api.training_data(recipe)
    training = replace(recipe.training, batch_size=8, accumulate=2, optimizer=Optimizer())
    model = build(entry("gpt2").load(), recipe.config, data.spec)
    epoch = len(data) // 8
    read: list[list[int]] = []
    for rank in range(2 * replicas):
        world = World(rank, 2 * replicas, 1, CPU, tensor=2)
        if 8 // 2 % replicas:
            pytest.skip("rows that cannot be shared")
        active = object.__new__(ActiveStage)  # its order and rows, without the processes that wrapping needs
        alone = ActiveStage(model.stages()[0], 0, 10, model, data, training, World(0, 1, 1, CPU))
        active.__dict__.update(alone.__dict__, world=world)
        ids = [batch.ids for step in range(epoch) for batch, _ in active.micro_batches(active.parts[0], step, 0)]
        read.append(torch.cat(ids).tolist())
    for replica in range(replicas):
        assert read[2 * replica] == read[2 * replica + 1]
    every = np.concatenate([read[2 * replica] for replica in range(replicas)])
    assert len(set(every.tolist())) == len(every) == 8 * epoch
