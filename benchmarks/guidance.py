"""Ways of guidance beside one another: ``python -m benchmarks.guidance``.

    python -m benchmarks.guidance RUN [RUN ...] -n 500 --json FILE

Each run of the diffusion family draws the same noise plainly, and with each way of guidance that it has at each scale:
classifier-free (``guidance``), by a classifier (``classifier_scale``), away from a bad version (``autoguidance``). Told
are the Fréchet distance in features of the training data, the share of samples taken for the class asked for, and how
far samples of the same class lie apart beside real ones (``variety``); the floor is that of real training examples.
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

SCALES: dict[str, tuple[float, ...]] = {
    "guidance": (1.5, 2.0, 3.0),
    "classifier_scale": (1.0, 3.0, 10.0),
    "autoguidance": (1.5, 2.0, 3.0),
}
"""Of each way, by the sampling option that it is asked for with."""

PLAIN = {"guidance": 1.0, "classifier_scale": 0.0, "autoguidance": 1.0}
"""The value of each option that leaves the model alone."""


def ways(options: type[Any], conditional: bool) -> list[tuple[str, float]]:
    """Options and scales that a run is drawn with, the plain model first."""
    has = options()
    asked = [name for name in SCALES if hasattr(has, name) and (name != "guidance" or conditional)]
    return [("plain", 0.0)] + [(name, scale) for name in asked for scale in SCALES[name]]


def main() -> int:
    """Draw, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guidance", description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=18, help="of the sampler dpm++2m")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    space = None
    for path in options.runs:
        run = api.load(path)
        model = run.model()[0]
        train, held_out = (api.open_data(run.recipe.data.source, split=s, like=run) for s in ("train", "test"))
        space = feature_space(train) if space is None else space
        kind: Any = model.SampleOptions  # type: ignore[attr-defined]
        plain = {name: value for name, value in PLAIN.items() if hasattr(kind(), name)}
        for way, scale in ways(kind, bool(getattr(model, "classes", 0))):
            asked = plain if way == "plain" else {**plain, way: scale}
            chosen = kind(**asked, sampler="dpm++2m", steps=options.steps)
            found = measure_samples(
                model,  # type: ignore[arg-type]
                train,
                held_out,
                n=options.n,
                seed=options.seed,
                options=chosen,
                space=space,
            ).metrics
            row: dict[str, Any] = {"system": run.recipe.model, "way": way, "scale": scale, "n": options.n}
            row["seed"] = options.seed
            for name in ("frechet", "frechet_floor", "condition_accuracy", "precision", "recall", "variety"):
                metric = found.get(name)
                row[name] = None if metric is None else metric.value
                row[name + "_interval"] = None if metric is None else metric.interval
            rows.append(row)
            print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
