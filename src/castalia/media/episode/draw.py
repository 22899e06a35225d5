"""Episodes as pictures: a strip of frames for each, with what was done and won below."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.specs.episode import EpisodeSpec
from castalia.media.image.write import to_image

SHOWN = 8
"""Frames of a strip."""
_PAGE, _LINE, _TEXT, _ZERO = (15, 14, 24), (118, 196, 255), (170, 166, 182), (46, 44, 62)
_ACTIONS = ((118, 196, 255), (124, 214, 140), (255, 120, 110), (222, 218, 230))
_PAD, _TALL = 4, 34


def episodes_image(batch: Batch, spec: EpisodeSpec, columns: int | None = None) -> Image.Image:
    """Draw stretches of episodes below each other: frames at even times, actions as lines, the sum of rewards.

    Args:
        batch: at least one.
        spec: their shape.
        columns: strips beside each other; None for one.
    """
    if not len(batch):
        raise UsageError("A drawing needs at least one episode.")
    if columns is not None and columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    columns = min(columns or 1, len(batch))
    times = np.unique(np.linspace(0, spec.length - 1, SHOWN).round().astype(int))
    scale = max(1, round(72 / spec.width))
    wide, tall = spec.width * scale, spec.height * scale
    strip = len(times) * (wide + _PAD) + _PAD, tall + _TALL + 2 * _PAD
    page = Image.new("RGB", (columns * strip[0], -(-len(batch) // columns) * strip[1]), _PAGE)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for i, x in enumerate(batch.x.cpu().numpy()):
        left, top = i % columns * strip[0], i // columns * strip[1]
        for k, t in enumerate(times):
            frame = to_image(x[t].transpose(1, 2, 0)).convert("RGB").resize((wide, tall), Image.Resampling.NEAREST)
            page.paste(frame, (left + _PAD + k * (wide + _PAD), top + _PAD))
        below = top + tall + 2 * _PAD
        if "actions" in batch.extra:
            _lines(draw, (left + _PAD, below, left + strip[0] - 90, below + _TALL - 8), batch.extra["actions"][i], spec)
        if "rewards" in batch.extra:
            won = float(batch.extra["rewards"][i].sum())
            over = batch.extra["dones"][i].nonzero() if "dones" in batch.extra else torch.zeros(0)
            end = f", over at {int(over[0])}" if len(over) else ""
            draw.text((left + strip[0] - 84, below), f"{won:+.1f}{end}", fill=_TEXT, font=font)
    return page


def _lines(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], actions: Tensor, spec: EpisodeSpec) -> None:
    """Each number of the actions over time, between its lowest and highest value."""
    x0, y0, x1, y1 = box
    draw.line((x0, (y0 + y1) / 2, x1, (y0 + y1) / 2), fill=_ZERO)
    values = actions.float().cpu().numpy()
    across = np.linspace(x0, x1, len(values))
    for k in range(min(values.shape[1], len(_ACTIONS))):
        share = (values[:, k] - spec.low[k]) / (spec.high[k] - spec.low[k])
        draw.line(
            [(float(a), float(y1 - s * (y1 - y0))) for a, s in zip(across, share.clip(0, 1), strict=True)],
            fill=_ACTIONS[k],
        )
