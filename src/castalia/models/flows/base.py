"""What every flow can do: exact sampling, densities, latents both ways. A system brings the layers.

    log p(x) = log p_z(f(x)) + log |det df/dx|                                             (Dinh et al. 2014, eq. 1)

where f goes through the units (units.py) and the layers (multiscale.py) to standard normal latents.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Inference, Likelihood, PictureProgram
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Watch, check_given
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.layers import Mixing, Sequential
from castalia.models.flows.multiscale import MultiScale
from castalia.models.flows.units import Dequantised, Scale, units_of
from castalia.nn.labels import Labels

FIRST_BATCH = 256
"""Examples from which normalisation layers are set before the first step."""

DRAWS = 8
"""Dequantisations from which the spread of a picture's latents is measured."""


PICTURE = """
v = run("decoder", np.random.randn(1, {dims}).astype("f4")).reshape({shape})
y = np.array(numbers["values"])[np.searchsorted(numbers["cuts"], v)]  # where one value ends and the next begins
"""
"""The inverse of the flow and of its units, with NumPy alone."""


@dataclass(frozen=True)
class FlowConfig(Config):
    """What the configurations of all flows have in common.

    Attributes:
        scale: of pictures, after dequantisation: ``linear``, ``logit`` or ``gaussian``.
        alpha: ``logit``: how far from 0 and 1 values are kept.
        bits: of the values of pictures; fewer than 8 cut them.
    """

    scale: Scale = "logit"
    alpha: float = 0.05
    bits: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError("alpha lies between 0 and 0.5")
        if not 1 <= self.bits <= 8:
            raise ValueError("bits must be 1 to 8")


F = TypeVar("F", bound=FlowConfig)


class Flow(Generator[F, ImageSpec | PointsSpec], Density, Inference, Exportable):
    """An invertible map between examples and standard normal latents.

    Args:
        config: of the system.
        spec: of the medium.
        layers: the map, and the density that follows from it.
        classes: of a conditional flow; 0 for others.
        label_drop: share of examples that are learned without their label.
    """

    def __init__(
        self, config: F, spec: ImageSpec | PointsSpec, layers: MultiScale, classes: int = 0, label_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.latent_dims = math.prod(spec.shape)
        self.layers = layers
        self.units = units_of(spec, config.scale, config.alpha, config.bits)
        self.classes, self.labels = classes, Labels(classes, label_drop)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find the values that pictures hold, how often each label occurs; set normalisation layers from a batch."""
        self.units.fit(data)
        self.labels.fit(data)
        batch = data.batch(some_of(data, FIRST_BATCH)).to(self.device)
        u = rng.uniform("dequantise", len(batch), *self.spec.shape)[0]
        self.layers.fit(self.units.inward(batch.x, u)[0], self.labels.of(batch))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("flow", self.layers, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Negative log-likelihood in nats per example, averaged over the batch."""
        y, change = self.units.inward(batch.x, self._noise(rng))
        log_p = self.layers(y, self.labels.for_training(batch, rng))[1] + change
        bits = -log_p.mean() / (self.latent_dims * math.log(2))
        return self.penalty() - log_p.mean(), {"bits_per_dim": bits}

    def penalty(self) -> Tensor | float:
        """What the system adds to the loss."""
        return 0.0

    def _noise(self, rng: Rng | None) -> Tensor:
        """Of dequantisation, (B, *shape); without randomness the middle of each level."""
        if rng is None:
            return torch.full((), 0.5, device=self.device)
        if isinstance(self.units, Dequantised):
            return rng.uniform("dequantise", *self.spec.shape)
        return torch.zeros((), device=self.device)  # points are continuous

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.classes else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Any, watch: Watch | None) -> Batch:
        """Examples of latents drawn from the prior, which the temperature multiplies."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        eps = options.temperature * rng.normal("latent", self.latent_dims)
        return Batch.of(self._examples(eps, label), label)

    def _examples(self, eps: Tensor, label: Tensor | None) -> Tensor:
        return self.units.outward(self.layers.inverse(eps, label).view(len(eps), *self.spec.shape))

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Density of points. Of pictures the bound by dequantisation: the logarithm of the mean density at K noises."""
        self.units.check(batch.x)
        label, pictures = self.labels.null(len(batch)), isinstance(self.units, Dequantised)
        found = []
        for k in range(samples if pictures else 1):
            y, change = self.units.inward(batch.x, self._noise(rng.at("draw", k) if k else rng))
            found.append((self.layers(y, label)[1] + change).double())
        nats = torch.logsumexp(torch.stack(found), 0) - math.log(len(found))
        how = f"K = {len(found)} dequantisation{'s' if len(found) > 1 else ''}" if pictures else "change of variables"
        how += ", null class" if self.classes else ""
        kind = "bound" if pictures else "exact"
        return Likelihood(nats, kind, how, self.units.preprocessing, self.units.values)

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        """Latents of the unconditional model; ``rng`` dequantises pictures, None takes the middle of each level."""
        y, _ = self.units.inward(batch.x, self._noise(rng))
        return self.layers(y, self.labels.null(len(batch)))[0].float()

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        """Examples of latents; without a label, of the unconditional model. ``rng`` has nothing to draw."""
        checked = check_given(self, given, len(z))
        return Batch.of(self._examples(z, checked["label"] if "label" in checked else self.labels.null(len(z))))

    @torch.no_grad()
    def posterior_kl(self, batch: Batch) -> Tensor:
        """Of Gaussians with the mean and deviation that dequantisation leaves each latent of a picture.

        A point has one latent vector, and the divergence is infinite.
        """
        if not isinstance(self.units, Dequantised):
            return torch.full((len(batch), self.latent_dims), math.inf, device=self.device)
        rng = SampleRng(0, range(len(batch)), self.device)
        z = torch.stack([self.encode(batch, rng=rng.at("spread", k)) for k in range(DRAWS)])
        variance, mean = torch.var_mean(z, 0, correction=1)
        variance = variance.clamp(min=1e-12)
        return 0.5 * (mean.square() + variance - 1 - variance.log())

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Both ways between continuous examples (after units.py) and latents, of the unconditional model.

        Where one of them takes a value after another it is left out: a program has no loop that it could be.
        """
        y = torch.zeros(2, *self.spec.shape, device=self.device)
        eps = torch.zeros(2, self.latent_dims, device=self.device)
        calls: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {"encoder": (self.layers, (y,))}
        if not any(isinstance(part, Sequential) for part in self.layers.modules()):
            calls["decoder"] = (_Decode(self.layers), (eps,))
        return calls

    def export_picture(self) -> PictureProgram | None:
        """Of standard normal latents; None where a program has no decoder."""
        if not isinstance(self.units, Dequantised) or "decoder" not in self.export_calls():
            return None
        table = {"cuts": self.units.cuts().tolist(), "values": self.units.table().tolist()}
        return PictureProgram(PICTURE.format(dims=self.latent_dims, shape=tuple(self.spec.shape)), table)


class _Decode(nn.Module):
    """Latents to continuous examples, as one call for export."""

    def __init__(self, layers: MultiScale) -> None:
        super().__init__()
        self.layers = copy.deepcopy(layers)
        for part in self.layers.modules():
            if isinstance(part, Mixing):  # formats of programs do not solve triangles
                part.keep_inverse()

    def forward(self, eps: Tensor) -> Tensor:
        return self.layers.inverse(eps)


def check_coordinates(spec: ImageSpec | PointsSpec) -> None:
    """Refuse examples of a single number: there is nothing that one half could say about the other.

    Raises:
        UsageError: what to do instead.
    """
    if math.prod(spec.shape) < 2:
        raise UsageError("A flow couples coordinates, and these examples have only one. Give points of two or more.")
