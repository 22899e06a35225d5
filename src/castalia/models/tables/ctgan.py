"""CTGAN: rows of a table from a generator that is told one category of each.

Papers
    Xu, Skoularidou, Cuesta-Infante & Veeramachaneni 2019, "Modeling Tabular Data using Conditional GAN"
    (arXiv:1907.00503). Lin et al. 2018 (arXiv:1712.04086), PacGAN. Gulrajani et al. 2017 (arXiv:1704.00028).
    Jang et al. 2017 (arXiv:1611.01144), Gumbel softmax.

Equations
    A column of categories is chosen evenly, a category of it by the logarithm of how often it occurs; a real row that
    has it is shown to the critic, and the generator is told it (section 4.3).
    Critic, of ``pack`` rows at once:  E C(fake) - E C(real) + 10 E (|grad C| - 1)^2
    Generator:  -E C(fake) + cross entropy of what it makes of the column that it was told
    Numbers come out of tanh, modes and categories out of a Gumbel softmax with temperature 0.2.

What differs, and why
    Sampled rows are told categories as often as they really occur; public code keeps to the logarithms, which distorts
    marginals. Sampling uses the running statistics of batch normalisation, so no row depends on the others.
    Missing values are modes or categories of their own; the paper has none.
    Real and fake rows of a pack are told the same categories; the authors' code shuffles those of the real ones.
    No row of the training data is kept in the model.

Expected: see ``recipes/ctgan.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Latents
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, spread
from castalia.core.model import Generator, Logs, Model, Objective, Optimizer, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.spec import Spec
from castalia.core.specs.table import TableSpec
from castalia.models.adversarial.layers import still
from castalia.models.adversarial.losses import gradient_penalty, wasserstein
from castalia.models.tables.columns import Columns, Modes, fit_modes
from castalia.models.tables.conditions import RowSampling, asked_of, satisfied

AT_ONCE = 65_536
"""Rows that are read at once to find which have which category."""
COUNTED = 200_000
"""Rows from which it is counted how often categories occur, at most."""


@dataclass(frozen=True)
class CTGANConfig(Config):
    """Configuration of a CTGAN; the defaults are the paper's.

    Attributes:
        latent_dims: length of the latents.
        generator: units of its residual layers.
        critic: units of its layers.
        dropout: in the critic.
        pack: rows that the critic sees at once; it divides the batch size.
        critic_steps: of the critic to one of the generator.
        critic_optimizer: None takes the recipe's.
        penalty: weight of the critic's penalty.
        softness: temperature of the Gumbel softmax.
        modes: of the columns; found in the data.
    """

    latent_dims: int = 128
    generator: tuple[int, ...] = (256, 256)
    critic: tuple[int, ...] = (256, 256)
    dropout: float = 0.5
    pack: int = 10
    critic_steps: int = 1
    critic_optimizer: Optimizer | None = None
    penalty: float = 10.0
    softness: float = 0.2
    modes: tuple[Modes, ...] = ()

    def __post_init__(self) -> None:
        if min(self.latent_dims, self.pack, self.critic_steps, *self.generator, *self.critic) < 1:
            raise ValueError("sizes must be positive")
        if not 0 <= self.dropout < 1 or self.penalty <= 0 or self.softness <= 0:
            raise ValueError("dropout is a share; penalty and softness must be positive")


class Residual(nn.Module):
    """relu(norm(W x)), and x beside it."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(inputs, width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(self.norm(self.layer(x))), x], 1)


class CTGAN(Generator[CTGANConfig, TableSpec], Latents):
    """Rows G(z, told)."""

    Config = CTGANConfig
    SampleOptions: ClassVar[type[Sampling]] = RowSampling

    def __init__(self, config: CTGANConfig, spec: TableSpec) -> None:
        super().__init__()
        c = config
        self.config, self.spec, self.latent_dims = config, spec, c.latent_dims
        self.columns = Columns(spec, c.modes or tuple(() if p.listed else ((1.0, 0.0, 1.0),) for p in spec.parts))
        self.lists = tuple(span for span in self.columns.spans if span.listed)
        told = sum(span.size for span in self.lists)
        layers, width = [], c.latent_dims + told
        for units in c.generator:
            layers.append(Residual(width, units))
            width += units
        self.generator = nn.Sequential(*layers, nn.Linear(width, self.columns.size))
        layers, width = [], c.pack * (self.columns.size + told)
        for units in c.critic:
            layers += [nn.Linear(width, units), nn.LeakyReLU(0.2), nn.Dropout(c.dropout)]
            width = units
        self.critic = nn.Sequential(*layers, nn.Linear(width, 1))
        for k, span in enumerate(self.lists):
            self.register_buffer(f"share_{k}", torch.full((span.size,), 1 / span.size))
        self.told_size = told

    @classmethod
    def complete(cls, config: CTGANConfig, data: Dataset) -> CTGANConfig:
        assert isinstance(data.spec, TableSpec)
        return config if config.modes else replace(config, modes=fit_modes(data, data.spec))

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Count how often each category occurs."""
        numbers = _numbers(data.batch(spread(len(data), COUNTED)), self.spec)
        for k, span in enumerate(self.lists):
            counts = torch.bincount(numbers[:, k], minlength=span.size).float()
            self.get_buffer(f"share_{k}").copy_(counts / counts.sum())

    # the game

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        critic = Objective("critic", self.critic, self.critic_loss, c.critic_optimizer, repeat=c.critic_steps)
        objectives = (critic, Objective("generator", self.generator, self.generator_loss))
        return (Stage("train", objectives, data=self.balanced if self.lists else None),)

    def balanced(self, data: Dataset) -> Dataset:
        """The rows as training by sampling shows them."""
        return Balanced(data, self.spec)

    def told(self, batch: Batch) -> Tensor:
        """What the generator is told (B, told): one category of a column, one-hot; zeros for the other columns."""
        if "asked" not in batch.extra:
            return torch.zeros(len(batch), self.told_size, device=batch.x.device)
        return self._told(batch.extra["asked"], _numbers(batch, self.spec))

    def _told(self, which: Tensor, numbers: Tensor) -> Tensor:
        parts = []
        for k, span in enumerate(self.lists):
            hot = F.one_hot(numbers[:, k], span.size).float()
            parts.append(hot * (which == k)[:, None])
        return torch.cat(parts, 1) if parts else numbers.new_zeros(len(numbers), 0).float()

    def make(self, told: Tensor, z: Tensor, rng: Rng | None) -> tuple[Tensor, Tensor]:
        """Fake rows as the critic sees them, and the generator's raw outputs, both (n, size)."""
        raw = self.generator(torch.cat([z, told.to(z.dtype)], 1)).float()
        parts = []
        for i, span in enumerate(self.columns.spans):
            logits = raw[:, span.slice]
            if span.scalar:
                parts.append(torch.tanh(logits))
                continue
            if rng is not None:
                noise = rng.at("choice", i).uniform("gumbel", span.size).clamp(1e-7, 1 - 1e-7)
                logits = logits - torch.log(-torch.log(noise))
            parts.append((logits / self.config.softness).softmax(1))
        return torch.cat(parts, 1), raw

    def judge(self, rows: Tensor, told: Tensor) -> Tensor:
        """The critic's numbers (packs,) of rows (n, size), ``pack`` of them at a time."""
        return self.critic(self.packed(rows, told)).flatten()

    def packed(self, rows: Tensor, told: Tensor) -> Tensor:
        """Rows side by side (packs, pack * width); what does not fill a pack is left out."""
        both = torch.cat([rows, told], 1)
        whole = len(both) // self.config.pack * self.config.pack
        if not whole:
            raise ValueError(f"a batch of {len(both)} rows does not fill a pack of {self.config.pack}")
        return both[:whole].reshape(-1, self.config.pack * both.shape[1])

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The negative dual of the distance, and the penalty."""
        told = self.told(batch)
        real = self.columns.inside(batch, rng, clamp=0.99)
        with torch.no_grad(), still(self.generator):
            fake, _ = self.make(told, rng.normal("latent", self.latent_dims), rng)
        distance = wasserstein(self.judge(real, told), self.judge(fake, told))
        a, b = self.packed(real, told), self.packed(fake, told)
        share = rng.uniform("mix")[:: self.config.pack][: len(a), None]
        penalty = gradient_penalty(lambda x: self.critic(x).flatten(), share * a + (1 - share) * b)
        logs = {"wasserstein": distance.detach(), "penalty": penalty.detach()}
        return self.config.penalty * penalty - distance, logs

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Minus the critic's mean, and the cross entropy of the categories that were told."""
        told = self.told(batch)
        fake, raw = self.make(told, rng.normal("latent", self.latent_dims), rng)
        loss = -self.judge(fake, told).mean()
        if "asked" not in batch.extra:
            return loss, {}
        numbers, nats = _numbers(batch, self.spec), torch.zeros((), device=raw.device)
        for k, span in enumerate(self.lists):
            one = F.cross_entropy(raw[:, span.slice], numbers[:, k], reduction="none")
            nats = nats + (one * (batch.extra["asked"] == k)).mean()
        return loss + nats, {"told": nats.detach()}

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return asked_of(self.spec)

    def draw(self, n: int, given: Given, rng: SampleRng, options: RowSampling, watch: Watch | None) -> Batch:
        """Rows; the temperature multiplies the latents."""

        def once(rng: SampleRng) -> Batch:
            z = options.temperature * rng.normal("latent", self.latent_dims)
            return self.columns.outside(self.make(self.wanted(given, rng), z, rng)[0])

        return satisfied(once, self.spec, given, rng, options)

    def wanted(self, given: Given, rng: Rng | None, n: int = 0) -> Tensor:
        """What sampled rows are told: a category that is given, else one as often as it occurs (n, told)."""
        asked = [k for k, span in enumerate(self.lists) if self.spec.parts[span.column].name in given]
        if not self.lists:
            return torch.zeros(n if rng is None else len(rng.uniform("which")), 0, device=self.device)
        if rng is None:
            which = torch.full((n,), asked[0] if asked else 0, device=self.device)
            level = torch.full((n,), 0.5, device=self.device)
        else:
            among = asked or list(range(len(self.lists)))
            place = (rng.uniform("which") * len(among)).long().clamp(max=len(among) - 1)
            which, level = torch.tensor(among, device=self.device)[place], rng.uniform("category")
        numbers = []
        for k, span in enumerate(self.lists):
            name = self.spec.parts[span.column].name
            if name in given:
                numbers.append(given[name])
                continue
            bounds = self.get_buffer(f"share_{k}").double().cumsum(0).float()
            numbers.append(torch.searchsorted(bounds, level, right=True).clamp(max=span.size - 1))
        return self._told(which, torch.stack(numbers, 1))

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        given = check_given(self, given, len(z))
        row = self.columns.outside(self.make(self.wanted(given, rng, len(z)), z, rng)[0])
        return satisfied(lambda _: row, self.spec, given, rng or SampleRng(0, range(len(z))), RowSampling(tries=1))


def _numbers(batch: Batch, spec: TableSpec) -> Tensor:
    """The categories of a batch ``int64`` (B, columns that are listed); a missing one is behind the last."""
    found = []
    for j, part in enumerate(spec.parts):
        if part.listed:
            gone = batch.extra["missing"][:, j] == 1
            found.append(torch.where(gone, len(part.values), batch.x[:, j].long()))
    return torch.stack(found, 1) if found else torch.zeros(len(batch), 0, dtype=torch.int64, device=batch.x.device)


@final
class Balanced(Dataset):
    """Rows drawn so that rare categories are seen: training by sampling.

    For each row of a batch a column of categories is chosen evenly, a category of it by the logarithm of how often it
    occurs, and one of the rows that have it. ``Batch.extra`` has ``asked``, which of these columns it was.
    """

    def __init__(self, data: Dataset, spec: TableSpec) -> None:
        self.data, self.spec, self.name, self.fingerprint = data, spec, data.name, data.fingerprint  # pyright: ignore[reportIncompatibleVariableOverride]
        numbers = [
            _numbers(data.batch(np.arange(a, min(a + 65_536, len(data)))), spec) for a in range(0, len(data), 65_536)
        ]
        table = torch.cat(numbers).numpy()
        self.rows, self.starts, self.odds = [], [], []
        for column in table.T:
            counts = np.bincount(column)
            self.rows.append(np.argsort(column, kind="stable"))
            self.starts.append(np.concatenate([[0], np.cumsum(counts)]))
            logs = np.log(counts + 1.0) * (counts > 0)
            self.odds.append(np.cumsum(logs / logs.sum()))

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        if rng is None:
            plain = self.data.batch(ids)
            return Batch(plain.x, plain.ids, plain.label, {**plain.extra, "asked": torch.zeros(len(ids)).long()})
        uniform = rng.uniform("balanced", 3).cpu().double().numpy()
        which = np.minimum((uniform[:, 0] * len(self.rows)).astype(np.int64), len(self.rows) - 1)
        chosen = np.empty(len(ids), np.int64)
        for k in np.unique(which):
            mine = which == k
            category = np.minimum(np.searchsorted(self.odds[k], uniform[mine, 1], side="right"), len(self.odds[k]) - 1)
            first, last = self.starts[k][category], self.starts[k][category + 1]
            place = first + np.minimum((uniform[mine, 2] * (last - first)).astype(np.int64), last - first - 1)
            chosen[mine] = self.rows[k][place]
        found = self.data.batch(chosen)
        return Batch(found.x, found.ids, found.label, {**found.extra, "asked": torch.from_numpy(which)})
