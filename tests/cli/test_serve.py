"""`castalia serve` on a run: it says where it is, answers, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import castalia
from castalia.cli.main import main
from castalia.media.text.medium import TextMedium
from tests.serving.test_lsp import Editor

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("serve") / "counting"
    castalia.train("gpt2", "counting", out, steps=2, quiet=True)
    return out


def test_serving(run: Path) -> None:
    command = [sys.executable, "-m", "castalia", "serve", str(run), "--port", "0", "--look-up", "--as", "numbers"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("numbers at http://127.0.0.1:")
            address = line.split()[2].rstrip(".")
            body = {"model": "numbers", "prompt": "17 18", "max_tokens": 12, "seed": 3}
            answer = httpx.post(f"{address}/completions", json=body, timeout=30).json()
            given, options = {"prompt": "17 18"}, ["length=12"]
            sampled = castalia.sample(run, 1, seed=3, given=given, options=options, precision="float32")
            (text,) = TextMedium().texts(sampled, castalia.load(run).spec)  # type: ignore[arg-type]
            assert "17 18" + answer["choices"][0]["text"] == text
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    assert process.returncode in (0, 130, -signal.SIGINT)


def test_speaking_with_an_editor(run: Path) -> None:
    command = [sys.executable, "-m", "castalia", "serve", str(run), "--lsp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        editor = Editor(process.stdout, process.stdin)
        editor.ask("initialize")
        assert editor.hear()["result"]["serverInfo"]["name"] == "castalia"
        editor.open("17 18")
        editor.complete(0, 5)
        assert "items" in editor.hear()["result"]
        editor.open("letters")  # which the vocabulary does not have
        editor.complete(0, 3)
        assert "vocabulary has no" in editor.hear()["error"]["message"]
        editor.ask("shutdown")
        assert editor.hear()["result"] is None
        editor.send(method="exit")
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--password"),
        (["--waiting", "-1"], "waiting must not"),
        (["--draft", "{run}", "--look-up"], "not allowed with"),
        (["--port", "99999999"], "cannot be listened on"),
    ],
)
def test_refusals(run: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(run), *(option.format(run=run) for option in options)]) == 2
    assert said in capsys.readouterr().err


def test_only_language_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    castalia.train("vae", "digits", tmp_path / "run", steps=1, quiet=True)
    assert main(["serve", str(tmp_path / "run")]) == 2
    assert "language model" in capsys.readouterr().err
