"""Guidance, as wrappers of denoise functions: without a classifier, and by one.

Papers
    Ho & Salimans 2022 (arXiv:2207.12598). With scale w: D = D_null + w (D_label - D_null); w = 1 is the plain
    conditional model, 0 the unconditional one. (The paper's own w is this one minus 1.) Guidance is affine in the
    denoised example, so it is the same thing for predictions of noise, v or the example, as long as nothing is clipped.
    Clipping comes after the mix, as in published samplers (GLIDE, arXiv:2112.10741, whose code guides the noise and
    clips the example that follows; Saharia et al. 2022, arXiv:2205.11487, section 2.3): what is extrapolated from two
    branches that were clipped lies outside again.
    Kynkäänniemi et al. 2024 (arXiv:2404.07724): only within an interval of noise levels.
    Lin et al. 2024 (arXiv:2305.08891, section 3.4): rescaling against over-exposure. Here it acts on the denoised
    example, whose contrast is what it is about.
    Dhariwal & Nichol 2021 (arXiv:2105.05233), section 4: by a classifier of noisy examples. The score of
    p(x) p(y | x)^s is that of p(x) plus s grad log p(y | x), and the score is (D - x) / sigma^2: so
    D' = D + s sigma^2 grad_x log p(y | x, sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from castalia.models.diffusion.samplers import Denoise

Conditional = Callable[[Tensor, float, Tensor], Tensor]
"""(x, sigma, label int64 (B,)) -> denoised, as the network has it."""

Chance = Callable[[Tensor, float], Tensor]
"""(x, sigma) -> log p(y | x, sigma) of what each example is asked to be, (B,)."""

Settle = Callable[[Tensor, float], Tensor]
"""(denoised, sigma) -> the same, as far as the medium allows it."""


@dataclass(frozen=True)
class Guidance:
    """How strongly samples are pulled towards their label.

    Attributes:
        scale: 1 is the plain conditional model; more trades variety for likeness to the label.
        low: at this noise level and below there is none.
        high: above this noise level there is none.
        rescale: share, 0 to 1, of the correction that gives each denoised example the deviation that it has
            without guidance.
    """

    scale: float = 1.0
    low: float = 0.0
    high: float = math.inf
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if self.scale < 0 or not 0 <= self.low <= self.high or not 0 <= self.rescale <= 1:
            raise ValueError("guidance needs scale >= 0, 0 <= low <= high and rescale between 0 and 1")

    def acts_at(self, sigma: float) -> bool:
        """Whether it changes anything at this noise level."""
        return self.scale != 1 and self.low < sigma <= self.high


def guided(denoise: Conditional, label: Tensor, null: int, guidance: Guidance, settle: Settle | None = None) -> Denoise:
    """The guided denoise function of examples with these labels.

    Args:
        denoise: a conditional model that knows the label ``null`` as "none". It sees both branches as one batch of
            twice the size, labels first, wherever guidance acts; elsewhere the plain batch.
        label: ``int64`` (B,).
        null: number of the null class.
        guidance: how much and where.
        settle: applied to what comes out of the mix; ``denoise`` must not do it itself.
    """
    settle = settle or (lambda denoised, _: denoised)
    both = torch.cat([label, torch.full_like(label, null)])

    def function(x: Tensor, sigma: float) -> Tensor:
        if not guidance.acts_at(sigma):
            return settle(denoise(x, sigma, label), sigma)
        with_label, without = denoise(torch.cat([x, x]), sigma, both).chunk(2)
        found = torch.lerp(without, with_label, guidance.scale)
        if guidance.rescale:
            ratio = (_deviation(with_label) / _deviation(found)).nan_to_num(1.0, 1.0, 1.0)
            found = found * (1 + guidance.rescale * (ratio - 1))
        return settle(found, sigma)

    return function


def led(denoise: Denoise, chance: Chance, guidance: Guidance, settle: Settle | None = None) -> Denoise:
    """The denoise function of examples that a classifier leads to what they are asked to be.

    Args:
        denoise: the model, with or without labels; it must not settle anything itself.
        chance: log-probability of what is asked for, differentiable in x.
        guidance: ``scale`` is s, here with 0 as the plain model; ``low`` and ``high`` say where it acts.
        settle: applied to what comes out.
    """
    settle = settle or (lambda denoised, _: denoised)

    def function(x: Tensor, sigma: float) -> Tensor:
        denoised = denoise(x, sigma)
        if guidance.scale and guidance.low < sigma <= guidance.high:
            denoised = torch.add(denoised, climb(chance, x, sigma), alpha=guidance.scale * sigma**2)
        return settle(denoised, sigma)

    return function


def climb(chance: Chance, x: Tensor, sigma: float) -> Tensor:
    """The gradient of ``chance`` in x (B, ...), whatever mode the caller is in."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().detach().requires_grad_()
        return torch.autograd.grad(chance(x, sigma).sum(), x)[0]


def _deviation(x: Tensor) -> Tensor:
    """Of each example over all its values, (B, 1, ...)."""
    return x.flatten(1).std(1, correction=0).view(-1, *[1] * (x.ndim - 1))
