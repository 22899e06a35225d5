"""Listening: a socket that is bound before anything is said, and a server on it until it is stopped."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from castalia.core.errors import UsageError
from castalia.core.files import read_bounded
from castalia.web.guard import App, is_loopback

SHORTEST = 12
"""Characters of a password, at least."""


def needs_server() -> None:
    """Refuse to go on without the packages of a server.

    Raises:
        UsageError: the text says how to get them.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"This needs {error.name}: pip install 'castalia[serve]'.") from error


def token_for(host: str, password: Path | None) -> str:
    """The secret of a server: the password in a file, or a new random one where only this machine can reach it.

    Raises:
        UsageError: others could reach it and there is no password, or it is too short.
    """
    if password is None:
        if not is_loopback(host):
            raise UsageError(
                f"Others could reach a server on {host}, so it needs a password: write one of at least {SHORTEST} "
                "characters into a file that only you can read, and name it with --password FILE."
            )
        return secrets.token_urlsafe(32)
    try:
        text = read_bounded(password, 4096).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{password}: the password is no text.") from error
    if len(text) < SHORTEST or not text.isascii() or not text.isprintable() or any(c in text for c in ' ;,"\\'):
        raise UsageError(
            f"{password}: a password has at least {SHORTEST} characters, ASCII, without spaces, quotes, commas, "
            "semicolons and backslashes."
        )
    return text


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        UsageError: the address cannot be had; the text says what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # its protocol is named, or asyncio does not turn Nagle's algorithm off and each answer waits 40 ms
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, port))
            found.listen(128)
        except (OSError, OverflowError):
            found.close()
            raise
    except (OSError, OverflowError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{host}:{port} cannot be listened on ({what}); --port 0 takes any that is free.") from error
    return found


def address(found: socket.socket) -> str:
    """``http://HOST:PORT`` of a bound socket."""
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    app: App,
    found: socket.socket,
    *,
    ready: Callable[[], None] | None = None,
    stopping: Callable[[], None] | None = None,
) -> None:
    """Serve until a signal comes.

    Requests are not logged: the first one has the token in its address.

    Args:
        app: what answers.
        found: a socket of :func:`bound`.
        ready: called once requests are answered.
        stopping: called when a signal has come, before open answers are waited for: ends those that would never end.
    """
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=3, server_header=False
    )

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if stopping is not None:
                stopping()
            await super().shutdown(sockets)

    server = Server(config)
    if ready is not None:
        ready()
    try:
        server.run(sockets=[found])
    finally:
        found.close()
