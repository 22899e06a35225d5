"""What is typed after an option, read strictly. Their names are what an error calls them."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


positive.__name__ = "whole number"


def number(text: str) -> float:
    """A finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {text}")
    return value


number.__name__ = "number"


def path(text: str) -> str:
    """A path, or whatever else must not be empty."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text
