"""Reading sound: formats, rates, channels, labels, splits, and what is wrong with a file."""

from __future__ import annotations

import io
import os
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from castalia.core.config import from_json, to_json
from castalia.core.data import join
from castalia.core.errors import DataError, MissingExtra, UsageError
from castalia.core.rng import BatchRng
from castalia.core.specs.audio import AudioSpec
from castalia.media.audio import clips, decode
from castalia.media.audio.clips import AudioClips, Pack
from castalia.media.audio.decode import AudioOptions
from castalia.media.audio.medium import AudioMedium
from castalia.media.audio.read import open_audio

soundfile = pytest.importorskip("soundfile")


def tone(seconds=0.1, rate=8000, pitch=200.0, channels=1, gain=0.5):
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([gain * np.sin(2 * np.pi * pitch * (c + 1) * t) for c in range(channels)], 1)


def encoded(x, rate=8000, kind="WAV", subtype=None):
    out = io.BytesIO()
    soundfile.write(out, x, rate, format=kind, subtype=subtype)
    return out.getvalue()


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        *[("WAV", "PCM_16", 4e-5), ("WAV", "FLOAT", 2e-5), ("WAV", "PCM_U8", 9e-3), ("FLAC", None, 4e-5)],
        *[("OGG", None, 0.05), ("MP3", None, 0.05)],
    ],
)
def test_formats_hold_what_was_written(tmp_path, kind, subtype, tolerance):
    x = tone(0.5, rate=16000)
    path = folder(tmp_path, {f"x.{kind.lower()}": encoded(x, 16000, kind, subtype)}) / f"x.{kind.lower()}"
    data = open_audio(path, AudioOptions())
    assert data.spec == AudioSpec(16000, 1, 16000)
    found = data.clip(0)[:, 0] / 32768
    assert len(data) == 1
    assert abs(len(found) - len(x)) <= (1200 if kind == "MP3" else 0)  # MP3 has whole frames of 1,152 samples
    middle = slice(2000, 6000)
    assert np.abs(found[middle] - x[middle, 0]).max() < tolerance


def test_sixteen_bits_are_kept_exactly(tmp_path):
    pcm = np.random.default_rng(0).integers(-32768, 32768, (500, 2)).astype(np.int16)
    data = open_audio(folder(tmp_path, {"x.wav": encoded(pcm, 22050)}), AudioOptions())
    assert data.spec.channels == 2
    assert np.array_equal(data.clip(0), pcm)
    assert np.array_equal(data.batch(np.array([0])).x[0].numpy() * 32768, pcm.T)


def test_resampling_keeps_a_tone_and_says_so(tmp_path):
    from castalia.media.audio.hearing import pitch

    files = {"a.wav": encoded(tone(1, 44100), 44100), "b.wav": encoded(tone(1, 8000), 8000)}
    data = open_audio(folder(tmp_path, files), AudioOptions(rate=8000))
    assert data.lengths.tolist() == pytest.approx([8000, 8000], abs=2)
    assert any("1 files were resampled to 8000" in note for note in data.notes)
    a, b = (data.clip(i)[:8000, 0] / 32768 for i in range(2))
    assert pitch(a, 8000) == pytest.approx(200, rel=0.02)
    assert np.abs(a[500:7500] - b[500:7500]).max() < 0.01


def test_rates_that_differ_need_a_choice(tmp_path):
    root = folder(tmp_path, {"a.wav": encoded(tone(), 8000), "b.wav": encoded(tone(), 16000)})
    with pytest.raises(DataError, match=r"differ in rate.*8000, 16000"):
        open_audio(root, AudioOptions())


def test_channels_are_mixed_and_doubled(tmp_path):
    root = folder(tmp_path, {"a.wav": encoded(tone(channels=2)), "b.wav": encoded(tone(channels=1))})
    stereo = open_audio(root, AudioOptions())
    assert stereo.spec.channels == 2
    assert np.array_equal(stereo.clip(1)[:, 0], stereo.clip(1)[:, 1])
    mono = open_audio(root, AudioOptions(channels=1))
    mean = stereo.clip(0).astype(float).mean(1)
    assert np.abs(mono.clip(0)[:, 0] - mean).max() <= 1
    four = folder(tmp_path / "four", {"a.wav": encoded(tone(channels=4))})
    with pytest.raises(DataError, match="4 channels"):
        open_audio(four, AudioOptions())
    assert open_audio(four, AudioOptions(channels=1)).spec.channels == 1


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_class_folders_and_own_splits(tmp_path, kind):
    names = ["train/dog/1", "train/cat/1", "train/cat/2", "test/dog/3", "test/eel/1"]
    files = {f"set/{name}.wav": encoded(tone(0.05 + i / 100)) for i, name in enumerate(names)}
    path = folder(tmp_path / "x", files) if kind == "folder" else zipped(tmp_path / "x.zip", files)
    train, test = (open_audio(path, AudioOptions(), split=split) for split in ("train", "test"))
    assert train.spec.classes == test.spec.classes == ("cat", "dog", "eel")
    assert train.labels.tolist() == [0, 0, 1]
    assert test.labels.tolist() == [1, 2]
    assert train.files == ("set/train/cat/1.wav", "set/train/cat/2.wav", "set/train/dog/1.wav")
    assert any("left out: test" in note for note in open_audio(path, AudioOptions()).notes)
    with pytest.raises(DataError, match="no split 'validation'"):
        open_audio(path, AudioOptions(), split="validation")


def test_patterns_name_the_class(tmp_path):
    names = ["7_ann_0", "7_bob_0", "10_ann_1"]
    root = folder(tmp_path, {f"{name}.wav": encoded(tone()) for name in names})
    words = open_audio(root, AudioOptions(labels="{label}_*"))
    assert words.spec.classes == ("7", "10")  # by value
    assert words.labels.tolist() == [1, 0, 0]
    speakers = open_audio(root, AudioOptions(labels="*_{label}_*"))
    assert speakers.spec.classes == ("ann", "bob")
    assert open_audio(root, AudioOptions(labels="none")).labels is None
    assert open_audio(root, AudioOptions()).labels is None
    with pytest.raises(DataError, match="does not fit the pattern"):
        open_audio(root, AudioOptions(labels="{label}-*"))


def test_without_splits_a_tenth_is_held_out_by_name(tmp_path):
    files = {f"{i}.wav": encoded(tone(0.02)) for i in range(40)}
    root = folder(tmp_path, files)
    train, test, whole = (open_audio(root, AudioOptions(), split=s) for s in ("train", "test", None))
    assert not set(train.files) & set(test.files)
    assert sorted(train.files + test.files) == sorted(whole.files)
    folder(tmp_path, {f"more{i}.wav": encoded(tone(0.02)) for i in range(40)})
    assert set(test.files) <= set(open_audio(root, AudioOptions(), split="test").files)


def test_long_recordings_are_cut_and_split_by_pieces(tmp_path):
    root = folder(tmp_path, {"hour.wav": encoded(tone(8.25))})
    whole = open_audio(root, AudioOptions(cut=0.25))
    assert len(whole) == 33
    assert set(whole.lengths.tolist()) == {2000}
    assert any("cut into pieces of 0.25 seconds" in note for note in whole.notes)
    train, test = (open_audio(root, AudioOptions(cut=0.25), split=s) for s in ("train", "test"))
    assert len(train) + len(test) == 33
    assert len(test) >= 1
    assert np.array_equal(test.clip(0), whole.clip(whole.files.index(test.files[0])))
    assert len(open_audio(root, AudioOptions(cut=0))) == 1


def test_trimming_says_what_it_dropped(tmp_path):
    quiet, loud = np.zeros((800, 1)), tone(0.1)
    root = folder(tmp_path, {"a.wav": encoded(np.concatenate([quiet, loud, quiet])), "b.wav": encoded(quiet)})
    kept = open_audio(root, AudioOptions(trim=40))
    assert kept.lengths.tolist() == [800]
    assert any("dropped 0.3 of 0.4 seconds (75.0 %)" in note for note in kept.notes)
    assert any("1 files that are silent" in note for note in kept.notes)
    assert open_audio(root, AudioOptions()).lengths.tolist() == [2400, 800]


def test_damaged_files_are_named_or_skipped(tmp_path):
    good = encoded(tone(), kind="FLAC")
    root = folder(tmp_path, {"a/ok.flac": good, "a/cut.flac": good[: len(good) // 2], "b/text.wav": b"no sound" * 40})
    with pytest.raises(DataError, match=r"text\.wav: not a sound file"):
        open_audio(root, AudioOptions())
    data = open_audio(root, AudioOptions(on_bad_file="skip"))
    assert data.files == ("a/ok.flac",)
    assert any("Skipped 2 files" in note and "cut.flac" in note for note in data.notes)
    (root / "a/ok.flac").unlink()
    with pytest.raises(DataError, match="none of its 2 sound files can be used"):
        open_audio(root, AudioOptions(on_bad_file="skip"))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.wav", lambda: b"", "not a sound file"),
        ("none.wav", lambda: encoded(np.zeros((0, 1))), "holds no sound"),
        ("nan.wav", lambda: encoded(np.full((64, 1), np.nan), subtype="FLOAT"), "not finite"),
        ("odd.wav", lambda: encoded(tone(), kind="AIFF"), "AIFF"),
        ("slow.wav", lambda: encoded(tone(), rate=300), "300 samples a second"),
        ("long.wav", lambda: encoded(tone(2)), "more than max_seconds"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, data, words):
    path = folder(tmp_path, {name: data()}) / name
    with pytest.raises(DataError, match=words) as caught:
        open_audio(path, AudioOptions(max_seconds=1))
    assert name in str(caught.value)


def test_of_a_wav_that_ends_early_there_is_what_there_is(tmp_path):
    whole = encoded(tone(1))
    path = folder(tmp_path, {"x.wav": whole[: len(whole) // 2]}) / "x.wav"
    assert open_audio(path, AudioOptions()).lengths[0] <= 4000


def test_nothing_but_plain_files(tmp_path):
    folder(tmp_path, {"a.wav": encoded(tone())})
    os.mkfifo(tmp_path / "pipe.wav")
    data = open_audio(tmp_path, AudioOptions())
    assert data.files == ("a.wav",)
    with pytest.raises(DataError, match="neither a file nor a folder"):
        open_audio(tmp_path / "pipe.wav", AudioOptions())
    with pytest.raises(DataError, match="does not exist"):
        open_audio(tmp_path / "nothing", AudioOptions())
    with pytest.raises(DataError, match="points outside"):
        open_audio(zipped(tmp_path / "x.zip", {"../a.wav": encoded(tone())}), AudioOptions())
    with pytest.raises(DataError, match="no sound files"):
        open_audio(folder(tmp_path / "texts", {"a.txt": b"x"}), AudioOptions())


def test_what_the_medium_reads(tmp_path):
    medium = AudioMedium()
    root = folder(tmp_path / "x", {"a.wav": encoded(tone())})
    assert medium.reads(root)
    assert medium.reads(root / "a.wav")
    assert medium.reads(zipped(tmp_path / "x.zip", {"d/a.flac": encoded(tone(), kind="FLAC")}))
    assert not medium.reads(zipped(tmp_path / "y.zip", {"a.png": b"x"}))
    assert not medium.reads(folder(tmp_path / "y", {"a.png": b"x"}))
    assert not medium.reads(tmp_path / "x.csv")


def test_like_the_data_of_a_run(tmp_path):
    root = folder(tmp_path, {"b/1.wav": encoded(tone(0.2, 16000, channels=2), 16000)})
    like = AudioSpec(8000, 1, 777, ("a", "b"))
    data = open_audio(folder(tmp_path, {"a/1.wav": encoded(tone())}), AudioOptions(), like=like)
    assert data.spec == like
    assert data.labels.tolist() == [0, 1]
    assert data.lengths.tolist() == pytest.approx([800, 1600], abs=2)
    folder(root, {"c/1.wav": encoded(tone())})
    with pytest.raises(DataError, match="'c' is not one of the run's"):
        open_audio(root, AudioOptions(), like=like)
    assert open_audio(root, AudioOptions(), like=AudioSpec(8000, 1, 777)).labels is None


def test_crops_and_whole_clips():
    samples = np.arange(1000, dtype=np.int16)[:, None]
    data = AudioClips(samples, np.array([300, 320, 1000]), AudioSpec(8000, 1, 100), name="x")
    whole = data.batch(np.arange(3))
    assert whole.x.shape == (3, 1, 680)
    assert whole.extra["length"].tolist() == [300, 20, 680]
    assert (whole.x[1, 0, 20:] == 0).all()
    ids = np.repeat([0, 1, 2], 400)
    crops = data.batch(ids, BatchRng(0, total=1200))
    assert crops.x.shape == (1200, 1, 100)
    starts, lengths = crops.extra["start"].numpy(), crops.extra["length"].numpy()
    assert (lengths == np.where(ids == 1, 20, 100)).all()
    first = np.array([0, 300, 320])[ids] + starts
    assert np.array_equal(np.rint(crops.x[:, 0, 0].numpy() * 32768), first)
    mine = starts[ids == 2]
    assert mine.min() == 0
    assert mine.max() == 580
    assert 0.08 < (mine == 0).mean() < 0.2  # as often as a crop of 100 meets the beginning of 680 + 100
    assert len(np.unique(mine)) > 150
    again = data.batch(ids, BatchRng(0, total=1200))
    assert np.array_equal(again.x, crops.x)
    rows = data.batch(ids[600:], BatchRng(0, total=1200, start=600))
    assert np.array_equal(rows.x, crops.x[600:])


def test_batches_of_different_lengths_join():
    data = AudioMedium().tiny()
    parts = [data.batch(np.array([i])) for i in range(4)]
    whole = join(parts, data.spec)
    assert whole.x.shape[-1] == max(p.x.shape[-1] for p in parts)
    assert np.array_equal(whole.x, data.batch(np.arange(4)).x)
    assert whole.extra["length"].tolist() == data.lengths[:4].tolist()


def test_packs_beyond_the_memory_limit_are_the_same():
    rng = np.random.default_rng(0)
    parts = [rng.integers(-9, 9, 500).astype(np.int16) for _ in range(9)]
    small, large = Pack(), Pack(memory_limit=2000)
    for part in parts:
        small.append(part)
        large.append(part)
    assert not isinstance(large._file, io.BytesIO)
    found = large.array()
    assert np.array_equal(small.array(), np.concatenate(parts))
    assert np.array_equal(found, np.concatenate(parts))
    assert not found.flags.writeable


def test_options_survive_json_and_are_checked():
    for options in (AudioOptions(), AudioOptions(length=512), AudioOptions(length=0.5, labels="*_{label}", rate=8000)):
        assert from_json(AudioOptions, to_json(options)) == options
    assert AudioOptions(length=0.5).samples(8000) == 4000
    assert AudioOptions(length=512).samples(8000) == 512
    with pytest.raises(UsageError, match=r"write 1\.0 for seconds"):
        AudioOptions(length=1)
    for wrong in (
        {"rate": 10},
        {"channels": 3},
        {"labels": "x"},
        {"trim": 500.0},
        {"on_bad_file": "no"},
        {"length": -1.0},
    ):
        with pytest.raises(UsageError):
            AudioOptions(**wrong)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **more):
        if name in ("soundfile", "soxr"):
            raise ImportError(name)
        return real(name, *rest, **more)

    path = folder(tmp_path, {"x.wav": encoded(tone())}) / "x.wav"
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"castalia\[audio\]"):
        open_audio(path, AudioOptions())
    with pytest.raises(MissingExtra, match="16000"):
        decode._resampler(16000, 8000, 1)


def test_prompts_are_read_at_the_rate_of_the_run(tmp_path):
    medium = AudioMedium()
    path = folder(tmp_path, {"x.wav": encoded(tone(0.5, 16000), 16000)}) / "x.wav"
    x = medium.read_file(path, AudioSpec(8000, 1, 100))
    assert x.shape[0] == 1
    assert abs(x.shape[1] - 4000) <= 2
    with pytest.raises(UsageError, match="Give a file"):
        medium.read("la la", AudioSpec(8000, 1, 100))


def test_written_files_are_read_back_exactly(tmp_path):
    medium = AudioMedium()
    data = medium.tiny()
    batch = data.batch(np.arange(3))
    paths = medium.write(batch, data.spec, tmp_path / "out", start=5, recipe={"seed": 1})
    assert [p.name for p in paths] == ["0005.wav", "0006.wav", "0007.wav"]
    assert '"index": 6' in (tmp_path / "out/0006.json").read_text()
    with wave.open(str(paths[1])) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
    back = open_audio(tmp_path / "out", AudioOptions())
    assert all(np.array_equal(back.clip(i), data.clip(i)) for i in range(3))


def test_flac_is_written_exactly_and_other_endings_refused(tmp_path):
    from castalia.media.audio.write import save_audio

    x = np.random.default_rng(0).integers(-32768, 32768, (2, 900)).astype(np.float32) / 32768
    save_audio(x, 16000, tmp_path / "x.flac", {"seed": 1})
    back = open_audio(tmp_path / "x.flac", AudioOptions())
    assert np.array_equal(back.clip(0).T, np.rint(x * clips.FULL_SCALE))
    assert (tmp_path / "x.json").is_file()
    with pytest.raises(UsageError, match=r"\.wav or \.flac"):
        save_audio(x, 16000, tmp_path / "x.mp3")


def test_spoken_digits(castalia_data):
    data = AudioMedium().open_named("free-spoken-digits", AudioOptions(channels=1), "test")
    assert len(data) == 307
    assert data.spec.classes == tuple("0123456789")
    speakers = AudioMedium().open_named("free-spoken-digits", AudioOptions(labels="*_{label}_*"), "test")
    assert len(speakers.spec.classes) == 6
    assert np.array_equal(speakers.samples, data.samples)
