"""Sharded training equals training in one process; its checkpoints serve any number of processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from castalia import api, catalogue, checkpoints, runs
from castalia.core.errors import CastaliaError, RunError, UsageError
from castalia.core.model import Generator
from castalia.core.weights import Rows, load_parts, load_tensors, save_part
from castalia.training.loop import train
from tests.conformance.test_conformance import equal_runs
from tests.tools import two_processes
from tests.training import toys
from tests.training.sharded import NARROW, Stop, cases, stop

TOLERANCE = 2e-5
"""Gradients are summed in another order."""

LOOSE = {"wgan-clip": 2e-3}
"""Weights of 0.01 at most make gradients so small that Adam magnifies their rounding; without sharding it is the same."""

NARROW_TOLERANCE = 0.02
"""Of losses where each process rounds its parameters to bfloat16."""

OWN_NOISE = ("toy-alternating", "toy-chain", "toy-gradient-free")
"""Dropout, a chain, a population: each process draws its own numbers, so several do not equal one."""


@pytest.fixture(autouse=True, scope="module")
def _toys() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "CATALOGUE", {**catalogue.CATALOGUE, **toys.entries()})
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, and of two that shard."""
    folder = tmp_path_factory.mktemp("sharded")
    for name, (recipe, data) in cases().items():
        train(recipe, data, folder / f"{name}-alone", quiet=True)
        with contextlib.suppress(Stop):
            train(recipe, data, folder / f"{name}-back", quiet=True, callback=stop)
    two_processes(Path(__file__).with_name("sharded.py"), folder, seconds=600)
    return folder


@pytest.mark.parametrize("name", list(cases()))
def test_two_shards_equal_one_process(name: str, made: Path) -> None:
    alone = runs.open_run(made / f"{name}-alone")
    shards = runs.open_run(made / f"{name}-whole")
    found = checkpoints.newest(shards.checkpoints)
    assert found is not None
    assert len(list(found.path.glob("model-*-of-00002.safetensors"))) == 2, "each process wrote its part"
    equal_runs(shards, runs.open_run(made / f"{name}-again"))
    published, parts = load_tensors(shards.weights)[0], load_parts(found.path, "ema")[0]
    assert published.keys() == parts.keys()
    assert all(torch.equal(published[key], parts[key]) for key in parts)
    assert bool(list((shards.path / "samples").glob("*.png"))) == isinstance(shards.model()[0], Generator)
    if name in OWN_NOISE:
        return
    tolerance = LOOSE.get(name, TOLERANCE)
    equal_runs(alone, shards, tolerance=tolerance)
    equal_runs(alone, runs.open_run(made / f"{name}-back"), tolerance=tolerance)
    recipe, data = cases()[name]
    equal_runs(alone, train(recipe, data, made / f"{name}-half", quiet=True, resume=True), tolerance=tolerance)


@pytest.mark.parametrize("name", NARROW)
def test_narrow_shards(name: str, made: Path) -> None:
    """Parameters gathered in bfloat16 give the losses of float32 within a percent or two."""
    alone, narrow = (runs.open_run(made / f"{name}-{kind}") for kind in ("alone", "narrow"))
    for left, right in zip(alone.metrics(), narrow.metrics(), strict=True):
        for key in (k for k in left if k.endswith("/loss")):
            assert right[key] == pytest.approx(left[key], rel=NARROW_TOLERANCE, abs=NARROW_TOLERANCE), key


def test_samples_of_a_sharded_run(made: Path) -> None:
    """A run is a run: other verbs do not know how it was made."""
    one, two = (api.sample(made / f"vae-{kind}", 4).x for kind in ("alone", "whole"))
    assert (one.int() - two.int()).abs().max() <= 1


def test_one_process_has_nothing_to_shard(tmp_path: Path) -> None:
    recipe, data = cases()["toy-stages"]
    run = train(recipe, data, tmp_path / "run", quiet=True, shard=True)
    found = checkpoints.newest(run.checkpoints)
    assert found is not None
    assert (found.path / "model.safetensors").exists()


def test_parts_come_together(tmp_path: Path) -> None:
    whole, count = torch.arange(21.0).view(7, 3), torch.tensor(5)
    for rank, (first, last) in enumerate(((0, 3), (3, 6), (6, 7))):
        tensors = {"w": whole[first:last]} | ({"count": count} if rank == 0 else {})
        save_part(tmp_path, "model", (rank, 3), tensors, {"w": Rows(first, 7)}, {"castalia.step": "4"})
    found, about = load_parts(tmp_path, "model")
    assert torch.equal(found["w"], whole)
    assert torch.equal(found["count"], count)
    assert about["castalia.step"] == "4"
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(RunError, match="4 of 7 rows of 'w'"):
        load_parts(tmp_path, "model")


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    save_part(tmp_path, "model", (0, 1), {"w": torch.zeros(4, 2)}, {"w": Rows(5, 7)}, {})
    with pytest.raises(RunError, match="rows of 'w' that there are not"):
        load_parts(tmp_path, "model")


def test_a_single_number_cannot_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from castalia.training.parallel import World
    from castalia.training.sharding import Shards

    model = toys.Chain(toys.ToyConfig(), toys.SPEC)
    model.scale = torch.nn.Parameter(torch.ones(()))
    with pytest.raises(UsageError, match="'scale' is a single number"):
        Shards(model, World(0, 2, 2, torch.device("cpu"), sharded=True), "float32")


def test_when_one_process_cannot_write(tmp_path: Path) -> None:
    """A process whose peer failed ends too, and the half-written checkpoint is gone."""

    def on_all(action: object) -> None:
        raise CastaliaError("Process 1 stopped: The disk is full")

    team = checkpoints.Team(0, 2, on_all=on_all)
    with pytest.raises(CastaliaError, match="disk is full"):
        checkpoints.save(tmp_path / "c", 3, {"model": {"w": torch.zeros(3)}}, {}, metadata={}, keep=2, team=team)
    assert not list((tmp_path / "c").iterdir())
