"""Texts to files, one each, with the recipe beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from castalia.core.files import disk_error
from castalia.media.image.write import replace_file


def write_texts(
    texts: Sequence[str], folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write ``0000.txt``, ``0001.txt``, ... in UTF-8, and with a recipe ``0000.json`` beside each.

    Args:
        texts: as they are; nothing is added.
        folder: where; made when missing.
        start: number of the first.
        recipe: everything needed to make them again.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error
    paths = []
    for number, text in enumerate(texts, start=start):
        path = folder / f"{number:04d}.txt"
        replace_file(path, text.encode("utf-8", "replace"))
        if recipe is not None:
            whole = json.dumps({**recipe, "index": number}, indent=2)
            replace_file(path.with_suffix(".json"), (whole + "\n").encode())
        paths.append(path)
    return paths
