"""Progressive GAN: both networks grow, from pictures of 4 pixels to whole ones.

Paper
    Karras, Aila, Laine & Lehtinen 2018, "Progressive Growing of GANs for Improved Quality, Stability, and Variation"
    (arXiv:1710.10196): section 2 and figure 2 (growing, fading in), section 3 (minibatch deviation), section 4.1
    (equalised learning rate), 4.2 (pixel norm), appendix A and table 2 (networks, training: WGAN-GP, drift, Adam), and
    the penalty with a slope of 750 for CIFAR-10.
    Its game: Gulrajani et al. 2017 (arXiv:1704.00028), eq. 3. Others: see ``losses.py``. Classes: Odena et al. 2017
    (arXiv:1610.09585), eq. 2 and 3.
    From outside: Zhao et al. 2020 (arXiv:2006.10738), differentiable augmentation.

What differs, and why
    Each resolution is a stage of the run: fresh optimizers, a batch of its own, the first half (``fade``) fading in.
    The smallest maps are what is left of the picture's sides when they are halved while even: 4x4 of squares of a power
    of two, 4x6 of 32x48, 7x7 of 28.
    The label's code is as long as the latents are, sqrt(classes) instead of 1, or it would drown in 512 of them.
    Pictures of which the deviation is taken are neighbours in the batch, not every n-th.
    The averages are the loop's, counted in examples.
    A sample before the end of training is what the network has grown to, enlarged to the size of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Perception
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.model import Logs, Objective, Optimizer, Progress, Stage
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.augment import Change, augment
from castalia.models.adversarial.contest import Contest
from castalia.models.adversarial.growing import (
    GrowingCritic,
    GrowingGenerator,
    enlarge,
    fade,
    reduce,
    widths_of,
)
from castalia.models.adversarial.losses import (
    Game,
    critic_loss,
    drift,
    generator_loss,
    gradient_norm,
    input_gradient,
    mix,
    r1,
    wasserstein,
)
from castalia.models.adversarial.pyramid import pyramid
from castalia.nn.labels import classes_of


@dataclass(frozen=True)
class ProGANConfig(Config):
    """Configuration of a progressive GAN.

    Attributes:
        latent_dims: length of the latent vector.
        channels: twice the channels of the smallest maps, halved with each level (the paper's 8192).
        most: largest number of channels.
        critic_channels: ``channels`` of the critic; 0: as the generator.
        conditional: learn the labels.
        label_weight: of the classes in both losses.
        game: ``wasserstein`` with the penalty, or one of the games of ``gan``, best with ``r1``.
        penalty: weight lambda of the gradient penalty (``wasserstein``).
        slope: norm of the gradient that the penalty draws to; its weight is divided by the square.
        drift: weight of the mean square of the critic's outputs on real examples (``wasserstein``).
        r1: weight gamma of the penalty on the critic's slope at real examples (the other games).
        r1_every: computed in steps divisible by it, as many times as strong.
        group: examples whose deviation the critic sees; 0: it does not.
        augment: changes made to real and made pictures before the critic sees them.
        critic_steps: updates of the critic per step.
        critic_optimizer: the critic's own; None: the recipe's.
        fade: share of each stage but the first in which the new layers fade in.
        last: length of the last stage, in those of the others.
        batch_sizes: examples per draw at each level, the smallest first (the last one also for all further); empty:
            the recipe's.
    """

    latent_dims: int = 512
    channels: int = 8192
    most: int = 512
    critic_channels: int = 0
    conditional: bool = False
    label_weight: float = 1.0
    game: Literal["wasserstein"] | Game = "wasserstein"
    penalty: float = 10.0
    slope: float = 1.0
    drift: float = 1e-3
    r1: float = 0.0
    r1_every: int = 1
    group: int = 4
    augment: tuple[Change, ...] = ()
    critic_steps: int = 1
    critic_optimizer: Optimizer | None = None
    fade: float = 0.5
    last: float = 1.0
    batch_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.latent_dims < 1 or self.channels < 2 or self.most < 1 or self.critic_channels < 0:
            raise ValueError("latent_dims and most must be positive, channels at least 2, critic_channels not negative")
        if self.penalty < 0 or self.slope <= 0 or min(self.drift, self.r1, self.label_weight, self.group) < 0:
            raise ValueError("slope must be positive; penalty, drift, r1, label_weight and group must not be negative")
        if min(self.critic_steps, self.r1_every, *self.batch_sizes) < 1:
            raise ValueError("critic_steps, r1_every and batch_sizes must be positive")
        if not 0 < self.fade < 1 or self.last <= 0:
            raise ValueError("fade lies between 0 and 1, last must be positive")
        if self.r1 and self.game == "wasserstein":
            raise ValueError("r1 belongs to the other games; wasserstein has the penalty")


class ProGAN(Contest[ProGANConfig, ImageSpec], Perception):
    """A generator and a critic that learn large shapes first, and then ever finer detail.

    Attributes:
        sizes: height and width at each level.
        level: the level that training has reached, ``int64``.
        alpha: share of that level's own layers, ``float32``.
    """

    Config = ProGANConfig
    generator: GrowingGenerator
    critic: GrowingCritic
    level: Tensor
    alpha: Tensor

    def __init__(self, config: ProGANConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.prepare(config, spec, config.latent_dims, classes_of(spec, config.conditional))
        self.sizes = pyramid(spec.height, spec.width)
        widths = widths_of(len(self.sizes), config.channels, config.most)
        own = widths_of(len(self.sizes), config.critic_channels or config.channels, config.most)
        size, outputs = self.sizes[0], 1 + self.classes
        generator = GrowingGenerator(config.latent_dims, self.classes, widths, size, spec.channels)
        critic = GrowingCritic(outputs, own, size, spec.channels, config.group)
        self.generator, self.critic = generator, critic  # pyright: ignore[reportIncompatibleVariableOverride]
        self.register_buffer("level", torch.zeros((), dtype=torch.int64))
        self.register_buffer("alpha", torch.ones(()))

    # growing

    def stages(self) -> tuple[Stage, ...]:
        return tuple(self.stage(level) for level in range(len(self.sizes)))

    def stage(self, level: int) -> Stage:
        """The training at one resolution, with as many examples as at the others, but for what does not fade in."""
        c, (height, width) = self.config, self.sizes[level]
        batch = c.batch_sizes[min(level, len(c.batch_sizes) - 1)] if c.batch_sizes else None
        length = (1.0 if level else 1 - c.fade) * (c.last if level == len(self.sizes) - 1 else 1.0)

        def critic(batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
            return self.critic_loss(batch, rng, progress, level)

        def generator(batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
            return self.generator_loss(batch, rng, progress, level)

        objectives = (
            Objective("critic", self.critic.used(level), critic, c.critic_optimizer, repeat=c.critic_steps),
            Objective("generator", self.generator.used(level), generator),
        )
        return Stage(f"{height}x{width}", objectives, share=length / (batch or 1), batch_size=batch)

    def share_of(self, level: int, progress: Progress) -> float:
        """Alpha at a point of a stage: 0 at its beginning, 1 from the end of the fade on."""
        return min(1.0, progress.fraction / self.config.fade) if level else 1.0

    def reach(self, level: int, progress: Progress) -> Tensor:
        """Note how far training is, for sampling; return alpha."""
        self.level.fill_(level)
        return self.alpha.fill_(self.share_of(level, progress)).clone()

    def seen(self, x: Tensor, level: int, alpha: Tensor) -> Tensor:
        """Real pictures (B, C, H, W) at a level; while it fades in, so does their detail."""
        for _ in range(len(self.sizes) - 1 - level):
            x = reduce(x)
        return fade(enlarge(reduce(x)), x, alpha) if level else x

    # playing

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress, level: int) -> tuple[Tensor, Logs]:
        """The critic's side of the game at a level, and the classes of real and of made examples."""
        c = self.config
        alpha = self.reach(level, progress)
        x, label = self.real(batch)
        real = augment(self.seen(x, level, alpha), c.augment, rng.at("real"))
        with torch.no_grad():
            fake = augment(self.grown(rng, label, level, alpha), c.augment, rng.at("fake"))
        logs: dict[str, Tensor] = {}

        def smooth(x: Tensor) -> Tensor:  # a compiled network has no second derivatives
            return self.critic.forward(x, level, alpha)

        on_fake = self.critic(fake, level, alpha)
        if c.game == "wasserstein":
            on_real = self.critic(real, level, alpha)
            distance = wasserstein(on_real[:, 0], on_fake[:, 0])
            between = mix(real, fake, rng.uniform("mix"))
            slope = gradient_norm(input_gradient(lambda x: smooth(x)[:, 0], between)[1])
            penalty = (slope - c.slope).square().mean() / c.slope**2
            loss = -distance + c.penalty * penalty + c.drift * drift(on_real[:, 0])
            logs |= {"wasserstein": distance, "penalty": penalty}
        else:
            if c.r1 and progress.step % c.r1_every == 0:
                kept: list[Tensor] = []

                def first(x: Tensor) -> Tensor:
                    kept.append(smooth(x))
                    return kept[0][:, 0]

                penalty = r1(input_gradient(first, real)[1])
                on_real = kept[0]
                loss = c.r1 * c.r1_every * penalty
                logs["r1"] = penalty
            else:
                on_real = self.critic(real, level, alpha)
                loss = on_real.new_zeros((), dtype=torch.float32)
            loss = loss + critic_loss(c.game, on_real[:, 0], on_fake[:, 0])
        logs |= {"real": on_real[:, 0].float().mean(), "fake": on_fake[:, 0].float().mean(), "alpha": alpha}
        if label is not None:
            wrong = F.cross_entropy(on_real[:, 1:].float(), label) + F.cross_entropy(on_fake[:, 1:].float(), label)
            loss = loss + c.label_weight * wrong
            logs["classes"] = wrong / 2
        return loss, {name: value.detach() for name, value in logs.items()}

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress, level: int) -> tuple[Tensor, Logs]:
        """The generator's side; of the batch it uses the number and the classes."""
        c = self.config
        alpha = self.reach(level, progress)
        label = self.labels.of(batch)
        fake = augment(self.grown(rng, label, level, alpha), c.augment, rng)
        found = self.critic(fake, level, alpha).float()
        loss = -found[:, 0].mean() if c.game == "wasserstein" else generator_loss(c.game, found[:, 0])
        if label is not None:
            loss = loss + c.label_weight * F.cross_entropy(found[:, 1:], label)
        return loss, {}

    def grown(self, rng: Rng, label: Tensor | None, level: int, alpha: Tensor) -> Tensor:
        """New pictures ``float32`` of a level."""
        return self.generator(rng.normal("latent", self.latent_dims), label, level, alpha).float()

    # what it can do

    def reached(self) -> tuple[int, Tensor | None]:
        """Level and alpha as training left them; alpha is None where nothing fades in."""
        return int(self.level), self.alpha if float(self.alpha) < 1 else None

    def generate(self, z: Tensor, label: Tensor | None, rng: Rng | None) -> Tensor:
        """Pictures of the level that training has reached, enlarged to those of the data."""
        return _Grown(self)(z, label).float()

    def judge(self, x: Tensor, label: Tensor | None) -> Tensor:
        """The critic's outputs (B,) for whole pictures, at the level that training has reached."""
        level, alpha = self.reached()
        return self.critic(self.seen(x, level, self.alpha), level, alpha)[:, 0]

    def judge_smooth(self, x: Tensor, label: Tensor | None) -> Tensor:
        level, alpha = self.reached()
        return self.critic.forward(self.seen(x, level, self.alpha), level, alpha)[:, 0]

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The generator as far as it has grown: latents (and labels) to pictures, about -1 to 1."""
        (_, inputs) = super().export_calls()["generator"]
        return {"generator": (_Grown(self), inputs)}

    def perceive(self) -> Mapping[str, nn.Module]:
        """The critic as far as it has grown: outputs (B, 1 + classes)."""
        return {"critic": _Seeing(self)}


class _Grown(nn.Module):
    """The generator at the level reached, enlarged, as one call: latents (B, z) and labels (B,) to pictures."""

    def __init__(self, model: ProGAN) -> None:
        super().__init__()
        self.generator = model.generator
        self.level, self.alpha = model.reached()
        self.factor = 2 ** (len(model.sizes) - 1 - self.level)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.generator(z, label, self.level, self.alpha)
        return F.interpolate(x, scale_factor=self.factor, mode="nearest") if self.factor > 1 else x


class _Seeing(nn.Module):
    """The critic at the level reached, for pictures of 0 to 255."""

    def __init__(self, model: ProGAN) -> None:
        super().__init__()
        self.critic, self.inside, self.seen = model.critic, model.inside, model.seen
        self.level, alpha = model.reached()
        self.register_buffer("alpha", model.alpha.clone())
        self.fading = alpha is not None

    def forward(self, x: Tensor) -> Tensor:
        x = self.seen(self.inside(x), self.level, self.get_buffer("alpha"))
        return self.critic(x, self.level, self.get_buffer("alpha") if self.fading else None)
