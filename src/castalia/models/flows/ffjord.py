"""Free-form continuous flow.

Paper
    Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud 2019, "FFJORD: Free-form Continuous Dynamics for Scalable
    Reversible Generative Models" (arXiv:1810.01367). Examples flow along dx/dt = f(x, t) with any network f, from data
    at 0 to a standard normal at T; the density changes by the trace of df/dx (continuous.py). Pictures: blocks at
    several scales, with a squeeze and half of the channels leaving between them (section 4.1.2).

What differs, and why
    Points get the exact trace, also in training: in few dimensions it is as cheap as a probe, and has no noise.
    Likelihoods of pictures draw ``samples`` dequantisations, each with a probe of its own: estimates of a bound.
    The solver is torchdiffeq's Dormand-Prince; its steps are chosen for the batch, so that an example depends on its
    neighbours by as much as the tolerance lets it; with ``steps`` it does not.

Expected: see ``recipes/ffjord.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Likelihood
from castalia.core.data import Batch, Dataset
from castalia.core.model import Logs, Model, Progress
from castalia.core.rng import Rng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.base import Flow, FlowConfig
from castalia.models.flows.continuous import Continuous, Velocity
from castalia.models.flows.layers import Layer, Squeeze
from castalia.models.flows.multiscale import MultiScale, check_halvings
from castalia.models.flows.priors import Factor, StandardNormal
from castalia.models.flows.units import Scale

FEW = 8
"""Up to so many dimensions the trace is computed exactly."""


@dataclass(frozen=True)
class FFJORDConfig(FlowConfig):
    """Configuration of a continuous flow.

    Attributes:
        blocks: equations one after the other, of points in all, of pictures at each scale.
        widths: hidden layers of the network f; channels, for pictures.
        levels: pictures: scales; each but the last is followed by a squeeze, and half of the channels leave.
        rtol: relative tolerance of the solver.
        atol: absolute tolerance of the solver.
        steps: so many steps of the classic Runge-Kutta method for each equation, in place of a solver that chooses
            its own: the work is known, the error is not; 0 for the solver.
    """

    scale: Scale = "logit"
    blocks: int = 1
    widths: tuple[int, ...] = (64, 64, 64)
    levels: int = 2
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.blocks, self.levels) < 1 or not self.widths or min(self.widths) < 1:
            raise ValueError("blocks, levels and widths must be positive")
        if min(self.rtol, self.atol) <= 0 or self.steps < 0:
            raise ValueError("rtol and atol must be positive, steps must not be negative")


class FFJORD(Flow[FFJORDConfig]):
    """Equations that carry examples to noise and back."""

    Config = FFJORDConfig

    def __init__(self, config: FFJORDConfig, spec: ImageSpec | PointsSpec) -> None:
        layers = _pictures(config, spec) if isinstance(spec, ImageSpec) else _points(config, spec.dims)
        super().__init__(config, spec, layers)

    @contextmanager
    def probing(self, rng: Rng) -> Iterator[None]:
        """A block in which traces in many dimensions are estimated: signs, as the paper has them for pictures."""
        shapes = _shapes_of(self.layers)
        try:
            for number, (layer, shape) in enumerate(shapes):
                if torch.Size(shape).numel() > FEW:
                    layer.probe = 2.0 * (rng.at("probe", number).uniform("sign", *shape) < 0.5) - 1.0
            yield
        finally:
            for layer, _ in shapes:
                layer.probe = None

    @contextmanager
    def untraced(self) -> Iterator[None]:
        """A block in which nobody asks for densities."""
        layers = [layer for layer, _ in _shapes_of(self.layers)]
        try:
            for layer in layers:
                layer.traced = False
            yield
        finally:
            for layer in layers:
                layer.traced = True

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """As of every flow; no layer is set from a batch."""
        with self.untraced():
            super().initialise(data, rng, parents)

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        """As of every flow."""
        with self.untraced():
            return super().encode(batch, rng=rng)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """As of every flow; also logs how often f was computed on the way from data to noise."""
        with self.probing(rng):
            loss, logs = super().loss(batch, rng, progress)
        evaluations = sum(layer.evaluations for layer, _ in _shapes_of(self.layers))
        return loss, {**logs, "evaluations": torch.tensor(float(evaluations), device=loss.device)}

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """As of every flow; with probes it is an estimate."""
        if self.latent_dims <= FEW:
            return super().log_likelihood(batch, rng=rng, samples=samples)
        parts = []
        for k in range(samples if isinstance(self.spec, ImageSpec) else 1):
            one = rng.at("draw", k) if k else rng
            with self.probing(one):
                parts.append(super().log_likelihood(batch, rng=one, samples=1))
        nats = torch.logsumexp(torch.stack([p.nats for p in parts]), 0) - torch.tensor(len(parts)).log()
        noises = f"K = {len(parts)} dequantisation{'s' if len(parts) > 1 else ''}, " if parts[0].kind == "bound" else ""
        return replace(parts[0], nats=nats, kind="estimate", detail=f"{noises}trace by one probe each")

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """F of each equation, (x, t) to dx/dt; a program has no solver of variable steps."""
        calls = {}
        for number, (layer, shape) in enumerate(_shapes_of(self.layers)):
            inputs = torch.zeros(2, *shape, device=self.device), torch.zeros((), device=self.device)
            calls[f"velocity{number}"] = (layer.velocity, inputs)
        return calls


def _shapes_of(layers: MultiScale) -> list[tuple[Continuous, tuple[int, ...]]]:
    """The equations and the shapes of what flows along each."""
    found, current = [], layers.shape
    for number, level in enumerate(layers.levels):
        for layer in level:  # type: ignore[attr-defined]
            if isinstance(layer, Squeeze):
                current = 4 * current[0], current[1] // 2, current[2] // 2
            elif isinstance(layer, Continuous):
                found.append((layer, current))
        if number < len(layers.factors):
            current = current[0] // 2, *current[1:]
    return found


def _points(c: FFJORDConfig, dims: int) -> MultiScale:
    equations: list[Layer] = [_equation(c, dims, pictures=False) for _ in range(c.blocks)]
    return MultiScale((dims,), [equations], [], StandardNormal())


def _pictures(c: FFJORDConfig, spec: ImageSpec) -> MultiScale:
    check_halvings(spec.height, spec.width, c.levels - 1, "config.levels")
    channels, levels, factors = spec.channels, [], []
    for level in range(c.levels):
        layers: list[Layer] = [_equation(c, channels, pictures=True) for _ in range(c.blocks)]
        if level < c.levels - 1:
            layers.append(Squeeze(channels))
            factors.append(Factor(4 * channels, learned=False))
            channels *= 2
        levels.append(layers)
    return MultiScale(spec.shape, levels, factors, StandardNormal())


def _equation(c: FFJORDConfig, channels: int, *, pictures: bool) -> Continuous:
    return Continuous(Velocity(channels, c.widths, pictures=pictures), c.rtol, c.atol, c.steps)
