"""Synthetic tables beside what costs nothing: ``python -m benchmarks.tables --runs RUN ...``.

    python -m benchmarks.tables --data adult --runs runs/tvae runs/ctgan runs/tabddpm --json FILE

Told is, of as many rows each: F1 of the target on held-out rows, learned by four classifiers; the distance to the
closest training row; the quality report. ``real`` are training rows themselves, ``held-out`` rows that nobody trained
on, and ``SMOTE`` (Chawla et al. 2002) mixes training rows with one of their five nearest neighbours of the same class.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from castalia import api, runs
from castalia.core.specs.table import TableSpec
from castalia.media.named import open_data
from castalia.media.table.kinds import settled
from castalia.media.table.measures import NEAREST_OF, Rows, all_rows, closest, f1_scores, quality, rows_of


def spread_out(rows: Rows, train: Rows, spec: TableSpec) -> np.ndarray:
    """Rows as numbers whose sums of differences are the distances of ``closest``."""
    columns = []
    for j, part in enumerate(spec.parts):
        x, gone = rows[0][:, j], rows[1][:, j] == 1
        if part.listed:
            columns.append(0.5 * np.eye(len(part.values))[x.astype(int)] * ~gone[:, None])
        else:
            known = train[0][train[1][:, j] == 0, j]
            scale, middle = (
                (float(known.std()) * (np.ptp(known) > 0), float(known.mean())) if len(known) else (0.0, 0.0)
            )
            columns.append(np.where(gone, 0, (x - middle) / (scale or 1.0))[:, None])
        columns.append(0.5 * gone[:, None].astype(float))
    return np.concatenate(columns, 1) / len(spec.parts)


def smote(real: Rows, spec: TableSpec, n: int, seed: int) -> Rows:
    """Rows between neighbours: numbers on the line, other values of either."""
    rng = np.random.default_rng(seed)
    x, missing = real
    at = spec.place(spec.target)
    first = rng.integers(len(x), size=n)
    other = np.empty(n, np.int64)
    where = spread_out(real, real, spec)
    for label in np.unique(x[:, at]):
        mine = np.flatnonzero(x[:, at] == label)
        asked = np.flatnonzero(x[first, at] == label)
        if len(asked):
            near = NearestNeighbors(n_neighbors=min(6, len(mine))).fit(where[mine]).kneighbors(where[first[asked]])[1]
            pick = rng.integers(min(1, near.shape[1] - 1), near.shape[1], size=len(asked))
            other[asked] = mine[near[np.arange(len(asked)), pick]]
    share, either = rng.random(n), rng.random(x[first].shape) < 0.5
    made, gone = np.where(either, x[first], x[other]), np.where(either, missing[first], missing[other])
    for j, part in enumerate(spec.parts):
        if not part.listed:
            whole = (missing[first, j] == 0) & (missing[other, j] == 0)
            between = settled(x[first, j] + share * (x[other, j] - x[first, j]), part)
            made[:, j], gone[:, j] = np.where(whole, between, made[:, j]), np.where(whole, 0, gone[:, j])
    return made, gone


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="adult", help="a table with a target that is a category (adult)")
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="runs trained on it")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (open_data(options.data, split=split) for split in ("train", "test"))
    spec = train.spec
    assert isinstance(spec, TableSpec)
    real, held = all_rows(train, len(train)), all_rows(test, len(test))
    n = min(options.rows, len(train))
    chosen = np.random.default_rng(options.seed).permutation(len(train))[:n]
    sets: dict[str, Rows] = {
        "real": (real[0][chosen], real[1][chosen]),
        "held-out": held,
        "SMOTE": smote(real, spec, n, options.seed),
    }
    for path in options.runs:
        run = runs.open_run(path)
        sets[f"{run.recipe.model} ({path.name})"] = rows_of(api.sample(run, n, seed=options.seed))
    told = {}
    for name, rows in sets.items():
        row = {"quality": quality(real, rows, spec)["quality"]}
        row["closest"] = float(closest((rows[0][:NEAREST_OF], rows[1][:NEAREST_OF]), real, spec).mean())
        if name != "held-out":
            row |= {f"F1 {key}": value for key, value in f1_scores(rows, held, spec, options.seed).items()}
        told[name] = row
        print(f"{name:28}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)
    if options.json:
        whole = {"data": options.data, "rows": n, "seed": options.seed, "sets": told}
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
