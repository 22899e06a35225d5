"""Pictures of things that are seen from several sides, told by the names of their files.

A pattern says where in a name the thing and the degrees stand: ``{thing}_{degrees}`` reads ``car-07_030.png`` as the
thing ``car-07`` seen from 30 degrees, roughly. Each number of degrees that occurs is a viewpoint, with one camera for
all things: a turntable that stops at the same places.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import replace
from typing import final

import numpy as np
import torch

from castalia.core.data import Batch, Dataset, Texts
from castalia.core.errors import DataError, UsageError
from castalia.core.rng import Rng
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.media.image.array import ImageArray

VIEW, OTHER, OTHER_VIEW = "view", "other", "other_view"
"""Columns: number of the viewpoint; another view of the same thing, and its viewpoint."""

THING, DEGREES = "{thing}", "{degrees}"


def thing_and_degrees(name: str, pattern: str) -> tuple[str, float] | None:
    """What thing a file shows, with the folders that it lies in, and from how many degrees; None where it does not fit.

    Args:
        name: of the file, below its folder.
        pattern: matches the end of the name, without its suffix; it may have slashes.
    """
    stem = posixpath.splitext(name)[0]
    text = re.escape(pattern)
    text = text.replace(re.escape(THING), "(?P<thing>[^/]+?)")
    text = text.replace(re.escape(DEGREES), r"(?P<degrees>[0-9]+(?:\.[0-9]+)?)")
    found = re.search(f"(?:^|/){text}$", stem)
    if found is None:
        return None
    degrees = float(found["degrees"])
    return (stem[: found.start()] + "/" + found["thing"], degrees % 360) if degrees <= 360 else None


@final
class PictureViews(Dataset):
    """Pictures, each with its viewpoint and, in the columns ``other`` and ``other_view``, another view of its thing.

    In training (with ``rng``) that is a random one, else the next. A thing with a single picture has none but that.

    Args:
        pictures: the pictures, with the names of their files.
        pattern: see above.
        like: the shape of pictures whose viewpoints are numbered alike.

    Raises:
        DataError: a name does not fit the pattern, or has a viewpoint that ``like`` does not know; there is only one.
        UsageError: pictures are mirrored, which changes where they are seen from.
    """

    def __init__(self, pictures: ImageArray, pattern: str, like: Spec | None = None) -> None:
        if pictures.flip:
            raise UsageError("A view that is mirrored is seen from elsewhere; leave data.options.flip out.")
        things, degrees = _told(pictures.files, pattern, pictures.name)
        self._pictures = pictures
        known = None if like is None else dict(like.columns).get(VIEW)
        names = known.classes if isinstance(known, LabelSpec) else tuple(_name(d) for d in sorted(set(degrees)))
        if len(names) < 2:
            raise DataError(
                f"{pictures.name}: all pictures are from {_name(degrees[0])}; there have to be others, too."
            )
        number = {name: i for i, name in enumerate(names)}
        if unknown := sorted({_name(d) for d in degrees} - set(number)):
            raise DataError(f"{pictures.name} has viewpoints that the run does not know: {', '.join(unknown[:3])}.")
        self._view = torch.tensor([number[_name(d)] for d in degrees])
        order: dict[str, list[int]] = {}
        for i, thing in enumerate(things):
            order.setdefault(thing, []).append(i)
        self._mates = [order[thing] for thing in things]
        self._place = [mates.index(i) for i, mates in enumerate(self._mates)]
        cameras = LabelSpec(names)
        shape = ImageSpec(*pictures.spec.shape)
        more = ((VIEW, cameras), (OTHER, shape), (OTHER_VIEW, cameras))
        # Narrower than the base class says, and never set again.
        self.spec: ImageSpec = replace(  # pyright: ignore[reportIncompatibleVariableOverride]
            pictures.spec, columns=(*pictures.spec.columns, *more)
        )
        self.name, self.labels, self.texts, self.files = pictures.name, pictures.labels, pictures.texts, pictures.files
        alone = sum(len(mates) == 1 for mates in order.values())
        told = f"{len(order)} things from {len(names)} viewpoints, told by the names of their files."
        self.notes = (*pictures.notes, told + (f" {alone} of them are seen once." if alone else ""))
        digest = hashlib.blake2b(f"{pictures.fingerprint} {things} {degrees}".encode(), digest_size=16)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._pictures)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        found = self._pictures.batch(ids)
        shift = torch.zeros(len(ids)) if rng is None else rng.uniform("other view").cpu()
        others = []
        for i, u in zip(ids.tolist(), shift.tolist(), strict=True):
            mates = self._mates[i]
            step = 1 + min(int(u * (len(mates) - 1)), max(len(mates) - 2, 0))
            others.append(mates[(self._place[i] + step) % len(mates)])
        other = self._pictures.batch(np.array(others, np.int64))
        more = {VIEW: self._view[found.ids], OTHER: other.x, OTHER_VIEW: self._view[other.ids]}
        # labels are its own: they may have been numbered anew
        label = None if self.labels is None else self.labels[found.ids]
        return replace(found, label=label, extra={**found.extra, **more})


def _name(degrees: float) -> str:
    return f"{degrees:g} degrees"


def _told(files: Texts, pattern: str, where: str) -> tuple[list[str], list[float]]:
    """Things and degrees of all files."""
    if not len(files):
        raise DataError(f"{where}: its pictures have no names that could tell from where they are.")
    things, degrees = [], []
    for name in files:
        told = thing_and_degrees(name, pattern)
        if told is None:
            raise DataError(f"{where}: {name} does not fit {pattern!r}, with degrees of 0 to 360 (data.options.views).")
        things.append(told[0])
        degrees.append(told[1])
    return things, degrees
