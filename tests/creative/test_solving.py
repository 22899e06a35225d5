"""Programs that are run: what passes, what gets nowhere, what the walls hold, and how the share of right ones is told."""

from __future__ import annotations

import itertools
import json
import math
import socket
import time
from pathlib import Path

import pytest
import torch

from castalia import api, editing
from castalia.cli.main import main
from castalia.core.errors import DataError, UsageError
from castalia.core.rng import SampleRng
from castalia.creative.edit import Page
from castalia.creative.sandbox import all_tried, tried
from castalia.creative.solving import OWN, Problem, pass_at, read_problems
from castalia.media.text.middle import asked
from castalia.media.text.tokens import tokens_of
from castalia.models.sequence.gpt2 import GPT2

ENDS = [
    ("x = 1", True, ""),
    ("print('much')\nimport sys, os\nos.write(1, b'more')", True, ""),
    ("import math, json, re\nassert math.gcd(12, 18) == 6", True, ""),
    ("open('own', 'w').write('x')\nassert open('own').read() == 'x'", True, ""),
    ("assert 1 == 2, 'numbers'", False, "AssertionError: numbers in line 1"),
    ("def f(:\n", False, "SyntaxError"),
    ("import os\nos._exit(0)", False, "ended the process"),
    ("import sys\nsys.exit(0)", False, "SystemExit"),
    ("raise KeyboardInterrupt", False, "KeyboardInterrupt"),
    ("import os\nfor d in range(3, 9):\n    try: os.write(d, b'{}\\n{}\\n')\n    except OSError: pass", False, ""),
    ("import castalia", False, "ModuleNotFoundError"),
    ("x = bytearray(1 << 32)", False, "MemoryError"),
    ("open('own', 'wb').write(bytes(1 << 24))", False, ""),
    ("import json\n\njson.loads('{')", False, "in line 3"),
    ("def f(x: Nothing): return x", False, "NameError"),
    ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nassert P(1).x == 1", True, ""),
    ("import pickle\nclass A: pass\npickle.dumps(A())", True, ""),
    ("open('/dev/null', 'w').write('a')", True, ""),
    ("import os\nos.kill(os.getpid(), 9)", False, "ended the process"),
    ("import signal, time\nsignal.alarm(1)\ntime.sleep(4)", False, "ended the process"),
    (
        'import os\nfor d in range(3, 9):\n    try: os.write(d, b\'{}\\n{"secret": "\\xc3\\xa9"}\\n\')\n    except OSError: 0',
        False,
        "",
    ),
    ("import os\nfor i in range(2000):\n    os.mkdir('a')\n    os.chdir('a')", True, ""),
]


@pytest.mark.parametrize(("program", "passed", "why"), ENDS, ids=lambda value: str(value)[:20])
def test_ends_of_programs(program: str, passed: bool, why: str) -> None:
    outcome = tried(program)
    assert outcome.passed == passed, outcome
    assert why in outcome.why
    assert "limits" in outcome.walls


LEAVES = "import os, time\ntry: os.setsid()\nexcept OSError: pass\ntime.sleep(60)"


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)", LEAVES])
def test_what_does_not_end_is_ended(program: str) -> None:
    began = time.monotonic()
    assert not tried(program, 1).passed
    assert time.monotonic() - began < 10


def test_walls(tmp_path: Path) -> None:
    """No file outside, no network, no other process, and no further ones; where the system has such walls."""
    there = tmp_path / "there"
    there.write_text("kept")
    walls = tried("").walls
    if "shut" in walls:
        for program in (f"open({str(tmp_path / 'a')!r}, 'w')", f"import os; os.mkdir({str(tmp_path / 'b')!r})"):
            assert "PermissionError" in tried(program).why
        assert [path.name for path in tmp_path.iterdir()] == ["there"]
    if "alone" in walls:
        with socket.create_server(("127.0.0.1", 0)) as server:
            call = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
            assert not tried(call).passed
        assert tried("import os; assert os.getppid() == 1 and os.getpid() == 2 and not os.listdir('/proc')").passed
        fill = "n = 0\nwhile True:\n    open(str(n), 'wb').write(bytes(1 << 20))\n    n += 1"
        assert "No space left" in tried(fill).why
    if "single" in walls:
        assert "PermissionError" in tried("import os\nwhile True: os.fork()").why
        assert "PermissionError" in tried("import subprocess\nsubprocess.run(['true'])").why
        for change in (
            f"truncate({str(there)!r}, 0)",
            f"chmod({str(there)!r}, 0o777)",
            f"utime({str(there)!r}, (0, 0))",
        ):
            assert "PermissionError" in tried(f"import os; os.{change}").why
        assert there.read_text() == "kept"
        assert "PermissionError" in tried("import socket; socket.socket(socket.AF_UNIX)").why
        assert "RuntimeError" in tried("import threading\nthreading.Thread(target=print).start()").why
    if not {"alone", "shut", "single"} <= set(walls):
        pytest.skip(f"this system has only {walls}")


def test_a_program_is_given_no_secret_and_nothing_to_read() -> None:
    names = {"PATH", "HOME", "TMPDIR", "LC_CTYPE", "PYTHONHASHSEED"}
    looks = f"import os, sys\nassert set(os.environ) <= {names}\nassert sys.stdin.read() == ''"
    assert tried(looks).passed


def test_own_problems_are_solved_by_their_solutions_and_by_nothing_less() -> None:
    problems = read_problems(OWN)
    assert len(problems) == 24
    assert all(outcome.passed for outcome in all_tried([p.program(p.solution) for p in problems]))
    assert not any(outcome.passed for outcome in all_tried([p.program("    return None\n") for p in problems]))


def test_an_answer_ends_where_something_else_begins() -> None:
    problem = Problem("a", "def f(x):\n", "", "", "f", "")
    assert problem.cut("    return x\n\ndef g():\n    pass") == "    return x\n"
    assert problem.cut("    if x:\n        return 1\n") == "    if x:\n        return 1\n"
    assert problem.cut("    return [\n        x\n]\nThe end.") == "    return [\n        x\n]"
    assert problem.cut(" return x\nimport os\n") == " return x"
    assert problem.cut("def g(): pass") == "def g(): pass", "the first line may go on with what stands before it"
    gap = Problem("a", "def f(x):\n", "\n    return y", "", "f", "")
    assert gap.cut("    y = 1\n\ndef g()") == "    y = 1\n\ndef g()"


def test_pass_at_k_is_the_share_of_all_choices_of_k_answers() -> None:
    for n, k, c in ((5, 2, 1), (6, 3, 2), (4, 4, 0), (4, 1, 4), (7, 3, 6)):
        answers = [True] * c + [False] * (n - c)
        choices = list(itertools.combinations(answers, k))
        assert pass_at(k, [c], n)[0] == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)
    assert pass_at(1, [3], 5) == (pytest.approx(0.6), None)
    share, error = pass_at(1, [0, 2, 2, 0], 2)
    assert (share, error) == (0.5, pytest.approx(math.sqrt(1 / 3 / 4)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "expected a JSON object"),
        ('{"prompt": "a", "test": "b"}', "'entry_point'"),
        ('{"prompt": "a", "test": 3, "entry_point": "f"}', "'test'"),
        ('{"prompt": "a", "test": "b", "entry_point": "f(); import os"}', "name of a function"),
        ('{"prompt": "a", "test": "b", "entry_point": "f", "suffix": null}', "'suffix'"),
        ('{"prompt": "a", "test": "b", "entry_point": "None"}', "name of a function"),
    ],
)
def test_files_of_problems_that_are_none(line: str, said: str, tmp_path: Path) -> None:
    good = json.dumps({"prompt": "a", "test": "b", "entry_point": "f"})
    (tmp_path / "problems.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match="line 2") as error:
        read_problems(tmp_path / "problems.jsonl")
    assert said in str(error.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has learned one answer by heart, with gaps and without."""
    place = tmp_path_factory.mktemp("solving")
    (place / "text.txt").write_text("def one():\n    return 1\n" * 1500)
    settings = ["data.options.tokens=bytes", "data.options.length=64", "data.options.middle=0.3"]
    api.train(
        "gpt2", str(place / "text.txt"), place / "run", recipe="gpt2-tiny", steps=120, quiet=True, settings=settings
    )
    return place / "run"


def write(path: Path, **more: str) -> str:
    problem = {"prompt": "def one():\n", "test": "def check(f):\n    assert f() == 1", "entry_point": "one", **more}
    other = {**problem, "test": "def check(f):\n    assert f() == 2"}
    path.write_text(f"{json.dumps(problem)}\n{json.dumps(other)}\n")
    return str(path)


def test_solving(run: Path, tmp_path: Path) -> None:
    """What the model has learned is right for one problem, and wrong for the other."""
    of = write(tmp_path / "problems.jsonl")
    how = {"of": of, "n": 3, "at": (1, 3), "length": 30, "settings": ("temperature=0.01",)}
    with pytest.raises(UsageError, match="--run-code"):
        editing.edit(run, "solve", **how)
    page, again = (editing.edit(run, "solve", run_code=True, **how) for _ in range(2))
    assert isinstance(page, Page)
    assert isinstance(again, Page)
    assert page.numbers["pass@1"]["share"] == page.numbers["pass@3"]["share"] == 0.5
    assert [one["passed"] for one in page.numbers["answers"]] == [True] * 3 + [False] * 3
    assert page.numbers["answers"][0]["answer"].strip() == "return 1"
    assert again.numbers == page.numbers
    for wrong in ({"at": (4,)}, {"length": 60}, {"of": "nowhere.jsonl"}):
        with pytest.raises(UsageError):
            editing.edit(run, "solve", run_code=True, **{**how, **wrong})
    write(tmp_path / "problems.jsonl", canonical_solution="    return 3\n")
    with pytest.raises(DataError, match="its own solution fails"):
        editing.edit(run, "solve", run_code=True, **how)


def test_the_command_line_has_the_options_own_settings(run: Path, tmp_path: Path) -> None:
    of, out = write(tmp_path / "problems.jsonl"), tmp_path / "solved.html"
    assert main(["edit", "solve", str(run), "--of", of, "--length", "20", "--run-code", "--out", str(out)]) == 0
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["recipe"]["edit"]["settings"] == ["temperature=0.2", "top_p=0.95"]
    assert told["recipe"]["edit"]["at"] == [1]
    assert told["pass@1"]["share"] in (0, 0.5, 1)


def test_a_gap_in_the_middle_is_asked_for_in_the_models_form(run: Path, tmp_path: Path) -> None:
    of = write(tmp_path / "problems.jsonl", prompt="def one():\n    ret", suffix="n 1\n")
    page = editing.edit(run, "solve", of=of, length=24, settings=("temperature=0.01",), run_code=True)
    assert isinstance(page, Page)
    model = api.load(run).model()[0]
    assert isinstance(model, GPT2)
    prompt = torch.tensor(asked(model.spec, "def one():\n    ret", "n 1\n", 64 - 24, suffix_first=True))[None]
    options = api.sampling_options(model, ("temperature=0.01", "length=24"))
    row = model.sample(1, {"prompt": prompt}, rng=SampleRng(0, [0]), options=options).x[0, prompt.shape[1] :]
    assert page.numbers["answers"][0]["answer"] == tokens_of(model.spec).decode(row.numpy())
