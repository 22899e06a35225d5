"""Opening the studio: the folder, the address with its token, the guard, the server."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from castalia.studio.app import make_app
from castalia.studio.shelf import UPLOAD_LIMIT
from castalia.studio.state import Studio
from castalia.web.guard import Guard, is_loopback
from castalia.web.listen import address, bound, serve, token_for

BODY = 4 << 20
"""Bytes of a request's body, where nothing is uploaded."""

CARRIED = 64 << 20
"""Bytes of a file whose recipe is asked for."""


def guarded(studio: Studio, token: str, names: Sequence[str] = ()) -> Guard:
    """All that the studio answers, behind the guard."""
    more = {"/api/uploads": UPLOAD_LIMIT, "/api/recipes": CARRIED}
    return Guard(make_app(studio), token, hosts=names, most=BODY, more=more)


def open_studio(
    runs: Path,
    host: str = "127.0.0.1",
    port: int = 7860,
    *,
    password: Path | None = None,
    names: Sequence[str] = (),
    browser: bool = True,
) -> None:
    """Serve the studio until it is interrupted.

    Args:
        runs: the folder of the runs; made where there is none.
        host: address to listen on.
        port: 0 takes any that is free.
        password: a file with the password; needed where others can reach the server.
        names: further names that this machine is known by.
        browser: open a browser.

    Raises:
        UsageError: the address cannot be had, or a password is missing.
        RunError: the folder cannot be written, or its queue is damaged.
    """
    token = token_for(host, password)
    found = bound(host, port)
    try:
        studio = Studio(runs, local=is_loopback(host))
    except BaseException:
        found.close()
        raise
    where = address(found)
    if host in ("0.0.0.0", "::"):  # all addresses are none that could be opened
        where = f"http://{names[0] if names else '127.0.0.1'}:{found.getsockname()[1]}"
    link = f"{where}/?token={quote(token, safe='')}"
    hosts = [host, *names] if host not in ("0.0.0.0", "::") else list(names)

    def ready() -> None:
        shown = f"{where}/?token=..., with the password for the dots" if password else link
        print(f"The studio of {studio.shelf.runs} is open: {shown}\nEnd it with Ctrl+C.", flush=True)
        if browser:
            webbrowser.open(link)

    serve(guarded(studio, token, hosts), found, ready=ready, stopping=studio.events.close)
