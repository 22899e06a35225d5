"""Cascaded diffusion: a small picture, and from it ever larger ones.

Paper
    Ho, Saharia, Chan, Fleet, Norouzi & Salimans 2021, "Cascaded Diffusion Models for High Fidelity Image Generation"
    (CDM, arXiv:2106.15282): section 3, conditioning augmentation, by noise (3.1, truncated 3.1.1, non-truncated 3.1.2)
    and by blur (3.2). The diffusion: Karras et al. 2022, see edm.py; super-resolution: see upsampler.py.

With z_0, z_1, ..., x one picture at rising resolutions,

    p(x) = p(z_0) p(z_1 | z_0) ... p(x | z_k),

each factor a diffusion of its own, trained apart from the others on pictures made smaller: one stage of the run each.
An upsampler is trained on small pictures that are perfect, and sees made ones, which are not. So in training they are
spoilt, z + s eps, with s drawn for each example and told to the network. At sampling, s says how far it trusts what it
is given: it is searched after training (``level``).

    non-truncated: the small picture is made, and noise of level s is added;
    truncated: its sampling is stopped at sigma = s, where its state is just that. It saves the last steps.

What differs, and why
    Denoisers are those of EDM, with its noise levels, so s is a deviation and not the number of a step; it is drawn
    evenly between 0 and ``augment``. Labels are dropped for classifier-free guidance, which came later.
    Blur is for a share of the examples, as in the paper, with a deviation of each example, not of each batch.
    The smaller pictures are means of squares, rounded to whole values. Sides that a factor does not divide are rounded
    up: the last square is then narrower.

Expected: see ``recipes/cascade.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Exportable, Latents, Refinement, Upscaling
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Watch
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.models.diffusion.drawing import Job
from castalia.models.diffusion.edm import EDM, EDMConfig, EDMOptions, measured_mean
from castalia.models.diffusion.upsampler import Enlargement, Looking, Upsampler, blurred
from castalia.nn.unet import ResidualBlock, UNetConfig, small_28


@dataclass(frozen=True)
class CascadeConfig(Config):
    """Configuration of cascaded diffusion.

    Attributes:
        base: the network of the smallest pictures.
        upsamplers: that of each super-resolution, from small to large.
        factors: how many times larger each makes its pictures.
        shares: of all steps, for the base and each upsampler; empty: all alike.
        conditional: learn the labels of the data as well, in all stages.
        label_drop: conditional: share of examples that are learned without their label.
        augment: largest level s of the noise on small pictures in training; values are in [-1, 1].
        blur: share of small pictures that are blurred in training.
        blur_low: least deviation of the blur, in small pixels.
        blur_high: its largest.
        enlargement: how small pictures become as large as those that are denoised.
        data_mean: see ``edm``; of all stages.
        data_std: see ``edm``; 0 measures that of each stage before training.
        noise_mean: P_mean of all stages.
        noise_std: P_std.
        sigma_min: lowest noise level of sampling.
        sigma_max: highest noise level.
    """

    base: UNetConfig = field(default_factory=small_28)
    upsamplers: tuple[UNetConfig, ...] = field(default_factory=lambda: (small_28(),))
    factors: tuple[int, ...] = (2,)
    shares: tuple[float, ...] = ()
    conditional: bool = False
    label_drop: float = 0.1
    augment: float = 0.5
    blur: float = 0.0
    blur_low: float = 0.4
    blur_high: float = 0.6
    enlargement: Enlargement = "bilinear"
    data_mean: float = 0.0
    data_std: float = 0.0
    noise_mean: float = -1.2
    noise_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not self.factors or min(self.factors) < 2 or len(self.factors) != len(self.upsamplers):
            raise ValueError("factors are at least 2, one for each of the upsamplers, of which there is at least one")
        if self.shares and (len(self.shares) != 1 + len(self.factors) or min(self.shares) <= 0):
            raise ValueError(f"shares are positive, {1 + len(self.factors)} of them: the base and each upsampler")
        if not 0 <= self.augment < self.sigma_max or not 0 <= self.blur <= 1:
            raise ValueError("augment lies between 0 and sigma_max, blur between 0 and 1")
        if not 0 < self.blur_low <= self.blur_high:
            raise ValueError("0 < blur_low <= blur_high")
        for network in (self.base, *self.upsamplers):
            self.of(network)

    def of(self, network: UNetConfig) -> EDMConfig:
        """The configuration of one diffusion of the cascade."""
        return EDMConfig(
            unet=network,
            conditional=self.conditional,
            label_drop=self.label_drop,
            data_mean=self.data_mean,
            data_std=self.data_std,
            noise_mean=self.noise_mean,
            noise_std=self.noise_std,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )


@dataclass(frozen=True)
class CascadeOptions(EDMOptions):
    """How pictures are drawn; see :class:`castalia.models.diffusion.edm.EDMOptions`: most are of all stages.

    Attributes:
        steps: of the base.
        guidance: of the base.
        upsample_steps: of each upsampler.
        upsample_guidance: of the upsamplers.
        level: s, between 0 and ``augment``: how much noise the small pictures get.
        truncated: stop their sampling at s, instead of adding the noise to what was made.
    """

    upsample_steps: int = 8
    upsample_guidance: float = 1.0
    level: float = 0.1
    truncated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.upsample_steps < 1 or self.level < 0:
            raise ValueError("upsample_steps is at least 1, level not negative")
        self.upsampling()

    def upsampling(self) -> CascadeOptions:
        """Those of an upsampler."""
        if (self.steps, self.guidance) == (self.upsample_steps, self.upsample_guidance):
            return self
        return replace(self, steps=self.upsample_steps, guidance=self.upsample_guidance)


class Cascade(Generator[CascadeConfig, ImageSpec], Latents, Refinement, Upscaling, Exportable):
    """p(x) = p(z_0) p(z_1 | z_0) ... p(x | z_k).

    The latent vector is the noise that all stages start from, and, between them, that which is added to what is made.

    Attributes:
        parts: the diffusion of each resolution, the smallest first.
    """

    Config = CascadeConfig
    SampleOptions = CascadeOptions
    shard_units = (ResidualBlock,)

    def __init__(self, config: CascadeConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        specs = [spec]
        for factor in reversed(config.factors):
            small = specs[0]
            height, width = math.ceil(small.height / factor), math.ceil(small.width / factor)
            specs.insert(0, replace(small, height=height, width=width))
        self.base = EDM(config.of(config.base), specs[0])
        self.uppers = nn.ModuleList(
            Upsampler(config.of(network), one, config.enlargement)
            for network, one in zip(config.upsamplers, specs[1:], strict=True)
        )
        self.latent_dims = sum(math.prod(s) for s in self.noises())

    @property
    def parts(self) -> tuple[EDM, ...]:
        return (self.base, *self.upsamplers())

    def upsamplers(self) -> list[Upsampler]:
        """The upsamplers, the smallest first."""
        return [part for part in self.uppers if isinstance(part, Upsampler)]

    def noises(self) -> list[tuple[int, ...]]:
        """Shapes of what the latent vector is made of: noise of a stage, noise added to what it makes, and so on."""
        shapes = [tuple(part.spec.shape) for part in self.parts]
        return [shape for shape in shapes for _ in range(2)][:-1]

    @classmethod
    def complete(cls, config: CascadeConfig, data: Dataset) -> CascadeConfig:
        """Measure the mean, which is the same at all resolutions, where the deviations are going to be measured."""
        return config if config.data_std else replace(config, data_mean=measured_mean(config.data_mean, data))

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find values, deviation and rates of labels at each resolution."""
        for index, part in enumerate(self.parts):
            part.initialise(Small(data, self, index), rng, {})

    def small(self, batch: Batch, index: int) -> Batch:
        """The pictures of a batch at the resolution of a part: means of squares, step by step, ``uint8``."""
        x = batch.x
        for factor in reversed(self.config.factors[index:]):
            x = shrunk(x, factor)
        return replace(batch, x=x)

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        shares = self.config.shares or (1.0,) * len(self.parts)
        return tuple(self.stage(index, share) for index, share in enumerate(shares))

    def stage(self, index: int, share: float) -> Stage:
        """The training at one resolution: of its network, and of no other."""
        part = self.parts[index]

        def loss(batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
            return part.loss(batch, rng, progress) if index == 0 else self.upsampling_loss(index, batch, rng)

        def smaller(batch: Batch, rng: Rng, progress: Progress) -> Batch:
            return self.small(batch, index)

        _, height, width = self.noises()[2 * index]
        return Stage(f"{height}x{width}", (Objective("diffusion", part.network, loss),), share, transform=smaller)

    def upsampling_loss(self, index: int, batch: Batch, rng: Rng) -> tuple[Tensor, Logs]:
        """That of ``edm`` at one resolution, given spoilt pictures of the one below."""
        part, below = self.upsamplers()[index - 1], self.parts[index - 1]
        low = below.units.inward(shrunk(batch.x, self.config.factors[index - 1]))
        low, level = self.spoilt(low, rng)
        return part.loss_beside(batch, low, level, rng)

    def spoilt(self, low: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Conditioning augmentation: small pictures (B, C, h, w) blurred and with noise, and its level s (B,)."""
        c = self.config
        if c.blur:
            sigma = c.blur_low + (c.blur_high - c.blur_low) * rng.uniform("blur sigma")
            those = (rng.uniform("blur") < c.blur).view(-1, 1, 1, 1)
            low = torch.where(those, blurred(low, sigma), low)
        level = c.augment * rng.uniform("level")
        return low + level.view(-1, 1, 1, 1) * rng.normal("augment", *low.shape[1:]), level

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return self.base.accepts()

    def draw(self, n: int, given: Given, rng: SampleRng, options: CascadeOptions, watch: Watch | None) -> Batch:
        label = given["label"] if "label" in given else self.base.labels.drawn(rng)
        z = rng.normal("latent", self.latent_dims)
        return Batch.of(self.climb(z, label, rng, options, watch), label)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        """Pictures from all the noise that there is; without a label, those of the unconditional model."""
        label = self.base.asked(given, len(z))
        return Batch.of(self.climb(z, label, SampleRng(0, range(len(z)), z.device), CascadeOptions(), None))

    def climb(
        self, z: Tensor, label: Tensor | None, rng: SampleRng, options: CascadeOptions, watch: Watch | None
    ) -> Tensor:
        """Pictures ``uint8`` (B, C, H, W) from latent vectors, resolution by resolution."""
        self.check(options)
        sizes = self.noises()
        noise = [part.view(-1, *s) for part, s in zip(z.split([math.prod(s) for s in sizes], 1), sizes, strict=True)]
        told = self.told(watch, options)
        below, job = self.base, self.base.job(label, options, rng.at("stage", 0), watch=told)
        for index, part in enumerate(self.upsamplers(), 1):
            start = job.temperature * job.width * noise[2 * index - 2]
            low = self.handed_on(below, job, start, noise[2 * index - 1], options)
            own = rng.at("stage", index)
            below, job = (
                part,
                part.job_beside(low, options.level, label, options.upsampling(), own, watch=told),
            )
        return job.start(noise[-1])

    def handed_on(self, below: EDM, job: Job, start: Tensor, noise: Tensor, options: CascadeOptions) -> Tensor:
        """What the next resolution is given: a small picture with noise of level s, in the units of the one below."""
        if options.truncated and options.level > below.config.sigma_min:
            return job.until(options.level).flow(start)
        return below.units.inward(job.run(start)) + options.level * noise

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: CascadeOptions,
        watch: Watch | None,
    ) -> Tensor:
        """The smallest picture is redrawn by ``strength``; upsamplers then draw anew, and hold what is outside a mask.

        At each resolution the mask is what it touches.
        """
        self.check(options)
        label, told = self.base.asked(given, len(batch)), self.told(watch, options)
        whole = Batch.of(batch.x.to(self.device))
        there = [None if mask is None else mask.to(self.device)]
        for factor in reversed(self.config.factors):
            one = there[0]
            there.insert(
                0, None if one is None else F.max_pool2d(one.float(), factor, stride=factor, ceil_mode=True) > 0
            )
        own = rng.at("stage", 0)
        x = self.small(whole, 0).x
        job = self.base.job(label, options, own, strength=strength, watch=told)
        x = job.redraw(x, there[0], fresh=strength == 1, times=options.resample)
        for index, part in enumerate(self.upsamplers(), 1):
            own, below = rng.at("stage", index), self.parts[index - 1]
            low = below.units.inward(x) + options.level * own.normal("augment", *below.spec.shape)
            job = part.job_beside(low, options.level, label, options.upsampling(), own, watch=told)
            x = job.redraw(self.small(whole, index).x, there[index], fresh=True, times=options.resample)
        return x

    @property
    def times(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.config.factors[-1]

    def enlarge(self, x: Tensor, given: Given, rng: SampleRng, options: CascadeOptions, watch: Watch | None) -> Tensor:
        """By the last upsampler: pictures count as those of the resolution below the last one, whatever their sides.

        Of the options ``level``, ``upsample_steps`` and ``upsample_guidance`` matter, and those of the sampler.
        """
        self.check(options)
        below, part = self.parts[-2], self.upsamplers()[-1]
        low = below.units.inward(x.to(self.device)) + options.level * rng.normal("augment", *x.shape[1:])
        size, label = (self.times * x.shape[2], self.times * x.shape[3]), self.base.asked(given, len(x))
        job = part.job_beside(low, options.level, label, options.upsampling(), rng, size=size, watch=watch)
        return job.start(rng.normal("latent", x.shape[1], *size))

    def check(self, options: CascadeOptions) -> None:
        """Refuse a level that the upsamplers do not know."""
        if options.level > self.config.augment:
            raise UsageError(
                f"level={options.level} is above the largest that the upsamplers were trained for, "
                f"config.augment={self.config.augment}."
            )

    def told(self, watch: Watch | None, options: CascadeOptions) -> Watch | None:
        """A watch that counts the steps of all stages, and shows small pictures enlarged."""
        if watch is None:
            return None
        done, steps = [0], options.steps + len(self.uppers) * options.upsample_steps
        size = (self.spec.height, self.spec.width)

        def seen(preview: Preview) -> None:
            done[0] += 1

            def examples() -> Batch:
                batch = preview.examples()
                return replace(batch, x=F.interpolate(batch.x, size, mode="nearest-exact"))

            watch(Preview(done[0], steps, examples))

        return seen

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The networks: ``base`` as in ``edm``; ``upsampler1``, ... also with what is beside them, and its levels."""
        calls = {"base": self.base.export_calls()["network"]}
        for index, part in enumerate(self.upsamplers(), 1):
            _, (x, t, *label) = part.export_calls()["network"]
            calls[f"upsampler{index}"] = (
                Looking(part.seeing),
                (x, t, torch.zeros_like(x), torch.zeros_like(t), *label),
            )
        return calls


class Small(Dataset):
    """A data set at the resolution of a part of a cascade.

    Args:
        data: the whole pictures.
        cascade: whose resolutions they are.
        index: of the part.
    """

    def __init__(self, data: Dataset, cascade: Cascade, index: int) -> None:
        self.data, self.spec = data, cascade.parts[index].spec
        self.small: Callable[[Batch], Batch] = lambda batch: cascade.small(batch, index)
        self.name, self.fingerprint = data.name, data.fingerprint
        self.labels, self.files = data.labels, data.files

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        return self.small(self.data.batch(ids, rng))


def shrunk(x: Tensor, factor: int) -> Tensor:
    """Pictures ``uint8`` (B, C, H, W) ``factor`` times smaller: means of squares, rounded; sides are rounded up."""
    return F.avg_pool2d(x.float(), factor, ceil_mode=True).round().to(torch.uint8)
