"""MusicVAE: a latent space of melodies, drum patterns and trios.

Paper
    Roberts, Engel, Raffel, Hawthorne & Eck 2018, "A Hierarchical Latent Vector Model for Learning Long-Term Structure
    in Music" (arXiv:1803.05428).

Equations
    q(z | x) = N(mu, sigma^2), from the last states of a bidirectional LSTM:  mu = W h + b, sigma = softplus(W' h + b').
    log p(x | z) = sum over steps and voices of log softmax of a decoder (``melodies.py``): flat, or below a conductor.
    The loss is  -log p(x | z) + beta max(KL(q || N(0, 1)) - tau, 0)  with  beta = beta_max (1 - r^step): tau bits of
    the whole KL are free (sections 2.1 and 4.2).

What differs, and why
    A step of a voice is one of 90 values (nothing new, silence, 88 notes) as in the authors' code, where the paper
    speaks of 130. The nine drums are one of 512 values.
    Trios are read and written by one network; the voices of a step are independent given the past, as in the paper.
    torch's LSTMs have two biases where the authors' have one.
    The learning rate is the recipe's.

Expected: see ``recipes/musicvae.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Inference, Likelihood
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.specs.music import MusicSpec
from castalia.models.autoencoders.vae import gaussian_kl, log_ratios
from castalia.models.music.melodies import Decoder, Flat, Hierarchical, one_hot
from castalia.models.sequence.writing import choose, full

ROWS = 512
"""Examples decoded at once while measuring."""


@dataclass(frozen=True)
class MusicVAEConfig(Config):
    """Configuration of a MusicVAE.

    Attributes:
        decoder: ``flat``, or ``hierarchical`` with a conductor over bars.
        latent_dims: length of the latent vector.
        encoder: units of each layer of the encoder, in each direction.
        hidden: units of each layer of the decoder.
        conductor: units of each layer of the conductor.
        beta: weight that the KL reaches.
        beta_rate: r: how slowly it gets there; 0 has it from the start.
        free_bits: tau, bits of the whole KL that cost nothing.
        scheduled: steps k of scheduled sampling (Bengio et al. 2015): at step i a value that the decoder is told is its
            own choice with probability 1 - k / (k + exp(i / k)); 0 always tells it the true one.
    """

    decoder: Literal["flat", "hierarchical"] = "flat"
    latent_dims: int = 256
    encoder: tuple[int, ...] = (512,)
    hidden: tuple[int, ...] = (256, 256)
    conductor: tuple[int, ...] = (256,)
    beta: float = 0.2
    beta_rate: float = 0.99999
    free_bits: float = 0.0
    scheduled: float = 0.0

    def __post_init__(self) -> None:
        for name in ("encoder", "hidden", "conductor"):
            widths = getattr(self, name)
            if not widths or min(widths) < 1 or len(set(widths)) != 1:
                raise ValueError(f"{name} is one positive width for each layer, all the same")
        if self.latent_dims < 1 or min(self.beta, self.free_bits, self.scheduled) < 0 or not 0 <= self.beta_rate < 1:
            raise ValueError(
                "latent_dims must be positive; beta, free_bits and scheduled not negative; beta_rate in [0, 1)"
            )


class MusicVAE(Generator[MusicVAEConfig, MusicSpec], Density, Inference):
    """p(x) = integral of p(x | z) N(z; 0, I) dz over grids of voices."""

    Config = MusicVAEConfig

    def __init__(self, config: MusicVAEConfig, spec: MusicSpec) -> None:
        super().__init__()
        if spec.kind != "voices":
            raise UsageError("MusicVAE works on voices: set data.options.kind=voices.")
        if config.decoder == "hierarchical" and spec.length % spec.bar:
            raise UsageError(f"{spec.length} steps are no whole bars of {spec.bar}; change data.options.length.")
        self.config, self.spec, self.latent_dims = config, spec, config.latent_dims
        c, sizes = config, spec.sizes
        self.encoder = nn.LSTM(sum(sizes), c.encoder[0], len(c.encoder), batch_first=True, bidirectional=True)
        self.mean, self.spread = (nn.Linear(2 * c.encoder[0], c.latent_dims) for _ in range(2))
        if c.decoder == "flat":
            self.decoder: Decoder = Flat(c.latent_dims, sizes, c.hidden)
        else:
            self.decoder = Hierarchical(c.latent_dims, sizes, c.conductor, c.hidden, spec.bar)
        for layer in (self.mean, self.spread):
            nn.init.normal_(layer.weight, 0, 1e-3)
            nn.init.zeros_(layer.bias)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("musicvae", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per example, averaged over the batch."""
        c = self.config
        mean, std = self.posterior(batch.x)
        z = mean + std * rng.normal("latent", self.latent_dims)
        reconstruction = self.log_prob(self.outputs(z, batch.x, rng, progress), batch.x)
        kl = gaussian_kl(mean, std).sum(1)
        beta = c.beta * (1 - c.beta_rate**progress.step) if c.beta_rate else c.beta
        loss = (beta * F.relu(kl - c.free_bits * math.log(2)) - reconstruction).mean()
        return loss, {"reconstruction": -reconstruction.mean().detach(), "kl": kl.mean().detach()}

    def outputs(self, z: Tensor, x: Tensor, rng: Rng, progress: Progress) -> Tensor:
        """Logits (n, T, sum of sizes) in training: of the true past, or of one in part chosen by the decoder."""
        k = self.config.scheduled
        if not k:
            return self.decoder(z, x)
        own = 1 - k / (k + math.exp(min(progress.step / k, 50)))
        use, uniform = rng.uniform("told", x.shape[1]) < own, rng.uniform("pick", x.shape[1], x.shape[2])
        return self.decoder.unroll(
            z,
            x.shape[1],
            lambda t, v, logits: choose(logits.detach(), uniform[:, t, v]),
            lambda t, values: torch.where(use[:, t, None], values, x[:, t]),
        )[1]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, each ``float32`` (B, z), of q(z | x) for ``int64`` (B, T, V)."""
        _, (h, _) = self.encoder(one_hot(x, self.spec.sizes).to(self.mean.weight.dtype))
        last = torch.cat([h[-2], h[-1]], 1)
        return full(self.mean(last)), F.softplus(full(self.spread(last))) + 1e-4

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """Nats (B,) of ``int64`` (B, T, V)."""
        parts = full(logits).split(list(self.spec.sizes), -1)
        total = torch.zeros((), device=x.device)
        for v, part in enumerate(parts):
            total = total - F.cross_entropy(part.mT, x[..., v], reduction="none").sum(1)
        return total

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        """Music of latents from the prior; the temperature is that of the decoder's choices, 0 takes the likeliest."""
        return self._written(rng.normal("latent", self.latent_dims), rng.at("decode"), options.temperature)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        check_given(self, given, len(z))
        return self._written(z, rng, 0.0 if rng is None else 1.0)

    def _written(self, z: Tensor, rng: SampleRng | None, temperature: float) -> Batch:
        steps, voices = self.spec.length, len(self.spec.voices)
        uniform = torch.zeros(len(z), steps, voices, device=z.device)
        if rng is not None and temperature:
            uniform = rng.uniform("pick", steps, voices)

        def pick(t: int, v: int, logits: Tensor) -> Tensor:
            return choose(logits / (temperature or 1), uniform[:, t, v], greedy=not temperature)

        return Batch.of(self.decoder.unroll(z, steps, pick, lambda t, values: values)[0])

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        mean, std = self.posterior(batch.x)
        return mean if rng is None else mean + std * rng.normal("latent", self.latent_dims)

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        return gaussian_kl(*self.posterior(batch.x))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """The likeliest value of each cell ``int64`` (B, T, V), given the mean latent and the true cells before it."""
        logits = self.decoder(self.posterior(batch.x)[0], batch.x)
        return torch.stack([part.argmax(-1) for part in logits.split(list(self.spec.sizes), -1)], -1)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Importance-weighted bound (Burda et al. 2016, eq. 8) with ``samples`` samples; 1 gives the plain bound."""
        mean, std = self.posterior(batch.x)
        weights = []
        for k in range(samples):
            noise = rng.at("importance", k).normal("latent", self.latent_dims)
            z = mean + std * noise
            nats = torch.cat(
                [self.log_prob(self.decoder(a, b), b) for a, b in zip(z.split(ROWS), batch.x.split(ROWS), strict=True)]
            )
            weights.append((nats + log_ratios(z, noise, std).sum(-1)).double())
        nats = torch.logsumexp(torch.stack(weights), 0) - math.log(samples)
        return Likelihood(nats, "bound", f"importance weighted, K = {samples}", "none")


SIZES: Mapping[str, MusicVAEConfig] = {
    "mel_2bar_small": MusicVAEConfig("flat", 256, (512,), (256, 256), beta=0.2, scheduled=1000),
    "mel_2bar_big": MusicVAEConfig("flat", 512, (2048,), (2048,) * 3, beta=0.5, scheduled=1000),
    "drums_2bar_small": MusicVAEConfig("flat", 256, (512,), (256, 256), beta=0.2, free_bits=48, scheduled=1000),
    "mel_16bar_flat": MusicVAEConfig("flat", 512, (2048, 2048), (2048,) * 3, beta=0.2, free_bits=256),
    "16bar_hierarchical": MusicVAEConfig(
        "hierarchical", 512, (2048, 2048), (1024, 1024), (1024, 1024), beta=0.2, free_bits=256
    ),
}
"""The configurations that the authors published, by their names; the last is that of melodies and of trios."""
