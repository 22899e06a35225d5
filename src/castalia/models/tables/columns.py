"""Rows as networks see them: mode-specific normalisation of numbers, one-hots of categories.

Paper
    Xu, Skoularidou, Cuesta-Infante & Veeramachaneni 2019, "Modeling Tabular Data using Conditional GAN"
    (arXiv:1907.00503), section 4.2: a variational Gaussian mixture of at most ten modes is fitted to each column of
    numbers; a number is told by a mode, drawn from those that may have made it, and by where it lies in that mode,
    (c - mu) / (4 sigma).

A missing value is one more mode, or one more category.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset, spread
from castalia.core.rng import Rng
from castalia.core.specs.table import Part, TableSpec

Modes = tuple[tuple[float, float, float], ...]
"""Weight, mean and deviation of each mode of a column; empty of categories."""

MOST_MODES, LEAST_WEIGHT, REACH, FITTED = 10, 0.005, 4.0, 20_000


@dataclass(frozen=True)
class Span:
    """A stretch of what networks see.

    Attributes:
        start: its first number.
        size: how many.
        scalar: whether it is one number between -1 and 1; else shares that sum to one.
        column: the column that it belongs to.
        listed: whether the column is a category or a boolean, which can be asked for.
    """

    start: int
    size: int
    scalar: bool
    column: int
    listed: bool

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.size)


def fit_modes(data: Dataset, spec: TableSpec) -> tuple[Modes, ...]:
    """The modes of every column, from at most 20,000 rows."""
    batch = data.batch(spread(len(data), FITTED))
    x, missing = batch.x.double().numpy(), batch.extra["missing"].numpy()
    return tuple(() if part.listed else _modes(x[missing[:, j] == 0, j]) for j, part in enumerate(spec.parts))


def _modes(values: np.ndarray) -> Modes:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import BayesianGaussianMixture

    different = len(np.unique(values))
    scale = float(values.std()) if len(values) else 0.0
    if different < 2 or scale == 0:
        middle = float(values.mean()) if len(values) else 0.0
        return ((1.0, middle, max(abs(middle) * 1e-3, 1e-3)),)
    # fitted to what has mean 0 and deviation 1: the mixture's own priors are of that size
    centre = float(values.mean())
    mixture = BayesianGaussianMixture(
        n_components=min(MOST_MODES, different),
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=0.001,
        n_init=1,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture that is nearly there serves as well
        mixture.fit(((values - centre) / scale)[:, None])
    kept = [
        (float(w), centre + scale * float(m), max(scale * float(np.sqrt(v)), 1e-6 * scale))
        for w, m, v in zip(mixture.weights_, mixture.means_[:, 0], mixture.covariances_[:, 0, 0], strict=True)
        if w > LEAST_WEIGHT
    ]
    total = sum(w for w, _, _ in kept)
    return tuple((w / total, m, s) for w, m, s in kept)


class Columns(nn.Module):
    """Between rows and what networks see; no parameters.

    Attributes:
        spans: what the numbers that networks see are.
        size: how many there are.
    """

    def __init__(self, spec: TableSpec, modes: Sequence[Modes]) -> None:
        super().__init__()
        self.spec, self.modes = spec, tuple(modes)
        spans: list[Span] = []
        start = 0
        for j, part in enumerate(spec.parts):
            if not part.listed:
                spans.append(Span(start, 1, True, j, False))
                start += 1
            count = (len(part.values) if part.listed else len(self.modes[j])) + part.missing
            spans.append(Span(start, count, False, j, part.listed))
            start += count
        self.spans, self.size = tuple(spans), start

    def _table(self, j: int, like: Tensor) -> Tensor:
        """Weights, means and deviations (3, K) of a column."""
        return torch.tensor(self.modes[j], dtype=torch.float64, device=like.device).T

    def inside(self, batch: Batch, rng: Rng | None, clamp: float = 1.0) -> Tensor:
        """Rows as networks see them, ``float32`` (B, size).

        Args:
            batch: rows.
            rng: draws the modes; None takes the likeliest.
            clamp: bound of scalars.
        """
        parts: list[Tensor] = []
        for j, part in enumerate(self.spec.parts):
            x, gone = batch.x[:, j].double(), batch.extra["missing"][:, j] == 1
            if part.listed:
                number = torch.where(gone, len(part.values), x.long())
                parts.append(nn.functional.one_hot(number, len(part.values) + part.missing).float())
                continue
            weight, mean, deviation = self._table(j, x)
            logs = weight.log() - deviation.log() - 0.5 * ((x[:, None] - mean) / deviation).square()
            if rng is None:
                mode = logs.argmax(1)
            else:
                share = logs.softmax(1).cumsum(1)
                mode = (rng.at("mode", j).uniform("mode").double()[:, None] > share).sum(1).clamp(max=len(mean) - 1)
            scalar = ((x - mean[mode]) / (REACH * deviation[mode])).clamp(-clamp, clamp)
            parts.append(torch.where(gone, 0.0, scalar).float()[:, None])
            shown = torch.where(gone, len(mean), mode)
            parts.append(nn.functional.one_hot(shown, len(mean) + part.missing).float())
        return torch.cat(parts, 1)

    def outside(self, seen: Tensor) -> Batch:
        """Rows from what networks say: the likeliest mode and category, numbers on their columns' grids."""
        seen = seen.double()
        x = torch.zeros(len(seen), len(self.spec.parts), dtype=torch.float64, device=seen.device)
        missing = torch.zeros(x.shape, dtype=torch.uint8, device=seen.device)
        scalars: dict[int, Tensor] = {}
        for span in self.spans:
            j, part = span.column, self.spec.parts[span.column]
            if span.scalar:
                scalars[j] = seen[:, span.start].clamp(-1, 1)
                continue
            which = seen[:, span.slice].argmax(1)
            known = len(part.values) if part.listed else len(self.modes[j])
            gone = which >= known
            if part.listed:
                value = which.double()
            else:
                _, mean, deviation = self._table(j, seen)
                mode = which.clamp(max=known - 1)
                value = on_grid(scalars[j] * REACH * deviation[mode] + mean[mode], part)
            x[:, j] = torch.where(gone, 0.0, value)
            missing[:, j] = gone.to(torch.uint8)
        return Batch.of(x, None, {"missing": missing})


def on_grid(x: Tensor, part: Part) -> Tensor:
    """Numbers ``float64`` as ones that a column can have: inside its range, on its grid."""
    x = x.clamp(part.low, part.high)
    if part.step:
        x = (x / part.step).round() * part.step
        if part.step < 1:
            x = torch.round(x, decimals=part.decimals)
    return x.clamp(part.low, part.high)
