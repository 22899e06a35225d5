"""Searches for molecules with wanted properties, under one budget: ``python -m benchmarks.directed``.

    python -m benchmarks.directed --gpt RUN --vae RUN --json FILE

For each task and seed: screening of training molecules at random, genetic search on graphs, a taught language model, a
search in an autoencoder's latent space. Told is the area under the mean of the ten best over calls (PMO's AUC top-10),
the ten best, and the diversity of the hundred best; means over seeds, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from castalia import runs
from castalia.creative.directed.choose import begin
from castalia.media.molecule.read import MoleculeOptions
from castalia.media.molecule.table import Molecules
from castalia.media.named import open_data

TASKS = ("qed", "similar:albuterol")


def main() -> int:
    """Search, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.directed", description=__doc__.split("\n\n")[0])
    parser.add_argument("--gpt", type=Path, help="a run of smiles-gpt; without it, it is left out")
    parser.add_argument("--vae", type=Path, help="a run of selfies-vae; without it, it is left out")
    parser.add_argument("--data", default="zinc250k", help="molecules to begin with (zinc250k)")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--budget", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {
        "screen": None,
        "genetic": None,
        **({"learned": runs.open_run(options.gpt).model()[0].eval()} if options.gpt else {}),
        **({"latent": runs.open_run(options.vae).model()[0].eval()} if options.vae else {}),
    }
    rows = []
    for method, model in models.items():
        like = None if model is None else model.spec
        table = open_data(options.data, MoleculeOptions(kind="smiles"), "train", like=like)
        assert isinstance(table, Molecules)
        for task in options.tasks:
            found = []
            started = time.monotonic()
            for seed in range(options.seeds):
                with torch.no_grad():
                    found.append(begin(model, table, method, task, options.budget, seed).said())
            row = {"task": task, "method": method, "seconds": (time.monotonic() - started) / options.seeds}
            for key in ("auc_top10", "top10", "best", "diversity_top100", "calls"):
                values = [one[key] for one in found]
                row[key] = [float(np.mean(values)), min(values), max(values)]
            rows.append(row)
            mean, low, high = row["auc_top10"]
            print(
                f"{task:20} {method:8} AUC top-10 {mean:.3f} ({low:.3f} to {high:.3f})  top 10 {row['top10'][0]:.3f}  "
                f"diversity {row['diversity_top100'][0]:.3f}  {row['calls'][0]:.0f} calls, {row['seconds']:.0f} s",
                flush=True,
            )
    if options.json:
        told = {"budget": options.budget, "seeds": options.seeds, "data": options.data, "rows": rows}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
