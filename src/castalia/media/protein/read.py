"""From a path to a data set of proteins: which files, which chains, which split, which form."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from castalia.core.config import Config
from castalia.core.data import Dataset
from castalia.core.errors import DataError, UsageError
from castalia.core.spec import Spec
from castalia.core.specs.protein import ProteinSpec, structure_spec
from castalia.media.arranged import arrange, holds, list_files, set_aside
from castalia.media.image.tree import Item, read_bounded
from castalia.media.protein.chains import Chain, Chains, Sequences
from castalia.media.protein.sequences import ALIGNED, FASTA, read_alignment, read_fasta
from castalia.media.protein.structures import CIF, LARGEST, PDB, TEXT, read_structure
from castalia.media.sets import Progress

STRUCTURES = PDB | CIF | TEXT
SUFFIXES = PDB | CIF | FASTA | ALIGNED


@dataclass(frozen=True)
class ProteinOptions(Config):
    """How proteins are read. Plain values, so that it survives a JSON round trip.

    Attributes:
        kind: ``structure``: chains in space, from PDB, mmCIF or text files of coordinates. ``sequence``: sequences
            alone, from FASTA, or of structures.
        most: longer chains are left out.
        least: shorter ones as well.
        sequences: rows of alignments; more than 1 reads for each FILE.pdb the alignment FILE.a3m (or .sto) beside it.
            Where there is none the sequence stands alone.
        known: chains of which a smaller share of residues has a place are left out.
        chains: ``all`` of a file, those of different sequence in a file (``different``), or the ``first``.
        on_bad_file: ``error`` stops at the first file that cannot be read, ``skip`` leaves it out and says so.
    """

    kind: Literal["structure", "sequence"] = "structure"
    most: int = 256
    least: int = 4
    sequences: int = 1
    known: float = 0.5
    chains: Literal["all", "different", "first"] = "different"
    on_bad_file: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most <= 1 << 16:
            raise UsageError("least and most are numbers of residues, 1 to 65,536, the smaller one first.")
        if not 1 <= self.sequences <= 1 << 17:
            raise UsageError("sequences is 1 to 131,072.")
        if not 0 <= self.known <= 1:
            raise UsageError("known is a share, 0 to 1.")


def is_protein(path: Path) -> bool:
    """Whether a path holds proteins, by the endings of names; of a .txt, by its first lines."""
    if holds(path, SUFFIXES):
        return True
    if path.suffix.lower() not in TEXT or not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            lines = file.read(1 << 16).splitlines()
    except OSError:
        return False
    return len(lines) > 2 and len(lines[0].strip()) == len(lines[1].strip()) > 0 and len(lines[2].split()) == 12


def open_proteins(
    path: Path,
    options: ProteinOptions,
    *,
    split: str | None = None,
    like: Spec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    within: frozenset[str] | None = None,
) -> Dataset:
    """Read proteins from a folder, a zip or a single file.

    Folders named ``train``, ``test``, ``validation`` are splits. Where there are none, ``train`` and ``test`` are nine
    tenths and one tenth, by a hash of each file's name.

    Args:
        path: what to read.
        options: how to read it.
        split: ``train``, ``test``, ``validation``, or None.
        like: a :class:`ProteinSpec` that is to be taken as it is.
        name: what to call the data; None for the last part of the path.
        progress: called with (done, total) while reading.
        within: only files of these names without folder and ending.

    Raises:
        DataError: it cannot be read; the text names the file and, where one is to blame, the line.
        MissingExtra: a package that reads it is not installed.
    """
    path = Path(path)
    assert like is None or isinstance(like, ProteinSpec)
    if like is not None:
        rows = dict(like.columns).get("msa")
        sequences = rows.sequences if isinstance(rows, ProteinSpec) else 1
        kind = "sequence" if like.kind == "sequence" else "structure"
        options = replace(options, kind=kind, most=like.most, least=min(options.least, like.most), sequences=sequences)
    with ExitStack() as stack:
        items, notes = list_files(path, STRUCTURES | FASTA | ALIGNED, "protein", stack)
        if within is not None:
            items = [item for item in items if _stem(item.name) in within]
        beside = {posixpath.splitext(i.name)[0]: i for i in items if posixpath.splitext(i.name)[1].lower() in ALIGNED}
        wanted = STRUCTURES | FASTA if options.kind == "sequence" else STRUCTURES
        mine = [item for item in items if posixpath.splitext(item.name)[1].lower() in wanted]
        if not mine:
            raise DataError(
                f"{path} holds sequences, but no structures ({', '.join(sorted(STRUCTURES))}). To read sequences "
                "alone, set data.options.kind=sequence."
            )
        found = arrange(mine, "none", str(path), split)
        chosen, more = set_aside(found, split, str(path), "files", alone=len(mine) < 2)
        notes = notes + more
        chains, bad = [], []
        for i, item in enumerate(chosen.items):
            where = str(path) if path.name == item.name else f"{path}: {item.name}"
            try:
                chains += _of_file(item, where, options, beside)
            except DataError as error:
                if options.on_bad_file == "error":
                    raise
                bad.append(str(error))
            if progress is not None:
                progress(i + 1, len(chosen.items))
    if bad:
        notes = [*notes, f"Skipped {len(bad)} files that cannot be read: " + " ".join(bad[:3])]
    return gathered(chains, options, name or path.name, [*notes, *found.notes], str(path), like, bad)


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def _of_file(item: Item, where: str, options: ProteinOptions, beside: dict[str, Item]) -> list[Chain]:
    """The chains of one file that are wanted, with the alignment that lies beside it."""
    with item.open() as file:
        data = read_bounded(file, where, LARGEST)
    base, suffix = posixpath.splitext(item.name)
    if suffix.lower() in FASTA:
        return [Chain.bare(title or _stem(item.name), residues) for title, residues in read_fasta(data, where)]
    chains = read_structure(data, where)
    if options.chains == "first":
        chains = chains[:1]
    elif options.chains == "different":
        chains = list({chain.letters: chain for chain in reversed(chains)}.values())[::-1]
    if options.sequences == 1 or base not in beside:
        return chains
    with beside[base].open() as file:
        name = f"{where.removesuffix(item.name)}{beside[base].name}"
        rows = read_alignment(read_bounded(file, name, LARGEST), name, options.sequences)
    fitting = [chain for chain in chains if len(chain.residues) == rows.shape[1]]
    if not fitting:
        sizes = ", ".join(str(len(chain.residues)) for chain in chains)
        raise DataError(f"{name}: an alignment of {rows.shape[1]} columns, beside chains of {sizes} residues.")
    return [replace(chain, msa=rows) if len(chain.residues) == rows.shape[1] else chain for chain in chains]


def gathered(
    chains: Sequence[Chain],
    options: ProteinOptions,
    name: str,
    notes: Sequence[str],
    where: str,
    like: ProteinSpec | None = None,
    bad: Sequence[str] = (),
) -> Dataset:
    """The data set of some chains, without those that the options leave out.

    Raises:
        DataError: none is left.
    """
    left: Counter[str] = Counter()
    kept: list[Chain] = []
    for chain in chains:
        length = len(chain.residues)
        if length > options.most:
            left[f"longer than {options.most} residues (data.options.most)"] += 1
        elif length < options.least:
            left[f"shorter than {options.least} residues"] += 1
        elif options.kind == "structure" and chain.there[:, :3].all(1).mean() < options.known:
            left[f"of less than {options.known:.0%} of their residues it is known where they are"] += 1
        else:
            kept.append(chain)
    said = [*notes, *(f"Left out {n} of {len(chains)} chains: {why}." for why, n in sorted(left.items()))]
    if not kept:
        raise DataError(f"{where}: no chain can be used. " + " ".join([*said[-len(left) :], *bad[:1]]))
    if options.kind == "sequence":
        return Sequences(kept, like or ProteinSpec("sequence", options.most), name=name, notes=said)
    return Chains(kept, like or structure_spec(options.most, options.sequences), name=name, notes=said)
