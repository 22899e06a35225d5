"""3D-GAN: shapes as voxels, by a generator against a discriminator that rests where it is too good.

Paper
    Wu, Zhang, Xue, Freeman & Tenenbaum 2016, "Learning a Probabilistic Latent Space of Object Shapes via 3D
    Generative-Adversarial Modeling" (arXiv:1610.07584): eq. 1 (the game), section 3.1 (networks, the rule of 80 %,
    rates .0025 and 1e-5, Adam with beta .5, batches of 100), section 4.2 (features), appendix A (sizes).

Equations
    max over D, min over G of log D(x) + log(1 - D(G(z))), with z uniform on [0, 1]^200 (eq. 1). D moves only where it
    was right on at most 80 % of the last batch of real and made shapes.

What differs, and why
    G maximises log D(G(z)) (``game``), as GANs are trained since Goodfellow et al. 2014; ``minimax`` is eq. 1.
    While D rests its parameters stay, and the moments of its optimizer fade as with a gradient of zero.
    Other sizes than 64 have fewer layers, their widths counted from the last: 16 voxels are 128, 64, 1 channels.
    Classes (``conditional``) stand beside the latents, and the discriminator judges by them (Miyato & Koyama 2018); the
    paper trained a network for each class.
    The part with a picture encoder (3D-VAE-GAN, section 3.2) is in ``iwgan3d``.

Expected: see ``recipes/gan3d.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.model import Logs, Objective, Optimizer, Progress, Stage, Update
from castalia.core.rng import Rng
from castalia.core.specs.shape import ShapeSpec
from castalia.models.adversarial.layers import still
from castalia.models.adversarial.losses import critic_loss, generator_loss
from castalia.models.shapes.carvers import Carver
from castalia.models.shapes.networks import VoxelCritic, VoxelGenerator, doublings, set_weights
from castalia.nn.labels import classes_of

FIRST = 4
"""Voxels along a side of the smallest cube."""

PAPER = Optimizer("adam", betas=(0.5, 0.999))
"""Of the paper, which names the first of the two rates of decay."""

SLOW = replace(PAPER, lr=1e-5)
"""Of its discriminator."""


@dataclass(frozen=True)
class GAN3DConfig(Config):
    """Configuration of a 3D-GAN.

    Attributes:
        latent_dims: length of the latent vector.
        width: channels of the generator's last hidden layer and of the discriminator's first; each smaller cube has
            twice as many.
        rest: share of right judgements in the last batch above which the discriminator rests; 1: never.
        game: what the generator plays for, see above.
        conditional: make the class that is asked for.
        critic_optimizer: of the discriminator, whose rate in the paper is 250 times smaller than the generator's.
    """

    latent_dims: int = 200
    width: int = 64
    rest: float = 0.8
    game: Literal["non-saturating", "minimax"] = "non-saturating"
    conditional: bool = False
    critic_optimizer: Optimizer = SLOW

    def __post_init__(self) -> None:
        if self.latent_dims < 1 or self.width < 1:
            raise ValueError("latent_dims and width must be positive")
        if not 0.5 <= self.rest <= 1:
            raise ValueError("rest is a share from 0.5, which is chance, to 1")


class Referee(nn.Module):
    """Remembers how often the discriminator was right in the last batch.

    Attributes:
        tally: ``float32`` (2,): right judgements and all of them, of all processes.
        mine: the same of this process, since the tally was made.
    """

    tally: Tensor
    mine: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tally", torch.zeros(2))
        self.register_buffer("mine", torch.zeros(2))

    @property
    def accuracy(self) -> Tensor:
        """Share of right judgements, (); 0 before the first."""
        return self.tally[0] / self.tally[1].clamp(min=1)

    @torch.no_grad()
    def count(self, real: Tensor, fake: Tensor) -> None:
        """Count the judgements of logits (B,)."""
        right = (real > 0).sum() + (fake < 0).sum()
        self.mine += torch.stack([right, right.new_tensor(len(real) + len(fake))]).to(self.mine)

    def settle(self, share: float) -> None:
        """Let the tally be what was counted, where this process has ``share`` of a batch: changes are added up."""
        self.tally += self.mine - share * self.tally
        self.mine.zero_()


class GAN3D(Carver[GAN3DConfig]):
    """min over G, max over D of E log D(x) + E log(1 - D(G(z))), over voxels."""

    Config = GAN3DConfig

    def __init__(self, config: GAN3DConfig, spec: ShapeSpec) -> None:
        super().__init__()
        classes = classes_of(spec, config.conditional)
        self.prepare(config, spec, config.latent_dims, classes)
        most = config.width << (doublings(spec.size, FIRST) - 1)
        self.generator = VoxelGenerator(config.latent_dims, spec.size, FIRST, most, nn.Sigmoid(), classes)
        self.critic = VoxelCritic(spec.size, FIRST, config.width, norm=True, classes=classes)
        set_weights(self.generator, 0.02)
        set_weights(self.critic, 0.02)
        self.referee = Referee()
        self._kept: list[Tensor] = []

    def stages(self) -> tuple[Stage, ...]:
        critic = Objective("critic", self.critic, self.critic_loss, self.config.critic_optimizer, project=self.put_back)
        remember = Update("referee", self.referee, self.remember, apart=(self.referee.tally,))
        return (Stage("train", (critic, remember, Objective("generator", self.generator, self.generator_loss))),)

    def latents(self, z: Tensor) -> Tensor:
        """Uniform latents, 0 to 1, from standard normal ones."""
        return torch.special.ndtr(z)

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The discriminator's side of the game; nothing where it rests."""
        x, label = self.real(batch)
        fake = self.make_still(rng, label)
        on_real, on_fake = self.judge(x, label), self.judge(fake, label)
        self.referee.count(on_real, on_fake)
        resting = bool(self.referee.accuracy > self.config.rest)
        self._kept = [p.detach().clone() for p in self.critic.parameters()] if resting else []
        loss = critic_loss(self.config.game, on_real, on_fake)
        right = 0.5 * (on_real > 0).float().mean() + 0.5 * (on_fake < 0).float().mean()
        rests = loss.new_tensor(float(resting))
        return loss * (1 - rests), {"accuracy": right, "rests": rests, "game": loss.detach()}

    def put_back(self) -> None:
        """Undo the move of a discriminator that rests: its moments would carry it on."""
        for parameter, old in zip(self.critic.parameters(), self._kept, strict=False):
            parameter.copy_(old)
        self._kept = []

    def remember(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Count how often it was right; of the batch only the size is used."""
        self.referee.settle(rng.share)
        return {}

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The generator's side of the game; of the batch it uses the number and the classes."""
        label = self.labels.of(batch)
        with still(self.critic):
            judged = self.judge(self.make(rng, label), label)
        return generator_loss(self.config.game, judged), {}
