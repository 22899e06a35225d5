"""Discrete diffusion: its loss, its bound and its samples against closed forms; what redrawing and guidance keep."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.sampling import Preview
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion.ddpm import DDPM, DDPMConfig, DDPMOptions
from castalia.models.diffusion.networks import PerceptronConfig
from castalia.models.diffusion.samplers import evaluations
from castalia.nn.unet import UNetConfig
from castalia.nn.units import PictureUnits
from tests.tools import Table

TINY = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4)
SAMPLERS = ["ddpm", "ddim", "euler", "euler-ancestral", "heun", "dpm++2m", "dpm++3m", "dpm++2m-sde"]


def pictures(classes: int = 0, noise: float = 0.3, **config: Any) -> DDPM:
    """A small model of 8x8 pictures whose weights say something (an untrained network's last layer is zero)."""
    spec = ImageSpec(1, 8, 8, tuple(map(str, range(classes))))
    model = build(DDPM, DDPMConfig(unet=TINY, conditional=classes > 0, **config), spec)
    assert isinstance(model, DDPM)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(noise * torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel() if p.ndim > 1 else 16))
    return model.eval()


def examples(n: int = 4, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


class Ideal(nn.Module):
    """Predicts the noise in standard normal data: E[eps | x_t] = sqrt(1 - abar_t) x_t."""

    def __init__(self, model: DDPM) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.process = model.process

    def embed(self, t: Tensor, label: Tensor | None = None) -> Tensor:
        return t[:, None]

    def forward_embedded(self, x: Tensor, embedding: Tensor) -> Tensor:
        sigma = torch.tensor([self.process.sigma(t) for t in embedding[:, 0].tolist()])
        return x * (sigma / torch.hypot(sigma, torch.ones(1)))[:, None].to(x.dtype)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.forward_embedded(x, self.embed(t))


def gaussian_points(**config: Any) -> tuple[DDPM, Tensor]:
    """The ideal model of Gaussian points, and such points."""
    x = torch.randn(2_000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.2]) + 5.0
    model = build(DDPM, DDPMConfig(**config), PointsSpec(2))
    assert isinstance(model, DDPM)
    model.initialise(Table(x, PointsSpec(2)), BatchRng(0, total=1), {})
    model.network = Ideal(model)  # type: ignore[assignment]
    return model.eval(), x


# the objective


def test_loss_of_a_zero_prediction_is_the_mean_square_of_the_target() -> None:
    model = build(DDPM, DDPMConfig(unet=TINY), ImageSpec(1, 8, 8))
    batch, rng = Batch(examples(64), torch.arange(64)), BatchRng(3, total=64)
    loss, logs = model.loss(batch, rng, Progress(0, 1))  # type: ignore[operator]
    eps = rng.normal("noise", 1, 8, 8)
    assert loss.item() == pytest.approx(float(eps.square().mean()), rel=1e-5)
    assert logs["mse"].item() == pytest.approx(loss.item(), rel=1e-6)


def test_loss_does_not_depend_on_the_neighbours() -> None:
    """Two halves of a batch, each with its rows of the randomness, average to the whole."""
    for config in ({}, {"weighting": "vlb"}, {"weighting": "min_snr", "prediction": "v"}, {"variance": "learned"}):
        model = pictures(**config)
        x, ids = examples(32), torch.arange(32)
        whole, _ = model.loss(Batch(x, ids), BatchRng(3, total=32), Progress(0, 1))
        halves = [
            model.loss(Batch(x[i : i + 16], ids[i : i + 16]), BatchRng(3, total=32, start=i, rows=16), Progress(0, 1))[
                0
            ]
            for i in (0, 16)
        ]
        torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2, rtol=1e-5, atol=1e-6)


def test_min_snr_weights_are_those_of_the_paper() -> None:
    """Hang et al.: min(SNR, gamma) / SNR for the noise, / (SNR + 1) for v, 1 times for x0, of each one's own error."""
    factors = {"eps": lambda snr: 1 / snr, "v": lambda snr: 1 / (snr + 1), "x0": lambda snr: torch.ones_like(snr)}
    for prediction, factor in factors.items():
        batch, rng = Batch(examples(64), torch.arange(64)), BatchRng(1, total=64)
        plain = build(DDPM, DDPMConfig(unet=TINY, prediction=prediction), ImageSpec(1, 8, 8))  # type: ignore[arg-type]
        weighted = build(
            DDPM,
            DDPMConfig(unet=TINY, prediction=prediction, weighting="min_snr", snr_limit=5.0),  # type: ignore[arg-type]
            ImageSpec(1, 8, 8),
        )
        assert isinstance(plain, DDPM)
        assert isinstance(weighted, DDPM)
        errors = torch.stack(
            [
                plain.loss(
                    Batch(batch.x[i : i + 1], batch.ids[:1]), BatchRng(1, total=64, start=i, rows=1), Progress(0, 1)
                )[0]
                for i in range(64)
            ]
        )
        snr = plain.sigmas[rng.integers("time", 1000)] ** -2
        expected = (errors * snr.clamp(max=5.0) * factor(snr)).mean()
        torch.testing.assert_close(weighted.loss(batch, rng, Progress(0, 1))[0], expected, rtol=1e-4, atol=1e-7)


def test_vlb_weights_are_those_of_the_bound() -> None:
    """Drawing steps unevenly and weighting what was drawn gives each step the weight of Ho et al., eq. 12."""
    model = build(DDPM, DDPMConfig(unet=TINY, weighting="vlb", variance="fixed_small"), ImageSpec(1, 8, 8))
    assert isinstance(model, DDPM)
    p = model.process
    beta, alpha = p.betas[1:], 1 - p.betas[1:]
    small = (1 - p.alpha_bars[:-1]) / (1 - p.alpha_bars[1:]) * beta
    weights = beta**2 / (2 * small * alpha * (1 - p.alpha_bars[1:]))
    given = model.chance.double() * model.vlb_scale * (1 + model.sigmas.double() ** 2)
    torch.testing.assert_close(given[1:], torch.from_numpy(weights), rtol=1e-5, atol=0.0)
    assert float(given[0]) == pytest.approx(0.5, rel=1e-5)
    assert float(model.chance.sum()) == pytest.approx(1, rel=1e-5)
    # the untrained network predicts 0
    rng = BatchRng(0, total=64)
    times = torch.searchsorted(model.chance.cumsum(0), rng.uniform("time"), right=True)
    error = rng.normal("noise", 1, 8, 8).square().mean((1, 2, 3))
    loss, _ = model.loss(Batch(examples(64), torch.arange(64)), rng, Progress(0, 1))
    assert loss.item() == pytest.approx(
        float((model.vlb_scale * (1 + model.sigmas[times] ** 2) * error).mean()), rel=1e-4
    )


def test_learned_variance_adds_the_bound_and_keeps_the_mean_from_it() -> None:
    plain = pictures(variance="learned", vlb_weight=0.0)
    hybrid = pictures(variance="learned", vlb_weight=1.0)
    hybrid.load_state_dict(plain.state_dict())
    batch = Batch(examples(64), torch.arange(64))
    grads = []
    for model in (plain, hybrid):
        loss, logs = model.loss(batch, BatchRng(0, total=64), Progress(0, 1))
        assert loss.item() == pytest.approx((logs["mse"] + model.config.vlb_weight * logs["vlb"]).item(), rel=1e-4)
        loss.backward()
        grad = model.network.last.weight.grad
        assert isinstance(grad, Tensor)
        grads.append(grad)
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-5, atol=1e-7)
    assert float(grads[0][1].abs().max()) == 0
    assert float(grads[1][1].abs().max()) > 0


# likelihood and samples of Gaussian data


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_bound_of_gaussian_points_is_their_entropy(schedule: str) -> None:
    """In the points' own units; above the truth by less than 0.02 nat in the mean (beta as variance)."""
    model, x = gaussian_points(schedule=schedule)
    found = model.log_likelihood(Batch.of(x[:300]), rng=SampleRng(0, range(300)), samples=100)
    true = torch.distributions.Normal(x.double().mean(0), x.double().std(0, correction=0)).log_prob(x[:300].double())
    gap = true.sum(1) - found.nats
    assert found.kind == "bound"
    error = float(gap.std()) / math.sqrt(300)
    assert -3 * error < float(gap.mean()) < 0.02 + 3 * error
    assert "100 random ones of 999" in found.detail


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_of_gaussian_points(sampler: str) -> None:
    """Mean within 0.1 and deviation within 8 % of the data's: 1,000 samples, 60 steps."""
    model, x = gaussian_points()
    drawn = model.sample(1_000, rng=SampleRng(0, range(1_000)), options=DDPMOptions(sampler=sampler, steps=60)).x  # type: ignore[arg-type]
    mean, std = x.mean(0), x.std(0)
    assert (((drawn.mean(0) - mean) / std).abs() < 0.1).all()
    assert ((drawn.std(0) / std - 1).abs() < 0.08).all()


def test_bound_uses_all_terms_where_asked_and_does_not_depend_on_the_batch() -> None:
    model = pictures(timesteps=40)
    x = examples(5)
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(5)), samples=1_000)
    assert "all of 39 terms" in found.detail
    part = model.log_likelihood(Batch.of(x[3:]), rng=SampleRng(0, [3, 4]), samples=1_000)
    torch.testing.assert_close(part.nats, found.nats[3:], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("variance", "expected"), [("fixed_large", 0.00738), ("fixed_small", 0.00738)])
def test_decoder_of_fixed_variances_has_the_first_posterior_variance(
    variance: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ho et al.'s ``fixedlarge`` is ``append(posterior_variance[1], betas[1:])``, and their 3.75 bits/dim has it.

    sqrt(beta_1) = 0.0100 is what a learned variance reaches at most.
    """
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    kept = torch.cumprod(1 - betas, 0)
    theirs = float((betas[1] * (1 - kept[0]) / (1 - kept[1])).sqrt())
    assert theirs == pytest.approx(expected, abs=5e-6)
    used: list[float] = []

    def decoder(x0: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        used.append(float(deviation))
        return torch.zeros_like(x0)

    monkeypatch.setattr(PictureUnits, "decoder", lambda self: decoder)
    pictures(variance=variance).log_likelihood(Batch.of(examples(2)), rng=SampleRng(0, range(2)), samples=1)
    assert used == pytest.approx([theirs], rel=1e-9)


def test_few_values_are_modelled_as_such() -> None:
    """Seventeen greys: samples have no others, and others have no likelihood."""
    greys = torch.tensor([round(255 * i / 16) for i in range(17)], dtype=torch.uint8)
    x = greys[torch.randint(0, 17, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0))]
    model = pictures()
    model.initialise(Table(x, model.spec), BatchRng(0, total=1), {})
    drawn = model.sample(4, rng=SampleRng(0, range(4))).x
    assert torch.isin(drawn, greys).all()
    assert "17 evenly spaced values" in model.log_likelihood(Batch.of(x[:2]), rng=SampleRng(0, range(2))).preprocessing
    with pytest.raises(UsageError, match="probability 0"):
        model.log_likelihood(Batch.of(examples(2)), rng=SampleRng(0, range(2)))
    kept = model.refine(
        Batch.of(examples(2)), mask=torch.zeros(1, 1, 8, 8, dtype=torch.bool), rng=SampleRng(0, range(2))
    ).x
    assert torch.equal(kept, examples(2))


# sampling


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("variance", ["fixed_small", "learned"])
def test_a_batch_equals_its_singles(sampler: str, variance: str) -> None:
    """Points, so that nothing is rounded: 1e-4, and 1e-3 for 3M, whose extrapolation multiplies rounding errors."""
    model = build(DDPM, DDPMConfig(perceptron=PerceptronConfig(16, 2), variance=variance), PointsSpec(3))  # type: ignore[arg-type]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    options = DDPMOptions(sampler=sampler, steps=12, grid="leading")  # type: ignore[arg-type]
    whole = model.sample(8, rng=SampleRng(1, range(8)), options=options).x
    for i in (0, 5):
        alone = model.sample(1, rng=SampleRng(1, [i]), options=options).x
        tolerance = 1e-3 if sampler == "dpm++3m" else 1e-4
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("grid", ["leading", "trailing", "linspace", "karras", "log", "logistic"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_are_as_documented(grid: str, sampler: str) -> None:
    model, calls = pictures(timesteps=50), 0
    inner = model.network.forward_embedded

    def counted(*args: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return inner(*args)

    model.network.forward_embedded = counted  # type: ignore[method-assign]
    seen: list[Preview] = []
    options = DDPMOptions(sampler=sampler, steps=7, grid=grid)  # type: ignore[arg-type]
    model.sample(2, rng=SampleRng(0, range(2)), options=options, watch=seen.append)
    assert calls == evaluations(sampler, 7)
    assert [(p.step, p.steps) for p in seen] == [(i, 7) for i in range(1, 8)]


def test_the_last_preview_is_the_sample_and_a_watch_can_end_it() -> None:
    model, seen = pictures(), []
    options = DDPMOptions(sampler="ddim", steps=5)
    drawn = model.sample(2, rng=SampleRng(0, range(2)), options=options, watch=lambda p: seen.append(p.examples().x)).x
    assert torch.equal(seen[-1], drawn)

    def stop(preview: Preview) -> None:
        if preview.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.sample(2, rng=SampleRng(0, range(2)), options=options, watch=stop)


def test_decoding_the_noise_of_a_sample_gives_the_sample() -> None:
    model, rng = pictures(), SampleRng(4, range(3))
    z = rng.normal("latent", 1, 8, 8).flatten(1)
    assert torch.equal(model.decode(z).x, model.sample(3, rng=rng).x)
    labelled = pictures(classes=3)
    label = torch.tensor([0, 1, 2])
    given = {"label": label}
    assert torch.equal(labelled.decode(z, given).x, labelled.sample(3, given, rng=rng).x)


def test_temperature_zero_needs_no_noise() -> None:
    model = pictures()
    for sampler in ("ddpm", "dpm++2m"):
        options = DDPMOptions(sampler=sampler, steps=5)  # type: ignore[arg-type]
        one, two = (model.sample(1, rng=SampleRng(s, [0]), options=replace(options, temperature=0.0)).x for s in (1, 2))
        assert torch.equal(one, two)


def test_asking_for_more_steps_than_there_are_is_an_error_on_grids_of_steps() -> None:
    model = pictures(timesteps=30)
    with pytest.raises(UsageError, match="ask for 1 to 30"):
        model.sample(1, rng=SampleRng(0, [0]), options=DDPMOptions(steps=31, grid="leading"))
    model.sample(1, rng=SampleRng(0, [0]), options=DDPMOptions(steps=31, grid="logistic"))


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_zero_terminal_snr_samples(prediction: str) -> None:
    model = pictures(zero_snr=True, prediction=prediction)
    for grid in ("trailing", "logistic"):
        seen: list[Tensor] = []
        options = DDPMOptions(sampler="ddim", steps=6, grid=grid)  # type: ignore[arg-type]
        model.sample(2, rng=SampleRng(0, range(2)), options=options, watch=lambda p: seen.append(p.examples().x))  # noqa: B023
        assert len(seen) == 6


# labels and guidance


def test_guidance() -> None:
    model, rng = pictures(classes=3), SampleRng(0, range(4))
    label = torch.tensor([0, 1, 2, 0])

    def draw(**options: Any) -> Tensor:
        return model.sample(4, {"label": label}, rng=rng, options=DDPMOptions(steps=8, **options)).x

    plain = draw()
    assert torch.equal(draw(guidance=1.0), plain)
    assert torch.equal(draw(guidance=5.0, guidance_low=1e6), plain), "outside its interval"
    assert torch.equal(draw(guidance=5.0, guidance_high=0.0), plain)
    assert not torch.equal(draw(guidance=5.0), plain)
    assert not torch.equal(draw(guidance=5.0), draw(guidance=5.0, guidance_rescale=1.0))
    null = model.labels.null(4)
    assert null is not None
    unconditional = model.decode(rng.normal("latent", 1, 8, 8).flatten(1)).x
    found = model.sample(4, {"label": label}, rng=rng, options=DDPMOptions(guidance=0.0)).x
    assert (found.int() - unconditional.int()).abs().max() <= 1, "scale 0 is the unconditional model"
    learned = pictures(classes=3, variance="learned")
    learned.sample(4, {"label": label}, rng=rng, options=DDPMOptions(sampler="ddpm", steps=4, guidance=2.0))


def test_guidance_without_labels_is_refused() -> None:
    with pytest.raises(UsageError, match="Guidance needs a conditional model"):
        pictures().sample(1, rng=SampleRng(0, [0]), options=DDPMOptions(guidance=2.0))
    with pytest.raises(UsageError, match="no labels"):
        build(DDPM, DDPMConfig(unet=TINY, conditional=True), ImageSpec(1, 8, 8))


# redrawing


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("grid", ["trailing", "logistic"])
def test_redrawing_keeps_what_is_not_masked_bit_for_bit(sampler: str, grid: str) -> None:
    model, x = pictures(), examples()
    mask = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    mask[:, :, 2:6, 3:] = True
    options = DDPMOptions(sampler=sampler, steps=6, grid=grid)  # type: ignore[arg-type]
    for strength in (0.001, 0.4, 1.0):
        seen: list[Preview] = []
        out = model.refine(
            Batch.of(x), strength=strength, mask=mask, rng=SampleRng(0, range(4)), options=options, watch=seen.append
        ).x
        assert torch.equal(out[~mask], x[~mask])
        assert [p.steps for p in seen] == [6] * 6, "the steps asked for are the steps run"
    assert not torch.equal(out[mask], x[mask])
    assert torch.equal(model.refine(Batch.of(x), strength=0.0, rng=SampleRng(0, range(4))).x, x)


def test_full_strength_without_a_mask_is_a_new_sample() -> None:
    model, rng = pictures(), SampleRng(3, range(4))
    assert torch.equal(model.refine(Batch.of(examples()), strength=1.0, rng=rng).x, model.sample(4, rng=rng).x)
    one, two = (model.refine(Batch.of(examples(seed=s)), strength=1.0, rng=rng).x for s in (1, 2))
    assert torch.equal(one, two), "nothing is kept of what is redrawn"


def test_less_strength_stays_closer() -> None:
    model, x = gaussian_points()
    distances = [
        float(
            (model.refine(Batch.of(x[:300]), strength=s, rng=SampleRng(0, range(300))).x - x[:300]).norm(dim=1).mean()
        )
        for s in (0.05, 0.2, 0.5, 0.9)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.2 * distances[-1]


@pytest.mark.parametrize("sampler", ["ddpm", "heun"])
def test_a_redrawn_part_fits_its_surroundings_better_when_steps_are_repeated(sampler: str) -> None:
    """Two coordinates with correlation 0.95: the regression of the redrawn one on the given one approaches 0.95."""
    model, _ = gaussian_points()
    covariance = torch.tensor([[1.0, 0.95], [0.95, 1.0]])
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.linalg.cholesky(covariance).T
    model.units.load_state_dict({"mean": torch.zeros(2), "std": torch.ones(2)})

    class Correlated(Ideal):
        def forward_embedded(self, x: Tensor, embedding: Tensor) -> Tensor:
            sigma = self.process.sigma(float(embedding[0, 0]))
            noisy = x * math.hypot(1, sigma)
            gain = torch.linalg.solve(covariance + sigma**2 * torch.eye(2), covariance)
            return (noisy - noisy @ gain) / sigma

    model.network = Correlated(model)  # type: ignore[assignment]
    slopes = []
    for resample in (1, 8):
        options = DDPMOptions(sampler=sampler, steps=25, grid="logistic", resample=resample)  # type: ignore[arg-type]
        seen: list[Preview] = []
        out = model.refine(
            Batch.of(x),
            mask=torch.tensor([[False, True]]),
            rng=SampleRng(0, range(400)),
            options=options,
            watch=seen.append,
        ).x
        assert torch.equal(out[:, 0], x[:, 0])
        assert [p.step for p in seen] == list(range(1, 26))
        slopes.append(float((out[:, 0] * out[:, 1]).mean() / out[:, 0].square().mean()))
        assert float((out[:, 1] - slopes[-1] * out[:, 0]).std()) < 0.7
    assert slopes[0] < 0.85
    assert 0.87 < slopes[1] < 1.0, slopes


def test_masks_that_do_not_fit_are_refused() -> None:
    model, x, rng = pictures(), examples(), SampleRng(0, range(4))
    for wrong in (
        torch.ones(4, 1, 8, 8),
        torch.ones(3, 1, 8, 8).bool(),
        torch.ones(1, 1, 4, 4).bool(),
        torch.ones(8, 8).bool(),
    ):
        with pytest.raises(UsageError, match="mask"):
            model.refine(Batch.of(x), mask=wrong, rng=rng)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="strength"):
            model.refine(Batch.of(x), strength=strength, rng=rng)
    with pytest.raises(UsageError, match="shape"):
        model.refine(Batch.of(x[..., :4]), rng=rng)


# configuration


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"timesteps": 1}, "timesteps"),
        ({"zero_snr": True}, "zero_snr"),
        ({"label_drop": 0.0}, "label_drop"),
        ({"conditional": True, "unet": replace(TINY, null_class=False)}, "null_class"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DDPMConfig(**wrong)


def test_linear_schedules_of_any_length_have_the_same_noise() -> None:
    """The betas of Ho et al. scaled with T: the logarithm of the last level hardly changes."""
    ends = [math.log(DDPMConfig(timesteps=t).process().sigmas[-1]) for t in (100, 300, 1000, 4000)]
    assert max(ends) - min(ends) < 1.5
    assert all(math.log(100) < e for e in ends)
    with pytest.raises(ValueError, match="linear with 10 steps does not work"):
        DDPMConfig(timesteps=10)
    assert len(DDPMConfig(timesteps=10, schedule="cosine").process()) == 10


def test_waves_let_a_perceptron_see_detail() -> None:
    """Sines and cosines of 1, 2, 4, ... times each coordinate, and none where none are asked for."""
    from castalia.models.diffusion.networks import Perceptron

    x, t = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(3)
    seen: list[Tensor] = []
    for waves in (0, 3):
        network = Perceptron(PerceptronConfig(8, 1, waves), 2, 2)
        network.first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        network(x, t)
    assert torch.equal(seen[0], x)
    angles = torch.cat([x, 2 * x, 4 * x], 1)
    torch.testing.assert_close(seen[1], torch.cat([x, angles.sin(), angles.cos()], 1))
    with pytest.raises(ValueError, match="waves"):
        PerceptronConfig(waves=-1)
