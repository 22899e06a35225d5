"""AlphaFold in space: invariant points, atoms, torsions, and the losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.estimators.superposition import lddt
from castalia.media.protein.folds import folds
from castalia.media.protein.geometry import angles
from castalia.media.protein.geometry import beta as media_beta
from castalia.models.proteins import losses
from castalia.models.proteins.frames import Frames
from castalia.models.proteins.invariant import InvariantPointAttention
from castalia.models.proteins.structure import StructureModule, atoms, beta, chain, side_places, true_torsions
from tests.models.proteins.test_alphafold_parts import close, numbers, some_frames, stirred, turned


def real(n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Chains of the built-in set: places (B, L, 5, 3), which are known, sequences."""
    batch = folds("test").batch(np.arange(n))
    return batch.x.double(), batch.extra["there"], batch.extra["sequence"]


def moved(frames: Frames, move: Frames) -> Frames:
    return Frames(move.r @ frames.r, move.apply(frames.t))


# invariant points


def test_invariant_points_do_not_feel_rigid_motions() -> None:
    module = stirred(InvariantPointAttention(8, 6, 3, 4, 2, 3))
    s, z, frames = numbers(2, 5, 8), numbers(2, 5, 5, 6), some_frames(2, 5)
    mask = torch.ones(2, 5, dtype=torch.float64)
    out = module(s, z, frames, mask)
    close(module(s, z, moved(frames, turned()), mask), out)
    assert not torch.allclose(module(s, z, some_frames(2, 5, seed=8), mask), out), "places do not matter"
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    flipped = Frames(mirror @ frames.r @ mirror, frames.t @ mirror)
    assert not torch.allclose(module(s, z, flipped, mask), out, atol=1e-4), "a mirror image is another protein"


def test_invariant_points_against_a_loop() -> None:
    """Algorithm 22, line by line."""
    h, c, p, v = 2, 3, 2, 2
    module = stirred(InvariantPointAttention(5, 4, h, c, p, v))
    s, z, frames = numbers(1, 4, 5), numbers(1, 4, 4, 4), some_frames(1, 4)
    q, k, val = (f(s[0]).view(4, h, c) for f in (module.q, module.k, module.v))
    qp, kp = (f(s[0]).view(4, h, p, 3) for f in (module.q_points, module.k_points))
    vp, gamma, bias = module.v_points(s[0]).view(4, h, v, 3), F.softplus(module.gamma), module.bias(z[0])
    r, t = frames.r[0], frames.t[0]
    w_c, w_l = math.sqrt(2 / (9 * p)), math.sqrt(1 / 3)
    rows = []
    for i in range(4):
        pairs, values, points = [], [], []
        for a in range(h):
            logits = []
            for j in range(4):
                far = sum(((r[i] @ qp[i, a, n] + t[i]) - (r[j] @ kp[j, a, n] + t[j])).square().sum() for n in range(p))
                one = q[i, a] @ k[j, a] / math.sqrt(c) + bias[i, j, a] - gamma[a] * w_c / 2 * far
                logits.append(w_l * one)
            weights = torch.stack(logits).softmax(0)
            pairs.append(sum(weights[j] * z[0, i, j] for j in range(4)))
            values.append(sum(weights[j] * val[j, a] for j in range(4)))
            for n in range(v):
                seen = sum(weights[j] * (r[j] @ vp[j, a, n] + t[j]) for j in range(4))
                points.append(r[i].T @ (seen - t[i]))
        size = torch.stack([(x.square().sum() + 1e-8).sqrt() for x in points])
        rows.append(torch.cat([*pairs, *values, torch.cat(points), size]))
    close(module(s, z, frames, torch.ones(1, 4, dtype=torch.float64))[0], module.out(torch.stack(rows)))


def test_without_points_it_is_plain_attention_and_masks_hold() -> None:
    module = stirred(InvariantPointAttention(8, 6, 2, 4, 2, 2))
    with torch.no_grad():
        module.q_points.weight.zero_()
        module.k_points.weight.zero_()
        module.v_points.weight.zero_()
    s, z, mask = numbers(1, 5, 8), numbers(1, 5, 5, 6), torch.ones(1, 5, dtype=torch.float64)
    here = Frames.identity(1, 5, like=s)
    mask[:, 4] = 0
    one = module(s, z, here, mask)
    s2, z2 = s.clone(), z.clone()
    s2[:, 4], z2[:, :, 4] = 9, 9
    close(module(s2, z2, here, mask)[:, :4], one[:, :4])
    close(module(s[:, :4], z[:, :4, :4], Frames.identity(1, 4, like=s), mask[:, :4]), one[:, :4])


def test_the_structure_module_begins_at_the_origin_and_ignores_padding() -> None:
    made = StructureModule(8, 6, 3, 2, 4, 2, 2, 8, 0.0).eval()
    s, z = numbers(1, 5, 8).float(), numbers(1, 5, 5, 6).float()
    sequence, mask = torch.tensor([[0, 1, 2, 3, -1]]), torch.tensor([[1.0, 1, 1, 1, 0]])
    folded = made(s, z, sequence, mask)
    assert len(folded.frames) == len(folded.torsions) == 3
    assert (folded.frames[0].t == 0).all()  # the last layers begin at zero
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p.add_(0.3 * numbers(*p.shape, seed=i).float())
    whole = made(s, z, sequence, mask).x
    s2 = s.clone()
    s2[:, 4] = 5
    torch.testing.assert_close(made(s2, z, sequence, mask).x[:, :4], whole[:, :4], atol=1e-4, rtol=1e-5)
    short = made(s[:, :4], z[:, :4, :4], sequence[:, :4], mask[:, :4]).x
    torch.testing.assert_close(short, whole[:, :4], atol=1e-4, rtol=1e-5)
    bond = (whole[:, :4, 0] - whole[:, :4, 1]).norm(dim=-1)
    torch.testing.assert_close(bond, torch.full_like(bond, 1.458))


# atoms


def test_atoms_come_back_from_frames_and_torsions() -> None:
    x, there, sequence = real()
    frames = Frames.of_points(x[:, :, 0], x[:, :, 1], x[:, :, 2])
    torsions, known = true_torsions(x, there)
    place = side_places(x)
    side = torch.stack([place[..., 0], place[..., 1:].norm(dim=-1)], -1)
    made = atoms(frames, torsions, side)
    mask = sequence >= 0
    close(made[mask], x[mask], 2e-3)
    assert known[:, 0, :2].sum() == 0  # the first has nothing before it


def test_a_chain_of_true_torsions_is_the_chain() -> None:
    """Frames built from torsions lie as those of the built-in chains, whose bonds are ideal; of chains of any length."""
    x, there, sequence = real()
    mask = (sequence >= 0).double()
    built = chain(true_torsions(x, there)[0], mask)
    true = Frames.of_points(x[:, :, 0], x[:, :, 1], x[:, :, 2])
    assert losses.fape(built, built.t, true, x[:, :, 1], mask, mask, None).max() < 0.002
    assert (built.t * mask[..., None]).sum(1).abs().max() < 1e-9
    made = StructureModule(8, 6, 2, 2, 4, 2, 2, 8, 0.0, "chain").eval()
    s, z = numbers(1, 5, 8).float(), numbers(1, 5, 5, 6).float()
    folded = made(s, z, torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 5))
    assert len(folded.frames) == len(folded.torsions) == 3
    bond = (folded.frames[0].t[:, 1:] - folded.frames[0].t[:, :-1]).norm(dim=-1)
    assert ((bond > 2.7) & (bond < 3.9)).all()


def test_torsions_are_those_of_the_medium() -> None:
    x, there, _ = real()
    torsions, known = true_torsions(x, there)
    for row in range(len(x)):
        phi, psi, omega = angles(x[row].numpy(), there[row].numpy() > 0)
        mine = torch.atan2(torsions[row, :, :, 1], torsions[row, :, :, 0]).numpy()
        for number, expected in ((0, omega), (1, phi)):
            fine = known[row, :, number].numpy() > 0
            assert np.cos(mine[fine, number] - expected[fine]) == pytest.approx(1, abs=1e-6)
        fine = ~np.isnan(psi)
        assert np.cos(mine[fine, 2] - psi[fine]) == pytest.approx(1, abs=1e-4)


def test_beta_carbons_are_left_handed() -> None:
    """Where CB is, as trRosetta and others place it from N, CA and C."""
    x = real()[0]
    b, c = x[:, :, 1] - x[:, :, 0], x[:, :, 2] - x[:, :, 1]
    expected = -0.58273431 * torch.cross(b, c, dim=-1) + 0.56802827 * b - 0.54067466 * c + x[:, :, 1]
    mask = real()[2] >= 0
    assert (beta(x) - expected)[mask].norm(dim=-1).max() < 0.1
    close(torch.from_numpy(media_beta(x[mask].numpy())), beta(x)[mask], 1e-5)


# losses


def fape_of(x: Tensor, y: Tensor, clamp: float | None = None) -> Tensor:
    one, two = (Frames.of_points(p[:, :, 0], p[:, :, 1], p[:, :, 2]) for p in (x, y))
    ones = torch.ones(x.shape[:2], dtype=x.dtype)
    return losses.fape(one, x[:, :, 1], two, y[:, :, 1], ones, ones, clamp)


def test_fape_is_invariant_to_motion_but_not_to_reflection() -> None:
    x, y = 4 * numbers(2, 6, 3, 3), 4 * numbers(2, 6, 3, 3, seed=5)
    for clamp in (None, 10.0):
        close(fape_of(turned(1).apply(x), turned(2).apply(y), clamp), fape_of(x, y, clamp), 1e-9)
        assert fape_of(x, y, clamp).min() > 0.2
    close(fape_of(x, x), torch.full((2,), math.sqrt(1e-4) / 10, dtype=torch.float64))
    mirrored = x * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    assert fape_of(mirrored, x).min() > 0.1


def test_fape_against_a_loop_with_masks() -> None:
    x, y = numbers(1, 4, 3, 3), numbers(1, 4, 3, 3, seed=2)
    one, two = (Frames.of_points(p[:, :, 0], p[:, :, 1], p[:, :, 2]) for p in (x, y))
    frame_mask, point_mask = torch.tensor([[1.0, 1, 0, 1]]).double(), torch.tensor([[1.0, 0, 1, 1]]).double()
    far = []
    for i in (0, 1, 3):
        for j in (0, 2, 3):
            a = one.r[0, i].T @ (x[0, j, 1] - one.t[0, i])
            b = two.r[0, i].T @ (y[0, j, 1] - two.t[0, i])
            far.append(min(float(((a - b).square().sum() + 1e-4).sqrt()), 1.5))
    found = losses.fape(one, x[:, :, 1], two, y[:, :, 1], frame_mask, point_mask, 1.5)
    assert float(found) == pytest.approx(np.mean(far) / 10)
    mixed = losses.fape(one, x[:, :, 1], two, y[:, :, 1], frame_mask, point_mask, torch.tensor([math.inf]).double())
    close(mixed, losses.fape(one, x[:, :, 1], two, y[:, :, 1], frame_mask, point_mask, None))


def test_torsions_cost_nothing_where_they_are_right() -> None:
    angle = numbers(2, 3, 4)
    true = torch.stack([angle.cos(), angle.sin()], -1)
    ones = torch.ones(2, 3, 4, dtype=torch.float64)
    close(losses.torsion_loss(true, true, ones, ones[..., 0]), torch.zeros(2, dtype=torch.float64), 1e-7)
    far = losses.torsion_loss(-true, true, ones, ones[..., 0])
    close(far, torch.full((2,), 4.0, dtype=torch.float64), 1e-6)
    long = losses.torsion_loss(3 * true, true, ones, ones[..., 0])
    close(long, torch.full((2,), 0.02 * 2, dtype=torch.float64), 1e-6)


def test_local_ddt_is_that_of_the_measures() -> None:
    x, _, sequence = real(1)
    ca = x[:, sequence[0] >= 0, 1]
    moved_ca = ca + numbers(*ca.shape)
    known = torch.ones(ca.shape[:2], dtype=torch.float64)
    found = 100 * losses.local_ddt(moved_ca, ca, known)[0]
    assert found.numpy() == pytest.approx(lddt(moved_ca[0].numpy(), ca[0].numpy()))
    logits = torch.full((1, ca.shape[1], 10), -30.0, dtype=torch.float64)
    bins = (found / 100 * 10).long().clamp(max=9)
    logits[0, torch.arange(len(bins)), bins] = 30
    assert float(losses.confidence_loss(logits, found[None] / 100, known)) == pytest.approx(0, abs=1e-9)


def test_distances_fall_into_their_bins() -> None:
    edges = losses.distogram_edges()
    assert len(edges) == 63
    assert edges[0] == pytest.approx(2.3125)
    assert edges[-1] == pytest.approx(21.6875)
    x, there, _ = real(1)
    known = there[:, :, :3].amin(2).double()
    cb = beta(x)
    far = torch.cdist(cb, cb)
    logits = -50 * (far[..., None] - torch.cat([edges[:1], edges]).double() - 0.15).abs()
    assert float(losses.distogram_loss(logits, x, known)) < 0.5
    assert float(losses.distogram_loss(torch.zeros_like(logits), x, known)) == pytest.approx(math.log(64))


def test_real_chains_violate_nothing_and_broken_ones_do() -> None:
    x, _, sequence = real()
    mask = (sequence >= 0).double()
    assert losses.violations(x, mask).max() < 0.05
    torn = x.clone()
    torn[:, 3:] += 3.0
    assert (losses.violations(torn, mask) > losses.violations(x, mask) + 0.01).all()
    collapsed = torch.zeros_like(x)
    assert (losses.violations(collapsed, mask) > 1).all()


@pytest.mark.parametrize("name", ["masked", "distogram"])
def test_nothing_known_costs_nothing(name: str) -> None:
    if name == "masked":
        found = losses.masked_loss(numbers(2, 1, 3, 23), torch.zeros(2, 1, 3, dtype=torch.long), torch.zeros(2, 1, 3))
    else:
        found = losses.distogram_loss(numbers(2, 3, 3, 64), numbers(2, 3, 5, 3), torch.zeros(2, 3))
    assert (found == 0).all()
