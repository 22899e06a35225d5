"""Who is heard and what is said: columns of sound, from names of files and from texts beside them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from castalia.core.errors import DataError, UsageError
from castalia.core.rng import BatchRng
from castalia.core.spec import LabelSpec
from castalia.core.specs.text import TextSpec
from castalia.media.audio.decode import AudioOptions
from castalia.media.audio.read import open_audio

soundfile = pytest.importorskip("soundfile")

NAMES = [f"{k % 10}_{('anna', 'ben', 'carl')[k % 3]}_{k}" for k in range(30)]
OPTIONS = AudioOptions(labels="{label}_*", speakers="*_{label}_*", words=12)


def clip(seed: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, 0.1 * np.random.default_rng(seed).standard_normal(200), 8000, format="WAV", subtype="PCM_16")
    return out.getvalue()


@pytest.fixture
def recordings(tmp_path) -> Path:
    for k, name in enumerate(NAMES):
        (tmp_path / f"{name}.wav").write_bytes(clip(k))
    return tmp_path


def said(data, i: int) -> str:
    row = data.batch(np.array([i])).extra["caption"][0]
    return bytes(row[row >= 0].tolist()).decode()


def test_speakers_stand_beside_classes(recordings):
    data = open_audio(recordings, OPTIONS)
    columns = dict(data.spec.columns)
    assert list(columns) == ["speaker", "caption"]
    assert isinstance(columns["speaker"], LabelSpec)
    assert columns["speaker"].classes == ("anna", "ben", "carl")
    assert data.spec.classes == tuple(map(str, range(10)))
    batch = data.batch(np.arange(len(data)))
    for file, speaker, label in zip(data.files, batch.extra["speaker"], batch.label, strict=True):
        digit, name, _ = Path(file).stem.split("_")
        assert data.spec.classes[label] == digit
        assert columns["speaker"].classes[speaker] == name
    crops = data.batch(np.array([3, 1]), BatchRng(0, total=2))
    assert crops.extra["speaker"].tolist() == batch.extra["speaker"][[3, 1]].tolist()
    plain = open_audio(recordings, AudioOptions(labels="{label}_*"))
    assert plain.spec.columns == ()
    assert set(plain.batch(np.arange(2)).extra) == {"length", "start"}
    assert plain.fingerprint != data.fingerprint


def test_words_are_the_text_beside_a_file_or_its_class(recordings):
    (recordings / f"{NAMES[0]}.txt").write_text("  la la, é\n", encoding="utf-8")
    (recordings / f"{NAMES[1]}.txt").write_text("longer than twelve bytes", encoding="utf-8")
    data = open_audio(recordings, OPTIONS)
    caption = dict(data.spec.columns)["caption"]
    assert isinstance(caption, TextSpec)
    assert caption.length == 12
    at = {Path(file).stem: i for i, file in enumerate(data.files)}
    assert said(data, at[NAMES[0]]) == "la la, é"
    assert said(data, at[NAMES[1]]) == "longer than "
    assert said(data, at[NAMES[7]]) == "7"
    assert data.batch(np.arange(2)).extra["caption"].shape[1] <= 12
    unlabelled = open_audio(recordings, AudioOptions(labels="none", words=12))
    assert said(unlabelled, at[NAMES[7]]) == ""
    assert said(unlabelled, at[NAMES[0]]) == "la la, é"


def test_pieces_of_a_long_file_have_its_speaker_and_words(tmp_path):
    long = io.BytesIO()
    soundfile.write(long, 0.1 * np.random.default_rng(0).standard_normal(8000), 8000, format="WAV", subtype="PCM_16")
    for name in ("x_anna", "y_ben"):
        (tmp_path / f"{name}.wav").write_bytes(long.getvalue())
        (tmp_path / f"{name}.txt").write_text(f"of {name[0]}")
    options = AudioOptions(labels="none", speakers="*_{label}", words=8, cut=0.25, length=64)
    data = open_audio(tmp_path, options)
    assert len(data) == 8
    for i, file in enumerate(data.files):
        assert data.speakers[i] == ("y_ben" in file)
        assert said(data, i) == ("of y" if "y_ben" in file else "of x")


def test_a_split_has_the_numbers_of_the_other(recordings):
    train = open_audio(recordings, OPTIONS, split="train")
    for name in NAMES:  # only one voice is left in what is measured
        if "ben" not in name:
            (recordings / f"{name}.wav").unlink()
    test = open_audio(recordings, OPTIONS, like=train.spec)
    assert test.spec.columns == train.spec.columns
    assert (test.speakers == 1).all()
    (recordings / "3_dora_99.wav").write_bytes(clip(99))
    with pytest.raises(DataError, match="'dora' is not one of the run's"):
        open_audio(recordings, OPTIONS, like=train.spec)


def test_names_that_do_not_fit_are_refused_by_the_options_name(recordings):
    with pytest.raises(DataError, match=r"does not fit the pattern speakers = 'no-\{label\}'"):
        open_audio(recordings, AudioOptions(labels="none", speakers="no-{label}"))
    with pytest.raises(DataError, match=r"does not fit the pattern labels = 'no-\{label\}'"):
        open_audio(recordings, AudioOptions(labels="no-{label}"))
    for wrong in ("anna", "{label}{label}"):
        with pytest.raises(UsageError, match="speakers is a pattern"):
            AudioOptions(speakers=wrong)
    for words in (-1, 1 << 17):
        with pytest.raises(UsageError, match="words"):
            AudioOptions(words=words)


def test_in_a_zip_words_are_the_classes(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for k, name in enumerate(NAMES):
            archive.writestr(f"{name}.wav", clip(k))
            archive.writestr(f"{name}.txt", "not looked for")
    data = open_audio(tmp_path / "all.zip", OPTIONS)
    assert [said(data, i) for i in range(len(data))] == [Path(file).stem[0] for file in data.files]
    assert dict(data.spec.columns)["speaker"] == LabelSpec(("anna", "ben", "carl"))
