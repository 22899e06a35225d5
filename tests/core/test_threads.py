"""Threads that would wait for cores are left out."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from castalia.core import threads
from castalia.core.threads import cores, free_threads, look_again, use_free_threads
from castalia.estimators import progress


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
    with busy(cores()):  # so that they meet, however the system moves them
        assert any(free_threads(cores()) < cores() for _ in range(5))


@pytest.mark.parametrize(
    ("most", "free", "chosen"),
    [(1, 1, 1), (2, 2, 2), (2, 1, 1), (8, 8, 8), (8, 7, 7), (8, 6, 4), (12, 2, 1), (3, 2, 2)],
)
def test_all_or_one_less_or_halves(monkeypatch: pytest.MonkeyPatch, most: int, free: int, chosen: int):
    def seconds(numbers: Tensor, count: int, operations: int, limit: float = math.inf) -> list[float]:
        assert numbers.numel() >= threads.ELEMENTS * count
        return [1e-5 / count if count <= free else 1e-3] * operations

    monkeypatch.setattr(threads, "_seconds", seconds)
    assert free_threads(most) == chosen


def test_late_once_is_no_reason(monkeypatch: pytest.MonkeyPatch):
    late = iter([1e-5, 5e-4, 0.6e-5])
    monkeypatch.setattr(threads, "_seconds", lambda _, n, operations, limit=0.0: [next(late)] * operations)
    assert free_threads(2) == 2


def test_it_looks_for_longer_than_a_turn_of_the_scheduler(monkeypatch: pytest.MonkeyPatch):
    """Two threads and another program share two cores in turns: the first milliseconds are undisturbed."""

    def seconds(numbers: Tensor, count: int, operations: int, limit: float = math.inf) -> list[float]:
        undisturbed = operations if count == 1 else 1000
        return [1e-5] * undisturbed + [2e-5] * (operations - undisturbed)

    monkeypatch.setattr(threads, "_seconds", seconds)
    assert free_threads(2) == 1


def test_nothing_of_the_process_changes():
    before = torch.get_num_threads()
    assert free_threads(1) == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("environment", "left"), [(None, 1), ("2", 2), ("", 1), ("2,1", 2), ("0", 1)])
def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch, environment: str | None, left: int):
    if environment is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr(threads, "free_threads", lambda most: most - 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        use_free_threads()
        assert torch.get_num_threads() == left
    finally:
        torch.set_num_threads(before)


def test_threads_are_looked_at_again_and_come_back(monkeypatch: pytest.MonkeyPatch):
    """Between two pieces of work, every few seconds; as many as at first once the others have gone."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_mine", threads._Mine())
    free = [1]
    monkeypatch.setattr(threads, "free_threads", lambda most: min(most, free[0]))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        look_again()
        assert torch.get_num_threads() == 2, "in a process that is somebody's, nothing is touched"
        use_free_threads()
        assert torch.get_num_threads() == 1
        free[0] = 2
        look_again()
        assert torch.get_num_threads() == 1, "a look costs time"
        monkeypatch.setattr(threads, "AGAIN", 0.0)
        look_again()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_measurement_looks_again_and_a_feature_network_does_not(monkeypatch: pytest.MonkeyPatch):
    """The weights of the latter are kept, and metrics name their hash: their last bits follow the number of threads."""
    looks: list[int] = []
    monkeypatch.setattr(progress, "look_again", lambda: looks.append(1))
    progress.Ticker("likelihood", 2, None).step(1)
    assert looks == [1]
    progress.Ticker("feature network", 2, None, look=False).step(1)
    assert looks == [1]
