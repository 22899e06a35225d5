"""What generator and critic play for, and what keeps the critic smooth.

All functions take logits (the critic's raw outputs) and return means over the batch in ``float32``.

Papers
    Goodfellow et al. 2014 (arXiv:1406.2661), eq. 1 and section 3 (the non-saturating form). Lim & Ye 2017
    (arXiv:1705.02894), hinge. Mao et al. 2017 (arXiv:1611.04076), least squares, eq. 9. Arjovsky et al. 2017
    (arXiv:1701.07875), Wasserstein. Gulrajani et al. 2017 (arXiv:1704.00028), gradient penalty, eq. 3; Petzka et al.
    2018 (arXiv:1709.08894), its one-sided form. Mescheder et al. 2018 (arXiv:1801.04406), R1, eq. 9. Karras et al. 2018
    (arXiv:1710.10196), appendix A.1, drift. Salimans et al. 2016 (arXiv:1606.03498), section 3.4, one-sided smoothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Game = Literal["non-saturating", "minimax", "hinge", "least-squares"]
Sides = Literal["one", "two"]


def critic_loss(game: Game, real: Tensor, fake: Tensor, smooth: float = 0.0) -> Tensor:
    """The discriminator's loss for logits of real and of made examples.

    Args:
        game: which game; the non-saturating and the minimax one have the same discriminator.
        real: logits (B,) of real examples.
        fake: logits (B,) of made examples.
        smooth: the target of real examples is 1 - ``smooth`` (the two games with a sigmoid only).
    """
    real, fake = real.float(), fake.float()
    if game == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if game == "least-squares":
        return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()
    loss = F.softplus(-real).mean() + F.softplus(fake).mean()
    return loss + smooth * real.mean() if smooth else loss


def generator_loss(game: Game, fake: Tensor) -> Tensor:
    """The generator's loss for logits (B,) of made examples."""
    fake = fake.float()
    if game == "hinge":
        return -fake.mean()
    if game == "least-squares":
        return 0.5 * (fake - 1).square().mean()
    if game == "minimax":
        return -F.softplus(fake).mean()  # log(1 - D)
    return F.softplus(-fake).mean()  # -log D


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's estimate of the Wasserstein-1 distance (up to its Lipschitz constant), from its outputs (B,)."""
    return real.float().mean() - fake.float().mean()


def drift(real: Tensor) -> Tensor:
    """Mean square of the critic's outputs on real examples: keeps them near zero, where nothing else does."""
    return real.float().square().mean()


def input_gradient(critic: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of the critic and their gradient with respect to its input, through which parameters can be trained.

    Computed in ``float32`` whatever the precision around it: second derivatives in bfloat16 are noise.

    Args:
        critic: maps (B, ...) to (B,), row by row.
        x: where, (B, ...).

    Returns:
        Outputs (B,) and gradient (B, ...).
    """
    x = x.detach().float().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        outputs = critic(x)
        (gradient,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
    return outputs, gradient


def gradient_norm(gradient: Tensor) -> Tensor:
    """Euclidean norm over all dimensions but the batch, (B, ...) -> (B,)."""
    return torch.linalg.vector_norm(gradient, dim=tuple(range(1, gradient.ndim)))  # a zero has subgradient zero


def gradient_penalty(critic: Callable[[Tensor], Tensor], x: Tensor, sides: Sides = "two") -> Tensor:
    """Mean squared distance of the gradient's norm from 1; ``one``: only of norms above 1."""
    excess = gradient_norm(input_gradient(critic, x)[1]) - 1
    return (F.relu(excess) if sides == "one" else excess).square().mean()


def mix(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Points on straight lines: ``share`` (B,) of the real example, the rest of the made one."""
    share = share.view(-1, *[1] * (real.ndim - 1))
    return share * real + (1 - share) * fake


def r1(gradient: Tensor) -> Tensor:
    """Half the mean squared norm of the critic's gradient (B, ...) at real examples."""
    return 0.5 * gradient.square().sum(tuple(range(1, gradient.ndim))).mean()
