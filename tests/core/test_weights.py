from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from castalia.core.errors import RunError
from castalia.core.weights import Rows, load_parts, load_tensors, read_metadata, save_part, save_tensors

TENSORS = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(7)}


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    """Neither in tensors nor in metadata; a bit in the name of a digest harms nothing else."""
    path = tmp_path / "w.safetensors"
    save_tensors(path, TENSORS, {"castalia.step": "12"})
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :])
        try:
            tensors, metadata = load_tensors(path)
        except RunError:
            continue
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
        assert metadata["castalia.step"] == "12"


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path) -> None:
    metadata = {f"castalia.{letter}": letter for letter in "gfedcba"}
    for number in range(8):
        save_tensors(tmp_path / str(number), TENSORS, metadata)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(8)}) == 1


def test_files_without_a_digest_of_the_metadata_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save

    (tmp_path / "w.safetensors").write_bytes(save(TENSORS, {"castalia.step": "3"}))
    assert load_tensors(tmp_path / "w.safetensors")[1] == {"castalia.step": "3"}


def test_what_is_saved_again_has_its_own_digest(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, TENSORS, {"castalia.step": "3"})
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors, metadata | {"castalia.step": "4"})
    assert load_tensors(path)[1]["castalia.step"] == "4"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(RunError, match="not a plain file"):
        load_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("header", [b"[" * 100_000, b'{"__metadata__": [7]}', b"\xff\xff"])
@pytest.mark.parametrize("read", [load_tensors, read_metadata])
def test_headers_that_cannot_be_read(read: Callable[[Path], object], header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(RunError, match="not a valid safetensors") as caught:
        read(path)
    assert len(str(caught.value)) < 500


def test_a_header_longer_than_its_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 90 << 20))
    for read in (load_tensors, read_metadata):
        with pytest.raises(RunError, match="claims"):
            read(path)


def test_rows_that_are_there_twice_do_not_stand_for_missing_ones(tmp_path: Path) -> None:
    for rank in range(2):
        save_part(tmp_path, "model", (rank, 2), {"w": torch.ones(2, 3)}, {"w": Rows(0, 4)}, {})
    with pytest.raises(RunError, match="some twice"):
        load_parts(tmp_path, "model")


def test_endless_rows_are_not_allocated(tmp_path: Path) -> None:
    save_part(tmp_path, "model", (0, 1), {"w": torch.ones(2, 3)}, {"w": Rows(0, 1 << 50)}, {})
    with pytest.raises(RunError, match="2 of 1125899906842624 rows"):
        load_parts(tmp_path, "model")


@pytest.mark.parametrize("text", ['{"w": [0, Infinity]}', '{"w": [NaN, 4]}', '{"w": 3}', "[]", "{"])
def test_rows_that_are_no_numbers(text: str, tmp_path: Path) -> None:
    save_tensors(tmp_path / "model-00001-of-00001.safetensors", {"w": torch.ones(2, 3)}, {"castalia.rows": text})
    with pytest.raises(RunError, match="which rows"):
        load_parts(tmp_path, "model")


def test_a_process_without_rows(tmp_path: Path) -> None:
    for rank, (first, rows) in enumerate(((0, 1), (1, 0))):
        save_part(tmp_path, "model", (rank, 2), {"w": torch.ones(rows, 3)}, {"w": Rows(first, 1)}, {})
    assert load_parts(tmp_path, "model")[0]["w"].shape == (1, 3)


def test_parts_do_not_depend_on_the_order_of_names(tmp_path: Path) -> None:
    """A resumed run gives its moments in another order."""
    tensors, rows = {"a": torch.ones(2, 3), "b": torch.zeros(1, 3)}, {"a": Rows(0, 4), "b": Rows(0, 2)}
    found = []
    for order in (["a", "b"], ["b", "a"]):
        save_part(tmp_path, "m", (0, 1), {k: tensors[k] for k in order}, {k: rows[k] for k in order}, {})
        path = next(tmp_path.glob("m-*"))
        found.append((read_metadata(path), load_tensors(path)[0]["a"].tolist()))
    assert found[0] == found[1]
