from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from castalia import runs
from castalia.configuration import Data, Recipe, Training
from castalia.core.files import write_json
from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.core.weights import save_tensors
from castalia.models.autoencoders.vae import VAE, VAEConfig

METRICS = {
    "metrics": {
        "bound": {
            "value": 98.5,
            "unit": "nats",
            "kind": "bound",
            "n": 100,
            "seed": 0,
            "interval": [98.0, 99.0],
        }
    }
}

DENSE = VAEConfig(network="dense", latent_dims=3, widths=(8,))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., runs.Run]:
    """Fabricate a finished run of a tiny vae with random weights."""

    def make(config: VAEConfig = DENSE, spec: ImageSpec | None = None, source: str = "mnist", parents=()) -> runs.Run:
        recipe = Recipe("vae", config, Data(source), Training(steps=7, seed=3), parents=parents)
        spec = spec or ImageSpec(1, 5, 6, ("no", "yes"))
        run = runs.create(tmp_path / "run", recipe, spec, "abc123")
        model = build(VAE, config, spec, seed=1)
        with torch.no_grad():
            for i, p in enumerate(model.parameters()):
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * 0.1)
        save_tensors(run.weights, model.state_dict(), {"castalia.model": "vae", "castalia.step": "7"})
        write_json(run.path / "results.json", METRICS)
        return run

    return make
