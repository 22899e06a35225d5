"""Classes are told by their names: numbers mean something only beside the list that they were made with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from castalia.core.data import Dataset
from castalia.core.spec import Spec


def match_classes(data: Dataset, like: Spec | None) -> Dataset:
    """Number the classes of ``data``, which was just opened, as those of ``like`` are numbered.

    Where examples have a class that is not among those, all labels are left out, and a note says so.
    """
    wanted: tuple[str, ...] = getattr(like, "classes", ())
    own: tuple[str, ...] = getattr(data.spec, "classes", ())
    if not wanted or wanted == own or data.labels is None or not own:
        return data
    spec: Any = data.spec
    number = {name: i for i, name in enumerate(wanted)}
    table = torch.tensor([number.get(name, -1) for name in own])
    labels = table[data.labels.long()]
    data.spec = replace(spec, classes=wanted)
    if len(labels) and int(labels.min()) < 0:
        unknown = sorted({own[i] for i in data.labels[labels < 0].unique().tolist()})
        some = ", ".join(map(ascii, unknown[:3])) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        data.labels = None
        data.notes = (*data.notes, f"Its labels are left out, because the run does not know the classes {some}.")
    else:
        data.labels = labels.to(data.labels.dtype)
    return data
