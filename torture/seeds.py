"""What the fuzzer starts from: good files of every kind, who reads them, and how they are mutated."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from castalia import checkpoints
from castalia.catalogue import CATALOGUE
from castalia.core.files import sha256
from castalia.core.weights import Rows, load_parts, load_tensors, read_metadata, save_part, save_tensors
from castalia.interop.diffusers import looks_like_diffusers
from castalia.interop.diffusers_runs import export_diffusers, import_diffusers
from castalia.interop.folder import export_folder, import_folder
from castalia.interop.received import HASHED, SUMS
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import open_images
from castalia.media.image.write import png_bytes, read_recipe
from castalia.media.named import open_data
from castalia.runs import Run, open_run
from castalia.training import loop, plan
from torture import mutations as m
from torture import small
from torture.damage import measure

OPTIONS = ImageOptions(max_pixels=1_000_000)
"""A bound on decoded pixels, so that the bound on memory can be tight."""


SLOW = 0.25
"""Share of the inputs for readers of many files, or of whole models."""


@dataclass(frozen=True)
class Link:
    """A symbolic link among the files of an input."""

    target: str


Files = dict[str, bytes | Link]
"""The files of an input, by their path below its folder."""

Bend = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Reader:
    """Something that reads what strangers wrote.

    Attributes:
        name: for the table.
        seeds: good inputs.
        mutate: makes a hostile input of a good one.
        read: reads the input in a folder; writes nothing outside of it.
        share: of the usual number of inputs, less where one takes long.
    """

    name: str
    seeds: tuple[Files, ...]
    mutate: Callable[[Files, random.Random], Files]
    read: Callable[[Path], object]
    share: float = 1.0


def readers(folder: Path) -> tuple[Reader, ...]:
    """All readers, with seeds made in ``folder``."""
    return (*_pictures(), *_arrays(), *_runs(folder))


def one_of(bend: Bend, *names: str) -> Callable[[Files, random.Random], Files]:
    """Mutates one of the files whose names end so (any, without names)."""

    def mutate(files: Files, dice: random.Random) -> Files:
        fitting = [n for n in files if n.endswith(names)] if names else list(files)
        name = dice.choice(sorted(fitting))
        old = files[name]
        return {**files, name: bend(old, dice) if isinstance(old, bytes) else old}

    return mutate


# pictures


def _encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(len(form) + len(mode)).integers(0, 256, (8, 8, 4), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, form, **options)
    return out.getvalue()


def _pictures() -> tuple[Reader, ...]:
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


def _arrays() -> tuple[Reader, ...]:
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


# runs, weights, folders from elsewhere


def _runs(folder: Path) -> tuple[Reader, ...]:
    made = {name: folder / "seeds" / name for name in ("vae", "ddpm")}
    for name, path in made.items():
        small.finished(name, path, steps=2, checkpoint_every=2, **({} if name == "vae" else {"samples": 1}))
        measure(open_run(path))
    exported = export_folder(open_run(made["vae"]), folder / "seeds" / "exported")
    theirs = _unconditional(folder)
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2, dtype=torch.int64), "c": torch.ones(())}
    plain, parts = folder / "seeds" / "plain.safetensors", folder / "seeds" / "parts"
    save_tensors(plain, tensors, {"castalia.step": "3"})
    parts.mkdir()
    for rank, (first, last) in enumerate(((0, 1), (1, 2))):
        mine = {"a": tensors["a"][first:last]} | ({"b": tensors["b"]} if rank == 0 else {})
        save_part(parts, "w", (rank, 2), mine, {"a": Rows(first, 2)}, {"castalia.step": "3"})
    jsons = ("config.json", "plan.json", "results.json", "metrics.jsonl")
    texts: Files = {name: (made["vae"] / name).read_bytes() for name in jsons}
    return (
        Reader(
            "safetensors",
            ({"w.safetensors": plain.read_bytes()}, _files(parts)),
            one_of(m.bend_safetensors),
            _read_weights,
        ),
        Reader("JSON of a run", (_unsealed(texts), texts), _bend_run, _read_run),
        Reader("checkpoints", (_files(made["vae"]),), _bend_checkpoint, _read_checkpoint, share=SLOW),
        Reader("exported folders", (_files(exported),), _bend_export, _import, share=SLOW),
        Reader("folders of diffusers", (_files(theirs),), _bend_diffusers, _import, share=SLOW),
    )


def _unconditional(folder: Path) -> Path:
    """A pipeline of diffusers, which knows no labels."""
    source = folder / "seeds" / "ddpm"
    return export_diffusers(open_run(source), folder / "seeds" / "diffusers")


def _files(folder: Path) -> Files:
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.parent.name != "samples")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def _unsealed(files: Files) -> Files:
    """Without the hashes in JSON files: whoever changes a file can change its hash."""
    out: Files = {}
    for name, data in files.items():
        if name.endswith(".json") and isinstance(data, bytes):
            value = json.loads(data)
            value.pop("sha256", None)
            data = json.dumps(value).encode()
        out[name] = data
    return out


def _read_weights(path: Path) -> object:
    if (path / "w.safetensors").exists():
        read_metadata(path / "w.safetensors")
        return load_tensors(path / "w.safetensors")
    return load_parts(path, "w")


def _bend_run(files: Files, dice: random.Random) -> Files:
    if dice.random() < 0.15:
        return one_of(m.bend_lines, "metrics.jsonl")(files, dice)
    return one_of(m.bend_json, "config.json" if dice.random() < 0.6 else ".json")(files, dice)


def _checked(run: Run) -> Run:
    """A run whose model is one of the catalogue's, with that model's own configuration and nothing else."""
    expected = CATALOGUE[run.recipe.model].load().Config
    if type(run.recipe.config) is not expected:
        raise AssertionError(f"{run.recipe.model} has a configuration of the class {type(run.recipe.config)}")
    return run


def _read_run(path: Path) -> object:
    run = _checked(open_run(path))
    return run.results(), run.metrics(), run.losses(), plan.load(path / "plan.json", {})


def _bend_checkpoint(files: Files, dice: random.Random) -> Files:
    """One file of a checkpoint, and mostly a manifest that calls it right."""
    inside = sorted(n for n in files if n.startswith("checkpoints/") and not n.endswith("manifest.json"))
    if dice.random() < 0.15:
        return one_of(m.bend_json, "manifest.json")(files, dice)
    name = dice.choice(inside) if dice.random() < 0.5 else next(n for n in inside if n.endswith("state.json"))
    bend = m.bend_json if name.endswith(".json") else m.bend_safetensors
    return {**one_of(bend, name)(files, dice), "rehash": b"" if dice.random() < 0.8 else Link("nowhere")}


def _read_checkpoint(path: Path) -> object:
    rehash = (path / "rehash").is_file()
    for manifest in path.glob("checkpoints/*/manifest.json"):
        if rehash:
            names = [p for p in manifest.parent.iterdir() if p != manifest]
            table = {p.name: {"size": p.stat().st_size, "sha256": sha256(p)} for p in names}
            manifest.write_text(json.dumps({"step": 2, "files": table}))
    run = _checked(open_run(path))
    found = checkpoints.newest(run.checkpoints)
    if found is None:
        return None
    state = loop._state(found)
    plan.load(path / "plan.json", state.plan)
    run.model(torch.device("cpu"), at=found)
    return [load_parts(found.path, group) for group in ("model", "optimizer")]


def _bend_export(files: Files, dice: random.Random) -> Files:
    """One file of an export, and mostly hashes that call it right."""
    kind = dice.random()
    if kind < 0.06:
        return {**files, dice.choice(sorted(files)): Link(dice.choice(("/etc/passwd", "/dev/zero", "README.md", ".")))}
    if kind < 0.2:
        return one_of(_bend_sums, SUMS)(files, dice)
    name = dice.choice(("config.json", "config.json", "config.json", "model.safetensors", "metrics.json"))
    bend = m.bend_safetensors if name.endswith("safetensors") else m.bend_json
    changed = one_of(bend, name)(_unsealed(files), dice)
    return {**changed, "rehash": b""} if dice.random() < 0.9 else changed


def _bend_sums(data: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.5:
        return m.bend(data, dice)
    lines = data.decode().splitlines()
    lines.append(f"{'0' * 64}  {dice.choice((*m.NAMES, *m.STRANGERS))}")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _bend_diffusers(files: Files, dice: random.Random) -> Files:
    if dice.random() < 0.06:
        return {**files, dice.choice(sorted(files)): Link(dice.choice(("/etc/passwd", "/dev/zero", ".")))}
    if dice.random() < 0.2:
        return one_of(m.bend_safetensors, ".safetensors")(files, dice)
    return one_of(m.bend_json, ".json")(files, dice)


def _import(path: Path) -> object:
    """As ``castalia import`` does."""
    if (path / "rehash").is_file() and not (path / SUMS).is_symlink():
        there = [n for n in HASHED if (path / n).is_file() and not (path / n).is_symlink()]
        (path / SUMS).write_text("".join(f"{sha256(path / n)}  {n}\n" for n in there))
    out = path / "out"
    run = import_diffusers(path, out) if looks_like_diffusers(path) else import_folder(path, out)
    return _checked(run)


def lay(files: Files, folder: Path) -> None:
    """Write the files of an input into a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, Link):
            os.symlink(data.target, path)
        else:
            path.write_bytes(data)
