"""The server: OpenAI's completions of one run, its name, and its numbers.

It knows requests, answers and clients that leave; what is done with a request is the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from castalia.core.errors import CastaliaError, UsageError
from castalia.core.specs.text import TextSpec
from castalia.serving.completions import Choice, Limits, Refused, Wanted, error, head, read, usage
from castalia.serving.engine import Engine, Full
from castalia.serving.metrics import Metrics
from castalia.serving.request import Piece
from castalia.serving.worker import Asked, Worker


@dataclass
class Server:
    """What the routes work with.

    Attributes:
        engine: writes.
        name: of the model.
        limits: what one request may ask for.
        waiting: texts that may wait for a row.
        metrics: numbers.
    """

    engine: Engine
    name: str
    limits: Limits = field(default_factory=Limits)
    waiting: int = 64
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.worker = Worker(self.engine, self.waiting)
        self.created = int(time.time())

    @property
    def spec(self) -> TextSpec:
        """The shape of the model's texts."""
        return self.engine.spec

    def gauges(self) -> dict[str, float]:
        """What is so now."""
        engine = self.engine
        running = len(engine.rows)
        return {
            "rows": engine.size,
            "texts_running": running,
            "texts_waiting": max(self.worker.texts - running, 0),
            "tokens_guessed": engine.guessed,
            "tokens_guessed_right": engine.accepted,
            "up": float(self.worker.alive),
        }


def make_app(server: Server) -> FastAPI:
    """The application; its worker lives as long as it does. The guard goes around it."""

    @contextlib.asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        server.worker.start()
        yield
        await asyncio.to_thread(server.worker.stop)

    app = FastAPI(lifespan=living, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        server.metrics.count("requests", route="/v1/models", status="200")
        return JSONResponse({"object": "list", "data": [_model(server)]})

    @app.get("/v1/models/{name}")
    async def model(name: str) -> JSONResponse:
        known = name == server.name
        server.metrics.count("requests", route="/v1/models/NAME", status="200" if known else "404")
        if not known:
            return JSONResponse(error(f"There is no model {name[:80]!r} here.", "model"), 404)
        return JSONResponse(_model(server))

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        text = server.metrics.text(server.gauges())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        started = time.perf_counter()
        try:
            wanted = read(await request.body(), server.spec, [server.name], server.limits)
            answer = await _answer(server, request, wanted, started)
        except Refused as refused:
            answer = JSONResponse(error(str(refused), refused.field), refused.status)
        except UsageError as wrong:
            answer = JSONResponse(error(str(wrong)), 400)
        except Full as full:
            kind = "rate_limit_error"
            answer = JSONResponse(error(str(full), kind=kind), 429, headers={"retry-after": "1"})
        except CastaliaError as failure:
            answer = JSONResponse(error(str(failure), kind="server_error"), 500)
        server.metrics.count("requests", route="/v1/completions", status=str(answer.status_code))
        return answer

    return app


def _model(server: Server) -> dict[str, Any]:
    return {"id": server.name, "object": "model", "created": server.created, "owned_by": "castalia"}


async def _answer(server: Server, request: Request, wanted: Wanted, started: float) -> Response:
    """The answer to a good request: a whole one, or a stream that has begun."""
    pieces = _Pieces(server, wanted)
    opening = head(server.name, f"cmpl-{uuid.uuid4().hex}", int(time.time()))
    choices = _choices(server, wanted)
    gone, streaming = asyncio.create_task(_left(request)), False
    try:
        while not pieces.done:
            found = await _next_or_gone(pieces, gone)
            if found is None:  # nobody reads the answer any more
                server.metrics.count("texts_cancelled", pieces.left)
                return Response(status_code=499)
            if wanted.stream:  # only now, because what is wrong with a grammar has to be said before a stream begins
                streaming = True
                stream = _stream(server, wanted, pieces, found, opening, started)
                return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})
            choices[found[0]].add(found[1])
    finally:
        gone.cancel()
        if not streaming:
            pieces.close()
    _count(server, wanted, choices, started)
    told = {"usage": usage(wanted.prompts, sum(choice.tokens for choice in choices))}
    whole = [choice.whole(before) for choice, before in zip(choices, wanted.echo, strict=True)]
    return JSONResponse({**opening, "choices": whole, **told})


async def _next_or_gone(pieces: _Pieces, gone: asyncio.Task[None]) -> tuple[int, Piece] | None:
    """The next piece, or None where the client has gone before it came."""
    coming = asyncio.create_task(pieces.next())
    try:
        await asyncio.wait({coming, gone}, return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        coming.cancel()


async def _stream(
    server: Server, wanted: Wanted, pieces: _Pieces, first: tuple[int, Piece], opening: dict[str, Any], started: float
) -> AsyncIterator[bytes]:
    """Server-sent events: a chunk for every piece that has something to say."""
    choices = _choices(server, wanted)
    finished = False
    try:
        for choice, before in zip(choices, wanted.echo, strict=True):
            if before:
                yield _event({**opening, "choices": [choice.add(Piece(0, text=before))]})
        coming: tuple[int, Piece] | None = first
        while coming is not None:
            place, piece = coming
            chunk = choices[place].add(piece)
            if chunk["text"] or chunk["logprobs"] or chunk["finish_reason"]:
                yield _event({**opening, "choices": [chunk]})
            coming = None if pieces.done else await pieces.next()
        if wanted.usage:
            told = usage(wanted.prompts, sum(choice.tokens for choice in choices))
            yield _event({**opening, "choices": [], "usage": told})
        finished = True
        yield b"data: [DONE]\n\n"
    except CastaliaError as failure:
        yield _event(error(str(failure), kind="server_error"))
    finally:  # also when the client has left, which ends this generator
        if not finished:
            server.metrics.count("texts_cancelled", pieces.left)
        pieces.close()
        _count(server, wanted, choices, started)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _choices(server: Server, wanted: Wanted) -> list[Choice]:
    return [Choice(i, server.engine.pieces, wanted.scores) for i in range(len(wanted.requests))]


def _count(server: Server, wanted: Wanted, choices: list[Choice], started: float) -> None:
    server.metrics.count("tokens_read", wanted.prompts)
    server.metrics.count("tokens_written", sum(choice.tokens for choice in choices))
    server.metrics.took("request", time.perf_counter() - started)


async def _left(request: Request) -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Pieces:
    """The pieces of the texts of one request as they come from the worker's thread.

    Raises:
        Full: too many are waiting.
        UsageError: the request makes no sense for the model.
    """

    def __init__(self, server: Server, wanted: Wanted) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()
        self._open = set(range(len(wanted.requests)))
        self._until = self._loop.time() + server.limits.seconds
        self._asked: Asked | None = server.worker.ask(wanted.requests, self._deliver)

    def _deliver(self, place: int, piece: Piece | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (place, piece))

    @property
    def left(self) -> int:
        """Texts that have not ended."""
        return len(self._open)

    @property
    def done(self) -> bool:
        """Whether all have."""
        return not self._open

    async def next(self) -> tuple[int, Piece]:
        """The next piece of any text. When the time is over all texts end with what there is.

        Raises:
            CastaliaError: the texts are lost.
        """
        try:
            async with asyncio.timeout_at(self._until):
                place, piece = await self._queue.get()
        except TimeoutError:
            self.close()
            place = self._open.pop()
            return place, Piece(0, reason="cancelled")
        if isinstance(piece, Exception):
            self._open.clear()
            raise piece if isinstance(piece, CastaliaError) else CastaliaError(f"{type(piece).__name__}: {piece}")
        if piece.reason is not None:
            self._open.discard(place)
        return place, piece

    def close(self) -> None:
        """Nothing more is wanted."""
        if self._asked is not None:
            self._server.worker.cancel(self._asked)
            self._asked = None


Ready = Callable[[str], None]


def serve(server: Server, host: str, port: int, token: str | None, hosts: list[str], ready: Ready) -> None:
    """Serve until a signal comes.

    Args:
        server: what is served.
        host: address to listen on.
        port: of it; 0 takes any that is free.
        token: what a request has to show; None where only this machine can reach the server.
        hosts: further names of this machine.
        ready: told the address before the first request.

    Raises:
        UsageError: the address cannot be had.
    """
    from castalia.web import listen
    from castalia.web.guard import Guard

    found = listen.bound(host, port)
    app = Guard(make_app(server), token, hosts=[host, *hosts])
    listen.serve(app, found, ready=lambda: ready(listen.address(found)))
