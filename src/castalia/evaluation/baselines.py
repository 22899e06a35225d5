"""Trivial models of pictures, measured in the units of the real ones.

A likelihood means little alone: these say what independent pixels, and the best mixture found, reach on the
same examples. Everything that could be tuned (smoothing, components, kind of covariance) is chosen on a
held-out part of the *training* data; only then is the model fitted to all of it and scored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Dataset
from castalia.core.errors import UsageError
from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.estimators.mixtures import Bernoullis, DiagonalGaussians, FullGaussians, Mixture
from castalia.estimators.progress import Show
from castalia.evaluation.likelihood import bits_per_dim, nats_unit

Binarise = Literal["none", "dynamic", "threshold"]

MAX_VALUES = 1 << 27
"""Training values read for independent pixels; larger sets are subsampled."""

MIXTURE_VALUES = 1 << 24
"""Training values that a mixture is fitted to; larger sets are subsampled."""

MIXTURE_EXAMPLES = 2_000
"""Examples that a mixture is fitted to where pictures have more values: eigenvectors cost the cube."""

HELD_VALUES = 1 << 18
"""Values that the smoothing is chosen on."""

SCORED_AT_ONCE = 1 << 21
"""Values scored at once; bounds the memory."""


def binarisation(preprocessing: str) -> Binarise:
    """Which binarisation a likelihood's ``preprocessing`` text describes."""
    if "binaris" not in preprocessing:
        return "none"
    return "dynamic" if "dynamic" in preprocessing else "threshold"


@dataclass(frozen=True)
class IndependentPixels:
    """A histogram of values at every (channel, row, column), smoothed.

        p(v) = (count(v) + strength * prior(v)) / (n + strength),
        prior = (1 - flat) * histogram of the channel + flat / levels.

    Attributes:
        probability: ``float64`` (D, levels), each row sums to 1.
        strength: chosen pseudo-examples.
        flat: chosen share of the uniform distribution in the prior.
    """

    probability: Tensor
    strength: float
    flat: float

    @staticmethod
    def fit(x: Tensor, levels: int = 256, seed: int = 0) -> IndependentPixels:
        """Fit to pictures ``uint8`` (N, C, H, W) with values below ``levels``, N >= 2."""
        fitting, held = _split(x, seed)
        counts = _counts(fitting, levels)
        position, values = torch.arange(counts.shape[0]), held.flatten(1).long()
        seen = counts[position, values]
        prior = _prior(counts, x.shape[1])
        seen_prior = prior[position, values]
        best = (math.inf, 0.0, 0.0)
        for strength in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0):
            for flat in (0.001, 0.03, 0.3, 1.0):
                mixed = (1 - flat) * seen_prior + flat / levels
                nats = -float(((seen + strength * mixed) / (len(fitting) + strength)).log().mean())
                best = min(best, (nats, strength, flat))
        _, strength, flat = best
        counts += _counts(held, levels)
        mixed = (1 - flat) * _prior(counts, x.shape[1]) + flat / levels
        return IndependentPixels((counts + strength * mixed) / (len(x) + strength), strength, flat)

    def nats(self, x: Tensor) -> Tensor:
        """Negative log-likelihood of pictures ``uint8`` (B, C, H, W), ``float64`` (B,)."""
        log_p = self.probability.log()
        return -log_p[torch.arange(len(log_p)), x.flatten(1).long()].sum(1)


def _counts(x: Tensor, levels: int) -> Tensor:
    """How often each value occurs at each position, ``float64`` (D, levels)."""
    d = x[0].numel()
    out = torch.zeros(d * levels, dtype=torch.int64)
    offset = torch.arange(d) * levels
    for rows in x.flatten(1).split(max(1, SCORED_AT_ONCE // d)):
        out += torch.bincount((rows.long() + offset).flatten(), minlength=d * levels)
    return out.view(d, levels).double()


def _prior(counts: Tensor, channels: int) -> Tensor:
    """The channel's own histogram (one pseudo-count per value) at each of its positions, (D, levels)."""
    total = counts.view(channels, -1, counts.shape[1]).sum(1) + 1
    return (total / total.sum(1, keepdim=True)).repeat_interleave(len(counts) // channels, 0)


@dataclass(frozen=True)
class BaseRates:
    """Independent binary pixels: the rate of ones at every position, smoothed towards the channel's rate.

    Attributes:
        rate: ``float64`` (C, H, W), inside (0, 1).
        strength: chosen pseudo-examples.
    """

    rate: Tensor
    strength: float

    @staticmethod
    def fit(grey: Tensor, seed: int = 0) -> BaseRates:
        """Fit to probabilities of ones ``float32`` (N, C, H, W); 0 and 1 where pixels are binary, N >= 2."""
        fitting, held = _split(grey, seed)
        target = held.double().mean(0)
        options = []
        for strength in (0.1, 0.3, 1.0, 3.0, 10.0, 100.0):
            rate = BaseRates._smoothed(fitting, strength)
            options.append((float(-_expected(target, rate).sum()), strength))
        strength = min(options)[1]
        return BaseRates(BaseRates._smoothed(grey, strength), strength)

    @staticmethod
    def _smoothed(grey: Tensor, strength: float) -> Tensor:
        total = grey.sum(0, dtype=torch.float64)
        pixels = len(grey) * total[0].numel()
        channel = (total.sum((1, 2), keepdim=True) + 0.5) / (pixels + 1)
        return (total + strength * channel) / (len(grey) + strength)

    def nats(self, grey: Tensor) -> Tensor:
        """Expected negative log-likelihood, ``float64`` (B,), of pixels that are 1 with probability ``grey``.

        The log-likelihood is linear in the pixels, so this is exact under dynamic binarisation.
        """
        return -_expected(grey.double(), self.rate).flatten(1).sum(1)


def _expected(grey: Tensor, rate: Tensor) -> Tensor:
    return grey * rate.log() + (1 - grey) * torch.log1p(-rate)


@dataclass(frozen=True)
class BestMixture:
    """The mixture that explains held-out training examples best.

    Attributes:
        mixture: fitted to all (subsampled) training examples.
        strength: its chosen smoothing.
        examples: how many it was fitted to.
        tried: held-out nats per example of the best of each kind, by title.
    """

    mixture: Mixture
    strength: float
    examples: int
    tried: dict[str, float]

    @staticmethod
    def fit(x: Tensor, binarise: Binarise, levels: int = 256, seed: int = 0, show: Show | None = None) -> BestMixture:
        """Fit to pictures ``uint8`` (N, C, H, W), N >= 2."""
        d = x[0].numel()
        limit = min(max(20, MIXTURE_VALUES // d), MIXTURE_EXAMPLES if d > MIXTURE_EXAMPLES else len(x))
        x = x[torch.from_numpy(subset(len(x), limit, seed, "mixture"))]
        ids = np.arange(len(x))
        fitting, held = _split(torch.arange(len(x)), seed, max(20, HELD_VALUES // d))
        kinds: tuple[type[Mixture], ...] = (DiagonalGaussians, FullGaussians) if binarise == "none" else (Bernoullis,)
        tried: dict[str, float] = {}
        options: list[tuple[float, int, int, float]] = []
        for number, kind in enumerate(kinds):
            target = mixture_target(kind, x, ids, binarise, seed)
            mine = []
            for k in kind.components:
                if k > 1 and k > len(fitting) // 5:
                    break
                if show is not None:
                    show(f"baseline: {kind.title}, {k} components")
                mixture = kind(target[fitting], k, levels, seed)
                mine += [(-float(mixture.log_prob(target[held], s).mean()), number, k, s) for s in kind.strengths]
            options += mine
            tried[kind.title] = min(mine)[0]
        _, number, k, strength = min(options)
        kind = kinds[number]
        return BestMixture(kind(mixture_target(kind, x, ids, binarise, seed), k, levels, seed), strength, len(x), tried)


def mixture_target(kind: type[Mixture], x: Tensor, ids: np.ndarray, binarise: Binarise, seed: int) -> Tensor:
    """What a mixture models, ``float64`` (B, D), of pictures ``uint8`` (B, C, H, W) numbered ``ids``.

    Binarised and dequantised with the same numbers as a model's likelihood at the same (seed, id), so the
    baseline and the model are measured on the very same binary pictures.
    """
    if binarise == "threshold":
        return (x > 127.5).flatten(1).double()
    rng = SampleRng(seed, [int(i) for i in ids])
    if binarise == "dynamic":
        return (rng.uniform("binarise", *x.shape[1:]) < x.float() / 255).flatten(1).double()
    if kind is FullGaussians:
        return (x.double() + rng.uniform("dequantise", *x.shape[1:])).flatten(1)
    return x.flatten(1).double()


def _split(x: Tensor, seed: int, most: int = 1 << 30) -> tuple[Tensor, Tensor]:
    """Rows for fitting, and a tenth (at least 1, at most ``most`` and as HELD_VALUES allows) for choosing."""
    if len(x) < 2:
        raise UsageError("Baselines need at least two training examples.")
    most = min(most, max(20, (HELD_VALUES << 5) // max(x[0].numel(), 1)))
    held = subset(len(x), min(max(1, len(x) // 10), most), seed, "held out")
    rest = np.ones(len(x), bool)
    rest[held] = False
    return x[torch.from_numpy(rest)], x[torch.from_numpy(held)]


def baselines(
    train: Dataset,
    data: Dataset,
    ids: np.ndarray,
    *,
    binarise: Binarise = "none",
    values: tuple[int, ...] | None = None,
    seed: int = 0,
    show: Show | None = None,
) -> dict[str, Metric]:
    """Fit trivial models to ``train`` and score the examples ``ids`` (N,) of ``data``.

    Args:
        train: what they are fitted to.
        data: what they are scored on.
        ids: which examples.
        binarise: of the likelihood that they stand beside.
        values: over which that likelihood is, see :class:`castalia.core.capabilities.Likelihood`; None for all 256.
        seed: of all randomness.
        show: receives lines of progress.

    Returns:
        ``baseline_pixels_nll`` and ``baseline_mixture_nll`` (nats per example), and the same in bits per
        dimension as ``..._bits_per_dim``.

    Raises:
        UsageError: the two differ in shape, or are no pictures.
    """
    spec = data.spec
    if not isinstance(spec, ImageSpec) or not isinstance(train.spec, ImageSpec) or spec.shape != train.spec.shape:
        raise UsageError(f"Baselines need pictures of one shape, not {train.spec} and {spec}.")
    number, levels = _numbering(values)
    x = train.batch(subset(len(train), max(2, MAX_VALUES // spec.dims), seed, "baseline")).x.cpu()
    x = x if values is None else number[x.long()]
    if show is not None:
        show("baseline: independent pixels")
    if binarise == "none":
        pixels: IndependentPixels | BaseRates = IndependentPixels.fit(x, levels, seed)
    else:
        pixels = BaseRates.fit(_grey(x, binarise), seed)
    best = BestMixture.fit(x, binarise, levels, seed, show)
    pixel_nats, mixture_nats = [], []
    for start in range(0, len(ids), rows := max(1, SCORED_AT_ONCE // spec.dims)):
        mine = ids[start : start + rows]
        part = data.batch(mine).x.cpu()
        part = part if values is None else number[part.long()]
        pixel_nats.append(pixels.nats(part if binarise == "none" else _grey(part, binarise)))
        target = mixture_target(type(best.mixture), part, mine, binarise, seed)
        mixture_nats.append(-best.mixture.log_prob(target, best.strength))
    over = "" if values is None else f"; over the {levels} values of the training data"
    suffix = {"none": over, "dynamic": "; dynamic binarisation", "threshold": "; binarised at 127.5"}[binarise]
    pixel_kind = "exact, in expectation over the binarisation" if binarise == "dynamic" else "exact"
    mixture_kind = "bound (uniform dequantisation)" if isinstance(best.mixture, FullGaussians) else "exact"
    tried = "; ".join(f"{title}: {nats:.5g} nats" for title, nats in best.tried.items())
    unit = nats_unit(suffix, values)
    found = {
        "pixels": mean_metric(
            torch.cat(pixel_nats).numpy(),
            unit,
            pixel_kind,
            seed,
            f"independent pixels, fitted to {len(x)} examples of {train.name}{suffix}",
        ),
        "mixture": mean_metric(
            torch.cat(mixture_nats).numpy(),
            unit,
            mixture_kind,
            seed,
            f"{best.mixture.title}, {best.mixture.k} components, smoothing {best.strength:g}, fitted to "
            f"{best.examples} examples of {train.name} (held out: {tried}){suffix}",
        ),
    }
    out: dict[str, Metric] = {}
    for name, metric in found.items():
        out[f"baseline_{name}_nll"] = metric
        out[f"baseline_{name}_bits_per_dim"] = bits_per_dim(metric, spec)
    return out


def _numbering(values: tuple[int, ...] | None) -> tuple[Tensor, int]:
    """The number ``uint8`` (256,) of the value that each of the 256 is, or is nearest to; and how many there are.

    Held-out pictures with other values have probability 0 under such a model, which refuses them before.
    """
    known = torch.arange(256) if values is None else torch.tensor(values)
    return (torch.arange(256)[:, None] - known).abs().argmin(1).to(torch.uint8), len(known)


def _grey(x: Tensor, binarise: Binarise) -> Tensor:
    """Probability that each pixel is 1, ``float32``."""
    return (x > 127.5).float() if binarise == "threshold" else x.float() / 255
