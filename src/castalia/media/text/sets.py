"""Named sets of texts, and a tiny one that is built in.

``tinyshakespeare`` are plays, as Karpathy's char-rnn made them popular: one text, of which the first nine tenths are
for training and the last tenth (``test``) is what others call its validation split. ``stdlib`` is what every
Python has: sources of its standard library with their documentation. ``counting`` is for tests.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from castalia.core.errors import DataError
from castalia.core.specs.text import TextSpec
from castalia.media.sets import DataFile, NamedData, Progress, data_folder, find
from castalia.media.text.packed import PackedText, pack
from castalia.media.text.packing import TextOptions, open_texts
from castalia.media.text.pairs import Pairs, pair_up
from castalia.media.text.read import Source
from castalia.media.text.tokens import tokens_of

_PLAYS = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_PLAYS_SIZE = 1_115_394
_PLAYS_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"

# windows of 256 tokens, which is what the options are by themselves; 0 where nobody knows before it is read
SETS: Mapping[str, NamedData] = {
    "tinyshakespeare": NamedData(
        "plays of Shakespeare, 1,115,394 characters; test is the last tenth, customarily called validation",
        "public domain",
        (),
        {"train": 3922, "test": 436},
        {"all": (DataFile("input.txt", _PLAYS, _PLAYS_SIZE, _PLAYS_URL, (_PLAYS,)),)},
        "input.txt of https://github.com/karpathy/char-rnn can be opened by its path",
    ),
    "stdlib": NamedData(
        "sources and documentation of the running Python's standard library; nothing to download",
        "PSF-2.0",
        (),
        {"train": 0, "test": 0},
        {},
    ),
    "counting": NamedData(
        "texts that count eight numbers from somewhere below 300, by characters: for tests; built in",
        "none needed: computed",
        (),
        {"train": 31, "test": 4},
        {},
    ),
    "counting-pairs": NamedData(
        "pairs of answers to three numbers: back again is preferred to onwards: for tests; built in",
        "none needed: computed",
        (),
        {"train": 270, "test": 30},
        {},
    ),
}

LIBRARY_BYTES, LIBRARY_FILE = 8 << 20, 256 << 10
"""How much of the standard library is taken, and the largest file of it."""


def open_set(
    name: str,
    options: TextOptions,
    split: str,
    like: TextSpec | None = None,
    progress: Progress | None = None,
) -> PackedText | Pairs:
    """Open a named set.

    Raises:
        DataError: its files are missing, wrong or damaged.
    """
    if name == "counting":
        return _counting(options, split, like)
    if name == "counting-pairs":
        return _counting_pairs(options, split, like)
    if name == "stdlib":
        source = _library()
        return open_texts(source.path, options, split, like, progress, name, source)
    return open_texts(_plays(progress), options, split, like, progress, name)


def _plays(progress: Progress | None) -> Path:
    """The verified plays; packed ones where a folder of data has them so."""
    entry = SETS["tinyshakespeare"]
    (file,) = entry.files["all"]
    folder = data_folder()
    if folder is not None and (folder / "tinyshakespeare" / "input.txt.gz").is_file():
        packed = replace(file, name="input.txt.gz", url=None, packed=(), inside=_PLAYS_SIZE)
        return find("tinyshakespeare", entry, packed, progress)
    return find("tinyshakespeare", entry, file, progress)


def _library() -> Source:
    """Sources of the standard library in the order of their names, without tests, as far as the limit allows."""
    root = Path(sysconfig.get_path("stdlib")).resolve()
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "idlelib", "__pycache__"}
    files, total = [], 0
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if left_out & set(parts) or any(part.startswith((".", "_sysconfigdata", "__phello")) for part in parts):
            continue
        size = path.stat().st_size if path.is_file() else LIBRARY_FILE + 1
        if 0 < size <= LIBRARY_FILE and total + size <= LIBRARY_BYTES and _is_utf8(path):
            files.append(path)
            total += size
    if not files:
        raise DataError(f"This Python has no sources of its standard library at {root}.")
    return Source(root, tuple(files), (f"{len(files)} source files of the standard library, {total / 1e6:.1f} MB.",))


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return False
    return True


COUNTED = "0123456789 "
"""The characters of ``counting``."""


def _counting(options: TextOptions, split: str, like: TextSpec | None) -> PackedText:
    """Texts such as ``17 18 19 20 21 22 23 24``, one for every number below 300; a tenth of them is for testing."""
    texts = [" ".join(map(str, range(n, n + 8))) for n in range(300)]
    chosen = [text for n, text in enumerate(texts) if split == "all" or (n * 7 % 10 == 0) == (split == "test")]
    spec = like or TextSpec("chars", len(COUNTED) + 1, options.length, alphabet=COUNTED)
    return pack([chosen[i * 131 % len(chosen)] for i in range(len(chosen))], spec, name="counting")


def _counting_pairs(options: TextOptions, split: str, like: TextSpec | None) -> Pairs:
    """Pairs such as ``17 18 19`` with `` 18 17`` rather than `` 20 21``, for every number below 300."""
    rows = []
    for n in range(300):
        if split == "all" or (n * 7 % 10 == 0) == (split == "test"):
            rows.append((f"{n} {n + 1} {n + 2}", f" {n + 1} {n}", f" {n + 3} {n + 4}"))
    spec = like or TextSpec("chars", len(COUNTED) + 1, options.length, alphabet=COUNTED)
    return pair_up(rows, tokens_of(spec), spec, name="counting-pairs")


def tiny() -> PackedText:
    """The test part of ``counting`` in windows of 32 characters: what comes next can be learned almost exactly."""
    return _counting(TextOptions(tokens="chars", length=32), "test", None)
