"""Trainings that the studio began: processes of their own, which stop with it and can be gone on with.

A training is ``castalia train`` and nothing else, so that what was begun here can be gone on with there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

from castalia import recipes
from castalia.catalogue import entry
from castalia.core.errors import UsageError, shown
from castalia.media.named import table
from castalia.studio.foreman import Events
from castalia.studio.shelf import Shelf
from castalia.studio.wishes import Train

EVERY = 1.0
"""Seconds between two looks at a training."""

TAIL = 4096
"""Bytes of its output that are looked at."""

SETTING = re.compile(r"(training|config|data\.options)(\.[a-z0-9_]+)+=[A-Za-z0-9_+\-.,\[\] ]{1,200}")
"""Settings that can name no file."""

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Trainings:
    """The training that runs, if one does.

    Args:
        shelf: where runs lie.
        events: who is told.
        local: whether a path of this machine may be named as data; False where others can reach the server.
    """

    def __init__(self, shelf: Shelf, events: Events, *, local: bool) -> None:
        self.shelf, self.events, self.local = shelf, events, local
        self.process: asyncio.subprocess.Process | None = None
        self.path: Path | None = None
        self.line = ""
        self._watch: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()

    def running(self) -> str | None:
        """The identifier of the run that is trained."""
        return self.shelf.id_of(self.path) if self.path is not None else None

    async def begin(self, wish: Train) -> str:
        """Train a new run; return its identifier.

        Raises:
            UsageError: one is running, the name is taken, or there are no such data.
        """
        out = self.shelf.runs / wish.name
        if out.exists():
            raise UsageError(f"There is a run called {wish.name} already; choose another name, or go on with that one.")
        if wish.recipe is None and (wish.model is None or wish.data is None):
            raise UsageError("Say which recipe, or which system and which data.")
        given = [wish.model] if wish.model else []
        words = ["--recipe", wish.recipe] if wish.recipe else []
        for flag, value in (("--minutes", wish.minutes), ("--steps", wish.steps), ("--seed", wish.seed)):
            words += [] if value is None else [flag, str(value)]
        if wish.data is not None:
            words += ["--data", self.source(wish.data)]
        if any(text.startswith("-") for text in (*given, wish.recipe or "", wish.data or "", *wish.settings)):
            raise UsageError("Names do not begin with a dash.")
        for setting in wish.settings:
            if not SETTING.fullmatch(setting):
                raise UsageError(
                    f"{setting}: settings here are training., config. and data.options. with a number, a word, true, "
                    "false or a list; data are chosen above."
                )
            words += ["--set", setting]
        if wish.recipe is not None:
            recipes.recipe(wish.recipe)  # says what there is where there is no such one
        elif wish.model is not None:
            entry(wish.model)
        return await self._run([*given, *words, "--out", str(out)], out)

    async def resume(self, path: Path) -> str:
        """Go on with a run.

        Raises:
            UsageError: a training is running.
        """
        return await self._run(["--resume", "--out", str(path)], path)

    async def stop(self) -> None:
        """Ask the training to save and stop, and wait for it."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 60)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def close(self) -> None:
        """Stop, and do not look any more."""
        await self.stop()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def source(self, data: str) -> str:
        """Data as the command line takes them: a named set, an upload, or a path of this machine.

        Raises:
            UsageError: there are no such data, or paths may not be named here.
        """
        if data in table():
            return data
        if data.startswith("upload-"):
            try:
                return str(self.shelf.file(data))
            except KeyError:
                raise UsageError("That upload is gone.") from None
        if not self.local:
            raise UsageError("Others can reach this studio, so data are named sets or uploads, and no paths.")
        found = Path(data).expanduser()
        if not found.is_absolute() or not found.exists():
            raise UsageError(f"There are no data {data}: name a set, an upload, or the whole path of a file or folder.")
        return str(found)

    async def _run(self, words: list[str], out: Path) -> str:
        async with self._one:
            if self.process is not None and self.process.returncode is None:
                raise UsageError("A training is running; one at a time. Stop it first, or wait.")
            return await self._start(words, out)

    async def _start(self, words: list[str], out: Path) -> str:
        log = (self.shelf.home / "training.log").open("wb")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "160"}
        try:
            self.process = await asyncio.create_subprocess_exec(  # safe: our own command, no shell
                *("nice", "-n", "10") if os.name == "posix" else (),
                *(sys.executable, "-m", "castalia", "train", *words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
            )
        finally:
            log.close()
        self.path, self.line = out, "beginning"
        self._watch = asyncio.create_task(self._look(self.process, out))
        return self.shelf.id_of(out)

    async def _look(self, process: asyncio.subprocess.Process, out: Path) -> None:
        """Tell how it goes until it ends."""
        identifier = self.shelf.id_of(out)
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.wait()), EVERY)
            line = self._last_line()
            if line and line != self.line:
                self.line = line
                self.events.tell("training", {"run": identifier, "line": line, "running": process.returncode is None})
        self.path, self.line = None, self._last_line()
        told = {"run": identifier, "line": self.line, "running": False, "code": process.returncode}
        self.events.tell("training", told)

    def _last_line(self) -> str:
        try:
            with (self.shelf.home / "training.log").open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        lines = [line.strip() for line in ESCAPES.sub("", text).replace("\r", "\n").splitlines() if line.strip()]
        return shown(lines[-1])[:300] if lines else ""
