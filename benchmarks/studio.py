"""The studio's two promises that take long to see: ``python -m benchmarks.studio``.

How long a slider takes to give a picture of 64 pixels (networks of the recipes' size, weights of two steps: what is
timed does not depend on them), and whether the worker's memory stays flat over many jobs of many clients. The studio
runs as users run it: a server, its worker, requests over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from castalia import api
from castalia.studio.opening import guarded
from castalia.studio.state import Studio
from castalia.web.listen import address, bound

TOKEN = "a-token-of-the-benchmark"
RECIPES = ("vae-emoji-64", "dcgan-emoji")


def opened(folder: Path) -> tuple[Studio, uvicorn.Server, threading.Thread, httpx.Client]:
    """A studio that answers."""
    studio, socket = Studio(folder), bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(guarded(studio, TOKEN), log_level="error", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    client = httpx.Client(base_url=address(socket), headers={"authorization": f"Bearer {TOKEN}"}, timeout=300)
    return studio, server, thread, client


def sliders(client: httpx.Client, run: str, times: int) -> dict[str, float]:
    """Milliseconds from a request to its picture."""
    axis = client.get(f"/api/runs/{run}/axes").json()[0]
    took = []
    for k in range(times + 3):
        began = time.perf_counter()
        answer = client.post(f"/api/runs/{run}/decode", json={"where": {"seed": 1, "moves": {axis: k / times}}})
        answer.raise_for_status()
        took.append(1000 * (time.perf_counter() - began))
    took = sorted(took[3:])
    return {"median_ms": statistics.median(took), "slowest_of_20_ms": took[int(0.95 * len(took))]}


def memory(studio: Studio, client: httpx.Client, runs: list[str], rounds: int) -> list[float]:
    """MiB of the worker after each round of 32 clients with a job each."""
    found = []
    for _ in range(rounds):
        with_jobs = [
            client.post("/api/jobs", json={"do": "sample", "run": runs[k % len(runs)], "n": 4, "seed": k}).json()["id"]
            for k in range(32)
        ]
        while client.get(f"/api/jobs/{with_jobs[-1]}").json()["state"] in ("queued", "running"):
            time.sleep(0.1)
        assert studio.foreman.process is not None
        status = Path(f"/proc/{studio.foreman.process.pid}/status").read_text()
        found.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    return found


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=60, help="pictures of each slider (60)")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of 32 jobs (8)")
    options = parser.parse_args()
    found: dict[str, Any] = {"load": os.getloadavg()[0], "threads": os.environ.get("OMP_NUM_THREADS", "free ones")}
    with tempfile.TemporaryDirectory() as folder:
        for name in RECIPES:
            api.train(recipe=name, out=Path(folder) / name, steps=2, quiet=True)
        studio, server, thread, client = opened(Path(folder))
        try:
            while not server.started:
                time.sleep(0.05)
            ids = {row["name"]: row["id"] for row in client.get("/api/runs").json()}
            found["sliders"] = {name: sliders(client, ids[name], options.times) for name in RECIPES}
            found["worker_mib"] = memory(studio, client, [ids[name] for name in RECIPES], options.rounds)
        finally:
            client.close()
            server.should_exit = True
            thread.join()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
