"""The studio's HTTP interface: everything that the page does, for programs too (``/openapi.json``)."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from castalia import listing, overview
from castalia.core.errors import CastaliaError, UsageError
from castalia.core.files import read_bounded, remove
from castalia.core.locks import Lock
from castalia.media.named import list_data
from castalia.runs import open_run
from castalia.studio import carried, forms, wishes
from castalia.studio.foreman import Busy, Events, Foreman
from castalia.studio.jobs import Full, Job, Jobs
from castalia.studio.shelf import TYPES, UPLOAD_LIMIT, Shelf
from castalia.studio.trainings import Trainings
from castalia.version import __version__

STATIC = Path(__file__).parent / "static"

PAGE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; media-src data:"
)
"""A page that a job wrote: it may show itself, and knows nothing of the studio (its origin is opaque)."""

FRESH = 30.0
"""Seconds after which a training that has logged nothing is taken for ended."""

POINTS = 400
"""Points of a curve that are sent."""

Client = Annotated[str, Header(alias="x-castalia-client", max_length=64)]


class Studio:
    """What the routes work with.

    Args:
        runs: the folder of the runs.
        local: whether only this machine can reach the server.
    """

    def __init__(self, runs: Path, *, local: bool = True) -> None:
        self.shelf = Shelf(runs)
        self.lock = Lock(self.shelf.home).take()  # two studios would do each other's jobs
        self.events = Events()
        self.jobs = Jobs(self.shelf.home / "jobs.sqlite")
        self.foreman = Foreman(self.shelf, self.jobs, self.events)
        self.foreman.resolve = self.resolved
        self.trainings = Trainings(self.shelf, self.events, local=local)

    def resolved(self, job: Job) -> dict[str, Any]:
        """A job's wish with identifiers replaced by paths.

        Raises:
            KeyError: something is gone.
            UsageError: an option that cannot be given.
        """
        wish = job.wish
        if wish["do"] == "compare":
            return {**wish, "paths": [str(self.shelf.run(run)) for run in wish["runs"]]}
        found = {**wish, "path": str(self.shelf.run(wish["run"]))}
        if wish["do"] == "edit":
            found["paths"] = forms.checked(wish["edit"], wish["options"], lambda one: str(self.shelf.file(one)))
        found["shown"] = wish  # what recipes say: identifiers, and no paths of this machine
        if "given" in wish:
            found["given"] = self.given(wish["given"])
        if wish["do"] == "film":
            found["places"] = [self.place(place) for place in wish["places"]]
        return found

    def given(self, values: dict[str, Any]) -> dict[str, Any]:
        """What is asked for: files as paths, and texts that are no files."""
        return {
            name: f"@{self.shelf.file(value['file'])}"
            if isinstance(value, dict)
            else forms.plain(value)
            if isinstance(value, str)
            else value
            for name, value in values.items()
        }

    def place(self, place: dict[str, Any]) -> dict[str, Any]:
        """A place, with the path of the file that it begins with."""
        return {**place, "path": str(self.shelf.file(place["of"]))} if place["of"] else place


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
    _runs(app, studio)
    _play(app, studio)
    _jobs(app, studio)
    _files(app, studio)
    _boards(app, studio)
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


def _runs(app: FastAPI, studio: Studio) -> None:
    """Runs, and trainings of them."""
    shelf = studio.shelf

    @app.get("/api/runs")
    def runs() -> list[dict[str, Any]]:
        """All runs in a few values; one that is damaged has ``problem``."""
        found = []
        for row in overview.rows(shelf.runs):
            path = Path(row["path"])
            one = {**row, "id": shelf.id_of(path), "name": str(path.relative_to(shelf.runs))}
            del one["path"]
            found.append(one)
        return found

    @app.get("/api/runs/{run}")
    def run(run: str) -> dict[str, Any]:
        """All about one: what, when, how long, results, warnings, curves."""
        path = shelf.run(run)
        found = overview.describe(path)
        losses = open_run(path).losses()
        begun = studio.trainings.running() == run
        going = begun or time.time() - _changed(path / "metrics.jsonl") < FRESH  # by somebody else, on this machine
        return {
            **{key: value for key, value in found.items() if key not in ("path", "picture")},
            "id": run,
            "name": str(path.relative_to(shelf.runs)),
            "pictures": [picture.name for picture in _grids(path)],
            "curves": {name: points[:: max(1, len(points) // POINTS)] for name, points in losses.items()},
            "warnings": [] if going else found["warnings"],
            "training": begun,
            "line": studio.trainings.line if begun else "",
        }

    @app.get("/api/runs/{run}/picture")
    def picture(run: str, name: str | None = None) -> Response:
        """A grid that training drew: the newest, or the one of that name."""
        found = {path.name: path for path in _grids(shelf.run(run))}
        path = found[name] if name else next(reversed(found.values()), None)
        if path is None:
            raise KeyError(name)
        return Response(read_bounded(shelf.inside(path), 64 << 20), media_type="image/png")

    @app.get("/api/runs/{run}/card")
    def card(run: str) -> Response:
        """The model card, as text."""
        return Response(read_bounded(shelf.inside(shelf.run(run) / "README.md"), 1 << 20), media_type=TYPES[".txt"])

    @app.get("/api/systems")
    def systems() -> list[dict[str, Any]]:
        """Every system with its recipes."""
        return listing.everything()

    @app.get("/api/data")
    def data() -> list[dict[str, Any]]:
        """The named sets."""
        return [{"name": row["name"], "what": row["what"], "medium": row["medium"]} for row in list_data()]

    @app.get("/api/trainings")
    def training() -> dict[str, Any]:
        """The training that runs, or ran last."""
        trainings = studio.trainings
        return {"run": trainings.running(), "line": trainings.line, "ended": trainings.running() is None}

    @app.post("/api/trainings")
    async def train(wish: wishes.Train) -> dict[str, str]:
        """Begin a training."""
        return {"run": await studio.trainings.begin(wish)}

    @app.post("/api/runs/{run}/resume")
    async def resume(run: str) -> dict[str, str]:
        """Go on with a training."""
        return {"run": await studio.trainings.resume(shelf.run(run))}

    @app.post("/api/trainings/stop")
    async def stop() -> dict[str, str]:
        """Ask the training that runs to save and stop."""
        await studio.trainings.stop()
        return {"state": "stopped"}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _grids(path: Path) -> list[Path]:
    return sorted(p for p in (path / "samples").glob("step-*.png") if p.is_file() and not p.is_symlink())


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
        return _job_of(jobs, number).told()

    @app.post("/api/jobs/{number}/cancel")
    async def cancel(number: int) -> dict[str, Any]:
        """End a job, or take it off the queue."""
        _job_of(jobs, number)
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


def _job_of(jobs: Jobs, number: int) -> Job:
    if not 0 <= number < 1 << 53:
        raise KeyError(number)
    return jobs.get(number)


def _files(app: FastAPI, studio: Studio) -> None:
    """Files that were made or uploaded, and recipes in them."""
    shelf = studio.shelf

    @app.get("/api/files/{identifier}")
    def file(identifier: str, save: bool = False) -> Response:
        """A file; ``save`` as an attachment that carries its recipe."""
        path = shelf.file(identifier)
        recipe: dict[str, Any] = {}
        if save and identifier.startswith("job-"):
            recipe = _job_of(studio.jobs, int(identifier.split("-")[1])).recipe
        return _sent(path, save=save, recipe=recipe)

    @app.post("/api/uploads")
    async def upload(request: Request, name: str) -> dict[str, Any]:
        """Upload a file: its bytes are the body."""
        path, size = shelf.room_for(name), 0
        try:
            with path.open("xb") as out:
                async for chunk in request.stream():
                    size += len(chunk)
                    await asyncio.to_thread(out.write, chunk)
            if not size:
                raise UsageError("The file is empty.")
            await asyncio.to_thread(shelf.check_upload, path)
        except BaseException:
            remove(path)
            raise
        return {"id": f"upload-{path.stem}", "size": size}

    @app.post("/api/uploads/{identifier}/drop")
    def drop_upload(identifier: str) -> dict[str, str]:
        """Remove an upload."""
        shelf.drop_upload(identifier)
        return {"state": "dropped"}

    @app.post("/api/recipes")
    async def recipe(request: Request) -> dict[str, Any]:
        """The recipe that a file carries: its bytes are the body."""
        return await asyncio.to_thread(carried.recipe_in, await request.body())


def _sent(path: Path, *, save: bool, recipe: dict[str, Any]) -> Response:
    kind, data = TYPES.get(path.suffix, "application/octet-stream"), read_bounded(path, UPLOAD_LIMIT)
    headers = {}
    if save or path.suffix not in TYPES:
        headers["content-disposition"] = f'attachment; filename="{path.name}"'
        data = carried.with_recipe(data, path.suffix, recipe) if recipe else data
    if path.suffix == ".html":
        headers["content-security-policy"] = PAGE_POLICY
    return Response(data, media_type=kind, headers=headers)


def _boards(app: FastAPI, studio: Studio) -> None:
    """Boards: what is worth keeping."""
    shelf = studio.shelf

    @app.get("/api/boards")
    def boards() -> list[dict[str, Any]]:
        """All boards."""
        return shelf.board_names()

    @app.post("/api/boards")
    def new(wish: wishes.Board) -> dict[str, str]:
        """Make a board."""
        return {"id": shelf.new_board(wish.name)}

    @app.get("/api/boards/{board}")
    def items(board: str) -> list[dict[str, Any]]:
        """What is kept on a board, the newest first."""
        return shelf.items(board)

    @app.post("/api/boards/{board}/keep")
    def keep(board: str, wish: wishes.Keep) -> dict[str, int]:
        """Keep files on a board, with what they were made with."""
        for identifier in wish.files:
            shelf.file(identifier)  # says where there is none
            kind, number, *_ = identifier.split("-")
            job = _job_of(studio.jobs, int(number)) if kind == "job" else None
            shelf.keep(board, [identifier], wish.note, job.wish if job else {}, job.recipe if job else {})
        return {"kept": len(wish.files)}

    @app.get("/api/boards/{board}/items/{key}")
    def item(board: str, key: str, save: bool = False) -> Response:
        """A file that is kept."""
        path, told = shelf.item(board, key)
        return _sent(path, save=save, recipe=told["recipe"])

    @app.post("/api/boards/{board}/items/{key}/drop")
    def drop(board: str, key: str) -> dict[str, str]:
        """Take something off a board."""
        shelf.drop(board, key)
        return {"state": "dropped"}

    @app.get("/api/boards/{board}/zip")
    def packed(board: str) -> Response:
        """A board as a ZIP archive."""
        headers = {"content-disposition": f'attachment; filename="board-{board}.zip"'}
        shelf.board(board)
        return Response(shelf.packed(board), media_type="application/zip", headers=headers)
