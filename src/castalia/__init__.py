"""Castalia: every deep generative model, one workbench.

    import castalia

    run = castalia.train("vae", "digits", "runs/digits", steps=300)
    pictures = castalia.sample(run, 16, seed=7).x

Names are imported when they are first used, so ``import castalia`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from castalia.version import __version__

if TYPE_CHECKING:
    from castalia.api import evaluate, load, open_data, sample, save, train
    from castalia.verbs import compare, edit, export, info, list_runs, systems

__all__ = [
    "__version__",
    "compare",
    "edit",
    "evaluate",
    "export",
    "info",
    "list_runs",
    "load",
    "open_data",
    "sample",
    "save",
    "systems",
    "train",
]

_MORE = ("compare", "edit", "export", "info", "list_runs", "systems")


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = importlib.import_module("castalia.verbs" if name in _MORE else "castalia.api")  # safe: our own two
        return getattr(module, name)
    raise AttributeError(f"module 'castalia' has no attribute {name!r}")
