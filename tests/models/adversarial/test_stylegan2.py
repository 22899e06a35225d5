"""StyleGAN2: modulated convolutions, penalties, lazy arithmetic, sizes of the papers, styles."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia import api, recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, Update, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.losses import input_gradient, r1
from castalia.models.adversarial.modulated import modulated_conv
from castalia.models.adversarial.style_critic import Deviation
from castalia.models.adversarial.styled import path_lengths
from castalia.models.adversarial.stylegan import StyleGAN
from castalia.models.adversarial.stylegan2 import StyleGAN2, StyleGAN2Config
from castalia.models.adversarial.styles import Mapping, StyleOptions, crossed, truncated
from castalia.training.loop import train
from tests.tools import small_recipe

SMALL: dict[str, Any] = {
    "latent_dims": 6,
    "style_dims": 8,
    "mapping_layers": 2,
    "channels": 32,
    "most": 8,
    "ada": ("geometry", "colour"),
    "ada_examples": 100.0,
}


def small(spec: ImageSpec | None = None, **config: Any) -> StyleGAN2:
    made = build(StyleGAN2, StyleGAN2Config(**SMALL | config), spec or ImageSpec(3, 16, 16))
    assert isinstance(made, StyleGAN2)
    return made.train()


def batch(spec: ImageSpec, n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, *spec.shape), dtype=torch.uint8, generator=g)
    return Batch(x, torch.arange(n), torch.arange(n) % max(len(spec.classes), 1))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parts(model: StyleGAN2) -> dict[str, Objective | Update]:
    return {part.name: part for part in model.stages()[0].objectives}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# modulated convolutions


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_fused_equals_split_equals_a_loop(up: bool, demodulate: bool) -> None:
    x, weight, style = numbers(3, 5, 6, 4), numbers(7, 5, 3, 3, seed=1), numbers(3, 5, seed=2)
    split = modulated_conv(x, weight, style, demodulate=demodulate, up=up, form="split")
    fused = modulated_conv(x, weight, style, demodulate=demodulate, up=up, form="fused")
    rows = []
    for one, s in zip(x, style, strict=True):
        own = weight * s[None, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            rows.append(F.conv_transpose2d(one[None], own.transpose(0, 1), stride=2))
        else:
            rows.append(F.conv2d(one[None], own, padding=1))
    loop = torch.cat(rows)
    torch.testing.assert_close(split, loop, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused, loop, atol=1e-5, rtol=1e-5)


def test_demodulated_maps_have_deviation_one() -> None:
    style = 3 * numbers(64, 32, seed=1)  # of any strength
    y = modulated_conv(numbers(64, 32, 8, 8), numbers(16, 32, 3, 3, seed=2), style)[:, :, 1:-1, 1:-1]
    assert y.std().item() == pytest.approx(1, abs=0.03)


# sizes of the papers


@pytest.mark.parametrize(
    ("side", "config", "mapping", "generator", "critic", "layers"),
    [
        (32, {"conditional": True, "mapping_layers": 2, "critic": "plain"}, 793_088, 20_215_315, 23_089_664, 8),
        (256, {"channels": 16384}, 2_101_248, 24_767_458, 24_001_089, 14),
        (256, {}, 2_101_248, 30_034_338, 28_864_129, 14),
        (1024, {}, 2_101_248, 30_370_060, 29_012_513, 18),
    ],
)
def test_parameters_of_the_papers(
    side: int, config: dict[str, Any], mapping: int, generator: int, critic: int, layers: int
) -> None:
    classes = tuple("0123456789") if config.get("conditional") else ()
    with torch.device("meta"):
        model = StyleGAN2(StyleGAN2Config(**config), ImageSpec(3, side, side, classes))
    assert count(model.generator.mapping) == mapping
    assert count(model.generator) == generator
    assert count(model.critic) == critic
    assert model.style_layers == layers


def test_recipes_of_the_papers_have_those_sizes() -> None:
    assert recipes.recipe("stylegan2-1024").config == StyleGAN2Config()
    cifar = recipes.recipe("stylegan2-cifar").config
    assert isinstance(cifar, StyleGAN2Config)
    assert (cifar.mapping_layers, cifar.critic, cifar.group, cifar.r1, cifar.path) == (2, "plain", 32, 0.01, 0.0)


@pytest.mark.parametrize(
    ("channels", "height", "width", "network"), [(1, 8, 8, "skip"), (4, 48, 64, "skip"), (3, 28, 28, "residual")]
)
def test_any_channels_and_sides(channels: int, height: int, width: int, network: Literal["skip", "residual"]) -> None:
    spec = ImageSpec(channels, height, width)
    model = small(spec, network=network, ada=("blit", "geometry", "colour", "filter", "noise", "cutout"), ada_start=0.5)
    assert model.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, *spec.shape)
    loss, _ = model.critic_loss(batch(spec, 4), BatchRng(0, total=4), Progress(0, 1))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.critic.parameters())


def test_classes_are_projected_onto_features_and_divided_by_the_root_of_their_number() -> None:
    spec = ImageSpec(3, 16, 16, ("a", "b", "c"))
    critic = small(spec, conditional=True, group=0).critic
    x, label = numbers(3, 3, 16, 16), torch.tensor([0, 2, 1])
    features = critic(x)
    assert features.shape == (3, 8)
    assert critic.mapping is not None
    by_hand = [
        sum(f * c for f, c in zip(*rows, strict=True)) / 8**0.5
        for rows in zip(features.tolist(), critic.mapping(None, label).tolist(), strict=True)
    ]
    torch.testing.assert_close(critic(x, label), torch.tensor(by_hand)[:, None], atol=1e-5, rtol=1e-5)


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(UsageError, match="halved"):
        small(ImageSpec(3, 37, 41))


# penalties


def test_slope_penalty_against_finite_differences() -> None:
    model = small(ada=(), group=0).double()  # the deviation is computed in float32
    x = numbers(2, 3, 16, 16).double()
    critic = model.critic

    with torch.no_grad():
        slopes = []
        for place in torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(1))[:20]:
            step = torch.zeros_like(x).view(2, -1)
            step[:, place] = 1e-5
            step = step.view_as(x)
            slopes.append((critic(x + step).sum() - critic(x - step).sum()).item() / 2e-5)
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(leaf).sum(), leaf)
    places = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(1))[:20]
    torch.testing.assert_close(gradient.flatten(1).sum(0)[places], torch.tensor(slopes).double(), rtol=1e-4, atol=1e-7)
    assert r1(gradient).item() == pytest.approx(0.5 * gradient.square().sum().item() / 2)


def test_lazy_slope_loss_is_as_strong_as_what_it_leaves_out() -> None:
    model = small(ada=(), r1=3.0, r1_every=16)
    b = batch(model.spec)
    loss, logs = model.slope_loss(b, BatchRng(0, total=8), Progress(0, 1))
    _, gradient = input_gradient(model.critic, model.inside(b.x))
    assert logs["penalty"].item() == pytest.approx(r1(gradient).item(), rel=1e-5)
    assert loss.item() == pytest.approx(48 * logs["penalty"].item(), rel=1e-5)


def test_slope_penalty_through_augmentation_against_finite_differences() -> None:
    """R1 is on the slope at the pictures as they are, of the critic that sees them changed."""
    model = small(ImageSpec(1, 8, 8), group=0, r1=3.0, ada=("blit", "geometry", "colour"), ada_start=0.8)
    b, rng = batch(model.spec, 3), BatchRng(1, total=3)
    x = model.inside(b.x)

    squares, critic = torch.zeros(3), deepcopy(model.critic).double()
    with torch.no_grad():
        seen = model.ada(x, rng.at("real")).double()
        for place in range(64):
            one = torch.zeros(1, 64)
            one[:, place] = 1
            step = 1e-6 * (model.ada(x + one.view(1, 1, 8, 8), rng.at("real")) - seen)  # all changes are affine
            squares += ((critic(seen + step) - critic(seen - step)).flatten() / 2e-6).square()
    _, logs = model.slope_loss(b, rng, Progress(0, 1))
    assert logs["penalty"].item() == pytest.approx(0.5 * squares.mean().item(), rel=0.01)
    plain = small(ImageSpec(1, 8, 8), group=0, r1=3.0, ada=())
    plain.load_state_dict(model.state_dict())
    assert plain.slope_loss(b, rng, Progress(0, 1))[1]["penalty"].item() != pytest.approx(
        logs["penalty"].item(), rel=0.05
    )
    every = small(ImageSpec(1, 8, 8), group=0, r1=3.0, r1_every=1, ada=("blit", "geometry", "colour"), ada_start=0.8)
    every.load_state_dict(model.state_dict())
    assert every.critic_loss(b, rng, Progress(0, 1))[1]["r1"].item() == pytest.approx(logs["penalty"].item(), rel=1e-4)


class Marked(nn.Module):
    """In place of the augmentation: what has been through it is far above all else."""

    kinds, target = ("colour",), 0.6

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", torch.zeros(()))

    def forward(self, x: Tensor, rng: object) -> Tensor:
        return x + 1000


@pytest.mark.parametrize("system", [StyleGAN2, StyleGAN])
@pytest.mark.parametrize("r1_every", [1, 4])
def test_the_critic_sees_no_picture_that_is_not_augmented(system: type[Any], r1_every: int) -> None:
    config = {name: value for name, value in SMALL.items() if not name.startswith("ada")}
    model = build(system, system.Config(**config, r1=1.0, r1_every=r1_every), ImageSpec(3, 16, 16))
    model.ada, seen = Marked(), []  # type: ignore[attr-defined]
    whole = model.critic.forward  # type: ignore[attr-defined]
    model.critic.forward = lambda x, label=None: (seen.append(x.detach()), whole(x, label))[1]  # type: ignore[attr-defined]
    b, rng, counts = batch(ImageSpec(3, 16, 16)), BatchRng(0, total=8), []
    losses = ["critic_loss", "generator_loss", "listen", *(["slope_loss"] if r1_every > 1 else [])]
    for name in losses:
        before = len(seen)
        getattr(model, name)(b, rng, Progress(0, 1))
        counts.append(len(seen) - before)
    assert counts == [2, 1, 1, *([1] if r1_every > 1 else [])]
    assert all((x > 900).all() for x in seen)


def test_path_lengths_against_finite_differences() -> None:
    """The length is the norm of J' y, found here style by style."""
    model = small().double()
    synthesis = model.generator.synthesis.double()
    styles = numbers(1, model.style_layers, 8).double().requires_grad_(True)
    y = numbers(1, 3, 16, 16, seed=1).double()
    noise = [n.double() for n in model.noise(BatchRng(0, total=1)) or []]

    class Double(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return synthesis(w, noise)

    whole = Double()
    found = path_lengths(whole(styles).double(), styles, y)
    flat, rest = styles.detach().flatten(), []
    with torch.no_grad():
        for i in range(flat.numel()):
            ends = []
            for h in (1e-2, -1e-2):
                moved = flat.clone()
                moved[i] += h
                ends.append((whole(moved.view_as(styles)).double() * y).sum().item() / 16)
            rest.append((ends[0] - ends[1]) / 2e-2)
    jacobian = torch.tensor(rest).view(model.style_layers, 8)
    by_hand = jacobian.square().sum(1).mean().sqrt().item()
    assert found.item() == pytest.approx(by_hand, rel=2e-3)


def test_the_mean_of_path_lengths_is_followed() -> None:
    model = small(path_decay=0.25)
    b, rng = batch(model.spec), BatchRng(0, total=8)
    loss, logs = model.path_loss(b, rng, Progress(0, 1))
    length = logs["length"].item()
    assert loss.item() == pytest.approx(2 * 4 * logs["penalty"].item(), rel=1e-5)
    model.follow_lengths(b, rng, Progress(0, 1))
    assert model.paths.mean.item() == pytest.approx(0.25 * length, rel=1e-5)
    model.follow_lengths(b, rng, Progress(1, 2))
    assert model.paths.mean.item() == pytest.approx(0.25 * length, rel=1e-5), "nothing new was seen"


def test_all_micro_batches_have_a_part_in_the_mean_of_path_lengths() -> None:
    model = small(path_decay=0.5, path_shrink=1)
    lengths = []
    for start, rows in ((0, 6), (6, 2)):
        rng = BatchRng(0, total=8, start=start, rows=rows)
        lengths.append(model.path_loss(batch(model.spec, rows), rng, Progress(0, 1))[1]["length"].item())
    assert abs(lengths[0] - lengths[1]) > 0.01 * lengths[0]
    model.paths.see(torch.tensor([math.nan, math.inf]))
    model.follow_lengths(batch(model.spec), BatchRng(0, total=8), Progress(0, 1))
    assert model.paths.mean.item() == pytest.approx(0.5 * (6 * lengths[0] + 2 * lengths[1]) / 8, rel=1e-5)


def test_lazy_optimizers() -> None:
    model = small(lr=0.0025, r1_every=16, path_every=4)
    found = parts(model)
    critic, slope, generator, path = (found[n] for n in ("critic", "r1", "generator", "path"))
    assert all(isinstance(part, Objective) for part in (critic, slope, generator, path))
    assert critic.optimizer == slope.optimizer  # type: ignore[union-attr]
    assert critic.optimizer.lr == pytest.approx(0.00235294, abs=1e-8)  # type: ignore[union-attr]
    assert critic.optimizer.betas == pytest.approx((0.0, 0.990586), abs=1e-6)  # type: ignore[union-attr]
    assert generator.optimizer == path.optimizer  # type: ignore[union-attr]
    assert generator.optimizer.lr == pytest.approx(0.0025 * 4 / 5)  # type: ignore[union-attr]
    assert (slope.every, path.every) == (16, 4)
    plain = parts(small(lr=0.0025, r1=0.0, path=0.0))
    assert set(plain) == {"critic", "generator", "style", "signs", "ada"}
    assert plain["critic"].optimizer.lr == plain["generator"].optimizer.lr == 0.0025  # type: ignore[union-attr]


# styles


def test_the_mean_style_is_followed() -> None:
    mapping = Mapping(4, 6, 2)
    w = mapping(numbers(4096, 4)).detach()
    for _ in range(400):
        mapping.follow(w, 0.05)
    torch.testing.assert_close(mapping.average, w.mean(0), atol=1e-5, rtol=0)
    model = small(average=4.0)
    b = batch(model.spec)
    model.follow(b, BatchRng(0, total=8), Progress(0, 1))
    fresh = model.generator.mapping(BatchRng(0, total=8).normal("latent", 6)).mean(0)
    torch.testing.assert_close(model.generator.mapping.average, 0.5 * fresh)  # four steps are a half-life


def test_mixing_crosses_once_and_as_often_as_said() -> None:
    styles, others = torch.zeros(4000, 6, 2), torch.ones(4000, 6, 2)
    mixed = crossed(styles, others, BatchRng(0, total=4000), 0.9)[:, :, 0]
    assert bool((mixed.diff(dim=1) >= 0).all()), "first the one, then the other"
    assert not mixed[:, 0].any()
    counts = torch.bincount(mixed.sum(1).long(), minlength=6)
    assert counts[0].item() == pytest.approx(400, abs=80)
    assert all(abs(c - 720) < 110 for c in counts[1:].tolist()), "every place alike"


def test_truncation() -> None:
    styles, average = numbers(3, 4, 5), numbers(5, seed=1)
    torch.testing.assert_close(truncated(styles, average, 0.0), average.expand(3, 4, 5))
    half = truncated(styles, average, 0.5, 2)
    torch.testing.assert_close(half[:, :2], 0.5 * (styles[:, :2] + average))
    assert torch.equal(half[:, 2:], styles[:, 2:])
    assert truncated(styles, average, 1.0) is styles


def test_psi_zero_draws_the_mean_picture() -> None:
    model = small().eval()
    model.generator.mapping.average.copy_(numbers(8))
    mean = model.render(model.generator.mapping.average.expand(1, model.style_layers, 8))
    expected = mean.round().clamp(0, 255).to(torch.uint8).expand(5, -1, -1, -1)
    for options in (StyleOptions(psi=0, noise="constant"), StyleOptions(temperature=0, noise="constant")):
        assert torch.equal(model.sample(5, rng=SampleRng(0, range(5)), options=options).x, expected)


def test_noise() -> None:
    model = small().eval()
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "strength"):
                module.strength.fill_(1.0)  # type: ignore[operator]
    drawn = {
        how: model.sample(2, rng=SampleRng(0, range(2)), options=StyleOptions(noise=how)).x
        for how in ("random", "constant", "none")
    }
    assert not torch.equal(drawn["random"], drawn["constant"])
    assert not torch.equal(drawn["constant"], drawn["none"])
    z = SampleRng(0, range(2)).normal("latent", 6)
    assert torch.equal(model.decode(z).x, drawn["constant"])
    assert torch.equal(model.decode(z, rng=SampleRng(0, range(2))).x, drawn["random"])


# training


def test_groups_of_neighbours() -> None:
    x = numbers(8, 3, 4, 4)
    whole = Deviation(4, 1)(x)
    assert whole.shape == (8, 4, 4, 4)
    torch.testing.assert_close(whole[4:], Deviation(4, 1)(x[4:]))
    assert not torch.equal(whole[0, 3], whole[4, 3])


@pytest.mark.parametrize("name", ["critic", "r1", "generator", "path"])
def test_gradients_are_finite_in_bfloat16(name: str) -> None:
    spec = ImageSpec(3, 16, 16, ("a", "b"))
    model = small(spec, conditional=True, ada_start=0.5)
    objective = parts(model)[name]
    assert isinstance(objective, Objective)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective.loss(batch(spec), BatchRng(0, total=8), Progress(0, 1))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.module.parameters())


def test_the_augmentation_listens_to_the_critic() -> None:
    model = small(ada_examples=320.0)
    b = batch(model.spec)
    with torch.no_grad():
        assert model.critic.out.bias is not None
        for bias, sign in ((1e6, 1.0), (-1e6, -1.0)):
            model.critic.out.bias.fill_(bias)
            model.listen(b, BatchRng(0, total=8), Progress(0, 1))
            assert model.ada.signs.item() == sign
            before = model.ada.p.item()
            model.steer(b, BatchRng(0, total=8), Progress(0, 1))
            assert model.ada.p.item() == pytest.approx(before + sign * 0.1, abs=1e-6)  # four steps of eight


def test_it_starts_from_a_finished_run(tmp_path: Path) -> None:
    recipe = small_recipe("stylegan2", steps=2)
    data = api.training_data(recipe)
    first = train(recipe, data, tmp_path / "first", quiet=True)
    again = replace(recipe, parents=(("start", str(tmp_path / "first")),), training=replace(recipe.training, seed=5))
    again = replace(again, training=replace(again.training, steps=1))
    second = train(again, data, tmp_path / "second", quiet=True)
    one, two = first.model()[0].state_dict(), second.model()[0].state_dict()
    key = "generator.synthesis.levels.0.constant"
    fresh = build(StyleGAN2, recipe.config, data.spec, 5).state_dict()
    assert (two[key] - one[key]).abs().max() < 0.05 < (two[key] - fresh[key]).abs().max()


def test_bad_values_are_refused() -> None:
    for wrong in ({"mixing": 2}, {"ada_target": 1.0}, {"ada": ("zoom",)}, {"path_shrink": 0}, {"lr": 0}, {"eps": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
            StyleGAN2Config(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="psi"):
        StyleOptions(psi=math.nan)
