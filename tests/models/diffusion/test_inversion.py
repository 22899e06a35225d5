"""Sampling backwards: steps are undone to the last bit that iterations can reach, and Gaussians come back to noise."""

from __future__ import annotations

import math

import torch

from castalia.core.rng import SampleRng
from castalia.models.diffusion.drawing import Job
from castalia.models.diffusion.inversion import inverted
from castalia.nn.units import PointUnits

SIGMAS = [80.0, 30.0, 12.0, 5.0, 2.2, 1.0, 0.45, 0.2, 0.09, 0.04, 0.01, 0.0]


def job(deviation: float, mean: float, sampler: str = "euler", sigmas: list[float] | None = None) -> Job:
    """With the ideal denoiser of Gaussian data."""

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        share = deviation**2 / (deviation**2 + sigma**2)
        return mean + share * (x - mean)

    levels = sigmas or SIGMAS
    return Job(denoise, levels, sampler, {}, SampleRng(0, range(5)), PointUnits(2), levels[0])


def test_steps_are_undone() -> None:
    """Down from noise by Euler's steps and up again is the noise, and better with every iteration."""
    x = SIGMAS[0] * torch.randn(5, 2, dtype=torch.float64)
    for deviation, mean in ((0.5, 0.0), (0.5, -0.3), (0.2, 0.1), (1.0, 0.5)):
        one = job(deviation, mean)
        down = one.until(SIGMAS[-2]).flow(x)
        errors = [float((inverted(one, down, n) - x).abs().max()) for n in (1, 3, 6, 30)]
        assert errors[0] > errors[1] > errors[2] > errors[3]
        assert errors[3] < 1e-4
        assert errors[2] < 0.05 * errors[0]


def test_gaussian_data_come_back_to_their_noise() -> None:
    """With many steps it is the exact solution: (x - m) (s^2 + sigma^2)^(1/2) / s, about m."""
    deviation, mean = 0.5, 0.2
    levels = [80.0 * (0.002 / 80.0) ** (i / 3000) for i in range(3001)] + [0.0]
    x = mean + deviation * torch.randn(5, 2, dtype=torch.float64)
    found = inverted(job(deviation, mean, sigmas=levels), x)
    exact = mean + (x - mean) * math.sqrt((deviation**2 + 80.0**2) / (deviation**2 + 0.002**2))
    torch.testing.assert_close(found, exact, rtol=5e-3, atol=5e-2)


def test_another_denoiser_makes_something_else_of_the_same_noise() -> None:
    """What is above the mean of one Gaussian by two deviations is so in the other."""
    was, then = job(0.5, -1.0), job(0.25, 2.0)
    x = -1.0 + 0.5 * torch.tensor([[2.0, -1.0]], dtype=torch.float64).expand(5, 2)
    made = then.flow(inverted(was, x))
    torch.testing.assert_close(
        made, 2.0 + 0.25 * torch.tensor([[2.0, -1.0]], dtype=torch.float64).expand(5, 2), rtol=0.05, atol=0.1
    )
