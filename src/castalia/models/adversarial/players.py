"""What the first adversarial systems share: networks from one configuration, points as well as pictures, packs.

A system derives from :class:`Players` and says what the two play for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Perception
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Model
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.adversarial.augment import augment
from castalia.models.adversarial.contest import Contest
from castalia.models.adversarial.layers import pack, still
from castalia.models.adversarial.networks import PlayersConfig, classes_of, make_critic, make_generator
from castalia.nn.seeing import Seeing

LOOKED_AT = 20_000
"""Points looked at, evenly spaced in the data, for their mean and scale."""

P = TypeVar("P", bound=PlayersConfig)


class Players(Contest[P, ImageSpec | PointsSpec], Perception):
    """A generator and a critic, for pictures (inside: -1 to 1) or points (inside: mean 0, mean square 1)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: P, spec: ImageSpec | PointsSpec) -> None:
        super().__init__()
        self.prepare(config, spec, config.latent_dims, classes_of(config, spec))
        if config.augment and not isinstance(spec, ImageSpec):
            raise UsageError("config.augment changes pictures; points have none of these changes.")
        self.generator = make_generator(config, spec)
        self.critic = make_critic(config, spec)
        if isinstance(spec, PointsSpec):
            self.register_buffer("mean", torch.zeros(spec.dims))
            self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Store the points' mean and common scale, and how often each class occurs (of 20,000 examples at most)."""
        super().initialise(data, rng, parents)
        if isinstance(self.spec, PointsSpec):
            x = data.batch(some_of(data, LOOKED_AT)).x.double()
            self.mean.copy_(x.mean(0))
            # one scale for all coordinates: distances keep their meaning, and with them slopes of the critic
            self.scale.copy_((x - x.mean(0)).square().mean().sqrt().clamp(min=1e-12))

    # between natural units and those of the networks

    def inside(self, x: Tensor) -> Tensor:
        """Examples in natural units as the networks see them, ``float32`` (B, ...)."""
        return super().inside(x) if isinstance(self.spec, ImageSpec) else (x - self.mean) / self.scale

    def outside(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`inside`; pictures are rounded."""
        return super().outside(x) if isinstance(self.spec, ImageSpec) else x * self.scale + self.mean

    # playing

    def real(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Examples as the networks see them, and their labels where the model is conditional.

        Raises:
            UsageError: the batch cannot be packed, or has no labels.
        """
        if len(batch) % self.config.pack:
            raise UsageError(f"A batch of {len(batch)} does not divide into packs of {self.config.pack} examples.")
        return super().real(batch)

    def shown(self, x: Tensor, rng: Rng) -> Tensor:
        """Packs of examples as the critic is shown them, augmented each by itself: (B, C, ...) -> (B/m, mC, ...)."""
        return pack(augment(x, self.config.augment, rng), self.config.pack)

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

    def latents(self, z: Tensor) -> Tensor:
        """Latents of the training distribution from standard normal ones (B, z)."""
        return 2 * torch.special.ndtr(z) - 1 if self.config.latent == "uniform" else z

    def perceive(self) -> Mapping[str, nn.Module]:
        """The critic, which returns logits (B, 1); it is shown packs of one picture, as of the most frequent class.

        Raises:
            UsageError: the model is of points.
        """
        if not isinstance(self.spec, ImageSpec):
            raise UsageError("This model's critic looks at points, and not at pictures.")
        return {"critic": Seeing(self.critic, self._packed, self.labels.usual)}

    def _packed(self, x: Tensor) -> Tensor:
        return self.inside(x).repeat(1, self.config.pack, 1, 1)

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
