"""Sampling run backwards: the noise that a given example comes from.

Papers
    Song, Meng & Ermon 2021, "Denoising Diffusion Implicit Models" (arXiv:2010.02502), section 4.3: without fresh noise
    sampling is Euler's method for an equation that can be followed in both directions.
    Pan, Gherardi, Xie & Huang 2023, "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion"
    (arXiv:2309.04907): a step is undone exactly by a fixed point.

A step from the level h to the level l below it is

    x_l = D(x_h, h) + (l / h) (x_h - D(x_h, h)),

so x_h is the fixed point of either of

    x_h = x_l + (1 - l / h) (x_h - D(x_h, h)),          x_h = D(x_h, h) + (h / l) (x_l - D(x_h, h)).

Taking the slope at x_l instead, as DDIM's inversion does, is the first iteration of the left one.

What differs, and why
    Plain iterations, of whichever form contracts more: the left one by at most (1 - l / h) |1 - D'|, the right one by
    (h / l - 1) |D'|. D' falls from 1 at low levels to 0 at high ones, as it does for Gaussian data.
    The last step of sampling, to level 0, is taken for none: there the denoised example is the state itself, but for
    the lowest level.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from castalia.models.diffusion.drawing import Job

ITERATIONS = 6
"""For each step; with usual schedules the error falls by a factor of three or more each time."""
DEVIATION = 0.5
"""Of data in the units of diffusion, for the choice of a form."""


def inverted(job: Job, x: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The state at the first level from which Euler's steps lead to ``x``.

    Args:
        job: whose denoiser and levels these are.
        x: examples (B, ...) in the model's units.
        iterations: of each step, at least 1; 1 is DDIM's inversion.
    """
    levels = [sigma for sigma in reversed(job.sigmas) if sigma > 0]
    for low, high in pairwise(levels):
        flat = DEVIATION**2 / (DEVIATION**2 + high**2)  # D' of Gaussian data
        by_slope = (1 - low / high) * (1 - flat) <= (high / low - 1) * flat
        state = x
        for _ in range(iterations):
            denoised = job.denoise(state, high)
            state = x + (1 - low / high) * (state - denoised) if by_slope else denoised + (high / low) * (x - denoised)
        x = state
    return x
