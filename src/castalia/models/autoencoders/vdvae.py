"""Very deep variational autoencoder: a ladder of latents from one pixel to all.

Paper
    Child 2021, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images" (arXiv:2011.10650);
    the top-down posterior is that of Sonderby et al. 2016 (arXiv:1602.02282) and of Kingma et al. 2016
    (arXiv:1606.04934). With groups of latents z_0, z_1, ... of rising size,

        p(x, z) = p(x | z) prod_l p(z_l | z_<l),    q(z | x) = prod_l q(z_l | z_<l, x)                     (eq. 2, 3)
        log p(x) >= E_q log p(x | z) - sum_l KL(q(z_l | z_<l, x) || p(z_l | z_<l))

    Blocks, initial scales, pooling and unpooling by nearest neighbour: section 3 and figure 3 (ladder.py).

What differs, and why
    The latents of a run are given as one vector of standard normal numbers, whose parts each prior scales and shifts:
    walks, temperatures and edits mean what they mean in every other system.
    Steps whose gradients are large are clipped (``training.clip``); the paper also leaves steps out altogether.
    Outputs are offsets from a learned base map, as in vae.py; maps of any size are pooled to half of it, rounded up.
    Measured with K samples, the bound is importance weighted (Burda et al. 2016).

Expected: see ``recipes/vdvae.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Inference, Likelihood, PictureProgram
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.ladder import Bottleneck, Climb, Descent, Rung, Step
from castalia.nn.likelihoods import pixel_likelihood

FIT_EXAMPLES = 2_000
"""Training examples that are read for the base map."""


@dataclass(frozen=True)
class VDVAEConfig(Config):
    """Configuration of a very deep VAE; the default is the paper's for pictures of 32 pixels.

    Attributes:
        factors: by which maps shrink, one after another.
        encoder: residual blocks at each size, the picture's first; there is one more before each pool.
        decoder: groups of latents at each size, the picture's first.
        width: channels of the maps.
        bottleneck: channels inside of a block, as a share of ``width``.
        latent: channels of each group of latents.
        likelihood: of the pixels: ``bernoulli``, ``gaussian`` or ``logistic`` (discretised mixture).
        binarise: Bernoulli: ``dynamic`` draws binary pixels anew each time, ``threshold`` cuts at one half.
        mixtures: logistic: components.
        warmup: share of the training over which the price of latents rises from 0.
    """

    factors: tuple[int, ...] = (2, 2, 2, 4)
    encoder: tuple[int, ...] = (11, 6, 6, 3, 3)
    decoder: tuple[int, ...] = (22, 11, 6, 3, 1)
    width: int = 384
    bottleneck: float = 0.25
    latent: int = 16
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "logistic"
    binarise: Literal["dynamic", "threshold"] = "dynamic"
    mixtures: int = 10
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.encoder) == len(self.decoder) == len(self.factors) + 1:
            raise ValueError("encoder and decoder have one number for each size: one more than factors")
        if min(*self.encoder, *self.decoder, self.width, self.latent, self.mixtures) < 1:
            raise ValueError("encoder, decoder, width, latent and mixtures must be positive")
        if min(self.factors, default=2) < 2 or not 0 < self.bottleneck <= 1 or not 0 <= self.warmup <= 1:
            raise ValueError("factors are at least 2, bottleneck lies in (0, 1], warmup in [0, 1]")


class VDVAE(Generator[VDVAEConfig, ImageSpec], Density, Inference, Exportable):
    """Groups of latents, each given those before it, from one pixel to as many as the picture has."""

    Config = VDVAEConfig
    shard_units = (Rung, Bottleneck)
    undecayed = ("base",)

    def __init__(self, config: VDVAEConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.pixels = pixel_likelihood(c.likelihood, spec.channels, binarise=c.binarise, mixtures=c.mixtures)
        sizes = [(spec.height, spec.width)]
        for factor in c.factors:
            sizes.append((-(-sizes[-1][0] // factor), -(-sizes[-1][1] // factor)))
        inside = max(1, round(c.width * c.bottleneck))
        self.climb = Climb(spec.channels, c.width, inside, sizes, c.encoder)
        self.descent = Descent(c.width, inside, c.latent, sizes, c.decoder)
        self.head = nn.Conv2d(c.width, self.pixels.maps, 1)
        self.base = nn.Parameter(torch.zeros(self.pixels.maps, spec.height, spec.width))
        self.shapes = self.descent.shapes()
        self.latent_dims = sum(math.prod(shape) for shape in self.shapes)

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Set the base map to the mean and deviation of (some of) the data's pixels."""
        scaled = data.batch(some_of(data, FIT_EXAMPLES)).x.float() / 255
        self.base.copy_(self.pixels.base(scaled.mean(0), scaled.std(0, correction=0)))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("vdvae", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Negative bound in nats per example, averaged over the batch."""
        target = self.pixels.target(batch.x, rng)
        outputs, steps = self.infer(target, self._noise(rng))
        reconstruction = -self.pixels.log_prob(outputs[None], target).mean()
        kl = torch.stack([step.kl().flatten(1).sum(1) for step in steps]).sum(0).mean()
        price = min(1.0, progress.fraction / self.config.warmup) if self.config.warmup else 1.0
        bits = (reconstruction + kl) / (self.spec.dims * math.log(2))
        return reconstruction + price * kl, {"reconstruction": reconstruction, "kl": kl, "bits_per_dim": bits}

    def infer(self, target: Tensor, noise: list[Tensor | float]) -> tuple[Tensor, list[Step]]:
        """Outputs (B, maps, H, W) by way of the posteriors, and what each rung did."""
        seen = self.climb(self.pixels.features(target))
        h, steps = self.descent(len(target), seen, noise)
        return self._outputs(h), steps

    def _outputs(self, h: Tensor) -> Tensor:
        return self.head(h).float() + self.base

    def _noise(self, rng: Rng | None) -> list[Tensor | float]:
        if rng is None:
            return [0.0] * len(self.shapes)
        return [rng.normal(f"latent {i}", *shape) for i, shape in enumerate(self.shapes)]

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        """Expected pictures of latents drawn from the priors, whose deviations the temperature multiplies."""
        h, _ = self.descent(n, None, self._noise(rng), options.temperature)
        return Batch.of(self.pixels.mean(self._outputs(h)))

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        check_given(self, given, len(z))
        outputs = self.outputs(z)
        return Batch.of(self.pixels.mean(outputs) if rng is None else self.pixels.sample(outputs, rng))

    def outputs(self, z: Tensor) -> Tensor:
        """Outputs (B, maps, H, W) of standard normal latents (B, latent_dims)."""
        parts = z.split([math.prod(shape) for shape in self.shapes], 1)
        noise = [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return self._outputs(self.descent(len(z), None, noise)[0])

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        """Standard normal latents of the posteriors' means, or of draws where ``rng`` is given."""
        steps = self.infer(self.pixels.target(batch.x, rng), self._noise(rng))[1]
        return torch.cat([step.noise().flatten(1) for step in steps], 1)

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        """Along the posteriors' means: each group's KL depends on the latents before it."""
        steps = self.infer(self.pixels.target(batch.x, None), self._noise(None))[1]
        return torch.cat([step.kl().flatten(1) for step in steps], 1)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """The bound with ``samples`` draws of all latents; more than one are importance weighted."""
        target, found = self.pixels.target(batch.x, rng), []
        for k in range(samples):
            outputs, steps = self.infer(target, self._noise(rng.at("draw", k)))
            given_z = self.pixels.log_prob(outputs[None], target)[0].double()
            if samples == 1:  # the closed form has less noise, and the same mean
                found.append(given_z - torch.stack([s.kl().double().flatten(1).sum(1) for s in steps]).sum(0))
            else:
                found.append(given_z + torch.stack([s.log_ratio().double() for s in steps]).sum(0))
        nats = torch.logsumexp(torch.stack(found), 0) - math.log(samples)
        how = f"importance weighted, K = {samples}" if samples > 1 else "one draw of the latents, KL in closed form"
        return Likelihood(nats, "bound", how, self.pixels.preprocessing)

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Encoder (features in [-1, 1] to latents), decoder (latents to outputs), and pictures.

        None draws noise. ``pictures``: latents, standard normal, to the expected picture, 0 to 255, not rounded.
        """
        features = torch.zeros(2, *self.spec.shape, device=self.device)
        z = torch.zeros(2, self.latent_dims, device=self.device)
        return {
            "encoder": (_Encode(self), (features,)),
            "decoder": (_Decode(self), (z,)),
            "pictures": (_Pictures(self), (z,)),
        }

    def export_picture(self) -> PictureProgram:
        """Of standard normal latents."""
        return PictureProgram(f'y = run("pictures", np.random.randn(1, {self.latent_dims}).astype("f4"))[0]')


class _Encode(nn.Module):
    """Features to latents, as one call for export."""

    def __init__(self, model: VDVAE) -> None:
        super().__init__()
        self.climb, self.descent = model.climb, model.descent

    def forward(self, features: Tensor) -> Tensor:
        seen = self.climb(features)
        count = len(self.descent.shapes())
        steps = self.descent(features.shape[0], seen, [0.0] * count)[1]
        return torch.cat([step.noise().flatten(1) for step in steps], 1)


class _Decode(nn.Module):
    """Latents to outputs, as one call for export."""

    def __init__(self, model: VDVAE) -> None:
        super().__init__()
        self.descent, self.head, self.base = model.descent, model.head, model.base

    def forward(self, z: Tensor) -> Tensor:
        shapes = self.descent.shapes()
        parts = z.split([math.prod(shape) for shape in shapes], 1)
        noise = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]
        return self.head(self.descent(z.shape[0], None, noise)[0]) + self.base


class _Pictures(nn.Module):
    """Latents (B, z) to expected pictures (B, C, H, W), 0 to 255, as one call for export."""

    def __init__(self, model: VDVAE) -> None:
        super().__init__()
        self.decode, self.pixels = _Decode(model), model.pixels

    def forward(self, z: Tensor) -> Tensor:
        return self.pixels.expected(self.decode(z))
