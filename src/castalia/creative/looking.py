"""Looking at pictures through one layer of a network.

A layer is named as in ``nn.Module.named_modules``. The network is run up to it and no further, so that layers in front
of the first dense one take pictures of any size. Where a picture's size is refused, it is looked at in tiles of the
size that the network was made for; what is smaller than a tile is enlarged to one first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.errors import UsageError, near


class _Reached(Exception):
    """The layer has been reached."""

    def __init__(self, out: Tensor) -> None:
        self.out = out


class Layer:
    """A network up to one of its layers.

    Args:
        network: called with pictures ``float32`` (B, C, H, W), 0 to 255, in evaluation mode.
        name: of the layer; None for the layer in the middle of those that :func:`layers` finds.
        size: (height, width) that the network was made for.
        channels: of the pictures.

    Attributes:
        name: of the layer.
        network: as given.
        size: as given.

    Raises:
        UsageError: there is no such layer, or it has no maps or vectors of its own; what there is is listed.
    """

    def __init__(self, network: nn.Module, name: str | None, size: tuple[int, int], channels: int) -> None:
        self.network, self.size, self.channels = network, size, channels
        found = layers(network, size, channels)
        if name is not None and name not in found:
            near_by = [n for n in found if n.endswith(f".{name}")]
            if len(near_by) != 1:
                raise UsageError(f"There is no layer {name!r}. {_near(name, found)}\n{described(found)}")
            (name,) = near_by
        if not found:
            raise UsageError("This network has no layer with maps or vectors.")
        maps = [n for n, shape in found.items() if len(shape) == 3] or list(found)
        self.name = maps[len(maps) // 2] if name is None else name
        self.shape = found[self.name]
        self._module = dict(network.named_modules())[self.name]
        self._free: dict[tuple[int, int], bool] = {}

    @property
    def units(self) -> int:
        """How many channels, or values, the layer has."""
        return self.shape[0]

    def see(self, x: Tensor) -> Tensor:
        """Outputs of the layer for pictures (B, C, H, W): maps (B', units, h, w), or vectors (B', units).

        B' is B, or the number of tiles where pictures have to be cut. Gradients flow.
        """
        size = (x.shape[2], x.shape[3])
        if size not in self._free:
            self._free[size] = self._takes(x)
        return self._up_to(x if self._free[size] else tiles(x, self.size))

    def _takes(self, x: Tensor) -> bool:
        """Whether the layer can be reached with pictures of this size."""
        if tuple(x.shape[2:]) == self.size:
            return True
        try:
            with torch.no_grad():
                return self._up_to(x[:1].detach()).numel() > 0
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # sizes that do not fit: torch has no error of its own for them
            return False

    def _up_to(self, x: Tensor) -> Tensor:
        def stop(module: nn.Module, inputs: Any, out: Tensor) -> None:
            raise _Reached(out)

        handle = self._module.register_forward_hook(stop)
        try:
            self.network(x)
        except _Reached as reached:
            return reached.out.float()
        finally:
            handle.remove()
        raise RuntimeError(f"the network does not come past {self.name}")


def layers(network: nn.Module, size: tuple[int, int], channels: int) -> dict[str, tuple[int, ...]]:
    """The layers of a network that can be looked at, in the order in which they run.

    Args:
        network: as of :class:`Layer`.
        size: (height, width) of the pictures that it was made for.
        channels: of those pictures.

    Returns:
        Names and shapes, (units, h, w) of maps and (units,) of vectors. Layers that are run several times are left out,
        since nobody could say which time is meant, and so are those that do not depend on the picture.
    """
    grey = torch.full((1, channels, *size), 127.5, device=_device(network))
    other = grey + torch.linspace(-100, 100, grey.numel(), device=grey.device).view_as(grey)
    return traced(network, lambda: network(grey), lambda: network(other))


def traced(network: nn.Module, call: Callable[[], Any], other: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the layers that run once in a call, and return something else in another call.

    Args:
        network: what the layers belong to.
        call: runs it, for one example or more.
        other: runs it for as many others.
    """
    seen: dict[str, list[Tensor]] = {}
    times: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            times[name] = times.get(name, 0) + 1
            if isinstance(out, Tensor) and out.is_floating_point() and out.ndim in (2, 4):
                seen.setdefault(name, []).append(out.clone())

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in network.named_modules() if n]
    try:
        with torch.no_grad():
            call()
            other()
    finally:
        for handle in handles:
            handle.remove()
    once = {n: outs for n, outs in seen.items() if times[n] == len(outs) == 2 and not torch.equal(*outs)}
    return {n: tuple(outs[0].shape[1:]) for n, outs in once.items()}


def described(found: Mapping[str, tuple[int, ...]]) -> str:
    """Layers, one in a line, for people."""
    lines = []
    for name, shape in found.items():
        what = f"{shape[0]} maps of {shape[1]}x{shape[2]}" if len(shape) == 3 else f"{shape[0]} values"
        lines.append(f"  {name}: {what}")
    return "\n".join(lines)


def _near(name: str, found: Mapping[str, Any]) -> str:
    text = near(name, found)
    return text if text.startswith("Did") else "There is:"


def _device(network: nn.Module) -> torch.device:
    return next((t.device for t in network.parameters()), torch.device("cpu"))


def tiles(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (B, C, H, W) as tiles (B', C, *size), as few as cover them; they overlap where the sides do not divide.

    Pictures that are smaller than a tile in a direction are enlarged until they are not.
    """
    height, width = size
    scale = max(1.0, height / x.shape[2], width / x.shape[3])
    if scale > 1:
        wanted = [max(round(n * scale), least) for n, least in zip(x.shape[2:], size, strict=True)]
        x = F.interpolate(x, wanted, mode="bilinear", align_corners=False)
    rows, columns = _starts(x.shape[2], height), _starts(x.shape[3], width)
    return torch.cat([x[:, :, r : r + height, c : c + width] for r in rows for c in columns])


def _starts(length: int, tile: int) -> list[int]:
    """Where tiles begin that cover a length evenly."""
    count = math.ceil(length / tile)
    return [round(i * (length - tile) / max(count - 1, 1)) for i in range(count)]
