"""Guidance by a classifier: its gradient, closed forms, mixtures whose classifier is known, and a parent's denoiser."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from castalia import runs
from castalia.cli.main import main
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion import samplers, schedules
from castalia.models.diffusion.classifier_guidance import (
    ClassifierGuidance,
    ClassifierGuidanceConfig,
    ClassifierGuidanceOptions,
)
from castalia.models.diffusion.ddpm import DDPM, DDPMConfig, DDPMOptions
from castalia.models.diffusion.guidance import Guidance, climb, led
from castalia.nn.half_unet import AttentionPool, HalfUNet
from castalia.nn.unet import UNet, UNetConfig
from castalia.recipes import recipe
from tests.models.diffusion.mixture import Mixture, noise_source
from tests.tools import Table

TINY = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4, head_channels=8)
SPEC = ImageSpec(1, 8, 8, ("a", "b", "c"))
Options = ClassifierGuidanceOptions


def stirred(model: Any, seed: int = 0) -> Any:
    """A model whose weights say something."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel() if p.ndim > 1 else 16))
    return model.eval()


def pictures(**config: Any) -> ClassifierGuidance:
    return stirred(build(ClassifierGuidance, ClassifierGuidanceConfig(unet=TINY, classifier=TINY, **config), SPEC))


# the gradient


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Of the real classifier's log-probability, in float64, in every one of 64 directions."""
    model = pictures().double()
    x, label = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 2])

    def chance(x: Tensor, sigma: float) -> Tensor:
        time = torch.full((len(x),), model.process.time(sigma), dtype=torch.float64)
        logits = network(x / math.sqrt(1 + sigma**2), time)
        return torch.log_softmax(logits, 1).gather(1, label.repeat(len(x) // 2)[:, None])[:, 0]

    def network(x: Tensor, t: Tensor) -> Tensor:
        pool, kept = model.classifier.pool, []
        hook = pool.register_forward_hook(lambda *args: kept.append(args[2]))
        model.classifier(x, t)
        hook.remove()
        return kept[0]  # before it is made float32

    found = climb(chance, x, 0.7)
    step = 1e-5
    for i in range(64):
        by = torch.zeros(64, dtype=torch.float64)
        by[i] = step
        by = by.view(1, 1, 8, 8)
        with torch.no_grad():
            differences = (chance(x + by, 0.7) - chance(x - by, 0.7)) / (2 * step)
        torch.testing.assert_close(found.flatten(1)[:, i], differences, rtol=1e-5, atol=1e-8)


def test_it_works_in_every_mode() -> None:
    model, label = pictures(), torch.tensor([0, 2])
    plain = model.sample(2, {"label": label}, rng=SampleRng(0, range(2)), options=Options(steps=3)).x
    with torch.inference_mode():
        again = model.sample(2, {"label": label}, rng=SampleRng(0, range(2)), options=Options(steps=3)).x
    assert torch.equal(plain, again)
    assert all(p.grad is None for p in model.parameters())


def test_scale_zero_is_the_denoiser_alone_and_asks_no_classifier() -> None:
    """Bit for bit what ``ddpm`` makes of the same weights, whatever sampler, learned variance included."""
    model = pictures()
    assert model.config.variance == "learned"
    plain = build(DDPM, DDPMConfig(unet=TINY, variance="learned"), SPEC)
    plain.network.load_state_dict(model.network.state_dict())
    plain.eval()
    model.classifier = nn.Identity()  # type: ignore[assignment]  # called with two arguments it would fail
    for sampler, grid in (("ddpm", "trailing"), ("dpm++2m", "logistic"), ("heun", "karras")):
        ours = Options(sampler=sampler, grid=grid, steps=4, classifier_scale=0.0)  # type: ignore[arg-type]
        theirs = DDPMOptions(sampler=sampler, grid=grid, steps=4)  # type: ignore[arg-type]
        rng = SampleRng(0, range(3))
        assert torch.equal(model.sample(3, rng=rng, options=ours).x, plain.sample(3, rng=rng, options=theirs).x)


def test_unnamed_examples_are_led_nowhere() -> None:
    """What has no label, in redrawing and decoding, is the denoiser's own; the others beside it are led."""
    model = pictures()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    options, rng = Options(classifier_scale=3.0, clip=False), SampleRng(0, range(2))
    job = model.job(torch.tensor([1, 3]), options, rng)
    none = model.job(torch.tensor([3, 3]), options, rng)
    with torch.no_grad():
        first, second = job.denoise(x, 2.0), none.denoise(x, 2.0)
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], second[0])
    kept = model.refine(Batch.of(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), strength=0.5, rng=rng).x
    assert kept.shape == (2, 1, 8, 8)


def test_it_acts_within_its_interval_only() -> None:
    def denoise(x: Tensor, sigma: float) -> Tensor:
        return x * 0.5

    def chance(x: Tensor, sigma: float) -> Tensor:
        return x.sum(1)

    function, x = led(denoise, chance, Guidance(2.0, low=0.3, high=5.0)), torch.ones(2, 3)
    for sigma in (80.0, 0.3, 0.1):
        assert torch.equal(function(x, sigma), 0.5 * x)
    for sigma in (5.0, 0.4):
        torch.testing.assert_close(function(x, sigma), 0.5 * x + 2 * sigma**2)


# where the truth is known


def test_by_bayes_scale_one_is_the_denoiser_of_the_class() -> None:
    """A mixture in two classes: D of all + sigma^2 grad log p(class | x) is D of the components of that class."""
    whole = Mixture()
    member = torch.tensor([True, False, True, False, False])
    part = Mixture()
    part.weights = torch.where(member, part.weights, 0.0)
    part.weights = part.weights / part.weights.sum()

    def chance(x: Tensor, sigma: float) -> Tensor:
        return part.log_density(x, sigma) - whole.log_density(x, sigma)

    x = 2 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    function = led(whole.denoise, chance, Guidance(1.0))
    for sigma in (0.05, 0.4, 3.0, 80.0):
        torch.testing.assert_close(function(x, sigma), part.denoise(x, sigma), rtol=1e-9, atol=1e-9)
    start = 80 * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigmas = schedules.logistic_sigmas(60, 0.002, 80.0)
    ends = samplers.dpm_2m_sde(function, start, sigmas, noise=noise_source(0, start))
    mean, covariance = part.moments()
    assert float(((ends.mean(0) - mean) / (covariance.diagonal() / 20_000).sqrt()).abs().max()) < 4
    assert float((ends.T.cov() - covariance).abs().max()) < 0.04


@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
def test_a_log_linear_classifier_tilts_a_gaussian(scale: float) -> None:
    """N(m, v) times exp(s a x) is N(m + s v a, v), for any s: mean and variance of 20,000 guided samples."""
    mean, tilt = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.8, 0.3], dtype=torch.float64)
    variance = 0.5

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return mean + variance / (variance + sigma**2) * (x - mean)

    def chance(x: Tensor, sigma: float) -> Tensor:
        """log E[exp(a x0) | x], up to what does not depend on x."""
        return denoise(x, sigma) @ tilt

    start = 80 * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sigmas = schedules.logistic_sigmas(60, 0.002, 80.0)
    ends = samplers.dpm_2m_sde(led(denoise, chance, Guidance(scale)), start, sigmas, noise=noise_source(3, start))
    assert float((ends.mean(0) - (mean + scale * variance * tilt)).abs().max()) < 0.03
    assert float((ends.T.cov() - variance * torch.eye(2)).abs().max()) < 0.03


def test_the_bigger_the_scale_the_surer_the_classifier() -> None:
    model = pictures()
    label = torch.arange(60) % 3
    sure = []
    for scale in (0.0, 4.0, 40.0):
        options = Options(classifier_scale=scale, steps=8)
        drawn = model.sample(60, {"label": label}, rng=SampleRng(0, range(60)), options=options)
        sure.append(float(model.classify(drawn).gather(1, label[:, None]).mean()))
    assert sure[0] < sure[1] < sure[2]


# the classifier


def test_the_pool_is_attention_of_the_mean_over_all() -> None:
    """Against torch's own attention of all tokens, of which the first is taken: as in the paper's code."""
    torch.manual_seed(0)
    pool, x = AttentionPool(16, 12, 4, 5), torch.randn(3, 16, 3, 4)
    own = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        own.in_proj_weight.copy_(torch.cat([pool.query.weight, pool.key_value.weight]))
        assert own.in_proj_bias is not None
        own.in_proj_bias.copy_(torch.cat([pool.query.bias, pool.key_value.bias]))
        own.out_proj.weight.copy_(torch.eye(16))
        own.out_proj.bias.zero_()
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.position
        torch.testing.assert_close(pool(x), pool.out(own(tokens, tokens, tokens)[0][:, 0]))


@pytest.mark.parametrize("down", ["conv", "block", "pool"])
def test_the_way_down_is_that_of_the_u_net(down: str) -> None:
    """With the weights of a U-Net the trunk computes what the U-Net has at its lowest level; any size."""
    config = replace(TINY, down=down, channels=(8, 16, 16), attention=(1,))  # type: ignore[arg-type]
    torch.manual_seed(0)
    whole, half = stirred(UNet(config, 1, 1)), HalfUNet(config, 1, 7, 10, 3).eval()
    found = half.load_state_dict(
        {
            k: v
            for k, v in whole.state_dict().items()
            if k in half.state_dict() and v.shape == half.state_dict()[k].shape
        },
        strict=False,
    )
    with torch.no_grad():
        half.projection.weight.copy_(whole.projection.weight[: half.projection.out_features])
        half.projection.bias.copy_(whole.projection.bias[: half.projection.out_features])
    assert {k.split(".")[0] for k in found.missing_keys} <= {"pool", "norm", "projection"}
    kept: list[Tensor] = []
    whole.middle[2].register_forward_hook(lambda *a: kept.append(a[2]))
    half.middle[2].register_forward_hook(lambda *a: kept.append(a[2]))
    x, t = torch.randn(2, 1, 7, 10), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        whole(x, t)
        assert half(x, t).shape == (2, 3)
    torch.testing.assert_close(kept[0], kept[1])


def test_it_learns_to_tell_noisy_examples_apart() -> None:
    """Two Gaussians at -1 and 1 in the plane: after 300 steps the logits are near Bayes' at every noise level."""
    config = ClassifierGuidanceConfig(schedule="cosine", classifier_decay=0.0)
    model = build(ClassifierGuidance, config, PointsSpec(2, ("a", "b")))
    optimizer = torch.optim.AdamW(model.classifier.parameters(), lr=3e-3)
    g = torch.Generator().manual_seed(0)
    model.train()
    for step in range(300):
        label = torch.randint(0, 2, (256,), generator=g)
        x = 0.3 * torch.randn(256, 2, generator=g) + (2.0 * label - 1)[:, None]
        loss, _ = model.classify_loss(Batch.of(x, label), BatchRng(step, total=256), Progress(step, 300))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    for sigma in (0.5, 1.0, 3.0):
        x = torch.randn(500, 2, generator=g) * math.sqrt(1 + sigma**2)
        with torch.no_grad():
            found = torch.softmax(model.logits(x, sigma), 1)[:, 1]
        bayes = torch.sigmoid(2 * x.sum(1) / (0.09 + sigma**2))
        assert float((found - bayes).abs().mean()) < 0.06


def weights_of(config: UNetConfig, classes: int, size: int, channels: int = 3) -> int:
    """Weights of ADM's classifier, counted from the paper's table 11 and the shape of its layers."""
    c, wide = config.channels, config.channels[0]
    dims = 4 * wide

    def block(i: int, o: int) -> int:
        skip = i * o + o if i != o else 0
        return 2 * i + 9 * i * o + o + dims * 2 * o + 2 * o + 2 * o + 9 * o * o + o + skip

    def attention(n: int) -> int:
        return 2 * n + 3 * n * n + 3 * n + n * n + n

    total = wide * dims + dims + dims * dims + dims + 9 * channels * wide + wide
    for level, out in enumerate(c):
        for _ in range(config.blocks):
            total += block(wide, out) + (attention(out) if level in config.attention else 0)
            wide = out
        if level < len(c) - 1:
            total, size = total + block(out, out), size // 2
    total += 2 * block(wide, wide) + attention(wide) + 2 * wide
    return total + (size * size + 1) * wide + 3 * wide * wide + 3 * wide + wide * classes + classes


def test_the_papers_sizes() -> None:
    """ADM at 64 pixels has 296 million weights (table 12); the classifier as many as its layers say."""
    c = recipe("classifier-guidance-paper").config
    assert isinstance(c, ClassifierGuidanceConfig)
    with torch.device("meta"):
        network, classifier = UNet(c.unet, 3, 6, 1000), HalfUNet(c.classifier, 3, 64, 64, 1000)
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert round(count(network) / 1e6) == 296
    assert count(classifier) == weights_of(c.classifier, 1000, 64)


# the system


def test_a_finished_run_is_led(tmp_path: Path) -> None:
    """The denoiser is the parent's and stays so; other settings and no parent are refused in words."""
    parent, out = tmp_path / "parent", tmp_path / "run"
    short = ["--steps", "4", "--quiet"]
    made = ["--set", "config.conditional=false"]
    assert main(["train", "ddpm", "--recipe", "ddpm-tiny", "--out", str(parent), *made, *short]) == 0
    ours = ["train", "classifier-guidance", "--recipe", "classifier-guidance-tiny", *short]
    ours += ["--set", "config.denoiser=parent", "--set", "config.unet.attention=[0]"]  # as ddpm-tiny has it
    assert main([*ours, "--out", str(out), "--parent", f"denoiser={parent}"]) == 0
    theirs, model = runs.open_run(parent).model()[0], runs.open_run(out).model()[0]
    assert isinstance(theirs, DDPM)
    assert isinstance(model, ClassifierGuidance)
    assert [s.name for s in model.stages()] == ["classify"]
    assert all(torch.equal(a, b) for a, b in zip(theirs.network.parameters(), model.network.parameters(), strict=True))
    assert (
        main(
            [*ours, "--out", str(tmp_path / "other"), "--parent", f"denoiser={parent}", "--set", "config.timesteps=500"]
        )
        != 0
    )
    with pytest.raises(UsageError, match="--parent denoiser=RUN"):
        model.initialise(
            Table(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), SPEC, torch.arange(3)), BatchRng(0, total=1), {}
        )


def test_data_without_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="needs labels"):
        build(ClassifierGuidance, ClassifierGuidanceConfig(unet=TINY, classifier=TINY), ImageSpec(1, 8, 8))


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"classifier_share": 0.0}, {"classifier_decay": -1.0}):
        with pytest.raises(ValueError):
            ClassifierGuidanceConfig(**wrong)
    with pytest.raises(ValueError):
        Options(classifier_scale=-1.0)
