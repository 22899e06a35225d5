"""Edits: forms that are there at once, what is written, and what is said to runs that do not fit."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from castalia import api, editing, verbs
from castalia.cli.main import main
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.creative import table
from castalia.creative.edit import Edit, Film, Grid, One, Page, Work, option, options_of
from castalia.creative.edits import redraw, walk
from castalia.creative.edits.outpaint import windows
from castalia.media.image.write import read_recipe
from castalia.segmenters import segmenter_of
from castalia.training.loop import train
from tests.tools import small_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for name in ("vae", "gan", "ddpm", "pixelcnn"):
        recipe = small_recipe(name, steps=40 if name == "ddpm" else 4)  # its last layers start at zero
        made[name] = str(train(recipe, api.training_data(recipe), folder / name, quiet=True).path)
    for name in ("gan", "ddpm"):
        made[f"{name}-points"] = str(api.train(name, "ring-8", folder / f"{name}-points", steps=2, quiet=True).path)
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A digit, and a mask that is white in its left half."""
    folder = tmp_path_factory.mktemp("pictures")
    x = api.open_data("digits", split="test").batch(np.array([0])).x[0, 0].numpy()
    Image.fromarray(x).save(folder / "a.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return str(folder / "a.png"), str(folder / "mask.png")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


# forms


@pytest.mark.parametrize("words", ["", "edit", "edit redraw", "edit walk"])
def test_forms_are_there_at_once(words: str) -> None:
    code = (
        "import sys; from castalia.cli.main import main\n"
        f"main({[*words.split(), '--help']})\n"
        "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert out.endswith("[]\n"), "a form imports something heavy"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    if words == "edit":
        assert all(f"    {name}" in out for name in table.EDITS)


def test_an_edit_is_a_file_and_a_line() -> None:
    files = {p.stem for p in Path(walk.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(table.EDITS)
    for edit in table.all_edits():
        assert edit_name(edit) == edit.name
        options = options_of(edit)
        flags = [o.flag for o in options if o.flag]
        assert len(set(flags)) == len(flags)
        assert all(o.help or o.metavar for o in options)
        assert edit.options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="'redraw'"):
        table.edit_of("redarw")


def edit_name(edit: Edit) -> str:
    return edit.run.__module__.rsplit(".", 1)[-1]


def test_options_describe_themselves() -> None:
    found = {o.name: o for o in options_of(redraw.EDIT)}
    assert (found["of"].example, found["of"].required, found["of"].flag) == (True, True, "--of")
    assert (found["mask"].mask, found["mask"].default) == (True, None)
    assert (found["n"].flag, found["n"].kind, found["n"].least) == ("-n", int, 1)
    assert (found["settings"].flag, found["settings"].several) == ("--set", True)
    assert found["precision"].choices == ("auto", "float32", "bfloat16")
    assert found["beside"].kind is bool
    (many,) = options_of(table.edit_of("reconstruct"))
    assert (many.flag, many.several, many.example) == ("", True, True)


@dataclass(frozen=True, kw_only=True)
class MirrorOptions:
    of: str = option(help="what is mirrored", example=True)
    times: int = option(1, "how often", least=1)


def mirror(work: Work, options: MirrorOptions) -> One | Film:
    x = work.examples([options.of]).x
    one = Batch.of(x.flip(-1) if options.times % 2 else x)
    return One(one, {"mirrored": options.times})


def test_a_new_edit_needs_nothing_else(
    runs: dict[str, str], pictures: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ModuleType("castalia.creative.edits.mirror")
    made.EDIT = Edit("mirror", "Mirror it.", "FILE.png", MirrorOptions, mirror)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(table, "EDITS", (*table.EDITS, "mirror"))
    out = tmp_path / "m.png"
    assert main(["edit", "mirror", runs["gan"], "--of", pictures[0], "--out", str(out)]) == 0
    assert np.array_equal(pixels(out), pixels(Path(pictures[0]))[:, ::-1])
    assert read_recipe(out)["mirrored"] == 1
    assert read_recipe(out)["edit"]["times"] == 1
    assert main(["edit", "mirror", runs["gan"], "--of", pictures[0], "--times", "0", "--out", str(out)]) == 2


# what is written


def test_upscaled_pictures(pictures: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = small_recipe("cascade", steps=4)
    run = str(train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True).path)
    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5) * 16).save(tmp_path / "small.png")
    command = ["edit", "upscale", run, "--of", str(tmp_path / "small.png"), "--set", "upsample_steps=2"]
    alone, three = tmp_path / "alone.png", tmp_path / "three"
    assert main([*command, "--out", str(alone)]) == 0
    assert pixels(alone).shape == (6, 10)
    assert main([*command, "-n", "3", "--beside", "--out", str(three)]) == 0
    names = sorted(three.glob("*.png"))
    assert len(names) == 3, "what was given is not among what is made"
    assert np.array_equal(pixels(names[0]), pixels(alone))
    assert not np.array_equal(pixels(names[1]), pixels(alone))
    product = editing.edit(run, "upscale", of=str(tmp_path / "small.png"), n=1, beside=True, settings=["level=0.05"])
    assert isinstance(product, Grid)
    assert product.examples.x.shape == (2, 1, 6, 10)
    Image.fromarray(np.zeros((600, 500), np.uint8)).save(tmp_path / "large.png")
    assert main(["edit", "upscale", run, "--of", str(tmp_path / "large.png"), "--out", str(alone)]) == 2
    assert "1000x1200 pixels" in capsys.readouterr().err


def test_examples_taken_back_to_their_noise(runs: dict[str, str], pictures: tuple[str, str]) -> None:
    """As what it was an example comes back, as another class it does not; guidance acts on what is asked for only."""
    asked = {"of": (pictures[0],), "was": "0", "settings": ["steps=12"]}
    kept = editing.edit(runs["ddpm"], "invert", **asked)
    other = editing.edit(runs["ddpm"], "invert", label="7", **asked)
    led = editing.edit(runs["ddpm"], "invert", label="7", **{**asked, "settings": ["steps=12", "guidance=4"]})
    assert isinstance(kept, Grid)
    assert isinstance(other, Grid)
    assert isinstance(led, Grid)
    given, back, made = kept.examples.x
    assert (back.double() - given.double()).abs().mean() < 12
    assert torch.equal(back, made)
    assert torch.equal(other.examples.x[1], back)
    assert torch.equal(led.examples.x[1], back)
    assert not torch.equal(other.examples.x[2], back)
    assert not torch.equal(led.examples.x[2], other.examples.x[2])
    with pytest.raises(UsageError, match="strength"):
        editing.edit(runs["ddpm"], "invert", strength=0.0, **asked)


def test_continued_pictures(runs: dict[str, str], pictures: tuple[str, str], tmp_path: Path) -> None:
    """What was given stands where it should; versions do not depend on how many there are."""
    command = ["edit", "outpaint", runs["ddpm"], "--of", pictures[0], "--set", "steps=2", "--seed", "4"]
    around = ["--left", "3", "--right", "9", "--down", "1"]
    assert main([*command, *around, "--out", str(tmp_path / "one.png")]) == 0
    assert main([*command, *around, "-n", "2", "--out", str(tmp_path / "two")]) == 0
    one, given = pixels(tmp_path / "one.png"), pixels(Path(pictures[0]))
    assert one.shape == (9, 20)
    assert np.array_equal(one[:8, 3:11], given)
    assert (one[:, 11:].astype(int) != 0).any()
    first, second = (pixels(tmp_path / "two" / f"000{i}.png") for i in range(2))
    assert np.array_equal(first, one)
    assert not np.array_equal(second, one)
    assert main([*command, "--out", str(tmp_path / "none.png")]) == 2


@pytest.mark.parametrize(
    ("canvas", "start"), [((8, 8), (0, 0)), ((9, 20), (0, 3)), ((30, 8), (22, 0)), ((31, 33), (7, 5))]
)
def test_windows_cover_a_canvas_and_see_what_is_there(canvas: tuple[int, int], start: tuple[int, int]) -> None:
    known, found = np.zeros(canvas, bool), windows(canvas, (8, 8), start)
    assert found[0] == start
    for number, (y, x) in enumerate(found):
        part = known[y : y + 8, x : x + 8]
        assert part.shape == (8, 8)
        assert part.mean() >= 0.25 or not number, "a corner sees a quarter, an edge a half"
        part[:] = True
    assert known.all()


def test_a_single_redrawn_picture_is_written_alone(
    runs: dict[str, str], pictures: tuple[str, str], tmp_path: Path
) -> None:
    command = ["edit", "redraw", runs["ddpm"], "--of", pictures[0], "--mask", pictures[1], "--set", "steps=3"]
    alone, beside, three = (tmp_path / f"{name}.png" for name in ("alone", "beside", "three"))
    assert main([*command, "-n", "1", "--out", str(alone)]) == 0
    assert main([*command, "-n", "1", "--beside", "--out", str(beside)]) == 0
    assert main([*command, "-n", "3", "--out", str(three)]) == 0
    original, found = pixels(Path(pictures[0])), pixels(alone)
    assert found.shape == (8, 8)
    assert np.array_equal(found[:, 4:], original[:, 4:]), "what the mask keeps is kept bit for bit"
    assert not np.array_equal(found[:, :4], original[:, :4])
    assert read_recipe(alone)["precision"] == "float32"
    assert json.loads(alone.with_suffix(".json").read_text())["edit"]["n"] == 1
    assert pixels(beside).shape[1] > pixels(beside).shape[0], "two side by side"
    assert pixels(three).shape[0] == pixels(three).shape[1], "the original and three, in a square"
    # version i is the same however many there are, and a folder holds versions only
    assert main([*command, "-n", "3", "--out", str(tmp_path / "folder")]) == 0
    names = sorted(p.name for p in (tmp_path / "folder").glob("*.png"))
    assert names == ["0000.png", "0001.png", "0002.png"]
    assert np.array_equal(pixels(tmp_path / "folder" / "0000.png"), found)
    product = editing.edit(runs["ddpm"], "redraw", of=pictures[0], mask=pictures[1], settings=["steps=3"], n=1)
    assert isinstance(product, One)
    assert np.array_equal(product.examples.x[0, 0].numpy(), found)


def test_a_picture_is_continued(runs: dict[str, str], pictures: tuple[str, str], tmp_path: Path) -> None:
    command = ["edit", "complete", runs["pixelcnn"], "--of", pictures[0], "--label", "3"]
    alone, three = tmp_path / "alone.png", tmp_path / "three.png"
    assert main([*command, "--rows", "5", "-n", "1", "--out", str(alone)]) == 0
    assert main([*command, "-n", "3", "--seed", "2", "--out", str(three)]) == 0
    original, found = pixels(Path(pictures[0])), pixels(alone)
    assert np.array_equal(found[:5], original[:5])
    assert not np.array_equal(found[5:], original[5:])
    assert pixels(three).shape[0] == pixels(three).shape[1], "the original and three, in a square"
    product = editing.edit(runs["pixelcnn"], "complete", of=pictures[0], label="3", rows=5.0, n=1)
    assert isinstance(product, One)
    assert np.array_equal(product.examples.x[0, 0].numpy(), found)
    # the same by sampling with a prompt
    typed = ["sample", runs["pixelcnn"], "-n", "1", "--prompt", f"@{pictures[0]}", "--label", "3", "--set", "rows=5"]
    assert main([*typed, "--out", str(tmp_path / "sampled")]) == 0
    assert np.array_equal(pixels(tmp_path / "sampled" / "0000.png"), found)


def test_points_are_edited_too(runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gan, ddpm = runs["gan-points"], runs["ddpm-points"]
    assert main(["edit", "walk", gan, "--points", "3", "--frames", "5", "--out", str(tmp_path / "walk.png")]) == 0
    assert pixels(tmp_path / "walk.png").ndim >= 2
    assert main(["edit", "traverse", gan, "--dims", "0,1", "--frames", "4", "--out", str(tmp_path / "moved")]) == 0
    assert len(api.open_data(str(tmp_path / "moved" / "points.csv"))) == 8
    command = ["edit", "redraw", ddpm, "--of", "0.5,0.5", "-n", "4", "--set", "steps=2", "--strength", "0.5"]
    assert main([*command, "--out", str(tmp_path / "new.csv")]) == 0
    found = api.open_data(str(tmp_path / "new.csv")).batch(np.arange(5))
    assert found.x[0].tolist() == [0.5, 0.5], "a single file of points has all of them"
    assert json.loads((tmp_path / "new.json").read_text())["model"] == "ddpm"
    for out, words in (("x.gif", "FILE.png"), ("x.png", "")):
        assert (main(["edit", "walk", gan, "--frames", "3", "--out", str(tmp_path / out)]) == 2) == bool(words)
        assert words in capsys.readouterr().err
    assert main([*command[:4], "1,2,3", "--out", str(tmp_path / "no.csv")]) == 2
    assert "not a point of 2" in capsys.readouterr().err
    assert main([*command, "--mask", "mask.png", "--out", str(tmp_path / "no.csv")]) == 2
    assert "makes none" in capsys.readouterr().err


def test_films_and_their_stills(runs: dict[str, str], pictures: tuple[str, str], tmp_path: Path) -> None:
    product = editing.edit(runs["vae"], "traverse", of=pictures[0], frames=3, dims="0,1")
    assert isinstance(product, Film)
    assert product.frames.x.shape == (3, 1, 8, 16)
    assert product.still is not None
    assert product.still.examples.x.shape == (6, 1, 8, 8)
    run = api.load(runs["vae"])
    editing.write(product, run.spec, tmp_path / "frames")
    assert len(list((tmp_path / "frames").iterdir())) == 6
    pairs = editing.edit(run, "reconstruct", pictures=[pictures[0], pictures[0]])
    assert isinstance(pairs, Grid)
    editing.write(pairs, run.spec, tmp_path / "rebuilt")
    assert len(list((tmp_path / "rebuilt").iterdir())) == 2, "originals are there already"


def test_dreams(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path / "cache"))
    large = np.random.default_rng(0).integers(60, 200, (30, 47), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    of, out = ["--of", str(tmp_path / "large.png")], tmp_path / "d.png"
    short = ["--iterations", "3", "--jitter", "2", "--octaves", "2"]

    assert main(["edit", "dream", runs["gan"], *of, *short, "--out", str(out)]) == 0
    told = read_recipe(out)
    assert pixels(out).shape == (30, 47), "a picture of any size keeps it"
    assert told["network"] == "critic"
    assert [o["size"] for o in told["octaves"]] == [[21, 34], [30, 47]]
    assert all(o["after"] > o["before"] for o in told["octaves"])
    change = np.abs(pixels(out).astype(float) - large)
    assert 0.5 < change.mean() < 2 * 3 * 1.5

    # noise of the run's own size; a layer by the end of its name; one unit; another run's network
    assert main(["edit", "dream", runs["gan"], *short, "--layer", "0", "--unit", "1", "--out", str(out)]) == 0
    assert pixels(out).shape == (8, 8)
    assert main(["edit", "dream", runs["pixelcnn"], *of, *short, "--network", runs["vae"], "--out", str(out)]) == 0
    assert read_recipe(out)["network"] == "vae:encoder"
    # what looks at no pictures itself dreams with the features of its data
    assert main(["edit", "dream", runs["pixelcnn"], *of, *short, "--size", "20", "--out", str(out)]) == 0
    assert read_recipe(out)["network"] == "features"
    assert pixels(out).shape == (13, 20)
    # a film, and a guide
    film = ["--frames", "3", "--guide", str(tmp_path / "large.png"), "--out"]
    assert main(["edit", "dream", runs["vae"], *short, *film, str(tmp_path / "film.gif")]) == 0
    with Image.open(tmp_path / "film.gif") as moving:
        assert moving.n_frames == 3  # type: ignore[attr-defined]
    assert main(["edit", "dream", runs["vae"], *short, *film, str(tmp_path / "strip.png")]) == 0
    assert pixels(tmp_path / "strip.png").shape == (96, 288)

    (tmp_path / "net.onnx").write_bytes(b"")
    capsys.readouterr()
    for words, told in {
        "--layer list": "layers.0: ",
        "--layer layers.99": "Did you mean",
        "--layer layers.0 --unit 9999": "has the units 0 to",
        "--scale 1": "scale must be above 1",
        "--network critics": "'critic'",
        f"--network {runs['ddpm']}": "no network that looks",
        f"--network {tmp_path / 'net.onnx'}": "needs gradients",
        "--of no.png": "There is no file no.png",
        f"--unit 0 --guide {tmp_path / 'large.png'}": "--guide is about all units",
        "--frames 2 --zoom 1": "zoom lies between",
        "--zoom -0.1": "zoom lies between",
    }.items():
        assert main(["edit", "dream", runs["gan"], *words.split(), "--out", str(tmp_path / "no.png")]) == 2, words
        assert told in capsys.readouterr().err, words
    assert not (tmp_path / "no.png").exists()


def test_dissection(runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, told = tmp_path / "units.html", tmp_path / "units.json"
    command = ["edit", "dissect", runs["gan"], "-n", "40", "--out", str(out)]
    assert main([*command, "--classes", "--cause", "bright", "--most", "3"]) == 0
    page, numbers = out.read_text(), json.loads(told.read_text())
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "What causes bright" in page
    units = numbers["units"]
    assert page.count("data:image/png") == min(len(units), 40) + 1
    assert {"dark", "bright", "edge", "top", "9"} <= set(numbers["concepts"])
    assert sum(numbers["concepts"][str(digit)] for digit in range(10)) == pytest.approx(1, abs=0.7)
    assert len(numbers["causes"]["units"]) <= 3
    assert numbers["recipe"]["edit"]["cause"] == "bright"
    assert "red" not in numbers["concepts"], "grey pictures have no colours"
    product = editing.edit(runs["gan"], "dissect", n=40, classes=True, cause="bright", most=3)
    assert isinstance(product, Page)
    assert product.numbers["units"] == units
    assert verbs.edit(runs["gan"], "dissect", n=40)["pictures"] == 40
    # what has no gradients is ranked; a GAN is optimised
    assert main([*command, "--cause", "bright", "--how", "optimise"]) == 0
    assert json.loads(told.read_text())["causes"]["how"] == "optimised alpha"
    capsys.readouterr()
    for name, words, said in (
        ("gan", "--layer list", "generator."),
        ("gan", "--layer generatr.1", "Did you mean"),
        ("gan", "--cause purple", "There is: dark"),
        ("gan", "--names no.txt", "--segmenter"),
        ("vae", "--cause bright --how optimise", "rank its units"),
        ("pixelcnn", "", "Latents"),
        ("gan-points", "", "media image"),
    ):
        assert main(["edit", "dissect", runs[name], *words.split(), "-n", "8", "--out", str(tmp_path / "no.html")]) == 2
        assert said in capsys.readouterr().err, words
    assert main(["edit", "dissect", runs["gan"], "-n", "8", "--out", str(tmp_path / "no.png")]) == 2
    assert "FILE.html" in capsys.readouterr().err


def test_a_segmenter_of_ones_own(runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    net, names = tmp_path / "light.onnx", tmp_path / "names.txt"
    node = helper.make_node("Conv", ["x", "weight", "bias"], ["y"])  # which of x and 200 - x is larger
    graph = helper.make_graph(
        [node],
        "light",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [
            helper.make_tensor("weight", TensorProto.FLOAT, [2, 1, 1, 1], [1.0, -1.0]),
            helper.make_tensor("bias", TensorProto.FLOAT, [2], [0.0, 200.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(net))
    names.write_text("light\ndark\n")
    out = tmp_path / "units.html"
    command = ["edit", "dissect", runs["gan"], "-n", "20", "--segmenter", str(net), "--out", str(out)]
    assert main([*command, "--names", str(names)]) == 0
    found = json.loads(out.with_suffix(".json").read_text())["concepts"]
    x = api.sample(runs["gan"], 1, seed=0).x  # any picture: the graph's own arithmetic is what is looked at
    maps = segmenter_of(str(net), str(names))(x.float())
    assert torch.equal(maps[:, 0] == 1, x[:, 0] > 100)
    assert list(found) == ["light", "dark"]
    assert sum(found.values()) == pytest.approx(1)
    names.write_text("light\n")
    assert main([*command, "--names", str(names)]) == 2
    assert "1 names" in capsys.readouterr().err
    net.write_bytes(b"no graph")
    assert main(command) != 0
    assert "not an ONNX graph" in capsys.readouterr().err


def test_units_are_painted_with(
    runs: dict[str, str], pictures: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = ["--layer", "generator.1"]
    product = editing.edit(runs["gan"], "paint", layer="generator.1", remove="0,1", draw="2", n=3)
    assert isinstance(product, Grid)
    x = product.examples.x
    assert x.shape == (6, 1, 8, 8)
    assert torch.equal(x[:3], editing.edit(runs["gan"], "paint", layer="generator.1", remove="5", n=3).examples.x[:3])
    assert not torch.equal(x[:3], x[3:])
    assert product.recipe["driven_to"]["0"] == 0
    command = ["edit", "paint", runs["gan"], *layer, "--draw", "2", "--mask", pictures[1], "-n", "2"]
    assert main([*command, "--out", str(tmp_path / "x.png")]) == 0
    assert main([*command, "--out", str(tmp_path / "changed")]) == 0
    assert len(list((tmp_path / "changed").glob("*.png"))) == 2
    capsys.readouterr()
    for words, said in (
        ("", "Name units"),
        ("--remove x", "numbers of units"),
        ("--remove 999", "no unit 999"),
        ("--draw 999", "no unit 999"),
        ("--remove 1 --draw 1", "either"),
        ("--layer list", "maps of"),
    ):
        assert main(["edit", "paint", runs["gan"], *words.split(), "--out", str(tmp_path / "no.png")]) == 2
        assert said in capsys.readouterr().err, words


# what does not fit


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("gan", ["reconstruct", "{run}", "{a}"], ("Inference", "castalia edit walk, traverse, map")),
        ("gan", ["redraw", "{run}", "--of", "{a}"], ("Refinement", "walk")),
        ("ddpm", ["reconstruct", "{run}", "{a}"], ("Inference", "castalia edit walk, traverse, map, redraw")),
        ("vae", ["walk", "{run}", "--label", "3"], ("not conditional",)),
        ("gan", ["walk", "{run}", "--label", "eleven"], ("no class",)),
        ("gan", ["traverse", "{run}"], ("--dims",)),
        ("ddpm", ["redraw", "{run}", "--of", "{a}", "--mask", "no.png"], ("There is no file no.png",)),
        ("ddpm", ["redraw", "{run}", "--of", "{a}", "--set", "stesp=3"], ("steps",)),
        ("ddpm", ["redraw", "{run}", "--of", "{a}", "--given", "colour"], ("name=value",)),
        ("pixelcnn", ["complete", "{run}", "--of", "{a}", "--rows", "9"], ("rows=9",)),
        ("pixelcnn", ["complete", "{run}", "--of", "{a}", "--prompt", "@{a}"], ("--prompt",)),
        ("ddpm", ["complete", "{run}", "--of", "{a}"], ("Streaming",)),
        ("vae", ["redrwa", "{run}"], ("'redraw'",)),
    ],
)
def test_what_does_not_fit_is_said(
    name: str,
    arguments: list[str],
    words: tuple[str, ...],
    runs: dict[str, str],
    pictures: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [a.format(run=runs[name], a=pictures[0]) for a in arguments]
    assert main(["edit", *filled, "--out", str(tmp_path / "x.png")]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert not (tmp_path / "x.png").exists()


def test_an_edit_may_be_for_some_media_only(runs: dict[str, str]) -> None:
    run = api.load(runs["gan-points"])
    model = run.model()[0]
    for_pictures = replace(walk.EDIT, media=("image",))
    assert editing.lacks(for_pictures, model, api.load(runs["gan"]).spec) == ""
    with pytest.raises(UsageError, match=r"is for the media image; .* of the medium 'points'\. What can be done"):
        editing.refuse(for_pictures, run, model)
    assert editing.possible(model, run.spec) == ["walk", "traverse", "map"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "a.png", "versions": 3}, "versions"),
        ({"of": 3}, "of: expected str"),
        ({}, "'of' is missing"),
        ({"of": "a.png", "n": 0}, "n must be at least 1"),
        ({"of": "a.png"}, "There is no file a.png"),
    ],
)
def test_options_in_python_are_checked(options: dict[str, object], words: str, runs: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=words):
        editing.edit(runs["ddpm"], "redraw", **options)


def test_gradients_are_not_kept(runs: dict[str, str], pictures: tuple[str, str]) -> None:
    product = editing.edit(runs["vae"], "interpolate", start=pictures[0], end=pictures[0], frames=2)
    assert isinstance(product, Film)
    assert not product.frames.x.requires_grad
    assert torch.equal(product.frames.x[0], product.frames.x[1])
