"""How well films go on: ``python -m benchmarks.films RUN``, for runs of ``video-gpt`` and ``video-diffusion``.

    python -m benchmarks.films RUN -n 200 --json FILE

Held-out clips are cut after the frames that the run may be given, and each is continued once, with its class where
classes were learned. Beside the truth, and beside copying the last frame that was given, are told: the peak
signal-to-noise ratio of the new frames; how far, in pixels, the middle of what is bright lies from where it should be;
whether a linear classifier sees the class in the middle frame, where that is a new one; and the Fréchet distance of
whole clips to training clips, in principal components. Windows of one film that overlap are no independent clips:
intervals are too narrow for them. ``--grid`` shows truth and continuation of some clips, one below the other.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.told import told
from castalia import api, runs
from castalia.core.data import Batch, some_of
from castalia.core.errors import CastaliaError, UsageError
from castalia.core.model import Generator
from castalia.core.rng import derive
from castalia.core.specs.video import VideoSpec
from castalia.estimators.distances import frechet
from castalia.media.video.measures import Judge


def psnr(x: Tensor, truth: Tensor) -> np.ndarray:
    """Decibels of clips (N, T, C, H, W), (N,); at most 60."""
    error = ((x.float() - truth.float()) / 255).square().flatten(1).mean(1).clamp(min=1e-6)
    return (-10 * torch.log10(error)).numpy()


def middles(x: Tensor) -> Tensor:
    """Row and column of the middle of what is bright, (N, T, 2), of clips (N, T, C, H, W)."""
    light = x.float().mean(2)
    total = light.sum((2, 3)).clamp(min=1.0)
    row = (light.sum(3) * torch.arange(light.shape[2])).sum(2) / total
    column = (light.sum(2) * torch.arange(light.shape[3])).sum(2) / total
    return torch.stack([row, column], 2)


def continued(model: Generator[Any, Any], batch: Batch, given: int, options: Any, seed: int) -> Tensor:
    """Clips whose first frames are those of the batch."""
    known = {"prompt": batch.x[:, :given]}
    if "label" in model.accepts() and batch.label is not None:
        known["label"] = batch.label
    return api.draw(model, len(batch), seed=derive(seed, "films"), given=known, options=options).x.cpu()


def main(arguments: list[str] | None = None) -> int:
    """Continue, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.films", description="How well films go on.")
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=200, help="held-out clips (200)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="sampling options")
    parser.add_argument("--seed", type=int, default=0, help="of clips and samples (0)")
    parser.add_argument("--grid", type=Path, metavar="FILE", help="a picture to write")
    parser.add_argument("--json", type=Path, metavar="FILE", help="numbers to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        found = measured(options)
    except CastaliaError as error:
        parser.error(str(error))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All that can be told of the run."""
    run, seed = api.load(options.run), options.seed
    model = run.model(runs.default_device())[0]
    given = getattr(run.config, "given", 0)
    if not isinstance(model, Generator) or not isinstance(run.spec, VideoSpec) or not given:
        raise UsageError(f"{options.run} is no run of video that can be given its beginning (config.given).")
    how = api.sampling_options(model, options.set)
    source = run.recipe.data.source
    train, test = (api.open_data(source, split=split, like=run) for split in ("train", "test"))
    batch = test.batch(some_of(test, options.n))
    judge, truth = Judge(train), batch.x
    known = torch.from_numpy(judge.known).double()
    made = continued(model, batch, given, how, seed)
    still = torch.cat([truth[:, :given], truth[:, given - 1 : given].expand_as(truth[:, given:])], 1)
    seen = judge.classifier is not None and given <= truth.shape[1] // 2
    found: dict[str, Any] = {"run": Path(options.run).name, "n": len(batch), "given": given}
    for name, x in (("continued", made), ("last frame copied", still), ("truth", truth)):
        away = (middles(x[:, given:]) - middles(truth[:, given:])).norm(dim=2).mean(1).numpy()
        found[name] = {
            "psnr": told(psnr(x[:, given:], truth[:, given:]), seed),
            "pixels away": told(away, seed),
            "recognised": told(judge.right(replace(batch, x=x)), seed) if seen else None,
            "frechet": frechet(torch.from_numpy(judge.features(x)).double(), known, error=False).value,
        }
        print(f"{name}: {line(found[name])}")
    if options.grid is not None:
        rows = [torch.cat(list(x[i]), 2) for i in range(min(6, len(batch))) for x in (truth, made)]
        sheet(torch.cat(rows, 1)).save(options.grid)
    return found


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    shown = {name: value["value"] if isinstance(value, dict) else value for name, value in row.items()}
    return ", ".join(f"{name} {value:.4g}" for name, value in shown.items() if value is not None)


def sheet(x: Tensor) -> Any:
    """A picture ``uint8`` (C, H, W), twice as large."""
    from castalia.media.image.write import to_image, to_numpy

    picture = to_image(to_numpy(x[None])[0])
    return picture.resize((2 * picture.width, 2 * picture.height), 0)


if __name__ == "__main__":
    raise SystemExit(main())
