"""Captions as a column of batches, alike from folders, zips, tars and Parquet."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from castalia.configuration import spec_from_json, spec_to_json
from castalia.core.data import join
from castalia.core.errors import UsageError
from castalia.core.specs.text import TextSpec
from castalia.media.image.decode import ImageOptions
from castalia.media.named import open_data
from castalia.media.text.tokens import tokens_of

TEXTS = {"a": "red héart", "b": "", "c": "a long one, longer than is kept €"}
KEPT = 12


@pytest.fixture(params=["folder", "zip", "tar", "tar in memory", "parquet", "parquet on disk"])
def source(request, tmp_path, noise, encode):
    """A source of three captioned pictures, and how it is opened."""
    pictures = {name: encode(noise(4, 5, 3)) for name in TEXTS}
    lines = "\n".join(json.dumps({"file_name": f"{n}.png", "text": t}) for n, t in TEXTS.items()).encode()
    stream, kind = "auto", request.param
    if kind == "folder":
        path = tmp_path / "set"
        path.mkdir()
        (path / "metadata.jsonl").write_bytes(lines)
        for name, data in pictures.items():
            (path / f"{name}.png").write_bytes(data)
    elif kind == "zip":
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.jsonl", lines)
            for name, data in pictures.items():
                archive.writestr(f"{name}.png", data)
    elif kind.startswith("tar"):
        path, stream = tmp_path / "set.tar", "auto" if kind == "tar" else "never"
        with tarfile.open(path, "w") as archive:
            for name, data in pictures.items():
                for suffix, content in (("png", data), ("txt", TEXTS[name].encode())):
                    info = tarfile.TarInfo(f"{name}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    else:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        path, stream = tmp_path / "set.parquet", "never" if kind == "parquet" else "always"
        pq.write_table(pa.table({"image": pa.array(list(pictures.values())), "text": list(TEXTS.values())}), path)
    return str(path), stream


def test_captions_are_a_column(source):
    path, stream = source
    d = open_data(path, ImageOptions(captions=KEPT, stream=stream))
    assert d.spec.columns == (("caption", TextSpec("bytes", 257, KEPT)),)
    assert spec_from_json(spec_to_json(d.spec)) == d.spec
    batch = d.batch(np.array([2, 0, 1]))
    caption = batch.extra["caption"]
    assert (caption.dtype, caption.shape) == (torch.int64, (3, KEPT))
    tokens = tokens_of(d.spec.columns[0][1])
    assert [tokens.decode(row) for row in caption.tolist()] == ["a long one, ", "red héart", ""]
    assert caption[1].tolist() == [*"red héart".encode(), -1, -1]
    assert (caption[2] == -1).all()
    alone = d.batch(np.array([1]))
    assert alone.extra["caption"].shape == (1, 0)
    assert join([alone, batch], d.spec).extra["caption"].shape == (4, KEPT)


def test_captions_are_left_out_unless_asked_for(source):
    d = open_data(source[0], ImageOptions(stream=source[1]))
    assert d.spec.columns == ()
    assert d.batch(np.array([0])).extra == {}
    assert list(d.texts) == list(TEXTS.values())


def test_a_character_is_not_cut(source):
    d = open_data(source[0], ImageOptions(captions=6, stream=source[1]))
    assert d.batch(np.array([0])).extra["caption"].tolist() == [[*b"red h", -1][:5]]


def test_pictures_without_captions_have_no_column(tree):
    d = open_data(str(tree({"a.png": None})), ImageOptions(captions=8))
    assert d.spec.columns == ()
    with pytest.raises(UsageError, match="captions is 0 to"):
        ImageOptions(captions=-1)


def test_data_read_like_a_run_have_its_captions(source):
    like = open_data(source[0], ImageOptions(captions=6, stream=source[1])).spec
    d = open_data(source[0], ImageOptions(stream=source[1]), like=like)
    assert d.spec == like
