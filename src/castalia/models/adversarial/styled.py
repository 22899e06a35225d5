"""What the style-based generators share: the game, lazy penalties, the mean style, augmentation, uses of styles.

A system derives from :class:`StyleContest`, and makes a generator from its own synthesis network.

Papers
    Karras et al. 2019 (arXiv:1812.04948): mixing, truncation. Karras et al. 2020a (arXiv:1912.04958): section 3.1
    (lazy regularisation), 3.2 (path lengths, eq. 4). Karras et al. 2020b (arXiv:2006.06676): ADA.
    Mescheder et al. 2018 (arXiv:1801.04406): R1, eq. 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Names
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Perception, Styled
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.model import Logs, Objective, Optimizer, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.ada import KINDS, Ada, Kind
from castalia.models.adversarial.contest import Contest
from castalia.models.adversarial.losses import critic_loss, generator_loss, input_gradient, r1
from castalia.models.adversarial.modulated import StyleGenerator
from castalia.models.adversarial.style_critic import StyleCritic
from castalia.models.adversarial.styles import StyleOptions, crossed, draw_noise, no_noise, truncated

EVERY = 4
"""Steps between looks at the mean style and at the critic's signs."""


@dataclass(frozen=True)
class StyleConfig(Config):
    """Configuration of what style-based generators share.

    Learning rates stand here and not with the training, because lazy penalties correct them.

    Attributes:
        latent_dims: length of the latent vector.
        style_dims: length of a style.
        mapping_layers: layers of the network from latents to styles.
        mapping_rate: its learning rate, relative to the others'.
        channels: 4 times the channels of the smallest maps, halved with each level.
        most: largest number of channels.
        conditional: learn the labels.
        mixing: share of training pictures that have two latents, one for the coarse and one for the fine layers.
        r1: weight gamma of the penalty on the critic's slope at real pictures; 0: none.
        r1_every: computed in steps divisible by it, as many times as strong.
        group: pictures whose deviation the critic sees; 0: it does not.
        lr: learning rate of both networks; where a penalty is lazy, k / (k + 1) of it, for k steps between.
        betas: of Adam; where a penalty is lazy, to the power of k / (k + 1).
        eps: added to the denominator of Adam.
        average: half-life of the mean style, in steps (the paper's 0.995 is 138).
        ada: changes that the critic sees all pictures with: ``blit``, ``geometry``, ``colour`` (the paper's three),
            ``filter``, ``noise``, ``cutout``; none: no augmentation.
        ada_start: first probability of each.
        ada_target: of the mean sign of the critic on real pictures, which the probability follows; 0: it stays.
        ada_examples: the probability may go from 0 to 1 in so many examples.
    """

    latent_dims: int = 512
    style_dims: int = 512
    mapping_layers: int = 8
    mapping_rate: float = 0.01
    channels: int = 32768
    most: int = 512
    conditional: bool = False
    mixing: float = 0.9
    r1: float = 10.0
    r1_every: int = 16
    group: int = 4
    lr: float = 2e-3
    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-8
    average: float = 138.0
    ada: tuple[Kind, ...] = ()
    ada_start: float = 0.0
    ada_target: float = 0.6
    ada_examples: float = 500_000.0

    def __post_init__(self) -> None:
        if min(self.latent_dims, self.style_dims, self.mapping_layers, self.most, self.r1_every) < 1:
            raise ValueError("latent_dims, style_dims, mapping_layers, most and r1_every must be positive")
        if (
            self.channels < 4
            or self.mapping_rate <= 0
            or self.lr <= 0
            or self.average <= 0
            or min(self.eps, self.ada_examples) <= 0
        ):
            raise ValueError(
                "channels must be at least 4; mapping_rate, lr, eps, average and ada_examples must be positive"
            )
        if not 0 <= self.mixing <= 1 or not 0 <= self.ada_start <= 1 or not 0 <= self.ada_target < 1:
            raise ValueError("mixing and ada_start lie in [0, 1], ada_target in [0, 1)")
        if self.r1 < 0 or self.group < 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("r1 and group must not be negative; betas lie in [0, 1)")
        if unknown := [kind for kind in self.ada if kind not in KINDS]:
            raise ValueError(f"ada: there is no {unknown[0]!r}; there are {', '.join(KINDS)}")


def lazily(config: StyleConfig, every: int) -> Optimizer:
    """Adam for a loss in each step and a penalty in every ``every``-th: both move as a penalty in each step would."""
    c = every / (every + 1) if every > 1 else 1.0
    first, second = config.betas
    return Optimizer("adam", lr=config.lr * c, betas=(first**c, second**c), eps=config.eps)


C = TypeVar("C", bound=StyleConfig)


class StyleContest(Contest[C, ImageSpec], Styled, Perception):
    """A generator that is told its styles, and a critic.

    Derived classes call :meth:`dress` in their constructor, with the two networks.

    Attributes:
        ada: the augmentation.
        style_layers: how many styles a picture has.
        style_dims: length of each.
        noise_sizes: height and width of each layer's noise.
    """

    SampleOptions: ClassVar[type[Sampling]] = StyleOptions
    generator: StyleGenerator
    critic: StyleCritic

    def dress(self, config: C, spec: ImageSpec, generator: StyleGenerator, critic: StyleCritic) -> None:
        """Set everything but what :meth:`prepare` has set."""
        self.generator, self.critic = generator, critic  # pyright: ignore[reportIncompatibleVariableOverride]
        self.style_layers, self.style_dims = generator.layers, config.style_dims
        self.noise_sizes = generator.noise_sizes
        self.ada = Ada(config.ada, config.ada_start, config.ada_target or None, config.ada_examples)

    # playing

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (*self.critic_parts(), *self.generator_parts(), *self.followers())),)

    def critic_parts(self) -> tuple[Objective, ...]:
        """The critic's loss, and its penalty where that is not in every step."""
        c = self.config
        lazy = c.r1 > 0 and c.r1_every > 1
        optimizer = lazily(c, c.r1_every if lazy else 1)
        main = Objective("critic", self.critic, self.critic_loss, optimizer)
        if not lazy:
            return (main,)
        return main, Objective("r1", self.critic, self.slope_loss, optimizer, every=c.r1_every)

    def generator_parts(self) -> tuple[Objective | Update, ...]:
        """The generator's loss."""
        c = self.config
        return (Objective("generator", self.generator, self.generator_loss, lazily(c, 1)),)

    def followers(self) -> tuple[Update, ...]:
        """What follows training without gradients: the mean style, the augmentation's probability."""
        mapping = self.generator.mapping
        average = Update("style", mapping, self.follow, every=EVERY, apart=(mapping.average,))
        if not (self.ada.kinds and self.ada.target):
            return (average,)
        listen = Update("signs", self.ada, self.listen, every=EVERY, apart=(self.ada.signs,))
        return average, listen, Update("ada", self.ada, self.steer, every=EVERY)

    def make(self, rng: Rng, label: Tensor | None) -> Tensor:
        return self.generator.synthesis(self.make_styles(rng, label), self.noise(rng)).float()

    def make_styles(self, rng: Rng, label: Tensor | None) -> Tensor:
        """Styles for training, some of them mixed."""
        styles = self.generator.styles(rng.normal("latent", self.latent_dims), label)
        if not self.config.mixing:
            return styles
        others = self.generator.styles(rng.normal("other", self.latent_dims), label)
        return crossed(styles, others, rng, self.config.mixing)

    def noise(self, rng: Rng | None) -> list[Tensor] | None:
        """Noise for each layer; None for the constant one."""
        return None if rng is None else draw_noise(rng, self.generator.noise_sizes)

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The critic's side of the non-saturating game, on real pictures and on as many made ones."""
        x, label = self.real(batch)
        c = self.config
        logs: dict[str, Tensor] = {}
        penalty: Tensor | None = None
        if c.r1 and c.r1_every == 1:
            on_real, gradient = self.slope(x, label, rng.at("real"))
            penalty = r1(gradient)
            logs["r1"] = penalty.detach()
        else:
            on_real = self.judge(self.ada(x, rng.at("real")), label)
        on_fake = self.judge(self.ada(self.make_still(rng, label), rng.at("fake")), label)
        loss = critic_loss("non-saturating", on_real, on_fake)
        right = 0.5 * (on_real > 0).float().mean() + 0.5 * (on_fake < 0).float().mean()
        means = {"real": on_real.detach().float().mean(), "fake": on_fake.detach().float().mean()}
        return loss if penalty is None else loss + c.r1 * penalty, {**means, "accuracy": right, **logs}

    def slope_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The penalty on the critic's slope at real pictures, as strong as the steps that it leaves out need."""
        c = self.config
        x, label = self.real(batch)
        outputs, gradient = self.slope(x, label, rng.at("real"))
        penalty = r1(gradient)
        # outputs times nothing: biases have no part in the slope, and still belong to what this loss moves
        return c.r1 * c.r1_every * penalty + 0 * outputs.mean(), {"penalty": penalty.detach()}

    def slope(self, x: Tensor, label: Tensor | None, rng: Rng) -> tuple[Tensor, Tensor]:
        """The critic's outputs on real pictures as it sees them, and their gradient at the pictures as they are."""
        return input_gradient(lambda x: self.judge_smooth(self.ada(x, rng), label), x)

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The generator's side; of the batch it uses the number and the classes."""
        label = self.labels.of(batch)
        fake = self.ada(self.make(rng, label), rng.at("fake"))
        return generator_loss("non-saturating", self.judge(fake, label)), {}

    def follow(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Move the mean style towards that of new latents."""
        mapping = self.generator.mapping
        w = mapping(rng.normal("latent", self.latent_dims), self.labels.of(batch))
        mapping.follow(w, rng.share * (1 - 0.5 ** (EVERY / self.config.average)))
        return {}

    def listen(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Put the mean sign of the critic's outputs on real pictures into the buffer for it."""
        x, label = self.real(batch)
        sign = torch.sign(self.judge(self.ada(x, rng), label).float()).mean()
        # rows of other processes are added to it: what was there before goes out by shares as well
        self.ada.signs += rng.share * (sign - self.ada.signs)
        return {"mean": sign}

    def steer(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Move the probability of changes by what :meth:`listen` found."""
        self.ada.heed(round(len(batch) / rng.share) * EVERY)
        return {"p": self.ada.p}

    # what it can do

    def generate(self, z: Tensor, label: Tensor | None, rng: Rng | None) -> Tensor:
        return self.generator.synthesis(self.generator.styles(z, label), self.noise(rng)).float()

    def draw(self, n: int, given: Given, rng: SampleRng, options: Any, watch: Watch | None) -> Batch:
        """New pictures; the temperature multiplies psi."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        styles = self.generator.styles(rng.normal("latent", self.latent_dims), label)
        psi = options.psi * options.temperature
        styles = truncated(styles, self.generator.mapping.average, psi, min(options.layers, self.style_layers))
        noise = self.noise(rng) if options.noise == "random" else None
        if options.noise == "none":
            noise = no_noise(self.generator.noise_sizes, styles.device)
        return Batch.of(self.outside(self.generator.synthesis(styles, noise).float()), label)

    @torch.no_grad()
    def styles(self, z: Tensor, given: Given | None = None) -> Tensor:
        given = check_given(self, given, len(z))
        label = given["label"] if "label" in given else self.labels.usual(len(z))
        return self.generator.styles(z.to(self.device), label).float().clone()

    def render(self, styles: Tensor, *, rng: SampleRng | None = None, noise: Sequence[Tensor] | None = None) -> Tensor:
        noise = self.noise(rng) if noise is None else noise
        return (self.generator.synthesis(styles, noise).float() + 1) * 127.5

    def perceive(self) -> Names[str, nn.Module]:
        return {"critic": Seen(self.critic)}


class Seen(nn.Module):
    """A critic that is shown pictures of 0 to 255 (B, C, H, W)."""

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x / 127.5 - 1)


class PathLengths(nn.Module):
    """How far pictures move with their styles, and the running mean of that.

    Attributes:
        mean: the running mean, a buffer.
        seen: the sum of the lengths that were seen here since the mean was moved, a buffer.
        count: how many they are, a buffer; both begin anew in each step that looks, so that only one is kept in files,
            as ever.
    """

    mean: Tensor
    seen: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def see(self, lengths: Tensor) -> None:
        """Take the lengths (B,) of one micro-batch in; those that are not finite are left out."""
        finite = lengths.isfinite()
        self.seen += torch.where(finite, lengths, 0.0).sum()
        self.count += finite.sum()

    @torch.no_grad()
    def follow(self, weight: float) -> None:
        """Move the running mean by a share of the way to the mean of what was seen, and forget that."""
        self.mean += weight * (self.seen / self.count.clamp(min=1) - self.mean) * (self.count > 0)
        self.seen.zero_()
        self.count.zero_()


def path_lengths(pictures: Tensor, styles: Tensor, direction: Tensor) -> Tensor:
    """Length (B,) of the gradient of pictures along random ones, with respect to the styles (eq. 4).

    Args:
        pictures: (B, C, H, W), made from the styles.
        styles: (B, layers, w).
        direction: standard normal, like the pictures.
    """
    moved = (pictures * direction).sum() / math.sqrt(pictures.shape[2] * pictures.shape[3])
    (gradient,) = torch.autograd.grad(moved, styles, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()
