"""What Jukebox's autoencoders lose by their codes, how many codes are used, and whether windows are heard.

    OMP_NUM_THREADS=1 python -m benchmarks.jukebox [--recipe jukebox-digits] [--steps 350] [--run runs/digits]

The autoencoders of a recipe are trained anew for some steps without codes, and with codebooks of two sizes, with
restarts of codes and without. The spectral convergence of held-out clips is 20 log10 of |S(x) - S(y)| / |S(x)|, the
mean over the recipe's resolutions and the clips. Of a trained run, sounds of three windows are drawn, and the change
from sample to sample at each seam of two windows is compared with all changes of the same sounds.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import castalia
from castalia import recipes
from castalia.core.data import Dataset, some_of
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.models.sound.codec import Level, magnitudes
from castalia.models.sound.jukebox import Jukebox
from castalia.models.sound.jukebox_settings import JukeboxConfig, JukeboxSampling
from castalia.opening import open_data, training_data

CLIPS = 100
ROUNDS = ((0, 0.1), (2048, 0.1), (256, 0.1), (256, 0.0))
"""Codes (0: none) and restarts."""


class Straight(Level):
    """A level that rounds nothing."""

    def through(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z = self.rows(x)
        y = self.decoder(z.view(len(x), -1, self.dims).transpose(1, 2)).float()
        return y, z, self.quantiser.nearest(z), torch.zeros(())


def trained(
    recipe: castalia.Recipe, data: Dataset, codes: int, restart: float, steps: int, batch: int, seed: int
) -> Jukebox:
    """The autoencoders after some steps of Adam; the priors are left as they are."""
    assert isinstance(recipe.config, JukeboxConfig)
    model = build(Jukebox, replace(recipe.config, codes=codes or 256, restart=restart), data.spec, seed)
    assert isinstance(model, Jukebox)
    rng = BatchRng(seed, total=1)
    model.initialise(data, rng, {})
    if not codes:
        for level in model.levels:
            level.__class__ = Straight
    optimizer = torch.optim.Adam(model.codec.parameters(), lr=recipe.training.lr)
    random = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.training.lr * min(1.0, (step + 1) / 30, 2 * (1 - step / steps))
        rows = BatchRng(seed + step, total=batch)
        some = data.batch(random.integers(0, len(data), batch), rows)
        loss, _ = model.codec_loss(some, rows, Progress(step, steps))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.codec.parameters(), 1.0)
        optimizer.step()
        model.follow(some, rows, Progress(step, steps))
    return model.eval()


@torch.no_grad()
def convergence(model: Jukebox, x: Tensor) -> list[float]:
    """Spectral convergence of each level, decibels; less is better."""
    x = x[..., : x.shape[-1] // model.config.hops[-1] * model.config.hops[-1]]
    out = []
    for level in model.levels:
        y, far = level.through(x)[0], []
        for resolution in model.config.resolutions:
            real, made = (magnitudes(sound.mean(1), resolution).flatten(1) for sound in (x, y))
            far.append(((real - made).norm(dim=1) / real.norm(dim=1).clamp(min=1e-8)).mean())
        out.append(20 * math.log10(float(torch.stack(far).mean())))
    return out


@torch.no_grad()
def used(model: Jukebox, x: Tensor) -> list[float]:
    """Share of each codebook that held-out sound uses."""
    x = x[..., : x.shape[-1] // model.config.hops[-1] * model.config.hops[-1]]
    return [len(level.codes(x).unique()) / level.quantiser.size for level in model.levels]


def seams(model: Jukebox, n: int, seed: int) -> dict[str, float]:
    """Changes from sample to sample at seams, beside all others: means, and the share above the 95th percentile."""
    hop, above = model.config.hops[:2]
    size, options = model.context(0), JukeboxSampling(length=3 * hop * model.context(0))
    sound = model.sample(n, rng=SampleRng(seed, range(n)), options=options).x[:, 0]
    change = sound.diff(dim=1).abs()
    ratio = above // hop  # windows move by whole codes of the level above
    window, move = hop * size, hop * max(round(size * (1 - options.overlap)) // ratio, 1) * ratio
    at = torch.arange(window, sound.shape[1] - 1, move) - 1
    rest = torch.ones(change.shape[1], dtype=torch.bool)
    rest[at] = False
    limit = change[:, rest].quantile(0.95)
    return {
        "seams": float(len(at) * n),
        "change at seams": float(change[:, at].mean()),
        "change elsewhere": float(change[:, rest].mean()),
        "share of seams above the 95th percentile": float((change[:, at] > limit).double().mean()),
    }


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--recipe", default="jukebox-digits")
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="a trained run, whose seams are measured")
    options = parser.parse_args()
    recipe = recipes.recipe(options.recipe)
    data = training_data(recipe)
    held_out = open_data(recipe.data.source, split="test", options=recipe.data.options, like=data.spec)
    x = held_out.batch(some_of(held_out, CLIPS)).x
    for codes, restart in ROUNDS if options.steps else ():
        model = trained(recipe, data, codes, restart, options.steps, options.batch, options.seed)
        row = {"codes": codes or None, "restarts": restart > 0, "steps": options.steps, "dB": convergence(model, x)}
        print(json.dumps(row | ({"used": used(model, x)} if codes else {})), flush=True)
    if options.run:
        model = castalia.load(options.run).model()[0]
        assert isinstance(model, Jukebox)
        print(json.dumps(seams(model.eval(), 16, options.seed)), flush=True)


if __name__ == "__main__":
    main()
