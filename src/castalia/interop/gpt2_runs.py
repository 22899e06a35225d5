"""Runs of ``gpt2`` as folders of Hugging Face, and the way back; see gpt2.py for the folders themselves."""

from __future__ import annotations

from pathlib import Path

import torch

from castalia import card
from castalia.configuration import Data, Recipe
from castalia.core.errors import UsageError
from castalia.core.specs.text import TextSpec
from castalia.core.weights import save_tensors
from castalia.interop.gpt2 import fit, read_gpt2, write_gpt2
from castalia.interop.target import new_folder
from castalia.models.sequence.gpt2 import GPT2Config
from castalia.runs import Run, create, open_run


def import_gpt2(path: Path, out: Path, length: int = 0) -> Run:
    """Make a ``gpt2`` run of a folder that Hugging Face's ``transformers`` wrote.

    Args:
        path: the folder.
        out: a new or empty folder for the run; it appears whole or not at all.
        length: tokens of context; 0: all that it has. Training on windows of 1,024 tokens takes much memory.

    Returns:
        The run: it can be sampled, evaluated, and trained further (as the parent ``start``). Its data are unknown.

    Raises:
        UsageError: ``out`` holds something already.
        RunError: the folder is damaged, or holds something that Castalia does not have; the text names the field.
    """
    received = read_gpt2(path)
    if length:
        received = fit(received, length)
    with new_folder(out) as folder:
        recipe = Recipe("gpt2", received.config, Data("unknown", medium="text"))
        run = create(folder, recipe, received.spec, "")
        save_tensors(run.weights, received.state, {"castalia.model": "gpt2", "castalia.step": "imported"})
        card.write(run)
    return open_run(out)


def export_gpt2(run: Run, out: Path) -> Path:
    """Write a ``gpt2`` run as a folder that ``transformers`` loads.

    Raises:
        UsageError: it is another system, or ``out`` holds something already.
        RunError: the run has no readable weights, or the folder cannot be written.
    """
    if not isinstance(run.recipe.config, GPT2Config) or not isinstance(run.spec, TextSpec):
        raise UsageError(f"A {run.recipe.model} cannot be exported for transformers; gpt2 can.")
    model, _ = run.model(torch.device("cpu"))
    return write_gpt2(run.recipe.config, run.spec, model.state_dict(), out)
