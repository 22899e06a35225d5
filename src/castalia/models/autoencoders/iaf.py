"""Variational autoencoder whose posterior is an inverse autoregressive flow.

Paper
    Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016, "Improved Variational Inference with Inverse
    Autoregressive Flow" (arXiv:1606.04934), algorithm 1: with noise e and a context h that the encoder finds,

        z_0 = mu + sigma e,   z_t = sigma_t z_t-1 + (1 - sigma_t) m_t,   (m_t, s_t) = MADE_t(z_t-1, h)     (eq. 10, 14)
        log q(z_T | x) = -sum_i [e_i^2 / 2 + log(2 pi) / 2 + log sigma_i + sum_t log sigma_t,i]            (eq. 13)

    with sigma_t = sigmoid(s_t). The order of the latents turns round between the steps. A draw takes one pass, and is
    all that the bound needs; the density of latents from elsewhere nobody asks for.

What differs, and why
    The rest is the VAE of the house (vae.py): its networks, likelihoods, bounds. The paper's for MNIST has residual
    networks of stride 2 like these, its largest has flows at every scale.
    The KL of an example is estimated with the draw that the bound takes, latent by latent; ``free_bits`` are counted
    for each latent over the batch. ``posterior_kl`` is that of Gaussians with the posterior's mean and deviation.
    s begins at ``keep``: every step begins near the identity, as the paper advises (section 4).

Expected: see ``recipes/iaf.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Batch
from castalia.core.model import Logs, Progress
from castalia.core.rng import Rng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.vae import VAE, VAEConfig, gaussian_kl
from castalia.nn.made import MADE

DRAWS = 64
"""From which the posterior's mean and deviation are measured for ``posterior_kl``."""


@dataclass(frozen=True)
class IAFConfig(VAEConfig):
    """Configuration of a variational autoencoder with an inverse autoregressive flow.

    Attributes:
        steps: T, of the flow; 0 is a VAE.
        flow_widths: hidden layers of the masked network of each step; the paper has up to two of 1,920.
        context: length of h.
        keep: where s begins.
        free_bits: as of the VAE, but not 0: the drawn price of a latent is so noisy at first that without some of it
            free all latents are soon given up (the paper's remedy, appendix C.8).
    """

    steps: int = 2
    flow_widths: tuple[int, ...] = (320,)
    context: int = 64
    keep: float = 3.0
    free_bits: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.context < 1 or not self.flow_widths or min(self.flow_widths) < 1:
            raise ValueError("steps must not be negative, context and flow_widths must be positive")


class IAF(VAE[IAFConfig]):
    """A VAE that bends its posteriors."""

    Config = IAFConfig

    def __init__(self, config: IAFConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        there = range(1, config.latent_dims + 1)
        self.flow = nn.ModuleList(
            MADE(
                config.latent_dims,
                config.flow_widths,
                2,
                order=there if t % 2 == 0 else there[::-1],
                context=config.context,
                activation="elu",
            )
            for t in range(config.steps)
        )

    @staticmethod
    def found(config: VAEConfig) -> int:
        """Mean and deviation for each latent, and the context."""
        assert isinstance(config, IAFConfig)
        return 2 * config.latent_dims + config.context

    def posterior(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, each ``float32`` (B, z), of z_0; see :meth:`proposals` for what follows."""
        return self._start(target)[:2]

    def _start(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.latent_dims
        mean, raw, context = self.encoder(self.pixels.features(target)).float().split([z, z, self.config.context], 1)
        return mean, F.softplus(raw) + 1e-4, context

    def proposals(self, target: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        mean, std, context = self._start(target)

        def propose(noise: Tensor) -> tuple[Tensor, Tensor]:
            z = mean + std * noise
            log_q = -0.5 * noise.square() - std.log()  # without the constant, which the prior's takes away
            for step in self.flow:
                rows = context.expand(*z.shape[:-1], -1).reshape(-1, context.shape[-1])
                m, s = step(z.reshape(-1, self.latent_dims), rows).float().view(*z.shape[:-1], -1).chunk(2, -1)
                s = s + self.config.keep
                gate = torch.sigmoid(s)
                z, log_q = gate * z + (1 - gate) * m, log_q - F.logsigmoid(s)
            return z, -0.5 * z.square() - log_q

        return propose

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Negative bound in nats per example, averaged over the batch."""
        c = self.config
        target = self.pixels.target(batch.x, rng)
        plain = c.bound == "elbo" or progress.fraction < c.plain_first
        k = 1 if plain and c.bound == "importance" else c.samples
        z, ratios = self.proposals(target)(rng.normal("latent", k, self.latent_dims).transpose(0, 1))
        reconstruction = self.pixels.log_prob(self.outputs(z), target)  # (k, B)
        if plain:
            beta = c.beta * min(1.0, progress.fraction / c.warmup) if c.warmup else c.beta
            kl = -ratios.mean((0, 1))
            loss = beta * (kl.clamp(min=c.free_bits) if c.free_bits else kl).sum() - reconstruction.mean()
        else:
            loss = math.log(k) - torch.logsumexp(reconstruction + ratios.sum(-1), 0).mean()
        return loss, {"reconstruction": -reconstruction.mean(), "kl": -ratios.sum(-1).mean()}

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        """The latents of no noise; or a posterior draw where ``rng`` is given."""
        propose = self.proposals(self.pixels.target(batch.x, rng))
        if rng is None:
            return propose(torch.zeros(1, len(batch), self.latent_dims, device=self.device))[0][0]
        return propose(rng.normal("latent", self.latent_dims)[None])[0][0]

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        rng = SampleRng(0, range(len(batch)), self.device)
        propose = self.proposals(self.pixels.target(batch.x, None))
        z = propose(rng.normal("spread", DRAWS, self.latent_dims).transpose(0, 1))[0]
        variance, mean = torch.var_mean(z, 0, correction=1)
        return gaussian_kl(mean, variance.clamp(min=1e-12).sqrt())

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Encoder (features in [-1, 1] to mean, raw deviation and context), decoder, and each step of the flow."""
        z = torch.zeros(2, self.latent_dims, device=self.device)
        context = torch.zeros(2, self.config.context, device=self.device)
        steps = {f"flow{t}": (step, (z, context)) for t, step in enumerate(self.flow)}
        return {**super().export_calls(), **steps}
