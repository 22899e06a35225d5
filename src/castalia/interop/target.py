"""Output folders that appear whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from castalia.core.errors import UsageError
from castalia.core.files import disk_error, sync_folder


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside ``out`` that becomes ``out`` when the block ends without an error.

    Raises:
        UsageError: ``out`` holds something already.
        RunError: it cannot be written; nothing is left behind.
    """
    # absolute, because "." has neither a name nor a parent
    out = out.absolute()
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UsageError(f"{out} is not empty. Choose another folder, or empty this one first.")
    temporary = out.with_name(f".{out.name[:200]}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    _remove_leftovers(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    except OSError as error:
        raise disk_error(out, error) from error
    try:
        yield temporary
        sync_folder(temporary)
        if out.exists():
            out.rmdir()
        os.rename(temporary, out)
        sync_folder(out.parent)
    except OSError as error:  # also of whoever filled it, such as exporters that know nothing of our errors
        raise disk_error(out, error) from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """Remove what processes that were killed while they made this folder left beside it."""
    pattern = re.compile(rf"\.{re.escape(out.name[:200])}\.tmp-([0-9]+)-[0-9a-f]{{8}}")
    with suppress(OSError):
        for path in list(out.parent.iterdir()):
            found = pattern.fullmatch(path.name)
            if found and not _alive(int(found[1])):
                shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True
