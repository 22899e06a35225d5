"""Voxel VAE: shapes by a variational autoencoder of convolutions in three dimensions.

Papers
    Brock, Lim, Ritchie & Weston 2016, "Generative and Discriminative Voxel Modeling with Convolutional Neural Networks"
    (arXiv:1608.04236): section 2, the networks and the loss for sparse voxels.
    Kingma & Welling 2014 (arXiv:1312.6114): the bound. Burda et al. 2016 (arXiv:1509.00519): the bound that measures.

Equations
    log p(x) >= E_q log p(x | z) - KL(q(z | x) || N(0, 1)), where p(x | z) has one probability for each voxel.
    ``loss = "sparse"`` is the paper's in place of the likelihood: with targets t of -1 (empty) and 2 (filled), and
    outputs o from 0.1 to 1, each voxel costs -gamma t log o - (1 - gamma) (1 - t) log(1 - o), gamma = 0.97.

What differs, and why
    The default is the likelihood itself: of it a bound can be told, and solids do not need more.
    No batch normalisation: an example does not depend on its batch. Outputs begin at how often each voxel is filled.
    The networks are the paper's at 32 voxels; other multiples of 4 have the same layers. ``start`` is the number
    of channels of the decoder's first cube: 1 in the paper, which is narrow on cubes of 16.
    Classes (``conditional``) stand beside the latents and beside what the encoder has seen.
    Adam in place of Nesterov's momentum. Shifted, mirrored and noisy copies are left to the data's options.

Expected: see ``recipes/voxel_vae.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Inference, Likelihood
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.shape import ShapeSpec
from castalia.models.adversarial.contest import draw_latents
from castalia.models.adversarial.layers import one_hot
from castalia.models.autoencoders.vae import gaussian_kl, log_ratios
from castalia.models.shapes.carvers import ShapeSampling, one_piece
from castalia.nn.labels import Labels, classes_of
from castalia.nn.trusted import Conv3d, ConvTranspose3d

LOOKED_AT = 2_000
"""Shapes from which it is found how often each voxel is filled."""
SURE = 1e-4
"""Outputs of the paper's loss stay so far from 1, where it has no bound."""


@dataclass(frozen=True)
class VoxelVAEConfig(Config):
    """Configuration of a voxel VAE.

    Attributes:
        latent_dims: length of the latent vector.
        widths: channels of the encoder's four convolutions; the decoder has them the other way round.
        hidden: numbers between the encoder's last cube and the latents.
        start: channels of the decoder's first cube.
        loss: ``likelihood`` or the paper's ``sparse``, see above.
        gamma: of the latter.
        beta: weight of the KL.
        warmup: share of the training over which it rises from 0.
        conditional: make the class that is asked for.
    """

    latent_dims: int = 100
    widths: tuple[int, int, int, int] = (8, 16, 32, 64)
    hidden: int = 343
    start: int = 1
    loss: Literal["likelihood", "sparse"] = "likelihood"
    gamma: float = 0.97
    beta: float = 1.0
    warmup: float = 0.0
    conditional: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or min(self.latent_dims, self.hidden, self.start, *self.widths) < 1:
            raise ValueError("latent_dims, hidden, start and the four widths must be positive")
        if not 0.5 <= self.gamma < 1 or self.beta < 0 or not 0 <= self.warmup <= 1:
            raise ValueError("gamma is a share from 0.5, beta not negative, warmup a share")


class Encoder(nn.Module):
    """Voxels -1 and 2 (B, 1, S, S, S), and a label's ones and zeros, to means and raw deviations (B, 2 z)."""

    def __init__(self, size: int, widths: tuple[int, int, int, int], hidden: int, found: int, classes: int) -> None:
        super().__init__()
        a, b, c, d = widths
        self.layers = nn.Sequential(
            *(Conv3d(1, a, 3), nn.ELU(), Conv3d(a, b, 3, 2, 1), nn.ELU()),
            *(Conv3d(b, c, 3), nn.ELU(), Conv3d(c, d, 3, 2, 1), nn.ELU(), nn.Flatten()),
        )
        self.dense = nn.Linear(d * (size // 4 - 1) ** 3 + classes, hidden)
        self.out = nn.Linear(hidden, found)

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        return self.out(F.elu(self.dense(_with(self.layers(x), told))))


class Decoder(nn.Module):
    """Latents (B, z), and a label's ones and zeros, to logits (B, 1, S, S, S)."""

    def __init__(self, size: int, widths: tuple[int, int, int, int], start: int, latents: int, classes: int) -> None:
        super().__init__()
        a, b, c, d = widths
        self.first = (start, *[size // 4 - 1] * 3)
        self.dense = nn.Linear(latents + classes, start * (size // 4 - 1) ** 3)
        self.layers = nn.Sequential(
            *(nn.ELU(), Conv3d(start, d, 3, 1, 1), nn.ELU(), ConvTranspose3d(d, c, 3, 2), nn.ELU()),
            *(Conv3d(c, b, 3, 1, 1), nn.ELU(), ConvTranspose3d(b, a, 4, 2), nn.ELU(), Conv3d(a, 1, 3, 1, 1)),
        )

    def forward(self, z: Tensor, told: Tensor | None = None) -> Tensor:
        return self.layers(self.dense(_with(z, told)).unflatten(1, self.first))


def _with(x: Tensor, told: Tensor | None) -> Tensor:
    return x if told is None else torch.cat([x, told], 1)


class VoxelVAE(Generator[VoxelVAEConfig, ShapeSpec], Density, Inference, Exportable):
    """p(x) = integral of p(x | z) N(z; 0, I) dz over voxels, with a Gaussian encoder."""

    Config = VoxelVAEConfig
    SampleOptions: ClassVar[type[Sampling]] = ShapeSampling
    undecayed = ("base",)

    def __init__(self, config: VoxelVAEConfig, spec: ShapeSpec) -> None:
        super().__init__()
        c = config
        if spec.size % 4 or spec.size < 8:
            raise UsageError(f"A cube of {spec.size} voxels is no multiple of 4 from 8 up: set data.options.size.")
        self.config, self.spec, self.latent_dims = c, spec, c.latent_dims
        self.classes = classes_of(spec, c.conditional)
        self.labels = Labels(self.classes)
        self.encoder = Encoder(spec.size, c.widths, c.hidden, 2 * c.latent_dims, self.classes)
        self.decoder = Decoder(spec.size, c.widths, c.start, c.latent_dims, self.classes)
        self.base = nn.Parameter(torch.zeros(spec.shape))
        for module in self.modules():  # as in the paper (Glorot & Bengio 2010)
            if isinstance(module, nn.Linear | nn.Conv3d | nn.ConvTranspose3d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Count the labels; begin at how often each voxel is filled (in 2,000 shapes at most)."""
        self.labels.fit(data)
        ids = some_of(data, LOOKED_AT)
        filled = torch.stack([part.float().sum(0) for part in data.batch(ids).x.split(200)]).sum(0)
        with torch.no_grad():
            self.base.copy_(torch.logit((filled + 1) / (len(ids) + 2)))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("vae", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """What voxels cost (nats, where that is their likelihood), and beta times the KL, per example."""
        c, told = self.config, self.told(self.labels.of(batch))
        mean, std = self.posterior(batch.x, told)
        logits = self.logits(mean + std * rng.normal("latent", self.latent_dims), told)
        cost = -log_prob(logits, batch.x) if c.loss == "likelihood" else sparse_loss(logits, batch.x, c.gamma)
        kl = gaussian_kl(mean, std).sum(1)
        beta = c.beta * min(1.0, progress.fraction / c.warmup) if c.warmup else c.beta
        return (cost + beta * kl).mean(), {"reconstruction": cost.mean(), "kl": kl.mean()}

    def told(self, label: Tensor | None) -> Tensor | None:
        """Ones and zeros of labels, ``float32`` (n, classes); None for a model that is not conditional."""
        return one_hot(label, self.classes, torch.float32) if label is not None and self.classes else None

    def posterior(self, x: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and deviation, ``float32`` (B, z) each, of voxels 0 and 1."""
        mean, raw = self.encoder(3 * x.float() - 1, told).float().chunk(2, 1)
        return mean, F.softplus(raw) + 1e-4

    def logits(self, z: Tensor, told: Tensor | None) -> Tensor:
        """Of the probability that a voxel is filled, ``float32`` (B, 1, S, S, S)."""
        return self.decoder(z, told).float() + self.base

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.classes else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        """New shapes: filled where that is likelier than ``threshold``; the temperature multiplies the latents."""
        assert isinstance(options, ShapeSampling)
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        z = options.temperature * draw_latents(rng, self.latent_dims, options.truncation)
        x = (self.logits(z, self.told(label)).sigmoid() > options.threshold).to(torch.uint8)
        return Batch.of(one_piece(x) if options.one_piece else x, label)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        given = check_given(self, given, len(z))
        label = given["label"] if "label" in given else self.labels.usual(len(z))
        shares = self.logits(z, self.told(label)).sigmoid()
        limit = 0.5 if rng is None else rng.uniform("voxels", *self.spec.shape)
        return Batch.of((shares > limit).to(torch.uint8), label)

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        mean, std = self.posterior(batch.x, self._beside(batch))
        return mean if rng is None else mean + std * rng.normal("latent", self.latent_dims)

    def _beside(self, batch: Batch) -> Tensor | None:
        """What is told of examples; of those without a label that of the most frequent class."""
        return self.told(self.labels.usual(len(batch)) if batch.label is None else batch.label)

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        return gaussian_kl(*self.posterior(batch.x, self._beside(batch)))

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Importance-weighted bound (Burda et al., eq. 8) on voxels 0 and 1, given the label of a conditional model."""
        self.labels.of(batch)
        told = self._beside(batch)
        mean, std = self.posterior(batch.x, told)
        weights = []
        for k in range(samples):
            noise = rng.at("importance", k).normal("latent", self.latent_dims)
            z = mean + std * noise
            weights.append((log_prob(self.logits(z, told), batch.x) + log_ratios(z, noise, std).sum(1)).double())
        nats = torch.logsumexp(torch.stack(weights), 0) - torch.tensor(float(samples)).log()
        how = f"importance weighted, K = {samples}" + (", given the label" if self.classes else "")
        trained = "" if self.config.loss == "likelihood" else "; trained for another cost, which is no likelihood"
        return Likelihood(nats, "bound", how, f"none (voxels 0 and 1){trained}")

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Encoder (voxels as -1 and 2) and decoder (to offsets of logits), each with a label's ones and zeros."""
        x, z = (torch.zeros(2, *shape, device=self.device) for shape in (self.spec.shape, (self.latent_dims,)))
        told = (torch.zeros(2, self.classes, device=self.device),) if self.classes else ()
        return {"encoder": (self.encoder, (x, *told)), "decoder": (self.decoder, (z, *told))}


def log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Log-probability of voxels 0 and 1 (B, ...), nats, (B,)."""
    return -F.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none").flatten(1).sum(1)


def sparse_loss(logits: Tensor, x: Tensor, gamma: float) -> Tensor:
    """The paper's cost of voxels 0 and 1 (B, ...), (B,): filled ones weigh more, and no output ends at 0."""
    t, o = 3 * x.to(logits.dtype) - 1, (0.1 + 0.9 * logits.sigmoid()).clamp(max=1 - SURE)
    return -(gamma * t * o.log() + (1 - gamma) * (1 - t) * (1 - o).log()).flatten(1).sum(1)
