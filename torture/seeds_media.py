"""What the fuzzer starts from among people's files: pictures, archives, Parquet, arrays, tables; who reads them."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import open_images
from castalia.media.image.write import png_bytes, read_recipe
from castalia.media.named import open_data
from torture import mutations as m
from torture.inputs import SLOW, Files, Link, Reader, one_of

OPTIONS = ImageOptions(max_pixels=1_000_000)
"""A bound on decoded pixels, so that the bound on memory can be tight."""


def _encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(len(form) + len(mode)).integers(0, 256, (8, 8, 4), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, form, **options)
    return out.getvalue()


def pictures() -> tuple[Reader, ...]:
    """Readers of picture files, folders, zips, tars and Parquet."""
    frames = [Image.new("L", (8, 8), 80 * i) for i in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    pngs = [_encoded("PNG", mode) for mode in ("L", "RGB", "RGBA", "P", "1", "LA")]
    others = {
        "jpg": [_encoded("JPEG"), _encoded("JPEG", "L", progressive=True), _encoded("JPEG", "CMYK", exif=exif)],
        "webp": [
            _encoded("WEBP"),
            _encoded("WEBP", "RGBA", lossless=True),
            _encoded("WEBP", save_all=True, append_images=frames),
        ],
        "gif": [_encoded("GIF", "P"), _encoded("GIF", "L", save_all=True, append_images=frames)],
        "bmp": [_encoded("BMP"), _encoded("BMP", "P"), _encoded("BMP", "1")],
        "tif": [
            _encoded("TIFF"),
            _encoded("TIFF", "L", compression="tiff_lzw"),
            _encoded("TIFF", "RGB", compression="jpeg"),
        ],
    }

    def opened(path: Path) -> object:
        return open_images(next(iter(sorted(path.iterdir()))), OPTIONS)

    made = [Reader("PNG", tuple({"a.png": data} for data in pngs), one_of(m.bend_png), opened)]
    mixed = tuple({f"a.{suffix}": data} for suffix, group in others.items() for data in group)
    made.append(Reader("JPEG, WebP, GIF, BMP, TIFF", mixed, one_of(m.bend), opened))
    made.append(
        Reader("recipes in pictures", _recipes(), one_of(_bend_recipe), lambda path: read_recipe(path / "a.png"))
    )
    tree: Files = {f"train/{c}/{i}.png": pngs[0] for c in "ab" for i in range(2)} | {"test/a/0.png": pngs[0]}
    lines = [json.dumps({"file_name": f"{i}.png", "text": f"no. {i}", "label": i % 2}) for i in range(3)]
    told: Files = {f"{i}.png": pngs[0] for i in range(3)} | {"metadata.jsonl": "\n".join(lines).encode()}
    made.append(
        Reader(
            "folders and metadata.jsonl", (tree, told), _bend_tree, lambda path: open_images(path, OPTIONS), share=SLOW
        )
    )
    zips = tuple({"a.zip": _zipped(files)} for files in (tree, told))
    made.append(Reader("zips", zips, one_of(m.bend_zip), opened, share=SLOW))
    made.append(
        Reader(
            "tar shards",
            tuple({"a.tar": _tarred(kind, pngs[0])} for kind in ("cls", "json", "")),
            one_of(m.bend_tar),
            opened,
        )
    )
    made.append(Reader("Parquet", _parquets(pngs[1]), _bend_parquet, opened))
    return tuple(made)


def _zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data if isinstance(data, bytes) else b"")
    return out.getvalue()


def _tarred(beside: str, picture: bytes) -> bytes:
    """A tar of pictures, each with a label or a description beside it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for i in range(3):
            files = {"png": picture, "cls": b"%d" % i, "json": json.dumps({"label": i, "text": f"no. {i}"}).encode()}
            for suffix in ("png", *filter(None, [beside])):
                info = tarfile.TarInfo(f"a/{i}.{suffix}")
                info.size = len(files[suffix])
                archive.addfile(info, io.BytesIO(files[suffix]))
    return out.getvalue()


def _recipes() -> tuple[Files, ...]:
    recipe = {"model": "vae", "seed": 1, "options": {"steps": 3}}
    picture = png_bytes(Image.new("L", (8, 8)), recipe)
    return {"a.png": picture}, {"a.png": png_bytes(Image.new("L", (8, 8))), "a.json": json.dumps(recipe).encode()}


def _bend_recipe(data: bytes, dice: random.Random) -> bytes:
    return m.bend_json(data, dice) if data[:1] == b"{" else m.bend_png(data, dice)


def _bend_tree(files: Files, dice: random.Random) -> Files:
    if dice.random() < 0.3:
        name = dice.choice(sorted(files))
        targets = (
            "../secret.png",
            "/etc/passwd",
            "/dev/zero",
            "/proc/self/environ",
            ".",
            "..",
            name.split("/")[-1],
            "/nowhere",
        )
        return {**files, name: Link(dice.choice(targets))}
    if "metadata.jsonl" in files and dice.random() < 0.8:
        return one_of(m.bend_lines, ".jsonl")(files, dice)
    if dice.random() < 0.5:
        name = dice.choice(sorted(files))
        new = dice.choice(
            ("metadata.jsonl", "train/metadata.jsonl", ".hidden.png", "b.png", "dev/x/y/z.png", "a.parquet", "x")
        )
        return {**{k: v for k, v in files.items() if k != name}, new: files[name]}
    return one_of(m.bend)(files, dice)


def _parquets(picture: bytes) -> tuple[Files, ...]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return ({"a.parquet": b"PAR1"},)
    features = {"label": {"names": ["cat", "dog"]}}
    named = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("text", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    row = {"bytes": picture, "path": "/etc/passwd"}
    tables = [
        pa.table({"image": [row] * 3, "label": [0, 1, 1], "text": list("abc")}, named),
        pa.table({"image": [picture] * 2, "label": ["x", "y"]}),
        # odd schemas: no bytes, lists, nulls, labels out of range, everything a dictionary
        pa.table({"image": [{"bytes": None, "path": "/etc/passwd"}] * 2}, pa.schema([named.field("image")])),
        pa.table({"image": [[picture]], "label": [[1]]}),
        pa.table({"image": [row] * 2, "label": [7, -1], "text": ["a", None]}, named),
        pa.table({"image": [picture] * 2, "label": [None, 1]}),
        pa.table({"image": [picture] * 2, "label": ["1", None], "text": [b"a", b"b"]}),
        pa.table(
            {"image": pa.array([picture] * 2).dictionary_encode(), "label": pa.array(["a", "b"]).dictionary_encode()}
        ),
        pa.table({"image": pa.array([], pa.binary())}),
        pa.table({"label": [1.5, 2.5]}),
    ]
    made: list[Files] = []
    for table in tables:
        for compression in ("none", "snappy"):
            out = io.BytesIO()
            pq.write_table(table, out, compression=compression)
            made.append({"a.parquet": out.getvalue()})
    return tuple(made)


def _bend_parquet(files: Files, dice: random.Random) -> Files:
    data = files["a.parquet"]
    assert isinstance(data, bytes)
    if dice.random() < 0.1:
        return files  # the odd schemas as they are
    if dice.random() < 0.6 and len(data) > 12:  # the footer decides what is read
        (size,) = struct.unpack_from("<I", data, len(data) - 8)
        at = max(0, len(data) - 8 - size)
        return {"a.parquet": data[:at] + m.bend(data[at:], dice)}
    return {"a.parquet": m.bend(data, dice)}


# arrays and tables


def arrays() -> tuple[Reader, ...]:
    """Readers of IDX, NumPy files and tables."""
    pixels = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    header = struct.pack(">HBBIII", 0, 8, 3, *pixels.shape)
    images, labels = header + pixels.tobytes(), struct.pack(">HBBI", 0, 8, 1, 3) + bytes((0, 1, 2))
    name, beside = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    idx: tuple[Files, ...] = (
        {name: images, beside: labels},
        {name + ".gz": gzip.compress(images), beside + ".gz": gzip.compress(labels)},
    )

    def saved(array: np.ndarray) -> bytes:
        out = io.BytesIO()
        np.save(out, array)
        return out.getvalue()

    npz = io.BytesIO()
    np.savez_compressed(npz, x_train=pixels, y_train=np.arange(3), x_test=pixels[:1], y_test=np.arange(1))
    points = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)
    table = b"number,x0,x1,label\n0,0.5,1e-3,a\n1,-2,3,b\n2,0,0,a\n"
    arrays: tuple[Files, ...] = ({"a.npy": saved(pixels)}, {"a.npy": saved(points)}, {"a.npy": saved(pixels / 255)})
    tables: tuple[Files, ...] = ({"a.csv": table}, {"a.tsv": b"0.5\t1\n2\t3\n"}, {"a.csv": b"1;2\n3;4\n# five\n5;6\n"})

    def opened(path: Path) -> object:
        return open_data(str(next(iter(sorted(path.iterdir())))), OPTIONS)

    return (
        Reader("IDX", idx, one_of(m.bend_idx), lambda path: open_images(path, OPTIONS)),
        Reader("npy", arrays, one_of(m.bend_npy), opened),
        Reader("npz", ({"a.npz": npz.getvalue()},), one_of(m.bend_zip), opened, share=SLOW),
        Reader("tables of points", tables, one_of(m.bend_table), opened),
    )
