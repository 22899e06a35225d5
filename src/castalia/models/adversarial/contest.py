"""What every generator that plays against a critic shares: labels, latents, units, sampling.

A system derives from :class:`Contest`, makes the two networks, and says what they play for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Exportable, Latents, PictureProgram
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Model
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.spec import LabelSpec, Spec
from castalia.models.adversarial.layers import still
from castalia.nn.labels import Labels

ROUNDS = 16
"""Times that a truncated coordinate is drawn again before the rest are drawn by inversion."""


@dataclass(frozen=True)
class LatentOptions(Sampling):
    """How to draw latents.

    Attributes:
        truncation: coordinates further from 0 than this are drawn again (Brock et al. 2019, arXiv:1809.11096): less
            variety for more typical examples. 0 draws nothing again.
    """

    truncation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.truncation < 0:
            raise ValueError("truncation must not be negative")


C = TypeVar("C", bound=Config)
S = TypeVar("S", bound=Spec)


class Contest(Generator[C, S], Latents, Exportable):
    """A generator and a critic of pictures, which both see as float32 from -1 to 1.

    Derived classes call :meth:`prepare` and then set ``generator``, called with latents (B, z) and labels (B,) or None,
    and ``critic``, called with pictures (B, C, H, W) and labels, which returns (B,) or (B, 1).

    Attributes:
        generator: latents to pictures.
        critic: pictures to logits.
        classes: how many the model can be asked for; 0 where it is not conditional.
        labels: how often each class occurs.
    """

    SampleOptions: ClassVar[type[Sampling]] = LatentOptions
    generator: nn.Module
    critic: nn.Module

    def prepare(self, config: C, spec: S, latent_dims: int, classes: int) -> None:
        """Set what does not depend on the networks; called first, right after ``super().__init__()``."""
        self.config, self.spec, self.latent_dims, self.classes = config, spec, latent_dims, classes
        self.labels = Labels(classes)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Store how often each class occurs (of 20,000 examples at most)."""
        self.labels.fit(data)

    # between natural units and those of the networks

    def inside(self, x: Tensor) -> Tensor:
        """Pictures of 0 to 255 as the networks see them, ``float32`` (B, C, H, W)."""
        return x.float() / 127.5 - 1

    def outside(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`inside`, rounded to ``uint8``."""
        return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    # playing

    def real(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Examples as the networks see them, and their labels where the model is conditional.

        Raises:
            UsageError: the batch has no labels and needs them.
        """
        return self.inside(batch.x), self.labels.of(batch)

    def generate(self, z: Tensor, label: Tensor | None, rng: Rng | None) -> Tensor:
        """Examples ``float32`` as the networks see them from standard normal latents (B, z).

        Args:
            z: latents.
            label: classes, where the model is conditional.
            rng: draws what the latents leave open; None gives the expected example. Here nothing is left open.
        """
        return self.generator(self.latents(z), label).float()

    def make(self, rng: Rng, label: Tensor | None) -> Tensor:
        """New examples ``float32`` (rows of ``rng``, ...) as the networks see them."""
        return self.generate(rng.normal("latent", self.latent_dims), label, rng)

    def make_still(self, rng: Rng, label: Tensor | None) -> Tensor:
        """:meth:`make` for the critic's loss: without gradients, and leaving the generator as it is."""
        with torch.no_grad(), still(self.generator):
            return self.make(rng, label)

    def judge(self, x: Tensor, label: Tensor | None) -> Tensor:
        """The critic's outputs (B,)."""
        return self.critic(x, label).flatten()

    def judge_smooth(self, x: Tensor, label: Tensor | None) -> Tensor:
        """:meth:`judge` for second derivatives, which a compiled network does not have: always the plain one."""
        return self.critic.forward(x, label).flatten()

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        label = self.spec.sides().get("label")
        return {"label": label} if self.classes and isinstance(label, LabelSpec) else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: LatentOptions, watch: Watch | None) -> Batch:
        """New examples; the temperature multiplies the latents."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        z = options.temperature * draw_latents(rng, self.latent_dims, options.truncation)
        return Batch.of(self.outside(self.generate(z, label, rng)), label)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        given = check_given(self, given, len(z))
        label = given["label"] if "label" in given else self.labels.usual(len(z))
        return Batch.of(self.outside(self.generate(z, label, rng)), label)

    def latents(self, z: Tensor) -> Tensor:
        """Latents of the training distribution from standard normal ones (B, z); here they are the same."""
        return z

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The generator: latents (and labels) to pictures in [-1, 1]."""
        z = torch.zeros(2, self.latent_dims, device=self.device)
        label = (torch.zeros(2, dtype=torch.int64, device=self.device),) if self.classes else ()
        return {"generator": (self.generator, (z, *label))}

    def export_picture(self) -> PictureProgram:
        """Of standard normal latents, and the first class where there are classes."""
        label = ", np.array([label])" if self.classes else ""
        z = f'np.random.randn(1, {self.latent_dims}).astype("f4")'
        return PictureProgram(f'y = (run("generator", {z}{label})[0] + 1) * 127.5')


def draw_latents(rng: Rng, dims: int, truncation: float = 0.0) -> Tensor:
    """Standard normal latents ``float32`` (rows, dims), of which coordinates beyond ``truncation`` are drawn again.

    The result is a truncated normal. Coordinates inside keep their value, so that a picture stays recognisable as the
    truncation gets stronger. What is still outside after some rounds is drawn by inverting the distribution function.
    """
    z = rng.normal("latent", dims)
    if not truncation:
        return z
    for attempt in range(ROUNDS):
        z = torch.where(z.abs() > truncation, rng.at("again", attempt).normal("latent", dims), z)
    low = 0.5 * math.erfc(truncation / math.sqrt(2))
    share = low + (1 - 2 * low) * rng.uniform("inversion", dims).double()
    last = torch.special.ndtri(share).float().clamp(-truncation, truncation)
    return torch.where(z.abs() > truncation, last, z)
