"""MolGAN: molecules as graphs, made at once, against a critic and towards a reward.

Papers
    De Cao & Kipf 2018, "MolGAN: An implicit generative model for small molecular graphs" (arXiv:1805.11973).
    Gulrajani et al. 2017 (arXiv:1704.00028): the critic's penalty.

Equations
    A perceptron turns z ~ N(0, 1) into shares X (atoms) and A (bonds, symmetric). The critic D and the reward network R
    are relational convolutions with a gated sum over atoms (eqs. 4 to 6), so no order of the atoms matters to them.
    D:  E D(fake) - E D(real) + 10 E (|grad D| - 1)^2 on mixtures of both                              (eqs. 2 and 3)
    G:  lambda L_WGAN + (1 - lambda) L_RL,  L_RL = -E R(G(z))                                            (eq. 7)
    R:  its square distance from a score that chemistry gives, of real graphs and of fake ones; 0 of invalid ones.
    Shares are ``soft`` (softmax), or noisy (Gumbel softmax), or one-hot in the forward pass with the gradient of the
    noisy ones (``straight-through``): section 3.1's "discretisation".
    At the paper's size (9 atoms of 4 kinds, z 32) the generator has 358,129 parameters and the critic 36,865.

What differs, and why
    The paper's lambda is 1 in the first half of training and 0 (or another) in the second; so it is here. As in the
    authors' code L_RL is scaled by |L_WGAN / L_RL|.
    The norm of the critic's slope is that of the whole graph, atoms and bonds together; theirs, of each last axis by
    itself, is ``penalty_norm = "axis"``.
    The authors' code tells the critic of the whole batch by a mean; here of ``group`` rows at a time, so that what is
    learned does not depend on the number of processes. The penalty then mixes all rows of a group by one share: with a
    share for each, every group would be half real, and a critic of whole groups would have no bound.
    A reward for whole molecules is had most easily by making one of them for ever, and one in ten of the paper's is
    unlike the others. ``distinct`` pays for a molecule once; the authors' code has such a score among its many.
    No atom is bound to itself: the diagonal is none.

Expected: see ``recipes/molgan.py`` and the system's page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.chemistry.molecules import chem, graph_molecule
from castalia.core.capabilities import Exportable, Latents
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Objective, Optimizer, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.specs.molecule import MoleculeSpec
from castalia.models.adversarial.layers import still
from castalia.models.adversarial.losses import wasserstein
from castalia.models.molecules.graphs import BOND_KINDS, Judge, Maker

REMEMBERED = 200_000
"""Molecules whose scores are kept, so that none is computed twice."""


@dataclass(frozen=True)
class MolGANConfig(Config):
    """Configuration of MolGAN.

    Attributes:
        latent_dims: length of the latents.
        widths: hidden layers of the generator.
        convolutions: relational convolutions of critic and reward network.
        aggregated: width of their gated sum over atoms.
        dense: layers behind it.
        batch_features: what the critic is told about its batch (see :class:`~castalia.models.molecules.graphs.Judge`).
        group: rows that are told of one another.
        dropout: in all networks.
        discrete: how shares become choices in training.
        noise: how much Gumbel noise choices have, in training and when sampling; 1 is the paper's. Without any (0) the
            latent decides alone, and ``straight-through`` is a plain argmax in the forward pass.
        sharpness: temperature of the softmax of noisy choices.
        critic_steps: of the critic to one of the generator.
        critic_optimizer: None takes the recipe's.
        penalty: weight of the critic's penalty.
        penalty_norm: ``graph`` or ``axis`` (see the module).
        reward: what is rewarded: ``none``; ``valid``; or a score of
            :func:`castalia.chemistry.properties.score_of` (``qed``, ``solubility*ease``), where invalid ones get 0.
        distinct: whether a molecule that was made k times among ``group`` rows gets a k-th of its score only.
        balance: lambda from ``reward_from`` on: 1 is the critic alone, 0 the reward alone.
        reward_from: share of the training after which the reward counts.
    """

    latent_dims: int = 32
    widths: tuple[int, ...] = (128, 256, 512)
    convolutions: tuple[int, ...] = (64, 32)
    aggregated: int = 128
    dense: tuple[int, ...] = (128,)
    batch_features: int = 0
    group: int = 16
    dropout: float = 0.0
    discrete: Literal["soft", "gumbel", "straight-through"] = "soft"
    noise: float = 1.0
    sharpness: float = 1.0
    critic_steps: int = 5
    critic_optimizer: Optimizer | None = None
    penalty: float = 10.0
    penalty_norm: Literal["graph", "axis"] = "graph"
    reward: str = "none"
    distinct: bool = False
    balance: float = 0.0
    reward_from: float = 0.5

    def __post_init__(self) -> None:
        sizes = (self.latent_dims, self.aggregated, self.group, self.critic_steps, *self.widths, *self.convolutions)
        if min(*sizes, *self.dense, 1) < 1 or not self.widths or not self.convolutions:
            raise ValueError("sizes must be positive, and there must be widths and convolutions")
        if (
            self.batch_features < 0
            or not 0 <= self.dropout < 1
            or min(self.sharpness, self.penalty) <= 0
            or self.noise < 0
        ):
            raise ValueError(
                "batch_features and noise must not be negative, dropout is a share; sharpness and penalty are positive"
            )
        if self.distinct and self.reward == "none":
            raise ValueError("distinct says how a reward is shared: set reward as well")
        if not 0 <= self.balance <= 1 or not 0 <= self.reward_from <= 1:
            raise ValueError("balance and reward_from lie between 0 and 1")


class MolGAN(Generator[MolGANConfig, MoleculeSpec], Latents, Exportable):
    """Graphs G(z), judged as wholes."""

    Config = MolGANConfig

    def __init__(self, config: MolGANConfig, spec: MoleculeSpec) -> None:
        super().__init__()
        if spec.kind != "graph":
            raise UsageError("MolGAN works on graphs: set data.options.kind=graph.")
        c = config
        self.config, self.spec, self.latent_dims = config, spec, c.latent_dims
        self.generator = Maker(c.latent_dims, c.widths, spec.length, spec.size, c.dropout)
        judge = (spec.size, c.convolutions, c.aggregated, c.dense)
        self.critic = Judge(*judge, c.batch_features, c.group, c.dropout)
        self.reward = Judge(*judge, dropout=c.dropout) if c.reward != "none" else None
        self.score = _Scores(c.reward, spec)

    # playing

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        objectives = [
            Objective("critic", self.critic, self.critic_loss, c.critic_optimizer, repeat=c.critic_steps),
            Objective("generator", self.generator, self.generator_loss),
        ]
        if self.reward is not None:
            objectives.append(Objective("reward", self.reward, self.reward_loss, c.critic_optimizer))
        return (Stage("train", tuple(objectives)),)

    def real(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Real graphs as shares: atoms (B, N, kinds), bonds (B, N, N, 4), ``float32``."""
        return (
            F.one_hot(batch.x, self.spec.size).float(),
            F.one_hot(batch.extra["bonds"], BOND_KINDS).float(),
        )

    def make(self, rng: Rng) -> tuple[Tensor, Tensor]:
        """Fake graphs as shares that the critic sees, with gradients."""
        atoms, bonds = self.logits(rng.normal("latent", self.latent_dims))
        if self.config.discrete == "soft":
            return atoms.softmax(-1), bonds.softmax(-1)
        return self._noisy(atoms, rng.uniform("atoms", *atoms.shape[1:])), self._noisy(
            bonds, mirrored(rng.uniform("bonds", *bonds.shape[1:]))
        )

    def _noisy(self, logits: Tensor, uniform: Tensor) -> Tensor:
        noisy = (logits + self.config.noise * gumbel(uniform)) / self.config.sharpness
        soft = noisy.softmax(-1)
        if self.config.discrete == "gumbel":
            return soft
        hard = F.one_hot(noisy.argmax(-1), noisy.shape[-1]).to(soft.dtype)
        return hard + soft - soft.detach()

    def logits(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``float32`` of atoms (n, N, kinds) and of bonds (n, N, N, 4); on the diagonal there is none."""
        atoms, bonds = (part.float() for part in self.generator(z))
        itself = torch.eye(bonds.shape[1], dtype=torch.bool, device=bonds.device)[:, :, None]
        kinds = torch.arange(BOND_KINDS, device=bonds.device) > 0
        return atoms, bonds.masked_fill(itself & kinds, -1e4)

    # what they play for

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The negative dual of the distance, and the penalty on mixtures."""
        real = self.real(batch)
        with torch.no_grad(), still(self.generator):
            fake = self.make(rng)
        distance = wasserstein(self.critic(*real), self.critic(*fake))
        share = rng.uniform("mix")
        if self.config.batch_features:  # from a group of real ones to a group of made ones
            share = torch.cat([part[:1].expand_as(part) for part in share.split(self.config.group)])
        penalty = self.penalty(real, fake, share)
        logs = {"wasserstein": distance.detach(), "penalty": penalty.detach()}
        return self.config.penalty * penalty - distance, logs

    def penalty(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], share: Tensor) -> Tensor:
        """Mean squared distance from 1 of the norm of the critic's slope, at ``share`` (n,) of the real graph."""
        at = [
            (share.view(-1, *[1] * (r.ndim - 1)) * r + (1 - share.view(-1, *[1] * (r.ndim - 1))) * f)
            .detach()
            .float()
            .requires_grad_(True)
            for r, f in zip(real, fake, strict=True)
        ]
        with torch.enable_grad(), torch.autocast(at[0].device.type, enabled=False):
            atoms, bonds = torch.autograd.grad(self.critic(*at).sum(), at, create_graph=True)
        if self.config.penalty_norm == "axis":
            return sum(((g.norm(dim=-1) - 1).square().mean() for g in (atoms, bonds)), torch.zeros(()))
        whole = torch.cat([atoms.flatten(1), bonds.flatten(1)], 1)
        return (torch.linalg.vector_norm(whole, dim=1) - 1).square().mean()

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Eq. 7."""
        c, fake = self.config, self.make(rng)
        against = -self.critic(*fake).mean()
        if self.reward is None or progress.fraction < c.reward_from:
            return against, {}
        rewarded = -torch.sigmoid(self.reward(*fake).float()).mean()
        scale = (against.detach() / rewarded.detach().clamp(max=-1e-6)).abs()
        loss = c.balance * against + (1 - c.balance) * (scale * rewarded if c.balance else rewarded)
        return loss, {"reward": -rewarded.detach()}

    def reward_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """How far the reward network is from the scores of real and of fake graphs, squared."""
        assert self.reward is not None
        real = self.real(batch)
        with torch.no_grad(), still(self.generator):
            fake = self.make(rng)
        on_real = self.score(batch.x, batch.extra["bonds"])
        made = fake[0].argmax(-1), fake[1].argmax(-1)
        on_fake = self.score(*made)
        if self.config.distinct:
            on_fake = on_fake / torch.cat([self.score.times(*part) for part in _groups(made, self.config.group)])
        errors = [
            (torch.sigmoid(self.reward(*shares).float()) - truth).square().mean()
            for shares, truth in ((real, on_real), (fake, on_fake))
        ]
        return errors[0] + errors[1], {"real": on_real.mean(), "fake": on_fake.mean()}

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        """Molecules of latents from the prior.

        The temperature multiplies the latents, and the noise of choices where training has noise.
        """
        z = options.temperature * rng.normal("latent", self.latent_dims)
        return self._chosen(z, rng, options.temperature * self.config.noise)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        check_given(self, given, len(z))
        return self._chosen(z, rng, self.config.noise)

    def _chosen(self, z: Tensor, rng: SampleRng | None, noise: float) -> Batch:
        atoms, bonds = self.logits(z)
        if rng is not None and noise and self.config.discrete != "soft":
            atoms = atoms + noise * gumbel(rng.uniform("atoms", *atoms.shape[1:]))
            bonds = bonds + noise * gumbel(mirrored(rng.uniform("bonds", *bonds.shape[1:])))
        x, kinds = atoms.argmax(-1), bonds.argmax(-1)
        there = x > 0
        kinds = kinds * (there[:, :, None] & there[:, None])  # no bond to an atom that is not there
        return Batch.of(x, None, {"bonds": kinds})

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The generator: latents (B, z) to logits of atoms and of bonds."""
        return {"generator": (self.generator, (torch.zeros(2, self.latent_dims, device=self.device),))}


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise from uniform numbers in [0, 1)."""
    tiny = 1e-7
    return -torch.log(-torch.log(uniform.clamp(tiny, 1 - tiny)))


def mirrored(noise: Tensor) -> Tensor:
    """Noise (n, N, N, k) that is the same for both directions of a bond."""
    upper = torch.triu(torch.ones(noise.shape[1:3], dtype=torch.bool, device=noise.device), 1)[:, :, None]
    return torch.where(upper, noise, noise.transpose(1, 2))


class _Scores:
    """Scores of graphs by chemistry, remembered: not a module, has no state that matters."""

    def __init__(self, name: str, spec: MoleculeSpec) -> None:
        self.name, self.spec = name, spec
        self.known: dict[bytes, tuple[float, str]] = {}
        self.run: Callable[[object], float] | None = None
        if name not in ("none", "valid"):
            from castalia.chemistry.properties import score_of

            self.run = score_of(name)

    def __call__(self, x: Tensor, bonds: Tensor) -> Tensor:
        """Scores ``float32`` (n,): 0 where chemistry allows none, or it is in pieces."""
        found = [self._of(atoms, table)[0] for atoms, table in _rows(x, bonds)]
        return torch.tensor(found, dtype=torch.float32, device=x.device)

    def times(self, x: Tensor, bonds: Tensor) -> Tensor:
        """How often each molecule is among these, in any order of atoms, ``float32`` (n,); 1 where it is none."""
        names = [self._of(atoms, table)[1] for atoms, table in _rows(x, bonds)]
        often = Counter(names)
        return torch.tensor([often[name] if name else 1 for name in names], dtype=torch.float32, device=x.device)

    def _of(self, atoms: np.ndarray, table: np.ndarray) -> tuple[float, str]:
        """Score and canonical SMILES; 0 and nothing of what chemistry does not allow, or is in pieces."""
        key = atoms.astype(np.uint8).tobytes() + table.astype(np.uint8).tobytes()
        if key not in self.known:
            mol = graph_molecule(atoms, table, self.spec.atoms)
            value, name = 0.0, ""
            if mol is not None and len(chem().GetMolFrags(mol)) == 1:
                value, name = 1.0 if self.run is None else self.run(mol), chem().MolToSmiles(mol)
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            self.known[key] = value, name
        return self.known[key]


def _groups(made: tuple[Tensor, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(*(part.split(size) for part in made), strict=True)


def _rows(x: Tensor, bonds: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(x.cpu().numpy(), bonds.cpu().numpy(), strict=True)
