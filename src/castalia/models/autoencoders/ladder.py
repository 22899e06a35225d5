"""The two sides of a very deep VAE: a network up to ever smaller maps, and a ladder of latents down to the picture.

Child 2021 (arXiv:2011.10650), figure 3. A block is a bottleneck of 1x1, 3x3, 3x3, 1x1 convolutions with GELU before
each (3x3 are 1x1 on maps of one or two pixels). On the way down, with the state x and the activations a of the encoder,

    q(z | x, a) = N(block([x, a])),   (p(z | x), f) = block(x),   x <- x + f + linear(z),   x <- x + block(x)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Draw = Callable[[int, torch.Size], Tensor]
"""(number of the rung, shape) -> noise for its latents."""


class Bottleneck(nn.Module):
    """Maps (B, inputs, h, w) to (B, outputs, h, w) through ``inside`` channels.

    Args:
        inputs: channels in.
        inside: channels of the 3x3 convolutions.
        outputs: channels out.
        wide: whether there are more than two pixels on a side.
        scale: of the last layer's weights at the start; 0 starts at zero.
    """

    def __init__(self, inputs: int, inside: int, outputs: int, *, wide: bool, scale: float = 1.0) -> None:
        super().__init__()
        k = 3 if wide else 1
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(inputs, inside, 1),
                nn.Conv2d(inside, inside, k, padding=k // 2),
                nn.Conv2d(inside, inside, k, padding=k // 2),
                nn.Conv2d(inside, outputs, 1),
            ]
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight.data.mul_(scale)
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(F.gelu(x))
        return x


@final
class Climb(nn.Module):
    """The encoder: residual blocks, and a pool after those of each size but the smallest.

    Args:
        channels: of the picture.
        width: of the maps.
        inside: of the blocks.
        sizes: height and width of the maps, from the picture's on.
        blocks: residual blocks at each size, beside the one before each pool.
    """

    def __init__(
        self, channels: int, width: int, inside: int, sizes: Sequence[tuple[int, int]], blocks: Sequence[int]
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.sizes = list(sizes)
        pooled = len(sizes) - 1
        scale = math.sqrt(1 / (sum(blocks) + pooled))
        self.levels = nn.ModuleList(
            nn.ModuleList(
                Bottleneck(width, inside, width, wide=min(size) > 2, scale=scale)
                for _ in range(count + (level < pooled))
            )
            for level, (size, count) in enumerate(zip(sizes, blocks, strict=True))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of each size, the picture's first."""
        h, found = self.first(x), []
        for level, blocks in enumerate(self.levels):
            if level:
                h = F.adaptive_avg_pool2d(h, self.sizes[level])
            for number, block in enumerate(blocks):  # type: ignore[arg-type]
                h = h + block(h)
                # the last block before a pool belongs to the way on
                if number == len(blocks) - 1 - (level < len(self.levels) - 1):  # type: ignore[arg-type]
                    found.append(h)
        return found


@final
class Rung(nn.Module):
    """One group of latents, and what follows it.

    Args:
        width: of the maps.
        inside: of the blocks.
        latent: channels of z.
        wide: whether there are more than two pixels on a side.
        scale: of the weights at the start of what is added to the state.
    """

    def __init__(self, width: int, inside: int, latent: int, *, wide: bool, scale: float) -> None:
        super().__init__()
        self.latent = latent
        self.posterior = Bottleneck(2 * width, inside, 2 * latent, wide=wide)
        self.prior = Bottleneck(width, inside, 2 * latent + width, wide=wide, scale=0.0)
        self.into = nn.Conv2d(latent, width, 1)
        self.into.weight.data.mul_(scale)
        assert self.into.bias is not None
        nn.init.zeros_(self.into.bias)
        self.block = Bottleneck(width, inside, width, wide=wide, scale=scale)

    def forward(self, x: Tensor, seen: Tensor | None, noise: Tensor | float, temperature: float) -> tuple[Tensor, Step]:
        """The next state, and what happened; with ``seen`` z is the posterior's, else the prior's."""
        found = self.prior(x)
        p_mean, p_log, added = found.split([self.latent, self.latent, x.shape[1]], 1)
        p_mean, p_log = p_mean.float(), p_log.float()
        if seen is None:
            z, step = p_mean + temperature * p_log.exp() * noise, None
        else:
            q_mean, q_log = self.posterior(torch.cat([x, seen], 1)).float().chunk(2, 1)
            z = q_mean + q_log.exp() * noise
            step = (q_mean, q_log)
        x = x + added + self.into(z.to(x.dtype))
        return x + self.block(x), Step(z, p_mean, p_log, step)


@dataclass(frozen=True)
class Step:
    """What a rung did.

    Attributes:
        z: latents, ``float32`` (B, latent, h, w).
        mean: of the prior.
        log_std: of the prior.
        posterior: mean and log of the deviation, where there was a picture.
    """

    z: Tensor
    mean: Tensor
    log_std: Tensor
    posterior: tuple[Tensor, Tensor] | None

    def noise(self) -> Tensor:
        """Standard normal latents of the prior that give z."""
        return (self.z - self.mean) * torch.exp(-self.log_std)

    def kl(self) -> Tensor:
        """KL of the posterior to the prior for every latent, nats."""
        assert self.posterior is not None
        mean, log_std = self.posterior
        ratio = torch.exp(2 * (log_std - self.log_std)) + ((mean - self.mean) * torch.exp(-self.log_std)).square()
        return 0.5 * (ratio - 1) - log_std + self.log_std

    def log_ratio(self) -> Tensor:
        """Log p(z) - log q(z), nats (B,)."""
        assert self.posterior is not None
        mean, log_std = self.posterior
        q = ((self.z - mean) * torch.exp(-log_std)).square()
        return (0.5 * (q - self.noise().square()) + log_std - self.log_std).flatten(1).sum(1)


@final
class Descent(nn.Module):
    """The ladder: from a learned constant of the smallest size to maps as large as the picture.

    Args:
        width: of the maps.
        inside: of the blocks.
        latent: channels of the latents of every rung.
        sizes: as of the encoder: the picture's first.
        rungs: how many at each size, the picture's first.
    """

    def __init__(
        self, width: int, inside: int, latent: int, sizes: Sequence[tuple[int, int]], rungs: Sequence[int]
    ) -> None:
        super().__init__()
        self.sizes, self.latent = list(sizes), latent
        scale = math.sqrt(1 / sum(rungs))
        self.starts = nn.ParameterList(nn.Parameter(torch.zeros(1, width, *size)) for size in sizes)
        self.levels = nn.ModuleList(
            nn.ModuleList(Rung(width, inside, latent, wide=min(size) > 2, scale=scale) for _ in range(count))
            for size, count in zip(sizes, rungs, strict=True)
        )
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, width, 1, 1))

    def shapes(self) -> list[tuple[int, int, int]]:
        """Of the latents of each rung, the first that is drawn first."""
        return [
            (self.latent, *size)
            for size, level in reversed(list(zip(self.sizes, self.levels, strict=True)))
            for _ in level  # type: ignore[union-attr]
        ]

    def forward(
        self, n: int, seen: Sequence[Tensor] | None, noise: Sequence[Tensor | float], temperature: float = 1.0
    ) -> tuple[Tensor, list[Step]]:
        """Maps (n, width, H, W) and what each rung did.

        Args:
            n: how many.
            seen: activations of the encoder, the picture's size first; None draws from the priors.
            noise: of each rung, (n, latent, h, w); 0 for none.
            temperature: multiplies the deviations of the priors.
        """
        steps: list[Step] = []
        x: Tensor | None = None
        for level in reversed(range(len(self.sizes))):
            start = self.starts[level].expand(n, -1, -1, -1)
            x = start if x is None else start + F.interpolate(x, self.sizes[level])
            for rung in self.levels[level]:  # type: ignore[union-attr]
                x, step = rung(x, None if seen is None else seen[level], noise[len(steps)], temperature)
                steps.append(step)
        assert x is not None
        return x * self.gain + self.shift, steps
