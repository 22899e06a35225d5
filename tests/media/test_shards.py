"""Shards that stay on the disk: the same pictures as in memory, bounded memory, hostile files."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import tracemalloc
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia.core.data import Order
from castalia.core.errors import DataError, UsageError
from castalia.core.rng import BatchRng
from castalia.evaluation.features import Coordinates, see_data
from castalia.media.image import decode
from castalia.media.image.array import ImageArray
from castalia.media.image.decode import ImageOptions
from castalia.media.image.shards import ImageShards
from castalia.media.image.sources import open_images
from castalia.media.image.tar import members
from castalia.media.named import describe

SMALL = ImageOptions(size=6, channels=3)
MEMORY = replace(SMALL, stream="never")


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def write_tar(path: Path, files: dict[str, bytes], kind: int = tarfile.PAX_FORMAT, **fields: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in files.items():
            add(archive, name, data, **fields)
    return path


@pytest.fixture
def shards(tmp_path, noise, encode):
    """``shards(sizes, prefix)`` writes labelled, captioned tars and returns their folder."""

    def run(sizes=(7, 5, 9), prefix="", folder="set"):
        total = 0
        for number, size in enumerate(sizes):
            files = {}
            for _ in range(size):
                kind = ("PNG", "JPEG", "WEBP")[total % 3]
                suffix = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}[kind]
                key = f"{total:06}"
                files[f"{key}.{suffix}"] = encode(noise(6 + total % 2, 7, 3), kind)
                files[f"{key}.cls"] = str(total % 3).encode()
                files[f"{key}.txt"] = f"picture number {total}\n".encode()
                total += 1
            write_tar(tmp_path / folder / f"{prefix}{number:04}.tar", files)
        return tmp_path / folder

    return run


@pytest.fixture
def groups(tmp_path, noise, encode):
    """``groups(files, rows, group)`` writes Parquet of row groups and returns the folder."""
    pa = pytest.importorskip("pyarrow", reason="castalia[parquet] is not installed")
    import pyarrow.parquet as pq

    def run(files=2, rows=10, group=4, prefix="part", side=6):
        folder = tmp_path / "parquet"
        folder.mkdir(exist_ok=True)
        for number in range(files):
            pictures = [{"bytes": encode(noise(side, side, 3)), "path": f"{i}.png"} for i in range(rows)]
            labels = [(number + i) % 3 + 4 for i in range(rows)]
            texts = [f"row {i} of {number}" for i in range(rows)]
            table = pa.table({"image": pictures, "label": labels, "text": texts})
            pq.write_table(table, folder / f"{prefix}-{number}.parquet", row_group_size=group)
        return folder

    return run


def same(streamed: object, held: object, ids: np.ndarray) -> None:
    assert isinstance(streamed, ImageShards)
    assert isinstance(held, ImageArray)
    assert len(streamed) == len(held)
    assert streamed.spec == held.spec
    assert list(streamed.files) == list(held.files)
    assert list(streamed.texts) == list(held.texts)
    a, b = streamed.batch(ids), held.batch(ids)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.ids, b.ids)
    assert a.label is not None
    assert b.label is not None
    assert torch.equal(a.label, b.label)
    assert a.label.dtype == torch.int64


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_tar_equals_memory(shards, split):
    path = shards((30, 25))
    streamed, held = (open_images(path, options, split=split) for options in (SMALL, MEMORY))
    same(streamed, held, np.array([len(held) - 1, 0, 2, 0, 1]))
    assert describe(streamed)["class_counts"] == describe(held)["class_counts"]
    one, other = (open_images(path / "0001.tar", options) for options in (SMALL, MEMORY))
    same(one, other, np.arange(25))
    assert one.texts[3] == "picture number 33"
    assert one.files[3] == "0001.tar/000033.png"


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_parquet_equals_memory(groups, split):
    path = groups(3, 20)
    streamed = open_images(path, replace(SMALL, stream="always"), split=split)
    held = open_images(path, SMALL, split=split)
    same(streamed, held, np.array([len(held) - 1, 0, 2, 0, 1]))
    assert streamed.spec.classes == ("4", "5", "6")


def test_parquet_is_streamed_above_the_limit(groups):
    path = groups(1, 8)
    assert isinstance(open_images(path, ImageOptions(), memory_limit=8 * 6 * 6 * 3), ImageArray)
    streamed = open_images(path, ImageOptions(), memory_limit=8 * 6 * 6 * 3 - 1)
    assert isinstance(streamed, ImageShards)
    assert streamed.spec.shape == (3, 6, 6)


def test_features_are_seen_in_the_order_of_the_ids(shards):
    path = shards((9, 12))
    ids = np.array([20, 3, 11, 0, 3])
    a, b = (see_data(Coordinates(), open_images(path, options), ids).features for options in (SMALL, MEMORY))
    assert torch.equal(a, b)


def test_mirroring_follows_the_rows_of_the_batch(shards):
    path = shards((8,))
    streamed, held = (open_images(path, replace(o, flip=True)) for o in (SMALL, MEMORY))
    ids = np.array([5, 1, 7, 2])
    whole = held.batch(ids, BatchRng(3, total=4)).x
    assert torch.equal(streamed.batch(ids, BatchRng(3, total=4)).x, whole)
    assert torch.equal(streamed.batch(ids[2:], BatchRng(3, total=4, start=2, rows=2)).x, whole[2:])


def test_large_pictures_are_decoded_by_threads(tmp_path, noise, encode):
    path = write_tar(tmp_path / "a.tar", {f"{i}.png": encode(noise(140, 140, 3)) for i in range(9)})
    streamed, held = (open_images(path, options) for options in (SMALL, MEMORY))
    ids = np.array([3, 8, 0, 3, 5])
    assert torch.equal(streamed.batch(ids).x, held.batch(ids).x)


def test_splits_by_name(shards):
    shards((4, 3), prefix="imagenet-train-")
    path = shards((2,), prefix="val/")
    assert len(open_images(path, SMALL)) == 7
    assert len(open_images(path, SMALL, split="validation")) == 2
    assert open_images(path, SMALL, split="validation").spec.classes == ("0", "1", "2")
    with pytest.raises(DataError, match=r"no split 'test'. It has: train, validation"):
        open_images(path, SMALL, split="test")


def test_json_labels_and_captions(tmp_path, noise, encode):
    files = {}
    for i, name in enumerate(("dog", "cat", "dog")):
        files[f"./a.b/{i}.png"] = encode(noise(6, 6, 3))
        files[f"./a.b/{i}.json"] = json.dumps({"label": name, "caption": f"ü {i}", "url": None}).encode()
        files[f"./a.b/{i}.seg.png"] = b"another field"
    path = write_tar(tmp_path / "a.tar", {"README.md": b"x", **files})
    data = open_images(path, SMALL)
    assert data.spec.classes == ("cat", "dog")
    assert list(data.texts) == ["ü 0", "ü 1", "ü 2"]
    label = data.batch(np.arange(3)).label
    assert label is not None
    assert label.tolist() == [1, 0, 1]
    assert data.files[0] == "a.tar/a.b/0.png"
    assert data.notes[0] == "Left out 4 members that belong to no picture (3 .seg.png, 1 .md)."


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_as_the_standard_library_reads_them(tmp_path, kind):
    files = {"a/b.png": b"1" * 513, "x" * 80 + "/" + "y" * 90 + ".png": b"2", "empty.txt": b"", "ü.png": b"3" * 512}
    path = write_tar(tmp_path / "a.tar", files, kind)
    with tarfile.open(path) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive]
    assert list(members(path)) == expected


def test_size_and_channels_are_settled_by_a_few(tmp_path, noise, encode):
    files = {f"{i:02}.png": encode(noise(6, 5, 1)) for i in range(40)}
    data = open_images(write_tar(tmp_path / "a.tar", files), ImageOptions())
    assert data.spec.shape == (1, 6, 5)
    assert "Settled by 16 of 40 pictures: size and channels (1 x 6 x 5)." in data.notes
    files["01.png"] = encode(noise(9, 5, 1))
    odd = open_images(write_tar(tmp_path / "b.tar", files), ImageOptions())
    with pytest.raises(DataError, match=r"b.tar: b.tar/01.png: it is 5 x 9, while the first are 5 x 6; pass a size"):
        odd.batch(np.arange(3))
    files["00.png"] = encode(noise(9, 5, 1))
    with pytest.raises(DataError, match="differ in size"):
        open_images(write_tar(tmp_path / "c.tar", files), ImageOptions())


def test_bad_pictures(tmp_path, noise, encode):
    good = {f"{i:02}.png": encode(noise(6, 6, 3)) for i in range(40)}
    files = {**good, "03.png": good["03.png"][:60], "04.png": b"", "39.png": b"junk"}
    path = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=r"a.tar/39.png: it is not a picture"):
        open_images(path, SMALL)  # it is among those that are looked at
    files["39.png"] = good["39.png"]
    path = write_tar(tmp_path / "a.tar", files)
    data = open_images(path, SMALL)
    with pytest.raises(DataError, match=r"a.tar/03.png: it is"):
        data.batch(np.array([5, 3]))
    skipping = open_images(path, replace(SMALL, on_bad_file="skip"))
    with pytest.warns(UserWarning, match=r"Gave way to their neighbours because they cannot be read: 2 pictures"):
        x = skipping.batch(np.array([0, 3])).x
    assert torch.equal(x[1], data.batch(np.array([5])).x[0])  # 4 is bad as well
    assert any("2 pictures (a.tar/03.png, a.tar/04.png)" in note for note in skipping.notes)
    hopeless = write_tar(tmp_path / "b.tar", {"a.png": b"x", "b.png": b"y"})
    with pytest.raises(DataError, match="none of the pictures that were looked at"):
        open_images(hopeless, replace(SMALL, on_bad_file="skip"))


def test_what_is_expected_is_read_ahead_and_once(shards, monkeypatch):
    path = shards((12, 12))
    data, plain = open_images(path, SMALL), open_images(path, SMALL)
    assert isinstance(data, ImageShards)
    read: list[tuple[int, bool]] = []
    real = data.source.read

    def watched(i: int) -> bytes:
        read.append((i, threading.current_thread() is threading.main_thread()))
        return real(i)

    monkeypatch.setattr(data.source, "read", watched)
    soon, others = np.array([3, 20, 3, 9]), np.array([1, 2])
    data.expect(soon, 1)
    assert torch.equal(data.batch(soon).x, plain.batch(soon).x)
    assert sorted(read) == [(3, False), (3, False), (9, False), (20, False)]
    assert torch.equal(data.batch(soon).x, plain.batch(soon).x)  # it was taken
    assert read[4:] == [(3, True), (3, True), (9, True), (20, True)]
    data.expect(soon, 1)
    assert torch.equal(data.batch(others).x, plain.batch(others).x)  # it turned out otherwise
    assert [i for i, here in read if here][4:] == [1, 2]
    assert torch.equal(data.batch(soon).label, plain.batch(soon).label)
    assert [i for i, here in read if here][6:] == [3, 3, 9, 20]


def test_bad_pictures_that_are_read_ahead(tmp_path, noise, encode):
    """An error comes where the batch is asked for; neighbours are warned of there."""
    files = {f"{i:02}.png": encode(noise(6, 6, 3)) for i in range(40)}
    path = write_tar(tmp_path / "a.tar", {**files, "03.png": files["03.png"][:60]})
    data, skipping = open_images(path, SMALL), open_images(path, replace(SMALL, on_bad_file="skip"))
    ids = np.array([5, 3])
    data.expect(ids, 1)
    with pytest.raises(DataError, match=r"a.tar/03.png: it is"):
        data.batch(ids)
    assert len(data.batch(ids[:1])) == 1
    skipping.expect(ids, 1)
    assert skipping._expected is not None
    skipping._expected[1].result()  # it was met before the batch begins
    with pytest.warns(UserWarning, match=r"cannot be read: 1 pictures"):
        skipping.batch(ids)
    skipping.batch(ids)  # and once is enough
    assert any("1 pictures (a.tar/03.png)" in note for note in skipping.notes)


def test_reading_ahead_leaves_warnings_alone(shards, monkeypatch):
    """Filters belong to the whole process: a thread that changes and restores them takes warnings from the others."""
    data = open_images(shards((40, 40)), SMALL)
    data.batch(np.arange(4))
    before, inside, go_on = list(warnings.filters), threading.Event(), threading.Event()
    real = decode._check_size

    def waiting(*arguments: object) -> None:
        inside.set()
        assert go_on.wait(10)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "_check_size", waiting)
    data.expect(np.arange(3), 1)
    assert inside.wait(10)
    during = list(warnings.filters)
    go_on.set()
    data.batch(np.arange(3))
    assert before == during == list(warnings.filters)


def test_pictures_are_read_by_as_many_threads_as_are_free(shards, monkeypatch):
    data = open_images(shards((40,)), SMALL)
    assert isinstance(data, ImageShards)
    monkeypatch.setattr(data, "_threads", 4)
    plain = data.batch(np.arange(40)).x
    for threads in (1, 2, 9):
        seen = set[str]()
        real = data.source.read
        monkeypatch.setattr(
            data.source, "read", lambda i, real=real, seen=seen: (seen.add(threading.current_thread().name), real(i))[1]
        )
        data.expect(np.arange(40), threads)
        assert torch.equal(data.batch(np.arange(40)).x, plain)
        monkeypatch.setattr(data.source, "read", real)
        assert 1 <= len(seen) <= min(threads, 4)


@pytest.mark.parametrize("damaged", ["path", "caption"])
def test_texts_of_parquet_that_are_no_utf8(tmp_path, noise, encode, damaged):
    """A path beside the picture is not needed; a caption is, and its row is named."""
    pa = pytest.importorskip("pyarrow", reason="castalia[parquet] is not installed")
    import pyarrow.parquet as pq

    def text(data: bytes) -> object:
        return pa.array([data], pa.binary()).view(pa.string())

    pixels = noise(6, 6, 3)
    picture = pa.array([encode(pixels)], pa.binary())
    bad, good = text(b"a\xff.png"), text(b"good")
    image = pa.StructArray.from_arrays([picture, bad if damaged == "path" else good], ["bytes", "path"])
    columns = {"image": image, "text": bad if damaged == "caption" else good}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    data = open_images(path, replace(SMALL, stream="always"))
    assert torch.equal(data.batch(np.arange(1)).x[0].permute(1, 2, 0), torch.from_numpy(np.asarray(pixels)))
    if damaged == "path":
        assert data.texts[0] == "good"
        assert torch.equal(open_images(path, MEMORY).batch(np.arange(1)).x, data.batch(np.arange(1)).x)
    else:
        with pytest.raises(DataError, match=r"a.parquet row 0: 'text' is not valid UTF-8"):
            _ = data.texts[0]
        with pytest.raises(DataError, match="'text' is not valid UTF-8"):
            open_images(path, MEMORY)


def test_hostile_tars(tmp_path, noise, encode):
    png = encode(noise(6, 6, 3))
    path = tmp_path / "a.tar"

    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match) as caught:
            open_images(path, SMALL)
        assert "a.tar" in str(caught.value)

    for kind, word in ((tarfile.SYMTYPE, "a link"), (tarfile.LNKTYPE, "a hard link"), (tarfile.CHRTYPE, "a device")):
        write_tar(path, {"0.png": png, "1.png": b""}, type=kind, linkname="/etc/passwd")
        refused(f"'0.png' is {word}")
    for name in ("../0.png", "/0.png", "a/../../0.png", "C:/0.png"):
        write_tar(path, {name: png})
        refused("points outside")
    write_tar(path, {"0.png": png}, pax_headers={"GNU.sparse.major": "1"})
    refused("sparse")
    write_tar(path, {"0.png": png}, pax_headers={"size": "99999999999999"})
    refused("declares 99999999999999 bytes")
    with tarfile.open(path, "w") as archive:
        add(archive, "0.png", png)
        add(archive, "0.png", png)
    refused("'0.png' is there twice")
    with tarfile.open(path, "w") as archive:
        for name in ("0.png", "1.png", "0.cls"):
            add(archive, name, png)
    refused("'0' is there twice, with others between")
    write_tar(path, {"0.png": png, "0.jpg": png})
    refused("several pictures")
    write_tar(path, {"0.png": png, "0.cls": b"9" * 5000})
    refused("'0'.cls has 5000 bytes")
    for name, data, match in (
        ("0.cls", b"\xff", "UTF-8"),
        ("0.cls", b" ", "a label is"),
        ("0.json", b"[" * 10_000, "JSON"),
        ("0.json", b"[]", "object"),
        ("0.json", b'{"label": 1.5}', "a label is"),
    ):
        write_tar(path, {"0.png": png, name: data})
        refused(match)
    write_tar(path, {"0.png": png, "0.cls": b"1", "1.png": png})
    refused("'1.png' has no label, while others have one")
    write_tar(path, {"0.txt": b"x"})
    refused("holds no pictures")

    write_tar(path, {"0.png": png, "1.png": png})
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 + len(png)])
    refused("truncated: it ends after '0.png'")
    path.write_bytes(whole[:600])
    refused(r"truncated: '0.png' declares \d+ bytes, and 88 are left")
    path.write_bytes(whole + whole)
    refused("follows after its end")
    path.write_bytes(whole[:130] + b"7" + whole[131:])
    refused("not a tar archive")
    second = 512 + -(-len(png) // 512) * 512
    path.write_bytes(whole[:second] + b"?" + whole[second + 1 :])
    refused("damaged: there is no valid header after '0.png'")
    path.write_bytes(b"")
    refused("truncated")


def test_headers_survive_random_damage(tmp_path, noise, encode):
    whole = write_tar(
        tmp_path / "a.tar", {f"{'long' * 40}{i}.png": encode(noise(6, 6, 3)) for i in range(3)}
    ).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "b.tar"
    for _ in range(150):
        data = bytearray(whole[: 6 * 1024])
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        path.write_bytes(bytes(data) + bytes(1024))
        try:
            assert all(offset + size <= len(data) + 1024 for _, offset, size in members(path))
        except DataError:
            continue


def test_compressed_tars_say_why_not(tmp_path, noise, encode):
    path = write_tar(tmp_path / "a.tar", {"0.png": encode(noise(6, 6, 3))})
    packed = zlib.compressobj(wbits=31)
    path.rename(tmp_path / "b.tar.gz")
    for where in (tmp_path, tmp_path / "b.tar.gz"):
        with pytest.raises(DataError, match=r"b.tar.gz: a compressed tar cannot be read at random places"):
            open_images(where, SMALL)
    path.write_bytes(packed.compress((tmp_path / "b.tar.gz").read_bytes()) + packed.flush())
    with pytest.raises(DataError, match=r"a.tar: a gzip tar cannot"):
        open_images(path, SMALL)


def test_what_cannot_be_streamed(tree, tmp_path, shards, groups):
    with pytest.raises(UsageError, match="only tar and Parquet shards can be streamed"):
        open_images(tree({"a.png": None}), replace(SMALL, stream="always"))
    with pytest.raises(UsageError, match="stream is one of auto, always, never"):
        ImageOptions(stream="yes")  # pyright: ignore[reportArgumentType]
    folder = groups()
    write_tar(folder / "x.tar", {})
    with pytest.raises(DataError, match="both tar and Parquet"):
        open_images(folder, SMALL)


def test_fingerprint_and_change(shards, tmp_path, noise, encode):
    path = shards((7, 5))
    data = open_images(path, SMALL)
    assert open_images(path, SMALL).fingerprint == data.fingerprint
    prints = {data.fingerprint, open_images(path, SMALL, split="train").fingerprint}
    prints.add(open_images(path, replace(SMALL, size=7)).fingerprint)
    moved = path.rename(tmp_path / "elsewhere")
    assert open_images(moved, SMALL).fingerprint == data.fingerprint
    tar = moved / "0001.tar"
    with tarfile.open(tar) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # pyright: ignore[reportOptionalMemberAccess]
    for name, value in (("000007.cls", b"0"), ("000008.webp", encode(noise(9, 9, 3), "WEBP"))):
        write_tar(tar, {**files, name: value})
        prints.add(open_images(moved, SMALL).fingerprint)
    assert len(prints) == 5


def test_a_shard_that_changes_while_it_is_used(shards, groups):
    path = shards((7, 5))
    data = open_images(path, SMALL)
    assert isinstance(data, ImageShards)
    (path / "0000.tar").write_bytes((path / "0000.tar").read_bytes()[:3000])  # still open here
    with pytest.raises(DataError, match=r"0000.tar has changed since it was opened"):
        data.batch(np.arange(7))
    folder = groups(1, 12)
    rows = open_images(folder, replace(SMALL, stream="always", on_bad_file="skip"))
    assert isinstance(rows, ImageShards)
    rows.source._kept.clear()  # pyright: ignore[reportAttributeAccessIssue]
    with open(folder / "part-0.parquet", "ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"part-0.parquet has changed since it was opened"):
        rows.batch(np.arange(3))


def test_memory_stays_bounded(tmp_path, noise, encode, groups, monkeypatch):
    png = encode(noise(64, 64, 3))
    for number in range(4):
        write_tar(tmp_path / "set" / f"{number}.tar", {f"{number}{i:04}.png": png for i in range(300)})
    pixels = 1200 * 64 * 64 * 3
    tracemalloc.start()
    try:
        data = open_images(tmp_path / "set", ImageOptions(size=64))
        order = Order(len(data), 16, 0, data.blocks)
        for draw in range(12):
            data.batch(order.ids(draw))
        assert tracemalloc.get_traced_memory()[1] < 3 << 20 < pixels // 4
    finally:
        tracemalloc.stop()

    import castalia.media.image.parquet_shards as module

    folder = groups(2, 40, group=5, side=32)
    monkeypatch.setattr(module, "KEPT_BYTES", 60_000)
    rows = open_images(folder, replace(SMALL, stream="always"))
    assert isinstance(rows, ImageShards)
    assert rows.blocks is not None
    assert rows.blocks.window in (2, 3)
    order = Order(len(rows), 8, 0, rows.blocks)
    read = []
    source = rows.source
    once = source._column  # pyright: ignore[reportAttributeAccessIssue]

    def column(group, name):
        missing = (group, name) not in source._kept  # pyright: ignore[reportAttributeAccessIssue]
        read.extend([group] if missing else [])
        return once(group, name)

    monkeypatch.setattr(source, "_column", column)
    for draw in range(10):
        rows.batch(order.ids(draw))
        assert sum(c.nbytes for c in source._kept.values()) <= 60_000  # pyright: ignore[reportAttributeAccessIssue]
    assert len(read) <= 2 * 16, "row groups are read about once an epoch"
