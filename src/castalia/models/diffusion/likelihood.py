"""Likelihoods of a diffusion process: the variational bound, and the probability-flow equation.

Variational bound (Sohl-Dickstein et al. 2015; Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021), for T noise levels:

    -log p(x0) <= KL(q(x_T | x0) || N(0, I)) + sum_t KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)) - E log p(x0 | x_1)

In the variance-exploding picture the posterior is N(D + r^2 (x - D), s'^2 (1 - r^2)) with r = s' / s at D = x0, and the
model's step is the same at D = ``denoised``, with a variance of its own. A KL does not change with the units.
The last term is a discretised Gaussian: each value of a picture is a bin, the outermost bins are open.

Probability flow (Song et al. 2021, arXiv:2011.13456, eq. 39; Chen et al. 2018 for the density along a flow). With
l = log sigma, dx/dl = x - D(x, sigma), so

    log p_low(x) = -d/2 log(2 pi) - d log s_low - |x(s_high)|^2 / (2 s_high^2) - integral of tr dD/dx over l.

The linear part of the divergence has been integrated by hand: it would cancel against log s_high, and lose digits.
Two errors remain besides that of the solver: p_high is taken to be N(0, s_high^2) (truncation), and for data of many
dimensions the trace is estimated with random probes (Hutchinson; unbiased, Grathwohl et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from castalia.models.diffusion.schedules import Discrete, beta_variance, posterior_variance
from castalia.nn.bins import Decoder

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(x, step numbers int64 (B,)) -> (denoised, fraction of the learned variance or None), for x = x0 + sigma * eps."""

# the variational bound


def strata(steps: int, terms: int) -> list[tuple[int, int]]:
    """Cut the numbers 1 ... steps - 1 into (start, stop) pieces for a low-variance estimate of a sum over them.

    The terms of the bound fall roughly as 1/t, so the pieces grow with t: the first ones hold a single term, which is
    then exact, and pieces have about equal shares of the sum. ``terms`` pieces, or one for each number where there are
    not so many.
    """
    if terms < 1:
        raise ValueError("at least one term has to be drawn")
    count = steps - 1
    terms = min(terms, count)
    edges = [1]
    for left in range(terms, 0, -1):
        # the remaining numbers in geometric pieces, each at least one long, and leaving one for each that follows
        ratio = ((count + 1) / edges[-1]) ** (1 / left)
        edges.append(min(max(edges[-1] + 1, round(edges[-1] * ratio)), count + 2 - left))
    return list(pairwise(edges))


def prior_kl(x0: Tensor, sigma: float) -> Tensor:
    """KL(q(x_T | x0) || N(0, I)) in nats per example, ``float64`` (B,), at noise level ``sigma``."""
    alpha_bar = 1 / (1 + sigma**2)
    noise = 1 - alpha_bar
    return 0.5 * (alpha_bar * x0.double() ** 2 + noise - 1 - math.log(noise)).flatten(1).sum(1)


def step_kl(
    x0: Tensor, denoised: Tensor, process: Discrete, times: Tensor, fraction: float | Tensor, *, stop_mean: bool = False
) -> Tensor:
    """KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)) per value, in nats, shaped like x0.

    Args:
        x0: clean examples.
        denoised: the model's estimate of them.
        process: noise levels.
        times: step numbers ``int64`` (B,), each at least 1.
        fraction: of the model's log-variance between the posterior's (0) and beta (1).
        stop_mean: no gradient into ``denoised`` (Nichol & Dhariwal's hybrid loss).
    """
    sigma, following = levels_at(process, times, x0), levels_at(process, times - 1, x0)
    small = following**2 * (1 - (following / sigma) ** 2)
    gap = torch.log(_beta(sigma, following) / small) * fraction  # log of model's over posterior's variance
    if stop_mean:
        denoised = denoised.detach()
    # squared difference of means over the posterior's variance
    distance = (x0 - denoised) ** 2 * (following**-2 - sigma**-2)
    return 0.5 * (gap + torch.exp(-gap) * (1 + distance) - 1)


def decoder_deviation(process: Discrete, fraction: float | Tensor) -> Tensor:
    """Deviation of p(x0 | x_1), ``float64``: its log-variance lies a ``fraction`` of the way between two.

    1 is beta_1. The posterior's variance is 0 there; as Ho et al. do, that of the next step serves for 0. They and
    Nichol & Dhariwal have it for *both* fixed variances: their ``fixedlarge`` is beta for all steps but this one, and
    their published bounds rest on it.
    """
    large = beta_variance(float(process.sigmas[0]), 0.0)
    if len(process) > 1:
        first, second = float(process.sigmas[0]), float(process.sigmas[1])
        small = posterior_variance(second, first) / (1 + first**2)  # in the units of x0, as everything here
    else:
        small = large
    fraction = torch.as_tensor(fraction, dtype=torch.float64)
    return torch.exp(0.5 * (fraction * math.log(large / small) + math.log(small)))


def variational_bound(
    predict: Predict,
    x0: Tensor,
    process: Discrete,
    decoder: Decoder,
    *,
    noise: Callable[[int], Tensor],
    where: Callable[[int], Tensor],
    terms: int,
    variance: float = 0.0,
    decoder_variance: float = 0.0,
) -> Tensor:
    """Upper bound on -log p(x0) in nats per example, ``float64`` (B,), in expectation over the noise.

    Args:
        predict: the model.
        x0: clean examples in the model's units.
        process: noise levels.
        decoder: log-probability of the examples' values given mean and deviation.
        noise: standard normal, shaped like x0, for evaluation number i (0 is the decoder's).
        where: uniform on [0, 1), ``float`` (B,), for evaluation number i: which term of its piece.
        terms: evaluations besides the decoder's. From T - 1 on every term is computed; with fewer, one of each piece of
            :func:`strata` is drawn for each example and weighted with the length of the piece, which is unbiased.
        variance: fraction of the log-variance where the model does not predict it.
        decoder_variance: the same for the decoder, see :func:`decoder_deviation`.
    """
    total = prior_kl(x0, float(process.sigmas[-1]))
    first = torch.zeros(len(x0), dtype=torch.int64, device=x0.device)
    denoised, fraction = predict(x0 + float(process.sigmas[0]) * noise(0).to(x0.dtype), first)
    deviation = decoder_deviation(process, decoder_variance if fraction is None else fraction).to(x0.device)
    total = total - decoder(x0, denoised, deviation).double().flatten(1).sum(1)
    for i, (start, stop) in enumerate(strata(len(process), terms) if len(process) > 1 else [], 1):
        width = stop - start
        times = first + start
        if width > 1:
            times = times + (where(i).double() * width).long().clamp(max=width - 1)
        x = x0 + levels_at(process, times, x0) * noise(i).to(x0.dtype)
        denoised, fraction = predict(x, times)
        term = step_kl(x0.double(), denoised.double(), process, times, variance if fraction is None else fraction)
        total = total + width * term.flatten(1).sum(1)
    return total


def levels_at(process: Discrete, times: Tensor, like: Tensor) -> Tensor:
    """Noise levels of step numbers (B,), as (B, 1, ...) that broadcasts against ``like``, in its dtype."""
    table = torch.from_numpy(process.sigmas).to(times.device)
    return table[times].view(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def _beta(sigma: Tensor, following: Tensor) -> Tensor:
    return (sigma**2 - following**2) * (1 + following**2) / (1 + sigma**2)


# the probability-flow equation


def flow_log_density(
    denoise: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: Sequence[float],
    *,
    probes: Iterable[Tensor] | None = None,
    prior: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Log-density of the model at noise level ``sigmas[0]``, nats per example, ``float64`` (B,).

    The classic Runge-Kutta method in log sigma: four evaluations and traces per step.

    Args:
        denoise: the model; differentiable with respect to x.
        x: examples (B, ...); ``float64`` for small problems.
        sigmas: increasing levels, without 0.
        probes: Hutchinson's random vectors shaped like x, of unit covariance; the same ones along the whole path.
            None computes the trace exactly, with one backward pass per dimension.
        prior: log-density at the last level in place of N(0, sigma^2).
    """
    probes = None if probes is None else list(probes)
    dims = x[0].numel()
    trace = torch.zeros(len(x), dtype=torch.float64, device=x.device)

    def slope(state: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        denoised, found = _denoised_and_trace(denoise, state, sigma, probes)
        return state - denoised, found

    for low, high in pairwise(sigmas):
        h, middle = math.log(high / low), math.sqrt(low * high)
        k1, t1 = slope(x, low)
        k2, t2 = slope(x + (h / 2) * k1, middle)
        k3, t3 = slope(x + (h / 2) * k2, middle)
        k4, t4 = slope(x + h * k3, high)
        x = x + (h / 6) * (k1 + 2 * (k2 + k3) + k4)
        trace = trace + (h / 6) * (t1 + 2 * (t2 + t3) + t4)
    first, last = sigmas[0], sigmas[-1]
    if prior is None:
        square = x.double().flatten(1).square().sum(1)
        end = -0.5 * dims * math.log(2 * math.pi) - square / (2 * last**2)
    else:
        end = prior(x).double() + dims * math.log(last)
    return end - dims * math.log(first) - trace


def _denoised_and_trace(
    denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigma: float, probes: list[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Denoised examples, and the trace of their Jacobian, ``float64`` (B,)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        denoised = denoise(x, sigma)
        trace = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if probes is None:
            flat = denoised.flatten(1)
            for d in range(flat.shape[1]):
                last = d == flat.shape[1] - 1
                (gradient,) = torch.autograd.grad(flat[:, d].sum(), x, retain_graph=not last)
                trace = trace + gradient.flatten(1)[:, d].double()
        else:
            for i, probe in enumerate(probes):
                (gradient,) = torch.autograd.grad(denoised, x, probe.to(x.dtype), retain_graph=i < len(probes) - 1)
                trace = trace + (gradient * probe).flatten(1).double().sum(1) / len(probes)
    return denoised.detach(), trace
