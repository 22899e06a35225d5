"""Which modes of a known mixture a GAN covers: the experiment of PacGAN's table 1, in minutes of one core.

    python benchmarks/mode_coverage.py [--systems gan pacgan2 wgan-gp] [--data grid ring] [--seeds 5] [--first-seed 0]
        [--minutes 5] [--out FOLDER] [--json FILE]

Grid: 25 Gaussians at {-4, -2, 0, 2, 4}^2, deviation 0.05. Ring: 8 on the unit circle, deviation 0.01. Measured on 2,500
samples, as Lin et al. 2018 (arXiv:1712.04086) did: a sample is of high quality within 3 deviations of the nearest mode;
a mode is covered if it has a sample of high quality; reverse KL is that of the high-quality samples' modes from equal
shares. Of the data itself 98.9 % are of high quality.

A recipe whose steps would take longer is cut to --minutes, with its schedule; a shorter one is left as it is. Time is
that of the training alone, wall clock and processor; one thread. Curves are measured on the averaged weights of each
run's checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from castalia import api, checkpoints, recipes
from castalia.core.model import Model
from castalia.estimators.modes import mixture_modes
from castalia.media.points.array import PointsArray
from castalia.training.loop import train

RECIPES = {
    ("gan", "grid"): "gan-grid",
    ("gan", "ring"): "gan-ring",
    ("pacgan2", "grid"): "pacgan-grid",
    ("pacgan2", "ring"): "pacgan-ring",
    ("wgan-gp", "grid"): "wgan-gp-grid",
    ("wgan-gp", "ring"): "wgan-gp-ring",
}

PUBLISHED = {
    ("gan", "grid"): "17.3+-.8 modes, 94.8+-.7 %, .70+-.07",
    ("gan", "ring"): "6.3+-.5 modes, 98.2+-.2 %, .45+-.09",
    ("pacgan2", "grid"): "23.8+-.7 modes, 91.3+-.8 %, .13",
    ("pacgan2", "ring"): "7.9+-.1 modes, 95.6+-2 %, .07",
}
"""Table 1 of PacGAN: 10 trials of 400 epochs."""

SAMPLES = 2_500
LONG = 100_000
"""Recipes of more steps than this are cut to the minutes."""


@dataclass(frozen=True)
class Coverage:
    """How samples lie on a mixture.

    Attributes:
        modes: number of modes with a sample of high quality.
        high_quality: share of samples within 3 deviations of a mode.
        reverse_kl: of the high-quality samples' modes from equal shares, nats.
    """

    modes: int
    high_quality: float
    reverse_kl: float


def coverage(x: Tensor, modes: Tensor, std: float) -> Coverage:
    """Measure samples ``float`` (N, D) against modes (M, D)."""
    found = mixture_modes(x, modes, std)
    counts = torch.bincount(found.nearest[found.good], minlength=len(modes)).double()
    shares = counts / counts.sum().clamp(min=1)
    kl = float(torch.special.xlogy(shares, shares * len(modes)).sum()) if counts.sum() else math.inf
    return Coverage(found.covered, float(found.good.double().mean()), kl)


def curve(folder: Path, data: PointsArray, seed: int) -> list[dict[str, Any]]:
    """Coverage at each checkpoint of a run."""
    run = api.load(folder)
    return [
        {"step": found.step, **vars(measure(run.model(at=found)[0], data, seed))}
        for found in checkpoints.intact(run.checkpoints)
    ]


def measure(model: Model, data: PointsArray, seed: int) -> Coverage:
    """Coverage of 2,500 samples."""
    assert data.modes is not None
    return coverage(api.draw(model, SAMPLES, seed=seed).x, data.modes, data.mode_std)


def one(system: str, where: str, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Train and measure one run."""
    recipe = recipes.recipe(RECIPES[system, where])
    settings = replace(recipe.training, seed=seed, threads=1, sample_every=10**9, keep=20, checkpoint_every=0)
    if settings.steps > LONG:
        settings = replace(settings, minutes=minutes)
    data = api.open_data(recipe.data.source)
    assert isinstance(data, PointsArray)
    wall, cpu = time.perf_counter(), time.process_time()
    run = train(replace(recipe, training=settings), data, folder, quiet=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = measure(run.model()[0], data, seed + 1_000)
    return {
        "system": system,
        "data": where,
        "recipe": RECIPES[system, where],
        "seed": seed,
        "steps": run.metrics()[-1]["step"],
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "samples": SAMPLES,
        **vars(found),
        "curve": curve(folder, data, seed + 1_000),
    }


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard error of the mean."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f}+-{error:.{digits}f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--systems", nargs="+", choices=["gan", "pacgan2", "wgan-gp"], default=["gan", "pacgan2", "wgan-gp"]
    )
    parser.add_argument("--data", nargs="+", choices=["grid", "ring"], default=["grid", "ring"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for where in options.data:
            for system in options.systems:
                mine = []
                for seed in range(options.first_seed, options.first_seed + options.seeds):
                    folder = (options.out or Path(temporary)) / f"{system}-{where}-{seed}"
                    mine.append(one(system, where, seed, options.minutes, folder))
                    rows.append(mine[-1])
                    row = {k: v for k, v in mine[-1].items() if k != "curve"}
                    print(json.dumps(row), flush=True)
                    if options.json:
                        options.json.write_text(json.dumps(rows, indent=2) + "\n")
                print(
                    f"{system} on {where}: {spread([r['modes'] for r in mine], 1)} modes, "
                    f"{spread([100 * r['high_quality'] for r in mine], 1)} % of high quality, reverse KL "
                    f"{spread([r['reverse_kl'] for r in mine], 3)}, {np.mean([r['cpu_s'] for r in mine]):.0f} s of "
                    f"processor time; published: {PUBLISHED.get((system, where), 'nothing')}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
