"""Transformer autoregressive flow.

Paper
    Zhai et al. 2024, "Normalizing Flows are Capable Generative Models" (arXiv:2412.06329): masked autoregressive flows
    over patches, each a causal transformer, whose directions take turns (section 2.2, tokens.py); training on pictures
    with Gaussian noise (section 2.3), which the score of the model then removes from its samples,

        x = y + sigma^2 d log p(y) / dy                                                                      (eq. 9)

    and guidance by class (section 2.5).

What differs, and why
    An activation norm comes first: training begins with standardised channels.
    With noise, likelihoods are those of Gaussian dequantisation, log P(x) >= E [log p(y) + log P(x | y) / q(y | x)], a
    bound for the picture itself; without (``noise=0``) those of uniform dequantisation, as the paper measures them.
    There is no guidance without labels (by the temperature of attention).

Expected: see ``recipes/tarflow.py`` and the system's page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from castalia.core.capabilities import Likelihood
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Progress
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.specs.image import ImageSpec
from castalia.models.flows.base import Flow, FlowConfig
from castalia.models.flows.layers import ActNorm
from castalia.models.flows.multiscale import MultiScale
from castalia.models.flows.priors import StandardNormal
from castalia.models.flows.tokens import PatchFlow, guided
from castalia.models.flows.units import Dequantised, Scale
from castalia.nn.causal import CausalBlock
from castalia.nn.dequantisation import gaussian_dequantisation
from castalia.nn.labels import classes_of


@dataclass(frozen=True)
class TarFlowConfig(FlowConfig):
    """Configuration of a transformer autoregressive flow. The paper writes P-Ch-T-K for patch, dim, blocks, depth.

    Attributes:
        patch: side of a patch.
        dim: of a token.
        blocks: flows one behind the other; each reads in the opposite direction of the one before.
        depth: of the transformer of each.
        head: dimensions of one head of attention.
        noise: deviation of the noise in training, where black is -1 and white 1; 0: uniform dequantisation.
        conditional: learn the labels of the data as well.
        label_drop: conditional: share of examples that are learned without their label.
    """

    scale: Scale = "linear"
    patch: int = 2
    dim: int = 768
    blocks: int = 8
    depth: int = 8
    head: int = 64
    noise: float = 0.05
    conditional: bool = False
    label_drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.patch, self.dim, self.blocks, self.depth, self.head) < 1 or self.dim % self.head:
            raise ValueError("patch, dim, blocks, depth and head must be positive, and head must divide dim")
        if self.noise < 0 or (self.noise and (self.scale != "linear" or self.bits != 8)):
            raise ValueError("noise must not be negative, and belongs to scale='linear' with all bits")
        if not 0 < self.label_drop < 1:
            raise ValueError("label_drop lies between 0 and 1")


@dataclass(frozen=True)
class TarFlowOptions(Sampling):
    """How to draw.

    Attributes:
        guidance: weight of guidance by class; 0 for none.
        denoise: remove the noise that the model was trained with from its samples.
    """

    guidance: float = 0.0
    denoise: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance < 0:
            raise ValueError("guidance must not be negative")


class TarFlow(Flow[TarFlowConfig]):
    """Transformers that read patches forwards and backwards, each moving them as those before say."""

    Config = TarFlowConfig
    SampleOptions: ClassVar[type[Sampling]] = TarFlowOptions
    shard_units = (CausalBlock,)
    units: Dequantised

    def __init__(self, config: TarFlowConfig, spec: ImageSpec) -> None:
        c, classes = config, classes_of(spec, config.conditional)
        if spec.height % c.patch or spec.width % c.patch or spec.height * spec.width <= c.patch**2:
            raise UsageError(
                f"Pictures of {spec.height}x{spec.width} cannot be cut into patches of {c.patch}. Give another "
                "config.patch, or another size: data.options.size=32, for example."
            )
        reading = [
            PatchFlow(spec.shape, c.patch, c.dim, c.depth, c.dim // c.head, backwards=i % 2 == 1, classes=classes)
            for i in range(c.blocks)
        ]
        layers = MultiScale(spec.shape, [[ActNorm(spec.channels), *reading]], [], StandardNormal())
        super().__init__(config, spec, layers, classes, c.label_drop)

    @property
    def reading(self) -> list[PatchFlow]:
        """The flows that read."""
        return [part for part in self.layers.modules() if isinstance(part, PatchFlow)]

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Negative log-likelihood of noisy pictures, in nats per example, averaged over the batch."""
        if not self.config.noise:
            return super().loss(batch, rng, progress)
        y, change, _ = self._noisy(batch.x, rng)
        log_p = self.layers(y, self.labels.for_training(batch, rng))[1] + change
        return -log_p.mean(), {"bits_per_dim": -log_p.mean() / (self.latent_dims * math.log(2))}

    def _noisy(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy pictures in the units of the layers, the logarithm of those units, and that of P(x | y) / q(y | x)."""
        n = self.units.levels
        black_to_white = 2.0 * self.units.numbers(x) / max(n - 1, 1) - 1
        z = rng.normal("noise", *self.spec.shape)
        y, log_ratio = gaussian_dequantisation(black_to_white, z, self.config.noise, n)
        unit = max(n - 1, 1) / (2 * n)
        change = torch.full((len(x),), math.log(unit) * self.latent_dims, device=x.device)
        return (y * unit).float(), change, log_ratio

    def draw(self, n: int, given: Given, rng: SampleRng, options: TarFlowOptions, watch: Watch | None) -> Batch:
        """Pictures of latents drawn from the prior, guided and denoised."""
        if options.guidance and not self.classes:
            raise UsageError("Guidance needs a conditional model: this one was trained without labels. Leave it at 0.")
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        eps = options.temperature * rng.normal("latent", self.latent_dims)
        with guided(self.reading, options.guidance):
            y = self.layers.inverse(eps, label).view(n, *self.spec.shape)
        if self.config.noise and options.denoise:
            y = self.denoised(y, label)
        return Batch.of(self.units.outward(y), label)

    def _examples(self, eps: Tensor, label: Tensor | None) -> Tensor:
        y = self.layers.inverse(eps, label).view(len(eps), *self.spec.shape)
        return self.units.outward(self.denoised(y, label) if self.config.noise else y)

    def denoised(self, y: Tensor, label: Tensor | None) -> Tensor:
        """Pictures without their noise, in the units of the layers (eq. 9)."""
        sigma = self.config.noise * max(self.units.levels - 1, 1) / (2 * self.units.levels)
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            (score,) = torch.autograd.grad(self.layers(y, label)[1].sum(), y)
        return (y + sigma**2 * score).detach()

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """A bound by dequantisation, with the logarithm of the mean over ``samples`` noises."""
        if not self.config.noise:
            return super().log_likelihood(batch, rng=rng, samples=samples)
        self.units.check(batch.x)
        label, found = self.labels.null(len(batch)), []
        for k in range(samples):
            y, change, log_ratio = self._noisy(batch.x, rng.at("draw", k) if k else rng)
            found.append((self.layers(y, label)[1] + change).double() + log_ratio.double())
        nats = torch.logsumexp(torch.stack(found), 0) - math.log(samples)
        how = f"K = {samples} dequantisation{'s' if samples > 1 else ''}" + (", null class" if self.classes else "")
        noise = f"Gaussian dequantisation, deviation {self.config.noise:g} of [-1, 1]"
        return Likelihood(nats, "bound", how, noise, self.units.values)

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        """Latents of the unconditional model; ``rng`` adds the noise of training, None does not."""
        if not self.config.noise or rng is None:
            return super().encode(batch, rng=rng)
        return self.layers(self._noisy(batch.x, rng)[0], self.labels.null(len(batch)))[0].float()
