"""Variational autoencoder.

Papers
    Kingma & Welling 2014, "Auto-Encoding Variational Bayes" (arXiv:1312.6114): eq. 3 (the bound), eq. 10 (its
    estimator with the analytic KL), appendix B (that KL), appendix C (the multilayer perceptron).
    Rezende, Mohamed & Wierstra 2014 (arXiv:1401.4082).
    Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders" (arXiv:1509.00519): eq. 8 (the
    importance-weighted bound), which also measures the likelihood here whatever the training.
    Higgins et al. 2017 (beta); Kingma et al. 2016 (arXiv:1606.04934, free bits, appendix C.8).

What differs, and why
    The posterior's deviation is softplus(raw) + 1e-4 instead of exp(raw / 2): it cannot overflow.
    Outputs are offsets from a learned base map (Burda's output bias, here per pixel also for convolutions). It starts
    at the mean and deviation of the data's pixels, so training starts from the independent-pixel model; for the
    logistic mixture it starts with components spread evenly over the range.
    ``network="conv"``: residual convolutions without normalisation, so no example depends on its batch.
    beta multiplies the KL term (the paper's sign); some books multiply the reconstruction instead.

Expected: see ``recipes/vae.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Inference, Likelihood, Perception, PictureProgram
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.networks import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder
from castalia.nn.likelihoods import pixel_likelihood
from castalia.nn.residual import Activation, ResidualConv
from castalia.nn.seeing import Seeing

NOISE_BLOCK = 50
"""Importance samples per address of randomness, so that a result does not depend on how work is cut up."""

ROWS_AT_ONCE = 2_000
"""Pictures decoded at once while measuring; bounds the memory."""


@dataclass(frozen=True)
class VAEConfig(Config):
    """Configuration of a variational autoencoder.

    Attributes:
        network: ``dense`` (multilayer perceptron) or ``conv`` (residual convolutional).
        latent_dims: length of the latent vector.
        widths: dense: hidden layers; conv: channels per level, each level halving the picture.
        blocks: conv: residual blocks per level.
        hidden: conv: width of the dense layer next to the latents.
        top: conv: channels at full resolution before the output layer; 0 leaves that layer out.
        activation: nonlinearity.
        likelihood: of the pixels: ``bernoulli``, ``gaussian`` or ``logistic`` (discretised mixture).
        binarise: Bernoulli: ``dynamic`` draws binary pixels anew each time, ``threshold`` cuts at one half.
        mixtures: logistic: components.
        bound: what is maximised: ``elbo`` or ``importance`` (Burda et al., eq. 8).
        samples: latent samples per example in training.
        plain_first: importance: share of the training that first maximises the plain bound with one sample.
        beta: weight of the KL term (elbo only).
        warmup: share of the training over which beta rises from 0 (elbo only).
        free_bits: nats per latent dimension that cost nothing (elbo only).
    """

    network: Literal["dense", "conv"] = "conv"
    latent_dims: int = 40
    widths: tuple[int, ...] = (32, 64)
    blocks: int = 1
    hidden: int = 256
    top: int = 0
    activation: Activation = "relu"
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"
    binarise: Literal["dynamic", "threshold"] = "dynamic"
    mixtures: int = 10
    bound: Literal["elbo", "importance"] = "elbo"
    samples: int = 1
    plain_first: float = 0.0
    beta: float = 1.0
    warmup: float = 0.0
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or min(self.latent_dims, self.samples, self.mixtures) < 1:
            raise ValueError("widths, latent_dims, samples and mixtures must be positive")
        if min(self.blocks, self.top) < 0 or self.hidden < 1 or min(self.beta, self.warmup, self.free_bits) < 0:
            raise ValueError("blocks, top, beta, warmup and free_bits must not be negative, hidden must be positive")
        if not 0 <= self.plain_first <= 1:
            raise ValueError("plain_first is a share between 0 and 1")
        if self.bound == "importance" and (self.beta != 1 or self.warmup or self.free_bits):
            raise ValueError("beta, warmup and free_bits belong to bound='elbo'")


V = TypeVar("V", bound=VAEConfig)


class VAE(Generator[V, ImageSpec], Density, Inference, Perception, Exportable):
    """p(x) = integral of p(x | z) N(z; 0, I) dz, with a Gaussian encoder q(z | x)."""

    Config: ClassVar[type[Config]] = VAEConfig
    shard_units = (ResidualConv,)
    undecayed = ("base",)  # a bias, if one per pixel

    def __init__(self, config: V, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec, self.latent_dims = config, spec, config.latent_dims
        c, z, found = config, config.latent_dims, self.found(config)
        self.pixels = pixel_likelihood(c.likelihood, spec.channels, binarise=c.binarise, mixtures=c.mixtures)
        shape = (self.pixels.maps, spec.height, spec.width)
        if c.network == "dense":
            self.encoder: nn.Module = DenseEncoder(spec.shape, c.widths, found, c.activation)
            self.decoder: nn.Module = DenseDecoder(z, c.widths, shape, c.activation)
        else:
            if min(spec.height, spec.width) < 2 ** (len(c.widths) - 1) + 1:
                raise UsageError(
                    f"pictures of {spec.height}x{spec.width} are too small for {len(c.widths)} halvings; "
                    "give fewer config.widths"
                )
            self.encoder = ConvEncoder(spec.shape, c.widths, c.blocks, c.hidden, found, c.activation)
            self.decoder = ConvDecoder(z, c.widths, c.blocks, c.hidden, shape, c.activation, c.top)
        self.base = nn.Parameter(torch.zeros(shape))

    @staticmethod
    def found(config: VAEConfig) -> int:
        """How many numbers the encoder finds for an example: a mean and a deviation for each latent."""
        return 2 * config.latent_dims

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Set the base map to the mean and deviation of (at most 10,000 of) the data's pixels."""
        blocks = data.batch(some_of(data, 10_000)).x.split(500)  # all of them as float32 would be new memory, and slow
        count = sum(map(len, blocks))
        mean = torch.stack([b.sum(0, dtype=torch.float32) for b in blocks]).sum(0) / count
        variance = torch.stack([(b - mean).square_().sum(0) for b in blocks]).sum(0) / count
        with torch.no_grad():
            self.base.copy_(self.pixels.base(mean / 255, variance.sqrt() / 255))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("vae", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Negative bound in nats per example, averaged over the batch."""
        c = self.config
        target = self.pixels.target(batch.x, rng)
        mean, std = self.posterior(target)
        plain = c.bound == "elbo" or progress.fraction < c.plain_first
        k = 1 if plain and c.bound == "importance" else c.samples
        noise = rng.normal("latent", k, self.latent_dims).transpose(0, 1)
        z = mean + std * noise
        reconstruction = self.pixels.log_prob(self.outputs(z), target)  # (k, B)
        kl = gaussian_kl(mean, std)  # (B, z)
        if plain:
            beta = c.beta * min(1.0, progress.fraction / c.warmup) if c.warmup else c.beta
            price = kl.mean(0).clamp(min=c.free_bits).sum() if c.free_bits else kl.sum(1).mean()
            loss = beta * price - reconstruction.mean()
        else:
            weights = reconstruction + log_ratios(z, noise, std).sum(-1)
            loss = math.log(k) - torch.logsumexp(weights, 0).mean()
        return loss, {"reconstruction": -reconstruction.mean(), "kl": kl.sum(1).mean()}

    def posterior(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, each ``float32`` (B, z), of q(z | x) for targets of the likelihood."""
        mean, raw = self.encoder(self.pixels.features(target)).float().chunk(2, dim=1)
        return mean, F.softplus(raw) + 1e-4

    def proposals(self, target: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """What makes latents of noise (k, B, z): the latents, and log N(z; 0, 1) - log q(z | x) for each, (k, B, z)."""
        mean, std = self.posterior(target)

        def propose(noise: Tensor) -> tuple[Tensor, Tensor]:
            z = mean + std * noise
            return z, log_ratios(z, noise, std)

        return propose

    def outputs(self, z: Tensor) -> Tensor:
        """Outputs of the decoder, (..., maps, H, W), for latents (..., z)."""
        flat = self.decoder(z.reshape(-1, self.latent_dims)).float() + self.base
        return flat.unflatten(0, z.shape[:-1])

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        """Expected pictures of latents drawn from the prior, which the temperature multiplies.

        Use :meth:`decode` with ``rng`` to draw the pixels as well.
        """
        return self.decode(options.temperature * rng.normal("latent", self.latent_dims))

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        mean, std = self.posterior(self.pixels.target(batch.x, rng))
        return mean if rng is None else mean + std * rng.normal("latent", self.latent_dims)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        check_given(self, given, len(z))
        outputs = self.outputs(z)
        return Batch.of(self.pixels.mean(outputs) if rng is None else self.pixels.sample(outputs, rng))

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        return gaussian_kl(*self.posterior(self.pixels.target(batch.x, None)))

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Importance-weighted bound (Burda et al., eq. 8) with ``samples`` samples; 1 gives the plain bound."""
        target = self.pixels.target(batch.x, rng)
        propose = self.proposals(target)
        chunks = []
        for block in range(math.ceil(samples / NOISE_BLOCK)):
            k = min(NOISE_BLOCK, samples - block * NOISE_BLOCK)
            noise = rng.at("importance", block).normal("latent", k, self.latent_dims).transpose(0, 1)
            z, ratios = propose(noise)
            rest = ratios.sum(-1)
            for rows in range(0, k, step := max(1, ROWS_AT_ONCE // len(batch))):
                part = slice(rows, rows + step)
                chunks.append((self.pixels.log_prob(self.outputs(z[part]), target) + rest[part]).double())
        nats = torch.logsumexp(torch.cat(chunks), 0) - math.log(samples)
        return Likelihood(nats, "bound", f"importance weighted, K = {samples}", self.pixels.preprocessing)

    def perceive(self) -> Mapping[str, nn.Module]:
        """The encoder, which returns means and raw deviations (B, 2 z)."""
        return {"encoder": Seeing(self.encoder, self.pixels.seen)}

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Encoder (features in [-1, 1] to mean and raw deviation), decoder (latents to outputs), and pictures.

        ``pictures``: latents, standard normal, to the expected picture, 0 to 255, not rounded.
        """
        device = self.device
        features = torch.zeros(2, *self.spec.shape, device=device)
        z = torch.zeros(2, self.latent_dims, device=device)
        return {
            "encoder": (self.encoder, (features,)),
            "decoder": (_Decode(self), (z,)),
            "pictures": (_Pictures(self), (z,)),
        }

    def export_picture(self) -> PictureProgram:
        """Of standard normal latents."""
        return PictureProgram(f'y = run("pictures", np.random.randn(1, {self.latent_dims}).astype("f4"))[0]')


class _Decode(nn.Module):
    """Latents (B, z) to outputs (B, maps, H, W), as one call for export."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.decoder, self.base = vae.decoder, vae.base

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z) + self.base


class _Pictures(nn.Module):
    """Latents (B, z) to expected pictures (B, C, H, W), 0 to 255, as one call for export."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.decode, self.pixels = _Decode(vae), vae.pixels

    def forward(self, z: Tensor) -> Tensor:
        return self.pixels.expected(self.decode(z))


def gaussian_kl(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) per element in nats (Kingma & Welling, appendix B)."""
    return 0.5 * (mean**2 + std**2 - 1) - std.log()


def log_ratios(z: Tensor, noise: Tensor, std: Tensor) -> Tensor:
    """Log N(z; 0, 1) - log q(z | x) for each latent of z = mean + std * noise."""
    return 0.5 * (noise**2 - z**2) + std.log()
