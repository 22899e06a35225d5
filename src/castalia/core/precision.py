"""float32 or bfloat16: what the hardware has, and the context in which networks compute."""

from __future__ import annotations

import contextlib
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


def precision_context(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Autocast of matrix products and convolutions, or nothing.

    Without gradients, weights are cast once for as long as the outermost context lasts. So a sampling in many steps
    should lie in one as a whole.
    """
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)  # type: ignore[return-value]
    return contextlib.nullcontext()
