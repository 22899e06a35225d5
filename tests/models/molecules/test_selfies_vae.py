"""The autoencoder of molecules: valid rows, its bound against the truth, decoding, the weight of its KL."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from castalia.chemistry.molecules import molecules_of, texts_of
from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.molecule import MoleculeSpec
from castalia.media.molecule.read import MoleculeOptions
from castalia.media.molecule.sets import small
from castalia.models.molecules.selfies_vae import SelfiesVAE, SelfiesVAEConfig

SMILES = small("test", MoleculeOptions(kind="smiles"))
SELFIES = small("test", MoleculeOptions(kind="selfies"))
FEW = MoleculeSpec("smiles", 4, tokens=("C", "O"))


def vae(spec: MoleculeSpec = SELFIES.spec, **options) -> SelfiesVAE:
    return build(SelfiesVAE, SelfiesVAEConfig(5, 8, 12, True, 16, 2, **options), spec, 0).eval()


def rows(length: int, tokens: int, end: int) -> torch.Tensor:
    """All rows that end within ``length``, and those that have not ended by then."""
    found = []
    for n in range(length):
        found += [[*row, end, *[-1] * (length - n - 1)] for row in itertools.product(range(tokens), repeat=n)]
    found += [list(row) for row in itertools.product(range(tokens), repeat=length)]
    return torch.tensor(found)


def test_every_row_of_selfies_is_a_molecule() -> None:
    drawn = vae().sample(40, rng=SampleRng(0, range(40)))
    mols = molecules_of(drawn, SELFIES.spec)
    nothing = [not text for text in texts_of(drawn, SELFIES.spec)]
    assert all(mol is not None or empty for mol, empty in zip(mols, nothing, strict=True))
    assert sum(nothing) < 20


def test_the_bound_rises_with_samples_and_stays_below_the_truth() -> None:
    model = build(SelfiesVAE, SelfiesVAEConfig(1, 4, 6, True, 8, 1), FEW, 0).eval()
    x = rows(4, 2, FEW.end)
    with torch.no_grad():
        z = torch.linspace(-6, 6, 801)
        weight = (-z.square() / 2).exp()
        weight = weight / weight.sum()
        told = F.pad(x[:, :-1], (1, 0), value=FEW.end)
        nats = torch.stack([model.log_prob(model.logits(told, v.expand(len(x), 1)), x) for v in z])
        truth = (nats.exp() * weight[:, None]).sum(0).log()
    assert truth.exp().sum().item() == pytest.approx(1, abs=1e-4)
    rng = SampleRng(0, range(len(x)))
    bounds = [model.log_likelihood(Batch.of(x), rng=rng, samples=k).nats.mean() for k in (1, 10, 400)]
    assert bounds[0] < bounds[1] < bounds[2] < truth.mean() + 0.02
    assert bounds[2] == pytest.approx(truth.mean().item(), abs=0.03)


def test_written_one_by_one_as_scored_at_once() -> None:
    model = vae()
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    x = model.decode(z).x
    told = F.pad(x[:, :-1], (1, 0), value=SELFIES.spec.end)
    likeliest = model.logits(told, z).argmax(-1)
    assert torch.equal(likeliest[x >= 0], x[x >= 0])


def test_the_weight_of_the_kl_rises() -> None:
    model = vae(beta=0.5, rise=0.5)
    batch = SELFIES.batch(np.arange(8))
    logs: dict[str, torch.Tensor] = {}
    for step, beta in ((0, 0.0), (2, 0.2), (5, 0.5), (9, 0.5)):
        loss, logs = model.loss(batch, BatchRng(0, total=8), Progress(step, 10))
        assert loss.item() == pytest.approx((logs["reconstruction"] + beta * logs["kl"]).item(), rel=1e-5)
