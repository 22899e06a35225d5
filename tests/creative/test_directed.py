"""Searching for molecules: scores, budgets, the area under the curve, and that every search gets better."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from castalia.chemistry.molecules import canonical, read_smiles
from castalia.chemistry.properties import (
    KNOWN,
    accessibility,
    ease,
    logp,
    penalised_logp,
    qed,
    score_of,
    solubility,
)
from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.creative.directed import genetic
from castalia.creative.directed.choose import begin, method_for
from castalia.creative.directed.oracle import Oracle
from castalia.media.molecule.measures import counts, diversity, scaffolds
from castalia.media.molecule.read import MoleculeOptions
from castalia.media.molecule.sets import rule, small
from castalia.models.molecules.selfies_vae import SelfiesVAE, SelfiesVAEConfig
from castalia.models.molecules.smiles_gpt import SmilesGPT
from castalia.models.sequence.gpt2 import GPT2Config

SMILES = small("train", MoleculeOptions(kind="smiles"))
SELFIES = small("train", MoleculeOptions(kind="selfies"))


def mol(text: str):
    found = read_smiles(text)
    assert found is not None
    return found


def test_scores_are_those_of_rdkit() -> None:
    from rdkit.Chem import QED, Crippen

    for text in KNOWN.values():
        one = mol(text)
        assert qed(one) == QED.qed(one)
        assert logp(one) == Crippen.MolLogP(one)
        assert penalised_logp(one) == pytest.approx(logp(one) - accessibility(one))  # no ring above six
    assert accessibility(mol(KNOWN["aspirin"])) == pytest.approx(1.58, abs=0.01)  # Ertl & Schuffenhauer's own table
    twelve = mol("C1CCCCCCCCCCC1")
    assert penalised_logp(twelve) == pytest.approx(logp(twelve) - accessibility(twelve) - 6)


def test_molgans_scores_at_their_ends() -> None:
    assert 0 <= solubility(mol("OCC(O)C(O)C(O)C(O)CO")) < 0.01
    assert solubility(mol("C" * 20)) == 1
    assert ease(mol("CCO")) == pytest.approx((5 - accessibility(mol("CCO"))) / 3.5)


def test_names_of_scores() -> None:
    aspirin = mol(KNOWN["aspirin"])
    assert score_of("similar:aspirin")(aspirin) == 1
    assert score_of(f"similar:{KNOWN['aspirin']}")(mol("CCO")) < 0.3
    assert score_of("qed*ease")(aspirin) == pytest.approx(qed(aspirin) * ease(aspirin))
    assert score_of("dopamine")(mol(KNOWN["haloperidol"])) == pytest.approx(qed(mol(KNOWN["haloperidol"])))
    with pytest.raises(UsageError, match="'qed'"):
        score_of("qde")
    with pytest.raises(UsageError, match="aspirin"):
        score_of("similar:asprin")


def test_a_budget_is_kept_and_repeats_are_free() -> None:
    asked: list[str] = []

    def score(one) -> float:
        asked.append(canonical(one))
        return float(one.GetNumAtoms())

    oracle = Oracle(score, 3)
    out = oracle([mol("CCO"), None, mol("OCC"), mol("C.C"), mol("CC"), mol("CCC"), mol("CCCC")])
    assert out.tolist() == [3, 0, 3, 0, 2, 3, 0]
    assert asked == ["CCO", "CC", "CCC"]
    assert oracle.spent
    assert [one.call for one in oracle.best()] == [1, 3, 2]


def test_the_area_under_the_curve() -> None:
    values = iter(np.linspace(0, 1, 300))
    oracle = Oracle(lambda one: float(next(values)), 1_000)
    oracle([mol("C" * n) for n in range(1, 201)])
    # means of the ten best after 100 and 200 calls, trapezoids, and the rest at the last mean
    scores = np.linspace(0, 1, 300)[:200]
    a, b = scores[90:100].mean(), scores[190:200].mean()
    assert oracle.area() == pytest.approx((100 * a / 2 + 100 * (a + b) / 2 + 800 * b) / 1_000)


def test_mutations_and_crossings_are_molecules() -> None:
    rng = np.random.default_rng(0)
    pool = [mol(text) for text in KNOWN.values()]
    children = [genetic.crossed(pool[i % 9], pool[(i + 4) % 9], rng) for i in range(60)]
    changed = [genetic.mutated(pool[i % 9], rng) for i in range(60)]
    for found in (children, changed):
        good = [one for one in found if one is not None]
        assert len(good) >= 25
        assert all(read_smiles(canonical(one)) is not None and "." not in canonical(one) for one in good)
        assert len({canonical(one) for one in good} - {canonical(one) for one in pool}) >= 15
    for change in genetic.CHANGES:
        seen = set()
        for _ in range(30):
            from castalia.chemistry.molecules import chem

            edit = chem().RWMol(pool[0])
            chem().Kekulize(edit, clearAromaticFlags=True)
            if change(edit, rng) and (one := genetic.checked(edit)) is not None:
                seen.add(canonical(one))
        assert seen, change.__name__


@pytest.mark.parametrize("method", ["screen", "genetic", "learned", "latent"])
def test_every_search_gets_better_and_repeats(method: str) -> None:
    models = {
        "learned": lambda: build(SmilesGPT, GPT2Config(1, 2, 16, 0.0), SMILES.spec, 0).eval(),
        "latent": lambda: build(SelfiesVAE, SelfiesVAEConfig(4, 8, 12, True, 16, 1), SELFIES.spec, 0).eval(),
    }
    model = models[method]() if method in models else None
    table = SELFIES if method == "latent" else SMILES
    budget = 260 if method == "latent" else 150
    with torch.no_grad():
        runs = [begin(model, table, method, "logp", budget, seed=3) for _ in range(2)]
    assert [one.smiles for one in runs[0].found] == [one.smiles for one in runs[1].found]
    assert 20 < len(runs[0].found) <= budget
    first = np.mean([one.score for one in runs[0].found[:10]])
    assert runs[0].said()["top10"] > first + 0.2
    if model is not None:
        assert model.state_dict().keys() == models[method]().state_dict().keys()
        for key, value in models[method]().state_dict().items():
            assert torch.equal(model.state_dict()[key], value), "the run's own model was changed"


def test_which_search_fits() -> None:
    gpt = build(SmilesGPT, GPT2Config(1, 1, 8, 0.0), SMILES.spec, 0)
    vae = build(SelfiesVAE, SelfiesVAEConfig(2, 4, 4, True, 4, 1), SELFIES.spec, 0)
    assert [method_for(m, "auto") for m in (gpt, vae, object())] == ["learned", "latent", "genetic"]
    with pytest.raises(UsageError, match="smiles-gpt"):
        method_for(vae, "learned")


def test_counts_of_a_set() -> None:
    made = [mol("CCO"), mol("OCC"), None, mol("CC.C"), mol("CF")]
    found = counts(made, SMILES.spec, {"CCO"})
    assert found == {
        "valid": 0.8,
        "unique": 0.75,
        "whole": 0.6,
        "novel": pytest.approx(2 / 3),
        "valid_unique_novel": 0.4,
        "whole_unique_novel": 0.2,
    }


def test_diversity_and_scaffolds() -> None:
    one = mol(KNOWN["haloperidol"])
    assert diversity([one, one]) == pytest.approx(0)
    assert diversity([mol("CCO"), mol("c1ccccc1")]) == pytest.approx(0.5)  # each with itself is counted, as in MOSES
    assert sum(scaffolds([one, one, mol("CCO"), mol("c1ccccc1")]).values()) == 2
    assert len(rule()) > 700


def test_known_molecules_are_those_that_they_are_called() -> None:
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    formulas = {
        "albuterol": "C13H21NO3",
        "celecoxib": "C17H14F3N3O2S",
        "mestranol": "C21H26O2",
        "thiothixene": "C23H29N3O2S2",
        "troglitazone": "C24H27NO5S",
        "aspirin": "C9H8O4",
        "caffeine": "C8H10N4O2",
        "haloperidol": "C21H23ClFNO2",
        "risperidone": "C23H27FN4O2",
    }
    assert {name: CalcMolFormula(mol(text)) for name, text in KNOWN.items()} == formulas


def test_no_molecule_is_worse_than_none() -> None:
    oracle = Oracle(logp, 10)
    scores = oracle([mol("OCC(O)C(O)CO"), None, mol("C.C"), mol("CCCCCC")])
    assert scores[0] < 0 < scores[3]
    assert scores[1] == scores[2] == scores[0]
    assert Oracle(qed, 10)([None, mol("CCO")])[0] == 0
