import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from castalia.core.errors import DataError
from castalia.core.specs.image import ImageSpec
from castalia.media.image.decode import ImageOptions
from castalia.media.image.metadata import parse_metadata_line
from castalia.media.image.sources import open_images

PLAIN = ImageOptions()


def zipped(folder: Path, compression=zipfile.ZIP_STORED) -> Path:
    out = folder.with_suffix(".zip")
    with zipfile.ZipFile(out, "w", compression) as archive:
        for path in sorted(folder.rglob("*"), reverse=True):  # the order in the zip must not matter
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return out


def test_flat_folder(tree, encode):
    pictures = {f"{i}.png": np.full((4, 5, 3), (i, 0, 0), np.uint8) for i in (3, 1, 2)}
    d = open_images(tree({k: encode(v) for k, v in pictures.items()}), PLAIN)
    assert d.files == ("1.png", "2.png", "3.png")
    assert d.x.shape == (3, 3, 4, 5)
    assert d.x.dtype == torch.uint8
    assert d.x[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert d.labels is None
    assert d.spec == ImageSpec(3, 4, 5)
    assert d.notes == ()


@pytest.mark.parametrize("as_zip", [False, True])
def test_class_folders(tree, as_zip):
    root = tree({"dog/b.png": None, "cat/deep/a.png": None, "cat/c.PNG": None, ".hidden/x.png": b"no"})
    d = open_images(zipped(root) if as_zip else root, PLAIN)
    assert d.spec.classes == ("cat", "dog")
    assert d.files == ("cat/c.PNG", "cat/deep/a.png", "dog/b.png")
    assert d.labels.tolist() == [0, 0, 1]
    assert d.batch(np.array([2, 0])).label.tolist() == [1, 0]


def test_a_picture_beside_the_class_folders_means_no_classes(tree):
    d = open_images(tree({"dog/b.png": None, "cat/a.png": None, "c.png": None}), PLAIN)
    assert d.labels is None
    assert d.spec.classes == ()


@pytest.mark.parametrize("base", ["", "data/", "wrapper/data/"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_splits_with_classes(tree, base, as_zip):
    names = ["train/b/1.png", "train/a/2.png", "test/b/3.png", "val/c/4.png"]
    root = tree({base + n: None for n in names})
    path = zipped(root) if as_zip else root
    for split, files, labels in [
        (None, ["train/a/2.png", "train/b/1.png"], [0, 1]),
        ("train", ["train/a/2.png", "train/b/1.png"], [0, 1]),
        ("test", ["test/b/3.png"], [1]),
        ("validation", ["val/c/4.png"], [2]),
    ]:
        d = open_images(path, PLAIN, split=split)
        assert list(d.files) == [base + f for f in files]
        assert d.labels.tolist() == labels
        assert d.spec.classes == ("a", "b", "c")
    assert "left out: test, validation" in open_images(path, PLAIN).notes[0]


def test_unknown_split(tree):
    with pytest.raises(DataError, match=r"has no split 'test'\. It has: train, validation"):
        open_images(tree({"train/1.png": None, "valid/1.png": None}), PLAIN, split="test")
    with pytest.raises(DataError, match="only 'train' and 'test' can be made"):
        open_images(tree({"1.png": None}, "other"), PLAIN, split="validation")


def test_train_as_a_class_among_others(tree):
    d = open_images(tree({"train/1.png": None, "car/1.png": None}), PLAIN)
    assert d.spec.classes == ("car", "train")
    assert "classes, not splits" in d.notes[0]


def test_made_splits_are_a_partition_and_stay(tree, encode):
    picture = encode(np.zeros((1, 1, 1), np.uint8))
    root = tree({f"{i:03}.png": picture for i in range(150)})
    train, test = (open_images(root, PLAIN, split=s) for s in ("train", "test"))
    assert sorted(train.files + test.files) == [f"{i:03}.png" for i in range(150)]
    assert 5 <= len(test) <= 30
    tree({f"{i:03}.png": picture for i in range(150, 160)})
    assert set(test.files) <= set(open_images(root, PLAIN, split="test").files)
    lonely = tree({train.files[0]: None}, "lonely")
    assert len(open_images(lonely, PLAIN, split="train")) == 1
    with pytest.raises(DataError, match="too few"):
        open_images(lonely, PLAIN, split="test")


def test_other_files_are_counted(tree):
    d = open_images(tree({"1.png": None, "notes.txt": b"x", "b.txt": b"", "t.csv": b"", "raw": b""}), PLAIN)
    assert d.notes == ("Ignored 4 files that are not pictures (2 .txt, 1 no suffix, 1 .csv).",)


@pytest.mark.parametrize("files", [{"a.txt": b"x"}, {".hidden.png": b"x"}, {"__MACOSX/a.png": b"x"}])
def test_nothing_to_read(tree, files):
    with pytest.raises(DataError, match="holds no pictures"):
        open_images(tree(files), PLAIN)


def test_wrong_paths(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_images(tmp_path / "nowhere", PLAIN)
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(DataError, match="not a source of pictures"):
        open_images(tmp_path / "a.docx", PLAIN)


def test_single_picture(tree):
    assert open_images(tree({"a.png": None}) / "a.png", PLAIN).x.shape == (1, 3, 4, 5)


def test_a_pipe_does_not_block(tree):
    root = tree({"a.png": None})
    os.mkfifo(root / "b.png")
    assert len(open_images(root, PLAIN)) == 1


@pytest.mark.parametrize("bad", [b"", b"text", b"\x89PNG\r\n\x1a\n", "cut"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_bad_files(tree, noise, encode, bad, as_zip):
    data = encode(noise(30, 30, 3))[:900] if bad == "cut" else bad
    root = tree({"a.png": encode(noise(30, 30, 3)), "b.png": data, "c.png": encode(noise(30, 30, 3))})
    path = zipped(root) if as_zip else root
    with pytest.raises(DataError, match=r"set(\.zip)?: b\.png: "):
        open_images(path, PLAIN)
    d = open_images(path, ImageOptions(on_bad_file="skip"))
    assert d.files == ("a.png", "c.png")
    assert "Skipped 1 files" in d.notes[0]
    assert "b.png" in d.notes[0]
    expected = open_images(root / "c.png", PLAIN)
    assert torch.equal(d.x[1], expected.x[0])


def test_all_bad(tree):
    with pytest.raises(DataError, match="none of its 2 pictures"):
        open_images(tree({"a.png": b"x", "b.jpg": b"y"}), ImageOptions(on_bad_file="skip"))


def test_mixed_sizes(tree, noise, encode):
    root = tree({"a.png": None, "b.png": encode(noise(6, 7, 3))})
    with pytest.raises(DataError, match=r"a\.png is 5 x 4, b\.png is 7 x 6\); give one size for all: --size"):
        open_images(root, PLAIN)
    assert open_images(root, ImageOptions(size=3)).x.shape == (2, 3, 3, 3)


def test_channels_are_decided_from_the_files(tree, noise, encode):
    grey, rgb, rgba = (encode(noise(4, 5, c)) for c in (1, 3, 4))
    assert open_images(tree({"a.png": grey, "b.png": grey}, "1"), PLAIN).spec.channels == 1
    assert open_images(tree({"a.png": grey, "b.png": rgb}, "2"), PLAIN).spec.channels == 3
    mixed = open_images(tree({"a.png": grey, "b.png": rgba}, "3"), PLAIN)
    assert mixed.spec.channels == 4
    assert (mixed.x[0, 3] == 255).all()
    opaque = noise(4, 5, 4)
    opaque[..., 3] = 255
    d = open_images(tree({"a.png": encode(opaque)}, "4"), PLAIN)
    assert d.spec.channels == 3
    assert "opaque" in d.notes[0]
    assert torch.equal(d.x[0], torch.from_numpy(opaque[..., :3]).permute(2, 0, 1))
    assert open_images(tree({"a.png": encode(opaque)}, "4"), ImageOptions(channels=4)).spec.channels == 4


def test_progress_and_animations(tree, encode):
    from PIL import Image

    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    root = tree({f"{i}.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]) for i in range(100)})
    calls = []
    d = open_images(root, PLAIN, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (100, 100)
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)
    assert "100 files have several frames" in d.notes[0]


def test_large_pictures_go_through_threads_in_order(tree, encode):
    root = tree({f"{i:03}.png": encode(np.full((150, 150, 1), i, np.uint8)) for i in range(200)} | {"x.png": b"bad"})
    d = open_images(root, ImageOptions(on_bad_file="skip"))
    assert d.x[:, 0, 0, 0].tolist() == list(range(200))
    assert d.x[:, 0, 149, 149].tolist() == list(range(200))


# Metadata


def lines(*rows):
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows).encode()


@pytest.mark.parametrize("as_zip", [False, True])
def test_metadata(tree, as_zip):
    root = tree(
        {
            "sub/a.png": None,
            "b.png": None,
            "c.png": None,
            "metadata.jsonl": lines(
                {"file_name": "b.png", "text": "bé", "label": "y"},
                "",
                {"file_name": "./sub/a.png", "text": "a", "label": "x"},
            ),
        }
    )
    d = open_images(zipped(root) if as_zip else root, PLAIN)
    assert d.files == ("b.png", "sub/a.png")
    assert d.texts == ("bé", "a")
    assert d.spec.classes == ("x", "y")
    assert d.labels.tolist() == [1, 0]
    assert "Left out 1 pictures" in d.notes[0]


def test_metadata_in_split_folders(tree):
    files = {f"{s}/{n}.png": None for s in ("train", "test") for n in "ab"}
    for i, s in enumerate(("train", "test")):
        files[f"{s}/metadata.jsonl"] = lines(*({"file_name": f"{n}.png", "label": 5 * i + 3} for n in "ab"))
    d = open_images(tree(files), PLAIN, split="test")
    assert d.spec.classes == ("3", "8")
    assert d.labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], "metadata.jsonl, line 1: not valid JSON"),
        ([{"file_name": "a.png"}, "[1]"], "line 2: a JSON object"),
        ([{"text": "x"}], "line 1: 'file_name' is missing"),
        ([{"file_name": 3}], "'file_name' is missing"),
        ([{"file_name": "../a.png"}], "points outside"),
        ([{"file_name": "/etc/passwd.png"}], "points outside"),
        ([{"file_name": "C:/a.png"}], "points outside"),
        ([{"file_name": "..\\a.png"}], "points outside"),
        ([{"file_name": "zz.png"}], r"not there: 'zz.png' \(line 1\)"),
        ([{"file_name": "a.png"}, {"file_name": "a.png"}], "line 2: 'a.png' is listed twice"),
        (
            [{"file_name": "a.png", "text": "x"}, {"file_name": "b.png"}],
            "line 2: 'text' must be in every line",
        ),
        (
            [{"file_name": "a.png", "label": 1}, {"file_name": "b.png", "label": "1"}],
            "line 2: labels must be all",
        ),
        ([{"file_name": "a.png", "label": 1.5}], "'label' must be text or a whole number, not float"),
        ([{"file_name": "a.png", "label": True}], "not bool"),
        ([{"file_name": "a.png", "text": ["x"]}], "'text' must be text, not list"),
        ([{"file_name": "a.png", "text": "\ud800"}], "surrogate"),
        (["[" * 100_000], "line 1: not valid JSON"),
        (['{"file_name": "a.png", "label": ' + "9" * 5000 + "}"], "line 1: not valid JSON"),
    ],
)
def test_metadata_errors(tree, rows, message):
    with pytest.raises(DataError, match=message):
        open_images(tree({"a.png": None, "b.png": None, "metadata.jsonl": lines(*rows)}), PLAIN)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda s: json.dumps({"file_name": s}).encode())))
def test_any_metadata_line_is_a_row_or_a_data_error(line):
    reason = None
    try:
        name, _ = parse_metadata_line(line, "m, line 1")
    except DataError as error:
        reason = str(error)
    if reason is not None:
        assert reason.startswith("m, line 1: ")
    else:
        assert ".." not in name.split("/")
        assert not name.startswith("/")


# Zips


def make_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png", "C:/a.png", "a\\..\\b.png"])
def test_zip_traversal(tmp_path, name, encode, noise):
    path = make_zip(tmp_path / "a.zip", [("ok.png", encode(noise(2, 2, 3))), (name, b"x")])
    with pytest.raises(DataError, match="points outside"):
        open_images(path, ImageOptions(on_bad_file="skip"))


def test_zip_bombs(tmp_path, encode, noise):
    path = make_zip(tmp_path / "a.zip", [("ok.png", encode(noise(2, 2, 3))), ("bomb.bmp", bytes(50 << 20))])
    with pytest.raises(DataError, match=r"bomb\.bmp.*zip bomb"):
        open_images(path, PLAIN)


def test_zip_that_lies_about_sizes(tmp_path, encode, noise):
    path = make_zip(tmp_path / "a.zip", [("bomb.bmp", bytes(50 << 20))])
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"bomb\.bmp"):
        open_images(path, PLAIN)


def test_encrypted_duplicate_and_broken_zips(tmp_path, encode, noise):
    picture = encode(noise(2, 2, 3))
    path = make_zip(tmp_path / "a.zip", [("a.png", picture)])
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    locked = data.copy()
    locked[6] |= 1
    locked[central + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    with pytest.raises(DataError, match="encrypted"):
        open_images(tmp_path / "locked.zip", PLAIN)
    odd = data.copy()
    odd[8:10] = odd[central + 10 : central + 12] = struct.pack("<H", 77)
    (tmp_path / "odd.zip").write_bytes(odd)
    with pytest.raises(DataError, match=r"a\.png.*cannot be read"):
        open_images(tmp_path / "odd.zip", PLAIN)
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a zip"):
        open_images(tmp_path / "cut.zip", PLAIN)
    with pytest.warns(UserWarning, match="Duplicate"):
        make_zip(tmp_path / "twice.zip", [("a.png", picture), ("a.png", picture)])
    with pytest.raises(DataError, match="there twice"):
        open_images(tmp_path / "twice.zip", PLAIN)


def test_zip_with_a_damaged_member_can_be_skipped(tmp_path, encode, noise):
    path = make_zip(tmp_path / "a.zip", [(f"{i}.png", encode(noise(20, 20, 3))) for i in range(3)])
    data = bytearray(path.read_bytes())
    at = data.index(b"1.png") + 400
    data[at : at + 4] = bytes(b ^ 255 for b in data[at : at + 4])
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"1\.png"):
        open_images(path, PLAIN)
    assert open_images(path, ImageOptions(on_bad_file="skip")).files == ("0.png", "2.png")
