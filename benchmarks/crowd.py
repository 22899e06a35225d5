"""A server among many clients, some of whom leave and some of whom talk nonsense: ``python -m benchmarks.crowd RUN``.

    python -m benchmarks.crowd runs/plays --minutes 5 --json FILE

``castalia serve`` runs as users run it, in a process of its own. Of 64 clients that ask without a pause half ask for
one of 32 texts, whole or as a stream, a quarter ask for endless ones and leave, and a quarter send what is no question.
Every answer is compared with the engine's own, alone, and resident memory and the server's counts are told as they go.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from castalia import api
from castalia.media.text.tokens import tokens_of
from castalia.models.sequence.writing import WritingOptions
from castalia.serving.engine import Engine
from castalia.serving.request import Request

CLIENTS, TEXTS, PAUSE = 64, 32, 15.0
NONSENSE = (b"{", b'{"model": "it", "n": -1}', b"\xff\xfe", b'{"model": "it", "prompt": {"a": 1}}', b"[]" * 5_000)


def bodies(prompts: list[str]) -> list[dict[str, Any]]:
    """Questions that have one answer."""
    return [
        {"model": "it", "prompt": prompts[i % len(prompts)], "seed": i, "max_tokens": 5 + i, "temperature": (i % 3) / 2}
        for i in range(TEXTS)
    ]


def answers(run: Path, asked: list[dict[str, Any]]) -> list[str]:
    """What an engine with nobody else writes."""
    engine, found = Engine(api.load(run).model()[0], rows=1), []  # type: ignore[arg-type]
    tokens = tokens_of(engine.spec)
    for body in asked:
        options = WritingOptions(length=body["max_tokens"], temperature=body["temperature"])
        prompt = tuple(tokens.encode(body["prompt"]).tolist())
        found.append(engine.run([Request(prompt, options, seed=body["seed"])])[0].text)
    return found


class Crowd:
    """The clients.

    Args:
        address: of the server.
        asked: what good clients ask, and what they should be told.
        until: when to stop, on the monotonic clock.
    """

    def __init__(self, address: str, asked: list[tuple[dict[str, Any], str]], until: float) -> None:
        self.address, self.asked, self.until = address, asked, until
        self.counts: Counter[str] = Counter()

    async def one(self, client: httpx.AsyncClient, i: int) -> None:
        """A client, again and again."""
        number = i
        while time.monotonic() < self.until:
            number += CLIENTS
            try:
                await (self.good, self.good, self.leaving, self.wrong)[i % 4](client, number)
            except httpx.HTTPError as error:
                self.counts[f"error: {type(error).__name__}"] += 1

    async def good(self, client: httpx.AsyncClient, number: int) -> None:
        body, expected = self.asked[number // 3 % len(self.asked)]
        if number % 8 < 4:
            answer = await client.post("/v1/completions", json=body)
            if answer.status_code == 429:  # the queue is full, as it may be
                self.counts["asked to wait"] += 1
                await asyncio.sleep(0.2)
                return
            text = answer.json()["choices"][0]["text"]
        else:
            async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
                if stream.status_code == 429:
                    self.counts["asked to wait"] += 1
                    await asyncio.sleep(0.2)
                    return
                lines = [line[6:] async for line in stream.aiter_lines() if line.startswith("data: ")]
            text = "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])
        self.counts["right" if text == expected else "not the engine's"] += 1

    async def leaving(self, client: httpx.AsyncClient, number: int) -> None:
        body = {"model": "it", "prompt": "", "max_tokens": 1_000_000, "stream": number % 8 < 4}
        with contextlib.suppress(httpx.ReadTimeout):
            async with client.stream("POST", "/v1/completions", json=body, timeout=0.5) as stream:
                async for _ in stream.aiter_lines():
                    break
        self.counts["left"] += 1

    async def wrong(self, client: httpx.AsyncClient, number: int) -> None:
        answer = await client.post("/v1/completions", content=NONSENSE[number // CLIENTS % len(NONSENSE)])
        self.counts["refused" if 400 <= answer.status_code < 500 else f"status {answer.status_code}"] += 1
        await asyncio.sleep(0.05)

    async def all(self, pid: int) -> list[dict[str, float]]:
        """Everybody, and what is seen of the server meanwhile."""
        limits, seen = httpx.Limits(max_connections=CLIENTS + 1), []
        async with httpx.AsyncClient(base_url=self.address, timeout=120, limits=limits) as client:
            crowd = asyncio.gather(*(self.one(client, i) for i in range(CLIENTS)))
            start = time.monotonic()
            while not crowd.done():
                await asyncio.sleep(PAUSE)
                seen.append({"seconds": time.monotonic() - start, "MiB": resident(pid), "right": self.counts["right"]})
                print(json.dumps(seen[-1]), flush=True)
            await crowd
        return seen


def resident(pid: int) -> float:
    """MiB of a process."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def main() -> int:
    """Serve, crowd, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--prompts", nargs="+", default=["", "ROMEO:", "The ", "First Citizen:\n"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    asked = bodies(options.prompts)
    asked_and_told = list(zip(asked, answers(options.run, asked), strict=True))
    command = [sys.executable, "-m", "castalia", "serve", str(options.run), "--port", "0", "--as", "it"]
    with subprocess.Popen([*command, "--precision", "float32"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+?(?=/v1|\s|\.$)", server.stdout.readline())
            assert found is not None
            crowd = Crowd(found[0].rstrip("."), asked_and_told, time.monotonic() + 60 * options.minutes)
            seen = asyncio.run(crowd.all(server.pid))
            time.sleep(2)
            metrics = httpx.get(f"{crowd.address}/metrics").text
        finally:
            server.terminate()
    left = {
        name: float(value) for name, value in re.findall(r"^(castalia_texts_(?:running|waiting)) (\S+)$", metrics, re.M)
    }
    row = {"counts": dict(crowd.counts), "left behind": left, "memory": seen, "clients": CLIENTS}
    print(json.dumps({key: row[key] for key in ("counts", "left behind")}))
    if options.json:
        options.json.write_text(json.dumps(row, indent=1) + "\n")
    return int(bool(crowd.counts["not the engine's"]) or any(left.values()))


if __name__ == "__main__":
    raise SystemExit(main())
