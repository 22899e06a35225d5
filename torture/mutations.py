"""Hostile versions of good files: bytes mutated blindly, and formats mutated by their structure."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from functools import cache
from typing import Any

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
"""What length fields are overwritten with, cut to their width."""

NAMES = (
    *("../x.png", "../../../../etc/passwd", "/etc/passwd", "a/../../x.png", "..\\x.png", "C:\\x.png", "c:x.png"),
    *("a\0b.png", ".", "..", "", "/", "//x.png", "x" * 300 + ".png", "CON.png", "\ud800.png", "~/x.png", "a/b.png/"),
)
"""Names that would leave a folder, or that no file can have."""

STRANGERS = (
    *("canary", "canary:run", "os.system", "builtins.eval", "__import__", "torch.nn.Linear", "subprocess:Popen"),
    *("castalia.models.autoencoders.vae:VAE", "../canary", "file:///etc/passwd", "http://127.0.0.1:9/x", "vae ", "VAE"),
    *("${jndi:ldap://127.0.0.1:9/x}", "!!python/object/apply:os.system", "{{7*7}}", "hf://a/b@c", "|id", "$(id)"),
)
"""Values that name code, classes, files and places."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**31, 2**63, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e-300, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "x",
        "0",
        "1e9",
        "\0",
        "\u202e",
        "\ud800",
        "é" * 50,
        "x" * 5000,
        [],
        {},
        [[]],
        [0] * 300,
        {"": {}},
        [None, 1, "x"],
    ),
)


def bend(data: bytes, dice: random.Random, other: bytes = b"") -> bytes:
    """One to four blind changes: bits, bytes, lengths, cuts, pieces doubled, moved or taken from elsewhere."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        size = len(out)
        if not size:
            break
        at = dice.randrange(min(size, 64)) if dice.random() < 0.4 else dice.randrange(size)  # headers come first
        kind = dice.randrange(9)
        if kind == 0:
            out[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            out[at] = dice.choice((0, 255, 127, 128, dice.randrange(256)))
        elif kind in (2, 3):
            width, order = dice.choice((1, 2, 4, 8)), dice.choice(("little", "big"))
            value = dice.choice(NUMBERS) % (1 << 8 * width)
            out[at : at + width] = value.to_bytes(width, order)
        elif kind == 4:
            del out[at:]
        elif kind == 5:
            del out[at : at + dice.randrange(1, 64)]
        elif kind == 6:
            out[at:at] = out[at : at + dice.randrange(1, 64)] * dice.choice((1, 1, 2, 200))
        elif kind == 7 and other:
            start = dice.randrange(len(other))
            out[at : at + dice.choice((0, 8, 64))] = other[start : start + dice.randrange(1, 256)]
        else:
            out[at:at] = dice.randbytes(dice.randrange(1, 16))
    return bytes(out)


# JSON


def bend_value(value: Any, dice: random.Random) -> Any:
    """A JSON value with one to three of its nodes replaced, renamed, removed, doubled or nested."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return _value(dice)
        parent, key = dice.choice(places)
        kind = dice.randrange(8)
        if kind < 3:
            parent[key] = _value(dice)
        elif kind == 3:
            parent[key] = dice.choice(STRANGERS)
        elif kind == 4 and isinstance(parent, dict):
            parent[dice.choice((f"{key} ", "_target_", "__class__", "auto_map", *STRANGERS))] = parent.pop(key)
        elif kind == 5:
            del parent[key]
        elif kind == 6:
            parent[key] = _nested(parent[key], dice.choice((1, 3, 50)))
        elif type(parent[key]) in (int, float) and abs(parent[key]) < 1e300:  # more is no number to reckon with
            parent[key] = dice.choice((-1, 2, 10, 1000)) * parent[key] + dice.choice((0, 1, -1, 0.5))
        else:
            parent[key] = copy.deepcopy(dice.choice(places)[0])
    return value


def _value(dice: random.Random) -> Any:
    """One of the values, and a copy of it: a later change must not reach the inputs after this one."""
    return copy.deepcopy(dice.choice(VALUES))


def _places(value: Any) -> Any:
    """Every place in a JSON value as (container, key)."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _nested(value: Any, times: int) -> Any:
    for i in range(times):
        value = [value] if i % 2 else {"x": value}
    return value


def text_of(value: Any, dice: random.Random) -> bytes:
    """JSON, sometimes with what only its text can have: doubled keys, endless nesting, numbers of 5,000 digits."""
    text = json.dumps(value)
    kind = dice.randrange(14)
    if kind == 0:
        deep = dice.choice((100, 2000, 100_000))
        text = text.replace("1", "[" * deep + "]" * deep, 1)
    elif kind == 1:
        text = text.replace("1", dice.choice(("1" * 5000, "1e999", "-1e999", "01", "0x1", "1_0", "NaN")), 1)
    elif kind == 2 and text.startswith("{") and len(text) > 2:
        first = text[1:].split(",")[0].rstrip("}")
        text = "{" + first + ("," + text[1:] if first else text[1:])
    elif kind == 3:
        return dice.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b" " * 70_000)) + text.encode()
    elif kind == 4:
        return text.encode(dice.choice(("utf-16", "utf-32")))
    return text.encode()


def bend_json(data: bytes, dice: random.Random) -> bytes:
    """A JSON file, mutated by its structure mostly, and blindly else."""
    if dice.random() < 0.25:
        return bend(data, dice)
    try:
        value = json.loads(data)
    except ValueError:
        return bend(data, dice)
    return text_of(bend_value(value, dice), dice)


def bend_lines(data: bytes, dice: random.Random) -> bytes:
    """A file of JSON lines; a name in it may become one that leaves the folder."""
    lines = data.splitlines()
    at = dice.randrange(len(lines))
    if dice.random() < 0.4:
        value = json.loads(lines[at])
        value["file_name"] = dice.choice((*NAMES, *STRANGERS))
        lines[at] = json.dumps(value).encode()
    elif dice.random() < 0.2:
        lines.insert(at, dice.choice(lines))
    else:
        lines[at] = bend_json(lines[at], dice)
    return b"\n".join(lines)


# containers


@cache
def _zeros(power: int) -> bytes:
    """So many zeros, packed."""
    return zlib.compress(bytes(1 << power))


def bend_png(data: bytes, dice: random.Random) -> bytes:
    """A PNG with chunks changed, moved, doubled or left out, their checksums right again."""
    if dice.random() < 0.3:
        return bend(data, dice)
    chunks, at = [], 8
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    i = dice.randrange(len(chunks))
    kind, body = chunks[i]
    deed = dice.randrange(7)
    if deed == 0:
        width, height = (dice.choice(NUMBERS) % 2**32 for _ in range(2))
        chunks[0] = (b"IHDR", struct.pack(">II", width, height) + chunks[0][1][8:])
    elif deed == 1:
        chunks[0] = (
            b"IHDR",
            chunks[0][1][:8]
            + bytes((dice.choice((0, 1, 2, 4, 8, 16, 255)), dice.randrange(8), 0, 0, dice.randrange(3))),
        )
    elif deed == 2:
        chunks[i] = (kind, bend(body, dice)) if body else (kind, dice.randbytes(9))
    elif deed == 3:
        chunks.insert(i, chunks[dice.randrange(len(chunks))])
    elif deed == 4:
        del chunks[i]
    elif deed == 5:
        new = dice.choice(
            (b"iTXt", b"zTXt", b"iCCP", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fdAT", b"gAMA", dice.randbytes(4))
        )
        bomb = b"x\0\0" + _zeros(22) if dice.random() < 0.3 else dice.randbytes(dice.randrange(40))
        chunks.insert(dice.randrange(1, len(chunks) + 1), (new, bomb))
    else:
        bomb = _zeros(dice.choice((10, 24)))
        chunks = [(k, bomb if k == b"IDAT" else b) for k, b in chunks]
    out = bytearray(data[:8])
    for name, content in chunks:
        size = len(content) if dice.random() < 0.98 else dice.choice(NUMBERS) % 2**32
        out += struct.pack(">I", size) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return bytes(out)


def bend_idx(data: bytes, dice: random.Random) -> bytes:
    """An IDX file, packed or not, with another header."""
    packed = data[:2] == b"\x1f\x8b"
    plain = bytearray(gzip.decompress(data) if packed else data)
    if dice.random() < 0.6:
        at = dice.choice((2, 3))
        if dice.random() < 0.3:
            plain[at] = dice.choice((0, 1, 3, 8, 9, 13, 14, 255))
        for _ in range(dice.randrange(1, 3)):
            at = 4 + 4 * dice.randrange(3)
            plain[at : at + 4] = (dice.choice(NUMBERS) % 2**32).to_bytes(4, "big")
    else:
        plain = bytearray(bend(bytes(plain), dice))
    if packed and dice.random() < 0.2:
        plain += bytes(1 << 22)  # more than the header says, in few bytes
    out = gzip.compress(bytes(plain), 9) if packed else bytes(plain)
    return bend(out, dice) if packed and dice.random() < 0.4 else out


def bend_safetensors(data: bytes, dice: random.Random) -> bytes:
    """A safetensors file with another header: offsets, shapes, types, names, lengths."""
    if dice.random() < 0.3:
        return bend(data, dice)
    (size,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [key for key in header if key != "__metadata__"]
    deed, one = dice.randrange(7), header[dice.choice(names)]
    if deed == 0:
        one["data_offsets"] = [dice.choice((0, -1, *NUMBERS, len(body))) for _ in range(2)]
    elif deed == 1:
        one["shape"] = [dice.choice((0, -1, *NUMBERS)) for _ in range(dice.choice((0, 1, 2, 9)))]
    elif deed == 2:
        one["dtype"] = dice.choice(("F64", "F16", "I8", "BOOL", "F8_E4M3", "U16", "C64", "x", 7, None))
    elif deed == 3:
        one["data_offsets"] = header[dice.choice(names)]["data_offsets"]
    elif deed == 4:
        header["__metadata__"] = dice.choice((None, [], {"castalia.sha256": "x"}, {"castalia.rows": "{}"}, {"a": 1}))
    else:
        header = bend_value(header, dice)
    text = text_of(header, dice)
    length = len(text) if dice.random() < 0.95 else dice.choice(NUMBERS)
    return struct.pack("<Q", length) + text + (body if dice.random() < 0.9 else bend(body, dice))


def bend_zip(data: bytes, dice: random.Random) -> bytes:
    """A zip with other names, entries that swell, entries twice, or other bytes in its directories."""
    if dice.random() < 0.5:
        at = data.rfind(b"PK\x01\x02")
        return bend(data, dice) if dice.random() < 0.5 else data[:at] + bend(data[at:], dice)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = dice.choice(old.namelist())
        for name in old.namelist():
            content, method = old.read(name), zipfile.ZIP_STORED
            if name == chosen:
                deed = dice.randrange(5)
                if deed == 0:
                    name = dice.choice(NAMES[:-4]) or "x"
                elif deed == 1:
                    content, method = bytes(1 << dice.choice((20, 20, 20, 23))), zipfile.ZIP_DEFLATED
                elif deed == 2:
                    new.writestr(zipfile.ZipInfo(name), content)
                elif deed == 3:
                    content, method = bend(content, dice), dice.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
                else:
                    info = zipfile.ZipInfo(name)
                    info.external_attr = 0o120777 << 16  # a link
                    new.writestr(info, "../../../../etc/passwd")
                    continue
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            new.writestr(info, content)
    return out.getvalue()


def bend_tar(data: bytes, dice: random.Random) -> bytes:
    """A tar with other names, sizes, kinds and links in its headers, their checksums right again."""
    if dice.random() < 0.3:
        return bend(data, dice)
    out = bytearray(data)
    starts = [at for at in range(0, len(out) - 511, 512) if out[at + 257 : at + 262] == b"ustar"]
    at = dice.choice(starts)
    deed = dice.randrange(5)
    if deed == 0:
        name = dice.choice((*NAMES, *STRANGERS)).encode("utf-8", "surrogatepass")[:100]
        out[at : at + 100] = name.ljust(100, b"\0")
    elif deed == 1:
        sizes = (
            b"77777777777\0",
            b"-0000000001\0",
            b"\x80" + b"\xff" * 11,
            b"00000000000\0",
            b"x" * 12,
            b" 12 \0" + b"\0" * 7,
        )
        out[at + 124 : at + 136] = dice.choice(sizes)
    elif deed == 2:
        out[at + 156] = dice.choice(b"01234567LKxgSVA\0\xff")
        out[at + 157 : at + 257] = dice.choice(NAMES).encode("utf-8", "surrogatepass")[:100].ljust(100, b"\0")
    elif deed == 3:
        out[at : at + 512] = bend(bytes(out[at : at + 512]), dice)[:512].ljust(512, b"\0")
    else:
        other = dice.choice(starts)
        out[at : at + 512] = out[other : other + 512]
    head = out[at : at + 148] + b" " * 8 + out[at + 156 : at + 512]
    out[at + 148 : at + 156] = b"%06o\0 " % sum(head)
    return bytes(out) if dice.random() < 0.8 else bend(bytes(out), dice)


def bend_npy(data: bytes, dice: random.Random) -> bytes:
    """A NumPy file with another header: shapes, types (objects, structures), or Python in its place."""
    if dice.random() < 0.5:
        return bend(data, dice)
    kinds = ("|u1", "<f4", "<f8", "|O", "|b1", "<U9", "<M8[s]", "|V0", "<f2", "[('a', '<f4')]", ">f4", "<c8", "x")
    shapes = (
        "(2, 8, 8)",
        "(3, 2)",
        "()",
        "(0,)",
        "(-1, 2)",
        f"({2**62}, 4)",
        f"({2**31}, {2**31})",
        "(1,) * 99",
        "(2.5, 2)",
    )
    kind = dice.choice(kinds)
    text = (
        f"{{'descr': {kind if kind[0] == '[' else repr(kind)}, 'fortran_order': {dice.choice(('True', 'False', '1'))}, "
    )
    text += f"'shape': {dice.choice(shapes)}}}"
    if dice.random() < 0.2:
        text = dice.choice(
            ("__import__('canary')", "{" * 500, "[" * 5000 + "]" * 5000, "1" * 9000, "{'descr': '|u1'}", "9**9**9")
        )
    head = text.encode() + b" " * (-len(text) % 64) + b"\n"
    version = dice.choice((b"\x01\0", b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"))
    length = struct.pack("<H" if version[0] == 1 else "<I", len(head) if dice.random() < 0.9 else 65535)
    return b"\x93NUMPY" + version + length + head + data[128:]


def bend_table(data: bytes, dice: random.Random) -> bytes:
    """A CSV with odd cells, quotes, separators and line ends."""
    if dice.random() < 0.4:
        return bend(data, dice)
    lines = data.decode().splitlines()
    at = dice.randrange(len(lines))
    cells = lines[at].split(",")
    odd = (
        "",
        " ",
        "nan",
        "inf",
        "1e400",
        "1_0",
        '"',
        '"1',
        '"1"',
        "=cmd|x",
        "0x1",
        "٣",
        "1;2",
        "1\t2",
        "\0",
        "9" * 5000,
        "-",
        "label",
    )
    cells[dice.randrange(len(cells))] = dice.choice(odd)
    lines[at] = ",".join(cells * dice.choice((1, 1, 1, 2, 3000)))
    return (
        dice.choice(("\n", "\r\n", "\r", "\n\n"))
        .join(lines)
        .encode(dice.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")))
    )
