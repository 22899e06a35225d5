"""Guidance against its definition and a closed form, and how often it calls the model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from castalia.core.model import build
from castalia.core.rng import SampleRng
from castalia.core.sampling import Sampling
from castalia.core.specs.image import ImageSpec
from castalia.models.diffusion import samplers, schedules
from castalia.models.diffusion.ddpm import DDPM, DDPMConfig, DDPMOptions
from castalia.models.diffusion.drawing import Denoiser
from castalia.models.diffusion.edm import EDM, EDMConfig, EDMOptions
from castalia.models.diffusion.guidance import Guidance, guided
from castalia.nn.unet import UNetConfig
from castalia.nn.units import PictureUnits
from tests.models.diffusion.mixture import noise_source

CENTRES = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
VARIANCE = 0.5
NULL = 3


class Classes:
    """Three Gaussians of equal covariance, one per label, and as null class a wide one around 0."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, x: Tensor, sigma: float, label: Tensor) -> Tensor:
        self.sizes.append(len(x))
        variance = torch.where(label == NULL, 4.0, VARIANCE).double()[:, None]
        return CENTRES[label] + variance / (variance + sigma**2) * (x - CENTRES[label])


def data(n: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(n) % 3


def test_it_is_linear_in_both_branches() -> None:
    x, label = data()
    model = Classes()
    for scale in (0.0, 0.5, 3.0):
        found = guided(model, label, NULL, Guidance(scale))(x, 0.7)
        with_label, without = model(x, 0.7, label), model(x, 0.7, torch.full_like(label, NULL))
        torch.testing.assert_close(found, without + scale * (with_label - without), rtol=1e-12, atol=1e-12)


def test_scale_one_is_the_plain_model_and_costs_no_more() -> None:
    x, label = data()
    model = Classes()
    found = guided(model, label, NULL, Guidance(1.0, rescale=0.5))(x, 0.7)
    assert torch.equal(found, model(x, 0.7, label))
    assert model.sizes == [6, 6]


def test_outside_its_interval_it_is_skipped() -> None:
    x, label = data()
    model = Classes()
    function = guided(model, label, NULL, Guidance(2.0, low=0.3, high=5.0))
    for sigma, rows in ((80.0, 6), (5.0, 12), (1.0, 12), (0.3, 6), (0.01, 6)):
        model.sizes.clear()
        found = function(x, sigma)
        assert model.sizes == [rows]
        assert torch.equal(found, model(x, sigma, label)) == (rows == 6)


def test_guidance_between_gaussians_of_equal_covariance_moves_the_mean() -> None:
    """D_null + w (D_label - D_null) is then the denoiser of a Gaussian around m_null + w (m_label - m_null)."""

    def model(x: Tensor, sigma: float, label: Tensor) -> Tensor:
        return CENTRES[label] + VARIANCE / (VARIANCE + sigma**2) * (x - CENTRES[label])

    n, w = 20_000, 2.5
    label = torch.zeros(n, dtype=torch.int64)
    x = 80 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    function = guided(model, label, NULL, Guidance(w))
    ends = samplers.dpm_2m_sde(function, x, schedules.logistic_sigmas(60, 0.002, 80.0), noise=noise_source(0, x))
    assert (ends.mean(0) - w * CENTRES[0]).abs().max() < 0.03
    assert (ends.T.cov() - VARIANCE * torch.eye(2)).abs().max() < 0.03


def test_rescaling_gives_back_the_contrast() -> None:
    g = torch.Generator().manual_seed(3)
    x, label = torch.randn(4, 1, 8, 8, generator=g), torch.zeros(4, dtype=torch.int64)

    def model(x: Tensor, sigma: float, label: Tensor) -> Tensor:
        return torch.where((label == 1).view(-1, 1, 1, 1), 0.2 * x, x)

    plain = guided(model, label, 1, Guidance(3.0))(x, 1.0)
    half = guided(model, label, 1, Guidance(3.0, rescale=0.5))(x, 1.0)
    full = guided(model, label, 1, Guidance(3.0, rescale=1.0))(x, 1.0)
    deviation = lambda t: t.flatten(1).std(1, correction=0)  # noqa: E731
    torch.testing.assert_close(deviation(full), deviation(x))
    torch.testing.assert_close(half, (plain + full) / 2)
    flat = guided(model, label, 1, Guidance(3.0, rescale=1.0))(torch.zeros(4, 1, 8, 8), 1.0)
    assert torch.equal(flat, torch.zeros(4, 1, 8, 8)), "an example without contrast stays finite"


class PlusOrMinus(torch.nn.Module):
    """A network that predicts +reach for label 0 and -reach for the null class, whatever it sees."""

    def __init__(self, reach: float) -> None:
        super().__init__()
        self.reach = torch.nn.Parameter(torch.tensor(reach))

    def embed(self, time: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        return (1 - 2 * label).float()

    def forward_embedded(self, x: Tensor, embedding: Tensor) -> Tensor:
        return (self.reach * embedding).view(-1, 1, 1, 1).expand_as(x)


@pytest.mark.parametrize(("reach", "scale", "clipped", "free"), [(1.0, 3.0, 1.0, 5.0), (2.0, 0.75, 1.0, 1.0)])
def test_clipping_comes_after_the_mix(reach: float, scale: float, clipped: float, free: float) -> None:
    """Branches +1 and -1 at weight 3 give 5 before it; branches +2 and -2 at 0.75 give 1 and not 0.5."""
    x, label = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    for units, expected in ((PictureUnits(), clipped), (None, free)):
        denoiser = Denoiser(
            PlusOrMinus(reach),  # type: ignore[arg-type]
            lambda sigma: (0.0, 1.0, 1.0, 0.0),
            label=torch.tensor([0, 1]),
            units=units,
        )
        for rescale in (0.0, 0.5):
            options = DDPMOptions(guidance=scale, guidance_rescale=rescale)
            found = denoiser.for_labels(label, 1, options)(x, 10.0)
            assert torch.equal(found, torch.full_like(x, expected))


@pytest.mark.parametrize("system", [DDPM, EDM])
def test_with_clip_nothing_denoised_lies_outside(system: type[DDPM] | type[EDM]) -> None:
    """Every system and every step: what a sampler sees, and what a watcher is shown, is a picture."""
    config = (DDPMConfig if system is DDPM else EDMConfig)(
        unet=UNetConfig(channels=(8, 8), blocks=1, attention=(), groups=4), conditional=True
    )
    model = build(system, config, ImageSpec(1, 4, 4, ("a", "b")), seed=0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    options: Sampling = (DDPMOptions if system is DDPM else EDMOptions)(guidance=6.0, clip=True, steps=4)
    label = torch.tensor([0, 1, 1])
    job = model.job(label, options, SampleRng(0, range(3)))  # type: ignore[arg-type]
    with torch.no_grad():
        most = max(float(job.denoise(torch.randn(3, 1, 4, 4) * s, s).abs().max()) for s in job.sigmas if s)
    assert most <= 1


def test_senseless_options_are_refused() -> None:
    for wrong in ({"scale": -1.0}, {"low": 2.0, "high": 1.0}, {"rescale": 1.5}, {"low": -math.inf}):
        with pytest.raises(ValueError, match="guidance needs"):
            Guidance(**wrong)
