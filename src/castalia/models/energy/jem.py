"""Joint energy-based model: a classifier that is also a generator.

Paper
    Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi & Swersky 2020, "Your classifier is secretly an energy based model and
    you should treat it like one" (arXiv:1912.03263). With the logits f(x)[y] of a classifier,

        p(x, y) = exp(f(x)[y]) / Z,      E(x) = -log sum_y exp(f(x)[y])                                    (eq. 5 to 7)
        log p(x, y) = log p(x) + log p(y | x)                                                              (eq. 8)

    The second term is the usual loss of a classifier; the gradient of the first is that of an energy model, with chains
    of Langevin dynamics from a replay buffer (algorithm 1).

What differs, and why
    It is the energy model of the house (ebm.py) with another energy: its chains belong to places of the buffer, its
    energies are kept near 0 by their squares, and a divergence is seen and undone. The paper starts from a checkpoint
    by hand when its model diverges.
    Energies are tens of times those of the energy model, because the classifier wants them apart; steps are as much
    shorter, else chains cannot follow them down, and samples are noise.
    ``by_class``: chains come from p(y) p(x | y), and the contrast is that of E(x, y).

Expected: see ``recipes/jem.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Batch
from castalia.core.model import Logs, Progress
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.energy.ebm import EBM, EBMConfig
from castalia.models.energy.networks import Wide


@dataclass(frozen=True)
class JEMConfig(EBMConfig):
    """Configuration of a joint energy-based model.

    Attributes:
        network: of pictures: ``strided``, ``residual``, or ``wide`` (the paper's, as large as ``depth`` and ``widen``).
        depth: wide: convolutions along the longest path, 6 n + 4; the paper has 28.
        widen: wide: factor of the channels; the paper has 10.
        generative: weight of log p(x) beside log p(y | x).
        noise_in: deviation of what is added to the data, on the scale of 0 to 1; 0.015 in the authors' code.
        by_class: chains of the training follow E(x, y) with classes drawn as often as they occur, which gives better
            examples; else E(x), which gives a better classifier (both are in the authors' code).
    """

    network: Literal["strided", "residual", "wide"] = "strided"  # pyright: ignore[reportIncompatibleVariableOverride]
    depth: int = 28
    widen: int = 10
    generative: float = 1.0
    noise_in: float = 0.0
    by_class: bool = True
    conditional: bool = True
    steps: int = 20
    step: float = 0.5
    clip: float = 0.1
    noise: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.conditional:
            raise ValueError("a joint model is one of examples and classes; for examples alone take ebm")
        if self.depth < 10 or (self.depth - 4) % 6 or self.widen < 1:
            raise ValueError("depth is 6 n + 4 with n at least 1, widen is positive")
        if min(self.generative, self.noise_in) < 0:
            raise ValueError("generative and noise_in must not be negative")


class JEM(EBM[JEMConfig]):
    """p(x, y) proportional to exp(f(x)[y])."""

    Config = JEMConfig

    def energies(self, spec: ImageSpec | PointsSpec, out: int) -> nn.Module:
        c = self.config
        if c.network == "wide" and isinstance(spec, ImageSpec):
            return Wide(spec.shape, c.depth, c.widen, out)
        return super().energies(spec, out)

    def energy(self, x: Tensor, label: Tensor | None) -> Tensor:
        """E(x), or E(x, y) = -f(x)[y] where a class is given, ``float32`` (n,)."""
        return self._of(self.network(x), label)

    @staticmethod
    def _of(logits: Tensor, label: Tensor | None) -> Tensor:
        return -torch.logsumexp(logits, 1) if label is None else -logits.gather(1, label[:, None])[:, 0]

    def led(self, label: Tensor) -> Tensor | None:
        """Chains come from p(y) p(x | y), or from p(x)."""
        return label if self.config.by_class else None

    def named(self, x: Tensor, label: Tensor) -> Tensor:
        """The class that a chain was led to, or the likeliest one of where it is."""
        return label if self.config.by_class else self.network(x).argmax(1)

    def contrast(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Energies of the data down, those of where the chains are up; classes of the data told apart."""
        c, places = self.config, self.replay.mine(rng, progress)
        real, made = self.inward(batch.x, rng), self.inward(self.replay.x[places], rng.at("made"))
        if c.noise_in:
            real = real + c.noise_in * rng.normal("noise in", *self.spec.shape)
        logits, other = self.network(torch.cat([real, made])).chunk(2)
        label = self.labels.of(batch)
        assert label is not None
        led = self.led(self.replay.label[places])
        low, high = self._of(logits, None if led is None else label), self._of(other, led)
        square = low.square().mean() + high.square().mean()
        self.guard.note(low, high)
        classified = F.cross_entropy(logits, label)
        loss = c.generative * (low.mean() - high.mean() + c.alpha * square) + classified
        right = (logits.argmax(1) == label).float().mean()
        return loss, {"real": low.mean(), "made": high.mean(), "classified": classified, "accuracy": right}

    @torch.no_grad()
    def classify(self, batch: Batch) -> Tensor:
        """Probabilities (B, classes) of the labels of examples."""
        return torch.softmax(self.network(self.inward(batch.x, None)), 1)
