"""AlphaFold as a system: features of alignments, recycling, training, sampling, sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia import api, recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.protein import GAP, STATES, ProteinSpec, structure_spec
from castalia.media.protein.chains import numbers
from castalia.media.protein.folds import folds
from castalia.media.protein.medium import ProteinMedium
from castalia.media.protein.read import ProteinOptions
from castalia.models.proteins.alphafold import AlphaFold, AlphaFoldConfig, FoldingSampling, bins
from castalia.models.proteins.inputs import MASKED, crop, features
from castalia.training.loop import train
from tests.conformance.test_conformance import stirred

TINY = recipes.recipe("alphafold-tiny").config
OPTIONS = ProteinOptions(most=13, sequences=4)
MEDIUM = ProteinMedium()


def made(config: AlphaFoldConfig = TINY, options: ProteinOptions = OPTIONS, seed: int = 0) -> AlphaFold:
    data = folds("train", options)
    model = build(AlphaFold, config, data.spec, seed)
    model.initialise(data, BatchRng(0, total=1), {})
    return stirred(model).eval()


def some(n: int = 4, options: ProteinOptions = OPTIONS) -> Batch:
    return folds("train", options).batch(np.arange(n))


def told(msa: list[list[int]], clusters: int, extra: int = 9, masked: float = 0.0, shuffled: bool = False):
    rows = torch.tensor([msa])
    return features(rows[:, 0] % STATES, rows, BatchRng(0, total=1), clusters=clusters, extra=extra, rows=16, width=16,
                    masked=masked, shuffled=shuffled)  # fmt: skip


# features


def test_a_lone_sequence_is_an_alignment_of_one_row() -> None:
    sequence = torch.tensor([[3, 5, 20, -1]])
    found = features(sequence, None, BatchRng(0, total=1), clusters=4, extra=0, rows=1, width=9)
    assert found.target.shape == (1, 4, 21)
    assert found.target[0].argmax(1)[:3].tolist() == [3, 5, 20]
    assert found.target[0, 3].sum() == 0
    assert found.msa.shape == (1, 1, 4, 49)
    assert found.rows.tolist() == [[[1, 1, 1, 0]]]
    assert found.extra_rows.sum() == 0
    assert torch.equal(found.msa[..., :23], found.msa[..., 25:48])  # its own profile


def test_rows_join_the_chosen_one_that_is_most_like_them() -> None:
    far, near = [0, 0, 0, 0], [1, 1, 1, 1]
    msa = [far, near, [1, 1, 1, 2], [0, 0, 0, 3], [GAP, GAP, GAP, 0 + 3 * STATES]]
    found = told(msa, clusters=2)
    profile = found.msa[0, :, :, 25:48]
    assert profile[0, 3].nonzero().flatten().tolist() == [0, 3]
    assert profile[0, 3, 0] == pytest.approx(2 / 3)  # itself and the one with gaps, and one other
    assert profile[1, 3, 1] == pytest.approx(0.5)
    assert profile[1, 3, 2] == pytest.approx(0.5)
    assert profile.sum(-1) == pytest.approx(1.0)
    spread = found.msa[0, 0, 3, 48]
    assert spread == pytest.approx(2 / np.pi * np.arctan((3 / 3) / 3))  # the mean of 0, 0, 3
    assert found.extra.shape == (1, 3, 4, 25)
    assert found.extra[0, 2, 3, 23] == 1  # it has deletions
    assert told(msa, clusters=2, extra=1).extra.shape[1] == 1
    assert torch.equal(told(msa, clusters=2, extra=1).msa, found.msa)  # all of the rest are counted


def test_the_first_row_is_always_chosen_and_absent_ones_never_before_others() -> None:
    msa = [[5, 5], [-1, -1], [6, 6], [7, 7]]
    for seed in range(8):
        rows = torch.tensor([msa])
        found = features(rows[:, 0], rows, BatchRng(seed, total=1), clusters=2, extra=4, rows=4, width=4)
        assert found.true[0, 0].tolist() == [5, 5]
        assert found.true[0, 1, 0] in (6, 7)
        assert found.extra_rows[0].sum(1).tolist() == [2, 0]


def test_masks_are_those_of_the_paper() -> None:
    rng = BatchRng(3, total=1)
    msa = torch.randint(0, 20, (1, 8, 400), generator=torch.Generator().manual_seed(0))
    found = features(msa[:, 0], msa, rng, clusters=8, extra=0, rows=8, width=400, masked=0.15, shuffled=False)
    hidden = found.masked[0] > 0
    assert hidden.float().mean() == pytest.approx(0.15, abs=0.02)
    shown = found.msa[0, :, :, :23].argmax(-1)
    assert torch.equal(shown[~hidden], msa[0][~hidden])
    assert torch.equal(found.true[0], msa[0])
    assert (shown[hidden] == MASKED).float().mean() == pytest.approx(0.7, abs=0.06)
    assert (shown[hidden] == msa[0][hidden]).float().mean() == pytest.approx(0.13, abs=0.05)


def test_crops_are_stretches() -> None:
    batch = some(8)
    seen = set()
    for seed in range(20):
        part = crop(batch, 5, BatchRng(seed, total=8))
        assert part.x.shape[1] == part.extra["msa"].shape[2] == 5
        for row in range(8):
            sequence, whole = part.extra["sequence"][row].tolist(), batch.extra["sequence"][row].tolist()
            starts = [i for i in range(len(whole) - 4) if whole[i : i + 5] == sequence]
            assert any(torch.equal(batch.x[row, i : i + 5], part.x[row]) for i in starts)
            assert torch.equal(part.extra["msa"][row, 0], part.extra["sequence"][row])
            seen |= set(starts)
    assert {0, 1, 2, 3} <= seen
    same = crop(batch, 40, BatchRng(0, total=8))
    assert torch.equal(same.x, batch.x)


# recycling


def test_recycling_is_one_turn_after_another() -> None:
    model, batch = made(), some()
    sequence, msa = batch.extra["sequence"], batch.extra["msa"]
    rng, mask = SampleRng(0, range(4)), (sequence >= 0).float()
    with torch.no_grad():
        before = None
        for turn in range(3):
            told = model.told(sequence, msa, rng, turn, 0.0, True)
            before = model.turn(told, sequence, mask, before)
    drawn = model.sample(4, {"sequence": sequence, "msa": msa}, rng=rng, options=FoldingSampling(recycles=2))
    there = sequence >= 0
    assert torch.equal(drawn.x[there], before.folded.x[there])
    other = model.sample(4, {"sequence": sequence, "msa": msa}, rng=rng, options=FoldingSampling(recycles=0))
    assert not torch.allclose(other.x, drawn.x, atol=1e-3)


def test_gradients_flow_through_the_last_turn_alone() -> None:
    model, batch = made(), some()
    turns = list(model.turns(batch.extra["sequence"], batch.extra["msa"], BatchRng(0, total=4), 2))
    assert not turns[0][0].z.requires_grad
    assert turns[1][0].z.requires_grad


def test_recycled_distances_fall_into_fifteen_bins() -> None:
    line = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0], [3.5, 0, 0], [30.0, 0, 0]]])
    found = bins(line)
    assert found.shape == (1, 4, 4, 15)
    assert found[0, 0, 0].sum() == found[0, 0, 1].sum() == 0  # nearer than the first edge
    assert found[0, 0, 2].argmax() == 0
    assert found[0, 0, 3].argmax() == 14


# training and sampling


def test_padding_does_not_matter_to_the_loss() -> None:
    model, batch = made(), some(3)
    longer = Batch(
        torch.cat([batch.x, torch.zeros(3, 4, 5, 3)], 1),
        batch.ids,
        None,
        {
            "there": torch.cat([batch.extra["there"], torch.zeros(3, 4, 5, dtype=torch.uint8)], 1),
            "confidence": torch.cat([batch.extra["confidence"], torch.zeros(3, 4)], 1),
            "sequence": torch.cat([batch.extra["sequence"], torch.full((3, 4), -1)], 1),
            "msa": torch.cat([batch.extra["msa"], torch.full((3, batch.extra["msa"].shape[1], 4), -1)], 2),
        },
    )
    model.config = replace(TINY, crop=30, fine_crop=30)
    for loss in (model.loss, model.fine_loss):
        one, two = (loss(b, BatchRng(1, total=3), Progress(0, 1))[0] for b in (batch, longer))
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_the_loss_is_invariant_to_where_the_truth_lies() -> None:
    model, batch = made(), some(3)
    angle = torch.tensor(0.7)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0.0], [angle.sin(), angle.cos(), 0.0], [0.0, 0.0, 1.0]])
    moved = Batch(batch.x @ turn.T + 3, batch.ids, None, batch.extra)
    one, two = (model.loss(b, BatchRng(1, total=3), Progress(0, 1))[0] for b in (batch, moved))
    torch.testing.assert_close(one, two, rtol=2e-5, atol=2e-5)
    mirrored = Batch(batch.x * torch.tensor([1.0, 1.0, -1.0]), batch.ids, None, batch.extra)
    assert not torch.allclose(model.loss(mirrored, BatchRng(1, total=3), Progress(0, 1))[0], one, rtol=1e-3)


def test_fine_tuning_counts_violations() -> None:
    model, batch = made(replace(TINY, fine=0.3, fine_crop=13)), some(3)
    first, fine = model.stages()
    assert (first.share, fine.share) == (0.7, 0.3)
    assert "violation" not in model.loss(batch, BatchRng(0, total=3), Progress(0, 1))[1]
    plain, logs = model.fine_loss(batch, BatchRng(0, total=3), Progress(0, 1))
    assert logs["violation"] > 0
    model.config = replace(model.config, violation=10.0)
    assert model.fine_loss(batch, BatchRng(0, total=3), Progress(0, 1))[0] > plain


def test_what_is_asked_is_folded() -> None:
    model = made()
    sequence = torch.from_numpy(numbers("AEKLNGV"))[None]
    drawn = model.sample(1, {"sequence": sequence}, rng=SampleRng(0, [0]))
    assert drawn.x.shape == (1, 7, 5, 3)
    assert torch.equal(drawn.extra["sequence"], sequence)
    assert (drawn.extra["there"] == 1).all()
    assert ((drawn.extra["confidence"] > 0) & (drawn.extra["confidence"] < 100)).all()
    alone = model.sample(1, {"msa": sequence[:, None]}, rng=SampleRng(0, [0]))
    torch.testing.assert_close(alone.x, drawn.x)
    rows = torch.stack([sequence[0], sequence[0].flip(0)])[None]
    assert not torch.allclose(model.sample(1, {"msa": rows}, rng=SampleRng(0, [0])).x, drawn.x, atol=1e-3)
    for wrong, words in (
        ({"sequence": sequence[:, :0]}, "at least one residue"),
        ({"sequence": torch.full_like(sequence, -1)}, "at least one residue"),
        ({"sequence": sequence[:, :3], "msa": rows}, "7 columns"),
        ({"msa": torch.full_like(rows, GAP)}, "no gaps"),
    ):
        with pytest.raises(UsageError, match=words):
            model.sample(1, wrong, rng=SampleRng(0, [0]))


def test_temperature_zero_takes_the_first_rows() -> None:
    model = made(replace(TINY, clusters=2, extra=0), ProteinOptions(most=13, sequences=8))
    rows = torch.randint(0, 20, (1, 8, 9), generator=torch.Generator().manual_seed(0))

    def fold(temperature: float, seed: int) -> Tensor:
        options = FoldingSampling(temperature=temperature)
        return model.sample(1, {"msa": rows}, rng=SampleRng(seed, [0]), options=options).x

    assert torch.equal(fold(0.0, 1), fold(0.0, 2))
    assert not torch.allclose(fold(1.0, 1), fold(1.0, 2), atol=1e-3)


def test_what_nobody_gives_is_of_the_training_set() -> None:
    model, data = made(), folds("train", OPTIONS)
    known = {tuple(c.residues.tolist()) for c in data.chains}
    drawn = model.sample(12, rng=SampleRng(5, range(12))).extra["sequence"]
    rows = [tuple(v for v in row if v >= 0) for row in drawn.tolist()]
    assert set(rows) <= known
    assert len(set(rows)) > 3
    fresh = build(AlphaFold, TINY, data.spec)
    assert fresh.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, 13, 5, 3)


def test_centroids_of_side_chains_are_fitted_to_the_data() -> None:
    model = made()
    side = model.structure.side
    assert torch.allclose(side[:, 1], torch.zeros(21), atol=0.01)  # of the built-in set all lie on the axis
    assert side[1, 0] == pytest.approx(4.12, abs=0.01)  # arginine
    assert model.sequences.dtype == torch.int8


def test_a_structure_is_what_it_takes() -> None:
    with pytest.raises(UsageError, match="structure"):
        AlphaFold(TINY, ProteinSpec("sequence", 9))
    for change in ({"blocks": 0}, {"recycles": -1}, {"masked": 1.0}, {"clamped": 1.5}, {"fine": 1.0}, {"fape": -1.0}):
        with pytest.raises(ValueError):
            AlphaFoldConfig(**change)
    with pytest.raises(ValueError, match="recycles"):
        FoldingSampling(recycles=-2)


def test_the_paper_has_93_million_parameters() -> None:
    """The published files without templates, models 3 to 5, are 372 MB of float32: 93.0 million numbers."""
    recipe = recipes.recipe("alphafold-paper")
    with torch.device("meta"):
        model = AlphaFold(recipe.config, structure_spec(2048, 16384))
    count = sum(p.numel() for p in model.parameters())
    assert count == 92_882_979
    small = recipes.recipe("alphafold-small")
    with torch.device("meta"):
        fewer = AlphaFold(small.config, structure_spec(100))
    assert sum(p.numel() for p in fewer.parameters()) < 1_000_000


def test_it_learns_to_fold_what_it_has_not_seen(tmp_path: Path) -> None:
    """A few hundred steps on the built-in set; chains of other sequences come out near their true structures."""
    from castalia.evaluation.measures import measure

    base = recipes.recipe("alphafold-folds")
    options = ProteinOptions(most=14)
    recipe = replace(
        base,
        config=replace(base.config, c_m=16, c_z=8, c_s=24, triangle=8, layers=2, ipa_heads=2, crop=14),
        data=replace(base.data, options=options),
        training=replace(base.training, steps=120, batch_size=12, lr=8e-3, precision="float32", threads=1),
    )
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    model = run.model()[0]
    found = measure(model, folds("train", options), folds("test", options), n=40).metrics
    assert found["fold_lddt"].value > found["fold_lddt_ceiling"].value + 3
    assert found["fold_rmsd"].value < 0.7 * found["fold_rmsd_ceiling"].value
