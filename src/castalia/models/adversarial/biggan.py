"""BigGAN and BigGAN-deep: residual networks with attention, spectral norms, classes everywhere, latents at every size.

Papers
    Brock, Donahue & Simonyan 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis"
    (arXiv:1809.11096): section 3 (hinge, shared embedding, hierarchical latents, orthogonal initial weights), 3.1
    (truncation; eq. 3, orthogonal regularisation), appendix B (networks), C (rates: generator 5e-5, critic 2e-4 and two
    updates; standing statistics).
    Its parts: Miyato et al. 2018 (arXiv:1802.05957), Miyato & Koyama 2018 (arXiv:1802.05637), Zhang et al. 2019
    (arXiv:1805.08318), Lim & Ye 2017 (arXiv:1705.02894).
    From outside: Zhao et al. 2020 (arXiv:2006.10738), differentiable augmentation.

What differs, and why
    Pictures of any size that can be halved, grey to RGBA, and data without labels: then gains and biases come from the
    latents alone, or, without hierarchical latents, are learned. BigGAN-deep cannot be had without: each of its blocks
    sees the whole vector.
    Parts of the latent vector differ in length by one where it does not divide.
    Normalisation is over the whole batch, also of several processes, as in the paper. Its running statistics are
    averaged together with the weights and used for sampling. What the paper does instead, statistics gathered anew over
    many batches of the sampler at hand, is an option of sampling (``standing``).
    The averages are the loop's, counted in examples.
    An update of one network leaves the other's statistics and power iterations alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Perception
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Objective, Optimizer, Progress, Stage
from castalia.core.rng import BatchRng, Rng, SampleRng
from castalia.core.sampling import Given, Watch
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.augment import Change, augment
from castalia.models.adversarial.biggan_networks import BigCritic, BigGenerator, Shape, orthogonal_penalty
from castalia.models.adversarial.contest import Contest, LatentOptions, draw_latents
from castalia.models.adversarial.layers import still
from castalia.models.adversarial.losses import Game, critic_loss, generator_loss
from castalia.models.adversarial.pyramid import pyramid
from castalia.nn.labels import classes_of

GENERATOR = {
    1: (2, 1),
    2: (4, 2, 1),
    3: (4, 4, 4, 4),
    4: (16, 16, 8, 4, 2),
    5: (16, 16, 8, 4, 2, 1),
    6: (16, 16, 8, 8, 4, 2, 1),
    7: (16, 16, 8, 8, 4, 2, 1, 1),
}
"""Channels of the generator, from the smallest maps on, by the number of doublings; from 3 on the paper's."""

CRITIC = {
    1: (1, 2),
    2: (1, 2, 4),
    3: (4, 4, 4, 4),
    4: (1, 2, 4, 8, 16),
    5: (1, 2, 4, 8, 16, 16),
    6: (1, 2, 4, 8, 8, 16, 16),
    7: (1, 1, 2, 4, 8, 8, 16, 16),
}
"""Channels of the critic, from the picture on."""

STANDING_BATCH = 64


@dataclass(frozen=True)
class StandingOptions(LatentOptions):
    """How to draw.

    Attributes:
        standing: batches of 64 over which the statistics of the normalisation are gathered anew, with the same
            truncation and temperature and with classes as often as they occur; 0: those of training. The paper's code
            takes 16 or more.
    """

    standing: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.standing < 0:
            raise ValueError("standing must not be negative")


@dataclass(frozen=True)
class BigGANConfig(Config):
    """Configuration of BigGAN.

    Attributes:
        deep: BigGAN-deep.
        channels: what ``widths`` are multiplied with (96; deep 128).
        critic_channels: the critic's; 0: as many.
        widths: of the generator, from the smallest maps on, each twice the one before; empty: by the picture's size.
        critic_widths: of the critic, from the picture on, one for each block (deep: first the convolution before them);
            empty: by the picture's size.
        flat: how many of ``critic_widths``, the last, do not halve (deep: of the blocks, one fewer, as the convolution
            before them does not); 0: two at 32 pixels, one else.
        latent_dims: length of the latent vector.
        hierarchical: each block sees a part of the latent vector; False: only the first layer sees it. With ``deep``
            each block sees all of it, always.
        conditional: learn the labels.
        shared_dims: length of the class's embedding, which all layers share; 0: each has a table of its own.
        attention: on maps whose smaller side is at most this, the largest that both networks have between their blocks;
            0: none.
        orthogonal: weight beta of the orthogonal regularisation of the generator.
        game: ``hinge``, or one of the other games of ``gan``.
        augment: changes made to real and made pictures before the critic sees them.
        critic_steps: updates of the critic per step.
        critic_optimizer: the critic's own; None: the recipe's.
    """

    deep: bool = False
    channels: int = 96
    critic_channels: int = 0
    widths: tuple[int, ...] = ()
    critic_widths: tuple[int, ...] = ()
    flat: int = 0
    latent_dims: int = 120
    hierarchical: bool = True
    conditional: bool = False
    shared_dims: int = 128
    attention: int = 64
    orthogonal: float = 1e-4
    game: Game = "hinge"
    augment: tuple[Change, ...] = ()
    critic_steps: int = 2
    critic_optimizer: Optimizer | None = None

    def __post_init__(self) -> None:
        if min(self.channels, self.latent_dims, self.critic_steps, *self.widths, *self.critic_widths) < 1:
            raise ValueError("channels, latent_dims, critic_steps, widths and critic_widths must be positive")
        if min(self.critic_channels, self.flat, self.shared_dims, self.attention, self.orthogonal) < 0:
            raise ValueError("critic_channels, flat, shared_dims, attention and orthogonal must not be negative")
        if self.critic_widths and self.flat >= len(self.critic_widths) + (not self.deep):
            raise ValueError("flat is at most the number of critic_widths")
        if self.deep and not self.hierarchical:
            raise ValueError("with deep every block sees the whole latent vector: hierarchical cannot be switched off")


def shape_of(config: BigGANConfig, spec: ImageSpec, classes: int) -> Shape:
    """What both networks are made from.

    Raises:
        UsageError: the pictures are too large, or do not fit the widths that the configuration gives.
    """
    c = config
    sizes = pyramid(spec.height, spec.width, len(c.widths) - 1 if c.widths else None)
    doublings = len(sizes) - 1
    if not doublings:
        raise UsageError(
            f"Pictures of {spec.height}x{spec.width} cannot be halved, and the networks are made of at least one block "
            "that does; read them at a size that can (data.options.size)."
        )
    if not (c.widths and c.critic_widths) and doublings not in GENERATOR:
        raise UsageError(
            f"No widths are known for pictures of {spec.height}x{spec.width}; give config.widths and "
            "config.critic_widths, or read them smaller (data.options.size)."
        )
    widths, own = c.widths or GENERATOR[doublings], c.critic_widths or CRITIC[doublings]
    halvings = len(own) - (c.flat or (2 if not c.critic_widths and doublings == 3 else 1))
    if halvings > doublings:
        raise UsageError(
            f"The critic would halve pictures of {spec.height}x{spec.width} {halvings} times, which they can be "
            f"{doublings} times; give the configuration fewer critic_widths, or more of them flat."
        )
    if halvings < c.deep:
        raise UsageError(
            f"For pictures of {spec.height}x{spec.width} the critic has {len(own)} widths, and config.flat is "
            f"at most {len(own) - c.deep}."
        )
    fitting = [i for i in range(1, doublings) if min(sizes[i]) <= c.attention and i >= len(sizes) - 1 - halvings]
    parts: tuple[int, ...] = ()
    if c.hierarchical and not c.deep:
        if c.latent_dims < len(widths):
            raise UsageError(f"config.latent_dims must be at least {len(widths)}: each block sees a part of it.")
        parts = tuple(c.latent_dims // len(widths) + (i < c.latent_dims % len(widths)) for i in range(len(widths)))
    return Shape(
        deep=c.deep,
        latents=c.latent_dims,
        parts=parts,
        classes=classes,
        shared=c.shared_dims if classes else 0,
        widths=tuple(w * c.channels for w in widths),
        critic_widths=tuple(w * (c.critic_channels or c.channels) for w in own),
        halvings=halvings,
        sizes=sizes,
        attention=max(fitting, default=-1),
        channels=spec.channels,
    )


class BigGAN(Contest[BigGANConfig, ImageSpec], Perception):
    """Hinge between a generator and a critic whose slopes spectral norms bound."""

    Config = BigGANConfig
    SampleOptions = StandingOptions
    generator: BigGenerator
    critic: BigCritic

    def __init__(self, config: BigGANConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.prepare(config, spec, config.latent_dims, classes_of(spec, config.conditional))
        shape = shape_of(config, spec, self.classes)
        generator, critic = BigGenerator(shape), BigCritic(shape)
        self.generator, self.critic = generator, critic  # pyright: ignore[reportIncompatibleVariableOverride]

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        critic = Objective("critic", self.critic, self.critic_loss, c.critic_optimizer, repeat=c.critic_steps)
        return (Stage("train", (critic, Objective("generator", self.generator, self.generator_loss))),)

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The critic's side of the game; real and made examples go through it together."""
        x, label = self.real(batch)
        real = augment(x, self.config.augment, rng.at("real"))
        fake = augment(self.make_still(rng, label), self.config.augment, rng.at("fake"))
        both = self.judge(torch.cat([real, fake]), None if label is None else torch.cat([label, label])).float()
        on_real, on_fake = both.chunk(2)
        right = 0.5 * (on_real > 0).float().mean() + 0.5 * (on_fake < 0).float().mean()
        logs = {"real": on_real.detach().mean(), "fake": on_fake.detach().mean(), "accuracy": right}
        return critic_loss(self.config.game, on_real, on_fake), logs

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The generator's side, and what keeps rows of its weights apart."""
        c, label = self.config, self.labels.of(batch)
        with still(self.critic):
            found = self.judge(augment(self.make(rng, label), c.augment, rng), label)
        loss, logs = generator_loss(c.game, found), {}
        if c.orthogonal:
            penalty = orthogonal_penalty(self.generator, but=self.generator.embedding)
            loss, logs = loss + c.orthogonal * penalty, {"orthogonal": penalty.detach()}
        return loss, logs

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: Any, watch: Watch | None) -> Batch:
        """New examples; the temperature multiplies the latents."""
        if not options.standing:
            return super().draw(n, given, rng, options, watch)
        with self.standing(options):
            return super().draw(n, given, rng, options, watch)

    @contextmanager
    def standing(self, options: StandingOptions) -> Iterator[None]:
        """Run a block with the statistics of ``options.standing`` batches that are drawn as the options say.

        The batches are always the same, so that no example depends on which others are drawn, nor on a seed.
        """
        norms = [m for m in self.generator.modules() if isinstance(m, nn.BatchNorm2d)]
        state = {name: value.clone() for name, value in self.generator.named_buffers()}
        modes = {part: part.training for part in self.generator.modules()}
        momenta = [m.momentum for m in norms]
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
                norm.train()
            for number in range(options.standing):
                rng = BatchRng(number, total=STANDING_BATCH, device=self.device)
                z = options.temperature * draw_latents(rng, self.latent_dims, options.truncation)
                with torch.no_grad():
                    self.generator(z, self.labels.drawn(rng))
            self.generator.eval()
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            for part, mode in modes.items():
                part.training = mode
            with torch.no_grad():
                for name, value in self.generator.named_buffers():
                    value.copy_(state[name])

    def perceive(self) -> Mapping[str, nn.Module]:
        """The critic: logits (B,), of the most frequent class where there are classes."""
        return {"critic": _Seeing(self)}


class _Seeing(nn.Module):
    """The critic for pictures of 0 to 255."""

    def __init__(self, model: BigGAN) -> None:
        super().__init__()
        self.critic, self.labels, self.inside = model.critic, model.labels, model.inside

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(self.inside(x), self.labels.usual(len(x)))
