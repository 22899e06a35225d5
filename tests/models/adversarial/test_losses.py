"""Losses and penalties against closed forms, quadrature and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.models.adversarial.losses import (
    critic_loss,
    drift,
    generator_loss,
    gradient_norm,
    gradient_penalty,
    input_gradient,
    mix,
    r1,
    wasserstein,
)

REAL = torch.tensor([-2.0, 0.5, 3.0])
FAKE = torch.tensor([-1.0, 0.0, 4.0])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_losses_have_their_closed_form() -> None:
    """Within 1e-6 of the papers' formulas in float64."""
    r, f = REAL.double().numpy(), FAKE.double().numpy()
    cross_entropy = -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean()
    expected = {
        ("critic", "non-saturating"): cross_entropy,
        ("critic", "minimax"): cross_entropy,
        ("critic", "hinge"): np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(),
        ("critic", "least-squares"): 0.5 * ((r - 1) ** 2).mean() + 0.5 * (f**2).mean(),
        ("generator", "non-saturating"): -np.log(sigmoid(f)).mean(),
        ("generator", "minimax"): np.log(1 - sigmoid(f)).mean(),
        ("generator", "hinge"): -f.mean(),
        ("generator", "least-squares"): 0.5 * ((f - 1) ** 2).mean(),
    }
    for (side, game), value in expected.items():
        found = critic_loss(game, REAL, FAKE) if side == "critic" else generator_loss(game, FAKE)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(value, abs=1e-6), (side, game)
    assert float(wasserstein(REAL, FAKE)) == pytest.approx(r.mean() - f.mean(), abs=1e-6)
    assert float(drift(REAL)) == pytest.approx((r**2).mean(), abs=1e-6)


def test_smoothing_is_the_cross_entropy_with_a_smaller_target() -> None:
    target = torch.full_like(REAL, 0.9)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(REAL, target)
    expected = expected + torch.nn.functional.softplus(FAKE).mean()
    torch.testing.assert_close(critic_loss("minimax", REAL, FAKE, smooth=0.1), expected)


def test_losses_stay_finite_far_out() -> None:
    for game in ("non-saturating", "minimax"):
        far = torch.tensor([1e4, -1e4])
        assert critic_loss(game, far, far).isfinite()
        assert generator_loss(game, far).isfinite()


def normal_pdf(x: Tensor, mean: float, std: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


def test_the_best_discriminator_is_p_over_p_plus_q() -> None:
    """Free logits on a line, trained on the loss, end at log p/q; its value there is -log 4 + 2 JSD (within 1e-4)."""
    x = torch.linspace(-8, 9, 1001, dtype=torch.float64)
    p, q = normal_pdf(x, 0.0, 1.0), normal_pdf(x, 1.5, 1.2)
    width = float(x[1] - x[0])

    def value(logits: Tensor) -> Tensor:
        """E log D(x) + E log(1 - D(x~)) by quadrature, from the loss of single logits."""
        zero = torch.zeros(1, dtype=torch.float64)
        of_real = torch.stack([critic_loss("minimax", l.view(1), zero) for l in logits]) - math.log(2)
        of_fake = torch.stack([critic_loss("minimax", zero, l.view(1)) for l in logits]) - math.log(2)
        return -width * (p * of_real + q * of_fake).sum()

    best = torch.log(p) - torch.log(q)
    m = 0.5 * (p + q)
    jsd = 0.5 * width * ((p * (p / m).log()).sum() + (q * (q / m).log()).sum())
    assert float(value(best)) == pytest.approx(-math.log(4) + 2 * float(jsd), abs=1e-4)
    logits = best.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(value(logits), logits)
    assert slope.abs().max() < 1e-7, "log p/q is where the loss is flat"
    for change in (0.3, -0.3):
        assert value(best + change) < value(best)


@pytest.mark.parametrize("shape", [(5,), (3, 4, 2)])
def test_penalty_of_a_linear_critic(shape: tuple[int, ...]) -> None:
    """Exactly (|w| - 1)^2 over all dimensions but the batch, to 1e-6; one-sided: nothing below a slope of 1."""
    g = torch.Generator().manual_seed(0)
    w, x = torch.randn(*shape, generator=g), torch.randn(7, *shape, generator=g)
    axes = tuple(range(1, x.ndim))
    for size in (0.4, 2.5):
        v = (w / w.norm() * size).requires_grad_(True)

        def critic(x: Tensor, v: Tensor = v) -> Tensor:
            return (x * v).sum(axes)

        two, one = gradient_penalty(critic, x), gradient_penalty(critic, x, "one")
        assert two.item() == pytest.approx((size - 1) ** 2, abs=1e-6)
        assert one.item() == pytest.approx(max(size - 1, 0) ** 2, abs=1e-6)
        (slope,) = torch.autograd.grad(two, v)
        torch.testing.assert_close(slope, 2 * (size - 1) * v.detach() / size, atol=1e-5, rtol=0)


def test_penalty_of_a_dead_critic_has_a_finite_gradient() -> None:
    v = torch.zeros(3, requires_grad=True)
    penalty = gradient_penalty(lambda x: (x * v).sum(1), torch.randn(4, 3))
    assert penalty.item() == 1.0
    (slope,) = torch.autograd.grad(penalty, v)
    assert slope.isfinite().all()


def test_penalty_is_computed_in_float32_inside_autocast() -> None:
    """The same bits as outside: second derivatives in bfloat16 would be off by percents."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.LeakyReLU(0.2), torch.nn.Linear(32, 1))
    x = torch.randn(16, 6)
    outside = gradient_penalty(lambda x: net(x).flatten(), x)
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradient_penalty(lambda x: net(x).flatten(), x)
    assert torch.equal(inside, outside)


def test_r1_against_finite_differences() -> None:
    """Within 1e-3 relative of central differences in float64."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Softplus(), torch.nn.Linear(16, 1))
    x = torch.randn(5, 4)
    outputs, gradient = input_gradient(lambda x: net(x).flatten(), x)
    torch.testing.assert_close(outputs, net(x).flatten())
    wide, step = net.double(), 1e-4
    slopes = torch.zeros(5, 4, dtype=torch.float64)
    for i in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[i] = step
        up, down = wide(x.double() + shift), wide(x.double() - shift)
        slopes[:, i] = ((up - down) / (2 * step)).flatten().detach()
    assert r1(gradient).item() == pytest.approx(float(0.5 * slopes.square().sum(1).mean()), rel=1e-3)
    torch.testing.assert_close(gradient_norm(gradient).double(), slopes.norm(dim=1), rtol=1e-3, atol=0)


def test_lines_between_real_and_made() -> None:
    real, fake = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    between = mix(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(between[:, 0, 0], torch.tensor([1.0, 0.75, 0.0]))
    assert torch.equal(between, between[:, :1, :1].expand(3, 2, 2)), "one share per example"
