"""What a folder from elsewhere must prove before anything is built from it.

The order matters: names, then sizes, then hashes, then the configuration, then the header of the weights
against the shapes that the configuration asks for; only after that is memory allocated for the model. Files
are copied while they are hashed, and only the copies are used, so that what was checked is what is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from castalia.catalogue import entry
from castalia.core import assets
from castalia.core.errors import RunError, shown
from castalia.core.files import SEAL, disk_error, open_plain, read_bounded, read_json
from castalia.core.model import Model
from castalia.runs import Run, open_run

CONFIG, WEIGHTS, METRICS, SUMS = "config.json", "model.safetensors", "metrics.json", "SHA256SUMS"

HASHED = (CONFIG, WEIGHTS, METRICS)
"""Files that SHA256SUMS may name. The card is left to people, who choose a licence and edit it."""

LIMITS = {SUMS: 64 << 10, CONFIG: 1 << 20, METRICS: 4 << 20}
"""Largest sizes in bytes; that of the weights follows from the configuration."""

HEADER_LIMIT = 16 << 20
"""Largest safetensors header in bytes: some 100,000 tensors."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_FIELDS = {SEAL, "schema_version", "recipe", "completed", "spec", "fingerprint", "made_with"}

LARGEST_NUMBER = 10**18

MOST_ASSETS = 16
"""Assets that a run may name."""


def read_sums(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, from a folder's ``SHA256SUMS``.

    Raises:
        RunError: it is missing, malformed, names anything but the files of an export, or leaves one out.
    """
    path = folder / SUMS
    regular_size(path)
    try:
        lines = read_bounded(path, LIMITS[SUMS]).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RunError(f"{path} cannot be read as text ({error}).") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise RunError(f"{path}, line {number}: expected a SHA-256, two spaces and a file name.")
        digest, name = match.groups()
        if name not in HASHED:
            raise RunError(f"{path}, line {number}: {name!r} is not a file of an export ({', '.join(HASHED)}).")
        if name in sums:
            raise RunError(f"{path}, line {number}: {name} is listed twice.")
        sums[name] = digest
    for name in (CONFIG, WEIGHTS):
        if name not in sums:
            raise RunError(f"{path} does not list {name}, which every export has.")
    return sums


def regular_size(path: Path) -> int:
    """Size in bytes of a plain file that is no link and within its limit.

    Raises:
        RunError: it is missing, a link (which could point anywhere), not a file, or too large.
    """
    try:
        found = path.lstat()
    except OSError as error:
        raise RunError(f"{path} is missing or cannot be read ({error.strerror}).") from error
    if stat.S_ISLNK(found.st_mode):
        raise RunError(f"{path} is a symbolic link; an export holds plain files only.")
    if not stat.S_ISREG(found.st_mode):
        raise RunError(f"{path} is not a plain file.")
    limit = LIMITS.get(path.name)
    if limit is not None and found.st_size > limit:
        raise RunError(f"{path} has {found.st_size:,} bytes; this file never needs more than {limit:,}.")
    return found.st_size


def copy_verified(source: Path, target: Path, digest: str) -> None:
    """Copy a plain file and compare the SHA-256 of what was copied.

    Raises:
        RunError: it is not a plain file, or its hash is another.
    """
    size, hasher = regular_size(source), hashlib.sha256()
    try:
        # O_NOFOLLOW (where the system has it): the name may have become a link since it was looked at
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(source, flags), "rb") as reader, open(target, "xb") as writer:
            if not stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
                raise RunError(f"{source} is not a plain file.")
            while block := reader.read(1 << 20):
                size -= len(block)
                if size < 0:
                    raise RunError(f"{source} grew while it was read.")
                hasher.update(block)
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
    except OSError as error:
        raise disk_error(target, error) from error
    if hasher.hexdigest() != digest:
        raise RunError(f"{source} is damaged or was changed: its SHA-256 is not the one in {SUMS}.")


def read_configuration(folder: Path) -> Run:
    """Read ``config.json`` strictly: every field known, every value of its type.

    Raises:
        RunError: it is not a configuration that this version wrote or can read; the text names the field.
    """
    path = folder / CONFIG
    try:
        data = read_json(path, LIMITS[CONFIG])
        for name in sorted(set(data) - _FIELDS) if isinstance(data, dict) else ():
            raise RunError(f"{path}: there is no field {name!r}.")
        _check_numbers(data, str(path))
        return open_run(folder)
    except (ValueError, TypeError, OverflowError) as error:  # numbers of thousands of digits, lists as keys
        raise RunError(f"{path} is not a Castalia run configuration ({error}).") from error


def _check_numbers(value: Any, where: str) -> None:
    """Refuse numbers whose square float32 cannot hold: nothing that is computed with them is finite."""
    if isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(part, f"{where}: {shown(str(key))[:60]}" if where.count(": ") < 6 else where)
    elif isinstance(value, list):
        for part in value:
            _check_numbers(part, where)
    elif isinstance(value, int | float) and (value > LARGEST_NUMBER or value < -LARGEST_NUMBER):  # NaN is named later
        raise RunError(f"{where}: a number beyond {LARGEST_NUMBER:g} is not one that can be computed with.")


def copy_assets(source: Path, target: Path, run: Run) -> None:
    """Copy what a configuration names by its SHA-256 (vocabularies and the like), verified, and make it readable.

    Raises:
        RunError: one is missing, too large, or not what its name says; or there are too many.
    """
    named = list(dict.fromkeys((*assets.of(run.spec), *assets.of(run.config), *assets.of(run.recipe.config))))
    if len(named) > MOST_ASSETS:
        raise RunError(f"{source / CONFIG} names {len(named)} assets; a run has at most {MOST_ASSETS}.")
    for asset in named:
        path = source / "assets" / asset.file
        if regular_size(path) > assets.LARGEST:
            raise RunError(f"{path} is larger than {assets.LARGEST >> 20} MiB.")
        (target / "assets").mkdir(exist_ok=True)
        copy_verified(path, target / "assets" / asset.file, asset.sha256)
    assets.look_in(target / "assets")


def check_weights_header(path: Path, run: Run) -> None:
    """Compare the header of a safetensors file with the tensors that the configuration asks for.

    Nothing is allocated: the header is read alone, and the model is built on torch's ``meta`` device.

    Raises:
        RunError: the header is damaged, or a name, shape or size differs; the text gives the first.
    """
    size = regular_size(path)
    with open_plain(path) as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 <= length <= min(size - 8, HEADER_LIMIT):
            raise RunError(f"{path} is damaged: its header claims {length:,} bytes of {size:,}.")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        shapes = {name: tuple(tensor["shape"]) for name, tensor in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is not a valid safetensors file: its header cannot be read.") from error
    expected = _skeleton(run, len(shapes)).state_dict()
    for name in sorted(expected.keys() ^ shapes.keys()):
        raise RunError(f"{path} does not fit the configuration: {'no' if name in expected else 'unexpected'} {name!r}.")
    for name, tensor in expected.items():
        if shapes[name] != tuple(tensor.shape):
            raise RunError(
                f"{path} does not fit the configuration: {name!r} is {list(shapes[name])}, "
                f"expected {list(tensor.shape)}."
            )
    total = sum(t.numel() * t.element_size() for t in expected.values())
    if size != 8 + length + total:
        raise RunError(f"{path} has {size:,} bytes where the configuration asks for {8 + length + total:,}.")


def _skeleton(run: Run, tensors: int) -> Model:
    """The model without memory for its weights; gives up when it grows beyond what the file can fill."""
    left = 4 * tensors + 64  # some parameters are registered more than once while a model is put together

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RunError(f"The configuration asks for many more than the {tensors} tensors of {WEIGHTS}.")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return entry(run.recipe.model).load()(run.config, run.spec)  # type: ignore[call-arg]
    except RunError:
        raise
    # whatever a constructor makes of strange numbers (overflow, negative sizes): the folder is at fault
    except Exception as error:
        raise RunError(f"No {run.recipe.model} can be built from this configuration: {error}") from error
    finally:
        hook.remove()
