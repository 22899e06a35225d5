"""The documentation is true: its Python runs, its commands parse, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from castalia.cli.parser import make_parser

ROOT = Path(__file__).resolve().parents[1]
DOCS = [p for p in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in p.parts]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")] + DOCS
ADDING = ROOT / "docs" / "adding-a-model.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"<!-- (file|add): (.+?) -->\s*$")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence, the text, its line, and the comment just above it."""

    info: tuple[str, ...]
    text: str
    line: int
    directive: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        above = DIRECTIVE.search(text[: match.start()])
        directive = (above[1], *(part for part in above[2].split(" | "))) if above else ()
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(tuple(match[1].split()), match[2], line, directive))
    return found


def python_blocks(page: Path) -> list[Block]:
    return [b for b in blocks(page) if b.info[:1] == ("python",) and "no-run" not in b.info and not b.directive]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def environment(*first: Path) -> dict[str, str]:
    """The environment of a child process that finds this repository's package, one thread, and no terminal."""
    paths = [str(p) for p in first] or [str(ROOT / "src")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def run(arguments: list[str], folder: Path, *paths: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(*paths),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize("page", [p for p in PAGES if p != ADDING and python_blocks(p)], ids=name)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in python_blocks(page):
        # blank lines in front give errors the line numbers of the page
        exec(compile("\n" * block.line + block.text, name(page), "exec"), namespace)


def apply(directive: tuple[str, ...], text: str, root: Path) -> None:
    """Do to a copy of the repository what a block of the page on adding a model says.

    ``file`` writes it; ``add`` makes it the first item of the table that the anchor opens.
    """
    kind, path, text = directive[0], root / directive[1], text.strip()
    if kind == "file":
        assert not path.exists(), f"{path} is there already"
        path.write_text(text + "\n", encoding="utf-8")
        return
    anchor = directive[2]
    code = path.read_text(encoding="utf-8")
    assert code.count(f"\n{anchor}") == 1, f"{directive[1]} has not exactly one line that starts with {anchor!r}"
    before, after = code.split(f"\n{anchor}")
    indent = re.match(r"\s*", after.lstrip("\n"))
    assert indent
    text = anchor + "\n" + textwrap.indent(text + ",", indent[0])
    path.write_text(f"{before}\n{text}{after}", encoding="utf-8")


def test_a_model_is_one_entry_and_files_of_its_own() -> None:
    """The price of entry: nothing that is there is touched but the catalogue."""
    directives = [b.directive for b in blocks(ADDING) if b.directive]
    assert [d[1] for d in directives if d[0] == "add"] == ["src/castalia/catalogue/autoencoders.py"]
    assert all("ppca" in d[1] for d in directives if d[0] == "file")


def test_a_model_is_added_in_ten_minutes(tmp_path: Path) -> None:
    """The page's edits are applied to a copy of the repository; the suite and the page's Python run there."""
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for block in blocks(ADDING):
        if block.directive:
            apply(block.directive, block.text, tmp_path)
    code = "\n".join(b.text for b in python_blocks(ADDING))
    paths = (tmp_path / "src", tmp_path)
    run(["-c", code], tmp_path, *paths)
    run(["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/conformance", "-k", "ppca"], tmp_path, *paths)


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    run([str(example), "--steps", "10", "--out", str(tmp_path / "out")], tmp_path)
    assert any((tmp_path / "out").iterdir())


def commands(page: Path) -> list[tuple[int, str]]:
    """Commands of ``castalia`` in blocks of shell, one per logical line."""
    found = []
    for block in blocks(page):
        if block.info[:1] not in ((), ("console",), ("sh",)):
            continue
        for offset, line in enumerate(block.text.replace("\\\n", " ").splitlines()):
            text = line.strip().removeprefix("$ ")
            text = re.sub(r"^torchrun .*-m (?=castalia )", "", text)
            text = re.sub(r"^(\w+=\S+ )+(?=castalia )", "", text)
            if text == "castalia" or text.startswith("castalia "):
                found.append((block.line + offset + 1, text))
    return found


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=name)
def test_commands_of_a_page_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = make_parser()
    for line, text in commands(page):
        words = shlex.split(text, comments=True)[1:]
        words = words[: next((i for i, w in enumerate(words) if w in ("|", ">", "&&", ";")), len(words))]
        try:
            parser.parse_args(words)
        except SystemExit as stop:
            if stop.code:
                pytest.fail(f"{name(page)}, line {line}: {text}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{name(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """Addresses of a page's headings, as GitHub and MyST make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_map_of_the_tree_names_what_exists() -> None:
    (tree,) = [b for b in blocks(ROOT / "README.md") if b.info[:1] == ("text",) and "src/castalia/" in b.text]
    folders: list[str] = []
    named = 0
    for line in tree.text.splitlines():
        if not line.strip():
            continue
        depth, rest = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders[depth:] = [rest]
        path = ROOT.joinpath(*folders)
        assert path.exists(), f"the map of the README names {path.relative_to(ROOT)}, which does not exist"
        assert not rest.endswith("/") or path.is_dir(), rest
        named += 1
    assert named > 20


def test_pages_do_not_hold_open_placeholders() -> None:
    """Numbers that were to be measured are there."""
    marks = [f"{name(p)}: {m}" for p in PAGES for m in re.findall(r"MEASURE:[^\s|)`]*", p.read_text(encoding="utf-8"))]
    assert not marks, "still to be measured: " + ", ".join(marks)


def test_the_floors_are_those_that_are_held() -> None:
    """What the page draws is what ``lint-imports`` is told."""
    import tomllib

    held = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## The floors")[1].split("```")[1]
    drawn = [re.match(r"\s*(\S+(?:\s*\|\s*\w+)*)", line) for line in page.splitlines()[1:]]
    names = [sorted(re.findall(r"\w+", found[1].replace("castalia.", ""))) for found in drawn if found]
    assert names == [sorted(re.findall(r"\w+", floor.replace("castalia.", ""))) for floor in held["layers"]]


JOBS = ROOT / "docs" / "jobs.md"
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def own_data(folder: Path) -> None:
    """The files that the page of jobs speaks of."""
    import numpy as np
    from PIL import Image
    from scipy.io import wavfile

    random = np.random.default_rng(0)
    for kind, bright in (("dark", 60), ("light", 190)):
        (folder / "my_pictures" / kind).mkdir(parents=True)
        for i in range(150):
            pixels = np.clip(bright + random.normal(0, 25, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "my_pictures" / kind / f"{i:03d}.png")
    for letter in "AB":
        Image.fromarray(random.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{letter}.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[8:] = 255
    Image.fromarray(mask).save(folder / "MASK.png")
    (folder / "my_texts").mkdir()
    for i in range(12):
        (folder / "my_texts" / f"{i}.txt").write_text("It was a dark and stormy night. " * 40)
    (folder / "my_recordings").mkdir()
    for i in range(12):
        wave = np.sin(np.arange(12_000) * (0.05 + 0.01 * i)) * 20_000
        wavfile.write(folder / "my_recordings" / f"{i}.wav", 16_000, wave.astype(np.int16))


def test_jobs_are_done_by_following_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Every command of the page runs, one after another; only the time that it gives a training is cut."""
    from castalia.cli.main import main

    own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = commands(JOBS)
    assert len(re.findall(r"^## ", JOBS.read_text(encoding="utf-8"), re.MULTILINE)) == 25
    assert len(found) >= 25
    for line, text in found:
        if text.startswith("castalia demo"):
            continue  # has a test of its own
        short = re.sub(r"--minutes \d+", "--steps 2 --set training.batch_size=4 --set training.samples=4", text)
        code = main(shlex.split(short)[1:])
        assert code == 0, f"line {line}: {text}\n{capsys.readouterr().err[-2000:]}"
    for made in ("look.png", "out/grid.png", "walk.gif", "filled.png", "report.html", "sounds/grid.png"):
        assert (tmp_path / made).is_file(), made


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells run in order, twice over, as people run them; and a page says that there are four."""
    import json

    assert len(NOTEBOOKS) == 4
    monkeypatch.chdir(tmp_path)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, object] = {}
    for _ in range(2):
        for cell in cells:
            if cell["cell_type"] == "code":
                assert not cell["outputs"]
                exec(compile("".join(cell["source"]), name(notebook), "exec"), namespace)


def test_every_option_of_training_is_on_its_page() -> None:
    from dataclasses import fields

    from castalia.configuration import Budget, Schedule, Training
    from castalia.core.model import Optimizer

    page = (ROOT / "docs" / "training-options.md").read_text(encoding="utf-8")
    sections = dict(zip((Training, Schedule, Optimizer, Budget), page.split("\n## ")[1:], strict=True))
    for kind, text in sections.items():
        assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [f.name for f in fields(kind)]
