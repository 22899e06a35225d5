"""What every system of the family shares: its network and units, and what can be asked of it.

A system derives from :class:`Diffusion` and says how it is trained and how a sampling is set up
(:meth:`Diffusion.job`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Exportable, Latents, PictureProgram, Refinement
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Model
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Watch, check_given
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion.drawing import Denoiser, Job
from castalia.models.diffusion.inversion import inverted
from castalia.models.diffusion.networks import Network, PerceptronConfig, network_of
from castalia.nn.labels import Labels, classes_of
from castalia.nn.unet import ResidualBlock, UNetConfig, small_28
from castalia.nn.units import units_of


@dataclass(frozen=True)
class DiffusionConfig(Config):
    """What the configurations of all systems of the family have in common.

    Attributes:
        unet: the network for pictures.
        perceptron: the network for points.
        conditional: learn the labels of the data as well.
        label_drop: conditional: share of examples that are learned without their label. More than 0: the unconditional
            model is what guidance, redrawing and the likelihood use.
    """

    unet: UNetConfig = field(default_factory=small_28)
    perceptron: PerceptronConfig = field(default_factory=PerceptronConfig)
    conditional: bool = False
    label_drop: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.label_drop < 1:
            raise ValueError("label_drop lies between 0 and 1")
        if self.conditional and not self.unet.null_class:
            raise ValueError("conditional needs unet.null_class=true")


PICTURE = """
x = np.random.randn(1, *{shape}) * {width}
for skip, out, inner, time, keep in numbers:
    seen = (x - {mean}) * inner
    told = run("network", seen.astype("f4"), np.array([time], "f4"){label})[:, :{channels}]
    x = keep * x + (1 - keep) * np.clip(skip * (x - {mean}) + out * told + {mean}, -1, 1)
y = (x[0] + 1) * 127.5
"""
"""Sampling with NumPy alone."""

D = TypeVar("D", bound=DiffusionConfig)


class Diffusion(Generator[D, ImageSpec | PointsSpec], Latents, Refinement, Exportable):
    """A network that removes noise, and what sampling, redrawing and export have in common.

    Args:
        config: of the system.
        spec: of the medium.
        maps: outputs of the network for each channel or coordinate.
    """

    shard_units = (ResidualBlock,)

    def __init__(self, config: D, spec: ImageSpec | PointsSpec, maps: int) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.latent_dims = math.prod(spec.shape)
        self.classes = classes_of(spec, config.conditional)
        self.network = self.make_network(maps)
        self.units, self.labels = units_of(spec), Labels(self.classes, config.label_drop)

    def make_network(self, maps: int) -> Network:
        """The network, with ``maps`` outputs for each channel or coordinate; the family's own are the default."""
        return network_of(self.spec, self.config.unet, self.config.perceptron, maps, self.classes)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find the values that pictures hold (or mean and deviation of points), and how often each label occurs."""
        self.units.fit(data)
        self.labels.fit(data)

    @abstractmethod
    def job(
        self,
        label: Tensor | None,
        options: Any,
        rng: SampleRng,
        *,
        strength: float = 1.0,
        watch: Watch | None = None,
    ) -> Job:
        """Set up a sampling.

        Args:
            label: ``int64`` (rows of ``rng``,), the null class among them, or None for an unconditional model.
            options: an instance of ``SampleOptions``; the temperature multiplies all noise.
            rng: one stream per example.
            strength: how high the noise starts, 1 is the top.
            watch: told of every step.
        """

    def everything(self, label: Tensor | None, guidance: float) -> Tensor | None:
        """All labels that a sampling will ask for: with guidance also the null class."""
        null = None if label is None else self.labels.null(len(label))
        return label if label is None or null is None or guidance == 1 else torch.cat([label, null])

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.classes else {}

    def asked(self, given: Given | None, n: int) -> Tensor | None:
        """The labels that were given; without any the null class, or None if the model is not conditional."""
        checked = check_given(self, given, n)
        return checked["label"] if "label" in checked else self.labels.null(n)

    def draw(self, n: int, given: Given, rng: SampleRng, options: Any, watch: Watch | None) -> Batch:
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        job = self.job(label, options, rng, watch=watch)
        return Batch.of(job.start(rng.normal("latent", *self.spec.shape)), label)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        """Examples from the noise that sampling starts with, by the default (deterministic) sampler.

        Without a label, those of the unconditional model. ``rng`` has nothing to draw.
        """
        label = self.asked(given, len(z))
        job = self.job(label, self.SampleOptions(), SampleRng(0, range(len(z)), z.device))
        return Batch.of(job.start(z.view(-1, *self.spec.shape)))

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: Any,
        watch: Watch | None,
    ) -> Tensor:
        """``strength`` is how far up the noise levels of the system noise is added and removed."""
        job = self.job(self.asked(given, len(batch)), options, rng, strength=strength, watch=watch)
        return job.redraw(batch.x, mask, fresh=strength == 1, times=options.resample)

    def draw_again(
        self,
        batch: Batch,
        was: Given,
        given: Given,
        strength: float,
        rng: SampleRng,
        options: Any,
        watch: Watch | None,
    ) -> Tensor:
        """By Euler's steps, undone exactly; see inversion.py. Systems whose steps these are declare ``Reversible``."""
        n = len(batch)
        options = replace(options, sampler="euler", temperature=1.0)
        plain = self.job(self.asked(was, n), replace(options, guidance=1.0), rng, strength=strength)
        job = self.job(self.asked(given, n), options, rng, strength=strength, watch=watch)
        return job.run(inverted(plain, self.units.inward(batch.x)))

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The network: scaled noisy examples, times and labels to its output; scalings are in the system's file."""
        device = self.device
        inputs = torch.zeros(2, *self.spec.shape, device=device), torch.tensor([0.0, 1.0], device=device)
        label = (torch.zeros(2, dtype=torch.int64, device=device),) if self.classes else ()
        return {"network": (self.network, (*inputs, *label))}

    def export_picture(self) -> PictureProgram:
        """The default noise levels by Euler's steps (DDIM without noise), and the first class where there are classes.

        Nothing guides it: what a classifier or a second network adds is not in it.

        For each level: skip, out, in and time of the network's scalings, and the share of the state that is kept.
        """
        label = torch.zeros(1, dtype=torch.int64, device=self.device) if self.classes else None
        rng = SampleRng(0, range(1), self.device)
        job, denoiser = self.job(label, self.picture_options(), rng), self.plain_denoiser(label)
        steps = [(*denoiser.scalings(high), low / high) for high, low in pairwise(job.sigmas)]
        first, shape = ", np.array([label])" if self.classes else "", tuple(self.spec.shape)
        return PictureProgram(
            PICTURE.format(shape=shape, width=job.width, mean=denoiser.mean, label=first, channels=shape[0]), steps
        )

    def picture_options(self) -> Any:
        """Sampling options whose noise levels :meth:`export_picture` takes."""
        return self.SampleOptions()

    @abstractmethod
    def plain_denoiser(self, label: Tensor | None) -> Denoiser:
        """The network as a denoise function of (x, sigma, label), whose results are not settled.

        Args:
            label: all labels that it is going to be asked with, ``int64``, or None.
        """
