"""Safetensors files that verify themselves.

The digest of all names, types, shapes and bytes stands in the file's own metadata, so one atomic rename is
enough and a flipped bit is found on reading. A second digest covers the metadata. Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from castalia.core.errors import RunError
from castalia.core.files import open_plain, write_bytes

TENSORS, METADATA = "castalia.sha256", "castalia.metadata.sha256"
"""Where the two digests stand."""


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{t.dtype}|{tuple(t.shape)}|".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data if t.numel() else b"")
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors atomically, with their digest in the metadata.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    # clone: two names may share storage (tied weights), which safetensors refuses
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    meta = {**(metadata or {}), "format": "pt", TENSORS: tensor_digest(plain)}
    write_bytes(path, _in_order(save(plain, {**meta, METADATA: _metadata_digest(meta)})))


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata in the order of their names: safetensors writes them in any."""
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((struct.pack("<Q", len(text)), text, memoryview(data)[8 + size :]))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata, and verify the digest where the file carries one.

    Raises:
        RunError: the file is missing, cut, or does not match its digest.
    """
    try:
        with open_plain(path) as file:
            data = file.read()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        (header,) = struct.unpack_from("<Q", data)
        if header > min(len(data) - 8, 100 << 20):
            raise RunError(f"{path} is damaged: its header claims {header} bytes of {len(data)}.")
        tensors = load(data)
        metadata = _metadata(data, header)
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is not a valid safetensors file ({str(error)[:200]}).") from error
    expected = metadata.get(TENSORS)
    if expected is not None and expected != tensor_digest(tensors):
        raise RunError(f"{path} is damaged: its contents do not match the SHA-256 stored with them.")
    if METADATA in metadata and metadata[METADATA] != _metadata_digest(metadata):
        raise RunError(f"{path} is damaged: its metadata do not match the SHA-256 stored with them.")
    return tensors, metadata


@dataclass(frozen=True)
class Rows:
    """Where a part of a tensor belongs: from row ``first``, of ``total`` rows."""

    first: int
    total: int


def save_part(
    folder: Path,
    name: str,
    number: tuple[int, int],
    tensors: Mapping[str, Tensor],
    rows: Mapping[str, Rows],
    metadata: Mapping[str, str],
) -> None:
    """Write one process's parts to ``name-00001-of-00002.safetensors``.

    Args:
        folder: where.
        name: of the group.
        number: this process (from 0), and how many there are.
        tensors: whole ones and parts.
        rows: of those that are parts.
        metadata: as in :func:`save_tensors`.
    """
    places = {key: [r.first, r.total] for key, r in rows.items() if key in tensors}
    rank, size = number
    path = folder / f"{name}-{rank + 1:05d}-of-{size:05d}.safetensors"
    save_tensors(path, tensors, {**metadata, "castalia.rows": json.dumps(places, sort_keys=True)})


def load_parts(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read ``name.safetensors``, or put the parts of several processes together.

    Raises:
        RunError: a file or a row is missing, or a file is damaged.
    """
    paths = sorted(folder.glob(f"{name}-?????-of-?????.safetensors"))
    if not paths:
        return load_tensors(folder / f"{name}.safetensors")
    found: dict[str, Tensor] = {}
    parts: dict[str, list[tuple[Rows, Tensor]]] = {}
    metadata: dict[str, str] = {}
    for path in paths:
        tensors, metadata = load_tensors(path)
        try:
            rows = json.loads(metadata.pop("castalia.rows"))
            places = {key: Rows(int(first), int(total)) for key, (first, total) in rows.items()}
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise RunError(f"{path} does not say which rows it holds.") from error
        for key, tensor in tensors.items():
            if key not in places:
                found[key] = tensor
                continue
            place = places[key]
            if not tensor.ndim or not 0 <= place.first <= place.first + len(tensor) <= place.total:
                raise RunError(f"{path} holds rows of {key!r} that there are not.")
            parts.setdefault(key, []).append((place, tensor))
    for key in list(parts):
        found[key] = _joined(f"{folder}: {name!r}", key, parts.pop(key))
    return found, metadata


def _joined(where: str, key: str, parts: list[tuple[Rows, Tensor]]) -> Tensor:
    """Parts of a tensor put together; nothing is allocated before all rows are known to be there, once."""
    parts = sorted((part for part in parts if len(part[1])), key=lambda part: part[0].first) or parts[:1]
    reached = 0
    for place, tensor in parts:
        if place.first != reached or place.total != parts[0][0].total or tensor.shape[1:] != parts[0][1].shape[1:]:
            break
        reached += len(tensor)
    if reached != parts[0][0].total or len({tensor.dtype for _, tensor in parts}) > 1:
        count = sum(len(tensor) for _, tensor in parts)
        raise RunError(
            f"{where} has {count} of {parts[0][0].total} rows of {key!r}, or some twice: its parts do not make a whole."
        )
    return torch.cat([tensor for _, tensor in parts])


def _metadata(data: bytes, header: int) -> dict[str, str]:
    return dict(json.loads(data[8 : 8 + header]).get("__metadata__", {}))


def _metadata_digest(metadata: Mapping[str, str]) -> str:
    rest = {key: value for key, value in metadata.items() if key != METADATA}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """Read a file's metadata without its tensors.

    Raises:
        RunError: the file is missing or is not a safetensors file.
    """
    try:
        with open_plain(path) as file:
            (header,) = struct.unpack("<Q", file.read(8))
            if header > min(os.fstat(file.fileno()).st_size, 100 << 20):
                raise RunError(f"{path} is damaged: its header claims {header} bytes.")
            return _metadata(b"\0" * 8 + file.read(header), header)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is not a valid safetensors file ({error}).") from error
