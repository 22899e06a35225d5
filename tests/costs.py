"""How many seconds of a processor the conformance of each system takes; too many fail the session.

There are to be many systems. What one of them takes is small; what all of them take, everybody waits for.
"""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest

from castalia.catalogue import CATALOGUE

LIMIT = 12.0
"""Seconds of a processor, of one system."""

TOGETHER = "two processes"
"""Group of the tests that run all systems at once: each bears its share."""

BUSY = 1.5
"""Programs for each core above which the limit is twice as high: those that share a core make each other slower, by 1.7
in what was seen, and processor time counts that too."""

SUITE = "tests/conformance/"

LONG = (
    "tests/torture/test_kills.py",
    "tests/test_docs.py",
    "tests/training/test_sharding.py",
    "tests/test_benchmarks.py",
    "tests/cli/test_cli.py::test_kill_at_random_moments",
    TOGETHER,
)
"""Groups that take longest. They go first, so that no worker is left alone with one of them at the end; those that start
processes of their own, which measure how long the others take to end, next to those that do not."""


def group_of(nodeid: str) -> str:
    """Tests of one group run in one process, one after the other: they share what their fixtures made.

    In the conformance suite a system is a group. Elsewhere a file is, but for what is very long.
    """
    file, _, rest = nodeid.partition("::")
    if SUITE not in file:
        return nodeid if "test_kill_at_random_moments" in rest else file  # long, and they share nothing
    test, _, parameters = rest.partition("[")
    if "two_processes" in test:
        return TOGETHER
    parameters = f"-{parameters.removesuffix(']')}-"
    found = [name for name in CATALOGUE if f"-{name}-" in parameters]
    # a recipe's name may begin with that of its system: its tests are cheap, and go wherever
    return max(found, key=len) if found and "recipe" not in test else file


def processor_time() -> float:
    """Of this process and of those that it started and saw end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class Costs:
    """Plugin of pytest: groups tests, adds up what they cost, and says it at the end.

    With several workers the tests run there, and this is told of them by their reports.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.given = limit
        self.spent: dict[str, float] = defaultdict(float)
        self.mark = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if "PYTEST_XDIST_WORKER" in os.environ:
            items.sort(
                key=lambda item: next((i for i, g in enumerate(LONG) if group_of(item.nodeid).startswith(g)), 99)
            )
        if any(SUITE in item.nodeid for item in items):
            import torch._dynamo  # noqa: F401  # a training imports it, for seconds; the first system is not to pay

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Like ``--dist loadgroup``, which of pytest-xdist 3.8 does nothing under pytest 9.2."""
        from xdist.scheduler import LoadScopeScheduling

        class ByGroup(LoadScopeScheduling):
            def _split_scope(self, nodeid: str) -> str:
                return group_of(nodeid)

        config.option.loadscopereorder = False  # in the order of LONG, not by the number of tests
        return ByGroup(config, log)

    def pytest_runtest_logstart(self) -> None:
        self.mark = processor_time()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        now = processor_time()
        if SUITE in item.nodeid:
            report.castalia_cost = (group_of(item.nodeid), now - self.mark)
        self.mark = now
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        group, seconds = getattr(report, "castalia_cost", ("", 0.0))
        self.spent[group] += seconds

    @property
    def limit(self) -> float:
        """Seconds that a system may take, by how busy the machine was in the last quarter of an hour."""
        busy = os.getloadavg()[2] > BUSY * (os.cpu_count() or 1)
        return self.given or (2 * LIMIT if busy else LIMIT)

    def table(self) -> dict[str, float]:
        """Seconds by system, each with its share of what is done for all at once."""
        found = {name: seconds for name, seconds in self.spent.items() if name in CATALOGUE}
        share = self.spent.get(TOGETHER, 0.0) / len(CATALOGUE)  # also where only some are tested: it is mostly start-up
        return {name: seconds + share for name, seconds in found.items()}

    def too_dear(self) -> list[str]:
        """Systems beyond the limit."""
        return [name for name, seconds in self.table().items() if seconds > self.limit]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.too_dear() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        table = self.table()
        if not table:
            return
        terminalreporter.section("conformance: seconds of a processor by system")
        for name, seconds in sorted(table.items(), key=lambda row: -row[1]):
            terminalreporter.write_line(f"{seconds:6.1f}  {name}")
        terminalreporter.write_line(f"{sum(table.values()):6.1f}  all")
        for name in self.too_dear():
            terminalreporter.write_line(
                f"FAILED {name}: more than {self.limit:g} seconds. A smaller TINY recipe, or fewer steps of its sampler, "
                "would do.",
                red=True,
            )
