"""A vector-quantised autoencoder beside a variational one at equal bits: ``python -m benchmarks.codes``.

    python -m benchmarks.codes --minutes 5 --out runs/codes --json FILE

The latent bits of a VAE are its mean KL divergence; a VQ-VAE's are its cells times the logarithm of its codes (what a
file would hold without a prior), and the bits that its prior needs for them. The VAE is trained first, and the VQ-VAE
gets as many codes as come nearest to the VAE's bits from below. Both are given the same minutes for the autoencoder.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

import castalia
from castalia.core.data import Batch
from castalia.core.rng import SampleRng
from castalia.models.autoencoders.vqvae import VQVAE

CELLS = 16
"""Of the VQ-VAE with three halvings: 4 x 4."""


def main() -> int:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codes", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--limit", type=int, default=2_000, help="test pictures")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    vae = castalia.train(
        None, None, options.out / "vae", recipe="vae-mnist", minutes=options.minutes, seed=1, quiet=True
    )
    metrics = castalia.evaluate(vae, limit=options.limit, samples=10)["metrics"]
    bits = metrics["kl"]["value"] / math.log(2)
    rows: list[dict[str, Any]] = [
        {"system": "vae", "steps": vae.steps_done(), "bits": bits, "mse": metrics["mse"]["value"]}
    ]
    codes = max(2, math.floor(2 ** (bits / CELLS)))
    settings = ("config.levels=3", f"config.codes={codes}", "config.prior_share=0.3")
    made = castalia.train(
        None,
        None,
        options.out / "vqvae",
        recipe="vqvae-mnist",
        settings=settings,
        minutes=options.minutes / 0.7,
        seed=1,
        quiet=True,
    )
    rows.append({"system": "vqvae", "steps": made.steps_done(), "codes": codes} | quantised(made, options.limit))
    for row in rows:
        print(json.dumps(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


@torch.no_grad()
def quantised(run: castalia.Run, limit: int) -> dict[str, float]:
    """Bits, error of reconstructions (values in [0, 1]) and use of the codes, on test pictures."""
    model, _ = run.model()
    assert isinstance(model, VQVAE)
    data = castalia.open_data("mnist", split="test", like=run)
    ids, errors, nats, used = np.linspace(0, len(data) - 1, limit).astype(int), [], [], set[int]()
    for part in np.array_split(ids, math.ceil(limit / 200)):
        batch = data.batch(part)
        codes = model.codes(batch, rng=SampleRng(0, range(len(part))))
        errors.append(error(batch, model.pictures(codes)))
        label = model.labels.of(batch) if model.config.conditional else None
        nats.append(-model.prior.log_prob(codes.flatten(1), label))
        used |= set(codes.flatten().tolist())
    size = model.config.codes
    return {
        "bits": CELLS * math.log2(size),
        "bits_of_prior": float(torch.cat(nats).mean()) / math.log(2),
        "mse": float(torch.cat(errors).mean()),
        "codes_used": len(used) / size,
    }


def error(batch: Batch, made: Batch) -> torch.Tensor:
    """Mean squared error of each picture, values in [0, 1]."""
    return (((batch.x.double() - made.x.double()) / 255) ** 2).flatten(1).mean(1)


if __name__ == "__main__":
    raise SystemExit(main())
