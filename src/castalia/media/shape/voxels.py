"""Arrays of voxels: from .npy, .npz and .binvox files, turned upright and brought to one size."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Literal

import numpy as np

from castalia.core.errors import DataError

Up = Literal["x", "y", "z"]

ARRAYS = frozenset({".npy", ".npz"})
BINVOX = ".binvox"

LARGEST_SIDE = 512
MOST_VOXELS = 1 << 29
"""Of all shapes of one file."""
MOST_BYTES = 1 << 30
"""Of all arrays of one file, unpacked."""


def read_arrays(data: bytes, where: str) -> np.ndarray:
    """All shapes of an ``.npy`` or ``.npz`` file.

    Arrays are (D, H, W), (N, D, H, W) or (N, 1, D, H, W), of booleans, whole numbers (filled where not 0) or floats
    (filled above 0.5, and finite). An ``.npz`` has one array of this kind, or several of one size.

    Args:
        data: the file.
        where: what to call it in errors.

    Returns:
        ``uint8`` (N, D, H, W), 0 and 1.

    Raises:
        DataError: it holds no such array; the text says what it holds.
    """
    if not data.startswith(b"PK"):
        return _filled(_loaded(data, where), where)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if total > MOST_BYTES:
                raise DataError(f"{where}: its arrays declare {total:,} bytes, which is too much.")
            found = []
            for name in sorted(archive.namelist()):
                array = _loaded(archive.read(name), f"{where}: {name}")
                if array.ndim >= 3:
                    found.append(_filled(array, f"{where}: {name}"))
    except (zipfile.BadZipFile, RuntimeError, OSError, ValueError) as error:
        raise DataError(f"{where}: not an .npz archive that can be read ({str(error)[:200]}).") from error
    if not found:
        raise DataError(f"{where}: holds no array of voxels (D, H, W) or (N, D, H, W).")
    if len({f.shape[1:] for f in found}) > 1:
        raise DataError(f"{where}: its arrays have different sizes; put those of one size into a file.")
    return np.concatenate(found)


def _loaded(data: bytes, where: str) -> np.ndarray:
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)  # safe: objects are refused
    except Exception as error:  # NumPy reads the header as Python text, which fails in many ways
        raise DataError(f"{where}: not an array that can be read ({str(error)[:200]}).") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{where}: not an array.")
    return found


def _filled(array: np.ndarray, where: str) -> np.ndarray:
    """Any array of voxels as ``uint8`` (N, D, H, W)."""
    shape = array.shape
    if array.ndim == 5 and shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.dtype.kind not in "biuf" or 0 in array.shape:
        raise DataError(
            f"{where}: {array.dtype} {shape} is no array of voxels: (D, H, W) or (N, D, H, W) of numbers or booleans."
        )
    if max(array.shape[1:]) > LARGEST_SIDE or array.size > MOST_VOXELS:
        raise DataError(f"{where}: {shape} voxels are too many; a side has at most {LARGEST_SIDE}.")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            first = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            raise DataError(f"{where}: the value at {first} is not finite.")
        return (array > 0.5).astype(np.uint8)
    return (array != 0).astype(np.uint8)


def read_binvox(data: bytes, where: str) -> np.ndarray:
    """A binvox file as ``uint8`` (D, H, W), y up; its runs are along y, then z, then x.

    Raises:
        DataError: it is none, or its runs do not fill its cube.
    """
    head, marker, _ = data[:4096].partition(b"data\n")
    if not data.startswith(b"#binvox") or not marker:
        raise DataError(f"{where}: not a binvox file: it does not begin with #binvox, or has no line 'data'.")
    found = re.search(rb"^dim +(\d{1,6}) +(\d{1,6}) +(\d{1,6})\s*$", head, re.MULTILINE)
    if found is None:
        raise DataError(f"{where}: its header has no line 'dim D H W'.")
    sides = [int(n) for n in found.groups()]
    if not all(1 <= n <= LARGEST_SIDE for n in sides):
        raise DataError(f"{where}: {sides} voxels; a side has 1 to {LARGEST_SIDE}.")
    runs = np.frombuffer(data[len(head) + len(marker) :], np.uint8)
    total = sides[0] * sides[1] * sides[2]
    if len(runs) % 2 or int(runs[1::2].sum(dtype=np.int64)) != total or (runs[::2] > 1).any():
        raise DataError(f"{where}: its runs do not fill {sides[0]} x {sides[1]} x {sides[2]} voxels; is it cut off?")
    x_z_y = np.repeat(runs[::2], runs[1::2]).reshape(sides)
    return np.ascontiguousarray(x_z_y.transpose(1, 2, 0))


def upright(voxels: np.ndarray, up: Up) -> np.ndarray:
    """Shapes (..., z, y, x) whose axis ``up`` points up, turned so that y does."""
    if up == "z":  # y becomes z, and z becomes -y
        return np.swapaxes(voxels, -3, -2)[..., ::-1, :, :]
    if up == "x":  # x becomes y, and y becomes -x
        return np.swapaxes(voxels, -2, -1)[..., ::-1]
    return voxels


def fit(voxels: np.ndarray, size: int, margin: int) -> np.ndarray:
    """Shapes (N, D, H, W) in cubes of ``size``, as ``uint8`` (N, size, size, size).

    What is smaller is put into the middle, as voxels of 30 are into a cube of 32. What is larger is made coarser by the
    smallest whole factor that lets it fit: a coarse voxel is filled where any of its fine ones is. A factor takes the
    margin into account, unless the array is a multiple of ``size`` as it stands.
    """
    largest = max(voxels.shape[1:])
    if largest > size:
        room = size if largest % size == 0 else size - 2 * margin
        factor = -(-largest // room)
        pad = [(0, 0), *((0, -n % factor) for n in voxels.shape[1:])]
        n, d, h, w = (wide := np.pad(voxels, pad)).shape
        blocks = wide.reshape(n, d // factor, factor, h // factor, factor, w // factor, factor)
        voxels = blocks.max((2, 4, 6))
    spare = [size - n for n in voxels.shape[1:]]
    return np.pad(voxels, [(0, 0), *((s // 2, s - s // 2) for s in spare)])
