"""The verbs that wait for somebody: a language model for programs, an editor or a writer, and the studio.

Imports stand inside the functions, so that a verb pays only for what it uses.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from castalia.core.errors import UsageError


def serve(options: Namespace) -> int:
    """Serve a language model over HTTP, or to an editor."""
    if options.lsp:
        return _serve_editor(options)
    from castalia.web.listen import needs_server, token_for

    needs_server()
    from castalia.serving.app import Server
    from castalia.serving.app import serve as serve_it
    from castalia.serving.completions import Limits
    from castalia.web.guard import is_loopback

    open_to_all = options.password is None and is_loopback(options.host)
    token = None if open_to_all else token_for(options.host, Path(options.password) if options.password else None)
    engine, name = _engine(options)
    if options.waiting < 0 or options.seconds <= 0:
        raise UsageError("--waiting must not be negative, and --seconds must be positive.")
    limits = Limits(tokens=options.most_tokens, seconds=options.seconds)
    server = Server(engine, options.model_name or name, limits, options.waiting)

    def ready(address: str) -> None:
        shows = "" if token is None else "; requests must show the password: Authorization: Bearer ..."
        print(f"{server.name} at {address}/v1{shows}. Ctrl-C ends it.", flush=True)

    serve_it(server, options.host, options.port, token, options.name, ready)
    return 0


def _engine(options: Namespace) -> tuple[Any, str]:
    """An engine of the run, and the name of its folder."""
    from castalia.serving.opening import open_engine

    return open_engine(
        options.run,
        rows=options.rows,
        precision=options.precision,
        int8=options.int8,
        draft=options.draft,
        look_up=options.look_up,
    )


def _serve_editor(options: Namespace) -> int:
    """Speak with an editor until it leaves; nothing else may be written to standard output."""
    from castalia.serving.lsp import LanguageServer
    from castalia.serving.worker import Worker

    read, write = sys.stdin.buffer, sys.stdout.buffer
    theirs, sys.stdout = sys.stdout, sys.stderr
    try:
        engine, _ = _engine(options)
        worker = Worker(engine, options.waiting)
        worker.start()
        try:
            return LanguageServer(worker, read, write).run()
        finally:
            worker.stop()
    finally:
        sys.stdout = theirs


def studio(options: Namespace) -> int:
    """Serve the studio until it is interrupted."""
    from castalia.web.listen import needs_server

    needs_server()
    from castalia.studio.opening import open_studio

    password = Path(options.password) if options.password else None
    open_studio(
        Path(options.runs), options.host, options.port, password=password, names=options.name,
        browser=not options.no_browser,
    )  # fmt: skip
    return 0


def story(options: Namespace) -> int:
    """Write a story, line by line of what is typed."""
    from castalia.cli.story import story as notebook

    return notebook(options)
