"""What the names of pictures in a folder or a zip mean: which split, which labels and captions.

Layouts: class sub-folders; metadata files (:mod:`castalia.media.image.metadata`); either of them below split folders
(``train``, ``test``, ``validation``); captions as texts of the pictures' names. What can be read in two ways is an
error that names the option which settles it.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from castalia.core.errors import DataError
from castalia.media.image.decode import SUFFIXES, Folders
from castalia.media.image.metadata import read_metadata
from castalia.media.image.tree import METADATA, Item, Listing, read_bounded
from castalia.media.splits import SPLITS, pick_split

_HOLDERS = frozenset(
    ("images", "image", "imgs", "img", "pictures", "picture", "pics", "photos", "photo", "data", "dataset", "raw")
) | {"jpg", "jpeg", "jpegs", "jpegimages", "png", "pngs"}
"""Folders of these names hold pictures; they say nothing about them."""

_BESIDE = frozenset(
    ("masks", "mask", "labels", "annotations", "segmentations", "segmentationclass", "depth", "depths", "gt")
)
"""Folders of these names hold something about the pictures in another folder."""

_ASK = "Say so with data.options.folders: splits, classes or none."
_FEW = 10

TEXT = ".txt"
"""Ends the name of a caption that lies beside its picture: ``7.png`` and ``7.txt``."""

MAX_TEXT_BYTES = 1 << 16


def arrange(
    files: Sequence[Item], where: str, split: str | None, folders: Folders = "auto", links: Sequence[str] = ()
) -> Listing:
    """Find splits, labels and captions among the files of a folder or zip.

    Args:
        files: everything that is there, in the order that the pictures shall have.
        where: the source's name, for errors and notes.
        split: the split that is wanted, or None.
        folders: what the names of folders mean, see :class:`~castalia.media.image.decode.ImageOptions`.
        links: what a person should know of entries that were not looked at; part of the error where nothing is left.

    Raises:
        DataError: there are no pictures, no such split, the metadata are wrong, or folders can mean two things.
    """
    pictures = [f for f in files if _suffix(f) in SUFFIXES]
    metadata = [f for f in files if posixpath.basename(f.name) in METADATA]
    marks = {m.name for m in metadata}
    stems = {posixpath.splitext(p.name)[0] for p in pictures}
    beside = {f.name[: -len(TEXT)]: f for f in files if _suffix(f) == TEXT and f.name[: -len(TEXT)] in stems}
    marks |= {f.name for f in beside.values()}
    others = Counter(_suffix(f) or "no suffix" for f in files if _suffix(f) not in SUFFIXES and f.name not in marks)
    if not pictures:
        others += Counter(_suffix(f) for f in metadata)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        extra = (f" It holds {kinds}." if others else "") + "".join(f" {text}" for text in links)
        raise DataError(f"{where} holds no pictures ({', '.join(sorted(SUFFIXES))}).{extra}")

    told = read_metadata(metadata, where, {p.name for p in pictures})
    others += Counter(posixpath.splitext(name)[1] for name in told.others)
    notes = []
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        notes.append(f"Ignored {others.total()} files that are not pictures ({kinds}).")
    notes += told.notes
    used = {posixpath.dirname(m.name) for m in metadata if m.name not in told.others}
    base = _wrapper([p.name for p in pictures], used)
    if told.rows:
        unlisted = [p for p in pictures if p.name not in told.rows]
        if unlisted:
            some = f"{len(unlisted)} pictures that the metadata do not list"
            notes.append(f"Left out {some} ({unlisted[0].name}, ...).")
        pictures = [p for p in pictures if p.name in told.rows]

    splits = _has_splits(pictures, base, folders, where, bool(told.rows or told.shards), notes)
    if splits:
        inside = [p for p in pictures if _first(p.name, base).lower() in SPLITS]
        if len(inside) < len(pictures):
            stray = next(p for p in pictures if _first(p.name, base).lower() not in SPLITS)
            notes.append(f"Left out {len(pictures) - len(inside)} pictures outside the splits ({stray.name}, ...).")
        pictures = inside
    if told.rows:
        label_of, classes = _numbered({p.name: told.rows[p.name].label for p in pictures})
    elif told.shards or folders == "none" or _in_shards(pictures, base, splits):
        label_of, classes = {}, ()
        if not told.shards and folders != "none":
            notes.append(
                "Numbered folders of numbered pictures (00000/img00000000.png) are taken as parts, not classes."
            )
    else:
        label_of, classes = _labels(pictures, base, splits, folders, where, notes)
    rows = told.rows
    if rows and beside:
        notes.append(f"{len(beside)} texts beside pictures were not read: the metadata say what is said of them.")
    said = {p.name: rows[p.name].text for p in pictures} if rows else _texts(pictures, beside, where)
    items = [Item(p.name, p.open, label_of.get(p.name), said.get(p.name)) for p in pictures]
    if not splits:
        return Listing(items, classes, notes)
    by_split: dict[str, list[Item]] = {}
    for item in items:
        by_split.setdefault(SPLITS[_first(item.name, base).lower()], []).append(item)
    chosen, items, split_notes = pick_split(by_split, split, where)
    return Listing(items, classes, notes + split_notes, chosen)


def _texts(pictures: Sequence[Item], beside: Mapping[str, Item], where: str) -> dict[str, str | None]:
    """What the text of the same name says of each picture that has one."""
    found: dict[str, str | None] = {}
    for picture in pictures:
        item = beside.get(posixpath.splitext(picture.name)[0])
        if item is not None:
            name = f"{where}: {item.name}"
            with item.open() as file:
                data = read_bounded(file, name, MAX_TEXT_BYTES)
            try:
                found[picture.name] = " ".join(data.decode("utf-8-sig").split())
            except UnicodeDecodeError as error:
                raise DataError(f"{name}: a caption is UTF-8 text ({error}).") from error
    return found


def _suffix(item: Item) -> str:
    return posixpath.splitext(item.name)[1].lower()


def _first(name: str, base: str) -> str:
    """The first folder of ``name`` below ``base``; empty for a file that lies in ``base`` itself."""
    head, separator, _ = name[len(base) :].partition("/")
    return head if separator else ""


def _wrapper(names: list[str], metadata_folders: set[str]) -> str:
    """The folders (``data/``, ``my-set/``) that hold everything and mean nothing."""
    base = ""
    while True:
        heads = {_first(name, base) for name in names}
        head = next(iter(heads))
        inner = f"{base}{head}/"
        if len(heads) > 1 or not head or head.lower() in SPLITS or base.rstrip("/") in metadata_folders:
            return base
        nested = all(_first(name, inner) for name in names)
        # One folder that directly holds the pictures is a class of its own, unless it holds their metadata.
        if not nested and inner.rstrip("/") not in metadata_folders:
            return base
        base = inner


def _has_splits(pictures: list[Item], base: str, folders: Folders, where: str, told: bool, notes: list[str]) -> bool:
    """Whether the folders in ``base`` are splits.

    Raises:
        DataError: that cannot be told.
    """
    heads = Counter(_first(p.name, base) for p in pictures)
    splits = {h for h in heads if h.lower() in SPLITS}
    if folders != "auto" or not splits:
        if folders == "splits" and not splits:
            raise DataError(f"{where} has no folders of splits ({', '.join(sorted(SPLITS))}).")
        return folders == "splits"
    others = {h for h in heads if h and h not in splits}
    stray = heads.get("", 0)
    if not others:
        inside = sum(heads[h] for h in splits)
        if stray * _FEW <= inside or (stray and len({SPLITS[h.lower()] for h in splits}) > 1):
            return True
        if told:
            return False
        raise DataError(
            f"{where} holds {inside} pictures in {', '.join(sorted(splits))} and {stray} beside it: are those folders "
            f"splits? {_ASK}"
        )
    if told:
        return False
    if len({SPLITS[h.lower()] for h in splits}) > 1:
        raise DataError(
            f"{where} holds the folders {', '.join(sorted(splits))} and others ({', '.join(sorted(others)[:3])}): are "
            f"they splits or classes? {_ASK}"
        )
    notes.append(f"Folders {', '.join(sorted(h for h in heads if h)[:6])} are taken as classes, not splits.")
    return False


def _in_shards(pictures: list[Item], base: str, splits: bool) -> bool:
    """Whether all names are those of StyleGAN's tools, whose folders are numbered parts."""
    one = re.compile(r"\d{5}/img\d{8}\.[a-z]+")
    below = (p.name[len(base) :] for p in pictures)
    return all(one.fullmatch(name.partition("/")[2] if splits else name) for name in below)


def _labels(
    pictures: list[Item], base: str, splits: bool, folders: Folders, where: str, notes: list[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Class numbers by name of the picture, and the class names, over all splits."""
    by_split: dict[str, dict[str, str]] = {}
    for p in pictures:
        own = _first(p.name, base) if splits else ""
        by_split.setdefault(own, {})[p.name] = _first(p.name, f"{base}{own}/" if splits else base)
    given: dict[str, str | int | None] = {}
    for names in by_split.values():
        heads = {h for h in names.values() if h}
        plain = {h for h in heads if h.lower() in _HOLDERS}
        if folders == "auto" and heads and heads <= plain:  # a folder called images is no class
            given |= dict.fromkeys(names)
            continue
        if folders == "auto" and plain and {h.lower() for h in heads} <= _HOLDERS | _BESIDE:
            raise DataError(
                f"{where} holds the folders {', '.join(sorted(heads)[:6])}, which do not look like classes. Name the "
                "folder of pictures, or set data.options.folders to classes or none."
            )
        if not all(names.values()):
            if len(heads) > 1:
                notes.append(
                    f"Pictures lie beside the folders {', '.join(sorted(heads)[:3])}, so these are no classes."
                )
            given |= dict.fromkeys(names)
            continue
        given |= names
    if by_split and None in given.values():
        named = {own for own, names in by_split.items() if all(given[n] is not None for n in names)}
        if not named:
            return {}, ()
        notes.append(f"Only {', '.join(sorted(named))} has folders of classes; the rest has no labels.")
    return _numbered(given)


def _numbered(given: Mapping[str, str | int | None]) -> tuple[dict[str, int], tuple[str, ...]]:
    found = {value for value in given.values() if value is not None}
    if all(isinstance(value, int) for value in found):
        ordered: list[str | int] = sorted(found, key=int)
    else:
        ordered = sorted(found, key=str)
    number = {value: i for i, value in enumerate(ordered)}
    return {k: number[v] for k, v in given.items() if v is not None}, tuple(str(v) for v in ordered)
