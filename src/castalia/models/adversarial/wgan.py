"""Wasserstein GAN, with clipped weights or with a gradient penalty.

Papers
    Arjovsky, Chintala & Bottou 2017, "Wasserstein GAN" (arXiv:1701.07875): eq. 2 and 3 (the dual), algorithm 1
    (clipping at 0.01, RMSProp at 5e-5, five critic updates per generator update).
    Gulrajani et al. 2017, "Improved Training of Wasserstein GANs" (arXiv:1704.00028): eq. 3, algorithm 1 (penalty
    weight 10, the straight line between a real and a made example), section 4 (two sides, no batch normalisation in
    the critic), appendix F (residual networks).
    Petzka et al. 2018 (arXiv:1709.08894): the one-sided penalty. Karras et al. 2018 (arXiv:1710.10196): drift.

What differs, and why
    Weights are clipped before each update of the critic and after its last, which is the same as after each.
    With packs, a penalty's line runs between packs; with classes, between examples of the same class.
    An update of one network leaves the other's batch statistics alone.
    Samples come from the averaged weights, which the papers did not have.

Expected: see ``recipes/adversarial.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.model import Logs, Objective, Progress, Stage
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.adversarial.losses import Sides, drift, gradient_penalty, mix, wasserstein
from castalia.models.adversarial.networks import PlayersConfig
from castalia.models.adversarial.players import Players


@dataclass(frozen=True)
class WGANConfig(PlayersConfig):
    """Configuration of a Wasserstein GAN.

    Attributes:
        lipschitz: what bounds the critic's slope: ``penalty``, ``clip``, or ``none`` (for example where ``spectral``
            does).
        penalty: weight lambda of the gradient penalty.
        sides: ``two``: slopes are drawn to 1; ``one``: only slopes above 1 cost something.
        clip: bound of the critic's weights.
        drift: weight of the mean square of the critic's outputs on real examples.
    """

    critic_steps: int = 5
    lipschitz: Literal["penalty", "clip", "none"] = "penalty"
    penalty: float = 10.0
    sides: Sides = "two"
    clip: float = 0.01
    drift: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty <= 0 or self.clip <= 0 or self.drift < 0:
            raise ValueError("penalty and clip must be positive, drift must not be negative")
        if self.lipschitz == "penalty" and self.critic_norm == "batch":
            raise ValueError("the penalty is on the slope at one example; set critic_norm to none or layer")
        if self.lipschitz == "clip" and self.spectral:
            raise ValueError("spectral normalisation undoes the clipping; choose one")


class WGAN(Players[WGANConfig]):
    """min over G, max over 1-Lipschitz f of E f(x) - E f(G(z))."""

    Config = WGANConfig

    def __init__(self, config: WGANConfig, spec: ImageSpec | PointsSpec) -> None:
        super().__init__(config, spec)
        if config.lipschitz == "clip":
            self.clip_weights()

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        clip = self.clip_weights if c.lipschitz == "clip" else None
        critic = Objective(
            "critic", self.critic, self.critic_loss, c.critic_optimizer, repeat=c.critic_steps, project=clip
        )
        generator = Objective("generator", self.generator, self.generator_loss, repeat=c.generator_steps)
        return (Stage("train", (critic, generator)),)

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The negative dual of the distance, plus what bounds the slope."""
        c = self.config
        x, label = self.real(batch)
        real = self.shown(x, rng.at("real"))
        fake = self.shown(self.make_still(rng, label), rng.at("fake"))
        on_real, on_fake = self.judge_both(real, fake, label)
        distance = wasserstein(on_real, on_fake)
        loss = -distance
        unit = 1.0 if isinstance(self.spec, ImageSpec) else self.scale
        logs = {"wasserstein": distance.detach() * unit, "real": on_real.detach().float().mean()}
        if c.lipschitz == "penalty":
            between = mix(real, fake, rng.uniform("mix")[:: c.pack])
            penalty = gradient_penalty(lambda x: self.judge_smooth(x, label), between, c.sides)
            loss = loss + c.penalty * penalty
            logs["penalty"] = penalty.detach()
        if c.drift:
            loss = loss + c.drift * drift(on_real)
        return loss, logs

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """What is left of the distance when the critic stands still: minus its mean on made examples."""
        return -self.judge_made(batch, rng).float().mean(), {}

    @torch.no_grad()
    def clip_weights(self) -> None:
        """Cut the critic's parameters off at +-clip."""
        torch._foreach_clamp_min_(list(self.critic.parameters()), -self.config.clip)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_clamp_max_(list(self.critic.parameters()), self.config.clip)  # pyright: ignore[reportPrivateImportUsage]
