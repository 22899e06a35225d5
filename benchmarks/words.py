"""How well pictures answer to words: ``python -m benchmarks.words RUN``.

    python -m benchmarks.words RUN --judge CLIP_RUN --say "a red heart" --grid heart.png --json FILE

For the captions of held-out pictures a run draws one picture each. Told are

- where the reader of ``scenes`` knows the captions: the share of pictures in which everything is right, and each
  attribute; of ``dalle`` also of real pictures through its codes, and with ``--candidates 8`` of the best of eight by
  the run's own CLIP;
- with ``--judge``, a run of ``clip`` on the same kind of data: the mean cosine between pictures and their captions, the
  same with captions shuffled among the pictures, and the difference with its interval; and of the real pictures;
- of ``unclip``: the cosine between what the prior draws for a caption and the embedding of its true picture, beside the
  caption's own embedding and an unrelated caption's prior; and the attributes of variations of held-out pictures.

``--say`` draws further captions, which ``--grid`` shows with the held-out ones.
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
from castalia.core.capabilities import Matching
from castalia.core.captions import CAPTION, bytes_of, texts_of
from castalia.core.data import Batch, some_of
from castalia.core.errors import CastaliaError, UsageError
from castalia.core.model import Generator
from castalia.core.rng import SampleRng, derive
from castalia.core.specs.image import ImageSpec
from castalia.media.image.scenes import Scene, obeyed, read_caption, read_picture
from castalia.media.image.write import to_image, to_numpy
from castalia.models.multimodal.dalle import DALLE
from castalia.models.multimodal.embeddings_prior import scaled
from castalia.models.multimodal.unclip import UnCLIP

AT_ONCE = 50


def pictures(model: Generator[Any, Any], captions: list[str], options: Any, seed: int) -> Tensor:
    """One picture ``uint8`` for each caption."""
    given = {CAPTION: bytes_of(captions)}
    return api.draw(model, len(captions), seed=derive(seed, "words"), given=given, options=options).x.cpu()


def attributes(x: Tensor, scenes: list[Scene], seed: int) -> dict[str, Any]:
    """Shares of what is right in pictures."""
    each = [obeyed(a, read_picture(p)) for a, p in zip(scenes, x.permute(0, 2, 3, 1).numpy(), strict=True)]
    return {name: told(np.array([one[name] for one in each]), seed) for name in each[0]}


def likeness(judge: Matching, x: Tensor, captions: list[str], seed: int) -> dict[str, Any]:
    """Cosines of pictures with their captions, with others' captions, and the difference."""
    seen = torch.cat([judge.of_pictures(part) for part in x.split(AT_ONCE)])
    said = judge.of_texts(captions)
    turn = 1 + np.random.Generator(np.random.Philox(derive(seed, "shuffle"))).integers(len(captions) - 1)
    own, other = (seen * said).sum(1).numpy(), (seen * said.roll(int(turn), 0)).sum(1).numpy()
    return {"own": told(own, seed), "shuffled": told(other, seed), "difference": told(own - other, seed)}


@torch.no_grad()
def prior(model: UnCLIP, batch: Batch, options: Any, seed: int) -> dict[str, Any]:
    """Cosines of embeddings with that of the true picture."""
    tokens = model.words.tokens(batch.extra[CAPTION].to(model.device))
    true = scaled(model.clip.sight(batch.x.to(model.device).float()))
    _, caption, _ = model.encoded(tokens)
    rng = SampleRng(derive(seed, "prior"), range(len(tokens)), model.device)
    drawn = model.embedding(tokens, rng, options)
    dims = true.shape[1]
    pairs = {"prior": drawn, "caption": caption, "unrelated": drawn.roll(1, 0)}
    return {name: told(((z * true).sum(1) / dims).cpu().numpy(), seed) for name, z in pairs.items()}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All that can be told of the run."""
    run, seed = api.load(options.run), options.seed
    model = run.model(runs.default_device())[0]
    if not isinstance(model, Generator) or CAPTION not in model.accepts() or not isinstance(run.spec, ImageSpec):
        raise UsageError(f"{options.run} is no run that makes pictures of captions.")
    if options.n < 2:
        raise UsageError("-n is at least 2.")
    data = api.open_data(run.recipe.data.source, split="test", like=run)
    batch = data.batch(some_of(data, options.n))
    captions = texts_of(batch.extra[CAPTION])
    how = replace(model.SampleOptions(), **{k: v for k, v in (("guidance", options.guidance),) if v is not None})
    known = [read_caption(text) for text in captions]
    scenes = [scene for scene in known if scene is not None]
    told_of: dict[str, Any] = {
        "run": Path(options.run).name,
        "n": len(captions),
        "guidance": getattr(how, "guidance", 1),
    }
    x = pictures(model, captions, how, seed)
    if len(scenes) == len(captions):
        told_of["attributes"] = attributes(x, scenes, seed)
        told_of["attributes of real pictures"] = attributes(batch.x, scenes, seed)
    if options.candidates and len(scenes) < len(captions):
        raise UsageError("--candidates is for captions that the reader of scenes knows.")
    for count in options.candidates:
        best = pictures(model, captions, replace(how, candidates=count), seed)
        told_of[f"attributes, best of {count}"] = attributes(best, scenes, seed)
    if options.judge is not None:
        judge = api.load(options.judge).model()[0]
        assert isinstance(judge, Matching)
        told_of["clip score"] = likeness(judge, x, captions, seed)
        told_of["clip score of real pictures"] = likeness(judge, batch.x, captions, seed)
    if isinstance(model, DALLE) and len(scenes) == len(captions):
        through = model.pictures(model.codes(batch.x.to(model.device))).cpu()
        told_of["attributes of real pictures through the codes"] = attributes(through, scenes, seed)
    if isinstance(model, UnCLIP):
        told_of["cosine to the true embedding"] = prior(model, batch, how, seed)
        if len(scenes) == len(captions):
            told_of["variations"] = attributes(varied(model, batch, how, seed), scenes, seed)
    if options.grid is not None:
        said = pictures(model, options.say, how, seed) if options.say else x[:0]
        grid(torch.cat([said, x])[:32], run.spec).save(options.grid)
        told_of["shown"] = [*options.say, *captions][:32]
    return told_of


def line(row: Any) -> str:
    """What was measured, as text."""
    if not isinstance(row, dict):
        return str(row)
    return ", ".join(
        f"{name} {value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})" for name, value in row.items()
    )


def varied(model: UnCLIP, batch: Batch, options: Any, seed: int) -> Tensor:
    """A variation of each picture, of which no caption is told."""
    parts = []
    for first in range(0, len(batch), AT_ONCE):
        some = Batch.of(batch.x[first : first + AT_ONCE].to(model.device))
        rng = SampleRng(derive(seed, "variations"), range(first, first + len(some)), model.device)
        parts.append(model.redraw(some, 1.0, None, {}, rng, options, None).cpu())
    return torch.cat(parts)


def grid(x: Tensor, spec: ImageSpec, wide: int = 8) -> Any:
    """Pictures in rows, on white, four times as large."""
    from PIL import Image

    side = 4 * spec.width, 4 * spec.height
    sheet = Image.new("RGB", (wide * (side[0] + 4), -(-len(x) // wide) * (side[1] + 4)), "white")
    for i, pixels in enumerate(to_numpy(x)):
        picture = to_image(pixels).convert("RGBA").resize(side, Image.Resampling.NEAREST)
        sheet.paste(picture, ((i % wide) * (side[0] + 4), (i // wide) * (side[1] + 4)), picture)
    return sheet


def main(arguments: list[str] | None = None) -> int:
    """Draw, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words", description="How pictures answer to words.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--judge", type=Path, metavar="RUN", help="a run of clip")
    parser.add_argument("-n", type=int, default=300, help="held-out captions (300)")
    parser.add_argument("--guidance", type=float, help="(that of the system)")
    parser.add_argument("--candidates", type=int, nargs="*", default=[], help="of dalle: the best of so many")
    parser.add_argument("--say", action="append", default=[], metavar="CAPTION", help="a further caption to show")
    parser.add_argument("--grid", type=Path, metavar="FILE", help="a picture to write")
    parser.add_argument("--seed", type=int, default=0, help="of captions and samples (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="numbers to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        found = measured(options)
    except CastaliaError as error:
        parser.error(str(error))
    for name, value in found.items():
        print(f"{name}: {line(value)}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
