"""Music: files, grids, rolls, tokens, sound, and what is counted of it."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import DataError, UsageError
from castalia.core.rng import BatchRng
from castalia.core.specs.music import DRUMS, FIRST, NOTHING, OFF, MusicSpec
from castalia.media.base import Work
from castalia.media.music import grid, measures
from castalia.media.music.encodings import encoding_of, size_for
from castalia.media.music.likeness import class_heard
from castalia.media.music.medium import MusicMedium
from castalia.media.music.midi import midi_bytes, read_midi
from castalia.media.music.pieces import Events, Grids, Rolls
from castalia.media.music.read import MusicOptions, open_music, values_of
from castalia.media.music.render import additive, render, soundfont
from castalia.media.music.score import Score
from castalia.media.music.scores import scores_of
from castalia.media.music.sets import SETS, tune, tunes
from castalia.media.named import open_data
from tests.tools import Table

VOICE = MusicSpec("voices", 16, 4, 16, ("melody",), (0,), 48, 84)


def piece(seed: int = 0, bass: bool = True) -> Score:
    return tune(np.random.default_rng(seed), bass=bass)


# files


def test_midi_comes_back_as_it_was_written() -> None:
    score = piece()
    back = read_midi(midi_bytes(score), "x")
    assert np.array_equal(back.rows()[:, :6], score.rows()[:, :6])
    assert back.tempo == pytest.approx(score.tempo, rel=1e-5)
    assert back.meters == score.meters


def test_no_note_hangs() -> None:
    """Equal notes that overlap: the first ends where the second begins, and every on has an off."""
    score = Score.of([(0, 10, 60, 90, 0, 0, 0), (4, 2, 60, 80, 0, 0, 0), (4, 3, 64, 80, 0, 0, 0)], 4)
    data = midi_bytes(score)
    assert data.count(bytes([0x90, 60])) == data.count(bytes([0x80, 60])) == 2
    back = read_midi(data, "x")
    assert back.rows()[:, :3].tolist() == [[0, 4, 60], [4, 2, 60], [4, 3, 64]]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"RIFF....", "not a MIDI file"),
        (b"MThd" + struct.pack(">IHHH", 6, 1, 0, 480), "no notes"),
        (b"MThd" + struct.pack(">IHHH", 6, 1, 1, 0xE728), "frames of film"),
        (b"MThd" + bytes(4), ""),
        (b"", "not a MIDI file"),
    ],
)
def test_files_that_are_none_are_named(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"song.mid.*{words}"):
        read_midi(data, "song.mid")


def test_every_cut_of_a_file_is_read_or_refused() -> None:
    whole = midi_bytes(piece())
    for size in range(0, len(whole), 37):
        with contextlib.suppress(DataError):  # and nothing else
            assert len(read_midi(whole[:size], "cut.mid"))


def folder(tmp_path: Path, count: int = 12) -> Path:
    for i in range(count):
        place = tmp_path / "songs" / ("slow" if i % 2 else "fast") / f"{i}.mid"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(midi_bytes(piece(i)))
    return tmp_path / "songs"


def test_folders_are_classes_and_a_tenth_is_held_out(tmp_path: Path) -> None:
    songs = folder(tmp_path, 40)
    train, test, whole = (open_music(songs, MusicOptions(), split=split) for split in ("train", "test", None))
    assert train.spec.classes == ("fast", "slow")  # type: ignore[attr-defined]
    assert len(train) + len(test) == len(whole)
    names = {name.split("#")[0] for name in train.files}
    assert not names & {name.split("#")[0] for name in test.files}
    assert train.labels is not None
    assert [name.startswith("slow") for name in train.files] == [bool(v) for v in train.labels.tolist()]


def test_zips_broken_files_and_what_is_left_out(tmp_path: Path) -> None:
    songs = folder(tmp_path)
    (songs / "fast" / "0.mid").write_bytes(b"no")
    with pytest.raises(DataError, match=r"0\.mid"):
        open_music(songs, MusicOptions())
    data = open_music(songs, MusicOptions(on_bad_file="skip"))
    assert "Skipped 1 files" in " ".join(data.notes)
    with pytest.raises(DataError, match="not all their bars have 12 steps"):
        open_music(songs, MusicOptions(bar=12, on_bad_file="skip"))
    packed = tmp_path / "songs.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("a.mid", midi_bytes(piece()))
    assert MusicMedium().reads(packed)
    assert len(open_music(packed, MusicOptions(length=64))) == 4


# grids


def test_a_grid_is_its_score_and_back() -> None:
    data = tunes("test", MusicOptions(length=64, voices="trio"))
    batch = data.batch(np.arange(0, 40, 4))
    for row, score in zip(batch.x.numpy(), scores_of(batch, data.spec), strict=True):
        assert np.array_equal(values_of(score, data.spec), row)


def test_voices_take_the_highest_note_and_fold_by_octaves() -> None:
    score = Score.of([(0, 4, 60, 90, 0, 0, 0), (0, 8, 72, 90, 0, 0, 0), (8, 2, 30, 90, 0, 0, 0)], 4)
    line = grid.voice_of(score, VOICE, 16)
    assert line[0] == FIRST + 72 - 48
    assert line[8] == FIRST + 54 - 48  # two octaves up
    assert line[10] == OFF
    assert (np.delete(line, [0, 8, 10]) == NOTHING).all()
    assert grid.pitches(line, VOICE).tolist() == [72] * 8 + [54] * 2 + [-1] * 6
    assert np.array_equal(grid.line_of(grid.pitches(line, VOICE), VOICE), line)


def test_a_window_strikes_what_sounds_on() -> None:
    score = Score.of([(12, 8, 60, 90, 0, 0, 0)], 4)
    whole = grid.voice_of(score, VOICE, 32)[:, None]
    assert grid.struck_at(whole, 16, VOICE).tolist() == [FIRST + 12]
    assert grid.struck_at(whole, 0, VOICE).tolist() == [NOTHING]


def test_transposition_keeps_intervals_and_the_range() -> None:
    data = tunes("test", MusicOptions(length=32, transpose=12, lowest=45, highest=80))
    assert isinstance(data, Grids)
    ids = np.arange(64)
    plain, moved = data.batch(ids).x, data.batch(ids, BatchRng(0, total=64)).x
    assert not torch.equal(plain, moved)
    assert int(moved.max()) < data.spec.sizes[0]
    struck = plain >= FIRST
    assert torch.equal(struck, moved >= FIRST)
    assert torch.equal(plain[~struck], moved[~struck])
    for a, b, at in zip(plain, moved, struck, strict=True):
        assert len((b[at] - a[at]).unique()) == 1


def test_rolls_hold_several_notes_and_come_back() -> None:
    spec = MusicSpec("rolls", 16, 4, 16, ("voice 1", DRUMS), (0, 0), 36, 84)
    score = Score.of([(0, 4, 60, 90, 0, 0, 0), (0, 8, 64, 90, 0, 0, 0), (2, 1, 38, 90, 0, 1, 1)], 4)
    x = values_of(score, spec)
    assert x.shape == (2, 16, 49)
    assert x.sum() == 13
    back = grid.score_of_rolls(x, spec)
    assert back.rows()[:, [0, 1, 2, 5]].tolist() == [[0, 4, 60, 0], [0, 8, 64, 0], [2, 1, 38, 1]]
    data = tunes("test", MusicOptions(kind="rolls", voices="trio", length=32, transpose=3))
    assert isinstance(data, Rolls)
    plain, moved = data.batch(np.arange(8)).x, data.batch(np.arange(8), BatchRng(0, total=8)).x
    assert torch.equal(plain.sum((2, 3)), moved.sum((2, 3)))
    assert torch.equal(plain[:, 2], moved[:, 2])  # drums stay


# tokens


def spec_of(encoding: str, steps: int = 12) -> MusicSpec:
    more: dict[str, object] = {"instruments": ("piano", "bass", DRUMS), "loudness": (60, 90, 100)}
    if encoding == "cells":
        more = {"voices": ("a", "b"), "programs": (0, 32)}
    elif encoding != "musenet":
        more = {}
    bare = MusicSpec("events", 64, steps, 4 * steps, encoding=encoding, size=1, **more)  # type: ignore[arg-type]
    return MusicSpec(**{**bare.__dict__, "size": size_for(bare)})


@pytest.mark.parametrize("encoding", ["musenet", "remi", "tsd", "structured"])
def test_tokens_come_back_exactly(encoding: str) -> None:
    """After what an encoding cannot hold is taken away, nothing is lost."""
    coder = encoding_of(spec_of(encoding))
    for seed in range(6):
        score = piece(seed)
        ready, tokens = coder.prepare(score), coder.encode(score)
        back = coder.decode(tokens)
        assert np.array_equal(ready.rows()[:, :6], back.rows()[:, :6])
        assert np.array_equal(coder.encode(back), tokens)
        assert tokens.min() >= 0
        assert tokens.max() < coder.events


def test_cells_hold_a_grid() -> None:
    coder = encoding_of(spec_of("cells", steps=4))
    sung = piece().some(~piece().drum)
    back = coder.decode(coder.encode(sung))
    assert np.array_equal(coder.encode(back), coder.encode(sung))
    assert len(coder.encode(sung)) == 2 * 64


@pytest.mark.parametrize("encoding", ["musenet", "cells"])
def test_moments_are_the_steps_that_passed(encoding: str) -> None:
    spec = spec_of(encoding, steps=4)
    coder = encoding_of(spec)
    tokens = coder.encode(piece())
    row = torch.cat([torch.full((spec.head,), spec.end + 1), torch.from_numpy(tokens)])[None]
    assert spec.moments(row)[0, spec.head :].tolist() == coder.times(tokens).tolist()


def test_any_tokens_at_all_give_a_score_without_hanging_notes() -> None:
    spec = spec_of("musenet")
    coder, random = encoding_of(spec), np.random.default_rng(0)
    for _ in range(20):
        score = coder.decode(random.integers(0, spec.size, 200))
        assert (score.length > 0).all()
        read_midi(midi_bytes(score), "x")


def test_rows_have_heads_windows_and_ends() -> None:
    options = MusicOptions(kind="events", voices="trio", length=40, loudness=1)
    data = tunes("test", options)
    assert isinstance(data, Events)
    spec = data.spec
    batch = data.batch(np.arange(len(data)))
    first = [int(name.split("#")[1]) == 0 for name in data.files]
    assert batch.x[:, spec.head - 1].tolist() == [spec.end + (1 if f else 2) for f in first]
    assert (batch.x[:, : spec.head] > spec.end).all()
    assert (batch.x[:, spec.head :] <= spec.end).all()
    assert int((batch.x == spec.end).sum()) == SETS["tunes"].counts["test"]
    assert batch.extra["begun"][torch.tensor(first)].sum() == 0
    assert (batch.extra["begun"] <= batch.extra["whole"]).all()
    whole = np.concatenate([row[spec.head :][row[spec.head :] >= 0] for row in batch.x.numpy()[:3]])
    assert np.array_equal(whole[: len(whole)], data._rows[0][: len(whole)])
    moved = data.batch(np.arange(8), BatchRng(0, total=8))
    assert moved.x.shape[1] == spec.head + spec.length


# sets


@pytest.mark.parametrize(("name", "files"), [("jsb-chorales", 229), ("nottingham", 941), ("asap-scores", 212)])
def test_named_sets_have_what_they_say(name: str, files: int, castalia_data: Path) -> None:
    options = MusicOptions(kind="events", length=512, bar=0)
    data = open_data(name, options, "train")
    assert len({f.split("#")[0] for f in data.files}) == files == SETS[name].counts["train"]


def test_four_encodings_on_real_scores(castalia_data: Path) -> None:
    with zipfile.ZipFile(castalia_data / "asap-scores" / "midi.zip") as file:
        names = [name for name in file.namelist() if name.endswith(".mid")][:12]
        scores = [read_midi(file.read(name), name) for name in names]
    for encoding in ("musenet", "remi", "tsd", "structured"):
        coder = encoding_of(spec_of(encoding))
        for score in scores:
            ready, back = coder.prepare(score), coder.decode(coder.encode(score))
            assert np.array_equal(ready.rows()[:, :6], back.rows()[:, :6]), encoding


# sound, words, counts


def test_a_note_sounds_at_its_pitch() -> None:
    sound = additive(Score.of([(0, 8, 69, 100, 0, 0, 0)], 4, 120.0), 22_050)[0]
    assert np.abs(sound).max() <= 0.8 + 1e-6
    spectrum = np.abs(np.fft.rfft(sound[:22_050]))
    assert abs(int(spectrum.argmax()) - 440) <= 2
    assert np.abs(additive(Score.of([], 4), 8_000)).max() == 0


def test_fluidsynth_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    soundfont.cache_clear()
    monkeypatch.setenv("CASTALIA_SOUNDFONT", "/nowhere.sf2")
    assert soundfont() is None
    with pytest.raises(RuntimeError, match="CASTALIA_SOUNDFONT"):
        render(piece(), synthesiser="fluidsynth")
    assert render(piece()).shape[0] == 1
    monkeypatch.undo()
    soundfont.cache_clear()
    if soundfont() is None:
        pytest.skip("FluidSynth with a soundfont is not installed: only our own synthesiser was tried")
    one, two = (render(piece(), synthesiser="fluidsynth") for _ in range(2))
    assert np.array_equal(one, two)
    assert np.abs(one).max() > 0.01


def test_notes_can_be_typed() -> None:
    medium = MusicMedium()
    x = medium.read("C4:4 r:4 F#4:2 Bb3", VOICE)
    assert x[:, 0].tolist()[:11] == [FIRST + 12, 0, 0, 0, OFF, 0, 0, 0, FIRST + 18, 0, FIRST + 10]
    for wrong in ("", "H", "C4:0", "C12:4", "hello"):
        with pytest.raises(UsageError):
            medium.read(wrong, VOICE)


def test_files_are_written_with_their_sound(tmp_path: Path) -> None:
    data = tunes("test", MusicOptions(length=32))
    paths = MusicMedium().write(data.batch(np.arange(2)), data.spec, tmp_path, 3, {"seed": 1})
    assert [path.name for path in paths] == ["0003.mid", "0004.mid"]
    assert (tmp_path / "0003.wav").read_bytes()[:4] == b"RIFF"
    assert '"index": 3' in (tmp_path / "0003.json").read_text()
    back = MusicMedium().read_file(paths[0], data.spec)
    assert torch.equal(back, data.batch(np.array([0])).x[0])


def test_what_is_counted() -> None:
    rows = [(0, 4, 60, 90, 0, 0, 0), (4, 4, 62, 90, 0, 0, 0), (8, 8, 64, 90, 0, 0, 0), (48, 16, 61, 90, 0, 0, 1)]
    score = Score.of(rows, 4)
    assert measures.notes_per_bar(score, 16) == 1.0
    assert measures.empty_bars(score, 16) == 0.5
    assert measures.pitch_classes(score, 16) == 2.0
    assert measures.in_scale(score) == 0.75
    assert measures.qualified(score, 16) == 1.0
    assert measures.entropy(score) == pytest.approx(2.0)
    assert np.isnan(measures.tonal_distance(score, 16))  # the tracks never sound together
    apart = Score.of([(0, 8, 60, 90, 0, 0, 0), (0, 8, 60, 90, 0, 0, 1)], 4)
    assert measures.tonal_distance(apart, 16) == pytest.approx(0, abs=1e-12)
    # C and F# lie opposite in fifths and thirds, and together in major thirds
    far = Score.of([(0, 8, 60, 90, 0, 0, 0), (0, 8, 66, 90, 0, 0, 1)], 4)
    assert measures.tonal_distance(far, 16) == pytest.approx(np.sqrt(8), abs=1e-9)


def test_composers_are_recognised_by_their_notes() -> None:
    """One writes slow scales, another quick leaps; whoever is asked for the one and writes the other is found out."""
    spec = MusicSpec("voices", 16, 4, 16, ("melody",), (0,), 48, 84, classes=("slow", "quick"))
    random = np.random.default_rng(0)

    def write(quick: bool) -> np.ndarray:
        notes = (0, 2, 4, 5, 7, 9, 11, 12)
        steps = range(0, 16, 1 if quick else 4)
        first = random.integers(0, 8)
        pitches = [48 + notes[random.integers(8)] + 12 * random.integers(3) for _ in steps]
        if not quick:
            pitches = [60 + notes[(first + i) % 8] for i in range(len(steps))]
        rows = [(at, steps.step, p, 90, 0, 0, 0) for at, p in zip(steps, pitches, strict=True)]
        return grid.voice_of(Score.of(rows, 4), spec, 16)[:, None]

    def table(n: int) -> Table:
        labels = torch.arange(n) % 2
        return Table(torch.from_numpy(np.stack([write(bool(c)) for c in labels])), spec, labels)

    train, held_out = table(60), table(20)
    right = held_out.batch(np.arange(20))
    found = class_heard(Work(spec, right, train, held_out))
    assert found["class_recognised"].value == found["class_recognised_floor"].value == 1
    assert "0.500 by the commonest" in found["class_recognised"].detail
    swapped = Batch.of(right.x, 1 - right.label)
    assert class_heard(Work(spec, swapped, train, held_out))["class_recognised"].value == 0
    silent = Batch.of(torch.full_like(right.x, NOTHING), right.label)
    assert class_heard(Work(spec, silent, train, held_out))["class_recognised"].value == 0.5
    # a listener that cannot tell real music apart says nothing of samples
    mixed = Table(train.x, spec, torch.from_numpy(random.permutation(train.labels.numpy())))
    assert class_heard(Work(spec, right, mixed, held_out)) == {}


@pytest.mark.parametrize(
    "wrong",
    [{"length": 0}, {"lowest": 60, "highest": 61}, {"encoding": "abc"}, {"loudness": 0}, {"labels": "x"}, {"hop": 0}],
)
def test_options_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        MusicOptions(**wrong)  # type: ignore[arg-type]


def test_empty_pieces_are_refused() -> None:
    with pytest.raises(DataError, match="no piece"):
        Grids([], VOICE, name="nothing")
    batch = Batch.of(torch.zeros(1, 16, 1, dtype=torch.int64))
    assert len(scores_of(batch, VOICE)[0]) == 0
    assert MusicMedium().picture(batch, VOICE).size[0] > 0
    assert io.BytesIO(midi_bytes(scores_of(batch, VOICE)[0])).read(4) == b"MThd"
