"""One download: streamed, bounded, verified, and put in place only when it is whole."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from castalia.core.errors import DataError
from castalia.core.files import disk_error, sync_folder

_BLOCK = 1 << 18


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to anything that is not https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # pyright: ignore[reportArgumentType]


def download(
    url: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    progress: Callable[[int, int], None] | None = None,
    timeout: float = 30,
    schemes: tuple[str, ...] = ("https",),
) -> None:
    """Fetch ``url`` into ``path``.

    Args:
        url: where it is.
        path: where to put it; its folder is made. Nothing is left there unless the contents are right.
        size: how many bytes it must have; never more than that are read.
        sha256: what they must hash to, hexadecimal.
        progress: called with (bytes done, ``size``).
        timeout: seconds without an answer before giving up.
        schemes: what the address may begin with (tests add ``file``).

    Raises:
        DataError: offline, refused, wrong size or wrong hash; the text says which.
        RunError: the disk is full or the folder cannot be written.
    """
    if urlsplit(url).scheme not in schemes:
        raise DataError(f"{url}: only {', '.join(schemes)} addresses are downloaded.")
    temporary = path.with_name(f".{path.name}.part-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, "wb")  # noqa: SIM115 (its errors are told apart from the network's)
    except OSError as error:
        raise disk_error(path, error) from error
    try:
        with file:
            _stream(url, file, size, sha256, progress, timeout, path)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _stream(
    url: str,
    file: IO[bytes],
    size: int,
    sha256: str,
    progress: Callable[[int, int], None] | None,
    timeout: float,
    path: Path,
) -> None:
    """Copy the answer to ``file`` and to the disk beneath it, then check it."""
    opener = urllib.request.build_opener(_SameScheme)
    request = urllib.request.Request(url, headers={"User-Agent": "castalia"})
    digest, done = hashlib.sha256(), 0
    try:
        with opener.open(request, timeout=timeout) as answer:
            while block := answer.read(min(_BLOCK, size + 1 - done)):
                done += len(block)
                if done > size:
                    raise DataError(f"{url} sends more than the {size} bytes expected; it was not kept.")
                digest.update(block)
                try:
                    file.write(block)
                except OSError as error:
                    raise disk_error(path, error) from error
                if progress is not None:
                    progress(done, size)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url} cannot be downloaded: the server answers {error.code} {error.reason}.") from error
    except (OSError, EOFError) as error:  # URLError, timeouts and broken connections are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{url} cannot be downloaded ({reason}). Without a network, get the file elsewhere and put it at {path}."
        ) from error
    except Exception as error:
        if isinstance(error, DataError) or not type(error).__module__.startswith("http."):
            raise
        raise DataError(f"{url} cannot be downloaded: the answer broke off ({error}).") from error
    if done != size:
        raise DataError(f"{url} sent {done} of {size} bytes; try again.")
    if digest.hexdigest() != sha256:
        raise DataError(f"{url} is not the file expected: its SHA-256 is {digest.hexdigest()}, not {sha256}.")
    file.flush()
    os.fsync(file.fileno())
