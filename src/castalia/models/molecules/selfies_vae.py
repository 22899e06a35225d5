"""A variational autoencoder of molecules, written as SELFIES (or SMILES): a space to walk and to search in.

Papers
    Gomez-Bombarelli et al. 2018, "Automatic chemical design using a data-driven continuous representation of molecules"
    (arXiv:1610.02415): molecules as points of a space. Polykovskiy et al. 2020 (MOSES, arXiv:1811.12823): this network
    and its training: a recurrent encoder, a decoder of three layers that sees the latent at every step. Krenn et al.
    2020 (arXiv:1905.13741): SELFIES, of which every row of tokens is a molecule that chemistry allows.

Equations
    q(z | x) = N(mu, sigma^2) from the last states of a GRU over x, read from both sides where ``both``
    log p(x | z) = sum_t log softmax(W h_t),  h_t = GRU([E x_{t-1}, z], h_{t-1}),  h_0 = W' z
    loss = -log p(x | z) + beta KL(q || N(0, 1)),  beta rising from 0 to ``beta`` over the share ``rise`` of training

What differs, and why
    MOSES' weight rises to 0.05 only; that is a setting (``beta``) here. So low a weight reconstructs well, and its
    samples from N(0, 1) are worse; the likelihood that is told is the bound, whatever the weight.
    The end of a molecule is drawn like any token.

Expected: see ``recipes/selfies_vae.py`` and the system's page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from castalia.core.capabilities import Density, Inference, Likelihood
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch, check_given
from castalia.core.specs.molecule import MoleculeSpec
from castalia.models.autoencoders.vae import gaussian_kl, log_ratios
from castalia.models.sequence.writing import choose, full


@dataclass(frozen=True)
class SelfiesVAEConfig(Config):
    """Configuration of a SELFIES VAE; the defaults are those of MOSES.

    Attributes:
        latent_dims: length of the latent vector.
        embedding: width of a token's embedding.
        encoder: units of the encoder.
        both: whether it reads from both sides.
        hidden: units of each layer of the decoder.
        layers: of the decoder.
        dropout: between the decoder's layers.
        word_dropout: share of tokens that the decoder is not told in training, so that it listens to z.
        beta: weight that the KL reaches.
        rise: share of the training over which it gets there.
    """

    latent_dims: int = 128
    embedding: int = 64
    encoder: int = 256
    both: bool = True
    hidden: int = 512
    layers: int = 3
    dropout: float = 0.0
    word_dropout: float = 0.0
    beta: float = 0.05
    rise: float = 0.5

    def __post_init__(self) -> None:
        if min(self.latent_dims, self.embedding, self.encoder, self.hidden, self.layers) < 1:
            raise ValueError("sizes must be positive")
        if not 0 <= self.dropout < 1 or not 0 <= self.word_dropout < 1 or not 0 <= self.rise <= 1 or self.beta < 0:
            raise ValueError("dropout, word_dropout and rise are shares, beta must not be negative")


class SelfiesVAE(Generator[SelfiesVAEConfig, MoleculeSpec], Density, Inference):
    """p(x) = integral of p(x | z) N(z; 0, I) dz over rows of tokens."""

    Config = SelfiesVAEConfig

    def __init__(self, config: SelfiesVAEConfig, spec: MoleculeSpec) -> None:
        super().__init__()
        if spec.kind == "graph":
            raise UsageError("This autoencoder reads strings: set data.options.kind to selfies or smiles.")
        self.config, self.spec, self.latent_dims = config, spec, config.latent_dims
        c = config
        self.tokens = nn.Embedding(spec.size, c.embedding)
        self.reader = nn.GRU(c.embedding, c.encoder, batch_first=True, bidirectional=c.both)
        self.mean, self.spread = (nn.Linear(c.encoder * (1 + c.both), c.latent_dims) for _ in range(2))
        self.begin = nn.Linear(c.latent_dims, c.layers * c.hidden)
        self.writer = nn.GRU(
            c.embedding + c.latent_dims, c.hidden, c.layers, batch_first=True, dropout=c.dropout if c.layers > 1 else 0
        )
        self.head = nn.Linear(c.hidden, spec.size)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("vae", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per molecule, averaged over the batch."""
        c = self.config
        mean, std = self.posterior(batch.x)
        z = mean + std * rng.normal("latent", self.latent_dims)
        told = F.pad(batch.x[:, :-1], (1, 0), value=self.spec.end)
        if c.word_dropout:
            silent = rng.uniform("silent", told.shape[1]) < c.word_dropout
            told = torch.where(silent, -1, told)
        nats = self.log_prob(self.logits(told, z), batch.x)
        kl = gaussian_kl(mean, std).sum(1)
        beta = c.beta * min(1.0, progress.fraction / c.rise) if c.rise else c.beta
        return (beta * kl - nats).mean(), {"reconstruction": -nats.mean().detach(), "kl": kl.mean().detach()}

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, each ``float32`` (B, z), of q(z | x) for ``int64`` (B, T)."""
        counts = (x >= 0).sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.embed(x), counts, batch_first=True, enforce_sorted=False)
        _, h = self.reader(packed)
        last = torch.cat([h[-2], h[-1]], 1) if self.config.both else h[-1]
        return full(self.mean(last)), F.softplus(full(self.spread(last))) + 1e-4

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings (B, T, embedding) of tokens; zero where there is none (-1)."""
        return self.tokens(x.clamp(min=0)) * (x >= 0)[..., None]

    def state(self, z: Tensor) -> Tensor:
        """The decoder's state (layers, B, hidden) before the first token."""
        return torch.tanh(self.begin(z)).unflatten(1, (self.config.layers, -1)).transpose(0, 1).contiguous()

    def logits(self, told: Tensor, z: Tensor) -> Tensor:
        """Logits (B, T, size) after tokens (B, T)."""
        seen = torch.cat([self.embed(told), z[:, None].expand(-1, told.shape[1], -1)], 2)
        return self.head(self.writer(seen, self.state(z))[0])

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """Nats (B,) of ``int64`` (B, T)."""
        return -F.cross_entropy(full(logits).mT, x, ignore_index=-1, reduction="none").sum(1)

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        """Molecules of latents from the prior; the temperature is that of the tokens, 0 takes the likeliest."""
        z = rng.normal("latent", self.latent_dims)
        return self._written(z, rng.at("decode"), options.temperature, watch)

    def cost(self, options: Sampling) -> int:
        return 2 * self.config.layers * self.config.hidden + 4 * self.spec.size + self.spec.length

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        check_given(self, given, len(z))
        return self._written(z, rng, 0.0 if rng is None else 1.0)

    def _written(self, z: Tensor, rng: SampleRng | None, temperature: float, watch: Watch | None = None) -> Batch:
        n, greedy = len(z), rng is None or not temperature
        state, token = self.state(z), torch.full((n,), self.spec.end, device=z.device)
        done = torch.zeros(n, dtype=torch.bool, device=z.device)
        rows: list[Tensor] = []
        for t in range(self.spec.length):
            seen = torch.cat([self.embed(token[:, None]), z[:, None]], 2)
            h, state = self.writer(seen, state)
            logits = full(self.head(h[:, 0]))
            if greedy or rng is None:
                token = logits.argmax(-1)
            else:
                token = choose(logits / temperature, rng.at("step", t).uniform("token"))
            rows.append(torch.where(done, -1, token))
            done = done | (token == self.spec.end)
            if watch is not None:
                so_far = list(rows)
                watch(Preview(t + 1, self.spec.length, lambda so_far=so_far: Batch.of(torch.stack(so_far, 1))))
            if bool(done.all()):
                break
        return Batch.of(torch.stack(rows, 1))

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        mean, std = self.posterior(batch.x)
        return mean if rng is None else mean + std * rng.normal("latent", self.latent_dims)

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        return gaussian_kl(*self.posterior(batch.x))

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Importance-weighted bound (Burda et al. 2016, eq. 8) with ``samples`` samples; 1 gives the plain bound."""
        mean, std = self.posterior(batch.x)
        told = F.pad(batch.x[:, :-1], (1, 0), value=self.spec.end)
        weights = []
        for k in range(samples):
            noise = rng.at("importance", k).normal("latent", self.latent_dims)
            z = mean + std * noise
            weights.append((self.log_prob(self.logits(told, z), batch.x) + log_ratios(z, noise, std).sum(-1)).double())
        nats = torch.logsumexp(torch.stack(weights), 0) - math.log(samples)
        return Likelihood(nats, "bound", f"importance weighted, K = {samples}", "none")


MOSES = SelfiesVAEConfig()
"""The network of MOSES' VAE, but for its embedding, which there is the identity of the vocabulary."""
