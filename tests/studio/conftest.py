"""A studio over small runs of many media, trained once for all tests of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from castalia import api, recipes
from castalia.core.locks import Lock

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

TOKEN = "a-token-of-the-tests"
SYSTEMS = ("vae", "gan", "stylegan2", "ddpm", "gpt2", "samplernn", "musicvae", "smiles-gpt", "ctgan", "gan3d", "mdm",
           "world-model")  # fmt: skip
"""One or more for every way to play."""


@dataclass
class Opened:
    """A studio that answers, and a client that knows its token."""

    studio: Any
    address: str
    client: Any
    ids: dict[str, str]

    def job(self, **wish: Any) -> dict[str, Any]:
        """Queue a job and wait for its end."""
        answer = self.client.post("/api/jobs", json=wish)
        assert answer.status_code == 202, answer.text
        return self.ended(answer.json()["id"])

    def ended(self, number: int, seconds: float = 90) -> dict[str, Any]:
        """A job once it is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            job = self.client.get(f"/api/jobs/{number}").json()
            if job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"job {number} is still {job['state']}")


@pytest.fixture(scope="session")
def trained(shared_folder: Path) -> Path:
    """Runs of a few steps each; or, for pictures of the documentation, those in ``CASTALIA_STUDIO_RUNS``."""
    if given := os.environ.get("CASTALIA_STUDIO_RUNS"):
        return Path(given)
    folder = shared_folder / "studio-runs"
    folder.mkdir(exist_ok=True)
    with Lock(folder).take(600):
        for name in SYSTEMS:
            if not (folder / name / "model.safetensors").exists():
                api.train(recipe=recipes.of(name).tiny, out=folder / name, steps=4, quiet=True)
    return folder


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Opened]:
    """A studio of its own process's worker, until the end of the block."""
    from castalia.studio.opening import guarded
    from castalia.studio.state import Studio
    from castalia.web.listen import address, bound

    studio = Studio(folder)
    found = bound("127.0.0.1", 0)
    config = uvicorn.Config(
        guarded(studio, TOKEN), log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [found]}, daemon=True)
    thread.start()
    client = httpx.Client(base_url=address(found), headers={"authorization": f"Bearer {TOKEN}"}, timeout=90)
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        ids = {row["name"]: row["id"] for row in client.get("/api/runs").json()}
        yield Opened(studio, address(found), client, ids)
    finally:
        client.close()
        server.should_exit = True
        thread.join(30)
        found.close()


@pytest.fixture(scope="module")
def opened(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A studio over copies of the runs."""
    folder = tmp_path_factory.mktemp("studio") / "runs"
    shutil.copytree(trained, folder)
    with serving(folder) as found:
        yield found
