"""A subject taught from four pictures, and what it does to the rest: ``python -m benchmarks.personalisation``.

    python -m benchmarks.personalisation --out runs/personalisation --json FILE

Trained is ``latent-diffusion-emblems`` (or ``--base RUN`` taken), and from it, each on the four pictures of
``blue-ring``, textual inversion, DreamBooth with and without the prior's preservation, DreamBooth by adapters, and
LoRA. A small network, trained on emblems of one and of two colours with noise, tells shape, left and right colour of a
picture. Told are the share of samples of the subject's word that show the subject, and the share of samples of all 36
captions of emblems that show what they say: how much is forgotten. Beside it the start itself, asked for its
``circle``, and real pictures of both kinds, as they are and through the start's autoencoder: what that loses, no method
brings back.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.told import told
from castalia import api, recipes, runs
from castalia.core.captions import CAPTION, bytes_of
from castalia.core.model import Generator
from castalia.core.rng import derive
from castalia.media.image.emblems import CAPTIONS, KINDS, RING, SUBJECT, TONES, emblem
from castalia.models.multimodal.latent_diffusion import LatentDiffusion
from castalia.training.loop import train

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "textual inversion": ("textual-inversion-blue-ring", {}),
    "DreamBooth": ("dreambooth-blue-ring", {}),
    "DreamBooth, prior of circles": ("dreambooth-blue-ring", {"class_prompts": ()}),
    "DreamBooth, no prior": ("dreambooth-blue-ring", {"prior": 0.0}),
    "DreamBooth, adapters": ("dreambooth-blue-ring", {"rank": 8, "alpha": 8.0}),
    "LoRA": ("picture-lora-blue-ring", {}),
}
SEEN = (*KINDS, RING[0])
"""Shapes that the reader tells: those of emblems, and the subject's."""


class Reader(nn.Module):
    """Pictures ``uint8`` (N, 3, 16, 16) to logits of shape, left and right colour, (N, 3, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(1024, 128), nn.SiLU(),
            nn.Linear(128, 3 * len(SEEN)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.float() / 127.5 - 1).unflatten(1, (3, len(SEEN)))


def drawn(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Pictures and what is on them ``int64`` (N, 3); half of them of two colours."""
    pixels, labels = [], []
    for i in range(count):
        rng = np.random.Generator(np.random.Philox(derive(seed, "reader", i)))
        kind, left, right = (int(v) for v in rng.integers((len(SEEN), len(TONES), len(TONES))))
        right = right if i % 2 else left
        pixels.append(emblem(rng, SEEN[kind], (TONES[left], TONES[right])))
        labels.append((kind, left, right))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), torch.tensor(labels)


def taught(seed: int, steps: int, count: int) -> Reader:
    """The reader, trained."""
    torch.manual_seed(derive(seed, "reader"))
    net, (x, y) = Reader(), drawn(seed, count)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        spoilt = x[rows].float() + 12 * torch.randn(64, 3, 16, 16) * torch.rand(64, 1, 1, 1)
        loss = F.cross_entropy(net(spoilt).flatten(0, 1), y[rows].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def read(net: Reader, x: Tensor) -> Tensor:
    """What is on pictures, ``int64`` (N, 3)."""
    return net(x).argmax(2)


def asked(caption: str) -> Tensor:
    """What a caption says, (3,)."""
    if SUBJECT in caption:
        return torch.tensor([SEEN.index(RING[0]), *[TONES.index(RING[1])] * 2])
    tone, kind = caption.split()[1:]
    return torch.tensor([KINDS.index(kind), TONES.index(tone), TONES.index(tone)])


def pictures(run: runs.Run, captions: list[str], seed: int) -> Tensor:
    """Samples of captions, ``uint8`` (N, 3, 16, 16)."""
    model = run.model(runs.default_device())[0]
    assert isinstance(model, Generator)
    return api.draw(model, len(captions), seed=derive(seed, "samples"), given={CAPTION: bytes_of(captions)}).x.cpu()


def share(net: Reader, x: Tensor, captions: list[str], seed: int) -> dict[str, float]:
    """The share of pictures that show what their captions say, with its interval."""
    right = (read(net, x) == torch.stack([asked(caption) for caption in captions])).all(1)
    return told(right.numpy(), seed)


def main(arguments: list[str] | None = None) -> int:
    """Train, ask, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.personalisation", description="Subjects taught from four pictures."
    )
    parser.add_argument("--base", type=Path, metavar="RUN", help="a run of latent-diffusion-emblems")
    parser.add_argument("--base-steps", type=int, default=0, help="of the start (those of the recipe)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--samples", type=int, default=200, help="of the subject (200)")
    parser.add_argument("--each", type=int, default=10, help="samples of each caption of the rest (10)")
    parser.add_argument("--steps", type=int, default=0, help="of each method (those of its recipe)")
    parser.add_argument("--only", action="append", default=[], metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--reader-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seed = options.seed
    net = taught(seed, options.reader_steps, 6000)
    x, y = drawn(seed + 1, 1000)
    print(f"the reader is right on {(read(net, x) == y).all(1).double().mean():.3f} of new pictures", flush=True)

    def trained(name: str, steps: int, start: Path | None, out: Path, **config: Any) -> tuple[runs.Run, float]:
        recipe = recipes.recipe(name)
        training = replace(recipe.training, seed=seed, samples=0, **({"steps": steps} if steps else {}))
        parents = () if start is None else (("start", str(start)),)
        recipe = replace(recipe, config=replace(recipe.config, **config), training=training, parents=parents)
        began = time.monotonic()
        run = train(recipe, api.training_data(recipe), out, quiet=True)
        return run, time.monotonic() - began

    rows: list[dict[str, Any]] = []
    rest = [caption for caption in CAPTIONS for _ in range(options.each)]

    def row(name: str, run: runs.Run | None, seconds: float, subject: str) -> None:
        word = [f"a {SUBJECT} circle"] * options.samples
        if not subject:
            own, others = (real(name, run) for name in ("blue-ring", "emblems"))
            found = share(net, own[0], own[1], seed), share(net, others[0], others[1], seed)
        elif run is None:
            raise ValueError("samples are of a run")
        else:
            found = (
                share(net, pictures(run, [subject] * options.samples, seed), word, seed),
                share(net, pictures(run, rest, seed), rest, seed),
            )
        rows.append({"method": name, "subject": found[0], "rest": found[1], "seconds": seconds})
        told = (f"{f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f})" for f in found)
        print(f"{name:24} subject {next(told)}  rest {next(told)}  {seconds:6.0f} s", flush=True)

    base, seconds = (
        (runs.open_run(options.base), 0.0)
        if options.base
        else trained("latent-diffusion-emblems", options.base_steps, None, options.out / "base")
    )
    row("real pictures", None, 0.0, "")
    row("real pictures, coded", base, 0.0, "")
    row("start, its circle", base, seconds, "a circle")
    row("start, the word", base, seconds, f"a {SUBJECT} circle")
    for name, (recipe, config) in METHODS.items():
        if options.only and name not in options.only:
            continue
        out = options.out / name.replace(", ", "-").replace(" ", "-").lower()
        run, seconds = trained(recipe, options.steps, base.path, out, **config)
        # the new word stands for the subject and its kind
        row(name, run, seconds, f"a {SUBJECT}" if recipe.startswith("textual") else f"a {SUBJECT} circle")
    if options.json:
        told = {"seed": seed, "samples": options.samples, "each": options.each, "rows": rows}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


def real(name: str, run: runs.Run | None) -> tuple[Tensor, list[str]]:
    """Held-out pictures of a set, as a run's autoencoder gives them back where there is one, and their captions."""
    from castalia.media.image.decode import ImageOptions
    from castalia.media.image.sets import open_named

    data = open_named(name, "test", ImageOptions())
    x = data.batch(np.arange(len(data))).x
    if run is not None:
        model = run.model()[0]
        assert isinstance(model, LatentDiffusion)
        x = model.picture(model.latent(x))
    return x, list(data.texts)


if __name__ == "__main__":
    raise SystemExit(main())
