"""float32 or bfloat16: what the hardware has, and the context in which networks compute."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


def bf16_is_native(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(flag in flags.read_text(errors="ignore") for flag in ("amx_bf16", "avx512_bf16"))


@contextlib.contextmanager
def precision_context(precision: Precision, device: torch.device) -> Iterator[None]:
    """Autocast of matrix products and convolutions, or none, whatever the caller has.

    Without gradients, weights are cast once for as long as the context lasts. So a sampling in many steps should lie in
    one as a whole.
    """
    if precision == "bfloat16":
        try:
            with torch.autocast(device.type, torch.bfloat16):
                yield
        finally:
            torch.clear_autocast_cache()  # inside a context of the caller's, cast weights would outlive a step
        return
    before = torch.is_autocast_enabled(device.type)
    torch.set_autocast_enabled(device.type, False)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device.type, before)
