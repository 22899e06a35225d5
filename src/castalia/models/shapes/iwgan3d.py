"""3D-IWGAN: shapes as voxels, by a Wasserstein GAN with a gradient penalty; with an encoder, from a picture.

Papers
    Smith & Meger 2017, "Improved Adversarial Systems for 3D Object Generation and Reconstruction" (arXiv:1707.09557):
    section 3 (3D-IWGAN: all classes and orientations of a set by one network), section 4 (3D-VAE-IWGAN: a shape from a
    picture, or from a map of depths).
    Gulrajani et al. 2017 (arXiv:1704.00028): eq. 3 (the penalty), algorithm 1.
    Networks, rates, batch and steps as in the authors' code (github.com/EdwardSmith1884/3D-IWGAN).

Equations
    Critic: E f(G(z)) - E f(x) + 10 E (|grad f(x')| - 1)^2, x' on the straight line between a made and a real shape.
    Generator: -E f(G(z)); with an encoder also 100 times R = 1/2 E mean (x - G(m + e^s eps))^2, where the view of x
    gives m and s. Encoder: R + mean over latents of -s + 1/2 (e^2s + m^2 - 1), the divergence from N(0, 1).

What differs, and why
    The norm in the penalty is over all voxels (eq. 3). The authors' code takes it along one of the three axes, so that
    its penalty is not on the slope of the critic.
    s = tanh(...) is the logarithm of the deviation throughout; in the code it is that in the divergence, and the
    deviation itself where latents are drawn.
    ``empty`` = 0 gives the networks voxels of 0 and 1, though the generator ends in a hyperbolic tangent, as in the
    code; -1 gives them the whole range.
    The encoder is for any size of view, and the generator with an encoder for any size of cube (the code: pictures of
    256, cubes of 20). It learns once per update of the critic; in the code once more with each of the generator.
    For maps of depths the code has a convolution of surface voxels; here a map is a view like any other.
    Classes (``conditional``) stand beside the latents, and the critic judges by them; the paper has none.

Expected: see ``recipes/iwgan3d.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Objective, Optimizer, Progress, Stage
from castalia.core.rng import Rng
from castalia.core.sampling import Given
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.shape import ShapeSpec
from castalia.models.adversarial.layers import still
from castalia.models.adversarial.losses import Sides, gradient_penalty, mix, wasserstein
from castalia.models.shapes.carvers import Carver
from castalia.models.shapes.networks import DenseGenerator, ViewEncoder, VoxelCritic, set_weights
from castalia.nn.labels import classes_of

FIRST = 2
"""Voxels along a side of the smallest cube."""

VIEW = "view"
"""The column that shows a shape from one side."""


@dataclass(frozen=True)
class IWGAN3DConfig(Config):
    """Configuration of a 3D-IWGAN.

    Attributes:
        latent_dims: length of the latent vector.
        width: channels of the generator's first cube of 2 voxels a side; they halve as it doubles.
        critic_width: channels of the critic's first convolution; they double as the cube halves.
        critic_steps: updates of the critic for one of the generator.
        penalty: weight lambda of the gradient penalty.
        sides: ``two``: slopes are drawn to 1; ``one``: only slopes above 1 cost something.
        empty: how the networks see an empty voxel, 0 or -1; a filled one is 1.
        conditional: make the class that is asked for.
        view: make the shape that a view shows, where one is given: needs data with views
            (``data.options.views=picture`` or ``depth``).
        view_width: channels of the encoder's first convolution.
        reconstruction: weight of the reconstruction in the generator's loss.
        divergence: weight of the divergence in the encoder's loss.
        encoder_steps: updates of the encoder for one of the generator.
    """

    latent_dims: int = 200
    width: int = 256
    critic_width: int = 32
    critic_steps: int = 5
    penalty: float = 10.0
    sides: Sides = "two"
    empty: float = 0.0
    conditional: bool = False
    view: bool = False
    view_width: int = 64
    reconstruction: float = 100.0
    divergence: float = 1.0
    encoder_steps: int = 5

    def __post_init__(self) -> None:
        counts = (self.latent_dims, self.width, self.critic_width, self.critic_steps, self.view_width)
        if min(*counts, self.encoder_steps) < 1:
            raise ValueError("latent_dims, widths and steps must be positive")
        if self.penalty <= 0 or self.reconstruction < 0 or self.divergence < 0:
            raise ValueError("penalty must be positive, reconstruction and divergence must not be negative")
        if self.empty not in (0.0, -1.0):
            raise ValueError("empty is 0 or -1")


class IWGAN3D(Carver[IWGAN3DConfig]):
    """min over G, max over 1-Lipschitz f of E f(x) - E f(G(z)), over voxels; z may come from a view."""

    Config = IWGAN3DConfig

    def __init__(self, config: IWGAN3DConfig, spec: ShapeSpec) -> None:
        super().__init__()
        c, classes = config, classes_of(spec, config.conditional)
        self.prepare(config, spec, c.latent_dims, classes)
        self.empty = c.empty
        self.generator = DenseGenerator(c.latent_dims, spec.size, FIRST, c.width, nn.Tanh(), classes)
        self.critic = VoxelCritic(spec.size, FIRST, c.critic_width, norm=False, classes=classes)
        set_weights(self.generator, 0.02)
        set_weights(self.critic, 0.0)
        self.encoder: ViewEncoder | None = None
        if c.view:
            view = dict(spec.columns).get(VIEW)
            if not isinstance(view, ImageSpec):
                raise UsageError("The data have no views to learn from: set data.options.views=picture or depth.")
            self.encoder = ViewEncoder(view, c.latent_dims, c.view_width)
            set_weights(self.encoder, 0.0)

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        parts = [Objective("critic", self.critic, self.critic_loss, repeat=c.critic_steps)]
        if self.encoder is not None:
            parts.append(Objective("encoder", self.encoder, self.encoder_loss, repeat=c.encoder_steps))
        parts.append(Objective("generator", self.generator, self.generator_loss))
        return (Stage("train", tuple(parts)),)

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The negative dual of the distance, plus what bounds the slope."""
        c = self.config
        real, label = self.real(batch)
        fake = self.make_still(rng, label)
        both = self.judge(torch.cat([real, fake]), None if label is None else torch.cat([label, label]))
        distance = wasserstein(both[: len(real)], both[len(real) :])
        between = mix(real, fake, rng.uniform("mix"))
        penalty = gradient_penalty(lambda x: self.judge_smooth(x, label), between, c.sides)
        return c.penalty * penalty - distance, {"wasserstein": distance.detach(), "penalty": penalty.detach()}

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Minus the critic's mean on what is made; with an encoder, how far shapes of views are from theirs."""
        label = self.labels.of(batch)
        loss = -self.judge(self.make(rng, label), label).float().mean()
        if self.encoder is None:
            return loss, {}
        with torch.no_grad(), still(self.encoder):
            mean, log_std = self.encoder(self.seen(batch))
        z = mean + log_std.exp() * rng.normal("view latent", self.latent_dims)
        far = self.far(self.generate(z, label, rng), batch)
        return loss + self.config.reconstruction * far, {"reconstruction": far.detach()}

    def encoder_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Reconstruction and divergence; the generator stands still."""
        assert self.encoder is not None
        mean, log_std = (t.float() for t in self.encoder(self.seen(batch)))
        z = mean + log_std.exp() * rng.normal("view latent", self.latent_dims)
        with still(self.generator):
            far = self.far(self.generate(z, self.labels.of(batch), rng), batch)
        divergence = (-log_std + 0.5 * ((2 * log_std).exp() + mean.square() - 1)).mean()
        loss = far + self.config.divergence * divergence
        return loss, {"reconstruction": far.detach(), "divergence": divergence.detach()}

    def far(self, made: Tensor, batch: Batch) -> Tensor:
        """Half the mean square of the difference of voxels."""
        return 0.5 * (self.inside(batch.x) - made).square().mean()

    def seen(self, batch: Batch) -> Tensor:
        """The views of a batch as the encoder sees them, ``float32`` -1 to 1.

        Raises:
            UsageError: it has none.
        """
        view = batch.extra.get(VIEW)
        if view is None:
            raise UsageError("This model learns from views, and the data have none: set data.options.views.")
        return view.float() / 127.5 - 1

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        view = dict(self.spec.columns).get(VIEW)
        return {**super().accepts(), **({VIEW: view} if self.encoder is not None and view is not None else {})}

    def told(self, z: Tensor, given: Given) -> Tensor:
        """Latents near those of a view, where one is given: z are then in deviations from its mean."""
        if self.encoder is None or VIEW not in given:
            return z
        mean, log_std = self.encoder(given[VIEW].float() / 127.5 - 1)
        return mean.float() + log_std.float().exp() * z

    @torch.no_grad()
    def rebuilt(self, batch: Batch) -> Tensor:
        """What is believed of each voxel of shapes of which only the views (and classes) are seen.

        Args:
            batch: has the column ``view``.

        Returns:
            ``float32`` (B, 1, S, S, S), 0 (empty) to 1 (filled), of the mean of the latents.

        Raises:
            UsageError: the model has no encoder, or the batch no views.
        """
        if self.encoder is None:
            raise UsageError("This model was trained without views: config.view=true.")
        mean, _ = self.encoder(self.seen(batch))
        return self.believed(self.generate(mean.float(), self.labels.of(batch), None))


PAPER = Optimizer("adam", betas=(0.5, 0.9))
"""Of the authors' code."""
