"""GANverse3D: what its parts compute, what it finds, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia import api, editing, recipes
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.spec import LabelSpec
from castalia.core.specs.image import ImageSpec
from castalia.evaluation import views as measured
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sets import open_named
from castalia.models.shapes.ganverse3d import GANverse3D, ViewOptions
from castalia.models.shapes.ganverse3d_config import GANverse3DConfig
from castalia.models.shapes.inverse import RandomFeatures, Seats, TextureDecoder, degrees, foreground, overlap
from castalia.models.shapes.meshes import sphere
from castalia.training.loop import train


@pytest.fixture(scope="module")
def few() -> Dataset:
    return open_named("few-car-views", "train", ImageOptions())


def tiny(**changes: Any) -> GANverse3DConfig:
    config = recipes.tiny("ganverse3d").config
    assert isinstance(config, GANverse3DConfig)
    return replace(config, **changes)


def made(spec: Any, seed: int = 0, **changes: Any) -> GANverse3D:
    model = build(GANverse3D, tiny(**changes), spec, seed)
    assert isinstance(model, GANverse3D)
    return model


def with_cameras(spec: ImageSpec, count: int = 8) -> ImageSpec:
    names = tuple(f"{360 * k // count:03d} degrees, camera {k}" for k in range(count))
    return replace(spec, columns=(("view", LabelSpec(names)),))


def test_parameters_of_the_size_of_the_paper() -> None:
    """The paper publishes no count. Ours is made of, in this order:

    encoder: convolutions of 3 x 3 with biases, 4-64-128-256-512-512-512-512, and two vectors of normalisation each
    (pictures of 512, seven times halved to 4), a matrix from 512 x 4 x 4 + 3 to 1,024, and heads of 1,024 and 4;
    shape: 256-1024-1024-3 x 642; texture: 256 to 512 x 4 x 4, convolutions of 3 x 3 512-512-512-256-128-64-32 with
    normalisation, and one to 3, and 256 to 3; three numbers for each of 39 cameras.
    Codes of the StyleGAN: 2,048 numbers of the viewpoint and 3,008 of the content stand in the convolutions, as in the
    paper; the house's network takes 1,024 and 2,080 more for the pictures of its levels below the last.
    """
    recipe = recipes.recipe("ganverse3d-paper")
    assert isinstance(recipe.config, GANverse3DConfig)
    with torch.device("meta"):
        model = GANverse3D(recipe.config, ImageSpec(3, 512, 512))

    def count(part: torch.nn.Module) -> int:
        return sum(p.numel() for p in part.parameters())

    def conv(a: int, b: int) -> int:
        return 9 * a * b + b

    widths = [4, 64, 128, 256, 512, 512, 512, 512]
    steps = list(pairwise(widths))
    encoder = sum(conv(a, b) + 2 * b for a, b in steps) + (512 * 16 + 3 + 1) * 1024 + 1025 * 1024 + 1025 * 4
    assert count(model.encoder) == encoder
    shape = 257 * 1024 + 1025 * 1024 + 1025 * 3 * 642
    assert count(model.shape) == shape
    widths = [512, 512, 512, 256, 128, 64, 32]
    steps = list(pairwise(widths))
    texture = 257 * 512 * 16 + sum(conv(a, b) + 2 * a for a, b in steps) + conv(32, 3) + 2 * 32 + 257 * 3
    assert count(model.texture) == texture
    assert count(model.seats) == 3 * 39
    assert encoder + shape + texture + 117 == count(model.inverse()) == 29_767_237
    assert model.space is not None
    assert model.renderer is not None
    convolutions = [s for s in model.space.slots() if hasattr(s.layer, "noise")]
    last = list(model.space.slots())[-1]
    viewpoint = sum(s.end - s.start for s in convolutions if s.style < 4)
    content = sum(s.end - s.start for s in [*convolutions, last] if s.style >= 4)
    assert (viewpoint, content) == (2048, 3008)
    assert len(model.renderer.chosen) == 144


def test_the_recipe_of_the_paper_has_its_numbers() -> None:
    recipe = recipes.recipe("ganverse3d-paper")
    c = recipe.config
    assert isinstance(c, GANverse3DConfig)
    weights = (c.colour, c.percept, c.overlap, c.laplacian, c.smooth, c.moving)
    assert weights == (20, 0.5, 3, 5, 5, 2.5)
    assert (recipe.training.batch_size, recipe.training.lr, c.renderer_lr) == (16, 1e-4, 1e-5)
    assert recipe.training.steps == 203_200
    shares = [1.0, c.warm_up, c.fine_tune]
    assert [round(203_200 * s / sum(shares)) for s in shares] == [200_000, 700, 2_500]
    assert round(c.percept_after * 200_000) == 3_000
    assert (c.divisions, c.symmetric, c.divergence, c.view_layers, c.view_dims) == (3, False, 0, 4, 144)


def test_overlap_and_masks() -> None:
    a, b = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    a[0, :2], b[0, 1:3] = 1, 1
    a[1], b[1] = 0.5, 1
    torch.testing.assert_close(overlap(a, b), torch.tensor([4 / 12, 0.5]))
    x = torch.full((1, 3, 8, 8), 0.9)
    x[:, 1, 2:5, 3:6] = 0.3
    mask = foreground(x)
    assert mask.sum() == 9
    assert (mask[0, 0, 2:5, 3:6] == 1).all()


def test_degrees() -> None:
    a = torch.deg2rad(torch.tensor([10.0, 170, 190, 350]))
    torch.testing.assert_close(degrees(torch.stack([a.cos(), a.sin()], 1)), torch.tensor([10.0, 170, 190, 350]))


def test_textures_go_round() -> None:
    """Moving the first map around moves the texture around."""
    torch.manual_seed(0)
    net = TextureDecoder(4, 16, 4, 3)
    code = torch.randn(1, 4)

    class Rolled(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).unflatten(1, (net.first, 4, 4)).roll(1, 3).flatten(1)

    whole = net(code)
    net.dense = Rolled(net.dense)  # type: ignore[assignment]
    torch.testing.assert_close(net(code), whole.roll(4, 3))


def test_random_features_see_differences() -> None:
    torch.manual_seed(0)
    features = RandomFeatures(3)
    assert not list(features.parameters())
    x = torch.rand(2, 3, 16, 16)
    for a, b, size in zip(features(x), features(x.flip(3)), (8, 4, 2), strict=True):
        assert a.shape[-2:] == (size, size)
        assert (a - b).square().sum(1).mean() > 1e-3
        torch.testing.assert_close(a.square().sum(1), torch.ones_like(a[:, 0]), atol=1e-2, rtol=0)


def test_symmetric_shapes_and_textures(few: Dataset) -> None:
    model = made(few.spec, symmetric=True)
    code = torch.randn(2, model.latent_dims - 1)
    vertices, moved = model.deformed(code)
    ball = sphere(1)
    assert moved.abs().max() > 1e-3
    torch.testing.assert_close(vertices[:, ball.mirror] * torch.tensor([-1.0, 1, 1]), vertices)
    texture = model.painted(code)
    torch.testing.assert_close(texture.flip(3), texture)
    lopsided, _ = made(few.spec, symmetric=False).deformed(code)
    assert not torch.allclose(lopsided[:, ball.mirror] * torch.tensor([-1.0, 1, 1]), lopsided, atol=1e-4)
    # seen from the left and from the right it is its mirror image
    z = torch.cat([torch.zeros(1, 1), code[:1]], 1)
    left, right = (model.look(model.mesh(z), torch.tensor([a])) for a in (70.0, -70.0))
    far = (left.flip(3).double() - right.double()).abs()
    assert (far > 8).double().mean() < 0.02
    assert (left.double() - right.double()).abs().mean() > far.mean()


def test_its_own_views_have_no_error(few: Dataset) -> None:
    """Pictures of its mesh from two cameras cost next to nothing in overlap and colour, from wrong cameras much more."""
    spec = with_cameras(replace(few.spec, height=48, width=48))
    model = made(spec, divisions=2, softness=(0.05, 0.05), radius=0.6)
    with torch.no_grad():
        model.shape.body[-1].weight.mul_(20)
        model.encoder.codes.bias[model.latent_dims - 1 :] = -20.0  # certain of its codes
    number, other = torch.tensor([0, 1, 3]), torch.tensor([2, 6, 4])
    blank = torch.zeros(3, 4, 48, 48, dtype=torch.uint8)
    found = model.look_at(blank)
    meshes = model.mesh(torch.cat([found.mean[:, :1], found.mean], 1))

    class Still(torch.nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Any:
            return found

    model.encoder = Still()  # type: ignore[assignment]

    def logs(view: Tensor, second: Tensor) -> dict[str, float]:
        extra = {"view": view, "other": model.seen(meshes, model.seats(other)), "other_view": second}
        batch = Batch.of(model.seen(meshes, model.seats(number)), None, extra)
        _, told = model.inverse_loss(batch, BatchRng(0, total=3), Progress(0, 1))
        return {k: v.item() for k, v in told.items()}

    right, wrong, half = logs(number, other), logs(number + 1, other + 1), logs(number, other + 1)
    assert right["iou"] > 0.95
    assert right["colour"] < 0.02
    assert wrong["iou"] < half["iou"] < right["iou"]
    assert wrong["colour"] > half["colour"] > right["colour"]


def test_cameras_are_found(few: Dataset) -> None:
    """Where viewpoints are said wrongly, by up to 15 degrees, the pictures of known meshes put them right."""
    spec = with_cameras(replace(few.spec, height=48, width=48))
    model = made(spec, divisions=2, softness=(0.7, 0.2), symmetric=False)
    ball = model.vertices
    shape = ball * torch.tensor([0.35, 0.3, 0.7]) + torch.tensor([0.0, 0.1, 0.0]) * (ball[:, 2:] > 0.5)
    texture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    from castalia.core.capabilities import Meshes
    from castalia.nn.rasteriser import Camera, render

    meshes = Meshes(
        shape[None].repeat(8, 1, 1), model.faces, model.places, (255 * texture).to(torch.uint8).repeat(8, 1, 1, 1)
    )
    g = torch.Generator().manual_seed(1)
    truth = model.seats.said + 30 * torch.rand(8, generator=g) - 15
    up = 5 + 10 * torch.rand(8, generator=g)
    pictures = model.seen(meshes, Camera(truth, up, torch.full((8,), 4.0), 30.0))
    true, mask = model.inside(pictures)
    optimizer = torch.optim.Adam(model.seats.parameters(), lr=2e-2)
    for step in range(120):
        got = render(
            meshes.vertices,
            model.faces,
            model.places,
            texture.repeat(8, 1, 1, 1),
            model.seats(torch.arange(8)),
            48,
            48,
            0.7 * 0.3 ** (step / 120),
        )
        loss = 20 * (true - got.colour).abs().mean() + 3 * (1 - overlap(mask[:, 0], got.alpha)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def error(found: Tensor) -> Tensor:
        return ((found - truth + 180) % 360 - 180).abs()

    assert error(model.seats.said).mean() > 5
    assert error(model.seats.azimuths()).max() < 2
    assert (model.seats(torch.arange(8)).elevation - up).abs().max() < 3


def test_seats() -> None:
    seats = Seats([0.0, 90.0], 10.0, 4.0, 30.0)
    with torch.no_grad():
        seats.moved[1] = torch.tensor([1.0, -0.5, 1.0])
    camera = seats(torch.tensor([1, 0]))
    torch.testing.assert_close(camera.azimuth, torch.tensor([120.0, 0.0]))
    torch.testing.assert_close(camera.elevation, torch.tensor([-5.0, 10.0]))
    torch.testing.assert_close(camera.distance, torch.tensor([4 * np.exp(0.3), 4.0]).float())
    torch.testing.assert_close(seats.usual(torch.tensor([5.0])).elevation, torch.tensor([2.5]))


def test_data_without_views_are_refused(few: Dataset) -> None:
    with pytest.raises(UsageError, match="car-views"):
        made(ImageSpec(3, 16, 16))
    with pytest.raises(UsageError, match="030 degrees"):
        made(ImageSpec(3, 16, 16, columns=(("view", LabelSpec(("front", "side"))),)))
    with pytest.raises(UsageError, match="too small"):
        made(with_cameras(ImageSpec(3, 4, 4)))
    model = made(few.spec)
    with pytest.raises(UsageError, match="view"):
        model.inverse_loss(Batch.of(few.batch(np.arange(2)).x), BatchRng(0, total=2), Progress(0, 1))
    with pytest.raises(UsageError, match="generator"):
        model.sample(1, rng=SampleRng(0, [0]), options=ViewOptions(by="stylegan"))


@pytest.mark.parametrize(
    "change",
    [
        {"divisions": 6},
        {"texture": 48},
        {"radius": 5.0},
        {"softness": (0.0, 1.0)},
        {"colour": -1.0},
        {"views": (1, 2), "view_bins": (0,)},
        {"views": (1, 1), "view_bins": (0, 3)},
        {"views": (1, 2), "view_bins": (0, 12)},
        {"lens": 150.0},
        {"elevation": 90.0},
        {"percept_after": 2.0},
    ],
)
def test_bad_configurations(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        tiny(**change)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_with_other_channels(channels: Any, tmp_path: Path) -> None:
    """Grey and coloured pictures on a background: masks are found, samples stand on the same background."""
    options = ImageOptions(channels=channels, background=200)
    data = open_named("few-car-views", "train", options)
    recipe = recipes.tiny("ganverse3d")
    recipe = replace(recipe, data=replace(recipe.data, options=options))
    recipe = replace(recipe, training=replace(recipe.training, steps=2))
    run = train(recipe, data, tmp_path / "run", quiet=True)
    model = run.model()[0]
    assert isinstance(model, GANverse3D)
    x = data.batch(np.arange(8)).x
    colours, mask = model.inside(x)
    assert colours.shape[1] == (1 if channels == 1 else 3)
    assert 0.05 < mask.mean() < 0.6
    drawn = api.sample(run, 3).x
    assert drawn.shape[1:] == data.spec.shape  # type: ignore[attr-defined]
    if channels != 4:
        torch.testing.assert_close(model.background, torch.full_like(model.background, 200 / 255), atol=1e-3, rtol=0)
        assert (drawn[:, :, 0, 0] == 200).all()
    else:
        assert (drawn[:, 3, 0, 0] == 0).all()


@pytest.fixture(scope="module")
def run(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = recipes.tiny("ganverse3d")
    recipe = replace(recipe, training=replace(recipe.training, steps=150))
    return train(recipe, few, tmp_path_factory.mktemp("ganverse3d") / "run", quiet=True)


def test_it_learns(run: Any, few: Dataset) -> None:
    """Things of pictures, and cameras of pictures, are found better than before; a colour better than the mean colour."""
    model = run.model()[0]
    before = made(few.spec)
    ids = np.arange(len(few))
    old, new = (measured.reconstruction(m, few, ids) for m in (before, model))
    assert new["picture_iou"].value > max(0.7, old["picture_iou"].value)
    assert new["other_iou"].value > max(0.7, old["other_iou"].value)
    assert new["colour_error"].value < new["colour_error_ceiling"].value < 60
    assert new["azimuth_within_15"].value > old["azimuth_within_15"].value
    assert new["azimuth_error"].value < old["azimuth_error"].value
    assert set(new) == {
        "picture_iou", "other_iou", "colour_error", "colour_error_ceiling", "other_colour_error",
        "other_colour_error_ceiling", "azimuth_error", "azimuth_within_15",
    }  # fmt: skip


def test_an_azimuth_can_be_asked_for(run: Any) -> None:
    model = run.model()[0]
    z = torch.zeros(2, model.latent_dims)
    asked = model.decode(z, {"azimuth": torch.tensor([90.0, 180.0])}).x
    assert torch.equal(asked[1], model.decode(z).x[1])  # the middle of the latents is half of the way around
    assert not torch.equal(asked[0], asked[1])
    back = model.encode(Batch.of(asked))
    torch.testing.assert_close(model.mesh(back).vertices.shape, model.mesh(z).vertices.shape)


def test_the_edit_writes_meshes_films_and_pictures(run: Any, few: Dataset, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "car.png"
    Image.fromarray(few.batch(np.array([3])).x[0].permute(1, 2, 0).numpy()).save(picture)
    made_of = editing.edit(run, "solidify", of=str(picture), frames=8)
    for name in ("car.glb", "car.gif", "sides.png"):
        editing.write(made_of, run.spec, tmp_path / name, {"of": "mine"})
        assert (tmp_path / name).stat().st_size > 100
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load_scene(tmp_path / "car.glb")
    (mesh,) = scene.geometry.values()
    model = run.model()[0]
    assert isinstance(model, GANverse3D)
    with torch.no_grad():
        vertices, _ = model.deformed(model.look_at(few.batch(np.array([3])).x).mean)
    np.testing.assert_allclose(mesh.bounds, torch.stack([vertices[0].amin(0), vertices[0].amax(0)]).numpy(), atol=1e-5)
    assert mesh.visual.material.baseColorTexture.size == (8, 8)
    assert b'"animations"' in (tmp_path / "car.glb").read_bytes()
    assert (tmp_path / "car.json").is_file()
    with Image.open(tmp_path / "car.gif") as film:
        assert film.n_frames == 8  # type: ignore[attr-defined]
    other = editing.edit(run, "solidify", frames=2, seed=1)
    assert not torch.equal(other.frames.x[0], made_of.frames.x[0])
    assert "solidify" in editing.possible(model, run.spec)
    with pytest.raises(UsageError, match="at least 2"):
        editing.edit(run, "solidify", frames=1)
