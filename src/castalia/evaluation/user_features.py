"""A feature network that the user brings, as an ONNX graph. With the Inception network of the FID the distance is FID.

Why ONNX and not ``torch.export``'s ``.pt2``: reading a ``.pt2`` builds Python objects of any class from its constants
(torch 2.13 reads them with its restrictions switched off) and evaluates shape expressions as Python, so a file from a
stranger could run code. An ONNX graph is data: operators by name, from onnxruntime's own table. It is
handed over as bytes, so it cannot name other files either.

The graph takes pictures (N, C, H, W) with values 0 to 255, as ``uint8`` or ``float32``; every scaling of values is its
own business. Where its H and W are fixed, pictures are scaled to them here, and the name says so. Its first output is
(N, F), or (N, F, 1, 1).
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.errors import DataError, MissingExtra, UsageError
from castalia.core.files import open_plain
from castalia.evaluation.features import FeatureSpace, Seen

ROWS = 64
"""Pictures in one call where the graph's batch is free."""

_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


@final
class UserFeatures(FeatureSpace):
    """Features from an ONNX file.

    Args:
        path: the file, self-contained (weights inside).
        inception: the user's word that this is the Inception-v3 of Heusel et al. 2017 with its own resizing; the
            distance is then called FID.

    Raises:
        DataError: it cannot be read, or takes or gives something else than described above.
        MissingExtra: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, *, inception: bool = False) -> None:
        self.path, self.inception = Path(path), inception
        try:
            runtime = importlib.import_module("onnxruntime")  # safe: a literal name
        except ImportError as error:
            raise MissingExtra("A feature network of your own", "onnx") from error
        try:
            with open_plain(self.path) as file:
                data = file.read()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}.") from error
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session: Any = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a family of its own, without a common base
            raise DataError(f"{self.path} is not an ONNX graph that onnxruntime can run ({_brief(error)}).") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _TYPES or len(inputs[0].shape) != 4:
            found = "; ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)
            raise DataError(
                f"{self.path} must take one tensor of pictures (N, C, H, W), uint8 or float32 with values 0 to 255. "
                f"It takes {found}."
            )
        self._input, self._type = inputs[0].name, _TYPES[inputs[0].type]
        self._batch, self._channels, *side = [v if isinstance(v, int) else None for v in inputs[0].shape]
        self._size = (side[0], side[1]) if side[0] and side[1] else None
        self.name = f"{self.path.name} {hashlib.sha256(data).hexdigest()[:12]}"
        if inception:
            self.name = f"Inception (the user's word), {self.name}"
        self.resize = "none" if self._size is None else f"{self._size[0]}x{self._size[1]} (bilinear, antialiased)"

    def see(self, x: Tensor) -> Seen:
        x = self._fitted(x.cpu().float())
        rows = self._batch or ROWS
        parts = []
        for part in x.split(rows):
            n = len(part)
            if self._batch and n < rows:  # a graph with a fixed batch gets full ones
                part = torch.cat([part, part[:1].expand(rows - n, -1, -1, -1)])
            try:
                out = self._session.run(None, {self._input: part.numpy().astype(self._type)})[0]
            except Exception as error:
                raise DataError(f"{self.path} failed on pictures {tuple(part.shape)} ({_brief(error)}).") from error
            parts.append(torch.from_numpy(np.asarray(out, np.float32))[:n])
        features = torch.cat(parts)
        if features.ndim == 4 and features.shape[2:] == (1, 1):
            features = features.flatten(1)
        if features.ndim != 2 or len(features) != len(x):
            raise DataError(f"{self.path} must give features (N, F); it gave {tuple(features.shape)}.")
        return Seen(features)

    def probabilities(self, x: Tensor) -> Tensor | None:
        return None

    def _fitted(self, x: Tensor) -> Tensor:
        """Pictures with the channels and the size that the graph takes, values 0 to 255."""
        if x.shape[1] == 4 and self._channels != 4:  # on black
            x = x[:, :3] * x[:, 3:] / 255
        if x.shape[1] == 1 and self._channels == 3:
            x = x.expand(-1, 3, -1, -1)
        if self._channels is not None and x.shape[1] != self._channels:
            raise UsageError(f"{self.path} takes pictures with {self._channels} channels, not {x.shape[1]}.")
        if self._size is not None and tuple(x.shape[2:]) != self._size:
            x = F.interpolate(x, self._size, mode="bilinear", antialias=True, align_corners=False)
        return x.round() if self._type is np.uint8 else x


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 200 else text[:197] + "..."
