import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from castalia.core.data import Batch
from castalia.core.errors import DataError, MissingExtra, RunError, UsageError
from castalia.core.specs.image import ImageSpec
from castalia.media.image.medium import ImageMedium
from castalia.media.image.video import save_walk
from castalia.media.image.write import grid_image, read_recipe, save_grid, save_png, to_data_uri

SPEC = ImageSpec(3, 5, 4)
RECIPE = {"model": "vae", "checkpoint": "runs/a", "seed": 7, "options": {"temperature": 0.1, "text": "é ✓"}}


def pictures(n, c, h=8, w=6):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, c, h, w), dtype=np.uint8))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_round_trip_with_recipe(tmp_path, channels):
    x = pictures(1, channels)[0]
    path = tmp_path / "a.png"
    save_png(x, path, RECIPE)
    with Image.open(path) as image:
        got = np.asarray(image).reshape(8, 6, channels)
    assert (got == x.permute(1, 2, 0).numpy()).all()
    assert read_recipe(path) == RECIPE
    assert json.loads((tmp_path / "a.json").read_text()) == RECIPE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.png"]


def test_medium_writes_numbered_files(tmp_path):
    medium = ImageMedium()
    paths = medium.write(Batch.of(pictures(3, 3)), SPEC, tmp_path / "new", 5, RECIPE)
    assert [p.name for p in paths] == ["0005.png", "0006.png", "0007.png"]
    assert read_recipe(paths[2]) == {**RECIPE, "index": 7}
    medium.draw(Batch.of(pictures(3, 3)), SPEC, tmp_path / "grid.png", RECIPE)
    assert read_recipe(tmp_path / "grid.png") == RECIPE
    assert [p.suffix for p in medium.write(Batch.of(pictures(1, 1)), SPEC, tmp_path / "bare")] == [".png"]
    assert len(list((tmp_path / "bare").iterdir())) == 1


def test_recipe_errors(tmp_path):
    save_png(pictures(1, 3)[0], tmp_path / "bare.png")
    with pytest.raises(DataError, match="carries no recipe"):
        read_recipe(tmp_path / "bare.png")
    (tmp_path / "bare.json").write_text('{"beside": 1}')
    assert read_recipe(tmp_path / "bare.png") == {"beside": 1}
    (tmp_path / "bare.json").write_text("[")
    with pytest.raises(DataError, match="not valid JSON"):
        read_recipe(tmp_path / "bare.png")
    (tmp_path / "bare.json").write_text("[]")
    with pytest.raises(DataError, match="not a JSON object"):
        read_recipe(tmp_path / "bare.png")
    (tmp_path / "junk.png").write_bytes(b"junk")
    for name in ("junk.png", "nowhere.png"):
        with pytest.raises(DataError, match="not a PNG"):
            read_recipe(tmp_path / name)


def test_grid_places_pictures_in_reading_order():
    x = pictures(5, 3)
    grid = np.asarray(grid_image(x, columns=3, pad=1, upscale=2))
    assert grid.shape == (2 * 17 + 1, 3 * 13 + 1, 3)
    for i in range(5):
        top, left = 1 + i // 3 * 17, 1 + i % 3 * 13
        cell = grid[top : top + 16 : 2, left : left + 12 : 2]
        assert (cell == x[i].permute(1, 2, 0).numpy()).all()
    assert (grid[18:, 27:] == 255).all()


def test_grid_sizes():
    assert grid_image(pictures(1, 1)).mode == "L"
    assert grid_image(pictures(1, 1, 8, 8)).size == (96 + 4, 96 + 4)
    assert grid_image(pictures(10, 1)).size[0] > 4 * 6
    assert max(grid_image(pictures(400, 1, 28, 28)).size) <= 4096
    assert max(grid_image(pictures(1, 3, 256, 256)).size) == 260


def test_grid_shows_alpha():
    x = torch.zeros(1, 4, 32, 32, dtype=torch.uint8)
    x[:, 0] = 200
    white = np.asarray(grid_image(x, checkerboard=False, pad=0, upscale=1))
    assert (white == 255).all()
    checkers = np.asarray(grid_image(x, pad=0, upscale=1))
    assert np.unique(checkers).tolist() == [224, 255]
    x[:, 3] = 255
    assert (np.asarray(grid_image(x, pad=0, upscale=1)) == [200, 0, 0]).all()


def test_grid_errors(tmp_path):
    with pytest.raises(UsageError, match="at least one"):
        grid_image(pictures(0, 3))
    with pytest.raises(UsageError, match="columns"):
        grid_image(pictures(2, 3), columns=0)
    with pytest.raises(ValueError, match="uint8"):
        grid_image(pictures(2, 3).float())
    with pytest.raises(UsageError, match=r"\.png"):
        save_grid(pictures(2, 3), tmp_path / "a.jpg")
    with pytest.raises(RunError, match="cannot be written"):
        save_grid(pictures(2, 3), tmp_path / "missing" / "a.png")


def test_data_uri():
    x = pictures(1, 4)[0]
    head, _, body = to_data_uri(x, upscale=3).partition(",")
    assert head == "data:image/png;base64"
    got = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    assert (got[::3, ::3] == x.permute(1, 2, 0).numpy()).all()


def frames_of(path):
    with Image.open(path) as image:
        durations = []
        for i in range(image.n_frames):
            image.seek(i)
            image.load()  # WebP knows a duration only then
            durations.append(image.info["duration"])
        return image.n_frames, durations, image.info.get("loop")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_animations_read_back(tmp_path, kind, channels):
    path = tmp_path / f"walk.{kind}"
    save_walk(pictures(7, channels), path, fps=10, recipe=RECIPE)
    assert frames_of(path) == (7, [100] * 7, 0)
    assert read_recipe(path) == RECIPE
    save_walk(pictures(7, channels), path, fps=10, loop=False, boomerang=True)
    count, _, loop = frames_of(path)
    assert count == 12
    assert loop == (None if kind == "gif" else 1)


def test_gif_keeps_colours_and_holes(tmp_path):
    x = torch.zeros(3, 4, 16, 16, dtype=torch.uint8)
    for i in range(3):
        x[i, i] = 255
    x[:, 3] = 255
    x[:, 3, :8] = 0
    save_walk(x, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        for i in range(3):
            image.seek(i)
            got = np.asarray(image.convert("RGBA"))
            assert got.shape[:2] == (128, 128), "enlarged until a person can see it"
            assert (got[:64, :, 3] == 0).all()
            assert (got[64:, :, 3] == 255).all()
            assert abs(got[96, 64, :3].astype(int) - [255 * (k == i) for k in range(3)]).max() <= 8


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mp4_reads_back(tmp_path, channels):
    av = pytest.importorskip("av", reason="castalia[video] is not installed")
    x = torch.full((9, channels, 29, 31), 255, dtype=torch.uint8)
    x[:, 0, :, :15] = 20
    save_walk(x, tmp_path / "a.mp4", fps=12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        assert len(frames) == 9
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 12.5
    assert frames[0].shape == (29 * 9 + 1, 31 * 9 + 1, 3)
    assert abs(int(frames[0][130, 30, 0]) - 20) < 12
    assert abs(int(frames[0][130, 240, 0]) - 255) < 12


def test_strip(tmp_path):
    x = pictures(4, 3)
    save_walk(x, tmp_path / "a.png", recipe=RECIPE)
    assert read_recipe(tmp_path / "a.png") == RECIPE
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 4 * image.height * 6 // 8


def test_walk_errors(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"\.gif, \.mp4, \.webp, \.png"):
        save_walk(pictures(2, 3), tmp_path / "a.avi")
    with pytest.raises(UsageError, match="at least one frame"):
        save_walk(pictures(0, 3), tmp_path / "a.gif")
    with pytest.raises(UsageError, match="fps"):
        save_walk(pictures(2, 3), tmp_path / "a.gif", fps=0)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtra, match=r"castalia\[video\]"):
        save_walk(pictures(2, 3), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
