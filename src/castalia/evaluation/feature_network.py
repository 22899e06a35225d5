"""The small network that gives a data set its own feature space.

Trained on the training split: to tell the labels apart where there are labels, else to tell by how many right angles
a picture was turned (Gidaris et al. 2018, arXiv:1803.07728). A few strided convolutions with batch normalisation, a
dense layer whose normalised outputs, before their nonlinearity, are the features, and a linear classifier.

Features are taken before the nonlinearity because there they are closer to the Gaussians of the Fréchet distance, and
it was found to tell noise, blur and mixed pictures from real ones more clearly than behind it.

The weights are made once and kept in the cache under a name with the data's fingerprint and a hash of the settings;
the file verifies itself. The same seed on the same machine with the same number of threads gives the same weights;
elsewhere last bits may differ, and their hash, which stands in every metric, says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.config import Config, to_json
from castalia.core.data import Dataset, Order
from castalia.core.errors import CastaliaError, NonFiniteError, RunError, UsageError
from castalia.core.rng import BatchRng, derive
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.core.weights import load_tensors, save_tensors, tensor_digest
from castalia.estimators.metric import subset
from castalia.estimators.progress import Show, Ticker
from castalia.evaluation.features import Coordinates, FeatureSpace, NetworkFeatures, StackedFeatures, prepare
from castalia.media.image.stacked import CHANNELS, StackedArray
from castalia.media.points.array import PointsArray

FORMAT = 1
"""Changes when the network or its training does, so that older weights are not mistaken for it."""


LEAST = 8
"""Fewer pictures train nothing."""


@dataclass(frozen=True)
class FeatureSettings(Config):
    """How a feature network is built and trained.

    Attributes:
        widths: channels after each halving; as many are used as leave at least four rows and columns.
        features: length of a feature vector.
        side: larger pictures are scaled down to this many pixels on their longer side.
        steps: training steps, or fewer on small sets:
        epochs: no example is seen more often.
        batch_size: examples per step.
        lr: peak learning rate of AdamW, over a cosine.
        seed: of weights, order and shifts.
    """

    widths: tuple[int, ...] = (32, 64, 128, 128)
    features: int = 128
    side: int = 64
    steps: int = 1500
    epochs: int = 40
    batch_size: int = 128
    lr: float = 3e-3
    seed: int = 0


class FeatureNetwork(nn.Module):
    """Pictures ``float32`` (B, C, H, W) in [0, 1] to features (B, F) and logits (B, K)."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, int, int], classes: int, settings: FeatureSettings) -> None:
        super().__init__()
        channels, height, width = shape
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        layers: list[nn.Module] = []
        for level, wide in enumerate(settings.widths):
            if level and min(height, width) < 7:
                break
            kernel = 3 if level else 5
            layers += [nn.Conv2d(channels, wide, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
            channels, height, width = wide, (height + 1) // 2, (width + 1) // 2
        self.body = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(channels * height * width, settings.features, bias=False),
            nn.BatchNorm1d(settings.features),
        )
        self.head = nn.Linear(settings.features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body((x - self.mean) / self.std)
        return features, self.head(F.relu(features))


@dataclass(frozen=True)
class _Task:
    """What a network is trained for.

    Attributes:
        classes: names of the labels; empty for rotations.
        size: (height, width) of its input.
        channels: of its input.
    """

    classes: tuple[str, ...]
    size: tuple[int, int]
    channels: int

    @property
    def name(self) -> str:
        return "class" if self.classes else "rotation"


def _task(train: Dataset, settings: FeatureSettings) -> _Task:
    spec = train.spec
    if not isinstance(spec, ImageSpec):
        raise UsageError(f"{train.name} holds no pictures: only pictures need a feature network.")
    if len(train) < LEAST:
        raise UsageError(f"{train.name} has {len(train)} pictures; a feature network needs at least {LEAST}.")
    labelled = len(spec.classes) > 1 and train.batch(np.zeros(1, np.int64)).label is not None
    scale = min(1.0, settings.side / max(spec.height, spec.width))
    height, width = (max(1, round(side * scale)) for side in (spec.height, spec.width))
    if not labelled:  # a turn must not change the shape
        height = width = max(height, width)
    return _Task(spec.classes if labelled else (), (height, width), spec.channels)


def feature_space(train: Dataset, settings: FeatureSettings | None = None, show: Show | None = None) -> FeatureSpace:
    """The feature space that belongs to a training set, from the cache where it is there, else trained now.

    Points are their own features; a stack of digits is seen channel by channel.

    Args:
        train: the training split.
        settings: None for the usual ones.
        show: receives lines of progress.

    Raises:
        UsageError: the data is neither pictures nor points, or has fewer than ``LEAST`` pictures.
    """
    settings = settings or FeatureSettings()
    if isinstance(train.spec, PointsSpec):
        return Coordinates(train.modes, train.spec.classes) if isinstance(train, PointsArray) else Coordinates()
    if isinstance(train, StackedArray):
        return StackedFeatures(feature_space(train.base, settings, show), CHANNELS)
    task = _task(train, settings)
    path = cache_path(train, settings)
    if path.exists():
        try:
            return _read(path, train, task, settings)
        except RunError as error:
            if show is not None:
                show(f"{error} The feature network is trained again.")
    return train_features(train, settings, show)


def train_features(train: Dataset, settings: FeatureSettings | None = None, show: Show | None = None) -> FeatureSpace:
    """Train the feature network of a data set and keep it in the cache, in place of one that is there.

    Args:
        train: the training split: pictures, labelled or not.
        settings: None for the usual ones.
        show: receives lines of progress, and at the end the accuracy on examples left out of the training.

    Raises:
        UsageError: the data holds no pictures, or fewer than ``LEAST``.
        NonFiniteError: the training diverged.
    """
    settings = settings or FeatureSettings()
    if isinstance(train, StackedArray):
        return StackedFeatures(train_features(train.base, settings, show), CHANNELS)
    task = _task(train, settings)
    network, accuracy, seconds = _train(train, task, settings, show)
    path = cache_path(train, settings)
    weights = network.state_dict()
    if show is not None:
        what = "classes" if task.classes else "rotations"
        show(f"features of {train.name}: {accuracy:.2%} of {what} right on examples left out, {seconds:.0f} s")
    metadata = {**_metadata(train, settings), "accuracy": f"{accuracy:.6f}", "torch": torch.__version__}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, weights, metadata)
    except (CastaliaError, OSError) as error:  # a cache that cannot be written costs time, not the result
        if show is not None:
            show(f"The feature network is not kept: {error}")
    return _space(network, train, task)


def cache_path(train: Dataset, settings: FeatureSettings) -> Path:
    """Where the weights of a data set's feature network are kept."""
    cache = Path(os.environ.get("CASTALIA_CACHE") or Path.home() / ".cache" / "castalia")
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(train.name).name).strip("-.")[:40] or "data"
    data = hashlib.blake2b(train.fingerprint.encode(), digest_size=8).hexdigest()
    made = hashlib.blake2b(json.dumps([FORMAT, to_json(settings)]).encode(), digest_size=8).hexdigest()
    return cache / "features" / f"{name}-{data}-{made}.safetensors"


def _metadata(train: Dataset, settings: FeatureSettings) -> dict[str, str]:
    """What has to agree for stored weights to be used."""
    return {"format": str(FORMAT), "fingerprint": train.fingerprint, "settings": json.dumps(to_json(settings))}


def _read(path: Path, train: Dataset, task: _Task, settings: FeatureSettings) -> FeatureSpace:
    """The stored network.

    Raises:
        RunError: it is damaged, or is not the one asked for.
    """
    tensors, metadata = load_tensors(path)
    for name, value in _metadata(train, settings).items():
        if name != "format" and metadata.get(name) != value:
            raise RunError(f"{path} was made from other data or settings.")
    if metadata.get("castalia.sha256") is None:
        raise RunError(f"{path} carries no SHA-256.")
    network = _network(task, settings)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"{path} holds other tensors than its settings ask for.") from error
    return _space(network.eval(), train, task)


def _space(network: FeatureNetwork, train: Dataset, task: _Task) -> NetworkFeatures:
    assert isinstance(train.spec, ImageSpec)
    digest = tensor_digest(network.state_dict())[:12]
    own = (train.spec.height, train.spec.width)
    name = f"{Path(train.name).name} {task.name} network {digest}"
    return NetworkFeatures(network, name=name, size=task.size, own=own, classes=task.classes)


def _network(task: _Task, settings: FeatureSettings) -> FeatureNetwork:
    """Initial weights that depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(settings.seed, "feature network"))
        return FeatureNetwork((task.channels, *task.size), len(task.classes) or 4, settings)


def _train(
    train: Dataset, task: _Task, settings: FeatureSettings, show: Show | None
) -> tuple[FeatureNetwork, float, float]:
    """A trained network in evaluation mode, its accuracy on a tenth left out (at most 5,000), and the seconds."""
    started = time.monotonic()
    held = subset(len(train), min(max(1, len(train) // 10), 5000), settings.seed, "features held out")
    rest = np.setdiff1d(np.arange(len(train), dtype=np.int64), held)
    network = _network(task, settings)
    _standardise(network, train, rest, task)
    size = min(settings.batch_size, len(rest))
    steps = max(1, min(settings.steps, settings.epochs * len(rest) // size))
    blocks = None if train.blocks is None else train.blocks.of(rest)
    order = Order(len(rest), size, derive(settings.seed, "features"), blocks)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=0.01)
    # two warm-up steps at least, then a cosine; batch normalisation bears the rate
    warmup = max(2, steps // 20)
    ticker = Ticker(f"feature network of {train.name}", steps, show, look=False)
    network.train()
    for step in range(steps):
        rate = min(1.0, (step + 1) / warmup) * 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * rate
        rng = BatchRng(settings.seed, total=size).at("features", step)
        x, target = _examples(train, rest[order.ids(step)], task, rng)
        loss = F.cross_entropy(network(_shifted(x, rng))[1], target)
        if not torch.isfinite(loss):
            raise NonFiniteError(f"The feature network of {train.name} diverged at step {step}.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            ticker.step(50 if (step + 1) % 50 == 0 else steps % 50)
    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    right = 0
    for start in range(0, len(held), 256):
        ids = held[start : start + 256]
        rng = BatchRng(settings.seed, total=len(ids)).at("features held out", start)
        x, target = _examples(train, ids, task, rng)
        right += int((network(x)[1].argmax(1) == target).sum())
    return network, right / len(held), time.monotonic() - started


def _standardise(network: FeatureNetwork, train: Dataset, ids: np.ndarray, task: _Task) -> None:
    """Set the mean and deviation of each channel, from some examples."""
    x = prepare(train.batch(ids[:: max(1, len(ids) // 1000)]).x, task.size)
    network.mean.copy_(x.mean((0, 2, 3))[:, None, None])
    network.std.copy_(x.std((0, 2, 3), correction=0).clamp(min=0.01)[:, None, None])


def _examples(train: Dataset, ids: np.ndarray, task: _Task, rng: BatchRng) -> tuple[Tensor, Tensor]:
    """Prepared pictures and what is to be told of them."""
    batch = train.batch(ids)
    x = prepare(batch.x.cpu(), task.size)
    if task.classes:
        assert batch.label is not None
        return x, batch.label
    turns = rng.integers("turns", 4)
    return torch.stack([torch.rot90(one, int(k), (1, 2)) for one, k in zip(x, turns, strict=True)]), turns


def _shifted(x: Tensor, rng: BatchRng) -> Tensor:
    """The batch moved by up to a fourteenth of its side, all alike: the network shall not know places by heart."""
    height, width = x.shape[2:]
    most = round(min(height, width) / 14)
    if not most:
        return x
    down, right = (int(v) for v in rng.integers("shift", 2 * most + 1, 2)[0])
    return F.pad(x, (most, most, most, most), mode="replicate")[:, :, down : down + height, right : right + width]
