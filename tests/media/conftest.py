import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def noise():
    """``noise(h, w, c)``: random uint8 (H, W, C)."""
    rng = np.random.default_rng(0)
    return lambda h, w, c: rng.integers(0, 256, (h, w, c), dtype=np.uint8)


@pytest.fixture
def encode():
    """``encode(array or image, format, **options)``: the bytes of a picture file."""

    def run(picture, kind="PNG", **options):
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)
        out = io.BytesIO()
        picture.save(out, kind, **options)
        return out.getvalue()

    return run


@pytest.fixture
def write_idx():
    def run(path, array, *, cut=None, extra=b"", kind=8, dims=None):
        shape = array.shape if dims is None else dims
        data = bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes() + extra
        data = data if cut is None else data[:cut]
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        return path

    return run


@pytest.fixture
def tree(tmp_path, noise, encode):
    """``tree({"a/1.png": None or bytes})`` writes a folder; None means a 4 x 5 RGB picture."""

    def run(files, folder="set"):
        root = tmp_path / folder
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encode(noise(4, 5, 3)) if data is None else data)
        return root

    return run
