"""Several arrays or columns in one file, labels of all types, and files that unpack to far more than they hold."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from castalia.core.errors import DataError
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import open_images

PLAIN, ALWAYS = ImageOptions(), ImageOptions(stream="always")
X = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


@pytest.fixture
def npz(tmp_path):
    def run(*plain, **arrays):
        np.savez(tmp_path / "a.npz", *plain, **arrays)
        return open_images(tmp_path / "a.npz", PLAIN)

    return run


def test_pictures_are_told_by_their_name(npz):
    d = npz(images=X, masks=255 - X, y=np.array([0, 1, 0]))
    assert np.array_equal(d.x[:, 0].numpy(), X)
    assert "Taken: 'images' |u1 (3, 4, 5). Left out: 'masks' |u1 (3, 4, 5)." in d.notes
    with pytest.raises(DataError, match=r"'left' .*'right' .* could all be the pictures; call the one 'images'"):
        npz(left=X, right=X)
    d = npz(x_train=X, x_test=X, mean=X[:2])
    assert len(d) == 3
    assert "Left out: 'mean'" in d.notes[0]


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (np.array([7.0, 3.0, 7.0]), ("3", "7"), [1, 0, 1]),
        (np.array([True, False, True]), ("False", "True"), [1, 0, 1]),
        (np.array([b"dog", b"cat", b"dog"]), ("cat", "dog"), [1, 0, 1]),
        (np.array(["dog", "cat", "dog"]), ("cat", "dog"), [1, 0, 1]),
        (np.array([[2], [1], [2]], np.uint8), ("1", "2"), [1, 0, 1]),
        (np.array([-(2**40), 2**40, 0], ">i8"), ("-1099511627776", "0", "1099511627776"), [0, 2, 1]),
    ],
)
def test_labels_of_an_npz(npz, labels, classes, numbers):
    for d in (npz(images=X, labels=labels), npz(X, labels)):
        assert d.spec.classes == classes
        assert d.labels.tolist() == numbers


def test_what_is_no_label_is_said(npz):
    d = npz(images=X, y=np.array([0.5, 1, 2]))
    assert d.labels is None
    assert any("not whole" in note for note in d.notes)
    d = npz(images=X, y=np.zeros(3, complex))
    assert d.labels is None
    assert any("'y' <c16 (3,) is left out" in note for note in d.notes)


def small(path, code):
    """The memory in MiB that ``code`` takes in a process of its own beyond what its imports take, and what it says."""
    text = (
        "import resource, sys; from castalia.media.image.sources import open_images; import numpy, pathlib, pyarrow;"
        "from castalia.media.image.decode import ImageOptions; from castalia.core.errors import DataError;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10; before = peak(); said = ''\n"
        f"try:\n    {code}\nexcept DataError as error:\n    said = str(error)\nprint(peak() - before, said)"
    )
    out = subprocess.run(
        [sys.executable, "-c", text, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    used, _, said = out.stdout.strip().partition(" ")
    return int(used), said


OPEN = "open_images(pathlib.Path(sys.argv[1]), ImageOptions())"


def test_an_npz_that_unpacks_to_far_more_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((300, 1000, 1000), np.uint8))
    used, said = small(tmp_path / "a.npz", OPEN)
    assert "a zip bomb?" in said
    assert used < 100


def test_labels_without_letters_take_no_memory(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<U0", "fortran_order": False, "shape": (200_000_000,)})
    np.savez(tmp_path / "a.npz", images=X)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("labels.npy", head.getvalue())
    used, said = small(tmp_path / "a.npz", OPEN)
    assert "3 pictures in 'images' but 200000000 labels" in said
    assert used < 100


# Parquet


@pytest.fixture
def parquet(tmp_path, noise, encode):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pictures = [encode(noise(4, 5, 3)) for _ in range(3)]

    def run(name="a.parquet", options=PLAIN, folder=False, image=None, **columns):
        image = pa.array(pictures, pa.binary()) if image is None else image
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": image, **columns}), tmp_path / name)
        return open_images(tmp_path if folder else tmp_path / name, options)

    run.pa, run.pictures = pa, pictures
    return run


@pytest.mark.parametrize("options", [PLAIN, ALWAYS])
@pytest.mark.parametrize(
    ("make", "classes", "numbers"),
    [
        (lambda pa: pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), [1, 0, 1]),
        (lambda pa: pa.array([5, 3, 5]).dictionary_encode(), ("3", "5"), [1, 0, 1]),
        (lambda pa: pa.array(["b", "a", "b"], pa.string_view()), ("a", "b"), [1, 0, 1]),
        (lambda pa: pa.array([True, False, True]), ("False", "True"), [1, 0, 1]),
        (lambda pa: pa.array([2.0, 1.0, 2.0]), ("1", "2"), [1, 0, 1]),
        (lambda pa: pa.array([0.5, 1.0, 2.0]), (), None),
    ],
)
def test_labels_of_a_parquet(parquet, make, classes, numbers, options):
    d = parquet(options=options, label=make(parquet.pa))
    assert d.spec.classes == classes
    assert (d.labels if numbers is None else d.labels.tolist()) == numbers
    assert numbers is not None or any("not whole" in note for note in d.notes)


@pytest.mark.parametrize("options", [PLAIN, ALWAYS])
def test_views_of_pictures_are_read_and_other_columns_said(parquet, options):
    view = parquet.pa.array(parquet.pictures, parquet.pa.binary_view())
    lists = parquet.pa.array([[1], [2], [3]])
    d = parquet(options=options, image=view, mask=view, label=lists)
    assert d.batch(np.arange(3)).x.shape == (3, 3, 4, 5)
    assert any("'mask'" in note for note in d.notes)
    assert any("'label' (list<" in note for note in d.notes)


@pytest.mark.parametrize("options", [ImageOptions(stream="never"), ALWAYS])
def test_classes_that_disagree_between_files_are_an_error(parquet, tmp_path, options):
    pa = parquet.pa
    for name, names in (("0", ["cat", "dog"]), ("1", ["cat", "cow"])):
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = pa.table({"image": pa.array(parquet.pictures, pa.binary()), "label": [0, 1, 0]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pa.parquet.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: its class 'cow' is not among those of 0\.parquet"):
        open_images(tmp_path, options)


def test_a_column_of_one_large_value_is_refused_in_time(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"image": pa.array([{"bytes": bytes(20_000_000), "path": "a"}] * 100)})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert (tmp_path / "a.parquet").stat().st_size < 2000
    for code in (OPEN, OPEN.replace("()", "(stream='always')")):
        used, said = small(tmp_path / "a.parquet", code)
        assert "unpacks to more than 512 MiB" in said
        assert used < 1500
