"""Segmenters for dissections: a network of the user's as an ONNX graph, and the classes that the house's network tells.

The graph takes pictures (N, C, H, W), ``float32`` with values 0 to 255, and returns scores (N, K, h, w), or (N, K) for
whole pictures; at each place the concept with the highest score counts. Why ONNX, and why it is safe to read one from a
stranger: :mod:`castalia.evaluation.user_features`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from castalia import api
from castalia.core.errors import DataError, MissingExtra, UsageError
from castalia.core.files import open_plain
from castalia.core.guest import guest
from castalia.creative.concepts import Own
from castalia.evaluation.feature_network import feature_space
from castalia.runs import Run


def segmenter_of(path: str, names: str | None) -> Own:
    """A user's segmenter.

    Args:
        path: the ONNX file.
        names: a text file with a name in each line; None numbers the concepts.

    Raises:
        UsageError: a file is missing, or there are not as many names as concepts.
        DataError: the graph cannot be read, or takes or gives something else.
        MissingExtra: onnxruntime is not installed.
    """
    session = _session(Path(path))
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
        found = "; ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)
        raise DataError(f"{path} must take one float32 tensor of pictures (N, C, H, W). It takes {found}.")
    batch, channels, *side = [v if isinstance(v, int) else None for v in inputs[0].shape]
    size = (side[0], side[1]) if side[0] and side[1] else None

    def scores(x: Tensor) -> Tensor:
        seen = x.detach().cpu().float()
        seen = seen.expand(-1, 3, -1, -1) if seen.shape[1] == 1 and channels == 3 else seen
        if seen.shape[1] == 4 and channels == 3:  # on white
            seen = seen[:, :3] * seen[:, 3:] / 255 + 255 - seen[:, 3:]
        if channels is not None and seen.shape[1] != channels:
            raise UsageError(f"{path} takes pictures with {channels} channels, not {seen.shape[1]}.")
        if size is not None and tuple(seen.shape[2:]) != size:
            seen = F.interpolate(seen, size, mode="bilinear", antialias=True, align_corners=False)
        parts = []
        for part in seen.split(1 if batch == 1 else len(seen)):
            try:
                out = session.run(None, {inputs[0].name: part.contiguous().numpy()})[0]
            except Exception as error:  # onnxruntime has a family of its own, without a common base
                raise DataError(f"{path} failed on pictures {tuple(part.shape)}: {_brief(error)}") from error
            parts.append(torch.from_numpy(np.asarray(out, np.float32)))
        return torch.cat(parts)

    probe = scores(torch.zeros(1, channels or 3, *(size or (64, 64))))
    if probe.ndim not in (2, 4) or len(probe) != 1:
        raise DataError(f"{path} must give scores (N, K, h, w) or (N, K); it gave {tuple(probe.shape)}.")
    count = probe.shape[1]
    told = [f"concept {k}" for k in range(count)] if names is None else _names(Path(names))
    if len(told) != count:
        raise UsageError(f"{names} has {len(told)} names, and {path} tells {count} concepts apart.")

    def call(x: Tensor) -> Tensor:
        best = scores(x).argmax(1)
        maps = F.one_hot(best, count).float().movedim(-1, 1).to(x.device)
        return maps if maps.ndim == 2 else F.interpolate(maps, x.shape[2:], mode="nearest")

    return Own(told, call)


def classifier_of(run: Run) -> Own:
    """The classes of a run's data, as concepts of whole pictures: what the house's feature network takes them for.

    Raises:
        UsageError: the data have no classes.
    """
    recipe = run.recipe.data
    data = api.open_data(recipe.source, split="train", options=recipe.options, like=run)
    with guest():  # edits run without gradients, and it may have to be trained
        space = feature_space(data)
    classes = data.spec.sides().get("label")
    known: tuple[str, ...] = getattr(classes, "classes", ())
    if len(known) < 2:
        raise UsageError("The run's data have no classes that could be concepts.")

    def call(x: Tensor) -> Tensor:
        shares = space.probabilities(x.round().clamp(0, 255).to(torch.uint8))
        if shares is None:
            raise UsageError("The feature network of this data tells no classes apart.")
        return shares.to(x.device)

    return Own(known, call)


def _session(path: Path) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")  # safe: a literal name
    except ImportError as error:
        raise MissingExtra("A segmenter of your own", "onnx") from error
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    with open_plain(path) as file:
        data = file.read()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise DataError(f"{path} is not an ONNX graph that onnxruntime can run: {_brief(error)}") from error


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text in UTF-8.") from error
    return [line.strip() for line in lines if line.strip()]


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 200 else text[:197] + "..."
