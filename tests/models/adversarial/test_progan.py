"""The progressive GAN: sizes of networks, the schedule, fading in, deviation, losses, interruptions inside a fade."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia import api, checkpoints, recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.growing import End, enlarge, fade, reduce, widths_of
from castalia.models.adversarial.losses import critic_loss
from castalia.models.adversarial.progan import ProGAN, ProGANConfig
from castalia.models.adversarial.pyramid import pyramid
from castalia.nn.equalised import EqualConv2d, EqualLinear
from castalia.training.loop import train
from castalia.training.stage import stage_ends

SPEC = ImageSpec(1, 16, 16, ("a", "b", "c"))


def progan(spec: ImageSpec = SPEC, **config: Any) -> ProGAN:
    made = build(ProGAN, ProGANConfig(**{"latent_dims": 6, "channels": 32, "most": 12} | config), spec)
    assert isinstance(made, ProGAN)
    return made.train()


def batch(n: int = 8, spec: ImageSpec = SPEC) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, *spec.shape), dtype=torch.uint8, generator=g)
    return Batch(x, torch.arange(n), torch.randint(0, 3, (n,), generator=g))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def at(level: int, fraction: float) -> Progress:
    return Progress(round(fraction * 1000), 1000)


# sizes


@pytest.mark.parametrize(
    ("side", "channels", "generator"),
    [(32, 4096, 17_764_611), (128, 4096, 18_317_379), (256, 4096, 18_344_995), (1024, 8192, 23_071_507)],
)
def test_parameters_of_the_generator(side: int, channels: int, generator: int) -> None:
    """Of Karras' generators with their last picture layer, as they are given away; those below it are ours to count."""
    with torch.device("meta"):
        made = ProGAN(ProGANConfig(channels=channels), ImageSpec(3, side, side))
    below = sum(count(layer) for layer in made.generator.to_picture[:-1])
    assert count(made.generator) - below == generator
    assert below == sum(3 * c + 3 for c in widths_of(len(made.sizes), channels, 512)[:-1])


def test_parameters_of_table_2() -> None:
    """Both networks of 1024 pixels, summed by hand from table 2: the paper says 23.1 million each."""
    widths = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    pairs = list(itertools.pairwise(widths))
    conv = [9 * a * b + b + 9 * b * b + b for a, b in pairs]
    generator = 512 * 512 * 16 + 512 + 9 * 512 * 512 + 512 + sum(conv) + sum(3 * c + 3 for c in widths)
    down = [9 * b * b + b + 9 * b * a + a for a, b in pairs]
    end = 9 * 513 * 512 + 512 + 16 * 512 * 512 + 512 + 512 + 1
    critic = sum(down) + end + sum(3 * c + c for c in widths)
    with torch.device("meta"):
        made = ProGAN(ProGANConfig(), ImageSpec(3, 1024, 1024))
    assert (count(made.generator), count(made.critic)) == (generator, critic) == (23_079_115, 23_087_249)


def test_sizes() -> None:
    assert pyramid(32, 32) == ((4, 4), (8, 8), (16, 16), (32, 32))
    assert pyramid(28, 28) == ((7, 7), (14, 14), (28, 28))
    assert pyramid(32, 48) == ((4, 6), (8, 12), (16, 24), (32, 48))
    assert pyramid(9, 4) == ((9, 4),)
    assert pyramid(12, 12) == ((6, 6), (12, 12))
    assert pyramid(16, 16, 3) == ((2, 2), (4, 4), (8, 8), (16, 16))
    with pytest.raises(UsageError, match=r"25x25.*size=96"):
        pyramid(100, 100)
    with pytest.raises(UsageError, match="3 times"):
        pyramid(12, 12, 3)


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 12, 4), (28, 28, 1), (5, 5, 3), (16, 16, 2)])
def test_any_size(height: int, width: int, channels: int) -> None:
    spec = ImageSpec(channels, height, width)
    model = progan(spec)
    x = Batch(torch.zeros(4, channels, height, width, dtype=torch.uint8), torch.arange(4))
    for stage in model.stages():
        for objective in stage.objectives:
            assert isinstance(objective, Objective)
            loss, _ = objective.loss(x, BatchRng(0, total=4), Progress(3, 8))
            assert loss.isfinite()
    assert model.eval().sample(2, rng=SampleRng(0, range(2))).x.shape == (2, channels, height, width)


# the schedule


def test_schedule_of_the_paper() -> None:
    """600,000 images at 4 pixels, then twice as many for each size, in batches of table: images, not steps, are equal."""
    sizes = (128, 128, 128, 64, 32, 16, 8, 4, 4)
    with torch.device("meta"):
        stages = ProGAN(ProGANConfig(batch_sizes=sizes), ImageSpec(3, 1024, 1024)).stages()
    assert [s.name for s in stages] == [f"{n}x{n}" for n in (4, 8, 16, 32, 64, 128, 256, 512, 1024)]
    assert [s.batch_size for s in stages] == list(sizes)
    images = [s.share * (s.batch_size or 0) for s in stages]
    assert images == pytest.approx([0.5] + [1.0] * 8)
    total = sum(600_000 * (1 if n == 0 else 2) / size for n, size in enumerate(sizes))
    ends = stage_ends(stages, round(total))
    steps = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    for number, (n, size) in enumerate(zip(steps, sizes, strict=True)):
        assert n * size == pytest.approx(600_000 * (1 if number == 0 else 2), rel=1e-3)


@pytest.mark.parametrize(
    ("level", "step", "alpha"),
    [(0, 0, 1.0), (0, 99, 1.0), (1, 0, 0.0), (1, 10, 0.25), (1, 20, 0.5), (1, 40, 1.0), (2, 30, 0.75), (2, 99, 1.0)],
)
def test_alpha(level: int, step: int, alpha: float) -> None:
    """A table of (level, step of 80) and alpha with half of each stage fading; what training reached is noted."""
    model = progan()
    stage = model.stages()[level]
    for objective in stage.objectives:
        assert isinstance(objective, Objective)
        model.level.fill_(7)
        model.alpha.fill_(-1)
        objective.loss(batch(), BatchRng(0, total=8), Progress(step, 80))
        assert (int(model.level), float(model.alpha)) == (level, pytest.approx(alpha))
    quarter = progan(fade=0.25)
    assert quarter.share_of(1, Progress(10, 80)) == pytest.approx(0.5)
    short = progan(last=4.0).stages()
    assert [s.share for s in short] == [0.5, 1.0, 4.0]


# fading in


def test_fading_is_a_blend_of_the_level_below_and_the_new_branch() -> None:
    model = progan().eval()
    z = SampleRng(0, range(4)).normal("latent", 6)
    x = torch.randn(4, 1, 16, 16)
    one = torch.ones(())
    with torch.no_grad():
        low, high = model.generator(z, None, 1), model.generator(z, None, 2)
        assert low.shape == (4, 1, 8, 8)
        assert torch.equal(model.generator(z, None, 2, 0 * one), enlarge(low))
        assert torch.equal(model.generator(z, None, 2, one), high)
        assert torch.equal(model.generator(z), high)
        torch.testing.assert_close(model.generator(z, None, 2, 0.25 * one), 0.75 * enlarge(low) + 0.25 * high)
        # the critic of the level below sees the halved picture
        assert torch.equal(model.critic(x, 2, 0 * one), model.critic(reduce(x), 1))
        assert torch.equal(model.critic(x, 2, one), model.critic(x, 2))
        assert not torch.allclose(model.critic(x, 2), model.critic(reduce(x), 1))
        # real pictures lose their detail likewise
        assert torch.equal(model.seen(x, 2, one), x)
        torch.testing.assert_close(model.seen(x, 2, 0 * one), enlarge(reduce(x)))
        torch.testing.assert_close(model.seen(x, 0, one), F.avg_pool2d(x, 4))
        torch.testing.assert_close(model.seen(x, 1, 0.5 * one), fade(enlarge(F.avg_pool2d(x, 4)), reduce(x), 0.5 * one))


def test_samples_are_what_it_has_grown_to() -> None:
    """At every stage: each picture is the level's, its pixels repeated; labels too."""
    model = progan(conditional=True).eval()
    rng, label = SampleRng(0, range(3)), torch.tensor([0, 1, 2])
    z = rng.normal("latent", 6)
    for level, factor in ((0, 4), (1, 2), (2, 1)):
        model.level.fill_(level)
        for alpha in (0.3, 1.0):
            model.alpha.fill_(alpha)
            x = model.sample(3, {"label": label}, rng=rng).x
            cells = x.unflatten(2, (-1, factor)).unflatten(4, (-1, factor))
            assert torch.equal(cells, cells[:, :, :, :1, :, :1].expand_as(cells))
            with torch.no_grad():
                small = model.generator(z, label, level, torch.tensor(alpha))
            assert torch.equal(x[:, :, ::factor, ::factor], model.outside(small))
            (call, inputs) = model.export_calls()["generator"]
            assert call(*inputs).shape == (2, 1, 16, 16)
            seen = model.perceive()["critic"](x.float())
            assert seen.shape == (3, 4)
            for judge in (model.judge, model.judge_smooth):
                torch.testing.assert_close(judge(model.inside(x), label), seen[:, 0])


def test_a_stage_moves_what_it_uses() -> None:
    """The two picture layers of a fade, all blocks below, nothing above, and everything of it gets a gradient."""
    model = progan(conditional=True)
    ids = [{id(p) for o in stage.objectives for p in o.module.parameters()} for stage in model.stages()]
    top = {id(p) for p in (*model.generator.blocks[1].parameters(), *model.critic.from_picture[2].parameters())}
    assert not top & (ids[0] | ids[1])
    assert top <= ids[2]
    assert not {id(p) for p in model.generator.to_picture[0].parameters()} & ids[2]
    assert ids[0] | ids[1] | ids[2] == {id(p) for p in model.parameters()}
    for level, stage in enumerate(model.stages()):
        for objective in stage.objectives:
            assert isinstance(objective, Objective)
            model.zero_grad()
            objective.loss(batch(), BatchRng(0, total=8), Progress(1, 4))[0].backward()
            for p in objective.module.parameters():
                assert p.grad is not None
                assert p.grad.abs().max() > 0, (level, objective.name, p.shape)


# layers


def test_equalised_layers_begin_alike() -> None:
    """Stored weights have deviation 1 in every layer, and what goes through a layer keeps its mean square.

    He's gain is for a rectifier that cuts half off; the leaky one keeps 4 % of that half, so 1.04 times as much remains.
    """
    torch.manual_seed(0)
    model = progan(channels=256, most=64, latent_dims=64)
    layers = [m for m in model.modules() if isinstance(m, (EqualConv2d, EqualLinear)) and m.weight.numel() > 2000]
    assert len(layers) > 8
    for layer in layers:
        assert float(layer.weight.detach().std()) == pytest.approx(1, rel=0.06)
    with torch.no_grad():
        for block in (*model.generator.blocks, *model.critic.blocks):
            conv = block.conv1
            assert isinstance(conv, EqualConv2d)
            x = torch.randn(16, conv.weight.shape[1], 20, 20)
            y = F.leaky_relu(conv(x), 0.2)[..., 1:-1, 1:-1]
            assert float(y.square().mean()) == pytest.approx(1.04, rel=0.15)
        picture = model.generator.to_picture[0](torch.randn(16, 64, 4, 4))
        assert float(picture.square().mean()) == pytest.approx(1, rel=0.4)  # one row of 64 weights
        x = model.generator.start(torch.randn(256, 64))
        torch.testing.assert_close(x.square().mean(1), torch.ones(256, 4, 4), atol=1e-3, rtol=0)
        # the paper's first layer: its scale is sqrt(2) / 4 of He's for a map of 4x4
        assert model.generator.start.linear.scale == pytest.approx(2**0.5 / 4 / 64**0.5)


def test_deviation_of_a_batch_made_by_hand() -> None:
    """Two groups of two neighbours: their deviation over the pair, averaged over all features, is the last channel."""
    end = End(3, (2, 2), 1, group=2)
    seen: list[Tensor] = []
    end.conv.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    x = torch.zeros(4, 3, 2, 2)
    x[0], x[1] = 1.0, 5.0  # deviation 2
    x[2, 0], x[3, 0] = 0.0, 6.0  # deviation 3 in one of three channels
    end(x)
    assert torch.equal(seen[0][:, :3], x)
    expected = torch.tensor([2.0, 2.0, 1.0, 1.0])[:, None, None].expand(4, 2, 2)
    torch.testing.assert_close(seen[0][:, 3], expected, atol=1e-3, rtol=0)
    # so half a batch of whole groups sees what the whole one does
    torch.testing.assert_close(end(x)[:2], end(x[:2]))
    assert End(3, (2, 2), 1, group=0).conv.weight.shape[1] == 3


def test_without_deviation_pictures_are_judged_alone() -> None:
    x = torch.randn(4, 1, 16, 16)
    alone, together = progan(group=0).eval(), progan(group=4).eval()
    torch.testing.assert_close(alone.critic(x)[:1], alone.critic(x[:1]))
    assert not torch.allclose(together.critic(x)[:1], together.critic(x[:1]))


# the game


def test_losses_by_hand() -> None:
    """The Wasserstein game with a slope of 750, drift and classes, from the networks' outputs; its gradient too."""
    model, b, rng = (
        progan(conditional=True, slope=750.0, drift=0.1, group=0, label_weight=2.0),
        batch(),
        BatchRng(3, total=8),
    )
    alpha = torch.tensor(0.4)
    x = b.x.float() / 127.5 - 1
    real = fade(enlarge(reduce(x)), x, alpha)
    fake = model.generator(rng.normal("latent", 6), b.label, 2, alpha).detach()
    on_real, on_fake = model.critic(real, 2, alpha), model.critic(fake, 2, alpha)
    share = rng.uniform("mix").view(-1, 1, 1, 1)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(model.critic(between, 2, alpha)[:, 0].sum(), between, create_graph=True)
    penalty = ((slope.flatten(1).norm(dim=1) - 750) ** 2).mean() / 750**2
    assert b.label is not None
    classes = F.cross_entropy(on_real[:, 1:], b.label) + F.cross_entropy(on_fake[:, 1:], b.label)
    expected = on_fake[:, 0].mean() - on_real[:, 0].mean() + 10 * penalty + 0.1 * on_real[:, 0].square().mean()
    expected = expected + 2 * classes
    found, logs = model.critic_loss(b, rng, Progress(20, 100), 2)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logs["penalty"], penalty.detach())
    for one, other in zip(
        torch.autograd.grad(found, list(model.critic.used(2).parameters())),
        torch.autograd.grad(expected, list(model.critic.used(2).parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    wrong = 2 * F.cross_entropy(on_fake[:, 1:], b.label)
    torch.testing.assert_close(model.generator_loss(b, rng, Progress(20, 100), 2)[0], wrong - on_fake[:, 0].mean())


def test_other_games_and_their_lazy_penalty() -> None:
    b, rng = batch(), BatchRng(3, total=8)
    plain, lazy = progan(game="non-saturating"), progan(game="non-saturating", r1=2.0, r1_every=4)
    x = b.x.float() / 127.5 - 1
    fake = plain.generator(rng.normal("latent", 6)).detach()
    real = x.requires_grad_(True)
    on_real, on_fake = plain.critic(real)[:, 0], plain.critic(fake)[:, 0]
    (slope,) = torch.autograd.grad(on_real.sum(), real, retain_graph=True)
    expected = critic_loss("non-saturating", on_real, on_fake)
    for step, extra in ((80, 4.0 * slope.square().sum((1, 2, 3)).mean()), (81, torch.zeros(()))):
        found, _ = lazy.critic_loss(b, rng, Progress(step, 100), 2)
        torch.testing.assert_close(found, expected + extra)
        torch.testing.assert_close(plain.critic_loss(b, rng, Progress(step, 100), 2)[0], expected)
    for wrong in ({"r1": 1.0}, {"fade": 0.0}, {"fade": 1.0}, {"slope": 0.0}, {"batch_sizes": (0,)}, {"channels": 1}):
        with pytest.raises(ValueError):
            ProGANConfig(**wrong)
    with pytest.raises(UsageError, match="labels"):
        build(ProGAN, ProGANConfig(conditional=True), ImageSpec(1, 16, 16))


# interruptions


def test_a_run_stopped_inside_a_fade_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Stopped at a checkpoint with alpha between 0 and 1, whose samples are of that alpha; the rest is the same."""
    base = recipes.tiny("progan")
    training = replace(base.training, steps=40, batch_size=8, checkpoint_every=5, precision="float32", samples=4)
    recipe = replace(base, training=training)
    data = api.training_data(recipe)

    def crash(step: int, logs: object) -> None:
        if step == 16:
            raise RuntimeError("crash")

    whole = train(recipe, data, tmp_path / "whole", quiet=True)
    with pytest.raises(RuntimeError, match="crash"):
        train(recipe, data, tmp_path / "run", quiet=True, callback=crash)
    found = checkpoints.newest((tmp_path / "run") / "checkpoints")
    assert found is not None
    assert found.step == 15
    state = found.tensors("ema")
    assert int(state["level"]) == 1
    assert 0 < float(state["alpha"]) < 1
    resumed = train(recipe, data, tmp_path / "run", quiet=True, resume=True)
    one, two = checkpoints.newest(whole.checkpoints), checkpoints.newest(resumed.checkpoints)
    assert one is not None
    assert two is not None
    for group in ("model", "ema", "optimizer"):
        left, right = one.tensors(group), two.tensors(group)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    ended = two.tensors("ema")
    assert (int(ended["level"]), float(ended["alpha"])) == (1, 1.0)
    assert np.isfinite(whole.metrics()[-1]["critic/loss"])
