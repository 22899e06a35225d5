"""Noise schedules, and the one picture in which every sampler works.

The state of a process is x = x0 + sigma * eps (variance exploding). A variance-preserving process
x' = sqrt(abar) x0 + sqrt(1 - abar) eps is the same seen through x' = x / sqrt(1 + sigma^2), with

    sigma = sqrt((1 - abar) / abar),      abar = 1 / (1 + sigma^2).

Whatever a network predicts, it becomes ``denoised``, its estimate of x0, by :func:`scalings`. All tables are
``float64``.

Papers
    Ho et al. 2020 (arXiv:2006.11239): linear betas, fixed variances.
    Nichol & Dhariwal 2021 (arXiv:2102.09672): cosine betas (eq. 17), learned range of the variance (eq. 15).
    Song et al. 2021 (arXiv:2010.02502): subsequences of the steps.
    Salimans & Ho 2022 (arXiv:2202.00512): v. Lin et al. 2024 (arXiv:2305.08891): zero terminal SNR, trailing steps.
    Karras et al. 2022 (arXiv:2206.00364): rho grid (eq. 5), preconditioning (table 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from castalia.core.errors import UsageError

Prediction = Literal["eps", "v", "x0"]
Spacing = Literal["leading", "trailing", "linspace"]
Schedule = Literal["linear", "cosine", "scaled_linear"]

LEAST_ALPHA_BAR = 1e-10
"""An abar of zero is an infinite sigma. Below this no signal is left that float32 could hold: sigma is 1e5."""


# betas and alpha-bars


def linear_betas(steps: int, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """Betas evenly spaced from ``first`` to ``last``, ``float64`` (steps,) (Ho et al.: 1,000 steps)."""
    return np.linspace(first, last, steps)


def scaled_linear_betas(steps: int, first: float = 0.00085, last: float = 0.012) -> np.ndarray:
    """Betas whose square roots are evenly spaced (Rombach et al. 2022), ``float64`` (steps,)."""
    return np.linspace(math.sqrt(first), math.sqrt(last), steps) ** 2


def cosine_betas(steps: int, offset: float = 0.008, most: float = 0.999) -> np.ndarray:
    """Nichol & Dhariwal, eq. 17: abar(t) = cos^2((t/T + s) / (1 + s) * pi/2) / abar(0); no beta above ``most``."""
    angle = (np.arange(steps + 1) / steps + offset) / (1 + offset) * (math.pi / 2)
    signal = np.cos(angle) ** 2
    return np.minimum(1 - signal[1:] / signal[:-1], most)


def alpha_bars_of(betas: np.ndarray) -> np.ndarray:
    """Cumulative products of 1 - beta."""
    return np.cumprod(1 - betas)


def zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Betas shifted and scaled so that sqrt(abar) keeps its first value and ends at 0 (Lin et al., algorithm 1)."""
    root = np.sqrt(alpha_bars_of(betas))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    squares = root**2
    return 1 - np.concatenate([squares[:1], squares[1:] / squares[:-1]])


def sigma_of(alpha_bar: float) -> float:
    """Noise level of a cumulative signal share; a share below :data:`LEAST_ALPHA_BAR` counts as that."""
    alpha_bar = max(alpha_bar, LEAST_ALPHA_BAR)
    return math.sqrt((1 - alpha_bar) / alpha_bar)


def alpha_bar_of(sigma: float) -> float:
    """The inverse of :func:`sigma_of`."""
    return 1 / (1 + sigma * sigma)


@dataclass(frozen=True, eq=False)
class Discrete:
    """A process of T noise levels, numbered from 0 (least noise) to T - 1.

    Attributes:
        betas: ``float64`` (T,).
        alpha_bars: ``float64`` (T,), decreasing; not below :data:`LEAST_ALPHA_BAR`.
        sigmas: ``float64`` (T,), increasing.
    """

    betas: np.ndarray
    alpha_bars: np.ndarray
    sigmas: np.ndarray

    @staticmethod
    def of(betas: np.ndarray) -> Discrete:
        """The process with these betas.

        Raises:
            ValueError: no betas, or one outside (0, 1]; or two steps of equal noise.
        """
        if betas.ndim != 1 or not len(betas) or not ((betas > 0) & (betas <= 1)).all():
            raise ValueError("betas lie in (0, 1], and there is at least one")
        alpha_bars = np.maximum(alpha_bars_of(betas), LEAST_ALPHA_BAR)
        sigmas = np.sqrt((1 - alpha_bars) / alpha_bars)
        if not (np.diff(sigmas) > 0).all():
            raise ValueError("the betas destroy all signal before the last step")
        return Discrete(betas, alpha_bars, sigmas)

    def __len__(self) -> int:
        return len(self.betas)

    def sigma(self, time: float) -> float:
        """Noise level at a step number, also between steps: log sigma is interpolated."""
        whole = round(time)
        if whole == time:
            return float(self.sigmas[whole])
        return math.exp(float(np.interp(time, np.arange(len(self)), np.log(self.sigmas))))

    def time(self, sigma: float) -> float:
        """Step number of a noise level, the inverse of :meth:`sigma`; outside the table its nearest end."""
        near = int(np.searchsorted(self.sigmas, sigma))
        if near < len(self) and self.sigmas[near] == sigma:
            return float(near)  # exact on the table, whatever rounding does to logarithms
        return float(np.interp(math.log(sigma), np.log(self.sigmas), np.arange(len(self))))


def process_of(schedule: Schedule, steps: int, *, zero_snr: bool = False) -> Discrete:
    """The process with a schedule of that name: linear ones have the same noise in all, however many steps there are.

    Raises:
        ValueError: the schedule does not work with so many steps.
    """
    scale = 1000 / steps
    if schedule == "cosine":
        betas = cosine_betas(steps)
    elif schedule == "linear":
        betas = np.minimum(linear_betas(steps, scale * 1e-4, scale * 0.02), 0.999)
    else:
        betas = np.minimum(scaled_linear_betas(steps, scale * 0.00085, scale * 0.012), 0.999)
    return Discrete.of(zero_terminal_snr(betas) if zero_snr else betas)


# grids: which noise levels a sampler visits


def timesteps(total: int, count: int, spacing: Spacing, offset: int = 0) -> list[int]:
    """``count`` of the step numbers 0 ... total - 1, decreasing and without repetition.

    ``leading``: multiples of total // count, plus ``offset``: DDIM's. They end at the least noise and need not reach
    the most. ``trailing``: from the most noise downwards (Lin et al.). ``linspace``: both ends, evenly spaced.

    Wherever a sampler needs the noise level *after* a step, it is that of the next number in this list. (Libraries
    that compute it as t - total // count are wrong for ``linspace``, whose steps are longer than that.)

    Raises:
        UsageError: more steps than there are, none at all, or an offset that leaves the range.
    """
    if not 1 <= count <= total:
        raise UsageError(f"{count} steps were asked for, but the process has {total}: ask for 1 to {total}.")
    if spacing == "leading":
        found = [i * (total // count) + offset for i in reversed(range(count))]
    elif spacing == "trailing":
        found = [round(total - i * total / count) - 1 for i in range(count)]
    else:
        found = [int(t) for t in np.linspace(0, total - 1, count).round()[::-1]] if count > 1 else [total - 1]
    if not 0 <= found[-1] <= found[0] < total:
        raise UsageError(f"an offset of {offset} leaves the {total} steps of the process")
    return found


def grid(process: Discrete, count: int, spacing: Spacing, offset: int = 0) -> list[float]:
    """Noise levels of :func:`timesteps`, and 0 at the end: ``count`` steps between ``count + 1`` levels."""
    return [float(process.sigmas[t]) for t in timesteps(len(process), count, spacing, offset)] + [0.0]


def karras_sigmas(count: int, low: float, high: float, rho: float = 7.0) -> list[float]:
    """``count`` levels from ``high`` to ``low``, evenly spaced in sigma^(1/rho), then 0 (Karras et al., eq. 5)."""
    _check_range(count, low, high)
    a, b = high ** (1 / rho), low ** (1 / rho)
    levels = [(a + i / max(count - 1, 1) * (b - a)) ** rho for i in range(count)]
    levels[0] = high
    if count > 1:
        levels[-1] = low
    return [*levels, 0.0]


def log_sigmas(count: int, low: float, high: float) -> list[float]:
    """``count`` levels from ``high`` to ``low``, evenly spaced in log sigma, then 0."""
    _check_range(count, low, high)
    ratio = math.log(low / high) / max(count - 1, 1)
    levels = [high * math.exp(i * ratio) for i in range(count)]
    if count > 1:
        levels[-1] = low
    return [*levels, 0.0]


def logistic_sigmas(count: int, low: float, high: float, centre: float = 0.5, width: float = 2.0) -> list[float]:
    """``count`` levels from ``high`` to ``low`` whose logarithms follow a logistic distribution, then 0.

    sigma = centre * (u / (1 - u))^width with evenly spaced u: steps are shortest, in log sigma, near ``centre``, where
    the denoised example changes most; with ``centre`` the deviation of the data, errors fall several times below those
    of the rho grid for the same number of steps (see tests/models/diffusion/test_samplers.py).
    """
    _check_range(count, low, high)
    first, last = (1 / (1 + (centre / s) ** (1 / width)) for s in (high, low))
    shares = [first + (last - first) * i / max(count - 1, 1) for i in range(count)]
    levels = [centre * (u / (1 - u)) ** width for u in shares]
    levels[0] = high
    if count > 1:
        levels[-1] = low
    return [*levels, 0.0]


def _check_range(count: int, low: float, high: float) -> None:
    if count < 1:
        raise UsageError(f"{count} steps were asked for; at least one is needed.")
    if not 0 < low < high < math.inf:
        raise ValueError("noise levels need 0 < low < high")


# what a network predicts


def scalings(prediction: Prediction, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(skip, out, in) with denoised = skip * x + out * network(in * x), for a network that predicts ...

    ``eps``: the noise. ``x0``: the clean example. ``v``: sqrt(abar) eps - sqrt(1 - abar) x0.
    """
    inner = (1 + sigma**2).rsqrt()
    if prediction == "eps":
        return torch.ones_like(sigma), -sigma, inner
    if prediction == "v":
        return inner**2, -sigma * inner, inner
    return torch.zeros_like(sigma), torch.ones_like(sigma), inner


def edm_scalings(sigma: Tensor, data_std: float) -> tuple[Tensor, Tensor, Tensor]:
    """(skip, out, in) of Karras et al., table 1: input and training target of the network have variance 1."""
    total = sigma**2 + data_std**2
    return data_std**2 / total, sigma * data_std * total.rsqrt(), total.rsqrt()


def target(prediction: Prediction, x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """What the network should have said, given clean examples and noise; ``sigma`` broadcasts against them."""
    if prediction == "eps":
        return eps
    if prediction == "v":
        return (eps - sigma * x0) * (1 + sigma**2).rsqrt()
    return x0


# variances of a reverse step from sigma to following < sigma, in the variance-exploding picture


def posterior_variance(sigma: float, following: float) -> float:
    """Variance of q(x_following | x_sigma, x0): Ho et al.'s beta-tilde ("fixed small")."""
    return following**2 * (1 - (following / sigma) ** 2)


def beta_variance(sigma: float, following: float) -> float:
    """Ho et al.'s beta ("fixed large"), the variance that is right for data of unit variance."""
    return (sigma**2 - following**2) * (1 + following**2) / (1 + sigma**2)


def step_deviation(sigma: float, following: float, fraction: float | Tensor) -> float | Tensor:
    """Deviation between the two: log-variance interpolated, 0 the posterior's, 1 beta (Nichol & Dhariwal, eq. 15)."""
    small, large = posterior_variance(sigma, following), beta_variance(sigma, following)
    if isinstance(fraction, Tensor):
        return torch.exp(fraction * (0.5 * math.log(large / small)) + 0.5 * math.log(small))
    return math.sqrt(small ** (1 - fraction) * large**fraction)


def levels(process: Discrete, steps: int, kind: str, strength: float = 1.0) -> list[float]:
    """Noise levels of a sampling of a process that starts at a share ``strength`` of its steps, 0 at the end.

    Args:
        process: the noise levels that there are.
        steps: of the sampler.
        kind: ``karras``, ``log`` or ``logistic`` lay them between the process's first and last; else a :data:`Spacing`.
        strength: 1 is all of it.
    """
    low, high = float(process.sigmas[0]), level_at(process, strength)
    if kind == "karras":
        return karras_sigmas(steps, min(low, high / 2), high)
    if kind == "log":
        return log_sigmas(steps, min(low, high / 2), high)
    if kind == "logistic":
        return logistic_sigmas(steps, min(low, high / 2), high)
    if strength == 1:
        return grid(process, steps, kind)  # type: ignore[arg-type]
    return [level_at(process, strength * (1 - i / steps)) for i in range(steps)] + [0.0]


def level_at(process: Discrete, share: float) -> float:
    """Noise level at a share of the steps; below the first step it falls to 0 linearly."""
    time = share * len(process) - 1
    return process.sigma(time) if time >= 0 else float(process.sigmas[0]) * (time + 1)
