"""Threads that would wait for cores are left out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from castalia.core import threads
from castalia.core.threads import cores, free_threads


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Other programs that compute all the time, in sessions of their own as another person's would be."""
    burn = "print(flush=True)\nwhile True: pass"
    others = [
        subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE, start_new_session=True)
        for _ in range(count)
    ]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()


@pytest.mark.skipif(cores() < 2, reason="takes two cores")
def test_beside_programs_that_compute_not_all_threads_are_free():
    with busy(cores() - 1):
        assert free_threads(cores()) < cores()


@pytest.mark.parametrize(
    ("most", "free", "chosen"),
    [(1, 1, 1), (2, 2, 2), (2, 1, 1), (8, 8, 8), (8, 7, 7), (8, 6, 4), (12, 2, 1), (3, 2, 2)],
)
def test_all_or_one_less_or_halves(monkeypatch: pytest.MonkeyPatch, most: int, free: int, chosen: int):
    def seconds(numbers: Tensor, count: int, limit: float) -> list[float]:
        assert numbers.numel() >= threads.ELEMENTS * count
        return [1.0 / count if count <= free else 100.0] * threads.OPERATIONS

    monkeypatch.setattr(threads, "_seconds", seconds)
    assert free_threads(most) == chosen


def test_late_once_is_no_reason(monkeypatch: pytest.MonkeyPatch):
    late = iter([1.0, 50.0, 0.6])
    monkeypatch.setattr(threads, "_seconds", lambda *_: [next(late)] * threads.OPERATIONS)
    assert free_threads(2) == 2


def test_nothing_of_the_process_changes():
    before = torch.get_num_threads()
    assert free_threads(1) == 1
    assert torch.get_num_threads() == before


@pytest.mark.skipif(cores() < 2, reason="takes two cores")
@pytest.mark.parametrize(("environment", "all_of_them"), [({}, False), ({"OMP_NUM_THREADS": str(cores())}, True)])
def test_the_environment_has_the_last_word(environment: dict[str, str], all_of_them: bool):
    work = "import torch; from castalia.core.threads import use_free_threads; use_free_threads(); print(torch.get_num_threads())"
    clean = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | environment
    with busy(cores() - 1):
        done = subprocess.run([sys.executable, "-c", work], env=clean, capture_output=True, text=True, check=True)
    assert (int(done.stdout) == cores()) == all_of_them
