"""What this machine can do at most, measured with torch's own kernels at the given number of threads."""

from __future__ import annotations

import time
from functools import cache

import torch
import torch.nn.functional as F

from benchmarks.harness import Run


def _fastest(run: Run, budget: float = 0.6) -> float:
    run(), run()
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < budget:
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best


@cache
def matmul(dtype: torch.dtype, threads: int, size: int = 2048) -> float:
    """Billions of operations a second of a square matrix product."""
    assert torch.get_num_threads() == threads
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2 * size**3 / _fastest(lambda: a @ b) / 1e9


@cache
def convolution(dtype: torch.dtype, threads: int) -> float:
    """Billions of operations a second of a 3x3 convolution, 64 to 64 channels, 32x32, batch 64, channels last."""
    assert torch.get_num_threads() == threads
    x = torch.randn(64, 64, 32, 32).to(dtype).to(memory_format=torch.channels_last)
    w = torch.randn(64, 64, 3, 3).to(dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = _fastest(lambda: F.conv2d(x, w, padding=1))
    return 2 * 64 * 64 * 9 * 32 * 32 * 64 / seconds / 1e9


@cache
def copying(threads: int) -> float:
    """Billions of bytes read and written a second by copying 256 MB."""
    assert torch.get_num_threads() == threads
    a, b = torch.zeros(64 << 20), torch.zeros(64 << 20)
    return 2 * a.numel() * 4 / _fastest(lambda: b.copy_(a)) / 1e9


def everything(threads: int) -> dict[str, float]:
    """All of them by name, for the report."""
    kinds = (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float64", torch.float64))
    found = {f"matrix product {name}, GFLOP/s": matmul(kind, threads) for name, kind in kinds}
    found |= {f"convolution {name}, GFLOP/s": convolution(kind, threads) for name, kind in kinds[:2]}
    return found | {"copy, GB/s": copying(threads)}
