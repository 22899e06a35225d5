"""What the generators of shapes share: voxels inside and outside, sampling, features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Searchable
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.specs.shape import ShapeSpec
from castalia.models.adversarial.contest import Contest, LatentOptions, draw_latents
from castalia.models.shapes.networks import VoxelCritic


@dataclass(frozen=True)
class ShapeSampling(LatentOptions):
    """How to draw shapes.

    Attributes:
        threshold: a voxel is filled where the network believes so more than this, 0 to 1.
        one_piece: keep of each shape the largest piece that hangs together, and drop crumbs.
    """

    threshold: float = 0.5
    one_piece: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ValueError("threshold lies between 0 and 1")


C = TypeVar("C", bound=Config)

SEARCH_RATE = 0.1
"""Of the search for latents."""


class Carver(Contest[C, ShapeSpec], Searchable):
    """A generator and a critic of voxels.

    Attributes:
        empty: how the networks see an empty voxel; a filled one is 1.
    """

    SampleOptions: ClassVar[type[Sampling]] = ShapeSampling
    empty: float = 0.0

    def inside(self, x: Tensor) -> Tensor:
        """Voxels 0 and 1 as the networks see them, ``float32``."""
        return x.float() * (1 - self.empty) + self.empty

    def believed(self, x: Tensor) -> Tensor:
        """Outputs of the generator as what it believes of each voxel, 0 (empty) to 1 (filled)."""
        return ((x - self.empty) / (1 - self.empty)).clamp(0, 1)

    def outside(self, x: Tensor, threshold: float = 0.5) -> Tensor:
        """Outputs as voxels ``uint8``: filled where that is believed more than ``threshold``."""
        return (self.believed(x) > threshold).to(torch.uint8)

    def draw(self, n: int, given: Given, rng: SampleRng, options: LatentOptions, watch: Watch | None) -> Batch:
        """New shapes; the temperature multiplies the latents."""
        assert isinstance(options, ShapeSampling)
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        z = options.temperature * draw_latents(rng, self.latent_dims, options.truncation)
        x = self.outside(self.generate(self.told(z, given), label, rng), options.threshold)
        return Batch.of(one_piece(x) if options.one_piece else x, label)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        given = check_given(self, given, len(z))
        label = given["label"] if "label" in given else self.labels.usual(len(z))
        return Batch.of(self.outside(self.generate(self.told(z, given), label, rng)), label)

    def told(self, z: Tensor, given: Given) -> Tensor:
        """Latents (B, z) that what is given leads to; here nothing does."""
        return z

    def search(self, batch: Batch, *, rng: SampleRng | None = None, steps: int = 200) -> Tensor:
        """Latents whose shapes come near to some, by Adam on the mean square of the difference.

        A pull towards the middle of the prior, of 1e-3 times the mean square, keeps them where shapes are likely.
        Of a conditional model they are those of the classes of the batch, or of the most frequent one.
        """
        target, n = self.inside(batch.x.to(self.device)), len(batch)
        label = self.labels.usual(n) if batch.label is None or not self.classes else batch.label.to(self.device)
        z = (
            torch.zeros(n, self.latent_dims, device=self.device)
            if rng is None
            else rng.normal("search", self.latent_dims)
        )
        z = z.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=SEARCH_RATE)
        training = self.generator.training
        try:
            self.generator.eval()
            for _ in range(steps):
                with torch.enable_grad():
                    made = self.generate(z, label, None)
                    far = (made - target).square().flatten(1).mean(1) + 1e-3 * z.square().mean(1)
                    (z.grad,) = torch.autograd.grad(far.sum(), [z])
                optimizer.step()
        finally:
            self.generator.train(training)
        return z.detach()

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What the critic sees of shapes, for other uses: to tell classes apart, to find alike ones.

        The responses of its convolutions from the second on, each pooled by maxima to 2 places along a side (Wu et al.
        2016, section 4.2), side by side.

        Args:
            x: voxels (B, 1, S, S, S), 0 and 1.

        Returns:
            ``float32`` (B, F).
        """
        critic, training = self.critic, self.critic.training
        assert isinstance(critic, VoxelCritic)
        try:
            return critic.eval().features(self.inside(x.to(self.device))).float()
        finally:
            critic.train(training)


def one_piece(x: Tensor) -> Tensor:
    """Shapes (B, 1, S, S, S) without what does not hang together with their largest piece (faces, edges, corners)."""
    from scipy import ndimage

    out = x.cpu().numpy().copy()
    for shape in out[:, 0]:
        found: Any = ndimage.label(shape, np.ones((3, 3, 3)))
        pieces, count = found
        if count > 1:
            shape[pieces != 1 + np.bincount(pieces.reshape(-1))[1:].argmax()] = 0
    return torch.from_numpy(out).to(x.device)
