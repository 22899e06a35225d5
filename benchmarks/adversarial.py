"""Adversarial systems on emoji at 32 pixels: ``python -m benchmarks.adversarial``.

    python -m benchmarks.adversarial equal --minutes 20 --out runs/equal --json FILE
    python -m benchmarks.adversarial eighth --minutes 20 --out runs/eighth --json FILE

``equal`` gives DCGAN, Progressive GAN, BigGAN and StyleGAN2 the same minutes. ``eighth`` trains StyleGAN2 with and
without adaptive augmentation on every eighth emoji of the training split. Both measure beside the whole test split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import castalia
from castalia.making import make_recipe

EQUAL = {
    "dcgan": ("dcgan-emoji", ("data.options.size=32",)),
    "progan": ("progan-emoji", ()),
    "biggan": ("biggan-emoji", ()),
    "stylegan2": ("stylegan2-emoji-32", ()),
}
EIGHTH = {"with ADA": ("stylegan2-emoji-32", ()), "without": ("stylegan2-emoji-32-plain", ())}
EVERY = 8
KEPT = ("frechet", "precision", "recall", "coverage", "variety")


def eighth(out: Path) -> str:
    """Every eighth training emoji, as files."""
    data = castalia.open_data(
        "noto-emoji", split="train", options=make_recipe(None, None, recipe=EIGHTH["without"][0]).data.options
    )
    folder = out / "eighth"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(0, len(data), EVERY):
        pixels = data.batch(np.array([number])).x[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")
    return str(folder)


def main() -> int:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adversarial", description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("equal", "eighth"))
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--drawn", type=int, default=1_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = eighth(options.out) if options.what == "eighth" else None
    rows: list[dict[str, Any]] = []
    for name, (recipe, settings) in (EQUAL if data is None else EIGHTH).items():
        if options.only and name not in options.only:
            continue
        out = options.out / f"{options.what}-{name.replace(' ', '-').lower()}"
        run = castalia.train(
            None, data, out, recipe=recipe, settings=settings, minutes=options.minutes, seed=1, quiet=True
        )
        metrics = castalia.evaluate(run, "noto-emoji", drawn=options.drawn)["metrics"]
        row = {"what": options.what, "name": name, "recipe": recipe, "steps": run.steps_done()}
        row |= {k: v["value"] for k, v in metrics.items() if k.startswith(KEPT)}
        row |= {k: v for k, v in run.metrics()[-1].items() if "ada" in k or "augment" in k}
        rows.append(row)
        print(json.dumps(row), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
