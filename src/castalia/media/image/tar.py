"""Where the files lie in an uncompressed tar: a bounded reader of headers.

The standard library's reader builds an object for each member, reads extended headers of any declared size into memory,
and stops in silence at a damaged header. Here every number is checked against the size of the file, and whatever is
not a plain file or a folder is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from castalia.core.errors import DataError
from castalia.core.files import open_plain
from castalia.media.image.tree import stays_inside

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_BLOCK = 512
# Long names and PAX records; more than this is no name.
_MAX_EXTENDED = 64 << 10
# Between small pictures headers lie in one buffer; past large ones little is read in vain.
_BUFFER = 16 << 10
# tar fills up to 10 KiB by default, and to a few hundred on tapes.
_MAX_PADDING = 1 << 20
_REFUSED = {
    b"1": "a hard link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"M": "a part of a file that began in another archive",
}
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstandard"}


def refuse_compressed(path: Path, kind: str = "compressed") -> DataError:
    """The error for a compressed shard."""
    return DataError(
        f"{path}: a {kind} tar cannot be read at random places, which training needs. Unpack it to .tar first "
        "(gunzip, for example); pictures are compressed already, so it hardly grows."
    )


def members(path: Path) -> Iterator[tuple[str, int, int]]:
    """The plain files of a tar in the order in which they lie: name, offset of the first byte, size.

    Reads the headers only. The names lead nowhere outside; a leading ``./`` is taken off.

    Raises:
        DataError: it is no tar, compressed, truncated or damaged, or holds links, devices, pipes, sparse files, names
            that lead outside, or something after its end. The text names the file and the member.
    """
    try:
        with open_plain(path) as file:
            yield from _members(file, path, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def _members(file: BinaryIO, path: Path, total: int) -> Iterator[tuple[str, int, int]]:
    position, long_name, long_size, last = 0, None, None, "its beginning"
    while True:
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            if position == 0 and header[:2] in _PACKED:
                raise refuse_compressed(path, _PACKED[header[:2]])
            raise DataError(f"{path}: truncated: it ends after {last} without the mark of an end.")
        if header[:1] == b"\0" and not any(header):
            _check_end(file, path, total - position)
            return
        name, kind, size = _header(header, path, position, last)
        start = position + _BLOCK
        if long_size is not None and kind in b"07\0":
            size = long_size
        if size > total - start:
            raise DataError(f"{path}: truncated: {name!a} declares {size} bytes, and {total - start} are left.")
        position = start + -(-size // _BLOCK) * _BLOCK
        if kind in b"LKxg":  # GNU's long name or link, PAX records of the next member or of all
            if size > _MAX_EXTENDED:
                raise DataError(f"{path}: an extended header after {last} declares {size} bytes.")
            data = file.read(size)
            if kind == b"L":
                long_name = _text(data.rstrip(b"\0"))
            elif kind in b"xg":
                found = _records(data, path, last)
                if kind == b"g" and found.keys() & {"path", "size"}:
                    raise DataError(f"{path}: refused, because one header gives all members the same name or size.")
                if kind == b"x":
                    long_name = found.get("path", long_name)
                    long_size = _whole(found["size"], path, last) if "size" in found else None
            file.seek(position)
            continue
        name, long_name, long_size = long_name or name, None, None
        if kind in _REFUSED:
            raise DataError(f"{path}: refused, because {name!a} is {_REFUSED[kind]}, not a plain file.")
        name = name[2:] if name.startswith("./") else name
        if not stays_inside(name):
            raise DataError(f"{path}: refused, because the name {name!a} points outside the archive.")
        last = ascii(name)
        if kind in b"07\0" and not name.endswith("/"):
            yield name, start, size
        elif kind not in b"5V07\0":
            raise DataError(f"{path}: refused, because {name!a} is of the unknown kind {kind!a}.")
        file.seek(position)


def _header(header: bytes, path: Path, position: int, last: str) -> tuple[str, bytes, int]:
    """Name, kind and size of a member."""
    fixed = header[:148] + b" " * 8 + header[156:]
    try:
        stated = _number(header[148:156])
        total = sum(fixed)
        if stated != total and stated != total - 256 * sum(
            byte > 127 for byte in fixed
        ):  # of old writers: signed bytes
            raise ValueError
        size = _number(header[124:136])
        if size < 0:
            raise ValueError
    except ValueError:
        if position == 0:
            kind = _PACKED.get(header[:2])
            raise refuse_compressed(path, kind) if kind else DataError(f"{path}: not a tar archive.") from None
        raise DataError(f"{path}: damaged: there is no valid header after {last}.") from None
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return _text(name), header[156:157], size


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") if field[0] == 0x80 else -1
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ValueError
    return int(digits or b"0", 8)


def _text(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")  # of old archives; one byte, one letter, so names stay apart


def _records(data: bytes, path: Path, last: str) -> dict[str, str]:
    """The ``length key=value`` lines of a PAX header."""
    found: dict[str, str] = {}
    while data.rstrip(b"\0"):
        head, _, _ = data.partition(b" ")
        length = int(head) if re.fullmatch(rb"[0-9]{1,6}", head) else 0
        key, equals, value = data[len(head) + 1 : length - 1].partition(b"=")
        if not len(head) + 2 < length <= len(data) or data[length - 1 : length] != b"\n" or not equals:
            raise DataError(f"{path}: damaged: the extended header after {last} cannot be read.")
        if key.startswith(b"GNU.sparse"):
            raise DataError(f"{path}: refused, because the member after {last} is a sparse file.")
        found[_text(key)] = _text(value)
        data = data[length:]
    return found


def _whole(text: str, path: Path, last: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise DataError(f"{path}: damaged: the member after {last} has the size {text!a}.")
    return int(text)


def _check_end(file: BinaryIO, path: Path, left: int) -> None:
    """Whether only zeros follow. Archives laid end to end would lose all but the first in silence."""
    if left > _MAX_PADDING or any(file.read(left)):
        raise DataError(
            f"{path}: something follows after its end (two archives laid end to end?). Make one of each with tar."
        )
