"""The language model of molecules (and what it shares with the autoencoder): probabilities, prompts, sizes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from castalia.chemistry.molecules import texts_of
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.molecule import MoleculeSpec
from castalia.media.molecule.medium import MoleculeMedium
from castalia.media.molecule.read import MoleculeOptions
from castalia.media.molecule.sets import small
from castalia.models.molecules.selfies_vae import MOSES, SelfiesVAE, SelfiesVAEConfig
from castalia.models.molecules.smiles_gpt import MOLGPT, SmilesGPT
from castalia.models.sequence.gpt2 import GPT2Config

SMILES = small("test", MoleculeOptions(kind="smiles"))
SELFIES = small("test", MoleculeOptions(kind="selfies"))
FEW = MoleculeSpec("smiles", 4, tokens=("C", "O"))


def gpt(spec: MoleculeSpec = FEW) -> SmilesGPT:
    model = build(SmilesGPT, GPT2Config(2, 2, 16, 0.0, init=0.3), spec, 0).eval()
    return model


def vae(spec: MoleculeSpec = SELFIES.spec, **options) -> SelfiesVAE:
    return build(SelfiesVAE, SelfiesVAEConfig(5, 8, 12, True, 16, 2, **options), spec, 0).eval()


def rows(length: int, tokens: int, end: int) -> torch.Tensor:
    """All rows that end within ``length``, and those that have not ended by then."""
    found = []
    for n in range(length):
        found += [[*row, end, *[-1] * (length - n - 1)] for row in itertools.product(range(tokens), repeat=n)]
    found += [list(row) for row in itertools.product(range(tokens), repeat=length)]
    return torch.tensor(found)


def test_the_language_models_probabilities_sum_to_one() -> None:
    x = rows(4, 2, FEW.end)
    nats = gpt().log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x)))).nats
    assert nats.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_its_samples_have_its_probabilities() -> None:
    model, n = gpt(), 6_000
    drawn = model.sample(n, rng=SampleRng(0, range(n))).x
    drawn = F.pad(drawn, (0, 4 - drawn.shape[1]), value=-1)
    x = rows(4, 2, FEW.end)
    chance = model.score(x).exp()
    seen = torch.tensor([(drawn == row).all(1).float().mean() for row in x])
    assert (seen - chance).abs().max() < 4 * math.sqrt(0.25 / n)


def test_a_prompt_goes_on_and_does_not_end() -> None:
    medium = MoleculeMedium()
    model = gpt(SMILES.spec)
    whole = medium.read("CCO", SMILES.spec)
    assert whole[-1] == SMILES.spec.end
    drawn = model.sample(6, {"prompt": whole.expand(6, -1)}, rng=SampleRng(0, range(6)))
    assert (drawn.x[:, :3] == whole[:3]).all()
    assert (drawn.x[:, 3:].max(1).values >= 0).all()
    begun = medium.read("CC(...", SMILES.spec)
    drawn = model.sample(2, {"prompt": begun.expand(2, -1)}, rng=SampleRng(0, range(2)))
    assert all(text.startswith("CC(") for text in texts_of(drawn, SMILES.spec))


def test_the_loss_is_the_mean_of_molecules() -> None:
    model = gpt(SMILES.spec)
    batch = SMILES.batch(np.arange(6))
    loss, logs = model.loss(batch, BatchRng(0, total=6), Progress(0, 1))
    nats = model.log_likelihood(batch, rng=SampleRng(0, range(6))).nats
    assert logs["nats_per_molecule"].item() == pytest.approx(-nats.mean().item(), rel=1e-5)
    assert loss.item() == pytest.approx(-nats.mean().item() / SMILES.spec.length, rel=1e-5)
    parts = [model.loss(batch[i : i + 3], BatchRng(0, total=3), Progress(0, 1))[0] for i in (0, 3)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, loss)  # as on two processes


def test_padding_does_not_matter() -> None:
    x = SMILES.batch(np.arange(5)).x
    wide = F.pad(x, (0, 3), value=-1)
    model, coder = gpt(SMILES.spec), vae(SMILES.spec)
    torch.testing.assert_close(model.score(x), model.score(wide))
    for one, other in zip(coder.posterior(x), coder.posterior(wide), strict=True):
        torch.testing.assert_close(one, other)


def test_the_paper_sizes() -> None:
    # MolGPT says 6.4 million with MOSES' vocabulary of 26 and places for 55 tokens; ours has no tokens for wishes
    with torch.device("meta"):
        model = SmilesGPT(MOLGPT, MoleculeSpec("smiles", 55, tokens=tuple(f"[{i}]" for i in range(26))))
        coder = SelfiesVAE(MOSES, MoleculeSpec("selfies", 55, tokens=tuple(f"[{i}]" for i in range(26))))
    assert sum(p.numel() for p in model.parameters()) == 6_339_584
    assert sum(p.numel() for p in coder.parameters()) == 5_075_931


def test_graphs_are_refused() -> None:
    for kind, config in ((SmilesGPT, GPT2Config(1, 1, 8)), (SelfiesVAE, SelfiesVAEConfig())):
        with pytest.raises(UsageError, match="strings"):
            kind(config, small("test").spec)
    with pytest.raises(ValueError, match="restarts"):
        SmilesGPT(GPT2Config(1, 1, 8, restarts=0.1), FEW)
