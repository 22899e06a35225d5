"""A layer that reads a picture patch by patch with a transformer, and moves each patch as those before it say.

Paper
    Zhai et al. 2024, "Normalizing Flows are Capable Generative Models" (arXiv:2412.06329), section 2.2: with patches
    x_1 ... x_T in one order or the opposite one,

        z_1 = x_1,   z_i = (x_i - mu(x_<i)) exp(-alpha(x_<i)),   log |det| = -sum alpha                      (eq. 5, 6)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from castalia.models.flows.layers import Sequential
from castalia.nn.causal import Cache, CausalBlock


@final
class PatchFlow(Sequential):
    """Pictures (B, C, H, W), whose patches are tokens, in reading order or backwards.

    Args:
        shape: of a picture.
        patch: side of a patch; divides height and width.
        dim: of a token inside the transformer.
        depth: of the transformer.
        heads: of its attention.
        backwards: whether the last patch is the first to be read.
        classes: of the labels; 0 for none. Label ``classes`` is none of them.

    Attributes:
        guidance: where pictures are made, the weight w of (1 + w) conditional - w unconditional, for the last patch;
            it rises linearly from the first (section 2.5).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        *,
        backwards: bool,
        classes: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape, self.patch, self.backwards, self.classes = shape, patch, backwards, classes
        self.count, self.size = (height // patch) * (width // patch), channels * patch**2
        self.into = nn.Linear(self.size, dim)
        self.places = nn.Parameter(0.01 * torch.randn(self.count, dim))
        self.of_class = nn.Embedding(classes + 1, dim) if classes else None
        if self.of_class is not None:
            nn.init.normal_(self.of_class.weight, std=0.01)
        self.blocks = nn.ModuleList(CausalBlock(dim, heads, 4 * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, 2 * self.size)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.heads, self.dim, self.guidance = heads, dim, 0.0

    def tokens(self, x: Tensor) -> Tensor:
        """Patches (B, T, C P P) in the order in which they are read."""
        b, (c, h, w), p = x.shape[0], self.shape, self.patch
        t = x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(b, self.count, self.size)
        return t.flip(1) if self.backwards else t

    def picture(self, t: Tensor) -> Tensor:
        """The inverse of :meth:`tokens`."""
        t = t.flip(1) if self.backwards else t
        b, (c, h, w), p = t.shape[0], self.shape, self.patch
        return t.view(b, h // p, w // p, c, p, p).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)

    def _moments(
        self, t: Tensor, label: Tensor | None, caches: list[Cache] | None, first: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation, ``float32`` or wider, of the token after each of ``t``, which begin at ``first``."""
        h = self.into(t) + self.places[first : first + t.shape[1]]
        if self.of_class is not None:
            label = torch.full((t.shape[0],), self.classes, device=t.device) if label is None else label
            h = h + self.of_class(label)[:, None]
        at = None
        if caches is not None:
            at = torch.arange(first, first + t.shape[1], device=t.device).expand(t.shape[0], -1)
        for number, block in enumerate(self.blocks):
            h = block(h, None if caches is None else caches[number], at)
        mean, log_std = self.out(self.norm(h)).to(t.dtype).chunk(2, 2)
        return mean, log_std

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        t = self.tokens(x)
        mean, log_std = self._moments(t[:, :-1], label, None, 0)
        rest = (t[:, 1:] - mean) * torch.exp(-log_std)
        return self.picture(torch.cat([t[:, :1], rest], 1)), -log_std.flatten(1).sum(1)

    def inverse(self, y: Tensor, label: Tensor | None = None) -> Tensor:
        z = self.tokens(y)
        guided = bool(self.guidance) and label is not None and self.of_class is not None
        caches = [self._caches(z), self._caches(z)] if guided else [self._caches(z)]
        found = [z[:, :1]]
        for i in range(1, self.count):
            mean, log_std = self._moments(found[-1], label, caches[0], i - 1)
            if guided:
                weight = self.guidance * i / (self.count - 1)
                other_mean, other_log_std = self._moments(found[-1], None, caches[1], i - 1)
                mean = (1 + weight) * mean - weight * other_mean
                log_std = (1 + weight) * log_std - weight * other_log_std
            found.append(z[:, i : i + 1] * log_std.exp() + mean)
        return self.picture(torch.cat(found, 1))

    def _caches(self, z: Tensor) -> list[Cache]:
        device = z.device
        kind = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else z.dtype
        d = self.dim // self.heads
        return [Cache.empty(len(z), self.heads, self.count, d, kind, device) for _ in self.blocks]


@contextmanager
def guided(layers: list[PatchFlow], weight: float) -> Iterator[None]:
    """A block in which pictures are made with guidance."""
    try:
        for layer in layers:
            layer.guidance = weight
        yield
    finally:
        for layer in layers:
            layer.guidance = 0.0
