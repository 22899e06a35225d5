"""Molecules with a wanted property: searched for with a model, under a budget of calls of the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Grid, Work, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is wanted, how it is searched for, and how long."""

    score: str = option(
        "qed",
        "what is wanted: qed, logp, penalised-logp, solubility, ease, dopamine, similar:MOLECULE (a name or SMILES)"
        "; several with * between them (qed)",
    )
    how: Literal["auto", "learned", "latent", "genetic", "screen"] = option(
        "auto",
        "learned: the language model is taught (REINVENT with a replay); latent: a search in the autoencoder's space; "
        "genetic: on graphs, without the model; screen: training molecules at random. auto takes what the model can",
    )
    budget: int = option(2_000, "how many molecules may be scored (2,000)", least=1)
    n: int = option(16, "how many of the best are written (16)", flag="-n", least=1)
    data: str | None = option(None, "molecules to begin with, where not those of the run", metavar="DATA")
    seed: int = option(0, "another search")


def run(work: Work, options: Options) -> Grid:
    """Search, and return the best that the run's form can show.

    Raises:
        UsageError: the model cannot be used as asked.
    """
    import numpy as np
    import torch

    from castalia.chemistry.molecules import read_smiles
    from castalia.core.data import Batch, join
    from castalia.creative.directed.choose import begin, method_for
    from castalia.media.molecule.read import values_of
    from castalia.media.molecule.table import Molecules

    method = method_for(work.model, options.how)
    table = work.data(options.data)
    if not isinstance(table, Molecules):
        raise UsageError("A search begins with molecules: give --data with some.")
    oracle = begin(work.model, table, method, options.score, options.budget, options.seed)
    examples, told = [], []
    for one in oracle.best(len(oracle.found)):
        mol = read_smiles(one.smiles)
        values = None if mol is None else values_of(mol, work.spec)
        if values is not None:
            parts = {name: torch.from_numpy(np.ascontiguousarray(part))[None] for name, part in values.items()}
            examples.append(Batch.of(parts.pop("x"), None, parts))
            told.append({"smiles": one.smiles, "score": one.score, "call": one.call})
        if len(examples) == options.n:
            break
    if not examples:
        raise UsageError("Nothing was found that the run's form can show; raise --budget.")
    return Grid(join(examples, work.spec), recipe={"how": method, "search": oracle.said(), "molecules": told})


EDIT = Edit(
    "direct",
    "Search for molecules with a wanted property.",
    "FILE.png: the best, drawn; a folder: SMILES and SDF too; the scores stand in the recipe beside it",
    Options,
    run,
    needs=("Generator",),
    media=("molecule",),
)
