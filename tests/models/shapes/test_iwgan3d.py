"""3D-IWGAN: its sizes, its penalty, and the shape that a view shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.shape import ShapeSpec
from castalia.media.shape.read import ShapeOptions
from castalia.media.shape.sets import open_set
from castalia.models.adversarial.losses import Sides, gradient_penalty
from castalia.models.shapes.iwgan3d import IWGAN3D, IWGAN3DConfig
from castalia.models.shapes.networks import Same, ViewEncoder

VIEWED = ShapeSpec(8, columns=(("view", ImageSpec(1, 16, 16)),))
NOW = Progress(0, 10)


def small(spec: ShapeSpec, **config: Any) -> IWGAN3D:
    settings = {"latent_dims": 4, "width": 8, "critic_width": 4, "view_width": 4, **config}
    made = build(IWGAN3D, IWGAN3DConfig(**settings), spec)
    assert isinstance(made, IWGAN3D)
    return made


def some(n: int = 6) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(n, 1, 8, 8, 8, generator=g) < 0.3).to(torch.uint8)
    view = torch.randint(0, 256, (n, 1, 16, 16), generator=g).to(torch.uint8)
    return Batch.of(x, None, {"view": view})


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_networks_of_the_published_code() -> None:
    with torch.device("meta"):
        model = IWGAN3D(IWGAN3DConfig(), ShapeSpec(32))
        assert model.generator(torch.zeros(2, 200)).shape == (2, 1, 32, 32, 32)
        assert model.critic(torch.zeros(2, 1, 32, 32, 32)).shape == (2, 1)
    assert count(model.generator) == 3_167_393
    assert count(model.critic) == 2_757_089
    assert not any(isinstance(m, nn.BatchNorm3d) for m in model.critic.modules())


def test_the_encoder_of_the_published_code() -> None:
    """Pictures of 256: 11 and 5 pixels with strides of 4 and 4, 5, 5 and 8 with 2, 2 and 1; 4 x 4 x 400 are left."""
    with torch.device("meta"):
        encoder = ViewEncoder(ImageSpec(3, 256, 256), 200, 64)
        mean, log_std = encoder(torch.zeros(2, 3, 256, 256))
    assert mean.shape == log_std.shape == (2, 200)
    channels, kernels = (3, 64, 128, 256, 512, 400), (11, 5, 5, 5, 8)
    layers = sum(a * b * k * k + b for a, b, k in zip(channels, channels[1:], kernels, strict=False))
    norms = 2 * (128 + 256 + 512 + 400)
    assert count(encoder) == layers + norms + 2 * (4 * 4 * 400 * 200 + 200)


def test_same_convolutions_round_up() -> None:
    """Against a picture padded by hand, as the published code's library does it: more behind than before."""
    layer = Same(1, 1, 4, 2)
    x = torch.randn(1, 1, 6, 7)
    assert layer(x).shape == (1, 1, 3, 4)
    padded = nn.functional.pad(x, (1, 2, 1, 1))
    torch.testing.assert_close(layer(x), nn.functional.conv2d(padded, layer.weight, layer.bias, 2))


@pytest.mark.parametrize("sides", ["one", "two"])
def test_the_penalty_is_over_all_voxels(sides: Sides) -> None:
    """Of a linear critic it is known: (|w| - 1)^2, with the norm of all its weights; along one axis it would differ."""
    for scale in (0.02, 0.2):
        w = scale * torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
        found = gradient_penalty(lambda x, w=w: (x * w).flatten(1).sum(1), torch.rand(5, 1, 4, 4, 4), sides)
        excess = w.norm() - 1
        expected = excess.clamp(min=0) ** 2 if sides == "one" else excess**2
        assert found.item() == pytest.approx(expected.item(), abs=1e-6)
        along_one = (w.square().sum(1).sqrt() - 1).square().mean()
        assert abs(along_one - excess**2) > 0.02


def test_the_critic_s_loss_is_its_equation() -> None:
    model, batch, rng = small(ShapeSpec(8), penalty=7.0), some(), BatchRng(0, total=6)
    loss, logs = model.critic_loss(batch, rng, NOW)
    real, fake = batch.x.float(), model.make_still(rng, None)
    share = rng.uniform("mix").view(-1, 1, 1, 1, 1)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(model.critic(between).sum(), between)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    distance = model.critic(real).mean() - model.critic(fake).mean()
    assert loss.item() == pytest.approx((7 * penalty - distance).item(), rel=1e-4)
    assert logs["wasserstein"].item() == pytest.approx(distance.item(), rel=1e-4)


def test_how_voxels_look_inside() -> None:
    x = some(2).x
    for empty in (0.0, -1.0):
        model = small(ShapeSpec(8), empty=empty)
        inside = model.inside(x)
        assert set(inside.unique().tolist()) == {empty, 1.0}
        assert torch.equal(model.outside(inside), x)
        assert model.believed(torch.tensor([empty, (1 + empty) / 2, 1.0, -1.0])).tolist() == [0, 0.5, 1, 0]


def test_stages_play_as_the_code_does() -> None:
    plain = small(ShapeSpec(8)).stages()[0].objectives
    assert [(o.name, o.repeat) for o in plain] == [("critic", 5), ("generator", 1)]
    viewed = small(VIEWED, view=True).stages()[0].objectives
    assert [(o.name, o.repeat) for o in viewed] == [("critic", 5), ("encoder", 5), ("generator", 1)]


def test_losses_of_the_encoder_and_its_generator() -> None:
    model, batch, rng = small(VIEWED, view=True, reconstruction=50.0, divergence=0.3), some(), BatchRng(0, total=6)
    assert model.encoder is not None
    mean, log_std = model.encoder(model.seen(batch))
    z = mean + log_std.exp() * rng.normal("view latent", 4)
    far = 0.5 * (batch.x.float() - model.generator(z)).square().mean()
    gauss = torch.distributions.Normal(mean, log_std.exp())
    kl = torch.distributions.kl_divergence(gauss, torch.distributions.Normal(torch.zeros(4), torch.ones(4))).mean()
    loss, logs = model.encoder_loss(batch, rng, NOW)
    assert loss.item() == pytest.approx((far + 0.3 * kl).item(), rel=1e-4)
    assert logs["divergence"].item() == pytest.approx(kl.item(), rel=1e-4)
    made = model.judge(model.make(rng, None), None).mean()
    assert model.generator_loss(batch, rng, NOW)[0].item() == pytest.approx((50 * far - made).item(), rel=1e-3)


def test_each_objective_moves_its_own_network() -> None:
    model, batch = small(VIEWED, view=True), some()
    for objective in model.stages()[0].objectives:
        assert isinstance(objective, Objective)
        own = {id(p) for p in objective.module.parameters()}
        for p in model.parameters():
            p.grad = None
            p.requires_grad_(id(p) in own)
        objective.loss(batch, BatchRng(0, total=6), NOW)[0].backward()
        for name, p in model.named_parameters():
            assert (p.grad is not None) == (id(p) in own), (objective.name, name)


def test_a_view_is_given() -> None:
    model, batch = small(VIEWED, view=True, empty=-1.0).eval(), some()
    assert set(model.accepts()) == {"view"}
    view = batch.extra["view"]
    rng = SampleRng(0, range(6))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    seen = model.sample(6, {"view": view}, rng=rng).x
    assert torch.equal(seen, model.sample(6, {"view": view}, rng=rng).x)
    assert not torch.equal(seen, model.sample(6, rng=rng).x)
    assert not torch.equal(seen, model.sample(6, {"view": view.flip(0)}, rng=rng).x)
    assert torch.equal(model.decode(torch.zeros(6, 4), {"view": view}).x > 0, model.rebuilt(batch) > 0.5)
    with pytest.raises(UsageError, match="view"):
        model.sample(6, {"view": view[:, :, 1:]}, rng=rng)
    with pytest.raises(UsageError, match="trained without views"):
        small(ShapeSpec(8)).rebuilt(batch)


def test_it_learns_the_shapes_of_a_few_views() -> None:
    options = ShapeOptions(size=8, views="depth", view_size=16)
    data = open_set("few-solids", options, "train")
    model = build(
        IWGAN3D,
        IWGAN3DConfig(latent_dims=16, width=32, critic_width=8, view=True, view_width=8, divergence=1e-3),
        data.spec,
    )
    assert isinstance(model, IWGAN3D)
    assert model.encoder is not None
    batch = data.batch(np.arange(12))
    optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.generator.parameters()], 3e-3)
    for step in range(150):
        optimizer.zero_grad()
        rng = BatchRng(step, total=12)
        (100 * model.encoder_loss(batch, rng, NOW)[0]).backward()
        optimizer.step()
    with torch.no_grad():  # its batch statistics
        for step in range(60):
            model.generator_loss(batch, BatchRng(step, total=12), NOW)
            model.encoder_loss(batch, BatchRng(step, total=12), NOW)
    found = model.eval().outside(model.rebuilt(batch)).bool()
    true = batch.x.bool()
    iou = (found & true).flatten(1).sum(1) / (found | true).flatten(1).sum(1)
    assert iou.mean() > 0.8, iou.mean()


def test_classes() -> None:
    model = small(ShapeSpec(8, ("a", "b")), conditional=True)
    x: Tensor = some(2).x.float()
    assert not torch.equal(model.judge(x, torch.tensor([0, 0])), model.judge(x, torch.tensor([1, 1])))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="cubes of 4, 8, 16, 32"):
        small(ShapeSpec(20))
    with pytest.raises(UsageError, match="no views"):
        small(ShapeSpec(8), view=True)
    with pytest.raises(UsageError, match="cannot halve"):
        small(ShapeSpec(64), width=8)
    for wrong in ({"empty": 0.5}, {"penalty": 0.0}, {"latent_dims": 0}, {"reconstruction": -1.0}, {"critic_steps": 0}):
        with pytest.raises(ValueError):
            IWGAN3DConfig(**wrong)  # type: ignore[arg-type]
