"""Data and runs, opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from castalia import runs
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.config import Config
from castalia.core.data import Dataset
from castalia.core.errors import UsageError
from castalia.core.spec import Spec
from castalia.media import named
from castalia.media.named import medium_for
from castalia.media.named import open_data as _open_data
from castalia.media.rooms import medium_of, room
from castalia.runs import Run


def open_data(
    source: str, *, split: str | None = None, options: Config | None = None, like: Run | Spec | None = None
) -> Dataset:
    """Open a named set, or a path of pictures, points or whatever else some medium reads.

    Args:
        source: the name or path.
        split: ``train``, ``test``, ...; a path without splits of its own is cut into nine tenths and one tenth.
            None: the training split, or everything where a path has none; ``all``: likewise.
        options: how to read files, an instance of the medium's options; None is the default, or how ``like`` was read.
        like: read it as the training data of this run (or shape) were: the same size, rate, vocabulary.

    Raises:
        DataError: it cannot be read; the text names the file and what is wrong.
        UsageError: there is no such set or path.
    """
    split = None if split == "all" else split
    if isinstance(like, Run):
        data = like.recipe.data
        options = data.options if options is None else options
        with still_there(source if source == data.source else ""):
            return _open_data(source, options, split, medium=room(data.medium), like=like.spec)
    medium = None if like is None else medium_of(like)
    return _open_data(source, options, split, medium=medium, like=like)


def training_data(recipe: Recipe) -> Dataset:
    """Open the data that a recipe trains on.

    Raises:
        UsageError: the data is of a medium that the recipe's model does not make.
    """
    data, made = recipe.data, entry(recipe.model).media
    medium = medium_for(data.source, (data.medium,))
    if medium.name not in made:
        raise UsageError(
            f"{data.source} is of the medium {medium.name!r}; {recipe.model} makes only {', '.join(made)}."
        )
    options = data.options if medium.name == data.medium else None
    return _open_data(data.source, options, None if data.split == "all" else data.split, medium=medium)


@contextmanager
def still_there(source: str) -> Iterator[None]:
    """Open data of a run, which may have moved since: then the error says what to do."""
    try:
        yield
    except UsageError as error:
        if not source or source in named.table() or Path(source).exists():
            raise
        raise UsageError(
            f"{error} The run was trained on data that lay there; say where they are now with --data."
        ) from error


def load(path: str | Path) -> Run:
    """Open a run folder."""
    return runs.open_run(Path(path))
