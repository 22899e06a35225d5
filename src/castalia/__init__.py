"""Castalia: every deep generative model, one workbench.

    import castalia

    run = castalia.train("vae", "digits", "runs/digits", steps=300)
    pictures = castalia.sample(run, 16, seed=7).x

Names are imported when they are first used, so ``import castalia`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from castalia.version import __version__

if TYPE_CHECKING:
    from castalia.api import evaluate, load, open_data, sample, save, train

__all__ = ["__version__", "evaluate", "load", "open_data", "sample", "save", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from castalia import api

        return getattr(api, name)
    raise AttributeError(f"module 'castalia' has no attribute {name!r}")
