"""What the fuzzer starts from among Castalia's own files: runs, checkpoints, weights, exports; and who reads them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch

from castalia import checkpoints
from castalia.catalogue import CATALOGUE
from castalia.core.files import sha256
from castalia.core.weights import Rows, load_parts, load_tensors, read_metadata, save_part, save_tensors
from castalia.interop.diffusers import looks_like_diffusers
from castalia.interop.diffusers_runs import export_diffusers, import_diffusers
from castalia.interop.folder import export_folder, import_folder
from castalia.interop.received import HASHED, SUMS
from castalia.runs import Run, open_run
from castalia.training import keeping, plan
from torture import mutations as m
from torture import small
from torture.damage import measure
from torture.inputs import SLOW, Files, Link, Reader, one_of


def runs(folder: Path) -> tuple[Reader, ...]:
    """Readers of runs, of their parts, and of folders that were exported; made in ``folder``."""
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
    state = keeping.state_of(found)
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
