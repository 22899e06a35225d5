"""A variational autoencoder of motion, by class: a space of motions to walk in.

Papers
    Petrovich, Black & Varol 2021, "Action-Conditioned 3D Human Motion Synthesis with Transformer VAE" (ACTOR,
    arXiv:2104.05670). Kingma & Welling 2014 (arXiv:1312.6114).

Equations
    q(z | x, class) = N(mu, sigma^2): two tokens of the class, before the frames of a transformer encoder, come out as
    mu and log sigma^2                                                                             (section 3.1)
    A transformer decoder asks for every frame by its place in time, and looks at z, shifted by a vector of the class.
    loss = |x - x'|^2 + pos |FK(x) - FK(x')|^2 + vel |d FK(x) - d FK(x')|^2 + beta KL                (section 3.3)

What differs, and why
    What networks see is steps of the root and rotations (``steps.py``); the paper has SMPL's rotations and vertices,
    where here are places of joints. beta is a setting: 1e-5 in the paper.
    z and the class's vector stand beside each other for the decoder, not summed: then classes can be left out.

Expected: see ``recipes/motion_vae.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Inference
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.motion import MotionSpec
from castalia.models.autoencoders.vae import gaussian_kl
from castalia.models.motion.steps import Steps, encoder
from castalia.nn.embeddings import places
from castalia.nn.labels import Labels


@dataclass(frozen=True)
class MotionVAEConfig(Config):
    """Configuration of a motion VAE; the defaults are the paper's.

    Attributes:
        layers: of encoder and decoder each.
        dim: of a frame, and length of the latent vector.
        heads: of attention.
        hidden: units inside a layer.
        dropout: in both.
        conditional: whether classes are used, where the data have them.
        beta: weight of the KL, a dimension's on a number's error.
        places: weight of the error of places.
        velocity: weight of the error of velocities.
        feet: weight of the speed of feet that should stand.
    """

    layers: int = 8
    dim: int = 256
    heads: int = 4
    hidden: int = 1024
    dropout: float = 0.1
    conditional: bool = True
    beta: float = 1e-5
    places: float = 1.0
    velocity: float = 1.0
    feet: float = 0.0

    def __post_init__(self) -> None:
        if min(self.layers, self.dim, self.heads, self.hidden) < 1 or self.dim % self.heads or self.dim % 2:
            raise ValueError("sizes must be positive, and dim a multiple of heads and of 2")
        if not 0 <= self.dropout < 1 or min(self.beta, self.places, self.velocity, self.feet) < 0:
            raise ValueError("dropout is a share, weights must not be negative")


class MotionVAE(Generator[MotionVAEConfig, MotionSpec], Inference):
    """Motions of latents and classes."""

    Config = MotionVAEConfig

    def __init__(self, config: MotionVAEConfig, spec: MotionSpec) -> None:
        super().__init__()
        c = config
        self.config, self.spec, self.latent_dims = config, spec, c.dim
        self.classes = len(spec.classes) if c.conditional else 0
        self.labels = Labels(self.classes)
        self.seen = Steps(spec)
        kinds = max(1, self.classes)
        self.into, self.out = nn.Linear(spec.numbers, c.dim), nn.Linear(c.dim, spec.numbers)
        self.ask = nn.Parameter(torch.randn(kinds, 2, c.dim))
        self.reader = encoder(c.dim, c.heads, c.hidden, c.layers, c.dropout)
        self.kinds = nn.Parameter(torch.randn(kinds, c.dim))
        block = nn.TransformerDecoderLayer(c.dim, c.heads, c.hidden, c.dropout, "gelu", batch_first=True)
        self.writer = nn.TransformerDecoder(block, c.layers)
        self.register_buffer("at", places(spec.length + 2, c.dim), persistent=False)

    at: Tensor

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find the scales, and count the classes."""
        self.seen.fit(data)
        self.labels.fit(data)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("vae", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The weighted sum, averaged over the batch."""
        c, label = self.config, self.labels.of(batch)
        clean = self.seen.inside(batch.x)
        mean, std = self.posterior(clean, label)
        found = self.frames(mean + std * rng.normal("latent", self.latent_dims), label).float()
        with torch.autocast(clean.device.type, enabled=False):
            places, velocity, feet = (part.mean() for part in self.seen.geometry(found, clean))
        simple = (found - clean).square().mean()
        kl = gaussian_kl(mean, std).sum(1).mean()
        loss = simple + c.places * places + c.velocity * velocity + c.feet * feet + c.beta * kl
        logs = {"simple": simple, "places": places, "velocity": velocity, "kl": kl}
        return loss, {name: value.detach() for name, value in logs.items()}

    def posterior(self, seen: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and deviation, each ``float32`` (B, dim)."""
        which = torch.zeros(len(seen), dtype=torch.int64, device=seen.device) if label is None else label
        h = torch.cat([self.ask[which], self.into(seen)], 1)
        told = self.reader(h + self.at[: h.shape[1]])[:, :2].float()
        return told[:, 0], (0.5 * told[:, 1].clamp(-20, 10)).exp()

    def frames(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Frames (B, T, numbers), as networks see them, of latents (B, dim) and classes."""
        which = torch.zeros(len(z), dtype=torch.int64, device=z.device) if label is None else label
        memory = torch.stack([z, self.kinds[which].to(z.dtype)], 1)
        asked = self.at[: self.spec.length].expand(len(z), -1, -1).to(z.dtype)
        return self.out(self.writer(asked, memory))

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.classes else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        """Motions of latents from the prior, which the temperature multiplies."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        z = options.temperature * rng.normal("latent", self.latent_dims)
        return Batch.of(self.seen.outside(self.frames(z, label)), label)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        given = check_given(self, given, len(z))
        label = given["label"] if "label" in given else self.labels.usual(len(z))
        return Batch.of(self.seen.outside(self.frames(z, label)), label)

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        mean, std = self.posterior(self.seen.inside(batch.x), self._label(batch))
        return mean if rng is None else mean + std * rng.normal("latent", self.latent_dims)

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        return gaussian_kl(*self.posterior(self.seen.inside(batch.x), self._label(batch)))

    def _label(self, batch: Batch) -> Tensor | None:
        """The classes of a batch; the most frequent one where nobody says."""
        return batch.label if self.classes and batch.label is not None else self.labels.usual(len(batch))
