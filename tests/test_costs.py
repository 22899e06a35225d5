"""Tests are grouped by system, and a system that costs too much fails the session."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.costs import LONG, TOGETHER, Costs, group_of
from tests.tools import MODELS

SUITE = "tests/conformance/test_conformance.py"


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        (f"{SUITE}::test_density[vae]", "vae"),
        (f"{SUITE}::test_a_resumed_run_equals_an_uninterrupted_one[5-wgan]", "wgan"),
        (f"{SUITE}::test_a_resumed_run_equals_an_uninterrupted_one[gan-5]", "gan"),
        (f"{SUITE}::test_two_processes_equal_one[vae]", TOGETHER),
        (f"{SUITE}::test_recipe_survives_json[vae-digits]", SUITE),
        (f"{SUITE}::test_something_else", SUITE),
        ("tests/cli/test_cli.py::test_models_json", "tests/cli/test_cli.py"),
        (f"{LONG[4]}[vae]", f"{LONG[4]}[vae]"),
    ],
)
def test_groups(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_long_groups_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    items = [SimpleNamespace(nodeid=f"{file}::test") for file in ("tests/a.py", LONG[1], "tests/b.py", LONG[0])]
    Costs().pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert [item.nodeid.split("::")[0] for item in items] == [LONG[0], LONG[1], "tests/a.py", "tests/b.py"]


def test_what_costs_too_much_fails() -> None:
    costs = Costs(limit=10)
    for group, seconds in (("vae", 6.0), ("vae", 2.0), ("gan", 9.5), (TOGETHER, 1.0 * len(MODELS)), (SUITE, 100.0)):
        costs.pytest_runtest_logreport(SimpleNamespace(castalia_cost=(group, seconds)))
    costs.pytest_runtest_logreport(SimpleNamespace())
    assert costs.table() == pytest.approx({"vae": 9.0, "gan": 10.5})
    assert costs.too_dear() == ["gan"]
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    costs.pytest_sessionfinish(session)  # type: ignore[arg-type]
    assert session.exitstatus == pytest.ExitCode.TESTS_FAILED
    lines: list[str] = []
    costs.pytest_terminal_summary(
        SimpleNamespace(section=lines.append, write_line=lambda line, **style: lines.append(line))
    )
    assert any("gan: more than 10 seconds" in line for line in lines)
