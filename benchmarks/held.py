"""A training that is held between calls, so that it can be timed in turn with something else."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import torch

from castalia.configuration import Recipe
from castalia.core.data import Dataset
from castalia.core.precision import Precision
from castalia.runs import open_run
from castalia.training.loop import train


class _Over(Exception):
    pass


class HeldTraining:
    """Castalia's loop in a thread of its own, which runs only while it is called: ``steps`` more steps each time.

    Args:
        recipe: of more steps than will be run.
        data: what to train on.
        steps: of one call.
    """

    def __init__(self, recipe: Recipe, data: Dataset, steps: int) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._folder, self._over = tempfile.TemporaryDirectory(), False
        self._error: BaseException | None = None
        threads = torch.get_num_threads()

        def callback(step: int, logs: object) -> None:
            if step % steps == 0:
                self._done.release()
                self._go.acquire()
                if self._over:
                    raise _Over

        def work() -> None:
            torch.set_num_threads(threads)
            try:
                train(recipe, data, Path(self._folder.name) / "run", quiet=True, callback=callback)
            except _Over:
                pass
            except BaseException as error:
                self._error = error
            self._done.release()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        self._wait()  # the first steps are its start
        torch.set_num_threads(threads)

    def _wait(self) -> None:
        self._done.acquire()
        if self._error is not None:
            self._folder.cleanup()
            raise self._error

    def __call__(self) -> None:
        """Run the next steps."""
        self._go.release()
        self._wait()

    def precision(self) -> Precision:
        """In which the run would be sampled: what its training chose."""
        return open_run(Path(self._folder.name) / "run").precision(torch.device("cpu"))

    def close(self) -> None:
        """End the training and remove its folder."""
        self._over = True
        self._go.release()
        self._thread.join()
        self._folder.cleanup()
