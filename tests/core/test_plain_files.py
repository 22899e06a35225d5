"""Only plain files are read, everywhere; checkpoints are in the order of their steps."""

import io
import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from castalia import checkpoints
from castalia.core.errors import CastaliaError, DataError, RunError
from castalia.core.files import open_plain, read_bounded, read_json, read_sealed, sha256, write_json
from castalia.core.weights import load_tensors, read_metadata
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import open_images
from castalia.media.image.tar import members
from castalia.media.named import open_data
from castalia.media.points.files import read_table
from castalia.runs import Run


@pytest.fixture(autouse=True)
def soon():
    """A reader that waits is stopped."""

    def stop(*_):
        raise TimeoutError("it waits")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.fixture(params=["pipe", "device", "dangling"])
def odd(request, tmp_path):
    def make(name):
        path = tmp_path / "odd" / name
        path.parent.mkdir(exist_ok=True)
        if request.param == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero" if request.param == "device" else tmp_path / "nowhere")
        return path

    return make


@pytest.mark.parametrize(
    "read",
    [
        read_json,
        load_tensors,
        read_metadata,
        read_table,
        lambda p: list(members(p)),
        lambda p: read_bounded(p, 1 << 20),
    ],
)
def test_no_reader_waits_for_what_is_no_plain_file(odd, read):
    with pytest.raises(CastaliaError, match=r"odd/a\.x.*(not a plain file|No such file)"):
        read(odd("a.x"))
    with pytest.raises(OSError, match=r"plain file|No such file"):
        sha256(odd("b.x"))


@pytest.mark.parametrize("name", ["x.parquet", "x.tar", "x.png", "x.csv", "x.zip", "x.npz", "train-images-idx3-ubyte"])
def test_data_that_is_no_plain_file(odd, name):
    path = odd(name)
    for what in (path, path.parent):
        with pytest.raises(CastaliaError):
            open_data(str(what))


def test_a_checkpoint_with_a_pipe_in_it_is_damaged(odd):
    folder = odd("a.safetensors").parent
    target = folder.with_name("step-00000007")
    os.rename(folder, target)
    write_json(target / "manifest.json", {"step": 7, "files": {"a.safetensors": {"size": 0, "sha256": ""}}})
    assert checkpoints.newest(target.parent) is None
    assert checkpoints.damaged(target.parent) == [target]


def test_metrics_that_are_no_plain_file_or_hold_strange_numbers(odd, tmp_path):
    run = Run(odd("metrics.jsonl").parent, None, None, "")
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        run.metrics()
    lines = [
        '{"step": 1, "a/loss": ' + "9" * 400 + "}",
        '{"step": 2, "a/loss": NaN}',
        '{"step": 3, "a/loss": 2}',
        "\udcff",
    ]
    lines += ['{"step": ' + "9" * 400 + "}"]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    assert Run(tmp_path, None, None, "").losses() == {"a/loss": [(3, 2)]}


def test_json_has_no_nan(tmp_path):
    (tmp_path / "results.json").write_text('{"nll": NaN}')
    with pytest.raises(RunError, match=r"results\.json"):
        Run(tmp_path, None, None, "").results()


def test_many_fields_that_look_like_hashes_are_read_in_no_time(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({str(i): "0" * 64 for i in range(4000)}))
    started = time.perf_counter()
    assert len(read_sealed(tmp_path / "a.json")) == 4000
    assert time.perf_counter() - started < 1


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (99_999_999, 100_000_000, 100_000_001):
        checkpoints.save(tmp_path, step, {}, {"step": step}, metadata={}, keep=2)
    assert [c.step for c in checkpoints.intact(tmp_path)] == [100_000_000, 100_000_001]
    assert checkpoints.newest(tmp_path).step == 100_000_001


def test_a_plain_file_is_opened_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with open_plain(tmp_path / "b") as file:
        assert file.read() == b"abc"


def test_hidden_files_are_not_read_and_large_letters_are(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    out = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(out, "PNG")
    (tmp_path / ".cache").mkdir()
    table = pa.table({"image": pa.array([b"damaged", out.getvalue()], pa.binary())})
    for name in ("X.PARQUET", "._X.parquet", ".cache/old.parquet"):
        pq.write_table(table, tmp_path / name)
    for stream in ("auto", "always", "never"):
        d = open_images(tmp_path, ImageOptions(stream=stream, on_bad_file="skip"))
        assert len(d) == (2 if stream == "always" else 1)
        with pytest.raises(DataError, match=r"X\.PARQUET row 0"):
            open_images(tmp_path, ImageOptions(stream=stream))
