"""StyleGAN2, with adaptive augmentation where data are few.

Papers
    Karras et al. 2020a, "Analyzing and Improving the Image Quality of StyleGAN" (arXiv:1912.04958): section 2 (weight
    demodulation, eq. 1 to 3), 3 (networks without growing, figure 7), 3.1 (lazy regularisation), 3.2 (path lengths,
    eq. 4), appendix B.
    Karras et al. 2020b, "Training Generative Adversarial Networks with Limited Data" (arXiv:2006.06676): ADA; classes;
    the configurations of its appendix D (``cifar``, ``paper256`` are recipes here).
    Before: Karras et al. 2019 (arXiv:1812.04948): styles, mixing, noise, truncation.

What differs, and why
    Each update draws its own batch and its own latents. The mean style is looked at every fourth step, on latents of
    its own, and so is the critic's sign on real pictures.
    The running mean of path lengths moves after the penalty has been computed, not before.
    Sides need not be alike, nor powers of two: the smallest maps are what is left when they are halved while even, and
    no side falls below 4.
    Pictures of which the deviation is taken are neighbours in the batch, not every n-th.
    Averages are the loop's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.model import Logs, Objective, Progress, Update
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.modulated import Form, StyleGenerator, Synthesis
from castalia.models.adversarial.pyramid import pyramid
from castalia.models.adversarial.style_critic import StyleCritic, widths_of
from castalia.models.adversarial.styled import PathLengths, StyleConfig, StyleContest, lazily, path_lengths
from castalia.models.adversarial.styles import Mapping
from castalia.nn.labels import classes_of


@dataclass(frozen=True)
class StyleGAN2Config(StyleConfig):
    """Configuration of a StyleGAN2.

    Attributes:
        network: of the generator: ``skip`` adds up pictures of all levels; ``residual``.
        critic: ``residual``, or ``plain``: without additions, best for 32 pixels (``cifar``).
        path: weight of the penalty on path lengths that differ from their mean; 0: none.
        path_every: computed in steps divisible by it, as many times as strong.
        path_shrink: it is computed on one of so many examples.
        path_decay: share of the way that the running mean goes each time.
        form: of the modulated convolutions: ``split`` or ``fused``; they are equal, and ``split`` is faster on
            processors.
    """

    network: Literal["skip", "residual"] = "skip"
    critic: Literal["residual", "plain"] = "residual"
    path: float = 2.0
    path_every: int = 4
    path_shrink: int = 2
    path_decay: float = 0.01
    form: Form = "split"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path < 0 or self.path_every < 1 or self.path_shrink < 1 or not 0 < self.path_decay <= 1:
            raise ValueError(
                "path must not be negative, path_every and path_shrink must be positive, path_decay lies in (0, 1]"
            )


class StyleGAN2(StyleContest[StyleGAN2Config]):
    """A generator of modulated convolutions with smooth paths, and a residual critic."""

    Config = StyleGAN2Config

    def __init__(self, config: StyleGAN2Config, spec: ImageSpec) -> None:
        super().__init__()
        self.prepare(config, spec, config.latent_dims, classes_of(spec, config.conditional))
        sizes = pyramid(spec.height, spec.width)
        widths = widths_of(sizes, config.channels, config.most)
        mapping = Mapping(
            config.latent_dims, config.style_dims, config.mapping_layers, self.classes, config.mapping_rate
        )
        synthesis = Synthesis(sizes, widths, config.style_dims, spec.channels, config.network, config.form)
        critic = StyleCritic(
            spec.channels,
            sizes,
            widths,
            residual=config.critic == "residual",
            classes=self.classes,
            group=config.group,
        )
        self.dress(config, spec, StyleGenerator(mapping, synthesis, synthesis.layers, synthesis.noise_sizes), critic)
        self.paths = PathLengths()

    def generator_parts(self) -> tuple[Objective | Update, ...]:
        c = self.config
        main = super().generator_parts()[0]
        assert isinstance(main, Objective)
        if not c.path:
            return (main,)
        optimizer = lazily(c, c.path_every)
        path = Objective("path", self.generator, self.path_loss, optimizer, every=c.path_every)
        mean = Update("lengths", self.paths, self.follow_lengths, every=c.path_every, apart=(self.paths.mean,))
        return replace(main, optimizer=optimizer), path, mean

    def path_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The penalty on path lengths (eq. 4), as strong as the steps that it leaves out need; in ``float32``."""
        c = self.config
        label = self.labels.of(batch)
        # every n-th row that is here: several processes, or micro-batches, see the rows that one would see of the whole
        # where the rows of each divide by n, and others where they do not
        step = min(c.path_shrink, len(batch))
        with torch.autocast(self.device.type, enabled=False):
            styles = self.make_styles(rng, label)[::step]
            noise = [map[::step] for map in self.noise(rng) or []]
            pictures = self.generator.synthesis(styles, noise).float()
            lengths = path_lengths(pictures, styles, rng.normal("path", *self.spec.shape)[::step])
            penalty = (lengths - self.paths.mean).square().mean()
        self.paths.see(lengths)
        # pictures times nothing: biases have no part in the lengths, and still belong to what this loss moves
        loss = c.path * c.path_every * penalty + 0 * pictures.mean()
        return loss, {"length": lengths.detach().mean(), "penalty": penalty.detach()}

    def follow_lengths(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Move the running mean of path lengths towards the last ones."""
        self.paths.follow(rng.share * self.config.path_decay)
        return {}
