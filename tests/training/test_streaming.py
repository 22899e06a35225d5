"""Training from shards: resumed exactly, read without overlap by two processes, refused on other shards."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from castalia import api, runs
from castalia.core.data import Order
from castalia.core.errors import UsageError
from castalia.core.rng import derive
from castalia.media.image.array import ImageArray
from castalia.media.image.shards import ImageShards
from castalia.training import stage
from castalia.training.loop import train
from castalia.training.parallel import World
from castalia.training.stage import ActiveStage
from tests.conformance.test_conformance import equal_runs
from tests.tools import two_processes
from tests.training.streamed import STEPS, recipe

pytestmark = pytest.mark.filterwarnings("error")


class Stop(Exception):
    pass


def write(folder: Path, sizes: tuple[int, ...] = (20, 13, 17, 25), seed: int = 0) -> Path:
    """Shards of random pictures with labels."""
    rng, total = np.random.default_rng(seed), 0
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        with tarfile.open(folder / f"train-{number}.tar", "w") as archive:
            for _ in range(size):
                out = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, "PNG")
                for suffix, data in (("png", out.getvalue()), ("cls", str(total % 4).encode())):
                    info = tarfile.TarInfo(f"{total:05}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
                total += 1
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("shards") / "set")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """A run of one process from start to end."""
    made = recipe(folder)
    return train(made, api.training_data(made), tmp_path_factory.mktemp("runs") / "whole", quiet=True)


@pytest.mark.parametrize("after", [3, 6, 9])
def test_a_resumed_run_is_equal_bit_for_bit(after: int, folder: Path, whole: runs.Run, tmp_path: Path) -> None:
    def stop(step: int, logs: object) -> None:
        if step == after:
            raise Stop

    made = recipe(folder)
    with contextlib.suppress(Stop):
        train(made, api.training_data(made), tmp_path / "run", quiet=True, callback=stop)
    again = train(made, api.training_data(made), tmp_path / "run", quiet=True, resume=True)
    equal_runs(whole, again)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_reading_ahead_changes_nothing(
    accumulate: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch but the first was announced, in one piece or in two, and the run is equal bit for bit."""
    made = recipe(folder)
    made = replace(made, training=replace(made.training, accumulate=accumulate))
    runs_ = []
    for spare in (0, 1):
        monkeypatch.setattr(stage, "cores", lambda spare=spare: torch.get_num_threads() + spare)
        data = api.training_data(made)
        announced: list[bytes] = []
        asked: list[bytes] = []
        expect, batch = data.expect, data.batch
        monkeypatch.setattr(
            data, "expect", lambda ids, n, do=expect, log=announced: (log.append(ids.tobytes()), do(ids, n))
        )
        monkeypatch.setattr(
            data, "batch", lambda ids, rng=None, do=batch, log=asked: (log.append(ids.tobytes()), do(ids, rng))[1]
        )
        runs_.append(train(made, data, tmp_path / str(spare), quiet=True))
        if spare:
            n = STEPS * accumulate
            assert announced[: n - 1] == asked[-(n - 1) :]
            assert len(announced) == n
        else:
            assert not announced
    equal_runs(*runs_)


def test_who_may_read_ahead(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that a person has left free, all but one beside an accelerator; none where the next batch is not known."""
    made = recipe(folder)
    data = api.training_data(made)
    model = train(made, data, tmp_path / "run", quiet=True).model()[0]
    monkeypatch.setattr(stage, "cores", lambda: torch.get_num_threads() + 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (only,) = model.stages()

    def readers(objectives=only.objectives, device: str = "cpu", local: int = 1, **training: int) -> int:
        settings = replace(made.training, **{"threads": 1, **training})
        world = World(0, local, local, torch.device(device))
        return ActiveStage(replace(only, objectives=objectives), 0, 1, model, data, settings, world).readers

    assert readers() == 3
    assert readers(threads=0) == 0  # there are fewer than cores because others are busy
    assert readers(device="meta") == torch.get_num_threads() + 2
    assert readers(device="meta", threads=0) == torch.get_num_threads() + 2
    assert readers(tuple(replace(o, every=2) for o in only.objectives)) == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert readers(threads=0) == 3
    monkeypatch.setattr(stage, "cores", lambda: torch.get_num_threads())
    assert readers() == 0
    assert readers(device="meta") == max(1, torch.get_num_threads() - 1)
    monkeypatch.setattr(data, "blocks", None)
    assert readers(device="meta") == 0


def test_what_is_held_in_memory_trains_likewise(folder: Path, tmp_path: Path) -> None:
    """The same pictures in another order: what a block-wise order changes, and nothing else."""
    made = recipe(folder)
    options = replace(made.data.options, stream="never")
    held = api.training_data(replace(made, data=replace(made.data, options=options)))
    assert isinstance(held, ImageArray)
    streamed = api.training_data(made)
    assert streamed.blocks is not None
    held.blocks = streamed.blocks
    runs_ = [train(made, data, tmp_path / str(i), quiet=True) for i, data in enumerate((streamed, held))]
    equal_runs(*runs_)


def test_two_processes_read_without_overlap(folder: Path, whole: runs.Run, tmp_path: Path) -> None:
    two_processes(Path(__file__).with_name("streamed.py"), folder, tmp_path)
    first, second = (json.loads((tmp_path / f"read-{rank}.json").read_text()) for rank in (0, 1))
    data = api.training_data(recipe(folder))
    order = Order(len(data), 8, derive(recipe(folder).training.seed, "stage", "train"), data.blocks)
    assert len(first) == len(second) == STEPS - 1
    for step, (mine, others) in enumerate(zip(first, second, strict=True), start=1):
        assert len(mine) == len(others) == 4
        assert sorted(mine + others) == sorted(order.ids(step).tolist())
    equal_runs(whole, runs.open_run(tmp_path / "both"), tolerance=2e-5)


def test_other_shards_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", (12, 12))
    made = recipe(folder)
    data = api.training_data(made)
    assert isinstance(data, ImageShards)
    train(made, data, tmp_path / "run", quiet=True)
    write(folder, (12, 12), seed=1)
    with pytest.raises(UsageError, match="data"):
        train(made, api.training_data(made), tmp_path / "run", quiet=True, resume=True)
