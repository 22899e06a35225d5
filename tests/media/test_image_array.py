import json
import os

import numpy as np
import pytest
import torch

from castalia.core.errors import DataError, MissingExtra
from castalia.core.rng import BatchRng, SampleRng
from castalia.media.image.array import ImageArray, allocate, parallel
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import open_images

PLAIN = ImageOptions()


# Arrays


def test_npy(tmp_path, noise):
    pixels = np.stack([noise(4, 5, 3) for _ in range(6)])
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for name, array in {
        "hwc": pixels,
        "chw": np.ascontiguousarray(np.moveaxis(pixels, 3, 1)),
        "float": pixels.astype(np.float64) / 255,
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        d = open_images(tmp_path / f"{name}.npy", PLAIN)
        assert torch.equal(d.x, expected), name
        assert len(d.notes) == (name != "hwc")
    np.save(tmp_path / "grey.npy", pixels[..., 0])
    d = open_images(tmp_path / "grey.npy", PLAIN)
    d.x[:] = 0
    assert (np.load(tmp_path / "grey.npy") == pixels[..., 0]).all(), "the file must never be written to"
    np.save(tmp_path / "bool.npy", pixels[..., 0] > 99)
    assert open_images(tmp_path / "bool.npy", PLAIN).x.unique().tolist() == [0, 255]
    d = open_images(tmp_path / "hwc.npy", ImageOptions(size=2, channels=1), split="train")
    assert d.x.shape[1:] == (1, 2, 2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), "shape"),
        (np.zeros((3, 5, 5, 7), np.uint8), "shape"),
        (np.zeros((0, 4, 5), np.uint8), "shape"),
        (np.zeros((3, 4, 5), np.int64), "int64"),
        (np.full((3, 4, 5), 1.5), "must lie in 0 to 1"),
        (np.full((3, 4, 5), np.nan), "must lie in 0 to 1"),
        (np.array([{}], object), "not a .npy"),
    ],
)
def test_npy_errors(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        open_images(tmp_path / "a.npy", PLAIN)


def test_npy_truncated(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 4, 5), np.uint8))
    data = (tmp_path / "a.npy").read_bytes()
    for cut in (0, 5, 20, 200, len(data) - 1):
        (tmp_path / "a.npy").write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"a\.npy"):
            open_images(tmp_path / "a.npy", PLAIN)


def test_npz(tmp_path, noise):
    x = np.stack([noise(4, 5, 1)[..., 0] for _ in range(6)])
    np.savez(tmp_path / "k.npz", x_train=x[:4], y_train=[7, 7, 9, 7], x_test=x[4:], y_test=[[9], [8]])
    d = open_images(tmp_path / "k.npz", PLAIN, split="test")
    assert d.spec.classes == ("7", "8", "9")
    assert d.labels.tolist() == [2, 1]
    assert torch.equal(d.x[:, 0], torch.from_numpy(x[4:]))
    assert len(open_images(tmp_path / "k.npz", PLAIN)) == 4
    np.savez_compressed(tmp_path / "one.npz", x)
    assert open_images(tmp_path / "one.npz", PLAIN).labels is None
    np.savez(tmp_path / "bad.npz", images=x, labels=np.arange(5))
    with pytest.raises(DataError, match="6 pictures in 'images' but 5 labels"):
        open_images(tmp_path / "bad.npz", PLAIN)
    np.savez(tmp_path / "none.npz", a=np.arange(5))
    with pytest.raises(DataError, match="no array of pictures"):
        open_images(tmp_path / "none.npz", PLAIN)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "k.npz").read_bytes()[:100])
    with pytest.raises(DataError, match=r"cut\.npz"):
        open_images(tmp_path / "cut.npz", PLAIN)


# Parquet


@pytest.fixture
def parquet(tmp_path, noise, encode):
    pa = pytest.importorskip("pyarrow", reason="castalia[parquet] is not installed")
    import pyarrow.parquet as pq

    def run(name, n=7, *, names=None, column="image", plain=False, labels=None, **more):
        pictures = [encode(np.full((4, 5, 3), i, np.uint8)) for i in range(n)]
        data = {column: pictures if plain else [{"bytes": b, "path": f"{i}.png"} for i, b in enumerate(pictures)]}
        if labels is not None:
            data["label"] = labels
        table = pa.table({**data, **more})
        if names:
            info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        (tmp_path / "pq").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "pq" / name, row_group_size=2)
        return tmp_path / "pq" / name

    return run


def test_parquet(parquet):
    path = parquet("a.parquet", labels=[0, 1, 2, 0, 1, 2, 0], names=["p", "q", "r"], text=list("abcdefg"))
    d = open_images(path, PLAIN)
    assert d.x[:, 0, 0, 0].tolist() == list(range(7))
    assert d.spec.classes == ("p", "q", "r")
    assert d.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert d.texts == tuple("abcdefg")
    assert open_images(parquet("b.parquet", plain=True, column="img"), PLAIN).x[:, 0, 0, 0].tolist() == list(range(7))


def test_parquet_splits_share_classes(parquet):
    parquet("train-00000-of-00001.parquet", 3, labels=[4, 9, 4])
    path = parquet("test-00000-of-00001.parquet", 2, labels=[9, 6]).parent
    d = open_images(path, PLAIN, split="test")
    assert d.spec.classes == ("4", "6", "9")
    assert d.labels.tolist() == [2, 1]
    assert len(open_images(path, PLAIN)) == 3


def test_parquet_errors(parquet, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="no column holds pictures"):
        open_images(tmp_path / "none.parquet", PLAIN)
    (tmp_path / "junk.parquet").write_bytes(b"PAR1junk")
    with pytest.raises(DataError, match="not a Parquet file"):
        open_images(tmp_path / "junk.parquet", PLAIN)
    pq.write_table(
        pa.table({"image": [{"bytes": b"x", "path": "p"}, {"bytes": None, "path": "q"}]}),
        tmp_path / "e.parquet",
    )
    with pytest.raises(DataError, match="row 0"):
        open_images(tmp_path / "e.parquet", PLAIN)
    with pytest.raises(DataError, match="label 5, but 2 names"):
        open_images(parquet("l.parquet", 1, labels=[5], names=["a", "b"]), PLAIN)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"castalia\[parquet\]"):
        open_images(tmp_path / "none.parquet", PLAIN)


# The data set itself


@pytest.fixture
def array():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)
    return ImageArray(
        pixels,
        name="a",
        labels=np.arange(20) % 3,
        classes="xyz",
        texts=[str(i) for i in range(20)],
        flip=True,
    )


def test_batch_shares_memory_and_copies_rows(array):
    ids = np.array([3, 3, 19])
    batch = array.batch(ids)
    assert torch.equal(batch.x, array.x[[3, 3, 19]])
    assert batch.ids.tolist() == [3, 3, 19]
    assert batch.label.tolist() == [0, 0, 1]
    assert len(batch) == 3
    batch.x[:] = 0
    assert array.x[3].any()


def test_flips_are_deterministic_and_independent_of_neighbours(array):
    ids = np.arange(20)
    whole = array.batch(ids, SampleRng(5, ids.tolist())).x
    assert torch.equal(whole, array.batch(ids, SampleRng(5, ids.tolist())).x)
    part = array.batch(ids[7:9], SampleRng(5, [7, 8])).x
    assert torch.equal(part, whole[7:9])
    flipped = [torch.equal(w, x.flip(2)) for w, x in zip(whole, array.x, strict=True)]
    same = [torch.equal(w, x) for w, x in zip(whole, array.x, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 3 < sum(flipped) < 17
    halves = [array.batch(ids[s : s + 10], BatchRng(5, total=20, start=s, rows=10)).x for s in (0, 10)]
    assert torch.equal(torch.cat(halves), array.batch(ids, BatchRng(5, total=20)).x)
    assert torch.equal(array.batch(ids).x, array.x)


def test_subset_and_split(array):
    some = array.subset(np.array([5, 2]))
    assert torch.equal(some.x, array.x[[5, 2]])
    assert some.texts == ("5", "2")
    assert some.labels.tolist() == [2, 2]
    assert some.spec.classes == ("x", "y", "z")
    assert some.flip
    run = array.subset(np.arange(4, 9))
    assert run.x.data_ptr() == array.x[4].data_ptr()
    a, b = array.split(0.75, 1)
    assert (len(a), len(b)) == (15, 5)
    assert sorted(a.texts + b.texts, key=int) == list(array.texts)
    assert array.split(0.75, 1)[1].texts == b.texts
    assert array.split(0.75, 2)[1].texts != b.texts
    assert [len(p) for p in array.split(0.999)] == [19, 1]
    with pytest.raises(DataError, match="takes two"):
        array.subset(np.array([0])).split(0.5)


def test_fingerprint_sees_pixels_labels_and_texts(array):
    pixels = array.x.numpy()
    labels, texts = np.arange(20) % 3, [str(i) for i in range(20)]

    def print_of(p=pixels, y=labels, t=texts):
        return ImageArray(p.copy(), name="other name", labels=y, classes="xyz", texts=t).fingerprint

    changed = pixels.copy()
    changed[19, 2, 3, 4] ^= 1
    assert print_of() == array.fingerprint
    assert len({print_of(), print_of(p=changed), print_of(y=labels[::-1]), print_of(t=texts[::-1])}) == 4


def test_beyond_the_memory_limit_pixels_are_mapped(tree, noise, encode):
    root = tree({f"{i}.png": encode(noise(9, 9, 3)) for i in range(20)} | {"x.png": b"bad"})
    options = ImageOptions(on_bad_file="skip", size=8)
    inside, mapped = (open_images(root, options, memory_limit=limit) for limit in (1 << 30, 100))
    assert isinstance(mapped._pixels, np.memmap)
    assert torch.equal(inside.x, mapped.x)
    assert inside.fingerprint == mapped.fingerprint
    assert mapped.x.data_ptr() == mapped._pixels.ctypes.data
    ids = np.array([4, 1])
    assert torch.equal(mapped.batch(ids).x, inside.batch(ids).x)


def test_no_room_for_the_map(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="cannot hold them"):
        allocate((10, 10), memory_limit=1)


def test_parallel_keeps_order_and_stops_on_errors():
    assert parallel(lambda i: i * i, 1000) == [i * i for i in range(1000)]
    assert parallel(lambda i: i, 0) == []

    def fails(i):
        if i in (300, 700):
            raise DataError(str(i))

    with pytest.raises(DataError, match="300"):
        parallel(fails, 1000)
