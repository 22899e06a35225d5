"""Diffusion led by a classifier.

Papers
    Dhariwal & Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis" (arXiv:2105.05233): section 4, appendix H;
    the classifier is the way down of the U-Net, see ``nn/half_unet.py``; the U-Net of section 3 is in ``nn/unet.py``.
    Nichol & Dhariwal 2021 (arXiv:2102.09672): the diffusion, with learned variance; see ddpm.py.

The denoiser learns examples, mostly without their labels. A classifier learns to tell the labels of noisy ones,
p(y | x_t, t), at times drawn evenly. Sampling adds its gradient:

    D' = D + s sigma^2 grad_x log p(y | x, sigma),

which is the denoiser of examples of class y at s = 1, if both were perfect, and of p(x) p(y | x)^s, nearly, at others.
So one denoiser serves any labels that a classifier was trained for, and is never told of them: with
``denoiser="parent"`` it is that of a finished run of ``ddpm``, the parent ``denoiser``, and only the classifier is
trained. A conditional denoiser (``conditional=true``) is led as well, as are its mixes with classifier-free guidance.

What differs, and why
    Guidance moves the denoised example, so it is the same for every sampler. For DDIM that is the paper's algorithm 2.
    Its algorithm 1, for ancestral sampling, moves the mean by s Sigma grad log p with the learned variance Sigma; here
    by the larger of the two between which that lies. With many steps they are the same.
    Denoised examples are clipped after guidance, not before.
    No random crops in the training of the classifier: ``data.options`` has what changes pictures.
    The paper's 64-pixel classifier has a pool by attention at 8x8 as all others; sizes here may be any.

Expected: see ``recipes/classifier_guidance.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Model, Objective, Optimizer, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Watch, check_given
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion.ddpm import DDPM, DDPMConfig, DDPMOptions
from castalia.models.diffusion.drawing import Job
from castalia.models.diffusion.guidance import Guidance, led
from castalia.models.diffusion.networks import Perceptron, PerceptronConfig
from castalia.models.diffusion.parents import take_over
from castalia.nn.half_unet import HalfUNet
from castalia.nn.labels import Labels
from castalia.nn.unet import UNetConfig, small_28


@dataclass(frozen=True)
class ClassifierGuidanceConfig(DDPMConfig):
    """Configuration of diffusion led by a classifier; those of the denoiser are as in ``ddpm``.

    Attributes:
        denoiser: ``train`` it first, or take that of a finished run of ``ddpm``, the parent ``denoiser``.
        classifier: the classifier of pictures: the way down of such a network.
        classifier_perceptron: the classifier of points.
        classifier_share: ``train``: steps of the classifier for each step of the denoiser.
        classifier_decay: decay of the classifier's weights (AdamW).
        variance: learned in the paper.
    """

    denoiser: Literal["train", "parent"] = "train"
    classifier: UNetConfig = field(default_factory=small_28)
    classifier_perceptron: PerceptronConfig = field(default_factory=PerceptronConfig)
    classifier_share: float = 0.5
    classifier_decay: float = 0.05
    variance: Literal["fixed_small", "fixed_large", "learned"] = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classifier_share <= 0 or self.classifier_decay < 0:
            raise ValueError("classifier_share must be positive, classifier_decay not negative")


@dataclass(frozen=True)
class ClassifierGuidanceOptions(DDPMOptions):
    """How examples are drawn; see :class:`castalia.models.diffusion.ddpm.DDPMOptions`.

    Attributes:
        classifier_scale: s; 0 is the denoiser alone, 1 the classes as they are, more trades variety for likeness to
            the class. It acts where ``guidance_low`` and ``guidance_high`` let it.
        guidance: scale of classifier-free guidance, for conditional denoisers.
    """

    classifier_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.leading()

    def leading(self) -> Guidance:
        """The options of the classifier's guidance together."""
        return Guidance(self.classifier_scale, self.guidance_low, self.how_guided().high)


class ClassifierGuidance(DDPM):
    """``ddpm``, and beside it p(y | x_t, t)."""

    Config = ClassifierGuidanceConfig
    SampleOptions = ClassifierGuidanceOptions
    config: ClassifierGuidanceConfig

    def __init__(self, config: ClassifierGuidanceConfig, spec: ImageSpec | PointsSpec) -> None:
        super().__init__(config, spec)
        if not isinstance(spec.sides().get("label"), LabelSpec):
            raise UsageError("A classifier needs labels, and the data have none: give labelled data, or take ddpm.")
        count = len(spec.classes)
        self.wanted = Labels(count)
        self.classifier = (
            HalfUNet(config.classifier, *spec.shape, count)
            if isinstance(spec, ImageSpec)
            else Perceptron(config.classifier_perceptron, spec.dims, count)
        )

    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.network,) if self.config.denoiser == "parent" else ()

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find what pictures hold and how often each label occurs; and copy the denoiser, where it is a parent's.

        Raises:
            UsageError: the parent is missing, is no run of ``ddpm``, or was made with other settings or data.
        """
        super().initialise(data, rng, parents)
        self.wanted.fit(data)
        if self.config.denoiser == "train":
            return
        take_over(self, parents, "denoiser", DDPM)

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        decaying = Optimizer("adamw", weight_decay=c.classifier_decay)
        classify = Stage(
            "classify", (Objective("classify", self.classifier, self.classify_loss, decaying),), c.classifier_share
        )
        return (classify,) if c.denoiser == "parent" else (*super().stages(), classify)

    def classify_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Cross-entropy of the labels of noisy examples at evenly drawn times; and how many are told right."""
        label = self.wanted.of(batch)
        assert label is not None
        times, x0 = rng.integers("time", len(self.process)), self.units.inward(batch.x)
        sigma = self.sigmas[times].view(-1, *[1] * (x0.ndim - 1))
        inner = (1 + sigma**2).rsqrt()
        logits = self.classifier(inner * (x0 + sigma * rng.normal("noise", *self.spec.shape)), times.float()).float()
        right = (logits.argmax(1) == label).float()
        return F.cross_entropy(logits, label), {"accuracy": right.mean()}

    # what it can do

    def logits(self, x: Tensor, sigma: float) -> Tensor:
        """Of the classes, ``float32`` (B, classes), for x = x0 + sigma eps in the model's units."""
        time = torch.full((len(x),), self.process.time(sigma), device=x.device)
        return self.classifier((x / math.sqrt(1 + sigma**2)).float(), time).float()

    @torch.no_grad()
    def classify(self, batch: Batch) -> Tensor:
        """Probabilities (B, classes) of the labels of examples, without noise but that of the first step."""
        return torch.softmax(self.logits(self.units.inward(batch.x), float(self.process.sigmas[0])), 1)

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)}

    def asked(self, given: Given | None, n: int) -> Tensor:
        """The labels that were given; without any the null class, which the classifier leads nowhere."""
        checked, null = check_given(self, given, n), self.wanted.null(n)
        assert null is not None
        return checked.get("label", null)

    def draw(
        self, n: int, given: Given, rng: SampleRng, options: ClassifierGuidanceOptions, watch: Watch | None
    ) -> Batch:
        label = given["label"] if "label" in given else self.wanted.drawn(rng)
        job = self.job(label, options, rng, watch=watch)
        return Batch.of(job.start(rng.normal("latent", *self.spec.shape)), label)

    def job(
        self,
        label: Tensor | None,
        options: Any,
        rng: SampleRng,
        *,
        strength: float = 1.0,
        watch: Watch | None = None,
    ) -> Job:
        """As in ``ddpm``, led to the labels: those of the null class are led nowhere."""
        job = super().job(
            label if self.classes else None, replace(options, clip=False), rng, strength=strength, watch=watch
        )
        settle = self.units.settle if options.clip else None
        if label is None:
            return job

        def chance(x: Tensor, sigma: float) -> Tensor:
            found = F.log_softmax(self.logits(x, sigma), 1)
            none = found.new_zeros(len(x), 1)  # of the null class, the last one
            return torch.cat([found, none], 1).gather(1, label[:, None] + 0)[:, 0]  # + 0: a caller's inference mode

        return replace(job, denoise=led(job.denoise, chance, options.leading(), settle))

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The denoiser's network as in ``ddpm``, and the classifier: scaled noisy examples and times to logits."""
        calls = super().export_calls()
        x, t = calls["network"][1][:2]
        return {**calls, "classifier": (self.classifier, (x, t))}
