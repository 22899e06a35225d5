"""From a path to a data set of molecules: read, checked, in the form that is asked for; kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from castalia.chemistry.molecules import (
    Mol,
    bonds_of,
    canonical,
    chem,
    kinds_of,
    selfies,
    split_smiles,
    tokens_in,
)
from castalia.core.config import Config, from_json, to_json
from castalia.core.errors import CastaliaError, DataError, UsageError
from castalia.core.specs.molecule import BONDS, MOST_ATOMS, MoleculeSpec
from castalia.core.weights import load_tensors, save_tensors
from castalia.media.arranged import class_numbers
from castalia.media.molecule.source import Line, molecule_in, read_lines
from castalia.media.molecule.table import Molecules
from castalia.media.sets import Progress, cache_folder
from castalia.media.splits import hashed_split

FEW = 20
"""Fewer molecules than this are not split."""
MANY = 5_000
"""From so many molecules on what was read is kept in the cache."""
MOST_TOKENS = 4_096
FORM = 2
"""Number of the form in which molecules are kept; raised when it changes."""


@dataclass(frozen=True)
class MoleculeOptions(Config):
    """How molecules are read. Plain values, so that it survives a JSON round trip.

    Attributes:
        kind: ``graph``, or strings: ``smiles`` or ``selfies``.
        length: atoms of a graph, or tokens of a string, at most; larger molecules are left out. 0: as many as the
            largest has.
        charged: graphs: whether molecules with charged atoms are used; if not, they are left out.
        stereo: strings: whether stereochemistry is kept.
        fragments: whether what consists of several pieces (salts) is used as it is; if not, its largest piece is.
        column: of tables, the one that holds SMILES; empty finds it by its name.
        labels: ``none``; ``folders``: the folder of a file is its class; ``column:NAME`` of a table.
        on_bad_line: ``error`` stops at the first molecule that cannot be read, ``skip`` leaves it out and says so.
    """

    kind: Literal["graph", "smiles", "selfies"] = "graph"
    length: int = 0
    charged: bool = False
    stereo: bool = False
    fragments: bool = False
    column: str = ""
    labels: str = "none"
    on_bad_line: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not 0 <= self.length <= MOST_TOKENS:
            raise UsageError(f"length is 0 (as long as the longest) to {MOST_TOKENS:,}, not {self.length}.")
        if self.labels not in ("none", "folders") and not self.labels.startswith("column:"):
            raise UsageError(f"labels is none, folders, or column:NAME, not {self.labels!r}.")


@dataclass(frozen=True)
class Made:
    """Molecules in one form, before they are cut into splits.

    Attributes:
        smiles: canonical SMILES of each, without stereochemistry where the form has none.
        rows: kinds of atoms, or tokens.
        bonds: graphs only.
        kept: the number of each one's line.
        spec: their shape, without classes.
        notes: what was left out.
    """

    smiles: list[str]
    rows: np.ndarray
    bonds: np.ndarray | None
    kept: np.ndarray
    spec: MoleculeSpec
    notes: list[str]


def open_molecules(
    path: Path,
    options: MoleculeOptions,
    *,
    split: str | None = None,
    like: MoleculeSpec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Molecules:
    """Open a file, folder or zip of molecules.

    Args:
        path: what to read.
        options: how; what ``like`` settles is not looked at.
        split: ``train``, ``test``, or None for everything. Without splits of its own a tenth is ``test``, by a hash of
            the molecule, so that no molecule is in both.
        like: the shape of a run's data.
        name: what to call it; None for the last part of the path.
        progress: called with (molecules done, molecules).

    Raises:
        DataError: it cannot be read; the text names file and line.
        MissingExtra: RDKit or selfies is not installed.
    """
    path = Path(path)
    found = read_lines(path, options.column, options.labels, split)
    made = _cached(found.lines, options, like, progress)
    rows, notes = None, [*found.notes, *made.notes]
    if len(made.rows) >= FEW:
        rows, more = hashed_split(split, found.split, made.smiles, str(path), "molecules")
        notes += more
    elif split == "test" and found.split is None:
        raise DataError(f"{path} has fewer than {FEW} molecules, too few to set some aside for testing.")
    rows = np.arange(len(made.rows)) if rows is None else rows
    classes = found.classes if like is None else like.classes
    texts = [found.lines[i].label for i in made.kept[rows].tolist()]
    labels = class_numbers(texts if found.classes else [], classes, str(path))
    spec = replace(made.spec, classes=() if labels is None else classes)
    return Molecules(
        [made.smiles[i] for i in rows.tolist()],
        made.rows[rows],
        None if made.bonds is None else made.bonds[rows],
        spec,
        name=name or path.name,
        labels=labels,
        notes=notes,
    )


def _cached(
    lines: Sequence[Line], options: MoleculeOptions, like: MoleculeSpec | None, progress: Progress | None
) -> Made:
    """:func:`made_of`; of many molecules it is kept in the cache under the hash of all that it depends on."""
    if len(lines) < MANY:
        return made_of(lines, options, like, progress)
    import rdkit

    how = {**to_json(options), "labels": "", "column": ""}
    digest = hashlib.sha256(json.dumps([FORM, rdkit.__version__, how, like and to_json(like)]).encode())
    for line in lines:
        digest.update(line.text.encode() + b"\n")
    place = cache_folder() / "molecules" / f"{digest.hexdigest()[:32]}.safetensors"
    try:
        tensors, about = load_tensors(place)
        smiles = bytes(tensors["smiles"].numpy()).decode().split("\n")
        bonds = tensors["bonds"].numpy() if "bonds" in tensors else None
        spec = from_json(MoleculeSpec, json.loads(about["spec"]))
        return Made(smiles, tensors["rows"].numpy(), bonds, tensors["kept"].numpy(), spec, json.loads(about["notes"]))
    except (CastaliaError, OSError, KeyError, ValueError):
        made = made_of(lines, options, like, progress)
    tensors = {
        "smiles": torch.frombuffer(bytearray("\n".join(made.smiles).encode()), dtype=torch.uint8),
        "rows": torch.from_numpy(made.rows),
        "kept": torch.from_numpy(made.kept),
        **({} if made.bonds is None else {"bonds": torch.from_numpy(made.bonds)}),
    }
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(place, tensors, {"spec": json.dumps(to_json(made.spec)), "notes": json.dumps(made.notes)})
    except (CastaliaError, OSError):  # a cache that cannot be written costs time, nothing else
        pass
    return made


def made_of(
    lines: Sequence[Line],
    options: MoleculeOptions,
    like: MoleculeSpec | None = None,
    progress: Progress | None = None,
) -> Made:
    """Read and check molecules, and bring them into one form.

    Raises:
        DataError: one of them is none, where options say that this is an error; the text names its line.
    """
    kind = options.kind if like is None else like.kind
    left: Counter[str] = Counter()
    bad: list[str] = []
    found: list[tuple[int, str, Mol | str]] = []
    for i, line in enumerate(lines):
        mol = molecule_in(line)
        if progress is not None and i % 1000 == 999:
            progress(i + 1, len(lines))
        if mol is None:
            said = (
                f"{line.where}: {line.text[:80]!r} is not a molecule."
                if not line.block
                else f"{line.where}: no molecule."
            )
            if options.on_bad_line == "error":
                raise DataError(f"{said} To leave such lines out, set data.options.on_bad_line=skip.")
            bad.append(said)
            continue
        if not options.fragments:
            mol = _largest(mol)
        text = canonical(mol, stereo=options.stereo and kind != "graph")
        if kind != "graph":
            found.append((i, text, text))
        elif why := _refused(mol, options, like):
            left[why] += 1
        else:
            # in the order of the canonical SMILES, so that a graph does not depend on how its file wrote it
            again = chem().MolFromSmiles(text)
            if again is None:
                left["their SMILES cannot be read again"] += 1
            else:
                found.append((i, text, again))
    made = _graphs(found, options, like, left) if kind == "graph" else _strings(found, kind, options, like, left)
    notes = [f"Skipped {len(bad)} lines that are no molecules: {' '.join(bad[:3])}"] if bad else []
    notes += [f"Left out {n:,} of {len(lines):,} molecules: {why}." for why, n in sorted(left.items())]
    if not len(made.rows):
        raise DataError("No molecule can be used. " + " ".join(notes))
    return replace(made, notes=notes)


def _largest(mol: Mol) -> Mol:
    if mol.GetNumAtoms() > 1 and len(chem().GetMolFrags(mol)) > 1:
        return max(chem().GetMolFrags(mol, asMols=True), key=lambda m: m.GetNumAtoms())
    return mol


def _refused(mol: Mol, options: MoleculeOptions, like: MoleculeSpec | None) -> str:
    """Why a molecule is no graph that can be used; empty where it is one."""
    if not options.charged and any(atom.GetFormalCharge() for atom in mol.GetAtoms()):
        return "they have charged atoms (data.options.charged=true keeps them)"
    if any(atom.GetNumRadicalElectrons() or atom.GetIsotope() for atom in mol.GetAtoms()):
        return "they have radicals or isotopes, which a graph does not tell"
    if any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms()):
        return "they have atoms that may be any"
    most = min((options.length if like is None else like.length) or MOST_ATOMS, MOST_ATOMS)
    if mol.GetNumAtoms() > most:
        return f"they have more than {most} atoms"
    if like is not None and not set(kinds_of(mol)) <= set(like.atoms):
        return "they have atoms that the run's molecules do not have"
    return ""


def _graphs(
    found: Sequence[tuple[int, str, Mol]],
    options: MoleculeOptions,
    like: MoleculeSpec | None,
    left: Counter[str],
) -> Made:
    kinds = [kinds_of(mol) for _, _, mol in found]
    if like is None:
        weight = chem().GetPeriodicTable().GetAtomicNumber
        names = {name for row in kinds for name in row}
        order = sorted(names, key=lambda n: (weight(n.rstrip("+-0123456789")), n))
        most = min(options.length or max((len(row) for row in kinds), default=1), MOST_ATOMS)
        like = MoleculeSpec("graph", most, atoms=tuple(order) or ("C",))
    number = {name: i + 1 for i, name in enumerate(like.atoms)}
    rows = np.zeros((len(found), like.length), np.uint8)
    bonds = np.zeros((len(found), like.length, like.length), np.uint8)
    good = np.ones(len(found), bool)
    for i, (_, _, mol) in enumerate(found):
        table = bonds_of(mol)
        if table.max(initial=0) > BONDS:
            left["they have bonds that are not single, double or triple"] += 1
            good[i] = False
            continue
        rows[i, : len(table)] = [number[name] for name in kinds[i]]
        bonds[i, : len(table), : len(table)] = table
    kept = np.array([line for line, _, _ in found], np.int64)[good]
    texts = [text for (_, text, _), ok in zip(found, good, strict=True) if ok]
    return Made(texts, rows[good], bonds[good], kept, replace(like, classes=()), [])


def _strings(
    found: Sequence[tuple[int, str, str]],
    kind: Literal["smiles", "selfies"],
    options: MoleculeOptions,
    like: MoleculeSpec | None,
    left: Counter[str],
) -> Made:
    split: list[list[str]] = []
    kept, texts = [], []
    for line, text, _ in found:
        parts = split_smiles(text) if kind == "smiles" else _selfies(text)
        if parts is None:
            left[f"they cannot be written as {kind.upper()}"] += 1
        else:
            split.append(parts)
            kept.append(line)
            texts.append(text)
    if like is None:
        most = options.length or max((len(row) for row in split), default=1) + 1
        names = sorted({token for row in split if len(row) < most for token in row})
        like = MoleculeSpec(kind, most, tokens=tuple(names) or ("C",))
    number = {token: i for i, token in enumerate(like.tokens)}
    longest = max((len(row) + 1 for row in split if len(row) < like.length), default=1)
    rows = np.full((len(split), longest), -1, np.int16)
    good = np.ones(len(split), bool)
    for i, row in enumerate(split):
        if len(row) >= like.length:
            left[f"they have more than {like.length - 1} tokens"] += 1
            good[i] = False
        elif not all(token in number for token in row):
            left["they have tokens that the run's molecules do not have"] += 1
            good[i] = False
        else:
            rows[i, : len(row) + 1] = [*(number[token] for token in row), like.end]
    chosen = [text for text, ok in zip(texts, good, strict=True) if ok]
    return Made(chosen, rows[good], None, np.array(kept, np.int64)[good], replace(like, classes=()), [])


def _selfies(text: str) -> list[str] | None:
    package = selfies()
    try:
        return list(package.split_selfies(package.encoder(text)))
    except package.EncoderError:
        return None


def values_of(mol: Mol, spec: MoleculeSpec) -> dict[str, np.ndarray] | None:
    """One molecule as an example of a spec: ``x``, and ``bonds`` of a graph; None where it has no such form."""
    mol = _largest(mol)
    if spec.kind == "graph":
        if _refused(mol, MoleculeOptions(charged=True), spec):
            return None
        table = bonds_of(mol)
        if table.max(initial=0) > BONDS:
            return None
        x, bonds = np.zeros(spec.length, np.int64), np.zeros((spec.length, spec.length), np.int64)
        x[: len(table)] = [1 + spec.atoms.index(kind) for kind in kinds_of(mol)]
        bonds[: len(table), : len(table)] = table
        return {"x": x, "bonds": bonds}
    text = canonical(mol, stereo=spec.stereo)
    written = text if spec.kind == "smiles" else "".join(_selfies(text) or ())
    tokens = tokens_in(written, spec)
    return None if not tokens or len(tokens) >= spec.length else {"x": np.array([*tokens, spec.end], np.int64)}
