"""Shared by all tests: one thread per process, a private cache, and data sets that come and go."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # processes of the suite run side by side; see the performance notes

from pathlib import Path

import pytest
import torch

from tests.costs import Costs


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Costs())


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Every test draws the same numbers whatever ran before it: what fails, fails again."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["CASTALIA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A folder of this session; where there are several workers, all have the same.

    The environment does not tell: a session inside a test of a worker has the worker's.
    """
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(pytestconfig, "workerinput") else own


@pytest.fixture(scope="session")
def castalia_data() -> Path:
    """The folder of real data sets; tests that need it skip where there is none."""
    folder = os.environ.get("CASTALIA_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("CASTALIA_DATA is not set: this test needs the real data sets")
    return Path(folder)
