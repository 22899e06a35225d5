"""The studio's HTTP interface: everything that the page does, for programs too (``/openapi.json``)."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from castalia.core.errors import CastaliaError
from castalia.studio import forms, keeping, running, wishes
from castalia.studio.foreman import Busy
from castalia.studio.jobs import Full
from castalia.studio.state import Studio
from castalia.version import __version__

STATIC = Path(__file__).parent / "static"

Client = Annotated[str, Header(alias="x-castalia-client", max_length=64)]


def make_app(studio: Studio) -> FastAPI:
    """All routes, without the guard."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await studio.foreman.start()
        try:
            yield
        finally:
            await studio.trainings.close()
            await studio.foreman.stop()
            studio.jobs.close()
            studio.lock.release()

    app = FastAPI(
        title="Castalia Studio", version=__version__, lifespan=life, docs_url=None, redoc_url=None,
        default_response_class=Json,
    )  # fmt: skip
    _errors(app)
    _page(app)
    running.routes(app, studio)
    _play(app, studio)
    _jobs(app, studio)
    keeping.routes(app, studio)
    return app


class Json(JSONResponse):
    """JSON, in which numbers that are none are null."""

    def render(self, content: Any) -> bytes:
        return json.dumps(_finite(content), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _errors(app: FastAPI) -> None:
    """Errors in one shape: ``{"error": words}``."""

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return Json({"error": f"{where}: {first['msg']}"[:500]}, 422)

    @app.exception_handler(Full)
    async def full(_: Request, error: Full) -> Response:
        return Json({"error": str(error)}, 429, {"retry-after": "5"})

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> Response:
        return Json({"error": str(error)}, 503, {"retry-after": "2"})

    @app.exception_handler(CastaliaError)
    async def refused(_: Request, error: CastaliaError) -> Response:
        return Json({"error": str(error)}, 400)

    @app.exception_handler(KeyError)
    async def gone(_: Request, __: KeyError) -> Response:
        return Json({"error": "There is no such thing here (any more)."}, 404)


def _page(app: FastAPI) -> None:
    """The page itself."""
    files = {path.name: path for path in STATIC.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")}
    types = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return Response(files["index.html"].read_bytes(), media_type=types[".html"])

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        path = files[name]
        return Response(path.read_bytes(), media_type=types[path.suffix], headers={"cache-control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return RedirectResponse("/static/icon.svg", 307)


def _play(app: FastAPI, studio: Studio) -> None:
    """What answers at once."""
    shelf, foreman = studio.shelf, studio.foreman

    @app.get("/api/runs/{run}/form")
    async def form(run: str) -> dict[str, Any]:
        """What can be done with a run, and with which controls."""
        return await foreman.ask("form", shelf.run(run))

    @app.get("/api/runs/{run}/axes")
    async def axes(run: str) -> list[str]:
        """Names of the directions in which its latents can be moved."""
        return await foreman.ask("axes", shelf.run(run))

    @app.post("/api/runs/{run}/decode")
    async def decode(run: str, wish: wishes.Decode) -> Response:
        """The picture of a place among its latents, as PNG."""
        asked = wish.model_dump()
        told = {"where": studio.place(asked["where"]), "given": studio.given(asked["given"]), "shown": asked}
        return Response(base64.b64decode(await foreman.ask("decode", shelf.run(run), told)), media_type="image/png")

    @app.post("/api/runs/{run}/dream")
    async def dream(run: str, wish: wishes.Dream) -> dict[str, Any]:
        """Begin a dream of a world model, or do something in one."""
        return await foreman.ask("dream", shelf.run(run), wish.model_dump())


def _jobs(app: FastAPI, studio: Studio) -> None:
    """The queue."""
    foreman, jobs = studio.foreman, studio.jobs

    @app.get("/api/jobs")
    def listed(most: int = 100) -> list[dict[str, Any]]:
        """The newest jobs, the newest first."""
        return [job.told() for job in jobs.list(max(1, min(most, 1_000)))]

    @app.post("/api/jobs", status_code=202)
    async def add(wish: wishes.Job, client: Client = "") -> dict[str, Any]:
        """Queue a job."""
        plain = wish.model_dump()
        for run in [*plain.get("runs", []), *([plain["run"]] if "run" in plain else [])]:
            studio.shelf.run(run)  # what cannot be done is said now, not when its turn comes
        if isinstance(wish, wishes.Edit):
            forms.checked(wish.edit, wish.options, lambda one: str(studio.shelf.file(one)))
        return foreman.add(plain, client).told()

    @app.get("/api/jobs/{number}")
    def job(number: int) -> dict[str, Any]:
        """One job."""
        return jobs.get(number).told()

    @app.post("/api/jobs/{number}/cancel")
    async def cancel(number: int) -> dict[str, Any]:
        """End a job, or take it off the queue."""
        jobs.get(number)
        return (await foreman.cancel(number)).told()

    @app.post("/api/jobs/cancel")
    async def cancel_all() -> dict[str, int]:
        """End the job that runs, and take all others off the queue."""
        waiting = [*jobs.waiting(), *([foreman.running] if foreman.running else [])]
        for one in waiting:
            await foreman.cancel(one.id)
        return {"cancelled": len(waiting)}

    @app.get("/api/events")
    async def events() -> Response:
        """What happens, as server-sent events: ``job``, ``progress``, ``training``."""

        async def lines() -> AsyncIterator[bytes]:
            yield b"retry: 1000\n\n"
            listening = studio.events.listen()
            try:
                async for event in listening:
                    if event is None:
                        yield b": nothing yet\n\n"
                    else:
                        told = json.dumps(_finite(event["value"]))
                        yield f"event: {event['kind']}\ndata: {told}\n\n".encode()
            finally:
                await listening.aclose()  # type: ignore[attr-defined]

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
