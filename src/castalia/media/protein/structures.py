"""Structures: PDB and mmCIF files, read by biotite, and text files of coordinates as of ``small-proteins``.

A chain becomes one example. Residues that are missing between others are there without coordinates: mmCIF says which
they were; in a PDB file gaps of the numbering count, as unknown residues. Of alternate locations the one with the
highest occupancy is taken, of several models the first. Modified residues count as those that they were made from.
"""

from __future__ import annotations

import io
import math
import warnings
from itertools import pairwise
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np

from castalia.core.errors import DataError, MissingExtra
from castalia.core.specs.protein import UNKNOWN
from castalia.media.protein.chains import Chain, numbers
from castalia.media.protein.geometry import oxygens
from castalia.media.protein.sequences import decode, residues_of

PDB, CIF, TEXT = frozenset({".pdb", ".ent"}), frozenset({".cif", ".mmcif"}), frozenset({".txt"})
LARGEST = 256 << 20
MOST_GAP = 200
"""Missing residues in a row that are believed; a longer gap of the numbering is a jump of the numbering."""
OURS = "REMARK   3 B-FACTORS ARE THE PREDICTED LDDT-CA IN PERCENT"
"""The line by which a file of ours says what its B-factors are."""
FARTHEST = 1e4
"""Coordinates beyond this are those of no molecule, Å."""


def biotite() -> ModuleType:
    """The package that reads structures.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import biotite.structure as package
        import biotite.structure.info
        import biotite.structure.io.pdb
        import biotite.structure.io.pdbx  # noqa: F401
    except (ImportError, OSError) as error:
        raise MissingExtra("Reading PDB and mmCIF files", "proteins") from error
    return package


def read_structure(data: bytes, name: str) -> list[Chain]:
    """The protein chains of a file; which format it is in, its name's ending tells.

    Raises:
        DataError: it is none, or has no protein in it; the text names file and, where one is to blame, line.
        MissingExtra: biotite is needed and not installed.
    """
    suffix = PurePosixPath(name).suffix.lower()
    text = decode(data, name)
    if suffix in TEXT:
        return [read_text(text, name)]
    biotite()
    return _read_pdb(text, name) if suffix in PDB else _read_cif(text, name)


def read_text(text: str, name: str) -> Chain:
    """A chain of a text file: its letters; its secondary structure, which is not used; then a line for each residue.

    Such a line has twelve numbers: N, CA, C and the centroid of the side chain, in Å.

    Raises:
        DataError: it is no such file; the text names the line.
    """
    lines = text.rstrip().splitlines()
    if len(lines) < 3:
        raise DataError(f"{name}: a chain has its letters, its secondary structure, then a line for each residue.")
    residues = residues_of(lines[0].strip(), f"{name}, line 1")
    if len(lines[1].strip()) != len(residues) or len(lines) != len(residues) + 2:
        raise DataError(
            f"{name}: {len(residues)} letters, {len(lines[1].strip())} of secondary structure and {len(lines) - 2} "
            "lines of coordinates; all three should be equal."
        )
    rows = []
    for number, line in enumerate(lines[2:], 3):
        try:
            row = [float(word) for word in line.split()]
        except ValueError as error:
            raise DataError(f"{name}, line {number}: not twelve numbers ({error}).") from error
        if len(row) != 12 or not all(math.isfinite(v) and abs(v) < FARTHEST for v in row):
            raise DataError(f"{name}, line {number}: not twelve finite coordinates in Å.")
        rows.append(row)
    found = np.array(rows).reshape(len(rows), 4, 3)
    x = np.stack([found[:, 0], found[:, 1], found[:, 2], oxygens(found), found[:, 3]], axis=1)
    there = np.ones(x.shape[:2], np.uint8)
    there[-1, 3] = 0  # nothing tells where the last one's oxygen is
    return Chain(_title(name), residues, x.astype(np.float32), there, np.full(len(residues), 100, np.float32))


def _title(name: str) -> str:
    """A file's name without folders, the archive before it, and its ending."""
    return PurePosixPath(name.rpartition(": ")[2]).stem


def _read_pdb(text: str, name: str) -> list[Chain]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("ENDMDL"):
            break
        if line.startswith(("ATOM  ", "HETATM")):
            for start in (30, 38, 46):
                try:
                    fine = abs(float(line[start : start + 8])) < FARTHEST  # false of nan
                except ValueError:
                    fine = False
                if not fine:
                    what = ascii(line[start : start + 8].strip())
                    raise DataError(f"{name}, line {number}: {what} is no coordinate in Å (columns {start + 1} ff.).")
    package: Any = biotite()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = package.io.pdb.PDBFile.read(io.StringIO(text))
            atoms = file.get_structure(model=1, altloc="occupancy", extra_fields=["b_factor"])
    except Exception as error:  # biotite raises its own, ValueError, IndexError, ...
        raise DataError(f"{name}: not a PDB file that can be read ({str(error)[:200]}).") from error
    return _chains(package, atoms, name, {}, OURS in text)


def _read_cif(text: str, name: str) -> list[Chain]:
    package: Any = biotite()
    missing: dict[str, dict[int, str]] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = package.io.pdbx.CIFFile.read(io.StringIO(text))
            atoms = package.io.pdbx.get_structure(
                file, model=1, altloc="occupancy", extra_fields=["b_factor"], use_author_fields=False
            )
            scheme = file.block.get("pdbx_poly_seq_scheme")
            if scheme is not None:
                columns = (scheme[key].as_array() for key in ("asym_id", "seq_id", "mon_id"))
                for asym, seq, mon in zip(*columns, strict=True):
                    missing.setdefault(str(asym), {})[int(seq)] = str(mon)
    except Exception as error:  # the same
        raise DataError(f"{name}: not an mmCIF file that can be read ({str(error)[:200]}).") from error
    return _chains(package, atoms, name, missing, False)


def _chains(package: Any, atoms: Any, name: str, missing: dict[str, dict[int, str]], ours: bool) -> list[Chain]:
    """Chains of an atom array; ``missing``: by chain, the names of all residues by their number."""
    if not np.isfinite(atoms.coord).all() or (np.abs(atoms.coord) > FARTHEST).any():
        raise DataError(f"{name}: some coordinates are not finite, or those of no molecule.")
    atoms = atoms[package.filter_amino_acids(atoms) | _unnamed(atoms)]
    found = []
    for label in dict.fromkeys(atoms.chain_id.tolist()):
        one = atoms[atoms.chain_id == label]
        chain = _chain(package, one, f"{_title(name)}_{label or 'A'}", missing.get(label, {}), ours)
        if chain is not None:
            found.append(chain)
    if not found:
        raise DataError(f"{name}: holds no protein of which atoms N, CA and C are known.")
    return found


def _unnamed(atoms: Any) -> np.ndarray:
    """Atoms of residues that nobody named, of which a backbone is there."""
    return (atoms.res_name == "UNK") & ~atoms.hetero


def _chain(package: Any, atoms: Any, name: str, missing: dict[int, str], ours: bool) -> Chain | None:
    starts = package.get_residue_starts(atoms, add_exclusive_stop=True)
    rows: list[tuple[int, np.ndarray, np.ndarray, float]] = []
    last: int | None = None
    for begin, end in pairwise(starts.tolist()):
        part = atoms[begin:end]
        place, known, confidence = _residue(part, ours)
        if not known[:3].any():
            continue
        number = int(part.res_id[0])
        if missing:
            gap = [missing.get(i, "UNK") for i in range((last or min(missing) - 1) + 1, number)]
        else:
            jump = 0 if last is None else number - last - 1
            gap = ["UNK"] * jump if 0 < jump <= MOST_GAP and not _bonded(rows, place) else []
        rows += [(_number(package, three), *_nowhere()) for three in gap]
        rows.append((_number(package, str(part.res_name[0])), place, known, confidence))
        last = number
    if missing and last is not None:
        rows += [(_number(package, missing[i]), *_nowhere()) for i in sorted(missing) if i > last]
    if not any(known[:3].all() for _, _, known, _ in rows):
        return None
    residues = np.array([row[0] for row in rows], np.int64)
    x, there = np.stack([row[1] for row in rows]), np.stack([row[2] for row in rows])
    placed = there[:, :3].all(1) & (there[:, 3] == 0)
    x[placed, 3] = oxygens(x)[placed]
    bonded = np.zeros(len(x), bool)
    bonded[:-1] = np.linalg.norm(x[1:, 0] - x[:-1, 2], axis=-1) < 2.0
    bonded[:-1] &= there[1:, 0].astype(bool)
    there[placed & bonded, 3] = 1
    return Chain(name, residues, x.astype(np.float32), there, np.array([row[3] for row in rows], np.float32))


def _nowhere() -> tuple[np.ndarray, np.ndarray, float]:
    return np.zeros((5, 3)), np.zeros(5, np.uint8), 100.0


def _bonded(rows: list[tuple[int, np.ndarray, np.ndarray, float]], place: np.ndarray) -> bool:
    """Whether a residue follows the one before without a gap, whatever their numbers say."""
    return bool(rows) and bool(rows[-1][2][2]) and bool(np.linalg.norm(place[0] - rows[-1][1][2]) < 2.0)


def _residue(part: Any, ours: bool) -> tuple[np.ndarray, np.ndarray, float]:
    place, known = np.zeros((5, 3)), np.zeros(5, np.uint8)
    names = part.atom_name.tolist()
    for i, atom in enumerate(("N", "CA", "C", "O", "CEN")):
        if atom in names:
            place[i], known[i] = part.coord[names.index(atom)], 1
    if not known[4]:
        backbone = {"N", "CA", "C", "O", "OXT", "OT1", "OT2"}
        side = [
            i for i, (a, element) in enumerate(zip(names, part.element, strict=True))
            if a not in backbone and element not in ("H", "D")
        ]  # fmt: skip
        if side:
            place[4], known[4] = part.coord[side].mean(0), 1
    return place, known, float(np.clip(part.b_factor[0], 0, 100)) if ours else 100.0


def _number(package: Any, three: str) -> int:
    """The number of a residue by its three-letter code; modified ones count as their parents."""
    letter = package.info.one_letter_code(three)
    return UNKNOWN if letter is None or len(letter) != 1 else int(numbers(letter)[0])
