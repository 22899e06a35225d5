"""Diffusion led away from a bad version of itself.

Papers
    Karras, Aittala, Kynkäänniemi, Lehtinen, Aila & Laine 2024, "Guiding a Diffusion Model with a Bad Version of Itself"
    (arXiv:2406.02507). The denoiser D is that of Karras et al. 2022, see edm.py. A second one, the guide D_0, has the
    same task, data and labels, but a smaller network and less training. Sampling extrapolates from it,

        D_w(x, sigma) = D_0(x, sigma) + w (D(x, sigma) - D_0(x, sigma)),

    as classifier-free guidance does from a model without labels. Both are wrong in the same places, the guide more so:
    its density is spread wider around the data, and the difference of both leads back to them. So pictures become
    better without becoming alike, and models without labels can be guided too.
    Kynkäänniemi et al. 2024 (arXiv:2404.07724): only within an interval of noise levels.

With ``main="parent"`` the denoiser is that of a finished run of ``edm``, the parent ``main``, and only the guide is
trained: a sixteenth of its steps or so.

What differs, and why
    In the paper both are of EDM2 (arXiv:2312.02696), whose layers keep magnitudes; here they are of EDM.
    Where classes are learned, classifier-free guidance can act on top: each of its two branches is guided first.
    The likelihood is that of the denoiser alone.

Expected: see ``recipes/autoguidance.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset
from castalia.core.model import Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion.drawing import Denoiser
from castalia.models.diffusion.edm import EDM, EDMConfig, EDMOptions
from castalia.models.diffusion.guidance import Guidance
from castalia.models.diffusion.networks import PerceptronConfig, network_of
from castalia.models.diffusion.parents import take_over
from castalia.nn.unet import UNetConfig


def narrow_28() -> UNetConfig:
    """Half the width of the family's default network."""
    return UNetConfig(channels=(16, 32, 32), blocks=1, attention=(2,), head_channels=16, groups=8)


@dataclass(frozen=True)
class AutoguidanceConfig(EDMConfig):
    """Configuration of autoguidance; those of the denoiser are as in ``edm``.

    Attributes:
        main: ``train`` the denoiser first, or take that of a finished run of ``edm``, the parent ``main``.
        guide: the guide's network for pictures.
        guide_perceptron: the guide's network for points.
        guide_share: ``train``: steps of the guide for each step of the denoiser.
    """

    main: Literal["train", "parent"] = "train"
    guide: UNetConfig = field(default_factory=narrow_28)
    guide_perceptron: PerceptronConfig = field(default_factory=lambda: PerceptronConfig(width=32, blocks=2))
    guide_share: float = 1 / 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guide_share <= 0:
            raise ValueError("guide_share must be positive")
        if self.conditional and not self.guide.null_class:
            raise ValueError("conditional needs guide.null_class=true")


@dataclass(frozen=True)
class AutoguidanceOptions(EDMOptions):
    """How examples are drawn; see :class:`castalia.models.diffusion.edm.EDMOptions`.

    Attributes:
        autoguidance: w; 1 is the denoiser alone. It acts where ``guidance_low`` and ``guidance_high`` let it.
    """

    autoguidance: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.leading()

    def leading(self) -> Guidance:
        """The options of autoguidance together."""
        return Guidance(self.autoguidance, self.guidance_low, self.how_guided().high)


class Autoguided(Denoiser):
    """A denoiser beside its guide.

    Args:
        main: the denoiser.
        guide: another one, which knows the same labels.
        guidance: w, and where it acts.
    """

    def __init__(self, main: Denoiser, guide: Denoiser, guidance: Guidance) -> None:
        super().__init__(main.network, main.scalings, label=main.known, units=main.units, mean=main.mean)
        self.guide, self.guidance = guide, guidance

    def prepare(self, sigmas: Sequence[float]) -> None:
        super().prepare(sigmas)
        self.guide.prepare([sigma for sigma in sigmas if self.guidance.acts_at(sigma)])

    def unsettled(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        denoised = super().unsettled(x, sigma, label)
        if not self.guidance.acts_at(sigma):
            return denoised
        return torch.lerp(self.guide.unsettled(x, sigma, label), denoised, self.guidance.scale)


class Autoguidance(EDM):
    """``edm``, and beside it a worse one."""

    Config = AutoguidanceConfig
    SampleOptions = AutoguidanceOptions
    config: AutoguidanceConfig

    def __init__(self, config: AutoguidanceConfig, spec: ImageSpec | PointsSpec) -> None:
        super().__init__(config, spec)
        self.guide = network_of(spec, config.guide, config.guide_perceptron, 1, self.classes)
        fourier = isinstance(spec, ImageSpec) and config.guide.time == "fourier"
        self.guide_time_scale = 0.25 if fourier else 250.0

    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.network,) if self.config.main == "parent" else ()

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """As ``edm``; and copy the denoiser, where it is a parent's.

        Raises:
            UsageError: the parent is missing, is no run of ``edm``, or was made with other settings or data.
        """
        super().initialise(data, rng, parents)
        if self.config.main == "train":
            return
        take_over(self, parents, "main", EDM)
        parent = parents["main"]
        assert isinstance(parent, EDM)
        self.data_std.copy_(parent.data_std)

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        guide = Stage("guide", (Objective("guide", self.guide, self.guide_loss),), self.config.guide_share)
        return (guide,) if self.config.main == "parent" else (*super().stages(), guide)

    def guide_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The loss of ``edm``, of the guide."""
        return self.denoising_loss(self.guide, self.guide_time_scale, batch, rng)

    # what it can do

    def drawer(self, label: Tensor | None, options: AutoguidanceOptions) -> Denoiser:
        main, known = super().drawer(label, options), self.everything(label, options.guidance)
        guidance = options.leading()
        if guidance.scale == 1:
            return main

        def scalings(sigma: float) -> tuple[float, float, float, float]:
            return (*main.scalings(sigma)[:3], self.guide_time_scale * math.log(sigma))

        guide = Denoiser(self.guide, scalings, label=known, units=None, mean=self.mean)
        return Autoguided(main, guide, guidance)
