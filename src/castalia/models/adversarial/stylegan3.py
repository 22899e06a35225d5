"""StyleGAN3: a generator whose details move with what they are on, T (translations) and R (and rotations).

Papers
    Karras et al. 2021, "Alias-Free Generative Adversarial Networks" (arXiv:2106.12423): section 2 (layers as operations
    on continuous signals), 3.1 and 3.2 (configurations T and R), 3.3 (rotations), appendix F and G.
    The critic, the game and ADA are StyleGAN2's (arXiv:1912.04958, 2006.06676).

What differs, and why
    The running mean squares of layers' inputs move in an update of their own, every fourth step, on latents of their
    own: passes through the generator, for training as for sampling, leave them alone.
    Styles are normalised picture by picture, so that no picture depends on its neighbours. Demodulation divides the
    scale out again.
    Sides need not be alike, nor powers of two: rates are those of the picture halved, along the shorter side.
    Each update draws its own batch and its own latents. Averages are the loop's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Objective, Progress, Update
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.bands import Band, bands
from castalia.models.adversarial.filtered import FilteredSynthesis
from castalia.models.adversarial.modulated import StyleGenerator
from castalia.models.adversarial.pyramid import pyramid
from castalia.models.adversarial.style_critic import StyleCritic, widths_of
from castalia.models.adversarial.styled import EVERY, StyleConfig, StyleContest
from castalia.models.adversarial.styles import Mapping
from castalia.nn.labels import classes_of
from castalia.nn.resampling import blur


@dataclass(frozen=True)
class StyleGAN3Config(StyleConfig):
    """Configuration of a StyleGAN3; ``lr`` is the generator's.

    Attributes:
        kind: ``t``: pictures move with their input; ``r``: they turn with it as well: kernels of one place, twice the
            channels in the generator, filters alike in all directions.
        layers: of the generator, beside the one that makes the picture.
        critical: of them, the last, which use the whole rate of the picture.
        first_cutoff: highest frequency of the input, in periods along the shorter side.
        first_stop: end of its filter's fall.
        last_stop: that of the last layers, relative to their cutoff.
        margin: samples on each side that maps go beyond the picture.
        taps: length of filters, in samples of the lower rate.
        critic_lr: learning rate of the critic.
        magnitude: half-life of the mean squares of layers' inputs, in examples.
        blur: deviation of the Gaussian that the critic sees pictures through in the first step, in pixels; 0: none.
            For ``r``, which else may end early (10 in the paper).
        blur_steps: it falls evenly to 0 in so many steps.
    """

    mapping_layers: int = 2
    mixing: float = 0.0
    r1: float = 2.0
    lr: float = 2.5e-3
    average: float = 346.0
    kind: Literal["t", "r"] = "t"
    layers: int = 14
    critical: int = 2
    first_cutoff: float = 2.0
    first_stop: float = 2**2.1
    last_stop: float = 2**0.3
    margin: int = 10
    taps: int = 6
    critic_lr: float = 2e-3
    magnitude: float = 20_000.0
    blur: float = 0.0
    blur_steps: int = 6_250

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in ("t", "r"):
            raise ValueError("kind is t or r")
        if not 0 <= self.critical < self.layers:
            raise ValueError("layers must be more than critical, and critical must not be negative")
        if not 0 < self.first_cutoff < self.first_stop or self.last_stop <= 1:
            raise ValueError("first_cutoff must be positive, first_stop more than it, last_stop more than 1")
        if self.margin < 0 or self.taps < 2 or self.taps % 2:
            raise ValueError("margin must not be negative; taps must be even and at least 2")
        if self.critic_lr <= 0 or self.magnitude <= 0 or self.blur < 0 or self.blur_steps < 1:
            raise ValueError("critic_lr, magnitude and blur_steps must be positive, and blur must not be negative")


def table_of(config: StyleGAN3Config, height: int, width: int) -> tuple[Band, ...]:
    """What each layer carries.

    Raises:
        UsageError: the picture is too small for the first layer's frequencies.
    """
    if min(height, width) / 2 <= config.first_cutoff:
        raise UsageError(
            f"Pictures of {height}x{width} are too small for config.first_cutoff={config.first_cutoff:g}; it must be "
            f"less than half the shorter side."
        )
    wide = 2 if config.kind == "r" else 1
    return bands(
        height,
        width,
        config.layers,
        config.critical,
        config.first_cutoff,
        config.first_stop,
        config.last_stop,
        config.margin,
        config.channels * wide,
        config.most * wide,
    )


class StyleGAN3(StyleContest[StyleGAN3Config]):
    """A generator of band-limited layers, and StyleGAN2's critic."""

    Config = StyleGAN3Config

    def __init__(self, config: StyleGAN3Config, spec: ImageSpec) -> None:
        super().__init__()
        self.prepare(config, spec, config.latent_dims, classes_of(spec, config.conditional))
        sizes = pyramid(spec.height, spec.width)
        mapping = Mapping(
            config.latent_dims, config.style_dims, config.mapping_layers, self.classes, config.mapping_rate
        )
        synthesis = FilteredSynthesis(
            table_of(config, spec.height, spec.width),
            config.style_dims,
            spec.channels,
            kernel=3 if config.kind == "t" else 1,
            taps=config.taps,
            radial=config.kind == "r",
        )
        critic = StyleCritic(
            spec.channels,
            sizes,
            widths_of(sizes, config.channels, config.most),
            classes=self.classes,
            group=config.group,
        )
        self.dress(config, spec, StyleGenerator(mapping, synthesis, synthesis.layers, []), critic)
        self.sigma = 0.0

    @property
    def synthesis(self) -> FilteredSynthesis:
        """Styles to pictures."""
        found = self.generator.synthesis
        assert isinstance(found, FilteredSynthesis)
        return found

    # playing

    def critic_parts(self) -> tuple[Objective, ...]:
        """As StyleGAN2's, with a learning rate of the critic's own."""
        share = self.config.critic_lr / self.config.lr
        found = []
        for part in super().critic_parts():
            assert part.optimizer is not None
            assert part.optimizer.lr is not None
            found.append(replace(part, optimizer=replace(part.optimizer, lr=part.optimizer.lr * share)))
        return tuple(found)

    def followers(self) -> tuple[Update, ...]:
        magnitudes = self.synthesis.magnitudes
        squares = Update("magnitudes", magnitudes, self.follow_magnitudes, every=EVERY, apart=(magnitudes.squares,))
        return squares, *super().followers()

    def follow_magnitudes(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Move the mean squares of layers' inputs towards those of new pictures."""
        seen: list[Tensor] = []
        self.synthesis(self.make_styles(rng, self.labels.of(batch)), seen=seen)
        squares = torch.stack(seen)
        examples = EVERY * round(len(batch) / rng.share)
        self.synthesis.magnitudes.follow(squares, rng.share * (1 - 0.5 ** (examples / self.config.magnitude)))
        return {"largest": squares.max()}

    @contextmanager
    def clearing(self, progress: Progress) -> Iterator[None]:
        """Let the critic see pictures as blurred as the step says, within a block."""
        c = self.config
        self.sigma = c.blur * max(0.0, 1 - progress.step / c.blur_steps)
        try:
            yield
        finally:
            self.sigma = 0.0

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        with self.clearing(progress):
            return super().critic_loss(batch, rng, progress)

    def slope_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        with self.clearing(progress):
            return super().slope_loss(batch, rng, progress)

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        with self.clearing(progress):
            return super().generator_loss(batch, rng, progress)

    def listen(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        with self.clearing(progress):
            return super().listen(batch, rng, progress)

    def judge(self, x: Tensor, label: Tensor | None) -> Tensor:
        return super().judge(blurred(x, self.sigma), label)

    def judge_smooth(self, x: Tensor, label: Tensor | None) -> Tensor:
        return super().judge_smooth(blurred(x, self.sigma), label)

    # what it can do

    def render_moved(self, styles: Tensor, move: Tensor) -> Tensor:
        """Pictures ``float32`` (B, C, H, W) of about -1 to 1, moved.

        Args:
            styles: (B, layers, w).
            move: (B or 1, 3, 3): where what lies at a place comes from. Places are in shorter sides from the centre,
                right and down.
        """
        return self.synthesis(styles, move=move)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Pictures through a Gaussian, cut off at three deviations; there is grey around them."""
    reach = math.floor(3 * sigma)
    if not reach:
        return x
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float32)
    taps = torch.exp(-0.5 * (place / sigma).square())
    return blur(x, taps / taps.sum())
