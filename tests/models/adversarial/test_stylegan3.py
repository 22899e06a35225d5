"""StyleGAN3: layers of the paper, filters, equivariance, magnitudes, the critic's rate and blur."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import signal, special
from torch import Tensor, nn

from castalia import recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, Update, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.bands import low_pass
from castalia.models.adversarial.filtered import FilteredLayer, FourierInput, Refilter
from castalia.models.adversarial.stylegan3 import StyleGAN3, StyleGAN3Config, blurred, table_of
from castalia.nn.resampling import upfirdn

SMALL: dict[str, Any] = {
    "latent_dims": 6,
    "style_dims": 8,
    "channels": 128,
    "most": 16,
    "layers": 5,
    "ada": ("geometry", "colour"),
    "ada_examples": 100.0,
}


def small(spec: ImageSpec | None = None, **config: Any) -> StyleGAN3:
    made = build(StyleGAN3, StyleGAN3Config(**SMALL | config), spec or ImageSpec(3, 32, 32))
    assert isinstance(made, StyleGAN3)
    return made.train()


def batch(spec: ImageSpec, n: int = 4) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, *spec.shape), dtype=torch.uint8, generator=g)
    return Batch(x, torch.arange(n), torch.arange(n) % max(len(spec.classes), 1))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parts(model: StyleGAN3) -> dict[str, Objective | Update]:
    return {part.name: part for part in model.stages()[0].objectives}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# sizes of the paper


@pytest.mark.parametrize(
    ("name", "side", "generator", "critic"),
    [
        ("stylegan3-t-256", 256, 23_320_443, 24_001_089),
        ("stylegan3-t-1024", 1024, 22_313_167, 29_012_513),
        ("stylegan3-r-256", 256, 15_779_565, 24_001_089),
        ("stylegan3-r-1024", 1024, 15_093_151, 29_012_513),
    ],
)
def test_parameters_of_the_paper(name: str, side: int, generator: int, critic: int) -> None:
    config = recipes.recipe(name).config
    assert isinstance(config, StyleGAN3Config)
    with torch.device("meta"):
        model = StyleGAN3(config, ImageSpec(3, side, side))
    assert (count(model.generator), count(model.critic), model.style_layers) == (generator, critic, 16)


def test_parameters_of_the_wide_network_at_256() -> None:
    with torch.device("meta"):
        model = StyleGAN3(StyleGAN3Config(), ImageSpec(3, 256, 256))
    assert count(model.generator) == 28_472_133


@pytest.mark.parametrize(
    ("side", "rates", "sizes", "channels"),
    [
        (
            256,
            [16, 16, 16, 32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256],
            [36, 36, 36, 52, 52, 84, 84, 148, 148, 148, 276, 276, 276, 256, 256],
            [512, 512, 512, 512, 512, 512, 512, 512, 512, 362, 256, 181, 128, 128, 128],
        ),
        (
            1024,
            [16, 16, 32, 32, 64, 128, 128, 256, 256, 512, 1024, 1024, 1024, 1024, 1024],
            [36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024, 1024],
            [512, 512, 512, 512, 512, 512, 512, 323, 203, 128, 81, 51, 32, 32, 32],
        ),
    ],
)
def test_layers_of_the_paper(side: int, rates: list[int], sizes: list[int], channels: list[int]) -> None:
    table = table_of(StyleGAN3Config(), side, side)
    assert [band.rate for band in table] == rates
    assert [band.size for band in table] == [(n, n) for n in sizes]
    assert [band.channels for band in table] == channels
    for layer, band in enumerate(table):
        along = min(layer / 12, 1)
        assert band.cutoff == pytest.approx(2 * (side / 4) ** along)
        stop = 2**2.1 * (side / 2 * 2**0.3 / 2**2.1) ** along
        assert band.cutoff + band.half_width == pytest.approx(max(stop, band.rate / 2))
        assert band.critical == (layer >= 12)


@pytest.mark.parametrize(("channels", "height", "width", "kind"), [(1, 8, 8, "t"), (4, 24, 40, "r"), (3, 28, 28, "t")])
def test_any_channels_and_sides(channels: int, height: int, width: int, kind: str) -> None:
    spec = ImageSpec(channels, height, width)
    model = small(spec, kind=kind)
    assert model.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, *spec.shape)
    loss, _ = model.generator_loss(batch(spec), BatchRng(0, total=4), Progress(0, 1))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.generator.parameters())


# filters


def test_filters_are_scipys() -> None:
    for taps, cutoff, half, rate in ((12, 2.0, 6.0, 32.0), (24, 8.0, 8.0, 128.0), (12, 16.0, 3.7, 64.0)):
        expected = torch.from_numpy(signal.firwin(taps, cutoff, width=2 * half, fs=rate))
        torch.testing.assert_close(low_pass(taps, cutoff, half, rate), expected.float(), atol=1e-6, rtol=1e-5)


def test_the_round_filter_is_alike_in_all_directions() -> None:
    f = low_pass(12, 8.0, 8.0, 64.0, radial=True)
    torch.testing.assert_close(f, f.T)
    assert f.sum().item() == pytest.approx(1, abs=1e-5)
    place = (torch.arange(12).double() - 5.5) / 64
    r = torch.hypot(place[:, None], place)
    ideal = torch.from_numpy(special.j1(2 * math.pi * 8 * r.numpy())) / r
    window = f.double() / ideal  # what is left is the window: a product of one for each axis
    torch.testing.assert_close(window * window[5, 5], window[:, 5:6] * window[5:6], rtol=1e-4, atol=1e-9)

    def passed(x: float, y: float, taps: Tensor) -> float:
        wave = torch.exp(-2j * math.pi * (place[:, None] * y + place * x))
        return (taps.double() * wave).sum().abs().item()

    one = low_pass(12, 8.0, 8.0, 64.0)
    uneven = []
    for frequency in (4.0, 8.0, 12.0):
        slant = frequency / math.sqrt(2)
        assert passed(slant, slant, f) == pytest.approx(passed(frequency, 0, f), abs=0.01)
        square = one[:, None] * one
        uneven.append(abs(passed(slant, slant, square) - passed(frequency, 0, square)))
    assert max(uneven) > 0.03, "that of two axes is not"


@pytest.mark.parametrize(
    ("up", "down", "radial", "padding"),
    [(2, 1, False, (7, 8, 3, 2)), (1, 2, True, (0, 0, 0, 0)), (4, 2, True, (1, 2, 5, 4))],
)
def test_matrices_do_what_convolutions_do(up: int, down: int, radial: bool, padding: tuple[int, int, int, int]) -> None:
    taps = low_pass(6 * max(up, down), 2.0, 1.5, 16.0, radial)
    x = numbers(2, 3, 17, 22)
    by_matrix, plain = (Refilter((17, 22), taps, up, down, padding, dense=dense) for dense in (True, False))
    expected = upfirdn(x, taps, up, down, padding, gain=float(up**2))
    assert torch.equal(plain(x), expected)
    torch.testing.assert_close(by_matrix(x), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("dense", [True, False])
def test_second_derivatives_of_a_layer(dense: bool) -> None:
    table = table_of(StyleGAN3Config(layers=4, critical=1, margin=1, channels=8), 8, 8)
    layer = FilteredLayer(table[0], table[1], 3, kernel=3, taps=4, radial=False, outputs=2).double()
    if not dense:
        for part in (layer.rise, layer.fall):
            assert part is not None
            part.dense = False
    x = numbers(1, table[0].channels, *table[0].size).double().requires_grad_(True)
    y = numbers(1, table[0].channels, *table[0].size, seed=1).double()
    style = numbers(1, 3).double()

    def slope(x: Tensor) -> Tensor:
        out = layer(x, style, torch.ones(()).double())
        (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return gradient

    (found,) = torch.autograd.grad((slope(x) * y).sum(), x)
    h = 1e-5
    by_hand = (slope(x + h * y) - slope(x - h * y)) / (2 * h)
    torch.testing.assert_close(found, by_hand, rtol=1e-3, atol=1e-5)


def test_first_maps_are_waves_within_the_disc() -> None:
    table = table_of(StyleGAN3Config(), 64, 64)
    begin = FourierInput(table[0], 4)
    length = begin.waves.norm(dim=1)
    assert length.max() <= 2
    assert (length < math.sqrt(2)).float().mean().item() == pytest.approx(0.5, abs=0.08), "uniform in area"
    x = begin(numbers(2, 4))
    assert torch.equal(x[0], x[1]), "at first no style moves them"
    assert x.square().mean().item() == pytest.approx(0.5, abs=0.1)


def test_the_style_turns_and_shifts_the_first_maps() -> None:
    table = table_of(StyleGAN3Config(), 64, 64)
    begin = FourierInput(table[0], 4)
    plain = begin(torch.zeros(1, 4))
    with torch.no_grad():
        assert begin.affine.bias is not None
        begin.affine.bias.copy_(torch.tensor([0.0, 2.0, 0.0, 0.0]))  # a quarter turn, of any strength
    quarter = begin(torch.zeros(1, 4))
    torch.testing.assert_close(quarter, torch.rot90(plain, 3, (2, 3)), atol=1e-4, rtol=0)
    with torch.no_grad():
        begin.affine.bias.copy_(torch.tensor([2.0, 0.0, 2 * 3 / 16, 2 * -1 / 16]))  # three samples right, one up
    moved = begin(torch.zeros(1, 4))
    torch.testing.assert_close(moved[:, :, :-1, 3:], plain[:, :, 1:, :-3], atol=1e-4, rtol=0)


# equivariance


def decibels(error: Tensor) -> float:
    return 10 * math.log10(4 / error.square().mean().item())


@pytest.mark.parametrize("kind", ["t", "r"])
def test_an_untrained_generator_moves_its_pictures(kind: str) -> None:
    model = small(ImageSpec(3, 64, 64), kind=kind, layers=14, channels=512).eval()
    move = torch.eye(3)[None].clone()
    move[0, :2, 2] = torch.tensor([-5 / 64, 3 / 64])  # five pixels right, three up
    with torch.no_grad():
        styles = model.styles(numbers(2, 6))
        still, moved = model.synthesis(styles), model.render_moved(styles, move)
        expected = still[:, :, 3:, :-5] / still.std()  # as loud as a picture
        assert decibels(expected - moved[:, :, :-3, 5:] / still.std()) > 50
        quarter = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
        turned = torch.rot90(still, 3, (2, 3)) - model.render_moved(styles, quarter)
        assert (decibels(turned / still.std()) > 80) == (kind == "r")


# training


def test_magnitudes_move_in_their_own_update_alone() -> None:
    model = small(magnitude=16.0)
    squares = model.synthesis.magnitudes.squares
    b, rng = batch(model.spec), BatchRng(0, total=4)
    model.generator_loss(b, rng, Progress(0, 1))
    model.critic_loss(b, rng, Progress(0, 1))
    model.sample(2, rng=SampleRng(0, range(2)))
    assert torch.equal(squares, torch.ones(6))
    seen: list[Tensor] = []
    with torch.no_grad():
        model.synthesis(model.make_styles(rng, None), seen=seen)
    model.follow_magnitudes(b, rng, Progress(0, 1))
    torch.testing.assert_close(squares, 0.5 + 0.5 * torch.stack(seen))  # four steps of four are a half-life


def test_magnitudes_are_divided_out() -> None:
    model = small().eval()
    with torch.no_grad():
        styles = model.styles(numbers(2, 6))
        before = model.synthesis(styles)
        model.synthesis.begin.weight.mul_(3.0)
        assert not torch.allclose(model.synthesis(styles), before, atol=1e-3)
        model.synthesis.magnitudes.squares[0] = 9.0
        torch.testing.assert_close(model.synthesis(styles), before, atol=1e-5, rtol=1e-4)


def test_both_networks_have_their_rates() -> None:
    found = parts(small(r1_every=16))
    critic, slope, generator = found["critic"], found["r1"], found["generator"]
    assert critic.optimizer == slope.optimizer  # type: ignore[union-attr]
    assert critic.optimizer.lr == pytest.approx(0.002 * 16 / 17)  # type: ignore[union-attr]
    assert generator.optimizer.lr == 0.0025  # type: ignore[union-attr]
    assert "path" not in found


def test_the_critic_sees_sharper_and_sharper_pictures() -> None:
    model, sigmas = small(blur=4.0, blur_steps=10, ada=()), []
    judge = model.critic.forward

    def listening(x: Tensor, label: Tensor | None = None) -> Tensor:
        sigmas.append(model.sigma)
        return judge(x, label)

    model.critic.forward = listening  # type: ignore[method-assign]
    b, rng = batch(model.spec), BatchRng(0, total=4)
    for step in (0, 5, 10, 20):
        for part in (model.critic_loss, model.slope_loss, model.generator_loss):
            part(b, rng, Progress(step, 20))
    assert sigmas == [4.0] * 4 + [2.0] * 4 + [0.0] * 8
    assert model.sigma == 0
    x = torch.zeros(1, 1, 33, 33)
    x[0, 0, 16, 16] = 1
    y = blurred(x, 2.0)[0, 0]
    place = torch.arange(33.0) - 16
    assert y.sum().item() == pytest.approx(1, abs=1e-5)
    assert (y.sum(0) * place.square()).sum().sqrt().item() == pytest.approx(2, abs=0.05)
    assert blurred(x, 0.0) is x


@pytest.mark.parametrize("name", ["critic", "r1", "generator"])
def test_gradients_are_finite_in_bfloat16(name: str) -> None:
    spec = ImageSpec(3, 16, 16, ("a", "b"))
    model = small(spec, conditional=True, ada_start=0.5, kind="r", blur=1.0)
    objective = parts(model)[name]
    assert isinstance(objective, Objective)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective.loss(batch(spec), BatchRng(0, total=4), Progress(0, 1))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.module.parameters())


def test_bad_values_are_refused() -> None:
    for wrong in ({"kind": "s"}, {"layers": 2}, {"taps": 5}, {"margin": -1}, {"first_stop": 1.0}, {"critic_lr": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
            StyleGAN3Config(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="first_cutoff"):
        small(ImageSpec(3, 8, 8), first_cutoff=4.0)
