"""Routes of what is kept: files that were made or uploaded, recipes in them, boards."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from castalia.core.errors import UsageError
from castalia.core.files import read_bounded, remove
from castalia.studio import carried, wishes
from castalia.studio.shelf import TYPES, UPLOAD_LIMIT
from castalia.studio.state import Studio

PAGE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; media-src data:"
)
"""A page that a job wrote: it may show itself, and knows nothing of the studio (its origin is opaque)."""


def routes(app: FastAPI, studio: Studio) -> None:
    """All of them."""
    _files(app, studio)
    _boards(app, studio)


def _files(app: FastAPI, studio: Studio) -> None:
    """Files that were made or uploaded, and recipes in them."""
    shelf = studio.shelf

    @app.get("/api/files/{identifier}")
    def file(identifier: str, save: bool = False) -> Response:
        """A file; ``save`` as an attachment that carries its recipe."""
        path = shelf.file(identifier)
        recipe: dict[str, Any] = {}
        if save and identifier.startswith("job-"):
            recipe = studio.jobs.get(int(identifier.split("-")[1])).recipe
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
            job = studio.jobs.get(int(number)) if kind == "job" else None
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
