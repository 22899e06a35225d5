"""MolGAN: what it makes is symmetric, no order of atoms matters to its judges, its penalty and rewards are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.molecule import MoleculeSpec
from castalia.media.molecule.read import MoleculeOptions
from castalia.media.molecule.sets import small
from castalia.models.molecules.graphs import Judge, Maker, Relational
from castalia.models.molecules.molgan import MolGAN, MolGANConfig, gumbel, mirrored

PAPER = MoleculeSpec("graph", 9, atoms=("C", "N", "O", "F"))


def shares(n: int = 6, places: int = 7, kinds: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    atoms = torch.randn(n, places, kinds, generator=g, dtype=torch.float64).softmax(-1)
    bonds = torch.randn(n, places, places, 4, generator=g, dtype=torch.float64)
    return atoms, ((bonds + bonds.transpose(1, 2)) / 2).softmax(-1)


def test_counts_of_the_paper() -> None:
    model = MolGAN(MolGANConfig(), PAPER)
    assert sum(p.numel() for p in model.generator.parameters()) == 358_129
    assert sum(p.numel() for p in model.critic.parameters()) == 36_865
    assert sum(p.numel() for p in MolGAN(MolGANConfig(reward="qed"), PAPER).parameters()) == 358_129 + 2 * 36_865


@pytest.mark.parametrize("reward", [False, True])
def test_the_order_of_atoms_does_not_matter(reward: bool) -> None:
    model = build(MolGAN, MolGANConfig(reward="valid" if reward else "none"), PAPER, 0).double()
    judge = model.reward if reward else model.critic
    assert judge is not None
    atoms, bonds = shares(places=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(4))
    one, other = judge(atoms, bonds), judge(atoms[:, order], bonds[:, order][:, :, order])
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert not torch.allclose(one, judge(atoms[:, order], bonds))  # atoms alone: another molecule


def test_a_relational_convolution_is_its_sum() -> None:
    torch.manual_seed(0)
    layer = Relational(3, 4).double()
    g = torch.Generator().manual_seed(1)
    h = torch.randn(2, 5, 3, generator=g, dtype=torch.float64)
    bonds = torch.rand(2, 3, 5, 5, generator=g, dtype=torch.float64)
    weight, bias = layer.kinds.weight.view(3, 4, 3), layer.kinds.bias.view(3, 4)
    for b in range(2):
        for i in range(5):
            total = layer.own(h[b, i])
            for k in range(3):
                for j in range(5):
                    total = total + bonds[b, k, i, j] * (weight[k] @ h[b, j] + bias[k])
            torch.testing.assert_close(layer(h, bonds)[b, i], torch.tanh(total))


def test_what_is_told_of_a_batch_stays_in_its_group() -> None:
    torch.manual_seed(0)
    judge = Judge(5, (8,), 6, (4,), batch_features=3, group=2).double()
    atoms, bonds = shares(4)
    both = judge(atoms, bonds)
    torch.testing.assert_close(judge(atoms[:2], bonds[:2]), both[:2])
    assert not torch.allclose(judge(atoms[:1], bonds[:1]), both[:1])


def test_bonds_are_symmetric_and_none_is_to_itself() -> None:
    for discrete in ("soft", "gumbel", "straight-through"):
        model = build(MolGAN, MolGANConfig(discrete=discrete), PAPER, 0)
        atoms, bonds = model.make(BatchRng(0, total=5))
        assert torch.equal(bonds, bonds.transpose(1, 2))
        assert (bonds.diagonal(dim1=1, dim2=2)[:, 0] == 1).all()
        torch.testing.assert_close(atoms.sum(-1), torch.ones(5, 9))
        torch.testing.assert_close(bonds.sum(-1), torch.ones(5, 9, 9))
        drawn = model.sample(20, rng=SampleRng(1, range(20)))
        table = drawn.extra["bonds"]
        assert torch.equal(table, table.mT)
        assert (table.diagonal(dim1=1, dim2=2) == 0).all()
        there = drawn.x > 0
        assert (table[~(there[:, :, None] & there[:, None])] == 0).all()


def test_straight_through_is_one_hot_with_the_gradient_of_the_noisy_shares() -> None:
    hard = build(MolGAN, MolGANConfig(discrete="straight-through", sharpness=0.7), PAPER, 0)
    soft = build(MolGAN, MolGANConfig(discrete="gumbel", sharpness=0.7), PAPER, 0)
    weight = torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
    gradients = []
    for model in (hard, soft):
        atoms, _ = model.make(BatchRng(3, total=4))
        gradients.append(torch.autograd.grad((atoms * weight).sum(), model.generator.atoms.weight)[0])
    torch.testing.assert_close(*gradients)
    atoms, _ = hard.make(BatchRng(3, total=4))
    assert set(atoms.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}


def test_choices_have_the_right_odds() -> None:
    n, logits = 40_000, torch.tensor([0.5, 0.3, 0.2]).log()
    noise = gumbel(torch.rand(n, 3, generator=torch.Generator().manual_seed(0)))
    counts = torch.bincount((logits + noise).argmax(1), minlength=3) / n
    torch.testing.assert_close(counts, logits.exp(), rtol=0, atol=0.01)
    square = torch.rand(1, 4, 4, 2, generator=torch.Generator().manual_seed(0))
    both = mirrored(square)
    assert torch.equal(both, both.transpose(1, 2))
    assert torch.equal(both[:, 0, 1], square[:, 0, 1])


class _Linear(nn.Module):
    """A critic whose slope is known."""

    def __init__(self, atoms: Tensor, bonds: Tensor) -> None:
        super().__init__()
        self.atoms, self.bonds = nn.Parameter(atoms), nn.Parameter(bonds)

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        return (x * self.atoms).sum((1, 2)) + (a * self.bonds).sum((1, 2, 3))


def test_both_penalties_on_a_critic_with_a_known_slope() -> None:
    g = torch.Generator().manual_seed(0)
    atoms, bonds = torch.randn(9, 5, generator=g), torch.randn(9, 9, 4, generator=g)
    real, fake = (tuple(p.float() for p in shares(3, 9, 5, s)) for s in (1, 2))
    for norm, expected in (
        ("graph", (torch.cat([atoms.flatten(), bonds.flatten()]).norm() - 1).square()),
        ("axis", (atoms.norm(dim=-1) - 1).square().mean() + (bonds.norm(dim=-1) - 1).square().mean()),
    ):
        model = build(MolGAN, MolGANConfig(penalty_norm=norm), PAPER, 0)
        model.critic = _Linear(atoms, bonds)
        torch.testing.assert_close(model.penalty(real, fake, torch.rand(3, generator=g)), expected)


def test_rewards_are_those_of_chemistry() -> None:
    data = small("test")
    batch = data.batch(np.arange(8))
    model = build(MolGAN, MolGANConfig(reward="qed"), data.spec, 0)
    from castalia.chemistry.molecules import molecules_of
    from castalia.chemistry.properties import qed

    wanted = torch.tensor([qed(mol) for mol in molecules_of(batch, data.spec)])
    torch.testing.assert_close(model.score(batch.x, batch.extra["bonds"]), wanted)
    broken = batch.extra["bonds"].clone()
    broken[0] = 3 * (1 - torch.eye(len(broken[0]), dtype=torch.int64))  # far too many bonds
    broken[1] = 0  # in pieces
    assert model.score(batch.x, broken)[:2].tolist() == [0.0, 0.0]


def test_the_penalty_sees_groups_on_their_way() -> None:
    """A critic that is told of its group is bound between groups of real and of fake rows, not between rows alone."""
    data = small("test")
    batch = data.batch(np.arange(12))
    for features, kinds in ((4, 3), (0, 12)):
        model = build(MolGAN, MolGANConfig(batch_features=features, group=4), data.spec, 0)
        seen: list[Tensor] = []
        model.penalty = lambda real, fake, share, seen=seen: (seen.append(share), torch.zeros(()))[1]
        model.critic_loss(batch, BatchRng(0, total=12), Progress(0, 10))
        assert len(seen[0].unique()) == kinds
        if features:
            assert all(len(part.unique()) == 1 for part in seen[0].split(4))


def test_a_molecule_is_paid_for_once() -> None:
    """Two of three rows are the same molecule in another order; the last is in pieces."""
    data = small("test")
    batch = data.batch(np.array([0, 1]))
    order = torch.arange(batch.x.shape[1]).flip(0)
    x = torch.stack([batch.x[0], batch.x[0][order], batch.x[1], batch.x[1]])
    bonds = batch.extra["bonds"]
    bonds = torch.stack([bonds[0], bonds[0][order][:, order], bonds[1], torch.zeros_like(bonds[1])])
    model = build(MolGAN, MolGANConfig(reward="valid", distinct=True, group=4), data.spec, 0)
    assert model.score.times(x, bonds).tolist() == [2, 2, 1, 1]
    model.make = lambda rng: tuple(F.one_hot(part, n).float() for part, n in ((x, data.spec.size), (bonds, 4)))
    _, logs = model.reward_loss(data.batch(np.arange(4)), BatchRng(0, total=4), Progress(0, 10))
    assert float(logs["fake"]) == pytest.approx((0.5 + 0.5 + 1 + 0) / 4)
    with pytest.raises(ValueError, match="set reward"):
        MolGANConfig(distinct=True)


def test_the_reward_counts_from_its_time_on() -> None:
    data = small("test")
    batch = data.batch(np.arange(8))
    model = build(MolGAN, MolGANConfig(reward="valid", balance=0.25, reward_from=0.5), data.spec, 0)
    assert model.reward is not None
    rng = BatchRng(0, total=8)
    early, logs = model.generator_loss(batch, rng, Progress(4, 10))
    fake = model.make(rng)
    against = -model.critic(*fake).mean()
    torch.testing.assert_close(early, against)
    assert "reward" not in logs
    late, logs = model.generator_loss(batch, rng, Progress(5, 10))
    rewarded = -torch.sigmoid(model.reward(*fake)).mean()
    scaled = (against / rewarded).abs() * rewarded
    torch.testing.assert_close(late, 0.25 * against + 0.75 * scaled)
    torch.testing.assert_close(logs["reward"], -rewarded)


def test_strings_are_refused() -> None:
    with pytest.raises(UsageError, match="kind=graph"):
        MolGAN(MolGANConfig(), small("test", MoleculeOptions(kind="smiles")).spec)


def test_a_maker_of_other_sizes() -> None:
    atoms, bonds = Maker(8, (16,), 4, 3, 0.0)(torch.randn(2, 8))
    assert atoms.shape == (2, 4, 3)
    assert bonds.shape == (2, 4, 4, 4)


def test_latents_decide_where_there_is_no_noise() -> None:
    model = build(MolGAN, MolGANConfig(), PAPER, 0)
    z = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    a, b = model.decode(z), model.decode(z, rng=SampleRng(5, range(3)))
    assert isinstance(a, Batch)
    assert torch.equal(a.x, b.x)
