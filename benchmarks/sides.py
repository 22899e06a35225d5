"""One side of a comparison in a process of its own, with its own imports, allocator and threads.

A process makes its work once and then runs it whenever it is told to, so that two sides can be timed in turn.
"""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch

from benchmarks.harness import Run
from castalia.configuration import Recipe
from castalia.core.data import Dataset
from castalia.core.memory import keep_memory
from castalia.core.precision import Precision
from castalia.runs import open_run
from castalia.training.loop import train

GO = ""
"""Tells a process to run; every other word is the name of a method of its work."""


class Driven(Protocol):
    """Work that asks for its turns itself."""

    def drive(self, turn: Callable[[], object]) -> None:
        """Run; call ``turn`` between two pieces of work."""
        ...


Work = Run | Driven


class Side:
    """A process that makes work and runs it when told.

    Args:
        make: a function of a module, called in the process: its result is the work.
        arguments: for it.
        threads: of the process.
        keeps: whether the process keeps its memory as ``castalia train`` does: on both sides of a row of equal work, on
            ours alone where each side is at its defaults.

    Raises:
        RuntimeError: the work could not be made, or failed in its first piece; with its message.
    """

    def __init__(self, make: Callable[..., Work], *arguments: Any, threads: int = 1, keeps: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, arguments, threads, keeps), daemon=True)
        self._process.start()
        there.close()
        self._answer()

    def seconds(self) -> tuple[float, float]:
        """Wall and processor seconds of one piece of work."""
        return self.ask(GO)

    def ask(self, what: str) -> Any:
        """What a method of the work returns."""
        self._pipe.send(what)
        return self._answer()

    def _answer(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the process of one side ended") from None
        if kind == "error":
            raise RuntimeError(value)
        return value

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(20)
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _serve(pipe: Connection, make: Callable[..., Work], arguments: tuple[Any, ...], threads: int, keeps: bool) -> None:
    """The process: make the work, then a piece of it for each word from the other end."""
    if keeps:
        keep_memory()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    began: tuple[float, float] | None = None

    def turn() -> None:
        """Tell how long the last piece took, and wait for the next."""
        nonlocal began
        now = time.perf_counter(), time.process_time()
        pipe.send(("value", None if began is None else (now[0] - began[0], now[1] - began[1])))
        while what := pipe.recv():  # raises when the other end is closed
            pipe.send(("value", getattr(work, what)()))
        gc.collect()  # no piece pays for the rubbish of another
        began = time.perf_counter(), time.process_time()

    try:
        work = make(*arguments)
        if not callable(work):
            work.drive(turn)
        while True:
            turn()
            work()
    except (EOFError, BrokenPipeError):
        pass  # the other end was closed
    except BaseException as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))
        raise


class HeldTraining:
    """Castalia's loop, in pieces of ``steps`` steps; the first steps are its start and belong to no piece.

    Args:
        recipe: of more steps than will be run.
        data: what to train on.
        steps: of one piece.
    """

    def __init__(self, recipe: Recipe, data: Dataset, steps: int) -> None:
        self.recipe, self.data, self.steps = recipe, data, steps
        self._folder = tempfile.TemporaryDirectory()

    def drive(self, turn: Callable[[], object]) -> None:
        """Train; ``turn`` raises when it is over."""

        def callback(step: int, logs: object) -> None:
            if step % self.steps == 0:
                turn()

        with self._folder:
            train(self.recipe, self.data, Path(self._folder.name) / "run", quiet=True, callback=callback)

    def precision(self) -> Precision:
        """In which the run would be sampled: what its training chose."""
        return open_run(Path(self._folder.name) / "run").precision(torch.device("cpu"))
