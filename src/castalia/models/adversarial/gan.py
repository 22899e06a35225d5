"""Generative adversarial network, DCGAN, conditional GAN.

Papers
    Goodfellow et al. 2014, "Generative Adversarial Nets" (arXiv:1406.2661): eq. 1 (the minimax game), algorithm 1, and
    the non-saturating loss of section 3.
    Radford, Metz & Chintala 2016, DCGAN (arXiv:1511.06434): section 3 (the convolutional networks).
    Mirza & Osindero 2014 (arXiv:1411.1784) and Miyato & Koyama 2018 (arXiv:1802.05637): classes.
    Lim & Ye 2017 (arXiv:1705.02894), hinge; Mao et al. 2017 (arXiv:1611.04076), least squares.
    Mescheder et al. 2018 (arXiv:1801.04406): R1 penalty; Karras et al. 2020 (arXiv:1912.04958): computed lazily.
    From outside: Lin et al. 2018, PacGAN (arXiv:1712.04086); Zhao et al. 2020, differentiable augmentation
    (arXiv:2006.10738); Miyato et al. 2018, spectral normalisation (arXiv:1802.05957).

What differs, and why
    The critic gives logits, and losses are written with softplus: no logarithm of a rounded zero.
    Each update draws its own batch and its own latents (algorithm 1); much code trains the generator on the made
    pictures of the critic's update.
    An update of one network leaves the other's batch statistics alone.
    Samples come from the averaged weights, which the papers did not have.

Expected: see ``recipes/adversarial.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from castalia.core.data import Batch
from castalia.core.model import Logs, Objective, Progress, Stage
from castalia.core.rng import Rng
from castalia.models.adversarial.losses import Game, critic_loss, generator_loss, input_gradient, r1
from castalia.models.adversarial.networks import PlayersConfig
from castalia.models.adversarial.players import Players


@dataclass(frozen=True)
class GANConfig(PlayersConfig):
    """Configuration of a GAN.

    Attributes:
        game: ``non-saturating``, ``minimax``, ``hinge`` or ``least-squares``.
        smooth: the critic's target for real examples is 1 - ``smooth`` (non-saturating and minimax).
        r1: weight gamma of the penalty on the critic's slope at real examples; 0: none.
        r1_every: computed in steps divisible by it, as many times as strong.
    """

    game: Game = "non-saturating"
    smooth: float = 0.0
    r1: float = 0.0
    r1_every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.smooth < 1 or self.r1 < 0 or self.r1_every < 1:
            raise ValueError("smooth lies in [0, 1), r1 must not be negative, r1_every must be positive")
        if self.smooth and self.game in ("hinge", "least-squares"):
            raise ValueError("smooth belongs to the games with a sigmoid")


class GAN(Players[GANConfig]):
    """min over G, max over D of E log D(x) + E log(1 - D(G(z))), D = sigmoid(critic), and games like it."""

    Config = GANConfig

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        critic = Objective("critic", self.critic, self.critic_loss, c.critic_optimizer, repeat=c.critic_steps)
        generator = Objective("generator", self.generator, self.generator_loss, repeat=c.generator_steps)
        return (Stage("train", (critic, generator)),)

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The critic's side of the game, on real examples and on as many made ones."""
        c = self.config
        x, label = self.real(batch)
        real = self.shown(x, rng.at("real"))
        fake = self.shown(self.make_still(rng, label), rng.at("fake"))
        logs: dict[str, Tensor] = {}
        if c.r1 and progress.step % c.r1_every == 0:
            on_real, gradient = input_gradient(lambda x: self.judge_smooth(x, label), real)
            on_fake = self.judge(fake, label)
            penalty = r1(gradient)
            logs["r1"] = penalty.detach()
            loss = critic_loss(c.game, on_real, on_fake, c.smooth) + c.r1 * c.r1_every * penalty
        else:
            on_real, on_fake = self.judge_both(real, fake, label)
            loss = critic_loss(c.game, on_real, on_fake, c.smooth)
        middle = 0.5 if c.game == "least-squares" else 0.0
        right = 0.5 * (on_real > middle).float().mean() + 0.5 * (on_fake < middle).float().mean()
        means = {"real": on_real.detach().float().mean(), "fake": on_fake.detach().float().mean()}
        return loss, {**means, "accuracy": right, **logs}

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The generator's side of the game; of the batch it uses the number and the classes."""
        return generator_loss(self.config.game, self.judge_made(batch, rng)), {}
