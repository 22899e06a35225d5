"""What folders and zips of pictures mean: splits, classes, parts, metadata."""

import json
import os
import zipfile

import pytest

from castalia.core.errors import DataError
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import open_images

PLAIN = ImageOptions()


def zipped(folder, name="set.zip", change=lambda name: name):
    out = folder.parent / name
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.writestr(change(path.relative_to(folder).as_posix()), path.read_bytes())
    return out


def listing(**labels):
    return json.dumps({"labels": [[f"0000{n[1]}/img0000000{n[3]}.png", v] for n, v in labels.items()] or None}).encode()


SHARDED = {f"0000{i}/img0000000{i}.png": None for i in range(3)}


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_set_of_stylegans_tools_has_the_labels_of_its_list(tree, as_zip):
    root = tree({**SHARDED, "dataset.json": listing(s0i0=7, s1i1=3, s2i2=7)})
    d = open_images(zipped(root) if as_zip else root, PLAIN)
    assert d.spec.classes == ("3", "7")
    assert d.labels.tolist() == [1, 0, 1]
    assert d.notes == ()


def test_a_set_of_stylegans_tools_without_labels_has_none(tree):
    d = open_images(zipped(tree({**SHARDED, "dataset.json": listing()})), PLAIN)
    assert (d.spec.classes, d.labels, len(d)) == ((), None, 3)
    d = open_images(tree(SHARDED, "unlisted"), PLAIN)
    assert (d.spec.classes, d.labels) == ((), None)
    assert "parts, not classes" in d.notes[0]
    vectors = json.dumps({"labels": [[n, [0.0, 1.0]] for n in SHARDED]}).encode()
    d = open_images(tree({**SHARDED, "dataset.json": vectors}, "vectors"), PLAIN)
    assert d.labels is None
    assert "lists of numbers are left out (3)" in d.notes[0]


@pytest.mark.parametrize("text", [b"{", b'{"labels": 3}', b'{"labels": [3]}', b'{"labels": [["../x.png", 1]]}'])
def test_a_list_that_is_not_valid_is_an_error(tree, text):
    with pytest.raises(DataError, match=r"dataset\.json"):
        open_images(tree({**SHARDED, "dataset.json": text}), PLAIN)
    other = open_images(tree({"a.png": None, "dataset.json": b'{"name": 3}'}, "other"), PLAIN)
    assert other.notes == ("Ignored 1 files that are not pictures (1 .json).",)


def test_a_folder_called_images_is_no_class(tree):
    d = open_images(tree({"train/images/1.png": None, "train/images/2.png": None, "test/images/3.png": None}), PLAIN)
    assert (d.spec.classes, d.labels, len(d)) == ((), None, 2)
    tiny = tree({"train/n01/images/1.JPEG": None, "train/n02/images/2.JPEG": None, "val/images/3.JPEG": None}, "tiny")
    d = open_images(tiny, PLAIN)
    assert (d.spec.classes, d.labels.tolist()) == (("n01", "n02"), [0, 1])
    assert open_images(tiny, PLAIN, split="validation").labels is None
    assert open_images(tree({"images/1.png": None}, "alone"), PLAIN).spec.classes == ()


def test_masks_are_not_taken_for_a_class(tree):
    root = tree({"images/1.png": None, "masks/1.png": None})
    with pytest.raises(DataError, match=r"images, masks, which do not look like classes.*data\.options\.folders"):
        open_images(root, PLAIN)
    assert open_images(root, ImageOptions(folders="classes")).spec.classes == ("images", "masks")
    assert open_images(root, ImageOptions(folders="none")).labels is None


def test_a_stray_picture_does_not_merge_splits(tree):
    root = tree({"train/1.png": None, "train/2.png": None, "test/3.png": None, "preview.png": None})
    d = open_images(root, PLAIN)
    assert d.files == ("train/1.png", "train/2.png")
    assert "Left out 1 pictures outside the splits (preview.png, ...)." in d.notes
    assert open_images(root, PLAIN, split="test").files == ("test/3.png",)


def test_folders_that_can_be_two_things_are_asked_about(tree):
    root = tree({"train/1.png": None, "test/2.png": None, "dog/3.png": None})
    with pytest.raises(DataError, match=r"splits or classes\? Say so with data\.options\.folders"):
        open_images(root, PLAIN)
    assert open_images(root, ImageOptions(folders="splits")).files == ("train/1.png",)
    assert open_images(root, ImageOptions(folders="classes")).spec.classes == ("dog", "test", "train")
    assert len(open_images(root, ImageOptions(folders="none"))) == 3
    with pytest.raises(DataError, match="holds 1 pictures in train and 2 beside it"):
        open_images(tree({"train/1.png": None, "2.png": None, "3.png": None}, "half"), PLAIN)


def test_names_with_backslashes_are_read(tree):
    root = tree({"cat/1.png": None, "dog/2.png": None})
    d = open_images(zipped(root, change=lambda name: name.replace("/", "\\")), PLAIN)
    assert d.files == ("cat/1.png", "dog/2.png")
    assert d.spec.classes == ("cat", "dog")


def test_linked_folders_are_named_where_nothing_else_is_there(tree, tmp_path):
    root = tree({"notes.txt": b"x"})
    os.symlink(tree({"1.png": None}, "elsewhere"), root / "cat")
    with pytest.raises(DataError, match=r"holds no pictures.*Links to folders are not followed: cat"):
        open_images(root, PLAIN)


def test_metadata_take_what_parquet_and_tar_take(tree):
    rows = [{"file_name": "a.png", "caption": "one"}, {"file_name": "b.png", "prompt": "two"}]
    data = b"\xef\xbb\xbf" + "\n".join(map(json.dumps, rows)).encode()
    assert open_images(tree({"a.png": None, "b.png": None, "metadata.jsonl": data}), PLAIN).texts == ("one", "two")
    table = '\ufefffile_name,caption,label\na.png,"one, two",x\nb.png,,y\n'.encode()
    d = open_images(tree({"a.png": None, "b.png": None, "metadata.csv": table}, "csv"), PLAIN)
    assert (d.texts, d.spec.classes, d.labels.tolist()) == (("one, two", ""), ("x", "y"), [0, 1])
    d = open_images(tree({"a.png": None, "metadata.csv": b"camera,lens\n1,2\n"}, "other"), PLAIN)
    assert d.notes == ("Ignored 1 files that are not pictures (1 .csv).",)
    with pytest.raises(DataError, match=r"metadata\.csv, line 2: has 1 values where the header has 2"):
        open_images(tree({"a.png": None, "metadata.csv": b"file_name,label\na.png\n"}, "short"), PLAIN)


@pytest.mark.parametrize("as_zip", [False, True])
def test_texts_beside_pictures_are_captions(tree, as_zip):
    root = tree({"a/1.png": None, "a/1.txt": "\ufeffa red\n boat \n".encode(), "b/2.png": None, "notes.txt": b"no"})
    d = open_images(zipped(root) if as_zip else root, ImageOptions(captions=20))
    assert [t or "" for t in d.texts] == ["a red boat", ""]
    assert d.spec.classes == ("a", "b")
    assert "Ignored 1 files that are not pictures (1 .txt)." in d.notes


def test_metadata_go_before_texts(tree):
    told = b"file_name,text\n1.png,from the list\n"
    root = tree({"1.png": None, "1.txt": b"beside it", "metadata.csv": told})
    d = open_images(root, ImageOptions(captions=20))
    assert list(d.texts) == ["from the list"]
    assert any("were not read" in note for note in d.notes)


def test_a_caption_that_is_no_text_is_named(tree):
    root = tree({"1.png": None, "1.txt": b"\xff\xfe\x00"})
    with pytest.raises(DataError, match=r"1\.txt: a caption is UTF-8"):
        open_images(root, PLAIN)
