"""What is imported lies in ranges that can be computed with, and what strangers name is shown escaped."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import castalia
from castalia import card
from castalia.catalogue import entry
from castalia.cli.main import main
from castalia.configuration import Training, spec_from_json
from castalia.core.config import from_json
from castalia.core.errors import DataError, RunError, UsageError, shown
from castalia.core.files import sha256
from castalia.core.specs.audio import AudioSpec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.core.specs.text import TextSpec
from castalia.interop.folder import export_folder, import_folder
from castalia.interop.target import new_folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranges")
    settings = ["training.threads=1", "training.precision=float32", "config.widths=[8]", "config.latent_dims=2"]
    run = castalia.train("vae", "digits", folder / "run", steps=1, quiet=True, settings=settings)
    return export_folder(run, folder / "export")


@pytest.fixture
def tree(tmp_path):
    from PIL import Image

    def run(names):
        for name in names:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "set" / name)
        return tmp_path / "set"

    return run


def changed(exported, tmp_path, change):
    """A copy with another configuration, whose hashes are right."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in exported.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    data = json.loads((copy / "config.json").read_text())
    change(data)
    data.pop("sha256", None)
    (copy / "config.json").write_text(json.dumps(data))
    sign(copy)
    return copy


def sign(folder):
    names = ("config.json", "model.safetensors", "metrics.json")
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(folder / n)}  {n}\n" for n in names))


@pytest.mark.parametrize("height", [0, -1, 10**23, 40_000])
def test_sizes_of_pictures_that_there_are_not(exported, tmp_path, height):
    copy = changed(exported, tmp_path, lambda data: data["spec"].update(height=height))
    with pytest.raises(RunError, match=r"height must be 1 to 32,768|beyond 1e\+18"):
        import_folder(copy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_that_overflow(exported, tmp_path):
    copy = changed(exported, tmp_path, lambda data: data["recipe"]["config"].update(beta=1e308))
    with pytest.raises(RunError, match=r"beta: a number beyond 1e\+18"):
        import_folder(copy, tmp_path / "run")


def test_sizes_of_all_specs():
    for kind, good in (
        (ImageSpec, (3, 4, 4)),
        (PointsSpec, (2,)),
        (TextSpec, ("bytes", 257, 8)),
        (AudioSpec, (8000, 1, 100)),
    ):
        assert kind(*good)
        with pytest.raises(ValueError, match="must be 1 to"):
            kind(*(0 if type(v) is int else v for v in good))
    with pytest.raises(UsageError, match="dims must be 1 to"):
        spec_from_json({"medium": "points", "dims": 10**12})


def test_batches_and_tables_that_no_memory_holds():
    with pytest.raises(UsageError, match="batch_size and samples are at most"):
        from_json(Training, {"batch_size": 10**12})
    with pytest.raises(UsageError, match="timesteps must be 2 to 100,000"):
        from_json(entry("ddpm").load().Config, {"timesteps": 60_000_000})


def test_weights_that_are_not_finite_are_refused(exported, tmp_path):
    from castalia.core.weights import load_tensors, save_tensors

    copy = changed(exported, tmp_path, lambda data: None)
    tensors, metadata = load_tensors(copy / "model.safetensors")
    name = next(n for n, t in tensors.items() if t.is_floating_point() and "weight" in n)
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] = torch.nan
    save_tensors(copy / "model.safetensors", tensors, {k: v for k, v in metadata.items() if "sha256" not in k})
    sign(copy)
    with pytest.raises(RunError, match="not finite numbers"):
        import_folder(copy, tmp_path / "run")


# Names


def test_what_a_stranger_names_is_shown_escaped():
    assert shown("a\x1b[2Jb\x9bc\u202ed") == r"a\x1b[2Jb\x9bc\u202ed"
    assert shown("größe 図\n") == "größe 図\n"
    assert str(DataError("a\x1b]0;x\x07")) == r"a\x1b]0;x\x07"


def test_json_and_terminal_show_no_escape_sequences(tree, capsys):
    root = str(tree({"a\x9b31m/1.png": None, "b\x1b[2J/2.png": None}))
    assert main(["data", root, "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["spec"]["classes"] == ["a\x9b31m", "b\x1b[2J"]
    assert not {"\x9b", "\x1b"} & set(out)
    assert main(["data", root]) == 0
    assert not {"\x9b", "\x1b"} & set(capsys.readouterr().out)


def test_the_card_holds_no_markup_of_strangers(exported, tmp_path):
    def change(data):
        data["recipe"]["data"]["source"] = "<script>x</script>`![](http://x)\n# y"

    run = import_folder(changed(exported, tmp_path, change), tmp_path / "run")
    text = card.text(run)
    assert text.splitlines()[0].endswith(r"trained on &lt;script&gt;x&lt;/script&gt;\`\!\[\](http://x) \# y")
    line = next(line for line in text.splitlines() if line.startswith("- data"))
    assert line.startswith("- data: `<script>x</script>![](http://x) # y`")  # code: shown as it is
    assert "\n# y" not in text


# Paths that cannot be


@pytest.mark.parametrize("path", ["~nosuchuser/x", "x" * 300, "a\udcff"])
@pytest.mark.parametrize(
    "words",
    [
        ["data", "PATH"],
        ["sample", "PATH", "--out", "o"],
        ["train", "vae", "--data", "digits", "--steps", "1", "--out", "PATH/y"],
    ],
)
def test_paths_that_cannot_be_are_no_tracebacks(tmp_path, monkeypatch, capsys, path, words):
    monkeypatch.chdir(tmp_path)
    if path.startswith("~") and words[0] == "train":
        return  # a folder of that name can be made
    code = main([word.replace("PATH", path) for word in words])
    if path != "a\udcff" or words[0] != "train":
        assert code in (1, 2)
        assert capsys.readouterr().err.startswith("castalia: ")


def test_leftovers_of_a_killed_import_are_removed_by_the_next(tmp_path):
    code = (
        "import sys, os, pathlib; from castalia.interop.target import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1])) as folder:\n    (folder / 'a').write_text('x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with new_folder(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == ["out"]
