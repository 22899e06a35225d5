"""Tar shards in the layout of WebDataset: members that share a name up to its first dot are one example.

``7.jpg``, ``7.cls``, ``7.json`` and ``7.txt`` are a picture, its label (a whole number or a text), an object with
``label`` or ``text``, and its caption. Opening reads the headers and the labels, and keeps where things are.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from castalia.core.data import Blocks
from castalia.core.errors import DataError
from castalia.media.image.decode import MAX_FILE_BYTES, SUFFIXES
from castalia.media.image.shards import Files, Source, number_labels, window_of
from castalia.media.image.tar import COMPRESSED, members, refuse_compressed
from castalia.media.image.tree import encodable, walk
from castalia.media.splits import hashed_split, names_telling_splits, own_split

MAX_LABEL_BYTES = 4 << 10
MAX_TEXT_BYTES = 1 << 20
_LABEL = ("label", "cls", "class")
_TEXT = ("text", "caption", "prompt")
# Per shard, for the fingerprint: how many pictures, and how much of each.
_SAMPLED, _SAMPLE_BYTES = 4, 16 << 10


@dataclass(frozen=True)
class _Shard:
    """One tar.

    Attributes:
        path: of the file.
        name: of the file below its folder.
        total: its bytes.
        places: offset and size of each picture, ``int64`` (N, 2).
        texts: the same of its caption, (N, 2); the size is negated where it is in a JSON; (0, 0) without.
        names: of the pictures in it, packed.
        codes: position of each label in ``values``, ``int32`` (N,); -1 without.
        values: the labels that occur.
        ignored: how many members were left out, by their suffix.
    """

    path: Path
    name: str
    total: int
    places: np.ndarray
    texts: np.ndarray
    names: bytes
    codes: np.ndarray
    values: list[str | int]
    ignored: Counter[str]

    def unpacked(self) -> list[str]:
        return zlib.decompress(self.names).decode().split("\0")

    def take(self, rows: np.ndarray) -> _Shard:
        """Some examples of it."""
        keys = self.unpacked()
        return _Shard(
            self.path,
            self.name,
            self.total,
            self.places[rows],
            self.texts[rows],
            _pack([keys[i] for i in rows]),
            self.codes[rows],
            self.values,
            self.ignored,
        )


def _pack(keys: list[str]) -> bytes:
    return zlib.compress("\0".join(keys).encode(), 1)


@final
class TarShards(Source):
    """The pictures of one tar, or of all below a folder.

    Args:
        path: of the file or folder.
        split: ``train``, ``test``, ``validation`` or None, as in :func:`castalia.media.image.sources.open_images`.

    Raises:
        DataError: a shard is refused (see :func:`castalia.media.image.tar.members`), holds an example twice or in
            pieces, or labels that are not valid; there are no pictures or no such split.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        paths = [path] if path.is_file() else list_tars(path)
        names = [p.name if p == path else p.relative_to(path).as_posix() for p in paths]
        self.files = Files()
        every = [_index(p, name, self.files) for p, name in zip(paths, names, strict=True)]
        ignored = sum((shard.ignored for shard in every), Counter[str]())
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in ignored.most_common(5))
        self.notes = [f"Left out {ignored.total()} members that belong to no picture ({kinds})."] if ignored else []
        _check_labels(every)
        heads = {key.partition("/")[0] for shard in every for key in shard.unpacked() if "/" in key}
        if len(heads) > 1 and not any(shard.values for shard in every):
            some = ", ".join(map(ascii, sorted(heads)[:3]))
            self.notes.append(
                f"Folders inside ({some}) are no classes; labels of a tar are its members 7.cls or 7.json."
            )
        labels, self.classes = number_labels([(shard.codes, shard.values) for shard in every])
        telling = names_telling_splits(path, paths)
        own, chosen, notes = own_split(list(zip(every, labels, strict=True)), telling, split, str(path))
        if not any(len(shard.places) for shard, _ in chosen):
            extra = f" It holds {kinds}." if kinds else ""
            raise DataError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))}).{extra}")
        self.shards = [shard for shard, _ in chosen if len(shard.places)]
        parts = [own_labels for shard, own_labels in chosen if len(shard.places)]
        rows, more = hashed_split(split, own, self._names(), str(path))
        if rows is not None:
            ends = np.cumsum([0, *(len(shard.places) for shard in self.shards)])
            cut = np.split(rows, np.searchsorted(rows, ends[1:-1]))
            kept = [mine - start for mine, start in zip(cut, ends[:-1], strict=True)]
            parts = [part[mine] for part, mine in zip(parts, kept, strict=True) if len(mine)]
            self.shards = [shard.take(mine) for shard, mine in zip(self.shards, kept, strict=True) if len(mine)]
        self.notes += [*notes, *more]
        self.labels = np.concatenate(parts) if self.classes else None
        self.captions = any(bool(shard.texts[:, 1].any()) for shard in self.shards)
        sizes = np.array([len(shard.places) for shard in self.shards], np.int64)
        self.blocks = Blocks(sizes, window_of(sizes))
        self._ends = np.cumsum(sizes)
        self._known: tuple[_Shard | None, list[str]] = None, []

    def _names(self) -> Iterator[str]:
        return (f"{shard.name}/{key}" for shard in self.shards for key in shard.unpacked())

    def _at(self, i: int) -> tuple[_Shard, int]:
        number = int(np.searchsorted(self._ends, i, side="right"))
        return self.shards[number], i - int(self._ends[number] - self.blocks.sizes[number])

    def read(self, i: int) -> bytes:
        """The picture file of example ``i``."""
        shard, row = self._at(i)
        offset, size = shard.places[row].tolist()
        return self.files.read(shard.path, offset, size, shard.total)

    def text(self, i: int) -> str:
        """The caption of example ``i``; empty where it has none."""
        shard, row = self._at(i)
        offset, size = shard.texts[row].tolist()
        if not size:
            return ""
        data, at = self.files.read(shard.path, offset, abs(size), shard.total), str(shard.path)
        text = str(_from(_json(data, at), _TEXT) or "") if size < 0 else _utf8(data, at)
        return text.encode("utf-8", "replace").decode().strip()

    def name(self, i: int) -> str:
        """The shard and the name of example ``i`` in it."""
        shard, row = self._at(i)
        known, keys = self._known
        if known is not shard:
            keys = shard.unpacked()
            self._known = shard, keys
        return f"{shard.name}/{keys[row]}"

    def digest(self) -> bytes:
        """A hash of all names and sizes, and of the beginnings of a few pictures of each shard."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in self.shards:
            digest.update(zlib.decompress(shard.names))
            digest.update(np.ascontiguousarray(np.stack([shard.places[:, 1], shard.texts[:, 1]])).data)
            for row in np.linspace(0, len(shard.places) - 1, _SAMPLED).astype(np.int64):
                offset, size = shard.places[row].tolist()
                digest.update(self.files.read(shard.path, offset, min(size, _SAMPLE_BYTES), shard.total))
        return digest.digest()


def list_tars(path: Path) -> list[Path]:
    """The visible tars below a folder, sorted.

    Raises:
        DataError: some are compressed.
    """
    names = sorted(walk(path))
    for name in names:
        if name.lower().endswith(COMPRESSED):
            raise refuse_compressed(path / name)
    return [path / name for name in names if name.lower().endswith(".tar") and (path / name).is_file()]


def _index(path: Path, name: str, files: Files) -> _Shard:
    """Read the headers and labels of one shard."""
    try:
        total = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    places, texts, codes = array("q"), array("q"), array("i")
    keys: list[str] = []
    seen: set[str] = set()
    number: dict[str | int, int] = {}
    ignored: Counter[str] = Counter()

    def close(key: str, group: dict[str, tuple[int, int]]) -> None:
        """Add an example once all its members are known."""
        pictures = [suffix for suffix in group if suffix in SUFFIXES]
        at = f"{path}: {key!a}"
        if key in seen:
            raise DataError(
                f"{at} is there twice, with others between. The members of an example must be neighbours: "
                "make the shard with tar --sort=name."
            )
        seen.add(key)
        if not pictures:
            ignored.update(suffix or "no suffix" for suffix in group)
            return
        if len(pictures) > 1:
            raise DataError(f"{at} has several pictures ({', '.join(pictures)}).")
        offset, size = group[pictures[0]]
        if size > MAX_FILE_BYTES:
            raise DataError(f"{at}{pictures[0]} has {size} bytes, more than {MAX_FILE_BYTES >> 20} MiB.")
        ignored.update(group.keys() - {pictures[0], ".cls", ".json", ".txt"})
        for suffix, limit in ((".cls", MAX_LABEL_BYTES), (".json", MAX_TEXT_BYTES), (".txt", MAX_TEXT_BYTES)):
            if group.get(suffix, (0, 0))[1] > limit:
                raise DataError(f"{at}{suffix} has {group[suffix][1]} bytes, more than {limit >> 10} KiB.")
        label: str | int | None = None
        text = group.get(".txt", (0, 0))
        if ".cls" in group:
            label = _label(_utf8(files.read(path, *group[".cls"], total), at + ".cls").strip(), at + ".cls")
        if ".json" in group and (".cls" not in group or ".txt" not in group):
            value = _json(files.read(path, *group[".json"], total), at + ".json")
            if label is None and (found := _from(value, _LABEL)) is not None:
                label = _label(found, at + ".json")
            if ".txt" not in group and isinstance(_from(value, _TEXT), str):
                text = group[".json"][0], -group[".json"][1]
        places.extend((offset, size))
        texts.extend(text)
        codes.append(-1 if label is None else number.setdefault(label, len(number)))
        keys.append(key + pictures[0])

    current, group = "", dict[str, tuple[int, int]]()
    for member, offset, size in members(path):
        folder, base = posixpath.split(member)
        if any(part.startswith(".") or part == "__MACOSX" for part in member.split("/")):
            continue
        stem, dot, rest = base.partition(".")
        key, suffix = posixpath.join(folder, stem), (dot + rest).lower()
        if key != current and group:
            close(current, group)
            group = {}
        current = key
        if suffix in group:
            raise DataError(f"{path}: {member!a} is there twice.")
        group[suffix] = offset, size
    if group:
        close(current, group)
    captions = np.array(texts, np.int64).reshape(-1, 2)
    return _Shard(
        path,
        name,
        total,
        np.array(places, np.int64).reshape(-1, 2),
        captions if captions.any() else np.broadcast_to(np.zeros(2, np.int64), captions.shape),  # takes no memory
        _pack(keys),
        np.array(codes, np.int32),
        list(number),
        ignored,
    )


def _check_labels(shards: list[_Shard]) -> None:
    """Every example has a label, or none has."""
    without = [shard for shard in shards if (shard.codes < 0).any()]
    if without and any((shard.codes >= 0).any() for shard in shards):
        row = int(np.flatnonzero(without[0].codes < 0)[0])
        raise DataError(f"{without[0].path}: {without[0].unpacked()[row]!a} has no label, while others have one.")


def _label(value: object, at: str) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{at}: a label is a text or a whole number, not {value!a}.")
    if isinstance(value, str) and not encodable(value):
        raise DataError(f"{at}: holds half a surrogate pair, which is not valid Unicode.")
    return int(value) if isinstance(value, str) and re.fullmatch("-?[0-9]{1,18}", value) else value


def _from(value: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _utf8(data: bytes, at: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{at}: not UTF-8 text.") from error


def _json(data: bytes, at: str) -> dict[str, Any]:
    try:
        value = json.loads(_utf8(data, at))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{at}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"{at}: a JSON object was expected.")
    return value
