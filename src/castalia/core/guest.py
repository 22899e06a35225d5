"""A guest in somebody's process: their settings do not change what Castalia computes, and stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def guest() -> Iterator[None]:
    """Run a block with gradients on and nothing ambient; then all is as it was.

    No autocast, no inference mode, ``float32`` as the default type, the CPU as the default device.
    """
    dtype = torch.get_default_dtype()
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    casts = {kind: torch.is_autocast_enabled(kind) for kind in kinds}
    try:
        torch.set_default_dtype(torch.float32)
        for kind in kinds:  # not a context: the cache of cast weights is emptied at the end of the outermost one only
            torch.set_autocast_enabled(kind, False)
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():  # what is made in it can never be differentiated
                stack.enter_context(torch.inference_mode(False))
            if torch.get_default_device().type != "cpu":  # only then: it costs time at every call of torch
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(torch.enable_grad())
            yield
    finally:
        torch.set_default_dtype(dtype)
        for kind, enabled in casts.items():
            torch.set_autocast_enabled(kind, enabled)


@contextmanager
def no_denormals() -> Iterator[None]:
    """Run a block in which numbers too small for full precision are 0, as they are a hundred times slower."""
    before = bool((torch.full((1,), 1e-40) * 1 == 0).all())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
