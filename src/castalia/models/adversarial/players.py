"""What every pair of a generator and a critic shares: units, latents, labels, packs, sampling.

A system derives from :class:`Players` and says what the two play for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Exportable, Latents
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Model
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.adversarial.augment import augment
from castalia.models.adversarial.layers import pack, still
from castalia.models.adversarial.networks import PlayersConfig, classes_of, make_critic, make_generator
from castalia.nn.labels import Labels

LOOKED_AT = 20_000
"""Points looked at, evenly spaced in the data, for their mean and scale."""

ROUNDS = 16
"""Times that a truncated coordinate is drawn again before the rest are drawn by inversion."""


@dataclass(frozen=True)
class LatentOptions(Sampling):
    """How to draw latents.

    Attributes:
        truncation: coordinates further from 0 than this are drawn again (Brock et al. 2019, arXiv:1809.11096): less
            variety for more typical examples. 0 draws nothing again.
    """

    truncation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.truncation < 0:
            raise ValueError("truncation must not be negative")


P = TypeVar("P", bound=PlayersConfig)


class Players(Generator[P, ImageSpec | PointsSpec], Latents, Exportable):
    """A generator and a critic, for pictures (inside: -1 to 1) or points (inside: mean 0, mean square 1)."""

    SampleOptions: ClassVar[type[Sampling]] = LatentOptions
    mean: Tensor
    scale: Tensor

    def __init__(self, config: P, spec: ImageSpec | PointsSpec) -> None:
        super().__init__()
        self.config, self.spec, self.latent_dims = config, spec, config.latent_dims
        self.classes = classes_of(config, spec)
        if config.augment and not isinstance(spec, ImageSpec):
            raise UsageError("config.augment changes pictures; points have none of these changes.")
        self.generator = make_generator(config, spec)
        self.critic = make_critic(config, spec)
        self.labels = Labels(self.classes)
        if isinstance(spec, PointsSpec):
            self.register_buffer("mean", torch.zeros(spec.dims))
            self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Store the points' mean and common scale, and how often each class occurs (of 20,000 examples at most)."""
        self.labels.fit(data)
        if isinstance(self.spec, PointsSpec):
            x = data.batch(some_of(data, LOOKED_AT)).x.double()
            self.mean.copy_(x.mean(0))
            # one scale for all coordinates: distances keep their meaning, and with them slopes of the critic
            self.scale.copy_((x - x.mean(0)).square().mean().sqrt().clamp(min=1e-12))

    # between natural units and those of the networks

    def inside(self, x: Tensor) -> Tensor:
        """Examples in natural units as the networks see them, ``float32`` (B, ...)."""
        return x.float() / 127.5 - 1 if isinstance(self.spec, ImageSpec) else (x - self.mean) / self.scale

    def outside(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`inside`; pictures are rounded."""
        if isinstance(self.spec, ImageSpec):
            return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return x * self.scale + self.mean

    # playing

    def real(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Examples as the networks see them, and their labels where the model is conditional.

        Raises:
            UsageError: the batch cannot be packed, or has no labels.
        """
        if len(batch) % self.config.pack:
            raise UsageError(f"A batch of {len(batch)} does not divide into packs of {self.config.pack} examples.")
        return self.inside(batch.x), self.labels.of(batch)

    def make(self, rng: Rng, label: Tensor | None) -> Tensor:
        """New examples ``float32`` (rows of ``rng``, ...) as the networks see them."""
        if self.config.latent == "uniform":
            z = 2 * rng.uniform("latent", self.latent_dims) - 1
        else:
            z = rng.normal("latent", self.latent_dims)
        return self.generator(z, label).float()

    def make_still(self, rng: Rng, label: Tensor | None) -> Tensor:
        """:meth:`make` for the critic's loss: without gradients, and leaving the generator as it is."""
        with torch.no_grad(), still(self.generator):
            return self.make(rng, label)

    def shown(self, x: Tensor, rng: Rng) -> Tensor:
        """Packs of examples as the critic is shown them, augmented each by itself: (B, C, ...) -> (B/m, mC, ...)."""
        return pack(augment(x, self.config.augment, rng), self.config.pack)

    def judge(self, x: Tensor, label: Tensor | None) -> Tensor:
        """The critic's outputs (B/m,) for packs of examples."""
        return self.critic(x, label).flatten()

    def judge_smooth(self, x: Tensor, label: Tensor | None) -> Tensor:
        """:meth:`judge` for second derivatives, which a compiled network does not have: always the plain one."""
        return self.critic.forward(x, label).flatten()

    def judge_both(self, real: Tensor, fake: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs for real and for made packs of the same classes.

        With batch normalisation each kind is a batch of its own (Radford et al. 2016); else it makes no difference, and
        one pass is faster than two.
        """
        if self.config.critic_norm == "batch":
            return self.judge(real, label), self.judge(fake, label)
        both = self.judge(torch.cat([real, fake]), None if label is None else torch.cat([label, label]))
        return both[: len(real)], both[len(real) :]

    def judge_made(self, batch: Batch, rng: Rng) -> Tensor:
        """The critic's outputs for new examples, for the generator's loss; leaves the critic as it is."""
        label = self.labels.of(batch)
        with still(self.critic):
            return self.judge(self.shown(self.make(rng, label), rng), label)

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.classes else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: LatentOptions, watch: Watch | None) -> Batch:
        """New examples; the temperature multiplies the latents."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        z = options.temperature * draw_latents(rng, self.latent_dims, options.truncation)
        return self._decoded(z, label)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        given = check_given(self, given, len(z))
        return self._decoded(z, given["label"] if "label" in given else self.labels.usual(len(z)))

    def _decoded(self, z: Tensor, label: Tensor | None) -> Batch:
        return Batch.of(self.outside(self.generator(self.latents(z), label).float()), label)

    def latents(self, z: Tensor) -> Tensor:
        """Latents of the training distribution from standard normal ones (B, z)."""
        return 2 * torch.special.ndtr(z) - 1 if self.config.latent == "uniform" else z

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The generator: latents (and labels) to examples, pictures in [-1, 1] and points in their own units."""
        z = torch.zeros(2, self.latent_dims, device=self.device)
        label = (torch.zeros(2, dtype=torch.int64, device=self.device),) if self.classes else ()
        return {"generator": (_Generate(self), (z, *label))}


class _Generate(nn.Module):
    """Standard normal latents (B, z), and labels (B,) where there are classes, to examples, as one call for export."""

    def __init__(self, players: Players) -> None:
        super().__init__()
        self.generator, self.uniform = players.generator, players.config.latent == "uniform"
        points = isinstance(players.spec, PointsSpec)
        self.register_buffer("scale", players.scale if points else torch.ones(()))
        self.register_buffer("mean", players.mean if points else torch.zeros(()))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.uniform:
            z = torch.erf(z / math.sqrt(2))  # 2 ndtr(z) - 1
        return self.generator(z, label) * self.scale + self.mean


def draw_latents(rng: Rng, dims: int, truncation: float = 0.0) -> Tensor:
    """Standard normal latents ``float32`` (rows, dims), of which coordinates beyond ``truncation`` are drawn again.

    The result is a truncated normal. Coordinates inside keep their value, so that a picture stays recognisable as the
    truncation gets stronger. What is still outside after some rounds is drawn by inverting the distribution function.
    """
    z = rng.normal("latent", dims)
    if not truncation:
        return z
    for attempt in range(ROUNDS):
        z = torch.where(z.abs() > truncation, rng.at("again", attempt).normal("latent", dims), z)
    low = 0.5 * math.erfc(truncation / math.sqrt(2))
    share = low + (1 - 2 * low) * rng.uniform("inversion", dims).double()
    last = torch.special.ndtri(share).float().clamp(-truncation, truncation)
    return torch.where(z.abs() > truncation, last, z)
