"""The command line as a user meets it: shapes that scripts rely on, errors that help, and kill -9."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from castalia import api, checkpoints, listing, recipes
from castalia.catalogue import CATALOGUE
from castalia.cli.main import main
from castalia.cli.parser import make_parser
from castalia.media.image.write import read_recipe
from tests.conformance.test_conformance import equal_runs
from tests.tools import FAMILIES, MODELS

SMALL = ["--steps", "30", "--seed", "1", "--precision", "float32", "--set", "training.batch_size=16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "a"
    assert main(["train", "vae", "--data", "digits", "--out", str(out), *SMALL, "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    data = api.open_data("digits", split="test")
    names = []
    for i in range(3):
        pixels = data.batch(np.array([i])).x[0, 0].numpy()
        Image.fromarray(pixels).resize((50, 40)).convert("RGB").save(folder / f"{i}.png")
        names.append(str(folder / f"{i}.png"))
    return names[0], names[1], names[2]


def castalia(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "castalia", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]


def test_help_is_quick_and_complete() -> None:
    times = []
    for _ in range(3):  # processor time: how long a person waits depends on who else uses the machine
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = castalia("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0
    for verb in ("models", "data", "train", "sample", "edit", "evaluate", "export", "import", "demo", "doctor"):
        assert verb in done.stdout
    assert min(times) < 0.5
    heavy = "import sys; from castalia.cli.main import main; main(['train', '--help']); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
    assert out.endswith("False\n"), "--help imports torch"


def test_options_are_frozen() -> None:
    """A new idea is a new field of a recipe, reached by --set; a new option needs a reason and a change here."""
    parser = make_parser()
    (verbs,) = (a for a in parser._actions if a.dest == "verb")
    train = verbs.choices["train"]  # type: ignore[index]
    options = {s for a in train._actions for s in a.option_strings if s.startswith("--")}
    assert options == {
        *("--help", "--data", "--recipe", "--out", "--size", "--steps", "--minutes", "--seed", "--precision"),
        *("--on-bad-file", "--set", "--start", "--resume", "--shard", "--quiet", "--classes", "--no-classes"),
        "--parent",  # some systems cannot begin without another run, and no field of a recipe's parts can name one
        "--tensor",  # how processes share a run, as --shard: no matter of its recipe
    }


def test_models_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    (vae,) = (m for m in json.loads(capsys.readouterr().out) if m["name"] == "vae")
    assert vae.keys() >= {"name", "family", "media", "paper", "capabilities"}
    assert "vae-mnist" in vae["recipes"]
    assert vae["default"]["mnist"] == "vae-mnist"
    assert vae["demo"] == "vae-digits"
    assert vae["expected"]["vae-mnist"][0].keys() == {"metric", "at_most", "published", "minutes"}
    assert main(["models", "vae", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == vae


def test_every_system_has_a_page() -> None:
    for name in MODELS:
        page = Path(__file__).parents[2] / listing.page(name)
        assert page.is_file(), f"{page} is missing: a system has a page of its own"


def test_models_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in MODELS] == list(CATALOGUE)
    assert main(["models", "gan"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("Goodfellow", "dcgan-mnist for mnist", "pacgan-grid for points:*", "gan.md"))
    assert main(["models", "gna"]) == 2
    assert "'gan'" in capsys.readouterr().err


def test_sample(run: Path, tmp_path: Path) -> None:
    assert main(["sample", str(run), "-n", "5", "--seed", "7", "--out", str(tmp_path / "out")]) == 0
    names = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert names == ["0000.png", "0001.png", "0002.png", "0003.png", "0004.png", "grid.png"]
    first = np.asarray(Image.open(tmp_path / "out" / "0003.png"))
    assert first.shape == (8, 8)
    recipe = read_recipe(tmp_path / "out" / "0003.png")
    assert recipe["model"] == "vae"
    assert recipe["seed"] == 7
    assert recipe["index"] == 3
    assert recipe == json.loads((tmp_path / "out" / "0003.json").read_text())
    assert main(["sample", str(run), "-n", "1", "--start", "3", "--seed", "7", "--out", str(tmp_path / "one")]) == 0
    again = np.asarray(Image.open(tmp_path / "one" / "0003.png"))
    assert np.abs(first.astype(int) - again.astype(int)).max() <= 1


def test_evaluate_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(run), "--split", "test", "--limit", "50", "--samples", "20", "--json"]
    assert main(arguments) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    for metric in metrics.values():
        assert metric.keys() >= {"value", "unit", "kind", "n", "seed", "interval"}
    assert metrics["nll"]["n"] == 50
    assert "K = 20" in metrics["nll"]["kind"]
    assert json.loads((run / "results.json").read_text())["metrics"]["nll"] == metrics["nll"]
    assert "nll" in (run / "README.md").read_text()


def test_a_set_too_small_for_samples(
    run: Path, pictures: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be measured is; samples only where somebody insists, and then it is said how to leave them out."""
    few = [str(run), "--data", str(Path(pictures[0]).parent), "--split", "all", "--samples", "2"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["evaluate", *few, "--json"]) == 0
    told = capsys.readouterr()
    assert re.search(r"Samples were not measured.* 1000, .* and 3\..*--drawn 0", told.err)
    metrics = json.loads(told.out)["metrics"]
    assert metrics["nll"]["n"] == 3
    assert "frechet" not in metrics
    assert main(["evaluate", *few, "--drawn", "40"]) == 2
    assert "--drawn 0" in capsys.readouterr().err
    assert main(["evaluate", *few, "--drawn", "0", "--json"]) == 0


EDITS = {
    "interpolate.gif": ["interpolate", "--from", "{0}", "--to", "{1}", "--frames", "5"],
    "interpolate.mp4": ["interpolate", "--from", "{0}", "--to", "{1}", "--frames", "5", "--how", "linear"],
    "walk.webp": ["walk", "--points", "3", "--frames", "6"],
    "fitted.gif": ["walk", "--points", "3", "--frames", "6", "--prior", "fitted"],
    "pairs.png": ["reconstruct", "{0}", "{1}"],
    "traverse.png": ["traverse", "--of", "{0}", "--frames", "5"],
    "traverse.gif": ["traverse", "--dims", "0,3", "--frames", "5"],
    "arithmetic.png": ["arithmetic", "--a", "{0}", "--b", "{1}", "--c", "{2}"],
    "attribute.png": ["attribute", "--of", "{0}", "--add", "7", "--frames", "3"],
    "map.png": ["map", "--cells", "4"],
}


@pytest.mark.parametrize("name", EDITS)
def test_edit(name: str, run: Path, pictures: tuple[str, str, str], tmp_path: Path) -> None:
    if name.endswith(".mp4"):
        pytest.importorskip("av", reason="writing MP4 needs castalia[video]")
    verb, *rest = (part.format(*pictures) for part in EDITS[name])
    positional = [r for r in rest if not r.startswith("--")] if verb == "reconstruct" else []
    options = [] if positional else rest
    assert main(["edit", verb, str(run), *positional, *options, "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / name).stat().st_size > 100
    if not name.endswith(".mp4"):
        with Image.open(tmp_path / name) as picture:
            picture.load()
            assert picture.width > 8


def test_export_and_import(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--out", str(tmp_path / "folder")]) == 0
    assert main(["import", str(tmp_path / "folder"), "--out", str(tmp_path / "run")]) == 0
    for source, out in ((run, "a"), (tmp_path / "run", "b")):
        assert main(["sample", str(source), "-n", "2", "--out", str(tmp_path / out)]) == 0
    assert (tmp_path / "a" / "0001.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.array_equal(Image.open(tmp_path / "a" / "0001.png"), Image.open(tmp_path / "b" / "0001.png"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trian"], 2, "Did you mean 'train'?"),
        (["train", "vea", "--data", "digits", "--out", "{tmp}/x"], 2, "Did you mean 'vae'"),
        (["train", "vae", "--data", "mnits", "--out", "{tmp}/x"], 2, "Did you mean 'mnist'"),
        (["train", "vae", "--data", "digits", "--recipe", "vae-digit", "--out", "{tmp}/x"], 2, "vae-digits"),
        (["train", "vae", "--data", "digits", "--stesp", "3", "--out", "{tmp}/x"], 2, "'--steps'"),
        (["train", "vae", "--data", "digits", "--out", "{tmp}/x", "--set", "training.lrr=1"], 2, "lr"),
        (["train", "vae", "--data", "digits", "--out", "{tmp}/x", "--set", "config.widths=5"], 2, "expected a list"),
        (["train", "vae", "--data", "digits", "--out", "{tmp}/x", "--set", "config.beta=-1"], 2, "not be negative"),
        (
            ["train", "vae", "--data", "digits", "--out", "{tmp}/x", "--set", "nothing"],
            2,
            "config., data. or training.",
        ),
        (["train", "vae", "--out", "{tmp}/x"], 2, "--data"),
        (["train", "--out", "{tmp}/x"], 2, "which model"),
        (["train", "vae", "--data", "digits", "--out", "{run}"], 2, "--resume"),
        (["train", "vae", "--data", "{tmp}/nowhere", "--out", "{tmp}/x"], 2, "nowhere"),
        (["sample", "{tmp}", "--out", "{tmp}/y"], 1, "is not a run"),
        (["sample", "{tmp}/none", "--out", "{tmp}/y"], 1, "no run at"),
        (["sample", "{run}", "-n", "0", "--out", "{tmp}/y"], 2, "at least 1"),
        (["edit", "interpolate", "{run}", "--from", "no.png", "--to", "no.png", "--out", "{tmp}/w.gif"], 2, "no.png"),
        (["edit", "walk", "{run}", "--out", "{tmp}/w.avi"], 2, ".gif"),
        (["edit", "traverse", "{run}", "--dims", "0,99", "--out", "{tmp}/w.png"], 2, "99"),
        (["edit", "attribute", "{run}", "--of", "{file}", "--add", "x", "--out", "{tmp}/w.png"], 1, "notes.txt"),
        (["edit", "walk", "{run}", "--out", "{tmp}/nowhere/w.gif"], 2, "does not exist"),
        (["evaluate", "{run}", "--split", "tset"], 2, "test"),
        (["export", "{run}"], 2, "--out"),
        (["sample", "{run}", "--temperature", "nan", "--out", "{tmp}/y"], 2, "finite"),
        (["sample", "{run}", "--start", "-5", "--out", "{tmp}/y"], 2, "at least 0"),
        (["sample", "{run}", "--out", ""], 2, "empty"),
        (["demo", "--minutes", "nan"], 2, "finite"),
        (["train", "vae", "--data", "digits", "--out", "{tmp}/x", "--set", "training.threads=1000"], 2, "cores"),
        (["train", "vae", "--data", "digits", "--out", "{tmp}/x", "--set", "training.optimizer.lr=-1"], 2, "positive"),
        (["train", "vae", "--data", "digits", "--out", "{tmp}/x", "--set", "training.schedule.warmup=-5"], 2, "warmup"),
        (["train", "vae", "--data", "digits", "--out", "{tmp}/x", "--set", "config.hidden=2000000000"], 1, "memory"),
    ],
)
def test_errors_help(
    arguments: list[str], code: int, says: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    names = {"tmp": str(tmp_path), "run": str(run), "file": str(tmp_path / "notes.txt")}
    assert main([a.format(**names) for a in arguments]) == code
    told = capsys.readouterr().err
    assert says in told
    assert "Traceback" not in told


def test_a_folder_with_broken_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named in the error; skipped and counted when asked; training then works on pictures of mixed sizes."""
    folder = tmp_path / "mine"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        size = (20 + i, 30, 3)
        Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:200])
    (folder / "broken.jpg").write_text("hello")
    train = ["train", "vae", "--data", str(folder), "--size", "16", "--steps", "2", "--quiet", "--set"]
    train += ["training.batch_size=4", "--set", "config.widths=[8,8]", "--set", "config.hidden=16"]
    assert main([*train, "--out", str(tmp_path / "run")]) == 1
    assert "broken.jpg" in capsys.readouterr().err
    assert main([*train, "--out", str(tmp_path / "run"), "--on-bad-file", "skip"]) == 0
    assert main(["data", str(folder), "--size", "16", "--on-bad-file", "skip", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["examples"] == 23
    assert any("2" in note and "broken.jpg" in note for note in report["notes"])


@pytest.mark.parametrize("name", FAMILIES)
def test_kill_at_random_moments(name: str, tmp_path: Path) -> None:
    """kill -9 and SIGTERM at random moments: the end is bit for bit that of an uninterrupted run."""
    arguments = [
        "train",
        name,
        "--recipe",
        recipes.of(name).tiny,
        "--precision",
        "float32",
        "--seed",
        "3",
        "--steps",
        "170",
    ]
    arguments += ["--set", "training.batch_size=32", "--set", "training.checkpoint_every=17"]
    arguments += ["--set", "training.log_every=11", "--set", "training.threads=1"]
    straight = tmp_path / "straight"
    assert castalia(*arguments, "--out", str(straight)).returncode == 0
    shaken = tmp_path / "shaken"
    dice = random.Random(os.environ.get("CASTALIA_KILL_SEED", "7"))
    command = [sys.executable, "-m", "castalia", *arguments, "--out", str(shaken), "--resume"]
    codes = []
    for number in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        folder, started = shaken / "checkpoints", time.monotonic()
        before = set(folder.glob("step-*")) if folder.exists() else set()
        # wait until it trains, then a little longer; the first kill comes at any moment of the start
        while process.poll() is None and number and time.monotonic() - started < 60:
            if folder.exists() and set(folder.glob("step-*")) - before:
                break
            time.sleep(0.005)
        time.sleep(dice.uniform(0.0, 2.0 if not number else 0.25))
        process.send_signal(signal.SIGTERM if number == 2 else signal.SIGKILL)
        codes.append(process.wait(60))
    assert castalia(*arguments, "--out", str(shaken), "--resume").returncode == 0
    assert -signal.SIGKILL in codes
    assert codes[2] in (143, 0, -signal.SIGTERM)
    equal_runs(api.load(straight), api.load(shaken))
    assert not list((shaken / "checkpoints").glob(".tmp-*"))
    assert checkpoints.damaged(shaken / "checkpoints") == []


def test_python_interface_is_lazy() -> None:
    code = "import sys, castalia; assert 'torch' not in sys.modules; print(castalia.__version__)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_doctor_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert "works" in report["checks"]["one training step"]


ONE_OF_TWO = """
import atexit, sys
from castalia.cli.main import main
class Last:
    def __del__(self): print("taken apart")
last = Last()
atexit.register(lambda: print("at exit"))
sys.argv = ["castalia", *sys.argv[1:]]
sys.exit(main())
"""


@pytest.mark.parametrize(("size", "apart"), [("1", True), ("2", False)])
def test_one_of_several_processes_ends_without_taking_itself_apart(size: str, apart: bool) -> None:
    """A thread of the process group that wants Python's lock at that moment would abort it."""
    for arguments, code in ((["models"], 0), (["data", "nowhere"], 2)):
        command = [sys.executable, "-c", ONE_OF_TWO, *arguments]
        done = subprocess.run(command, env=os.environ | {"WORLD_SIZE": size}, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert done.stdout.count("at exit") == 1
        assert ("taken apart" in done.stdout) == apart


def test_a_process_of_its_own_that_computes_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is kept, and threads are counted except where each training counts its own."""
    kept: list[str] = []
    counted: list[str] = []
    for words in (["evaluate", "nowhere"], ["train", "vae", "--data", "nowhere", "--out", "nowhere"], ["models"]):
        monkeypatch.setattr("castalia.core.memory.keep_memory", lambda verb=words[0]: kept.append(verb))
        monkeypatch.setattr("castalia.core.threads.use_free_threads", lambda verb=words[0]: counted.append(verb))
        monkeypatch.setattr(sys, "argv", ["castalia", *words])
        main()
    assert (kept, counted) == (["evaluate", "train"], ["evaluate"])
    main(["evaluate", "nowhere"])  # in somebody else's process
    assert (kept, counted) == (["evaluate", "train"], ["evaluate"])
