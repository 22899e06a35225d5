"""What can be measured of pictures without a likelihood: reconstruction, nearest training pictures, speed."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Inference
from castalia.core.data import Dataset
from castalia.core.errors import NonFiniteError, UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.estimators.metric import Metric, counted, mean_metric
from castalia.estimators.progress import Show, Ticker
from castalia.evaluation.likelihood import batch_rows

SMALLEST_MSE = 1 / 12 / 255**2
"""The error of rounding to 8 bits: a smaller one cannot be told from none, and its PSNR would be infinite."""

TRAIN_VALUES_AT_ONCE = 1 << 23
"""Training values compared at once; bounds the memory."""

PICTURES_AT_ONCE = 512
"""Pictures whose nearest ones are looked for at once; bounds the memory."""


def reconstruction(
    model: Inference, data: Dataset, ids: np.ndarray, *, seed: int = 0, show: Show | None = None
) -> dict[str, Metric]:
    """Error of pictures decoded from their mean latents: ``mse`` (values in [0, 1]) and ``psnr`` (dB).

    Args:
        model: encodes and decodes pictures ``uint8`` (B, C, H, W).
        data: where the pictures are.
        ids: which pictures, ``int64`` (N,).
        seed: of the interval.
        show: receives lines of progress.
    """
    device = getattr(model, "device", torch.device("cpu"))
    rows, ticker, errors = batch_rows(data.spec), Ticker("reconstruction", len(ids), show), []
    for start in range(0, len(ids), rows):
        batch = data.batch(mine := ids[start : start + rows]).to(device)
        with torch.no_grad():
            latent = model.encode(batch)
            if not torch.isfinite(latent).all():
                raise NonFiniteError(f"The encoder gives non-finite latents for examples of {data.name}.")
            decoded = model.decode(latent).x
        errors.append((((batch.x.double() - decoded.double()) / 255) ** 2).flatten(1).mean(1).cpu())
        ticker.step(len(mine))
    mse = mean_metric(torch.cat(errors).numpy(), "squared error, values in [0, 1]", "measured", seed)
    assert mse.interval is not None
    low, high = (_decibel(end) for end in reversed(mse.interval))
    detail = "of the mean squared error over all pictures; at most 58.9 dB, the rounding to 8 bits"
    return {
        "mse": mse,
        "psnr": Metric(_decibel(mse.value), "dB", "measured", mse.n, seed, (low, high), detail),
    }


def _decibel(mse: float) -> float:
    return -10 * math.log10(max(mse, SMALLEST_MSE))


def nearest(x: Tensor, train: Dataset, k: int = 1) -> tuple[Tensor, Tensor]:
    """The training pictures closest to each picture, to see whether samples are copies.

    Args:
        x: pictures ``uint8`` (B, C, H, W).
        train: pictures of the same shape.
        k: how many, at most ``len(train)``.

    Returns:
        Root mean squared distance per value, in [0, 1], ``float64`` (B, k), nearest first; and positions in
        ``train``, ``int64`` (B, k). A copy is at distance exactly 0; of equally near ones the first wins.

    Raises:
        UsageError: the training set is smaller than ``k``.
    """
    if not 1 <= k <= len(train):
        raise UsageError(f"{train.name} has {len(train)} pictures; {k} nearest cannot be shown.")
    parts = [_nearest(rows, train, k) for rows in x.split(PICTURES_AT_ONCE)]
    return torch.cat([d for d, _ in parts]), torch.cat([i for _, i in parts])


def _nearest(x: Tensor, train: Dataset, k: int) -> tuple[Tensor, Tensor]:
    # whole numbers below 2^53: float64 products are exact, so a copy is found at distance 0
    mine = x.flatten(1).double().cpu()
    squares, d = (mine**2).sum(1, keepdim=True), mine.shape[1]
    best = torch.full((len(x), 0), math.inf, dtype=torch.float64)
    where = torch.zeros((len(x), 0), dtype=torch.int64)
    for start in range(0, len(train), rows := max(1, TRAIN_VALUES_AT_ONCE // d)):
        ids = np.arange(start, min(start + rows, len(train)), dtype=np.int64)
        other = train.batch(ids).x.flatten(1).double().cpu()
        distance = torch.addmm(squares + (other**2).sum(1), mine, other.T, alpha=-2)
        # distance and column in one whole number (below 2^53 still), so that equally near ones have an order
        key = distance.mul_(len(ids)).add_(torch.arange(len(ids)))
        key = key.topk(min(k, len(ids)), dim=1, largest=False).values
        best = torch.cat([best, (key / len(ids)).floor()], 1)
        where = torch.cat([where, start + key.remainder(len(ids)).long()], 1)
        best, order = best.sort(dim=1, stable=True)
        best, where = best[:, :k], where.gather(1, order[:, :k])
    return (best / d).sqrt() / 255, where


def sampling_speed(
    model: Generator,
    *,
    n: int = 256,
    batch: int = 64,
    seconds: float = 3.0,
    seed: int = 0,
    precision: Precision = "float32",
) -> Metric:
    """Samples per second of wall-clock time, in batches, after what warms up.

    Args:
        model: what samples.
        n: samples timed at most, rounded up to whole batches.
        batch: samples drawn at once at most; fewer where so many take longer than a second.
        seconds: no batch is begun after this time.
        seed: of the samples.
        precision: of the networks.
    """

    def draw(first: int, rows: int) -> float:
        rng = SampleRng(seed, range(first, first + rows), model.device)
        wait(model.device)
        started = time.perf_counter()
        with torch.no_grad(), precision_context(precision, model.device):
            model.sample(rows, rng=rng)
        wait(model.device)
        return max(time.perf_counter() - started, 1e-9)

    rows = 1
    while draw(n, rows) * 2 < 1 and rows < batch:
        rows = min(2 * rows, batch)
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) * rows < n):
        times.append(draw(len(times) * rows, rows))
    total, spent = len(times) * rows, sum(times)
    where = f"{model.device.type}, {counted(torch.get_num_threads(), 'thread')}, {precision}"
    detail = f"batches of {rows} on {where}, {spent:.3g} s in all"
    return Metric(total / spent, "samples/s", "wall-clock", total, seed, None, detail)


def wait(device: torch.device) -> None:
    """Let the device finish, so that the clock measures work and not the queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
