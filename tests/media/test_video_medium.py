"""Video as a medium: films in and out, windows, classes, splits, bad files, and what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from castalia.core.data import Batch
from castalia.core.errors import DataError, UsageError
from castalia.core.specs.video import VideoSpec
from castalia.media.base import Work
from castalia.media.episode.shards import Episode, write_episode
from castalia.media.named import medium_for
from castalia.media.rooms import medium_of
from castalia.media.video import read
from castalia.media.video.measures import MEASURES, centred, changes
from castalia.media.video.medium import VideoMedium
from castalia.media.video.read import VideoOptions, open_video
from castalia.media.video.sets import FEW, MOVING, open_set, path


def film(where: Path, frames: int = 10, size: tuple[int, int] = (24, 16), first: int = 0) -> Path:
    """A GIF whose frame t is grey of 10 (t + first)."""
    where.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.new("L", size, 10 * (t + first)) for t in range(frames)]
    images[0].save(where, save_all=True, append_images=images[1:], duration=50, loop=0)
    return where


def test_a_film_is_cut_into_windows(tmp_path: Path) -> None:
    film(tmp_path / "a.gif", frames=10)
    data = open_video(tmp_path / "a.gif", VideoOptions(size=8, frames=4, hop=3, channels=1))
    assert data.spec == VideoSpec(1, 4, 8, 8, 20.0)
    assert data.files == ("a.gif#0", "a.gif#3", "a.gif#6")
    seen = data.batch(np.arange(3)).x[:, :, 0, 4, 4]
    assert (seen.float() - 10 * torch.tensor([[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]])).abs().max() <= 1
    every = open_video(tmp_path / "a.gif", VideoOptions(size=8, frames=4, every=2, hop=1, channels=1))
    assert (every.batch(np.arange(1)).x[0, :, 0, 4, 4].float() - torch.tensor([0.0, 20, 40, 60])).abs().max() <= 1
    assert every.spec.fps == 10.0


def episode(where: Path, steps: int, channels: int = 3) -> Path:
    """An episode whose frame t is grey of 10 t."""
    frames = np.repeat(10 * np.arange(steps, dtype=np.uint8), 12 * 16 * channels).reshape(steps, 12, 16, channels)
    write_episode(
        where, Episode(frames, np.zeros((steps, 2), np.float32), np.zeros(steps, np.float32), False, {"fps": 30})
    )
    return where


def test_episodes_are_clips_where_a_system_of_video_asks(tmp_path: Path) -> None:
    for number in range(12):
        episode(tmp_path / f"{number:05d}.npz", 9, 1 if number == 3 else 3)
    assert medium_for(str(tmp_path)).name == "episode"
    assert medium_for(str(tmp_path), ("video",)).name == "video"
    data = open_video(tmp_path, VideoOptions(size=8, frames=4, hop=5), split="train")
    assert data.spec.shape == (4, 3, 8, 8)
    assert data.spec.fps == 30.0
    assert data.files[:2] == ("00000.npz#0", "00000.npz#5")
    assert data.batch(np.arange(2)).x[:, :, 0, 4, 4].tolist() == [[0, 10, 20, 30], [50, 60, 70, 80]]
    # a prompt
    clip = VideoMedium().read_file(tmp_path / "00003.npz", VideoSpec(1, 3, 8, 8, 30.0))
    assert clip[:, 0, 0, 0].tolist() == [0, 10, 20]
    # what was drawn of episodes has a film beside each: then the films are read
    film(tmp_path / "a.gif", frames=5)
    assert open_video(tmp_path, VideoOptions(size=8, frames=4)).files == ("a.gif#0",)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(DataError, match=r"bad\.npz"):
        open_video(tmp_path / "bad.npz", VideoOptions())


def test_prompts_go_at_the_pace_of_the_run(tmp_path: Path) -> None:
    film(tmp_path / "a.gif", frames=9)  # 20 frames a second
    clip = VideoMedium().read_file(tmp_path / "a.gif", VideoSpec(1, 4, 8, 8, 10.0))
    assert (clip[:, 0, 4, 4].float() - torch.tensor([0.0, 20, 40, 60])).abs().max() <= 1


def test_what_is_left_out_of_long_films_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MOST_FRAMES", 6)
    film(tmp_path / "a.gif", frames=9)
    data = open_video(tmp_path, VideoOptions(size=8, frames=4, hop=1))
    assert len(data) == 3
    assert "only so many are read" in " ".join(data.notes)


def test_short_films_hold_their_last_frame_and_that_is_said(tmp_path: Path) -> None:
    film(tmp_path / "a.gif", frames=3)
    data = open_video(tmp_path, VideoOptions(size=8, frames=5, channels=1))
    assert "last one is held" in " ".join(data.notes)
    assert len({int(v) for v in data.batch(np.arange(1)).x[0, 2:, 0, 4, 4]}) == 1


def test_folders_are_classes_and_a_tenth_is_set_aside(tmp_path: Path) -> None:
    for kind in ("up", "down"):
        for i in range(10):
            film(tmp_path / kind / f"{i}.gif", frames=4, first=i)
    options = VideoOptions(size=8, frames=4, channels=1)
    train, test = (open_video(tmp_path, options, split=split) for split in ("train", "test"))
    assert train.spec.classes == ("down", "up")
    assert len(train) + len(test) == 20
    assert not set(train.files) & set(test.files)
    assert train.batch(np.arange(2)).label is not None


def test_bad_files_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    film(tmp_path / "good.gif", frames=4)
    (tmp_path / "bad.gif").write_bytes(b"GIF89a" + bytes(40))
    options = VideoOptions(size=8, frames=4, channels=1)
    with pytest.raises(DataError, match=r"bad\.gif.*--on-bad-file skip"):
        open_video(tmp_path, options)
    skipped = open_video(tmp_path, VideoOptions(size=8, frames=4, channels=1, on_bad_file="skip"))
    assert len(skipped) == 1
    assert any("left out" in note for note in skipped.notes)
    for wrong in ({"size": 2}, {"frames": 1}, {"hop": 0}, {"labels": "x"}):
        with pytest.raises(UsageError):
            VideoOptions(**wrong)  # type: ignore[arg-type]


def test_clips_are_written_as_gif_and_read_back(tmp_path: Path) -> None:
    data = open_set(FEW, "test")
    medium = medium_of(data.spec)
    assert isinstance(medium, VideoMedium)
    batch = data.batch(np.arange(2))
    written = medium.write(batch, data.spec, tmp_path / "out", recipe={"seed": 1})
    assert [p.name for p in written] == ["0000.gif", "0001.gif"]
    assert written[0].with_suffix(".json").exists()
    back = medium.read_file(written[0], data.spec)
    assert back.shape == data.spec.shape
    # a GIF is enlarged with hard edges; shrinking it again smooths them, but bright stays bright, frame by frame: also
    # where two are alike, which a GIF keeps once
    for mine, theirs in zip(back, batch.x[0], strict=True):
        both = torch.stack([mine.float().flatten(), theirs.float().flatten()])
        assert float(torch.corrcoef(both)[0, 1]) > 0.95
    assert medium.reads(written[0])
    assert medium.reads(tmp_path / "out")
    assert medium.picture(batch, data.spec).size[0] > medium.picture(batch, data.spec).size[1]
    assert medium.film(batch, data.spec).shape == (8, 1, 12, 12)


def test_digits_move_at_even_speed_and_bounce() -> None:
    for seed in range(20):
        places = path(np.random.Generator(np.random.Philox(seed)), 16, 16, 2)
        assert all(0 <= v <= 16 for place in places for v in place)
        steps = np.abs(np.diff(np.array(places), axis=0))
        assert steps.max() <= 4  # at most 3 pixels a frame, rounded
    data = open_set(MOVING, "test")
    assert data.spec == VideoSpec(1, 16, 32, 32, 10.0, tuple(map(str, range(10))))
    batch = data.batch(np.arange(20))
    mass = batch.x.float().sum((2, 3, 4))
    assert torch.equal(mass, mass[:, :1].expand_as(mass))  # the same digit in every frame
    assert open_set(FEW, "train").fingerprint != open_set(FEW, "test").fingerprint


def test_what_is_measured() -> None:
    train, held_out = open_set(FEW, "train"), open_set(FEW, "test")
    batch = held_out.batch(np.arange(60))
    still = Batch.of(batch.x[:, :1].expand_as(batch.x).contiguous(), batch.label)
    assert float(changes(still.x).max()) == 0
    found = {n: MEASURES[0].run(Work(train.spec, b, train, held_out)) for n, b in (("real", batch), ("still", still))}
    assert found["real"]["video_change"].value == found["real"]["video_change_floor"].value > 0
    assert found["still"]["video_change"].value == 0
    assert found["real"]["video_recognised"].value > 0.6
    assert found["real"]["video_frechet"].value < found["still"]["video_frechet"].value
    moved = torch.zeros(1, 2, 1, 16, 16, dtype=torch.uint8)
    moved[..., 2:5, 3:6] = 200
    assert centred(moved).reshape(16, 16)[7:10, 7:10].min() > 0.7
