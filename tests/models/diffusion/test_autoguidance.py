"""Autoguidance: weight 1 is the plain model, a closed form between Gaussians, a parent's denoiser."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia import runs
from castalia.cli.main import main
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.media.points.toys import RING, toy
from castalia.models.diffusion import samplers, schedules
from castalia.models.diffusion.autoguidance import (
    Autoguidance,
    AutoguidanceConfig,
    AutoguidanceOptions,
    Autoguided,
)
from castalia.models.diffusion.drawing import Denoiser
from castalia.models.diffusion.edm import EDM, EDMConfig, EDMOptions
from castalia.models.diffusion.guidance import Guidance
from castalia.nn.unet import UNet, UNetConfig
from castalia.recipes import recipe
from tests.tools import Table

TINY = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4)
NARROW = UNetConfig(channels=(8,), blocks=1, attention=(), groups=4, middle="none", time="fourier")
SPEC = ImageSpec(1, 8, 8, ("a", "b"))
Options = AutoguidanceOptions


def stirred(model: Any, seed: int = 0) -> Any:
    """A model whose weights say something."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel() if p.ndim > 1 else 16))
    return model.eval()


def pictures(conditional: bool = True, **config: Any) -> Autoguidance:
    config = {"unet": TINY, "guide": NARROW, "data_mean": 0.1, "data_std": 0.4, **config}
    return stirred(build(Autoguidance, AutoguidanceConfig(conditional=conditional, **config), SPEC))


def alone(model: Autoguidance) -> EDM:
    """``edm`` with the same weights."""
    c = model.config
    plain = build(
        EDM, EDMConfig(unet=c.unet, conditional=c.conditional, data_mean=c.data_mean, data_std=c.data_std), SPEC
    )
    plain.network.load_state_dict(model.network.state_dict())
    return plain.eval()  # type: ignore[return-value]


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_weight_one_is_edm_bit_for_bit_and_asks_no_guide(conditional: bool, guidance: float) -> None:
    model = pictures(conditional)
    plain = alone(model)
    del model.guide  # any call would fail
    if guidance != 1 and not conditional:
        return
    given = {"label": torch.tensor([0, 1, 1])} if conditional else None
    for sampler in ("heun", "dpm++2m", "edm"):
        rng = SampleRng(0, range(3))
        ours = Options(autoguidance=1.0, sampler=sampler, steps=4, guidance=guidance)  # type: ignore[arg-type]
        theirs = EDMOptions(sampler=sampler, steps=4, guidance=guidance)  # type: ignore[arg-type]
        found = model.sample(3, given, rng=rng, options=ours).x
        assert torch.equal(found, plain.sample(3, given, rng=rng, options=theirs).x)


def test_it_is_the_mix_of_both_and_classifier_free_guidance_is_on_top() -> None:
    """Against the definition, with the guide as an ``edm`` of its own; and settled after all mixing."""
    model, label = pictures(), torch.tensor([0, 1, 0])
    c = model.config
    bad = build(EDM, EDMConfig(unet=c.guide, conditional=True, data_mean=c.data_mean, data_std=c.data_std), SPEC)
    bad.network.load_state_dict(model.guide.state_dict())
    good, bad, null = alone(model), bad.eval(), torch.tensor([2, 2, 2])
    every = torch.cat([label, null])
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    options = Options(autoguidance=2.5, guidance=1.5, guidance_low=0.1, guidance_high=9.0)
    job = model.job(label, options, SampleRng(0, range(3)))
    clipped = model.job(label, Options(autoguidance=2.5, guidance=1.5, clip=True), SampleRng(0, range(3)))
    with torch.no_grad():
        for sigma in (0.05, 0.3, 5.0, 40.0):
            d1, d0 = good.denoiser(every, False), bad.denoiser(every, False)  # type: ignore[attr-defined]
            mixed = []
            for asked in (label, null):
                main, guide = d1(sigma * x, sigma, asked), d0(sigma * x, sigma, asked)
                mixed.append(guide + 2.5 * (main - guide) if 0.1 < sigma <= 9 else main)
            wanted = mixed[1] + 1.5 * (mixed[0] - mixed[1]) if 0.1 < sigma <= 9 else mixed[0]
            torch.testing.assert_close(job.denoise(sigma * x, sigma), wanted, rtol=1e-4, atol=1e-4)
            assert float(clipped.denoise(sigma * x, sigma).abs().max()) <= 1


class Gaussian(Denoiser):
    """The denoiser of N(mean, variance), in place of a network."""

    def __init__(self, mean: float, variance: float) -> None:
        self.m, self.v = mean, variance
        self.network, self.scalings, self.known = None, None, None  # type: ignore[assignment]
        self.units, self.split, self.mean = None, False, 0.0

    def unsettled(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        return self.m + self.v / (self.v + sigma**2) * (x - self.m)


class Truth(Autoguided):
    """Autoguidance of a denoiser that is known."""

    def __init__(self, main: Gaussian, guide: Gaussian, guidance: Guidance) -> None:
        self.main, self.guide, self.guidance = main, guide, guidance
        self.known = self.units = None

    def unsettled(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        return torch.lerp(self.guide.unsettled(x, sigma), self.main.unsettled(x, sigma), self.guidance.scale)


@pytest.mark.parametrize("weight", [1.0, 1.5, 3.0])
def test_a_guide_that_is_wider_makes_samples_narrower(weight: float) -> None:
    """N(m, v) guided by N(m, u): the flow ends with deviation (v^w / u^(w-1))^(1/2) where it starts very high.

    d ln|x - m| / d sigma = sigma (w / (v + sigma^2) - (w - 1) / (u + sigma^2)), whose integral is elementary.
    """
    m, v, u, high = 0.7, 0.5, 0.9, 80.0
    denoise = Truth(Gaussian(m, v), Gaussian(m, u), Guidance(weight)).for_labels(None, 0, Options())
    start = m + high * torch.randn(1_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = schedules.karras_sigmas(200, 1e-4, high)
    ends = samplers.heun(denoise, start, sigmas)

    def width(sigma: float) -> float:
        return math.sqrt((v + sigma**2) ** weight / (u + sigma**2) ** (weight - 1))

    torch.testing.assert_close(ends - m, (start - m) * width(0) / width(high), rtol=2e-3, atol=1e-4)
    spread = math.sqrt(v**weight / u ** (weight - 1))
    assert float(ends.std()) == pytest.approx(spread, rel=0.05)
    assert spread <= math.sqrt(v)


def test_a_guide_elsewhere_moves_the_mean() -> None:
    """N(m, v) guided by N(n, v): N(n + w (m - n), v), with the networks' own formula in between."""
    denoise = Truth(Gaussian(1.0, 0.5), Gaussian(0.2, 0.5), Guidance(2.5)).for_labels(None, 0, Options())
    start = 80 * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = samplers.dpm_2m(denoise, start, schedules.logistic_sigmas(60, 0.002, 80.0))
    assert float((ends.mean(0) - (0.2 + 2.5 * 0.8)).abs().max()) < 0.03
    assert float((ends.var(0) - 0.5).abs().max()) < 0.03


def test_a_guide_of_points_keeps_samples_near_the_modes() -> None:
    """Trained on the ring of eight Gaussians: guidance brings samples nearer to the modes, and keeps all of them."""
    points = toy("ring-8", "train").batch(np.arange(20_000)).x
    config = AutoguidanceConfig()
    model = build(Autoguidance, config, PointsSpec(2))
    model.initialise(Table(points, PointsSpec(2)), BatchRng(0, total=1), {})
    model.train()
    for stage, steps in zip(model.stages(), (600, 150), strict=True):
        (one,) = stage.objectives
        optimizer = torch.optim.AdamW(one.module.parameters(), lr=3e-3)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            ids = torch.randint(0, 20_000, (256,), generator=torch.Generator().manual_seed(step))
            loss, _ = one.loss(Batch.of(points[ids]), BatchRng(step, total=256), Progress(step, steps))  # type: ignore[union-attr]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            slower.step()
    model.eval()
    modes = torch.tensor(RING, dtype=torch.float32)
    off, near = [], []
    for weight in (1.0, 2.0):
        drawn = model.sample(1_000, rng=SampleRng(0, range(1_000)), options=Options(autoguidance=weight)).x
        distance, which = torch.cdist(drawn, modes).min(1)
        off.append(float(distance.mean()))
        near.append(float((distance < 0.03).float().mean()))  # three deviations of the data
        assert len(which.unique()) == 8
    assert off[1] < 0.8 * off[0]
    assert near[1] > near[0] + 0.03


def test_a_finished_run_gets_a_guide(tmp_path: Path) -> None:
    """The denoiser is the parent's and stays so; other settings and no parent are refused in words."""
    parent, out = tmp_path / "parent", tmp_path / "run"
    short = ["--steps", "4", "--quiet"]
    assert main(["train", "edm", "--recipe", "edm-tiny", "--out", str(parent), *short]) == 0
    alike = ["--set", "config.main=parent", "--set", "config.unet.attention=[0]"]  # as edm-tiny has it
    ours = ["train", "autoguidance", "--recipe", "autoguidance-tiny", *short, *alike]
    assert main([*ours, "--out", str(out), "--parent", f"main={parent}"]) == 0
    theirs, model = runs.open_run(parent).model()[0], runs.open_run(out).model()[0]
    assert isinstance(theirs, EDM)
    assert isinstance(model, Autoguidance)
    assert [s.name for s in model.stages()] == ["guide"]
    assert all(torch.equal(a, b) for a, b in zip(theirs.network.parameters(), model.network.parameters(), strict=True))
    assert float(theirs.data_std) == float(model.data_std)
    other = ["--out", str(tmp_path / "other"), "--parent", f"main={parent}", "--set", "config.noise_mean=-1.0"]
    assert main([*ours, *other]) == 2
    with pytest.raises(UsageError, match="--parent main=RUN"):
        model.initialise(
            Table(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), model.spec, torch.arange(3)), BatchRng(0, total=1), {}
        )


def test_the_papers_size() -> None:
    """The denoiser is ADM's for 64 pixels, with one output for each channel: 296 million weights."""
    c = recipe("autoguidance-paper").config
    assert isinstance(c, AutoguidanceConfig)
    with torch.device("meta"):
        main_, guide = UNet(c.unet, 3, 3, 1000), UNet(c.guide, 3, 3, 1000)
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert round(count(main_) / 1e6) == 296
    assert 0.4 < count(guide) / count(main_) < 0.5


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError):
        AutoguidanceConfig(guide_share=0.0)
    with pytest.raises(ValueError):
        AutoguidanceConfig(conditional=True, guide=UNetConfig(null_class=False))
    with pytest.raises(ValueError):
        Options(autoguidance=-1.0)
