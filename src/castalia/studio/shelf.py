"""What lies in the studio's folder: runs, uploads, what was made, and boards. Everything has an identifier.

``RUNS/.studio/`` holds ``jobs.sqlite``, ``made/N/`` (the files of job N), ``uploads/`` and ``boards/NAME/``. Nothing
that a browser says becomes part of a path before it was found in a list of what there is.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import shutil
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from castalia import overview
from castalia.core.errors import UsageError
from castalia.core.files import disk_error, read_bounded, write_bytes, write_json

TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".mp4": "video/mp4",
    ".wav": "audio/wav", ".mid": "audio/midi", ".glb": "model/gltf-binary", ".txt": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8", ".json": "application/json", ".html": "text/html; charset=utf-8",
    ".sdf": "text/plain; charset=utf-8", ".smi": "text/plain; charset=utf-8", ".pdb": "text/plain; charset=utf-8",
    ".cif": "text/plain; charset=utf-8", ".bvh": "text/plain; charset=utf-8",
}  # fmt: skip
"""What files are sent as; others are sent as bytes to be saved."""

UPLOADS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".wav", ".flac", ".mid", ".glb", ".txt", ".csv", ".zip", ".bvh",
           ".npz", ".parquet", ".sdf", ".smi", ".pdb", ".cif", ".json"}  # fmt: skip
"""Endings of files that may be uploaded; what is in them is for the readers to find out, as with any other file."""

FILE = re.compile(r"upload-[0-9a-f]{16}|job-[0-9]{1,12}-[0-9]{1,4}")
"""Identifiers of files."""

UPLOAD_LIMIT = 512 << 20
"""Bytes of an upload."""

ALL_UPLOADS = 8 << 30
"""Bytes of all uploads together."""

PIXELS = 64 << 20
"""Pixels of an uploaded picture, by what its header says."""


class Shelf:
    """The studio's folder.

    Args:
        runs: the folder of the runs; it is made where there is none.

    Raises:
        RunError: it cannot be written.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs.resolve()
        self.home = self.runs / ".studio"
        self._known: dict[str, Path] = {}
        self.made, self.uploads, self.boards = (self.home / name for name in ("made", "uploads", "boards"))
        for folder in (self.made, self.uploads, self.boards):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(folder, error) from error

    # runs

    def run_ids(self) -> dict[str, Path]:
        """Folders of the runs by their identifiers, which stay the same for as long as a folder keeps its name."""
        return {self.id_of(path): path for path in overview.find(self.runs)}

    def id_of(self, path: Path) -> str:
        """The identifier of a run's folder."""
        return hashlib.sha256(str(path.relative_to(self.runs)).encode()).hexdigest()[:12]

    def run(self, identifier: str) -> Path:
        """The folder of a run.

        Raises:
            KeyError: there is no such run.
        """
        path = self._known.get(identifier)
        if path is None or not (path / "config.json").is_file():  # new, renamed, or gone: look again
            self._known = self.run_ids()
        return self._known[identifier]

    # files

    def inside(self, path: Path) -> Path:
        """A file of this folder; what a link makes of one that lies elsewhere is none.

        Raises:
            KeyError: it is not there, or lies elsewhere.
        """
        try:
            found = path.resolve(strict=True)
        except OSError:
            raise KeyError(path.name) from None
        if not found.is_relative_to(self.runs) or not found.is_file():
            raise KeyError(path.name)
        return found

    def file(self, identifier: str) -> Path:
        """A file by its identifier: ``upload-X``, or ``job-N-K``, the K-th file of job N.

        Raises:
            KeyError: there is no such file.
        """
        if not FILE.fullmatch(identifier):
            raise KeyError(identifier)
        kind, _, rest = identifier.partition("-")
        if kind == "upload":
            found = {path.stem: path for path in self.uploads.iterdir() if path.suffix in UPLOADS}
            return found[rest]
        number, _, index = rest.partition("-")
        names = self.files_of(int(number))
        if int(index) >= len(names):
            raise KeyError(identifier)
        return self.made / str(int(number)) / names[int(index)]

    def files_of(self, number: int) -> list[str]:
        """Names of the files of a job, what shows most of it first."""
        folder = self.made / str(number)
        if not folder.is_dir():
            return []
        names = [path.name for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
        first = ("page.html", "film.gif", "grid.png")
        return sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name))

    def job_folder(self, number: int) -> Path:
        """An empty folder for what a job makes."""
        folder = self.made / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def discard(self, number: int) -> None:
        """Remove what a job made."""
        shutil.rmtree(self.made / str(number), ignore_errors=True)

    # uploads

    def room_for(self, name: str) -> Path:
        """A new file for an upload of that name.

        Raises:
            UsageError: such files are not taken, or there is no more room.
        """
        suffix = Path(name.lower()).suffix
        if suffix not in UPLOADS:
            raise UsageError(
                f"Files that end in {suffix or 'nothing'} are not taken; {', '.join(sorted(UPLOADS))} are."
            )
        taken = sum(path.stat().st_size for path in self.uploads.iterdir() if path.is_file())
        if taken >= ALL_UPLOADS:
            raise UsageError(f"Uploads fill {ALL_UPLOADS >> 30} GiB already; remove some first.")
        return self.uploads / f"{secrets.token_hex(8)}{suffix}"

    def drop_upload(self, identifier: str) -> None:
        """Remove an upload.

        Raises:
            KeyError: there is none.
        """
        if not identifier.startswith("upload-"):
            raise KeyError(identifier)
        self.file(identifier).unlink()

    def check_upload(self, path: Path) -> None:
        """Look at an uploaded picture's header.

        Raises:
            UsageError: it is no picture, or of too many pixels.
        """
        if path.suffix not in (".png", ".jpg", ".jpeg", ".webp", ".gif"):
            return
        try:
            with Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF")) as found:
                width, height = found.size
        except Exception as error:  # Pillow's readers raise nearly every type there is on broken files
            raise UsageError(f"This is no picture that can be read ({type(error).__name__}).") from error
        if width * height > PIXELS:
            raise UsageError(f"A picture may have {PIXELS:,} pixels here; this one has {width:,} x {height:,}.")

    # boards

    def board_names(self) -> list[dict[str, Any]]:
        """All boards, with how many things each keeps."""
        found = []
        for folder in sorted(self.boards.iterdir()):
            if folder.is_dir() and not folder.is_symlink():
                items = self.items(folder.name)
                found.append({"id": folder.name, "name": _named(folder), "count": len(items)})
        return found

    def new_board(self, name: str) -> str:
        """Make a board; return its identifier.

        Raises:
            UsageError: the name has nothing that can be shown.
        """
        shown = "".join(c for c in name if c.isprintable()).strip()
        if not shown:
            raise UsageError("A board needs a name.")
        identifier = secrets.token_hex(6)
        (self.boards / identifier).mkdir()
        write_json(self.boards / identifier / "board.json", {"name": shown})
        return identifier

    def board(self, identifier: str) -> Path:
        """The folder of a board.

        Raises:
            KeyError: there is no such board.
        """
        return {path.name: path for path in self.boards.iterdir() if path.is_dir()}[identifier]

    def keep(self, board: str, files: list[str], note: str, wish: dict[str, Any], recipe: dict[str, Any]) -> None:
        """Copy files onto a board, each with what it was made with beside it.

        Raises:
            KeyError: there is no such board or file.
            RunError: the disk is full.
        """
        folder = self.board(board)
        for identifier in files:
            source = self.file(identifier)
            key = secrets.token_hex(6)
            name = f"{key}-{identifier}-{source.name}"
            told = {"id": key, "note": note, "wish": wish, "recipe": recipe, "file": name}
            write_bytes(folder / name, read_bounded(source, UPLOAD_LIMIT))
            write_json(folder / f"{name}.keep.json", told)

    def items(self, board: str) -> list[dict[str, Any]]:
        """What is kept on a board, the newest first."""
        folder = self.board(board)
        found = []
        for path in folder.glob("*.keep.json"):
            try:
                told = json.loads(read_bounded(path, 16 << 20))
                name, _ = str(told["file"]), str(told["id"])
                if "/" not in name and self.inside(folder / name):
                    found.append((path.stat().st_mtime_ns, told))
            except (ValueError, KeyError, TypeError):
                continue
        return [told for _, told in sorted(found, key=lambda pair: (-pair[0], pair[1]["file"]))]

    def item(self, board: str, key: str) -> tuple[Path, dict[str, Any]]:
        """A kept file by its identifier, and what is told of it.

        Raises:
            KeyError: there is none.
        """
        told = {one["id"]: one for one in self.items(board)}[key]
        return self.board(board) / told["file"], told

    def drop(self, board: str, key: str) -> None:
        """Take one thing off a board."""
        path, _ = self.item(board, key)
        path.unlink()
        path.with_name(f"{path.name}.keep.json").unlink(missing_ok=True)

    def packed(self, board: str) -> bytes:
        """A board as a ZIP archive: its files, each with its recipe beside it."""
        folder, out = self.board(board), io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for told in self.items(board):
                archive.writestr(told["file"], read_bounded(folder / told["file"], UPLOAD_LIMIT))
                archive.writestr(f"{told['file']}.json", json.dumps(told, indent=2))
        return out.getvalue()

    def kept_jobs(self) -> set[int]:
        """Numbers of jobs of which something is on a board."""
        names = (path.name for path in self.boards.glob("*/*.keep.json"))
        return {int(found[1]) for name in names if (found := re.match(r"[0-9a-f]{12}-job-(\d{1,12})-", name))}


def _named(folder: Path) -> str:
    try:
        return str(json.loads(read_bounded(folder / "board.json", 1 << 16))["name"])
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return folder.name
