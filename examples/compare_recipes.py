"""Compare two variants of a recipe on the same data: sixteen latents against two.

python examples/compare_recipes.py --steps 1500 --out runs/compare

It trains both on the built-in digits and measures both on the same held-out digits, with the same seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import castalia

RECIPES = ("vae-digits", "vae-digits-plane")
SHOWN = ("nll", "elbo", "kl", "active_units", "mse")


def main() -> None:
    """Train both, measure both, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    options = parser.parse_args()

    measured = {}
    for recipe in RECIPES:
        run = castalia.train(recipe=recipe, out=options.out / recipe, steps=options.steps, quiet=True)
        measured[recipe] = castalia.evaluate(run, limit=200, samples=50)["metrics"]

    print(f"{'':<16}" + "".join(f"{recipe:>28}" for recipe in RECIPES))
    for name in SHOWN:
        cells = []
        for recipe in RECIPES:
            metric = measured[recipe][name]
            low, high = metric["interval"] or (None, None)
            interval = "" if low is None else f" ({low:.3g} to {high:.3g})"
            cells.append(f"{metric['value']:.4g}{interval}")
        print(f"{name:<16}" + "".join(f"{cell:>28}" for cell in cells))
    kinds = {metric["kind"] for metric in (found["nll"] for found in measured.values())}
    print(f"nll: {', '.join(kinds)}, nats per digit; in brackets 95 % intervals over the digits")


if __name__ == "__main__":
    main()
