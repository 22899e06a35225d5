"""GANverse3D with a StyleGAN2: views of it, and telling it what to draw."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from castalia import api, recipes
from castalia.configuration import Recipe
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sets import open_named
from castalia.models.adversarial.stylegan2 import StyleGAN2, StyleGAN2Config
from castalia.models.adversarial.styles import StyleOptions
from castalia.models.shapes.cycles import CODES, cycle_loss, views_of, warm_up_loss
from castalia.models.shapes.ganverse3d import GANverse3D, ViewOptions
from castalia.models.shapes.ganverse3d_config import GANverse3DConfig
from castalia.runs import Run
from castalia.training.loop import train

DATA = open_named("few-car-views", "train", ImageOptions())
SMALL = StyleGAN2Config(latent_dims=8, style_dims=16, mapping_layers=2, channels=256, most=32, r1=0.1, group=0)
VIEWS = {"views": (3, 0, 5, 9), "view_bins": (0, 3, 6, 9), "view_layers": 3}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = recipes.tiny("stylegan2")
    recipe = replace(
        recipe,
        config=SMALL,
        data=recipes.tiny("ganverse3d").data,
        training=replace(recipe.training, steps=4, batch_size=8, precision="float32"),
    )
    return train(recipe, DATA, tmp_path_factory.mktemp("stylegan") / "run", quiet=True)


def recipe_of(parent: Run, **changes: Any) -> Recipe:
    recipe = recipes.tiny("ganverse3d")
    config = recipe.config
    assert isinstance(config, GANverse3DConfig)
    settings = {"generator": SMALL, **VIEWS, "view_dims": 20, "renderer_width": 16, "renderer_lr": 1e-2, **changes}
    return replace(
        recipe,
        config=replace(config, **settings),
        training=replace(recipe.training, steps=12, precision="float32"),
        parents=(("generator", str(parent.path)),),
    )


@pytest.fixture(scope="module")
def model(parent: Run) -> GANverse3D:
    return made(parent)


def made(parent: Run, **changes: Any) -> GANverse3D:
    found = build(GANverse3D, recipe_of(parent, **changes).config, DATA.spec)
    assert isinstance(found, GANverse3D)
    found.initialise(DATA, BatchRng(0, total=1), {"generator": parent.model()[0]})
    return found


def batch_of(model: GANverse3D, n: int = 6, seed: int = 0) -> Any:
    return views_of(model, DATA.batch(np.arange(n)), BatchRng(seed, total=n), Progress(0, 1))


@pytest.mark.parametrize("network", ["skip", "residual"])
def test_codes_make_the_pictures_that_styles_make(network: Any, parent: Run) -> None:
    """What layers take, in place of what it is made of, gives the same picture; strong noise included."""
    config = replace(SMALL, network=network)
    other = build(StyleGAN2, config, DATA.spec)
    assert isinstance(other, StyleGAN2)
    found = build(GANverse3D, recipe_of(parent, generator=config).config, DATA.spec)
    assert isinstance(found, GANverse3D)
    assert found.space is not None
    with torch.no_grad():
        for name, p in other.generator.named_parameters():
            if name.endswith("strength"):
                p.fill_(0.5)
        found.space.generator.load_state_dict(other.generator.state_dict())
        z = torch.randn(3, 8)
        codes = found.space.codes(z)
        assert codes.shape == (3, found.space.dims)
        true = (other.render(other.styles(z)) / 255).clamp(0, 1)
        torch.testing.assert_close(found.space.pictures(codes), true, atol=1e-5, rtol=0)


def test_viewpoints_are_pictures_that_the_parent_draws(parent: Run, model: GANverse3D) -> None:
    """Number 5 is what ``castalia sample`` calls 0005.png."""
    assert model.space is not None
    assert model.renderer is not None
    drawn = api.sample(parent, 10, seed=0, options=StyleOptions(noise="constant")).x
    with torch.no_grad():
        z = SampleRng(0, range(10)).normal("latent", 8)
        codes = model.space.codes(z)
        mine = (255 * model.space.pictures(codes)).round()
    assert (mine - drawn.float()).abs().max() <= 1
    torch.testing.assert_close(model.renderer.views, codes[[3, 0, 5, 9], : model.space.view])
    assert model.seats.said.tolist() == [0, 90, 180, 270]
    # the numbers that the camera makes are those in which the viewpoints differ most
    spread = model.renderer.views.std(0) / model.renderer.std[: model.space.view]
    rest = [i for i in range(len(spread)) if i not in model.renderer.chosen.tolist()]
    assert spread[model.renderer.chosen].min() >= spread[rest].max()


def test_views_share_their_content_and_not_their_viewpoint(model: GANverse3D) -> None:
    assert model.space is not None
    assert model.renderer is not None
    batch = batch_of(model, 16)
    first, second = batch.extra["view"], batch.extra["other_view"]
    assert (first != second).all()
    assert set(torch.cat([first, second]).tolist()) == {0, 1, 2, 3}
    codes, split = batch.extra[CODES], model.space.view
    torch.testing.assert_close(codes[:, :split], model.renderer.views[first])
    with torch.no_grad():
        turned = torch.cat([model.renderer.views[second], codes[:, split:]], 1)
        other = (255 * model.space.pictures(turned)).round()
    assert (other - batch.extra["other"].float()).abs().max() <= 1
    assert batch.x.dtype == torch.uint8
    assert not torch.equal(batch.x, batch.extra["other"])
    again, new = batch_of(model, 16), batch_of(model, 16, seed=1)
    assert torch.equal(batch.x, again.x)
    assert not torch.equal(batch.x, new.x)


def test_objectives_move_what_is_theirs(model: GANverse3D) -> None:
    """The StyleGAN stands still; the networks of StyleGAN-R move in the stages that are theirs."""
    stages = model.stages()
    assert [s.name for s in stages] == ["inverse", "warm-up", "fine-tune"]
    assert [[o.name for o in s.objectives] for s in stages] == [["inverse"], ["renderer"], ["inverse", "renderer"]]
    batch = batch_of(model)
    frozen = {id(p) for part in model.frozen() for p in part.parameters()}
    for stage in stages:
        for objective in stage.objectives:
            assert isinstance(objective, Objective)
            own = {id(p) for p in objective.module.parameters()}
            assert own
            assert not own & frozen
            for p in model.parameters():
                p.grad = None
                p.requires_grad_(id(p) in own)
            loss, _ = objective.loss(batch, BatchRng(0, total=6), Progress(0, 1))
            loss.backward()
            for name, p in model.named_parameters():
                got = p.grad is not None
                assert got == (id(p) in own), f"{stage.name} {objective.name}: {name}"
    model.requires_grad_(True)


def test_it_learns_to_tell_the_stylegan_what_to_draw(parent: Run) -> None:
    """In the warm-up codes come near those of pictures, and selectors decide; then cycles close."""
    model = made(parent, renderer_width=32)
    assert model.renderer is not None
    with torch.no_grad():  # textures and shapes that depend on the picture, though nothing was learned
        for part in (model.shape.body[-1], model.texture.dense):
            part.weight.mul_(10)

    def losses(of: Any, n: int = 8) -> dict[str, float]:
        with torch.no_grad():
            _, logs = of(model, batch_of(model, 16, seed=99), BatchRng(0, total=16), Progress(0, 1))
        return {k: v.item() for k, v in logs.items()}

    begin = losses(warm_up_loss)
    optimizer = torch.optim.Adam(model.renderer.parameters(), lr=1e-2)
    for step in range(120):
        loss, _ = warm_up_loss(model, batch_of(model, 16, seed=step % 4), BatchRng(0, total=16), Progress(0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    end = losses(warm_up_loss)
    assert end["far"] < 0.8 * begin["far"]
    assert begin["entropy"] == pytest.approx(np.log(3))
    assert end["entropy"] < 0.8 * begin["entropy"]
    torch.testing.assert_close(model.renderer.mixture().sum(0), torch.ones_like(model.renderer.select[0]))
    begin = losses(cycle_loss)
    optimizer = torch.optim.Adam(model.renderer.parameters(), lr=2e-3)
    for step in range(60):
        loss, _ = cycle_loss(model, batch_of(model, 16, seed=step % 4), BatchRng(0, total=16), Progress(0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    end = losses(cycle_loss)
    parts = ("shape", "texture", "background", "views")
    assert sum(end[k] for k in parts) < 0.5 * sum(begin[k] for k in parts)


def test_a_run_needs_its_parent_no_more(parent: Run, tmp_path: Path) -> None:
    """It trains all stages, resumes, and draws by the StyleGAN when the parent is gone."""
    shutil.copytree(parent.path, tmp_path / "parent")
    recipe = replace(recipe_of(parent, warm_up=0.5, fine_tune=0.5), parents=(("generator", str(tmp_path / "parent")),))
    run = train(recipe, DATA, tmp_path / "run", quiet=True)
    names = {key.split("/")[0] for row in run.metrics() for key in row if "/" in key}
    assert {"inverse", "renderer"} <= names
    shutil.rmtree(tmp_path / "parent")
    again = api.load(tmp_path / "run")
    meshes = api.sample(again, 4, seed=3).x
    drawn = api.sample(again, 4, seed=3, options=ViewOptions(by="stylegan")).x
    assert drawn.shape == meshes.shape
    assert drawn.dtype == torch.uint8
    assert not torch.equal(drawn, meshes)
    asked = again.model()[0].sample(
        2,
        {"azimuth": torch.tensor([0.0, 180.0])},
        rng=SampleRng(0, [0, 0]),
        options=ViewOptions(by="stylegan"),
    )
    assert not torch.equal(asked.x[0], asked.x[1])  # of one thing, from two sides
    before, after = parent.model()[0].generator.state_dict(), again.model()[0].space.generator.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_what_is_no_parent_is_refused(parent: Run) -> None:
    fresh = build(GANverse3D, recipe_of(parent).config, DATA.spec)
    for parents, words in (({}, "none is named"), ({"generator": fresh}, "GANverse3D")):
        with pytest.raises(UsageError, match=words):
            fresh.initialise(DATA, BatchRng(0, total=1), parents)
    with pytest.raises(UsageError, match="not the configuration"):
        made(parent, generator=replace(SMALL, mixing=0.5))
    with pytest.raises(UsageError, match=r"view_bins=\[0,4"):
        made(parent, view_bins=(0, -1, 6, 9))
    with pytest.raises(ValueError, match="two viewpoints"):
        recipe_of(parent, views=(1,), view_bins=(0,))
