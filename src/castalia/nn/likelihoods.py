"""Likelihoods of 8-bit pictures given a network's outputs, in nats of the original ``uint8`` values.

Each says how pixels become what it models (:meth:`target`), what the encoder should see (:meth:`features`), and
gives the log-probability of the target with every change of units counted.

* Bernoulli: pixels are binarised; nats per binary picture.
* Gaussian: pixels are uniformly dequantised (Uria et al. 2013, arXiv:1306.0186), so that the density bounds
  the probability of the 8-bit picture from below.
* Logistic mixture: Salimans et al. 2017 (arXiv:1701.05517), discretised, so a probability of 8-bit values.
  Where the original falls back to a midpoint density for narrow bins, the bin's mass is computed exactly from
  sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)); and sampled channels are rounded to 8 bits before
  the next channel is conditioned on them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.rng import Rng


class PixelLikelihood(ABC):
    """p(picture | outputs), for outputs of shape (N, maps, H, W).

    Attributes:
        maps: number of output maps that it needs.
        preprocessing: what it does to the data, in words.
        exact: False where :meth:`log_prob` is itself a lower bound in expectation (dequantisation).
    """

    maps: int
    preprocessing: str
    exact: bool

    @abstractmethod
    def target(self, x: Tensor, rng: Rng | None) -> Tensor:
        """``float32`` (B, C, H, W) in the likelihood's own units from ``uint8`` pixels; its mean without ``rng``."""

    @abstractmethod
    def features(self, target: Tensor) -> Tensor:
        """The target on the scale [-1, 1], for an encoder."""

    def seen(self, x: Tensor) -> Tensor:
        """What an encoder sees of pictures ``float32`` (B, C, H, W), 0 to 255: grey as it is, and gradients flow."""
        return x / 127.5 - 1

    @abstractmethod
    def log_prob(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Log-probability in nats, (K, B), of targets (B, C, H, W) under outputs (K, B, maps, H, W)."""

    @abstractmethod
    def expected(self, outputs: Tensor) -> Tensor:
        """The expected picture before it is rounded, ``float32`` (N, C, H, W), on the scale of 0 to 255."""

    def mean(self, outputs: Tensor) -> Tensor:
        """The expected picture, ``uint8`` (N, C, H, W)."""
        return self.expected(outputs).round().clamp(0, 255).to(torch.uint8)

    @abstractmethod
    def sample(self, outputs: Tensor, rng: Rng) -> Tensor:
        """A picture drawn from the likelihood, ``uint8`` (N, C, H, W)."""

    @abstractmethod
    def base(self, mean: Tensor, std: Tensor) -> Tensor:
        """Outputs (maps, H, W) that fit independent pixels of given mean and deviation (C, H, W; scale [0, 1])."""


class Bernoulli(PixelLikelihood):
    """Binary pixels; grey values are probabilities (``dynamic``) or are cut at one half (``threshold``)."""

    exact = True

    def __init__(self, channels: int, binarise: Literal["dynamic", "threshold"] = "dynamic") -> None:
        self.maps, self.binarise = channels, binarise
        self.preprocessing = (
            "dynamic binarisation (each pixel is 1 with probability value/255)"
            if binarise == "dynamic"
            else "binarised at 127.5"
        )

    def target(self, x: Tensor, rng: Rng | None) -> Tensor:
        grey = x.float().div_(255)
        if self.binarise == "threshold":
            return torch.gt(grey, 0.5, out=grey)
        if rng is None:
            return grey
        drawn = rng.uniform("binarise", *x.shape[1:])
        # comparing into bool and turning that to float takes nine times as long
        return torch.lt(drawn, grey, out=drawn)

    def features(self, target: Tensor) -> Tensor:
        return (target * 2).sub_(1)

    def log_prob(self, outputs: Tensor, target: Tensor) -> Tensor:
        logits = outputs.float()
        return -F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none").sum((-3, -2, -1))

    def expected(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(outputs.float()) * 255

    def sample(self, outputs: Tensor, rng: Rng) -> Tensor:
        on = rng.uniform("pixels", *outputs.shape[1:]) < torch.sigmoid(outputs.float())
        return on.to(torch.uint8) * 255

    def base(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.logit(mean.clamp(0.01, 0.99))


class Gaussian(PixelLikelihood):
    """Dequantised pixels (x + u) / 256 with a mean and a deviation per value."""

    exact = False
    preprocessing = "uniform dequantisation, (x + u) / 256"

    def __init__(self, channels: int) -> None:
        self.maps = 2 * channels

    def target(self, x: Tensor, rng: Rng | None) -> Tensor:
        return (x.float() + (0.5 if rng is None else rng.uniform("dequantise", *x.shape[1:]))) / 256

    def features(self, target: Tensor) -> Tensor:
        return target * 2 - 1

    def seen(self, x: Tensor) -> Tensor:
        return (x + 0.5) / 128 - 1

    @staticmethod
    def _parameters(outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = outputs.float().chunk(2, dim=-3)
        # at least e^-7 = a quarter of a grey level: the density of a constant pixel must stay finite
        return mean, raw.clamp(min=-7.0)

    def log_prob(self, outputs: Tensor, target: Tensor) -> Tensor:
        mean, log_std = self._parameters(outputs)
        density = -0.5 * ((target - mean) * torch.exp(-log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
        return (density - math.log(256)).sum((-3, -2, -1))

    def expected(self, outputs: Tensor) -> Tensor:
        return self._parameters(outputs)[0] * 256 - 0.5

    def sample(self, outputs: Tensor, rng: Rng) -> Tensor:
        mean, log_std = self._parameters(outputs)
        drawn = mean + torch.exp(log_std) * rng.normal("pixels", *mean.shape[1:])
        return (drawn * 256).floor().clamp(0, 255).to(torch.uint8)

    def base(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.cat([mean, std.clamp(min=0.02).log()])


class LogisticMixture(PixelLikelihood):
    """Mixture of ``mixtures`` discretised logistics per pixel; channels depend linearly on earlier ones.

    ``levels`` values are evenly spaced on [-1, 1]. With fewer than 256, callers give targets on that scale themselves.
    """

    exact = True
    preprocessing = "none (8-bit values)"

    def __init__(self, channels: int, mixtures: int = 10, levels: int = 256) -> None:
        self.channels, self.mixtures, self.levels = channels, mixtures, levels
        self.pairs = [(c, j) for c in range(channels) for j in range(c)]
        self.maps = mixtures * (1 + 2 * channels + len(self.pairs))

    def target(self, x: Tensor, rng: Rng | None) -> Tensor:
        return x.float() / 127.5 - 1

    def features(self, target: Tensor) -> Tensor:
        return target

    def _parameters(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-weights (..., K, H, W), means and log-scales (..., C, K, H, W), coefficients (..., P, K, H, W)."""
        k, c = self.mixtures, self.channels
        weights, means, scales, coefficients = outputs.float().split([k, c * k, c * k, len(self.pairs) * k], dim=-3)
        return (
            torch.log_softmax(weights, dim=-3),
            means.unflatten(-3, (c, k)),
            scales.unflatten(-3, (c, k)).clamp(min=-7.0),
            torch.tanh(coefficients.unflatten(-3, (len(self.pairs), k))) if self.pairs else coefficients,
        )

    def _shifted(self, means: Tensor, coefficients: Tensor, value: Tensor) -> Tensor:
        """Means given the values (..., C, 1, H, W) of earlier channels."""
        if not self.pairs:
            return means
        shift = [torch.zeros_like(means[..., 0, :, :, :]) for _ in range(self.channels)]
        for p, (c, j) in enumerate(self.pairs):
            shift[c] = shift[c] + coefficients[..., p, :, :, :] * value[..., j, :, :, :]
        return means + torch.stack(shift, dim=-4)

    def log_prob(self, outputs: Tensor, target: Tensor) -> Tensor:
        weights, means, log_scales, coefficients = self._parameters(outputs)
        value = target.unsqueeze(-3)  # (B, C, 1, H, W)
        centred = value - self._shifted(means, coefficients, value)
        inverse = torch.exp(-log_scales)
        half = 1 / (self.levels - 1)  # of a bin's width
        upper, lower = inverse * (centred + half), inverse * (centred - half)
        # the bins of the first and the last value reach to infinity
        above, below = F.logsigmoid(upper), F.logsigmoid(-lower)
        inside = above + below + torch.log(-torch.expm1(-inverse * (2 * half)))
        bins = torch.where(value < -0.999, above, torch.where(value > 0.999, below, inside))
        return torch.logsumexp(bins.sum(-4) + weights, dim=-3).sum((-2, -1))

    def expected(self, outputs: Tensor) -> Tensor:
        weights, means, _, coefficients = self._parameters(outputs)
        mixed: list[Tensor] = []
        probability = weights.exp()
        for c in range(self.channels):
            centre = means[..., c, :, :, :]
            for p, (to, j) in enumerate(self.pairs):
                if to == c:
                    centre = centre + coefficients[..., p, :, :, :] * mixed[j].unsqueeze(-3)
            mixed.append((probability * centre.clamp(-1, 1)).sum(-3))
        return (torch.stack(mixed, dim=-3) + 1) * 127.5

    def sample(self, outputs: Tensor, rng: Rng) -> Tensor:
        weights, means, log_scales, coefficients = self._parameters(outputs)
        chosen = (weights + _gumbel(rng.uniform("component", *weights.shape[1:]))).argmax(-3, keepdim=True)
        noise = rng.uniform("pixels", self.channels, *outputs.shape[-2:]).clamp(1e-5, 1 - 1e-5)
        drawn: list[Tensor] = []
        for c in range(self.channels):
            centre = means[:, c].gather(-3, chosen).squeeze(-3)
            for p, (to, j) in enumerate(self.pairs):
                if to == c:
                    centre = centre + coefficients[:, p].gather(-3, chosen).squeeze(-3) * drawn[j]
            scale = log_scales[:, c].gather(-3, chosen).squeeze(-3).exp()
            value = centre + scale * torch.logit(noise[:, c])
            drawn.append(_to_uint8(value).float() / 127.5 - 1)
        return _to_uint8(torch.stack(drawn, dim=1))

    def base(self, mean: Tensor, std: Tensor) -> Tensor:
        k, c = self.mixtures, self.channels
        height, width = mean.shape[-2:]
        spread = (torch.linspace(-1, 1, k) if k > 1 else torch.zeros(1)).view(1, k, 1, 1).expand(c, k, height, width)
        scales = torch.full((c * k, height, width), -2.0)
        weights = torch.zeros(k, height, width)
        return torch.cat([weights, spread.flatten(0, 1), scales, torch.zeros(len(self.pairs) * k, height, width)])


def _to_uint8(value: Tensor) -> Tensor:
    """From [-1, 1] to 0..255, rounded."""
    return ((value + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _gumbel(uniform: Tensor) -> Tensor:
    return -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))


def pixel_likelihood(
    name: Literal["bernoulli", "gaussian", "logistic"],
    channels: int,
    *,
    binarise: Literal["dynamic", "threshold"] = "dynamic",
    mixtures: int = 10,
) -> PixelLikelihood:
    """Return the likelihood of that name for pictures with ``channels`` channels."""
    if name == "bernoulli":
        return Bernoulli(channels, binarise)
    if name == "gaussian":
        return Gaussian(channels)
    return LogisticMixture(channels, mixtures)
