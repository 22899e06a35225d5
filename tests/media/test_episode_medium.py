"""Episodes: files, stretches, recordings, drawings."""

from __future__ import annotations

import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from castalia.core.config import from_json, to_json
from castalia.core.data import Batch
from castalia.core.errors import CastaliaError, DataError, MissingExtra, UsageError
from castalia.core.specs.episode import EpisodeSpec
from castalia.environments import racing
from castalia.media.episode import record as recording
from castalia.media.episode.measures import change, lasted, won
from castalia.media.episode.medium import EpisodeMedium
from castalia.media.episode.read import EpisodeOptions, is_episodes, open_episodes
from castalia.media.episode.sets import open_set, paddles
from castalia.media.episode.shards import Episode, episode_bytes, read_episode, write_episode
from castalia.media.named import medium_for, open_data

ABOUT: dict[str, object] = {"environment": "paddle", "actions": ["move"], "low": [-1], "high": [1], "fps": 15}


def episode(steps: int = 10, *, done: bool = True, size: int = 16, seed: int = 0, about: dict | None = None) -> Episode:
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (steps, size, size, 3), np.uint8)
    actions = random.uniform(-1, 1, (steps, 1)).astype(np.float32)
    return Episode(frames, actions, np.arange(steps, dtype=np.float32), done, ABOUT if about is None else about)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "episodes"
    found.mkdir()
    for i, steps in enumerate((10, 25, 40)):
        write_episode(found / f"{i}.npz", episode(steps, seed=i))
    return found


# files


def test_a_file_is_its_episode_and_back() -> None:
    for done in (True, False):
        one = episode(done=done)
        back = read_episode(episode_bytes(one), "x")
        assert np.array_equal(back.frames, one.frames)
        assert np.array_equal(back.actions, one.actions)
        assert np.array_equal(back.rewards, one.rewards)
        assert back.done is done
        assert back.about == ABOUT


def test_what_lies_behind_an_end_is_left_out_and_other_layouts_are_read() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 12), np.uint8)
    dones = np.array([0, 0, 0, 1, 1, 1], bool)
    file = io.BytesIO()
    np.savez(file, frames=frames, actions=np.arange(6), rewards=np.ones(6, np.float64), dones=dones)
    back = read_episode(file.getvalue(), "x")
    assert back.frames.shape == (4, 16, 12, 3)
    assert np.array_equal(back.frames, frames[:4].transpose(0, 2, 3, 1))
    assert back.actions[:, 0].tolist() == [0, 1, 2, 3]
    assert back.done
    file = io.BytesIO()
    np.savez(file, frames=frames[:, 0], actions=np.zeros((6, 2)), rewards=np.zeros(6))
    grey = read_episode(file.getvalue(), "x")
    assert grey.frames.shape == (6, 16, 12, 1)
    assert not grey.done


def packed(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


GOOD = {"frames": np.zeros((4, 8, 8, 3), np.uint8), "actions": np.zeros((4, 1)), "rewards": np.zeros(4)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"frames": np.zeros((4, 8, 8, 3))}, "uint8"),
        ({"frames": np.zeros((4, 8, 8, 5), np.uint8)}, "C 1 or 3"),
        ({"frames": np.zeros((0, 8, 8, 3), np.uint8)}, "empty"),
        ({"frames": np.zeros((4, 1, 2000, 3), np.uint8)}, "1,024"),
        ({"actions": np.zeros((3, 1))}, "as many rows"),
        ({"actions": np.zeros((4, 300))}, "1 to 256 numbers"),
        ({"rewards": np.array([0, np.nan, 0, 0])}, "step 1 are not finite"),
        ({"rewards": np.full(4, 1e300)}, "step 0 are not finite"),
        ({"dones": np.zeros((4, 2))}, "one done"),
        ({"actions": np.array(["a"] * 4)}, "not numbers"),
        ({"about": np.frombuffer(b"{not json", np.uint8)}, "JSON"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(wrong: dict, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        read_episode(packed(**{**GOOD, **wrong}), "here.npz")
    assert "here.npz" in str(error.value)


def test_hostile_files_are_refused() -> None:
    whole = packed(**GOOD)
    with pytest.raises(DataError, match="missing"):
        read_episode(packed(frames=GOOD["frames"]), "x")
    for data in (b"", b"PK", whole[: len(whole) // 2], b"\x00" * 100):
        with pytest.raises(DataError, match="x: "):
            read_episode(data, "x")
    damaged = bytearray(whole)
    damaged[60:80] = b"\xff" * 20
    with pytest.raises(DataError, match="x: "):
        read_episode(bytes(damaged), "x")
    objects = io.BytesIO()
    np.savez(objects, **{**GOOD, "actions": np.array([{}] * 4, object)})
    with pytest.raises(DataError, match="not numbers"):
        read_episode(objects.getvalue(), "x")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 64, 64, 3)}
        )
        archive.writestr("frames.npy", header.getvalue() + bytes(1 << 20))
    with pytest.raises(DataError, match="not what it holds"):
        read_episode(bomb.getvalue(), "x")


# stretches


def test_stretches_cover_an_episode_and_end_with_it(folder: Path) -> None:
    data = open_episodes(folder, EpisodeOptions(length=16, size=0))
    assert data.files == ("0.npz@0", "1.npz@0", "1.npz@9", "2.npz@0", "2.npz@16", "2.npz@24")
    assert "3 episodes of 10 to 40 steps, 75 in all" in data.notes[0]
    batch = data.batch(np.arange(6))
    whole = episode(25, seed=1)
    assert np.array_equal(batch.x[2].permute(0, 2, 3, 1).numpy(), whole.frames[9:])
    assert batch.extra["rewards"][2].tolist() == list(range(9, 25))
    assert torch.equal(batch.extra["start"], batch.x[:, 0])
    # only the last step of an episode is done, and what fills up a short one
    assert batch.extra["dones"].sum(1).tolist() == [7, 0, 1, 0, 0, 1]
    assert torch.equal(batch.x[0, 10], batch.x[0, 9])
    assert not batch.extra["actions"][0, 10:].any()
    assert not batch.extra["rewards"][0, 10:].any()
    more = open_episodes(folder, EpisodeOptions(length=16, hop=4, size=0))
    assert more.files[1:4] == ("1.npz@0", "1.npz@4", "1.npz@8")
    assert more.fingerprint != data.fingerprint


def test_an_episode_that_was_cut_off_has_no_end(tmp_path: Path) -> None:
    write_episode(tmp_path / "a.npz", episode(20, done=False))
    data = open_episodes(tmp_path / "a.npz", EpisodeOptions(length=10, size=0))
    assert not data.batch(np.arange(2)).extra["dones"].any()


def test_frames_are_brought_to_a_size(folder: Path) -> None:
    data = open_episodes(folder, EpisodeOptions(length=8, size=8))
    assert data.spec.frame == (3, 8, 8)
    flat = Episode(np.full((3, 20, 20, 1), 77, np.uint8), np.zeros((3, 1), np.float32), np.zeros(3), True, {})
    write_episode(folder.parent / "flat.npz", flat)
    one = open_episodes(folder.parent / "flat.npz", EpisodeOptions(length=3, size=8))
    assert (one.batch(np.arange(1)).x == 77).all()
    assert one.spec.environment == ""
    assert one.spec.low == (0.0,)
    assert one.spec.high == (1.0,)


def test_ranges_that_a_file_tells_hold_what_it_holds(tmp_path: Path) -> None:
    lies = {**ABOUT, "low": [-0.1], "high": [0.1]}
    write_episode(tmp_path / "a.npz", episode(about=lies))
    spec = open_episodes(tmp_path / "a.npz", EpisodeOptions(length=8, size=0)).spec
    assert spec.low[0] < -0.1
    assert spec.high[0] > 0.1
    odd = {"environment": ["x"], "actions": "move", "low": [True], "high": None, "fps": "fast"}
    write_episode(tmp_path / "b.npz", episode(about=odd))
    assert open_episodes(tmp_path / "b.npz", EpisodeOptions(length=8, size=0)).spec.environment == ""


def test_broken_and_unlike_files_are_named(folder: Path) -> None:
    (folder / "3.npz").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"3\.npz"):
        open_episodes(folder, EpisodeOptions(length=8))
    assert "Skipped 1 files" in " ".join(open_episodes(folder, EpisodeOptions(length=8, on_bad_file="skip")).notes)
    wide = replace(episode(), actions=np.zeros((10, 2), np.float32))
    write_episode(folder / "3.npz", wide)
    with pytest.raises(DataError, match=r"3\.npz: 2 numbers of an action"):
        open_episodes(folder, EpisodeOptions(length=8))
    data = paddles()
    with pytest.raises(DataError, match="are wanted"):
        open_episodes(folder / "3.npz", EpisodeOptions(), like=data.spec)


def test_splits_by_name_and_by_hash(tmp_path: Path) -> None:
    for i in range(30):
        write_episode(tmp_path / f"{i}.npz", episode(4, seed=i))
    options = EpisodeOptions(length=4, size=0)
    parts = [open_episodes(tmp_path, options, split=split).files for split in ("train", "test")]
    assert set(parts[0]).isdisjoint(parts[1])
    assert len(parts[0]) + len(parts[1]) == 30
    assert is_episodes(tmp_path)
    assert medium_for(str(tmp_path)).name == "episode"


def test_other_arrays_are_no_episodes(tmp_path: Path) -> None:
    np.savez(tmp_path / "pictures.npz", images=np.zeros((4, 8, 8, 3), np.uint8))
    assert not is_episodes(tmp_path / "pictures.npz")
    assert medium_for(str(tmp_path / "pictures.npz")).name == "image"
    (tmp_path / "text.npz").write_text("no zip")
    assert not is_episodes(tmp_path / "text.npz")


def test_options_that_make_no_sense() -> None:
    for wrong in ({"length": 1}, {"size": 4}, {"episodes": 0}, {"walk": -1.0}, {"hop": -1}, {"steps": -1}):
        with pytest.raises(UsageError):
            EpisodeOptions(**wrong)
    base = paddles().spec
    for wrong in ({"channels": 2}, {"actions": ()}, {"low": (1.0,)}, {"fps": 0.0}, {"length": 0}):
        with pytest.raises(ValueError, match=r"\w"):
            replace(base, **wrong)
    assert from_json(EpisodeSpec, to_json(replace(base, columns=()))) == replace(base, columns=())


# recordings


def test_a_recording_depends_on_its_arguments_only() -> None:
    some = list(recording.recorded("paddle", 3, size=16, seed=1))
    more = list(recording.recorded("paddle", 11, size=16, seed=1))
    later = list(recording.recorded("paddle", 11, size=16, seed=1, start=8))
    assert len(more) == 11
    for a, b in [*zip(some, more[:3], strict=True), *zip(later, more[8:], strict=True)]:
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.actions, b.actions)
    assert not np.array_equal(some[0].actions, next(recording.recorded("paddle", 1, size=16, seed=2)).actions)
    held_out = next(recording.recorded("paddle", 1, size=16, seed=1, split="test"))
    assert not np.array_equal(some[0].actions[:5], held_out.actions[:5])
    short = list(recording.recorded("paddle", 2, size=16, steps=5))
    assert [len(e) for e in short] == [5, 5]
    assert not any(e.done for e in short)


def test_rewards_and_ends_of_the_paddle() -> None:
    for one in recording.recorded("paddle", 8, size=16):
        assert one.done
        assert one.rewards[-1] == -1
        assert set(one.rewards[:-1].tolist()) <= {0.0, 1.0}


def test_cars_are_recorded_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path))
    options = EpisodeOptions(length=6, episodes=2, steps=12, size=32)
    data = open_data("carracing", options)
    assert len(data) == 4
    assert data.spec.fields()["x"].shape == (6, 3, 32, 32)
    made = sorted((tmp_path / "carracing").rglob("*.npz"))
    before = [path.stat().st_mtime_ns for path in made]
    assert len(made) == 2
    again = open_data("carracing", options)
    assert again.fingerprint == data.fingerprint
    assert [path.stat().st_mtime_ns for path in made] == before
    made[1].unlink()
    assert open_data("carracing", options).fingerprint == data.fingerprint
    test = open_data("carracing", options, "test")
    assert len(test) == 2
    assert not torch.equal(test.batch(np.arange(1)).x[:, -1], data.batch(np.arange(1)).x[:, -1])
    # the speed is negative where nothing was reached: a tenth for each step
    assert data.batch(np.arange(1)).extra["rewards"].min() == pytest.approx(-0.1)


def test_without_gymnasium_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gymnasium.envs.box2d.car_racing", None)
    racing.blind.cache_clear()
    with pytest.raises(MissingExtra, match=r"castalia\[worlds\]"):
        open_data("carracing", EpisodeOptions(length=4, episodes=1, steps=4))
    racing.blind.cache_clear()


def test_recording_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "paddles"
    assert recording.main(["paddle", str(out), "--episodes", "3", "--size", "16"]) == 0
    assert "Recorded" in capsys.readouterr().out
    assert len(open_episodes(out, EpisodeOptions(length=8, size=16))) >= 3
    assert recording.main(["padel", str(out)]) == 2
    assert "Did you mean 'paddle'" in capsys.readouterr().err
    assert recording.main(["paddle", str(out), "--size", "3"]) == 2
    (tmp_path / "file").write_text("x")
    assert recording.main(["paddle", str(tmp_path / "file"), "--episodes", "1"]) != 0


# out


def test_what_is_written_is_a_recording_and_a_film(tmp_path: Path) -> None:
    medium, data = (
        EpisodeMedium(),
        open_set("paddle", EpisodeOptions(length=24, size=16, episodes=12), "train", None, None),
    )
    batch = data.batch(np.arange(6))
    paths = medium.write(batch, data.spec, tmp_path, 3, {"seed": 1})
    assert [p.name for p in paths] == [f"{i:04d}.npz" for i in range(3, 9)]
    back = [medium.open(path, EpisodeOptions(), None, like=data.spec).batch(np.arange(1)) for path in paths]
    for i, one in enumerate(back):
        for name in ("x", "actions", "rewards", "dones", "start"):
            mine, theirs = batch.part(name), one.part(name)
            assert mine is not None
            assert theirs is not None
            assert torch.equal(mine[i], theirs[0]), name
    with Image.open(tmp_path / "0003.gif") as film:
        assert film.n_frames > 1  # type: ignore[attr-defined]
    assert (tmp_path / "0003.json").is_file()
    assert torch.equal(medium.read_file(paths[2], data.spec), batch.x[2])
    with pytest.raises(UsageError, match="typed"):
        medium.read("up", data.spec)
    found = medium.film(batch, data.spec)
    assert found is not None
    assert found.shape == (6 * 24, 3, 16, 16)


def test_strips() -> None:
    medium, data = EpisodeMedium(), paddles()
    batch = data.batch(np.arange(5))
    one, two = medium.picture(batch, data.spec), medium.picture(batch, data.spec, columns=2)
    assert two.width == 2 * one.width
    assert two.height * 5 == one.height * 3
    bare = Batch.of(batch.x)
    assert medium.picture(bare, data.spec).size == one.size
    for wrong in ({"columns": 0}, {}):
        with pytest.raises(CastaliaError):
            medium.picture(batch if wrong else batch[:0], data.spec, **wrong)


def test_what_is_counted() -> None:
    batch = paddles().batch(np.arange(6))
    still = replace(batch, x=batch.x[:, :1].expand_as(batch.x))
    assert (change(still) == 0).all()
    assert (change(batch) > 0).all()
    assert np.array_equal(lasted(batch), (batch.extra["dones"] == 0).sum(1).numpy())
    assert np.allclose(won(batch), batch.extra["rewards"].sum(1).numpy())
