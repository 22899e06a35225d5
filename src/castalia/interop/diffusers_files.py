"""Files of diffusers' folders, read with suspicion: plain files only, of a sensible size, every field known."""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from castalia.core.errors import RunError
from castalia.core.files import read_json
from castalia.interop.diffusers_layout import names, new_name, to_ours
from castalia.interop.received import HEADER_LIMIT
from castalia.nn.unet import UNet

VERSION = "0.42.1"
"""The version of diffusers that the tests compare with; its files want one."""

WEIGHTS, PICKLE = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"

JSON_LIMIT = 4 << 20
"""Largest size of a configuration in bytes: a scheduler may list thousands of betas."""

_ABOUT = {"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values", "_commit_hash"}

_TYPES = {"F32": 4, "F16": 2, "BF16": 2}
"""Types of weights that are read, and their sizes in bytes."""


def header_fields(name: str) -> dict[str, str]:
    """What the files of diffusers begin with."""
    return {"_class_name": name, "_diffusers_version": VERSION}


def plain_size(path: Path, limit: int | None = None) -> int:
    """Size of a plain file in bytes.

    Raises:
        RunError: it is missing, a link, something else, or larger than ``limit``.
    """
    try:
        found = path.lstat()
    except OSError as error:
        raise RunError(f"{path} is missing or cannot be read ({error.strerror}).") from error
    if stat.S_ISLNK(found.st_mode):
        raise RunError(
            f"{path} is a symbolic link, which could point anywhere. If it comes from a download cache that you "
            "trust, copy the folder with its links resolved (cp -rL), and import the copy."
        )
    if not stat.S_ISREG(found.st_mode):
        raise RunError(f"{path} is not a plain file.")
    if limit is not None and found.st_size > limit:
        raise RunError(f"{path} has {found.st_size:,} bytes; this file never needs more than {limit:,}.")
    return found.st_size


def fields_of(path: Path, *classes: str) -> dict[str, Any]:
    """Fields of a JSON file that describes one of ``classes``, without those about the file itself.

    Raises:
        RunError: it cannot be read, or describes something else.
    """
    plain_size(path, JSON_LIMIT)
    data = read_json(path, JSON_LIMIT)
    if not isinstance(data, dict):
        raise RunError(f"{path}: expected an object with named fields.")
    name = data.get("_class_name")
    if name not in classes:
        raise RunError(f"{path}: _class_name is {str(name)[:60]!r}; Castalia reads {', '.join(classes)}.")
    return {key: value for key, value in data.items() if key not in _ABOUT}


def weights_file(model: Path) -> Path:
    """The file of the weights.

    Raises:
        RunError: there is none that may be read; the text says what to do.
    """
    path = model / WEIGHTS
    if path.exists() or path.is_symlink():
        return path
    if (model / PICKLE).exists():
        raise RunError(
            f"{model / PICKLE} is a pickle file: opening it can run "  # safe: refused, never opened
            f"whatever its author put in. Where you trust it, turn it into {WEIGHTS} with diffusers itself: "
            "UNet2DModel.from_pretrained(folder, "
            "use_safetensors=False).save_pretrained(other, safe_serialization=True), and import that folder."
        )
    others = sorted(p.name for p in model.glob("diffusion_pytorch_model*"))
    if others:
        raise RunError(
            f"{model} has no {WEIGHTS}, only {', '.join(others[:4])}. Save it again with diffusers in one file and "
            "without a variant: UNet2DModel.from_pretrained(..., variant=...).save_pretrained(other)."
        )
    raise RunError(f"{model} has no {WEIGHTS}.")


def finite(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file as ``float32``.

    Raises:
        RunError: one is of a type that is not read, or holds values that are not finite as such.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise RunError(f"{path}: {name!r} has the type {value.dtype}; {', '.join(_TYPES)} can be read.")
        found[name] = value.float()
        if not bool(torch.isfinite(found[name]).all()):
            raise RunError(f"{path}: {name!r} holds values that are not finite numbers.")
    return found


@dataclass(frozen=True)
class Weights:
    """An open file of weights whose header was read.

    Attributes:
        path: where it is.
        file: open, at any position.
        shapes: by name, present names for old ones.
        metadata: texts that its writer added.
        total: bytes.
    """

    path: Path
    file: BinaryIO
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    total: int

    def read(self, net: UNet) -> dict[str, Tensor]:
        """The weights of ``net`` (which may be on the meta device), ``float32``; nothing is read before they fit.

        Raises:
            RunError: names or shapes are not those that the network needs, or a value is not finite.
        """
        _compare(self.path, net, self.shapes)
        self.file.seek(0)
        data = self.file.read(self.total + 1)
        if len(data) != self.total:
            raise RunError(f"{self.path} changed while it was read.")
        try:
            theirs = {new_name(name): tensor for name, tensor in load(data).items()}
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.path} is not a valid safetensors file ({str(error)[:200]}).") from error
        _compare(self.path, net, {name: tuple(tensor.shape) for name, tensor in theirs.items()})
        for name, tensor in theirs.items():
            if not torch.isfinite(tensor).all():
                raise RunError(f"{self.path}: {name!r} holds values that are not finite.")
        return to_ours(net, theirs)


@contextmanager
def opened_weights(path: Path) -> Iterator[Weights]:
    """Open a safetensors file and read its header.

    Raises:
        RunError: it is no plain file, or its header is damaged.
    """
    plain_size(path)
    # O_NOFOLLOW (where the system has it): the name may have become a link since it was looked at
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 <= length <= min(size - 8, HEADER_LIMIT):
            raise RunError(f"{path} is damaged: its header claims {length:,} bytes of {size:,}.")
        shapes, metadata, body = _parsed(path, file.read(length))
        total = 8 + length + body
        if size != total:
            raise RunError(f"{path} is damaged: its header describes {total:,} bytes, the file has {size:,}.")
        yield Weights(path, file, shapes, metadata, total)


def _parsed(path: Path, raw: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, str], int]:
    """Shapes, metadata and bytes of all tensors from a header."""
    shapes: dict[str, tuple[int, ...]] = {}
    total = 0
    try:
        header = json.loads(raw)
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        for name, tensor in header.items():
            shape, kind = tuple(tensor["shape"]), tensor["dtype"]
            if kind not in _TYPES:
                raise RunError(f"{path}: {name!r} has the type {kind!r}; {', '.join(_TYPES)} can be read.")
            if not all(type(n) is int and 0 <= n <= 1 << 40 for n in shape):
                raise ValueError(shape)
            if new_name(name) in shapes:
                raise RunError(f"{path}: {name!r} is there twice, with its old name and with the new one.")
            shapes[new_name(name)] = shape
            total += math.prod(shape) * _TYPES[kind]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is not a valid safetensors file: its header cannot be read.") from error
    return shapes, metadata, total


def _compare(path: Path, net: UNet, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names and shapes with those that the configuration asks for."""
    expected = {name: shape for parts in names(net).values() for name, shape in parts}
    for name in sorted(expected.keys() ^ shapes.keys()):
        raise RunError(f"{path} does not fit its configuration: {'no' if name in expected else 'unexpected'} {name!r}.")
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise RunError(f"{path} does not fit its configuration: {name!r} is {shapes[name]}, expected {shape}.")
