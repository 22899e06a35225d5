import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import numpy as np
import pytest

from castalia.configuration import medium_of
from castalia.core.errors import DataError, RunError, UsageError
from castalia.media import named, sets
from castalia.media.download import _SameScheme, download
from castalia.media.image.decode import ImageOptions
from castalia.media.named import describe, list_data, open_data

needs_data = pytest.mark.skipif("CASTALIA_DATA" not in os.environ, reason="CASTALIA_DATA is not set")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No data anywhere, and no network."""
    monkeypatch.setenv("CASTALIA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path / "cache"))

    def refuse(*args, **kwargs):
        raise DataError("no network in tests")

    monkeypatch.setattr(sets, "download", refuse)
    return tmp_path


def test_digits():
    train, test = open_data("digits", split="train"), open_data("digits", split="test")
    assert train.x.shape == (1297, 1, 8, 8)
    assert test.x.shape == (500, 1, 8, 8)
    levels = sorted(set(train.x.unique().tolist()))
    assert levels == [round(v * 255 / 16) for v in range(17)]
    assert train.labels[:10].tolist() == list(range(10))
    assert train.spec.classes == tuple("0123456789")
    assert open_data("digits").fingerprint == train.fingerprint != test.fingerprint
    assert open_data("digits", ImageOptions(size=16, channels=3)).x.shape == (1297, 3, 16, 16)


@pytest.mark.parametrize("name", [n for n, e in named.table().items() if e.shape and not e.files and e.base != "mnist"])
def test_the_table_is_true(name):
    entry = named.table()[name]
    for split, count in entry.counts.items():
        data = open_data(name, split=split)
        assert len(data) == count
        field = data.spec.fields()["x"]
        assert field.shape == entry.shape
        assert data.name == name
        assert name in medium_of(data.spec).named()
        assert data.batch(np.arange(2)).x.shape == (2, *entry.shape)
        labelled = "label" in data.spec.sides()
        assert sum(describe(data)["class_counts"].values()) == (count if labelled else 0)


def test_describe_is_json():
    d = describe(open_data("digits", split="test"))
    assert json.loads(json.dumps(d)) == d
    assert d["examples"] == 500
    assert sum(d["class_counts"].values()) == 500
    assert d["spec"]["classes"] == list("0123456789")


def test_unknown_names(empty):
    with pytest.raises(UsageError, match="Did you mean 'mnist'"):
        open_data("mnits")
    with pytest.raises(UsageError, match="neither a data set"):
        open_data("no/such/folder")
    with pytest.raises(UsageError, match="It has: train, test"):
        open_data("digits", split="validation")


def test_paths_are_opened(empty, noise, encode):
    (empty / "mine").mkdir()
    (empty / "mine" / "a.png").write_bytes(encode(noise(3, 3, 3)))
    assert open_data(str(empty / "mine")).x.shape == (1, 3, 3, 3)
    (empty / "points.csv").write_text("x,y\n1,2\n")
    assert open_data(str(empty / "points.csv")).x.tolist() == [[1, 2]]


def test_missing_files_say_where_to_put_them(empty):
    with pytest.raises(DataError, match=r"images\.zip at .*noto-emoji.*googlefonts/noto-emoji"):
        open_data("noto-emoji")
    with pytest.raises(DataError, match="no network in tests"):
        open_data("mnist")
    rows = {row["name"]: row for row in list_data()}
    assert rows["digits"]["where"] == "built in"
    assert rows["mnist"]["where"] == "download (11.6 MB)"
    assert rows["cifar10-jpeg"]["where"].startswith("not here; ")
    assert rows["stacked-mnist"]["where"] == "made from mnist: download (11.6 MB)"
    assert rows["stacked-digits"]["where"] == "made from digits: built in"
    assert rows["grid-25"]["where"] == "built in"
    assert (rows["grid-25"]["medium"], rows["grid-25"]["shape"]) == ("points", [2])
    with pytest.raises(DataError, match="no network in tests"):
        open_data("stacked-mnist")
    assert json.dumps(list_data())


def test_wrong_contents_are_refused(empty):
    folder = empty / "data" / "mnist"
    folder.mkdir(parents=True)
    for data, message in [
        (gzip.compress(b"other"), "does not hold what it should"),
        (gzip.compress(bytes(60 << 20)), "does not hold what it should"),
        (b"junk", "cannot be read"),
        (gzip.compress(b"other")[:-3], "cannot be read"),
    ]:
        (folder / "train-images-idx3-ubyte.gz").write_bytes(data)
        with pytest.raises(DataError, match=message):
            open_data("mnist")


@needs_data
@pytest.mark.parametrize(
    ("name", "split", "shape", "classes", "captions"),
    [
        ("mnist", "train", (60000, 1, 28, 28), 10, False),
        ("mnist", "test", (10000, 1, 28, 28), 10, False),
        ("cifar10-jpeg", "test", (2500, 3, 32, 32), 10, False),
        ("noto-emoji", "train", (1464, 4, 72, 72), 0, True),
        ("noto-emoji", "test", (150, 4, 72, 72), 0, True),
    ],
)
def test_named_sets(name, split, shape, classes, captions):
    try:
        d = open_data(name, split=split)
    except DataError as error:
        pytest.skip(str(error))
    assert d.x.shape == shape
    assert len(d.spec.classes) == classes
    assert bool(d.texts) == captions
    assert shape[0] == named.table()[name].counts[split]
    assert shape[1:] == named.table()[name].shape


@needs_data
def test_mnist_loads_fast_repacked_too(tmp_path, monkeypatch):
    source = Path(os.environ["CASTALIA_DATA"]) / "mnist"
    if not source.is_dir():
        pytest.skip("CASTALIA_DATA holds no mnist")
    start = time.perf_counter()
    expected = open_data("mnist", split="test").fingerprint
    assert time.perf_counter() - start < 2  # 10,000 pictures; the bound is loose because machines are shared
    monkeypatch.setenv("CASTALIA_DATA", str(tmp_path))
    shutil.copytree(source, tmp_path / "mnist")
    for path in (tmp_path / "mnist").glob("t10k-*"):
        path.chmod(0o644)
        path.parent.chmod(0o755)
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    assert open_data("mnist", split="test").fingerprint == expected


# Downloads


@pytest.fixture
def served(tmp_path):
    data = np.random.default_rng(0).bytes(700_000)
    (tmp_path / "source.bin").write_bytes(data)
    url = (tmp_path / "source.bin").as_uri()
    return url, {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "schemes": ("file",)}, data


def test_download(served, tmp_path):
    url, options, data = served
    calls = []
    download(url, tmp_path / "new" / "a.bin", progress=lambda *c: calls.append(c), **options)
    assert (tmp_path / "new" / "a.bin").read_bytes() == data
    assert calls[-1] == (700_000, 700_000)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.bin"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 699_999}, "more than the 699999"),
        ({"size": 700_001}, "700000 of 700001"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"schemes": ("https",)}, "only https"),
    ],
)
def test_a_wrong_download_leaves_nothing(served, tmp_path, change, message):
    url, options, _ = served
    with pytest.raises(DataError, match=message):
        download(url, tmp_path / "new" / "a.bin", **{**options, **change})
    assert not list((tmp_path / "new").glob("*"))


def test_download_errors(served, tmp_path, monkeypatch):
    url, options, _ = served
    with pytest.raises(DataError, match="cannot be downloaded"):
        download(url + ".missing", tmp_path / "a.bin", **options)
    for error, message in [
        (urllib.error.URLError("Name or service not known"), "Name or service not known.*Without a network"),
        (TimeoutError("timed out"), "timed out"),
        (urllib.error.HTTPError(url, 404, "Not Found", Message(), io.BytesIO()), "404 Not Found"),
        (http.client.IncompleteRead(b""), "broke off"),
    ]:

        def fail(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr(urllib.request.OpenerDirector, "open", fail)
        with pytest.raises(DataError, match=message):
            download(url, tmp_path / "a.bin", **options)
    assert not (tmp_path / "a.bin").exists()


def test_download_onto_a_full_disk(served, tmp_path, monkeypatch):
    url, options, _ = served

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="disk is full"):
        download(url, tmp_path / "a.bin", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["source.bin"]


def test_redirects_stay_on_https():
    request = urllib.request.Request("https://example.org/a")
    handler = _SameScheme()
    with pytest.raises(urllib.error.URLError, match="not https"):
        handler.redirect_request(request, io.BytesIO(), 302, "", Message(), "http://example.org/a")
    assert handler.redirect_request(request, io.BytesIO(), 302, "", Message(), "https://example.org/b") is not None
