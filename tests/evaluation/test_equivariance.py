"""Equivariance of models: which are measured, and what comes out."""

from __future__ import annotations

import pytest
import torch

from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.evaluation import equivariance
from castalia.evaluation.measures import measured_by
from castalia.models.adversarial.stylegan2 import StyleGAN2, StyleGAN2Config
from castalia.models.adversarial.stylegan3 import StyleGAN3, StyleGAN3Config

SPEC = ImageSpec(1, 32, 32)


def model(kind: str) -> StyleGAN3:
    config = StyleGAN3Config(kind=kind, layers=6, margin=8, latent_dims=4, style_dims=8, channels=128, most=16)  # type: ignore[arg-type]
    return build(StyleGAN3, config, SPEC, 0).eval()  # type: ignore[return-value]


def test_untrained_generators() -> None:
    t, r = (equivariance.measure(model(kind), 10) for kind in ("t", "r"))
    assert set(t) == {"eq_t", "eq_t_frac", "eq_r"}
    assert min(t["eq_t"].value, r["eq_t"].value) > 50
    assert min(t["eq_t_frac"].value, r["eq_t_frac"].value) > 40
    assert r["eq_r"].value > t["eq_r"].value + 5
    assert t["eq_t"].n == 10
    low, high = t["eq_t"].interval or (0, 0)
    assert low <= t["eq_t"].value <= high
    assert equivariance.measure(model("t"), 10)["eq_r"] == t["eq_r"], "the same seed, the same numbers"


def test_what_moves_pixels_instead_is_found_out() -> None:
    one = model("t")

    class Stuck(torch.nn.Module):
        latent_dims, styles = one.latent_dims, staticmethod(one.styles)

        def render_moved(self, styles: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
            return one.render_moved(styles, torch.eye(3).expand(len(move), 3, 3))

    found = equivariance.measure(Stuck(), 6)
    assert found["eq_t"].value < equivariance.measure(one, 6)["eq_t"].value - 20


def test_only_what_can_be_moved_is_measured() -> None:
    plain = build(StyleGAN2, StyleGAN2Config(latent_dims=4, style_dims=8, channels=32, most=8), SPEC)
    assert not isinstance(plain, equivariance.Movable)
    assert isinstance(model("t"), equivariance.Movable)
    assert all(measured_by(SPEC, name) for name in equivariance.NAMES)
    assert not measured_by(SPEC, "nll")
    with pytest.raises(AttributeError):
        equivariance.measure(plain, 1)  # type: ignore[arg-type]
