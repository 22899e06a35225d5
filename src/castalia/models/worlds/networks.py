"""The three networks of a world model: vision, memory, controller.

Vision is a variational autoencoder of frames, memory an LSTM whose output is a mixture of Gaussians for each latent of
the next frame (Bishop 1994; Graves 2013), the controller one linear layer. Sizes that are not said here are the
paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.errors import UsageError

KERNEL = 4
"""Of the encoder's convolutions."""


class Vision(nn.Module):
    """q(z | frame) = N(mean, std^2), and a frame from z.

    Args:
        channels: of a frame.
        size: pixels along each side.
        widths: channels of the encoder's convolutions (4 by 4, stride 2, no padding).
        kernels: of the decoder's transposed convolutions (stride 2, no padding).
        latents: numbers of z.
    """

    def __init__(self, channels: int, size: int, widths: Sequence[int], kernels: Sequence[int], latents: int) -> None:
        super().__init__()
        self.latents = latents
        layers: list[nn.Module] = []
        side, before = size, channels
        for width in widths:
            layers += [nn.Conv2d(before, width, KERNEL, 2), nn.ReLU()]
            side, before = (side - KERNEL) // 2 + 1, width
        made = 1
        for kernel in kernels:
            made = (made - 1) * 2 + kernel
        if side < 1 or made != size:
            raise UsageError(
                f"Frames of {size} pixels do not fit the network: its encoder makes {side} a side of them, and its "
                f"decoder makes frames of {made}. Set data.options.size={made}, or change config.widths and "
                "config.kernels; 64 pixels take (32, 64, 128, 256) and (5, 5, 6, 6), 32 take (32, 64, 128) and "
                "(5, 6, 6), 16 take (16, 32) and (6, 6)."
            )
        flat = before * side * side
        self.encoder = nn.Sequential(*layers, nn.Flatten())
        self.mean, self.log_var = nn.Linear(flat, latents), nn.Linear(flat, latents)
        self.first = nn.Linear(latents, flat)
        ups: list[nn.Module] = []
        below = [*reversed(widths[:-1]), channels]
        before = flat
        for i, (kernel, width) in enumerate(zip(kernels, below, strict=True)):
            ups += [nn.ConvTranspose2d(before, width, kernel, 2)] + ([nn.ReLU()] if i < len(below) - 1 else [])
            before = width
        self.decoder = nn.Sequential(*ups)

    def posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, each ``float32`` (N, z), for ``uint8`` (N, C, H, W)."""
        h = self.encoder(frames.float() / 255)
        return self.mean(h).float(), (0.5 * self.log_var(h).float().clamp(-20, 20)).exp()

    def shown(self, z: Tensor) -> Tensor:
        """Frames ``float32`` (N, C, H, W), 0 to 1, from latents (N, z)."""
        return torch.sigmoid(self.decoder(self.first(z)[..., None, None]).float())

    def forward(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames again, and mean and deviation of their latents."""
        mean, std = self.posterior(frames)
        return self.shown(mean + std * noise), mean, std


@dataclass(frozen=True)
class Outlook:
    """What memory says of the next step.

    Attributes:
        log_weights: of each latent's mixture (..., z, K).
        mean: of each component (..., z, K).
        log_std: of each component (..., z, K).
        reward: expected reward of this step (...), where it is predicted.
        end: logit of the episode being over after this step (...), where it is predicted.
    """

    log_weights: Tensor
    mean: Tensor
    log_std: Tensor
    reward: Tensor | None
    end: Tensor | None

    def nats(self, z: Tensor) -> Tensor:
        """Negative log-density of the next latents (..., z), each by itself (..., z)."""
        away = (z[..., None] - self.mean) * torch.exp(-self.log_std)
        parts = self.log_weights - 0.5 * away.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(parts, -1)

    def expected(self) -> Tensor:
        """Means of the mixtures (..., z)."""
        return (self.log_weights.exp() * self.mean).sum(-1)

    def drawn(self, uniform: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Next latents (..., z): weights to the power 1 / tau, noise times its root; 0 takes the likeliest component.

        Args:
            uniform: chooses components (..., z), in [0, 1).
            noise: standard normal (..., z).
            temperature: tau.
        """
        if temperature:
            sums = (self.log_weights / temperature).softmax(-1).cumsum(-1)
            which = (uniform[..., None] >= sums[..., :-1]).sum(-1, keepdim=True)
        else:
            which = self.log_weights.argmax(-1, keepdim=True)
        mean, log_std = (part.gather(-1, which)[..., 0] for part in (self.mean, self.log_std))
        return mean + math.sqrt(temperature) * log_std.exp() * noise


State = tuple[Tensor, Tensor]


class Memory(nn.Module):
    """p(z_t+1 | z_t, a_t, h_t) as a mixture for each latent, by itself.

    The LSTM has one bias, as the authors' has; torch's modules have two.

    Args:
        latents: numbers of z.
        actions: numbers of an action.
        hidden: units.
        mixtures: components of each latent's mixture.
        rewards: predict the reward of a step, too.
        ends: predict whether the episode is over after a step, too.
    """

    def __init__(self, latents: int, actions: int, hidden: int, mixtures: int, rewards: bool, ends: bool) -> None:
        super().__init__()
        self.latents, self.hidden, self.mixtures, self.rewards, self.ends = latents, hidden, mixtures, rewards, ends
        bound = 1 / math.sqrt(hidden)
        self.inward = nn.Parameter(torch.empty(4 * hidden, latents + actions).uniform_(-bound, bound))
        self.round = nn.Parameter(torch.empty(4 * hidden, hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.out = nn.Linear(hidden, 3 * mixtures * latents + rewards + ends)

    def begin(self, n: int) -> State:
        """Hidden state and cell before a first step, each (n, hidden)."""
        zero = self.bias.new_zeros(n, self.hidden)
        return zero, zero

    def forward(self, z: Tensor, actions: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states (n, T, hidden) after steps (n, T, ...), and the state after the last."""
        h, c = state or self.begin(len(z))
        x = torch.cat([z, actions], -1)
        weights = [self.inward, self.round, self.bias, torch.zeros_like(self.bias)]
        out, h, c = torch.lstm(x, (h[None], c[None]), weights, True, 1, 0.0, False, False, True)
        return out, (h[0].float(), c[0].float())

    def outlook(self, h: Tensor) -> Outlook:
        """What follows from hidden states (..., hidden)."""
        y = self.out(h).float()
        mixed = y[..., : 3 * self.mixtures * self.latents].unflatten(-1, (3, self.latents, self.mixtures))
        weights, mean, log_std = mixed.unbind(-3)
        rest = y[..., 3 * self.mixtures * self.latents :]
        reward = rest[..., 0] if self.rewards else None
        end = rest[..., -1] if self.ends else None
        return Outlook(F.log_softmax(weights, -1), mean, log_std.clamp(-12, 12), reward, end)


class Starts(nn.Module):
    """Latents of frames with which dreams may begin, as training sees them.

    Args:
        room: how many are kept.
        latents: numbers of each.
    """

    def __init__(self, room: int, latents: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(room, latents))
        self.register_buffer("std", torch.ones(room, latents))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    mean: Tensor
    std: Tensor
    filled: Tensor


class Controller(nn.Module):
    """An action from what is seen and remembered: one linear layer, tanh.

    Args:
        inputs: numbers that it is told.
        actions: numbers of an action.
        bias: with a constant for each action.
    """

    def __init__(self, inputs: int, actions: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(actions, inputs))
        self.bias = nn.Parameter(torch.zeros(actions)) if bias else None

    @property
    def size(self) -> int:
        """How many numbers it is made of."""
        return self.weight.numel() + (0 if self.bias is None else self.bias.numel())

    def numbers(self) -> Tensor:
        """All of them (size,)."""
        return torch.cat([self.weight.flatten(), *([] if self.bias is None else [self.bias])])

    @torch.no_grad()
    def take(self, numbers: Tensor) -> None:
        """Become what ``numbers`` (size,) say."""
        self.weight.copy_(numbers[: self.weight.numel()].view_as(self.weight))
        if self.bias is not None:
            self.bias.copy_(numbers[self.weight.numel() :])

    def acts(self, told: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Actions (..., A) in [-1, 1] from what is told (..., inputs).

        Args:
            told: latents, and hidden state where it is told of that.
            numbers: of other controllers (..., size), one for each row of ``told``; None for its own.
        """
        if numbers is None:
            return torch.tanh(F.linear(told, self.weight, self.bias))
        weight = numbers[..., : self.weight.numel()].unflatten(-1, self.weight.shape)
        y = (weight @ told[..., None])[..., 0]
        return torch.tanh(y if self.bias is None else y + numbers[..., self.weight.numel() :])
