"""Train a variational autoencoder on a folder of pictures, and walk through what it learnt.

python examples/train_and_walk.py --data my_pictures/ --size 64 --steps 3000 --out runs/mine

Without --data it uses the built-in digits and takes seconds. It writes a run, samples, and walk.gif.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import castalia
from castalia.core.capabilities import Inference
from castalia.core.rng import SampleRng
from castalia.creative.latents import random_walk
from castalia.media.image.video import save_walk


def main() -> None:
    """Train, sample, and walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a folder, a file, or a named set")
    parser.add_argument("--size", type=int, help="scale pictures to this many pixels")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/example"))
    options = parser.parse_args()

    run = castalia.train(
        "vae", options.data, options.out / "run", size=options.size, steps=options.steps, on_bad_file="skip"
    )
    castalia.save(castalia.sample(run, 16, seed=7), run, options.out / "samples")

    model, _ = run.model()
    assert isinstance(model, Inference)
    frames = random_walk(model, n_points=5, frames=40, rng=SampleRng(seed=7, ids=range(5)))
    save_walk(frames, options.out / "walk.gif")
    print(f"Look at {options.out / 'walk.gif'}")


if __name__ == "__main__":
    main()
