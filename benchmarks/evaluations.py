"""Quality against evaluations of the network, for runs of the diffusion family: ``python -m benchmarks.evaluations``.

    python -m benchmarks.evaluations RUN [RUN ...] --calls 1 2 5 10 25 50 -n 500 --json FILE

Each run draws with so many evaluations as near as its method allows: ``consistency`` that many steps; ``flow-matching``
Euler's method up to 2, then the midpoint method; others DPM-Solver++(2M), whose first step is DDIM's. Told are the
Fréchet distance in features of the training data and, where classes were learned, the share of samples taken for the
class asked for; the floor is that of real training examples.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from castalia import api
from castalia.evaluation.drawn import measure_samples
from castalia.evaluation.feature_network import feature_space


def options_for(system: str, calls: int) -> dict[str, Any]:
    """Sampling options with ``calls`` evaluations, or one fewer where the method takes two at a time."""
    if system == "consistency":
        return {"steps": calls}
    if system == "flow-matching":
        return {"sampler": "euler", "steps": calls} if calls <= 2 else {"sampler": "midpoint", "steps": calls // 2}
    return {"sampler": "dpm++2m", "steps": calls}


def main() -> int:
    """Draw, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluations", description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--calls", nargs="+", type=int, default=[1, 2, 5, 10, 25, 50])
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    space = None
    for path in options.runs:
        run = api.load(path)
        model, system = run.model()[0], run.recipe.model
        train = api.open_data(run.recipe.data.source, split="train", like=run)
        held_out = api.open_data(run.recipe.data.source, split="test", like=run)
        space = feature_space(train) if space is None else space
        for calls in options.calls:
            chosen = model.SampleOptions(**options_for(system, calls))  # type: ignore[attr-defined]
            found = measure_samples(
                model,  # type: ignore[arg-type]
                train,
                held_out,
                n=options.n,
                seed=options.seed,
                options=chosen,
                space=space,
            ).metrics
            accuracy = found.get("condition_accuracy")
            row = {
                "run": path.name,
                "system": system,
                "calls": calls,
                "frechet": found["frechet"].value,
                "floor": found["frechet_floor"].value,
                "accuracy": None if accuracy is None else accuracy.value,
                "n": options.n,
                "seed": options.seed,
            }
            rows.append(row)
            told = "" if accuracy is None else f", class {accuracy.value:.1%}"
            print(f"{system}: {calls} evaluations, Fréchet {row['frechet']:.2f} (floor {row['floor']:.2f}){told}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
