"""TVAE: a variational autoencoder of rows.

Paper
    Xu, Skoularidou, Cuesta-Infante & Veeramachaneni 2019 (arXiv:1907.00503), section 4.5: the rows of CTGAN, an encoder
    and a decoder of two layers, numbers as Gaussians around a tanh with a deviation that each column learns.

Equations
    loss = factor sum_columns [ (a - tanh m)^2 / (2 d^2) + log d + cross entropies of modes and categories ]
           + KL(q(z | x) || N(0, 1)),   d clamped to [0.01, 1]

What differs, and why
    ``factor`` is 2 in the authors' code and 1 in a true bound; it is a setting.
    A mode or a category is drawn when sampling where ``drawn``; the authors take the likeliest, which loses rare ones.
    Missing values are modes or categories of their own.

Expected: see ``recipes/tvae.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Inference
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.spec import Spec
from castalia.core.specs.table import TableSpec
from castalia.models.autoencoders.vae import gaussian_kl
from castalia.models.tables.columns import Columns, Modes, fit_modes
from castalia.models.tables.conditions import RowSampling, asked_of, satisfied


@dataclass(frozen=True)
class TVAEConfig(Config):
    """Configuration of a TVAE; the defaults are the paper's.

    Attributes:
        latent_dims: length of the latent vector.
        encoder: units of its layers.
        decoder: units of its layers.
        factor: weight of the reconstruction.
        drawn: whether modes, categories and numbers are drawn when sampling; else the likeliest is taken.
        modes: of the columns; found in the data.
    """

    latent_dims: int = 128
    encoder: tuple[int, ...] = (128, 128)
    decoder: tuple[int, ...] = (128, 128)
    factor: float = 2.0
    drawn: bool = True
    modes: tuple[Modes, ...] = ()

    def __post_init__(self) -> None:
        if min(self.latent_dims, *self.encoder, *self.decoder) < 1 or self.factor <= 0:
            raise ValueError("sizes and factor must be positive")


def layers(inputs: int, widths: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    """Linear layers with ReLU, and the width that comes out."""
    found: list[nn.Module] = []
    for width in widths:
        found += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*found), inputs


class TVAE(Generator[TVAEConfig, TableSpec], Inference):
    """p(row) = integral of p(row | z) N(z; 0, I) dz."""

    Config = TVAEConfig
    SampleOptions: ClassVar[type[Sampling]] = RowSampling

    def __init__(self, config: TVAEConfig, spec: TableSpec) -> None:
        super().__init__()
        c = config
        self.config, self.spec, self.latent_dims = config, spec, c.latent_dims
        self.columns = Columns(spec, c.modes or tuple(() if p.listed else ((1.0, 0.0, 1.0),) for p in spec.parts))
        self.reader, width = layers(self.columns.size, c.encoder)
        self.mean, self.spread = nn.Linear(width, c.latent_dims), nn.Linear(width, c.latent_dims)
        body, width = layers(c.latent_dims, c.decoder)
        self.writer = nn.Sequential(*body, nn.Linear(width, self.columns.size))
        self.deviation = nn.Parameter(0.1 * torch.ones(sum(span.scalar for span in self.columns.spans) or 1))

    @classmethod
    def complete(cls, config: TVAEConfig, data: Dataset) -> TVAEConfig:
        assert isinstance(data.spec, TableSpec)
        return config if config.modes else replace(config, modes=fit_modes(data, data.spec))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("tvae", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per row, averaged over the batch."""
        seen = self.columns.inside(batch, rng)
        mean, std = self.posterior(seen)
        raw = self.writer(mean + std * rng.normal("latent", self.latent_dims)).float()
        cost, kl = self.cost_of(raw, seen).mean(), gaussian_kl(mean, std).sum(1).mean()
        # a column without numbers has no deviation of its own: it takes part with nothing
        unused = 0.0 * self.deviation.sum()
        return self.config.factor * cost + kl + unused, {"reconstruction": cost.detach(), "kl": kl.detach()}

    def posterior(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, each ``float32`` (B, z)."""
        h = self.reader(seen)
        return self.mean(h).float(), (0.5 * self.spread(h).float().clamp(-20, 10)).exp()

    def deviations(self) -> Tensor:
        """D of each column of numbers."""
        return self.deviation.clamp(0.01, 1.0)

    def cost_of(self, raw: Tensor, seen: Tensor) -> Tensor:
        """Nats (B,) of rows, from the decoder's outputs."""
        total, number, d = torch.zeros(len(raw), device=raw.device), 0, self.deviations()
        for span in self.columns.spans:
            if span.scalar:
                gap = seen[:, span.start] - torch.tanh(raw[:, span.start])
                total = total + gap.square() / (2 * d[number].square()) + d[number].log()
                number += 1
            else:
                total = total + F.cross_entropy(raw[:, span.slice], seen[:, span.slice].argmax(1), reduction="none")
        return total

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return asked_of(self.spec)

    def draw(self, n: int, given: Given, rng: SampleRng, options: RowSampling, watch: Watch | None) -> Batch:
        """Rows; the temperature multiplies the latents, and all choices are the likeliest at 0."""

        def once(rng: SampleRng) -> Batch:
            z = options.temperature * rng.normal("latent", self.latent_dims)
            return self._row(z, rng if options.temperature else None)

        return satisfied(once, self.spec, given, rng, options)

    def _row(self, z: Tensor, rng: Rng | None) -> Batch:
        raw, number, d = self.writer(z).float(), 0, self.deviations()
        rng = rng if self.config.drawn else None
        parts = []
        for i, span in enumerate(self.columns.spans):
            part = raw[:, span.slice]
            if span.scalar:
                part = torch.tanh(part)
                if rng is not None:
                    part = part + d[number] * rng.at("number", i).normal("noise", 1)
                number += 1
            elif rng is not None:
                noise = rng.at("choice", i).uniform("gumbel", span.size).clamp(1e-7, 1 - 1e-7)
                part = part - torch.log(-torch.log(noise))
            parts.append(part)
        return self.columns.outside(torch.cat(parts, 1))

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        given = check_given(self, given, len(z))
        row = self._row(z, rng)
        return satisfied(lambda _: row, self.spec, given, rng or SampleRng(0, range(len(z))), RowSampling(tries=1))

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        mean, std = self.posterior(self.columns.inside(batch, rng))
        return mean if rng is None else mean + std * rng.normal("latent", self.latent_dims)

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        return gaussian_kl(*self.posterior(self.columns.inside(batch, None)))
