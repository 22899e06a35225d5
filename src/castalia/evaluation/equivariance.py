"""Measuring how well a model's pictures move with their input, for models that can move it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from castalia.core.rng import SampleRng
from castalia.core.sampling import Given
from castalia.estimators.equivariance import How, decibels, errors
from castalia.estimators.metric import Metric, mean_metric
from castalia.estimators.progress import Show, Ticker

NAMES: dict[str, How] = {"eq_t": "integer", "eq_t_frac": "fractional", "eq_r": "rotation"}

MOST = 500
"""Pictures that an evaluation moves at most."""

ROWS = 8
"""Pictures made at once."""


@runtime_checkable
class Movable(Protocol):
    """A model of pictures whose input can be moved."""

    latent_dims: int

    def styles(self, z: Tensor, given: Given | None = None) -> Tensor: ...

    def render_moved(self, styles: Tensor, move: Tensor) -> Tensor:
        """Pictures ``float32`` (B, C, H, W) of about -1 to 1, moved by (B, 3, 3)."""
        ...


def measure(model: Movable, n: int, *, seed: int = 0, show: Show | None = None) -> dict[str, Metric]:
    """``eq_t`` (whole pixels), ``eq_t_frac`` (any distance) and ``eq_r`` (rotations), in dB: larger is better.

    Args:
        model: in evaluation mode.
        n: pictures.
        seed: of latents and moves.
        show: receives lines of progress.
    """
    device = getattr(model, "device", torch.device("cpu"))
    ticker, found = Ticker("equivariance", n, show), {name: [] for name in NAMES}
    with torch.no_grad():
        for first in range(0, n, ROWS):
            rows = min(ROWS, n - first)
            rng = SampleRng(seed, range(first, first + rows), device)
            styles = model.styles(rng.normal("latent", model.latent_dims))
            for name, how in NAMES.items():
                uniform = rng.at("move", name).uniform("far", 2)
                found[name].append(errors(lambda move: model.render_moved(styles, move), how, uniform).cpu())  # noqa: B023
            ticker.step(rows)
    return {name: _metric(torch.cat(parts), name, seed) for name, parts in found.items()}


def _metric(squares: Tensor, name: str, seed: int) -> Metric:
    mean = mean_metric(squares.numpy(), "squared error", "measured", seed)
    assert mean.interval is not None
    low, high = (decibels(end) for end in reversed(mean.interval))
    detail = f"{NAMES[name]}; PSNR between moved pictures and pictures of moved things, of the mean squared error"
    return Metric(decibels(mean.value), "dB", "measured", mean.n, seed, (low, high), detail)
