"""TabDDPM: diffusion of rows, numbers by Gaussian noise and categories by changing at random.

Papers
    Kotelnikov, Baranchuk, Rubachev & Babenko 2023, "TabDDPM: Modelling Tabular Data with Diffusion Models"
    (arXiv:2209.15421). Ho et al. 2020 (arXiv:2006.11239); Nichol & Dhariwal 2021 (arXiv:2102.09672), cosine schedule.
    Hoogeboom et al. 2021 (arXiv:2102.05379), multinomial diffusion.

Equations
    Numbers, brought to a bell curve by their quantiles:  x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps,
        loss |eps - eps_theta|^2
    A category of K, one-hot:  q(x_t | x_0) = abar x_0 + (1 - abar) / K,
        q(x_t-1 | x_t, x_0) ~ (alpha x_t + (1 - alpha) / K) (abar_t-1 x_0 + (1 - abar_t-1) / K),
        loss T KL(q(x_t-1 | x_t, x_0) || q(x_t-1 | x_t, x_theta)),  at the first step -log x_theta; mean over columns
    A perceptron sees the numbers, the one-hots, the step, and the class (section 4).

What differs, and why
    A number that may be missing has a further category that says whether it is.
    The quantiles are a table of 257 points; scikit-learn's has up to a thousand.
    The target is the class where it is one; without a target there is no class, and all columns are diffused alike.

Expected: see ``recipes/tabddpm.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, spread
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import Spec
from castalia.core.specs.table import TableSpec
from castalia.models.diffusion.schedules import cosine_betas
from castalia.models.tables.columns import on_grid
from castalia.models.tables.conditions import RowSampling, asked_of, class_given, satisfied

POINTS, FITTED = 257, 50_000
"""Points of a table of quantiles, and rows that it is found from, at most."""


@dataclass(frozen=True)
class TabDDPMConfig(Config):
    """Configuration of a TabDDPM; the defaults are those of the authors for Adult.

    Attributes:
        widths: of the perceptron.
        embedding: width of what it sees.
        dropout: in the perceptron.
        steps: T.
        by_class: whether the target, where it is a category, is the class that rows are asked for by.
    """

    widths: tuple[int, ...] = (256, 1024, 1024, 1024, 1024, 256)
    embedding: int = 128
    dropout: float = 0.0
    steps: int = 100
    by_class: bool = True

    def __post_init__(self) -> None:
        if min(self.embedding, *self.widths) < 1 or self.embedding % 2 or not self.widths:
            raise ValueError("widths must be positive, embedding even")
        if not 0 <= self.dropout < 1 or self.steps < 2:
            raise ValueError("dropout is a share, steps at least 2")


@dataclass(frozen=True)
class Lot:
    """A column of categories as it is diffused: of the table, or whether a number is missing.

    Attributes:
        column: of the table.
        size: categories.
        gone: whether it says that a number is missing.
    """

    column: int
    size: int
    gone: bool


class Network(nn.Module):
    """A perceptron that sees noisy rows, the step and the class."""

    def __init__(self, inputs: int, config: TabDDPMConfig, classes: int) -> None:
        super().__init__()
        e = config.embedding
        self.into = nn.Linear(inputs, e)
        self.time = nn.Sequential(nn.Linear(e, e), nn.SiLU(), nn.Linear(e, e))
        self.kinds = nn.Embedding(classes, e) if classes else None
        layers: list[nn.Module] = []
        width = e
        for units in config.widths:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(config.dropout)]
            width = units
        self.body = nn.Sequential(*layers, nn.Linear(width, inputs))
        rate = torch.exp(-math.log(10_000) * torch.arange(e // 2) / (e // 2))
        self.register_buffer("rate", rate, persistent=False)

    rate: Tensor

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """Noise of numbers and logits of categories (n, inputs), at steps (n,) from 0, of classes (n,)."""
        angle = t[:, None].float() * self.rate
        told = self.time(torch.cat([angle.cos(), angle.sin()], 1))
        if self.kinds is not None and label is not None:
            told = told + F.silu(self.kinds(label))
        return self.body(self.into(x) + told)


class TabDDPM(Generator[TabDDPMConfig, TableSpec]):
    """A network that finds the row in noise."""

    Config = TabDDPMConfig
    SampleOptions: ClassVar[type[Sampling]] = RowSampling

    def __init__(self, config: TabDDPMConfig, spec: TableSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        target = spec.place(spec.target) if spec.target and config.by_class else -1
        listed = target >= 0 and spec.parts[target].listed and not spec.parts[target].missing and len(spec.parts) > 1
        self.target = target if listed else -1
        columns = [(j, part) for j, part in enumerate(spec.parts) if j != self.target]
        self.numbers = tuple(j for j, part in columns if not part.listed)
        self.lots = tuple(
            Lot(j, len(part.values) + part.missing if part.listed else 2, not part.listed)
            for j, part in columns
            if part.listed or part.missing
        )
        classes = len(spec.parts[self.target].values) if self.target >= 0 else 0
        inputs = len(self.numbers) + sum(lot.size for lot in self.lots)
        self.network = Network(inputs, config, classes)
        points = torch.linspace(0, 1, POINTS).expand(len(self.numbers), -1).contiguous()
        self.register_buffer("quantiles", points.double())
        self.register_buffer("shares", torch.full((max(classes, 1),), 1 / max(classes, 1)))

    quantiles: Tensor
    shares: Tensor

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find the quantiles of numbers, and how often classes occur."""
        batch = data.batch(spread(len(data), FITTED))
        level = torch.linspace(0, 1, POINTS, dtype=torch.float64)
        for i, j in enumerate(self.numbers):
            there = batch.x[batch.extra["missing"][:, j] == 0, j]
            if len(there):
                self.quantiles[i] = torch.from_numpy(np.quantile(there.numpy(), level.numpy()))
        if self.target >= 0:
            counts = torch.bincount(batch.x[:, self.target].long(), minlength=len(self.shares)).float()
            self.shares.copy_(counts / counts.sum())

    # between rows and what the network sees

    def bell(self, x: Tensor, i: int, uniform: Tensor) -> Tensor:
        """Numbers ``float64`` (n,) of column ``numbers[i]`` on a bell curve, within 3.5 deviations.

        Of a number that occurs often the place among its quantiles is drawn by ``uniform`` (n,).
        """
        table = self.quantiles[i].contiguous()
        first = torch.searchsorted(table, x.contiguous(), right=False).clamp(max=POINTS - 1)
        last = (torch.searchsorted(table, x.contiguous(), right=True) - 1).clamp(min=0)
        below = (first - 1).clamp(min=0)
        gap = table[first] - table[below]
        between = below + torch.where(gap > 0, (x - table[below]) / gap.clamp(min=1e-300), 0.0)
        # the middle of where it stands, not a point drawn at random, where it is one of many equal quantiles
        share = torch.where(last > first, first + uniform.double() * (last - first), between) / (POINTS - 1)
        return torch.special.ndtri(share.clamp(2.4e-4, 1 - 2.4e-4))

    def unbell(self, z: Tensor, i: int) -> Tensor:
        """The inverse of :meth:`bell`, ``float64``."""
        place = torch.special.ndtr(z.double()) * (POINTS - 1)
        below = place.floor().long().clamp(0, POINTS - 2)
        table = self.quantiles[i]
        return table[below] + (place - below) * (table[below + 1] - table[below])

    def inside(self, batch: Batch, rng: Rng) -> tuple[Tensor, list[Tensor]]:
        """Numbers ``float32`` (n, numbers), 0 where missing; and the category of each lot ``int64`` (n,)."""
        gone = batch.extra["missing"] == 1
        columns = []
        for i, j in enumerate(self.numbers):
            value = self.bell(batch.x[:, j].double(), i, rng.at("bell", i).uniform("place"))
            columns.append(torch.where(gone[:, j], 0.0, value).float())
        lots = []
        for lot in self.lots:
            behind = torch.where(gone[:, lot.column], lot.size - 1, batch.x[:, lot.column].long())
            lots.append(gone[:, lot.column].long() if lot.gone else behind)
        numbers = torch.stack(columns, 1) if columns else torch.zeros(len(batch), 0, device=batch.x.device)
        return numbers, lots

    def outside(self, numbers: Tensor, lots: list[Tensor], label: Tensor | None) -> Batch:
        """Rows."""
        n = len(lots[0]) if lots else len(numbers)
        x = torch.zeros(n, len(self.spec.parts), dtype=torch.float64, device=numbers.device)
        missing = torch.zeros(x.shape, dtype=torch.uint8, device=numbers.device)
        for i, j in enumerate(self.numbers):
            x[:, j] = on_grid(self.unbell(numbers[:, i], i), self.spec.parts[j])
        for lot, which in zip(self.lots, lots, strict=True):
            part = self.spec.parts[lot.column]
            if lot.gone:
                missing[:, lot.column] = which.to(torch.uint8)
            else:
                missing[:, lot.column] = (which >= len(part.values)).to(torch.uint8)
                x[:, lot.column] = which.clamp(max=len(part.values) - 1).double()
        if label is not None:
            x[:, self.target] = label.double()
        return Batch.of(torch.where(missing == 1, 0.0, x), None, {"missing": missing})

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("tabddpm", self.network, self.loss),)),)

    def levels(self) -> tuple[Tensor, Tensor]:
        """Alpha and abar of all steps, ``float64`` (T,)."""
        alpha = torch.from_numpy(1 - cosine_betas(self.config.steps)).to(self.device)
        return alpha, alpha.cumprod(0)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Error of the noise, and T times the divergence of categories, each the mean over its columns."""
        numbers, lots = self.inside(batch, rng)
        t = rng.integers("step", self.config.steps)
        _, abar = self.levels()
        level = abar[t].float()[:, None]
        noise = rng.normal("noise", numbers.shape[1])
        noisy = level.sqrt() * numbers + (1 - level).sqrt() * noise
        states = [self.spoiled(which, lot.size, t, rng.at("spoil", i)) for i, (which, lot) in self._lots(lots)]
        found = self.call(noisy, states, t, self._label(batch)).float()
        there = torch.ones_like(numbers)
        for i, j in enumerate(self.numbers):  # of a missing number there is nothing to find
            there[:, i] = (batch.extra["missing"][:, j] == 0).float()
        square = ((found[:, : numbers.shape[1]] - noise).square() * there).sum(1) / max(numbers.shape[1], 1)
        gaussian = square.mean()
        nats = torch.zeros(len(batch), device=found.device)
        for (_, (which, lot)), state, logits in zip(self._lots(lots), states, self.logits(found), strict=True):
            nats = nats + self.divergence(which, state, logits, lot.size, t)
        multinomial = self.config.steps * nats.mean() / max(len(self.lots), 1)
        logs = {"gaussian": gaussian.detach(), "multinomial": multinomial.detach()}
        return (gaussian + multinomial).float(), logs

    def _lots(self, lots: list[Tensor]) -> list[tuple[int, tuple[Tensor, Lot]]]:
        return list(enumerate(zip(lots, self.lots, strict=True)))

    def _label(self, batch: Batch) -> Tensor | None:
        return batch.x[:, self.target].long() if self.target >= 0 else None

    def call(self, numbers: Tensor, lots: list[Tensor], t: Tensor, label: Tensor | None) -> Tensor:
        """The network on a state."""
        hot = [F.one_hot(which, lot.size).float() for _, (which, lot) in self._lots(lots)]
        return self.network(torch.cat([numbers, *hot], 1), t, label)

    def logits(self, found: Tensor) -> list[Tensor]:
        """Logits (n, size) of each lot."""
        return list(found[:, len(self.numbers) :].split([lot.size for lot in self.lots], 1)) if self.lots else []

    def spoiled(self, which: Tensor, size: int, t: Tensor, rng: Rng) -> Tensor:
        """x_t of a category: kept with probability abar, else any, ``int64`` (n,)."""
        _, abar = self.levels()
        keep = rng.uniform("keep").double() < abar[t]
        other = (rng.uniform("other") * size).long().clamp(max=size - 1)
        return torch.where(keep, which, other)

    def posterior(self, state: Tensor, clean: Tensor, size: int, t: Tensor) -> Tensor:
        """q(x_t-1 | x_t, x_0) ``float64`` (n, size), where x_0 is given by shares ``clean`` (n, size)."""
        alpha, abar = self.levels()
        a = alpha[t][:, None]
        before = torch.where(t > 0, abar[(t - 1).clamp(min=0)], 1.0)[:, None]
        here = a * F.one_hot(state, size).double() + (1 - a) / size
        there = before * clean.double() + (1 - before) / size
        both = here * there
        # the first step has no posterior: x_0 is drawn from the shares, of which its loss is the likelihood
        return torch.where((t > 0)[:, None], both / both.sum(1, keepdim=True).clamp(min=1e-300), clean.double())

    def divergence(self, which: Tensor, state: Tensor, logits: Tensor, size: int, t: Tensor) -> Tensor:
        """Nats (n,) that a step costs: the divergence of both posteriors, at the first step -log of the truth."""
        shares = logits.double().softmax(1)
        truth = self.posterior(state, F.one_hot(which, size), size, t)
        guess = self.posterior(state, shares, size, t)
        floor = 1e-30
        kl = (truth * ((truth + floor).log() - (guess + floor).log())).sum(1)
        first = F.cross_entropy(logits, which, reduction="none")
        return torch.where(t > 0, kl, first.double()).float()

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return asked_of(self.spec)

    def draw(self, n: int, given: Given, rng: SampleRng, options: RowSampling, watch: Watch | None) -> Batch:
        """Rows; the temperature multiplies the noise of numbers, and categories are the likeliest at 0."""
        times = [0]

        def once(rng: SampleRng) -> Batch:
            times[0] += 1
            return self._rows(given, rng, options, watch if times[0] == 1 and not given and not options.rules else None)

        return satisfied(once, self.spec, given, rng, options)

    def _rows(self, given: Given, rng: SampleRng, options: RowSampling, watch: Watch | None) -> Batch:
        label = class_given(given, self.spec, self.target) if self.target >= 0 else None
        if label is None and self.target >= 0:
            bounds = self.shares.double().cumsum(0).float()
            label = torch.searchsorted(bounds, rng.uniform("class"), right=True).clamp(max=len(self.shares) - 1)
        alpha, abar = self.levels()
        numbers = options.temperature * rng.normal("start", len(self.numbers))
        n, last = len(numbers), self.config.steps - 1
        lots = [
            (rng.at("begin", i).uniform("category") * lot.size).long().clamp(max=lot.size - 1)
            for i, lot in enumerate(self.lots)
        ]
        for step in range(last, -1, -1):
            t = torch.full((n,), step, dtype=torch.int64, device=numbers.device)
            found = self.call(numbers, lots, t, label).float()
            a, now = float(alpha[step]), float(abar[step])
            before = float(abar[step - 1]) if step else 1.0
            noise = found[:, : numbers.shape[1]]
            clean = ((numbers - (1 - now) ** 0.5 * noise) / now**0.5).clamp(-4, 4)
            numbers = (before**0.5 * (1 - a) * clean + a**0.5 * (1 - before) * numbers) / (1 - now)
            here = rng.at("step", step)
            if step:
                deviation = ((1 - before) / (1 - now) * (1 - a)) ** 0.5
                numbers = numbers + options.temperature * deviation * here.normal("again", len(self.numbers))
            drawn = []
            for i, (state, lot, logits) in enumerate(zip(lots, self.lots, self.logits(found), strict=True)):
                odds = self.posterior(state, logits.double().softmax(1), lot.size, t)
                if options.temperature:
                    level = here.at("lot", i).uniform("category").double()[:, None]
                    which = (level > odds.cumsum(1)).sum(1).clamp(max=lot.size - 1)
                else:
                    which = odds.argmax(1)
                drawn.append(which)
            lots = drawn
            if watch is not None:
                state = (numbers, list(lots))
                watch(Preview(last - step + 1, last + 1, lambda s=state: self.outside(*s, label)))
        return self.outside(numbers, lots, label)
