"""The foreman: gives the worker its tasks, begins it again when it ends, and tells everybody what happens.

One process computes (:mod:`castalia.studio.worker`). Long tasks come from the queue, one at a time and in order; short
ones (a slider that is dragged) go in between. Where the worker ends in the middle of a job, by a signal or for lack of
memory, another one is begun, and the job is done again or told as failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from castalia.core.errors import CastaliaError, UsageError
from castalia.studio.jobs import Job, Jobs
from castalia.studio.shelf import Shelf

PATIENCE = 120.0
"""Seconds that a short task may take before its client is told to try again."""

GRACE = 5.0
"""Seconds that a cancelled job has to end by itself, before its worker is ended."""

LIMIT = 4 * 3600.0
"""Seconds that a job may take."""

LINE = 64 << 20
"""Bytes of a line from the worker."""

HEARD = 500
"""Events that a client may be behind, before it is sent away; it comes back and asks anew."""


class Busy(CastaliaError):
    """It cannot be done just now; the request may be made again."""


class Events:
    """Tells every client that listens what happens."""

    def __init__(self) -> None:
        self.clients: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def tell(self, kind: str, value: Any) -> None:
        """Tell everybody."""
        for client in list(self.clients):
            if client.qsize() >= HEARD:
                self.clients.discard(client)
                client.put_nowait(None)
            else:
                client.put_nowait({"kind": kind, "value": value})

    def close(self) -> None:
        """Send everybody away: the server stops."""
        for client in list(self.clients):
            client.put_nowait(None)

    async def listen(self) -> AsyncIterator[dict[str, Any] | None]:
        """What happens from now on; None now and then, where nothing does."""
        mine: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.clients.add(mine)
        try:
            while True:
                try:
                    event = await asyncio.wait_for(mine.get(), 10)
                except TimeoutError:
                    yield None
                    continue
                if event is None:
                    return
                yield event
        finally:
            self.clients.discard(mine)


class Foreman:
    """Keeps the worker at work.

    Args:
        shelf: where things lie.
        jobs: the queue.
        events: who is told.
    """

    def __init__(self, shelf: Shelf, jobs: Jobs, events: Events) -> None:
        self.shelf, self.jobs, self.events = shelf, jobs, events
        self.process: asyncio.subprocess.Process | None = None
        self.running: Job | None = None
        self.progress: dict[str, Any] = {}
        self._short: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1 << 40)
        self._cancelling = False
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self.resolve: Callable[[Job], dict[str, Any]] = lambda job: job.wish

    async def start(self) -> None:
        """Begin: what was running when the last server stopped is queued again."""
        self.jobs.recover()
        self._tasks = [asyncio.create_task(self._attend()), asyncio.create_task(self._dispatch())]

    async def stop(self) -> None:
        """End the worker; a job that is running is done again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        if self.running is not None:
            self.jobs.put_back(self.running.id)

    # what clients ask for

    def add(self, wish: dict[str, Any], client: str) -> Job:
        """Queue a job.

        Raises:
            Full: too many wait.
        """
        job = self.jobs.add(wish, client)
        self._tell(job)
        self._wake.set()
        return job

    async def ask(self, task: str, path: Path, wish: dict[str, Any] | None = None) -> Any:
        """A short task's answer.

        Raises:
            Busy: the worker ended meanwhile, or is busy with something that lets nothing in between.
            UsageError: it cannot be done.
        """
        if len(self._short) >= 64:
            raise Busy("Too much is asked for at once; try again.")
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        self._short[number] = future
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ready.wait()
                self._send({"id": number, "task": task, "path": str(path), "wish": wish})
                return await future
        except TimeoutError:
            raise Busy("The worker is busy with something that lets nothing in between; try again later.") from None
        finally:
            self._short.pop(number, None)

    async def cancel(self, number: int) -> Job:
        """End a job, or take it off the queue.

        Raises:
            KeyError: there is no such job.
        """
        job = self.jobs.get(number)
        if job.state == "queued":
            job = self.jobs.end(number, "cancelled")
            self._tell(job)
        elif job.state == "running" and self.running is not None and self.running.id == number:
            self._cancelling = True
            self._send({"cancel": number})
            asyncio.get_running_loop().call_later(GRACE, self._end_worker, number)
        return job

    def _end_worker(self, number: int) -> None:
        """End the worker where a job that was cancelled still runs."""
        if self.running is not None and self.running.id == number and self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    # the worker

    async def _attend(self) -> None:
        """Begin a worker, listen to it, and begin another when it ends."""
        while True:
            began = time.monotonic()
            log = (self.shelf.home / "worker.log").open("wb")
            try:
                self.process = await asyncio.create_subprocess_exec(  # safe: our own module, no shell
                    sys.executable,
                    "-m",
                    "castalia.studio.worker",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    limit=LINE,
                )
            finally:
                log.close()
            try:
                await self._listen(self.process)
            finally:
                self._ready.clear()
                self._idle.clear()
                if self.process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        self.process.kill()
                    await self.process.wait()
            self._worker_ended()
            if time.monotonic() - began < 1:  # it cannot even begin: not as fast as possible, for ever
                await asyncio.sleep(2)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if "ready" in message:
                self._ready.set()
                self._idle.set()
            elif message["id"] in self._short:
                future = self._short[message["id"]]
                if not future.done():
                    if "failed" in message:
                        future.set_exception(UsageError(message["failed"]))
                    else:
                        future.set_result(message.get("done"))
            elif self.running is not None and message["id"] == self.running.id:
                try:
                    self._of_job(self.running, message)
                except (sqlite3.Error, OSError, UnicodeError) as error:  # a full disk: the job is lost, not the studio
                    self.running, self.progress = None, {}
                    self.events.tell("trouble", str(error))
                    self._idle.set()

    def _of_job(self, job: Job, message: dict[str, Any]) -> None:
        if "told" in message:
            if message["told"]:
                self.progress = message["told"]
                self.events.tell("progress", {"id": job.id, **message["told"]})
            return
        if "done" in message:
            ended = self.jobs.end(job.id, "done", files=self.shelf.files_of(job.id), recipe=message["done"])
        elif "cancelled" in message:
            self.shelf.discard(job.id)
            ended = self.jobs.end(job.id, "cancelled")
        else:
            self.shelf.discard(job.id)
            ended = self.jobs.end(job.id, "failed", message["failed"])
        self._over(ended)

    def _over(self, job: Job) -> None:
        self.running, self.progress, self._cancelling = None, {}, False
        self._tell(job)
        for old in self.jobs.forget(self.shelf.kept_jobs()):
            self.shelf.discard(old)
        if self._ready.is_set():  # of a worker that ended, the next one says when it is idle
            self._idle.set()

    def _worker_ended(self) -> None:
        for future in self._short.values():
            if not future.done():
                future.set_exception(Busy("The worker ended and is begun again; try again."))
        if self.running is not None:
            job = self.running
            self.shelf.discard(job.id)
            cancelled = self._cancelling
            self._over(self.jobs.end(job.id, "cancelled") if cancelled else self.jobs.again(job.id))
            self._wake.set()

    def _send(self, task: dict[str, Any]) -> None:
        if self.process is not None and self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(task).encode() + b"\n")

    async def _dispatch(self) -> None:
        """Give the worker the first job that waits, whenever it has none."""
        while True:
            await self._idle.wait()
            if not self._idle.is_set():  # the worker ended between the word and the waking
                continue
            try:
                job = self.jobs.begin()
            except sqlite3.Error as error:
                self.events.tell("trouble", str(error))
                await asyncio.sleep(2)
                continue
            if job is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._idle.clear()
            self.running = job
            self._tell(job)
            try:
                wish = self.resolve(job)
                out = str(self.shelf.job_folder(job.id))
            except KeyError:
                self._over(self.jobs.end(job.id, "failed", "The run, or a file, is gone."))
                continue
            except (CastaliaError, OSError) as error:
                self._over(self.jobs.end(job.id, "failed", str(error)))
                continue
            self._send({"id": job.id, "task": wish["do"], "path": wish.get("path"), "wish": wish, "out": out})
            asyncio.get_running_loop().call_later(LIMIT, self._end_worker, job.id)

    def _tell(self, job: Job) -> None:
        self.events.tell("job", job.told())
