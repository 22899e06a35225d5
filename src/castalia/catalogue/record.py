"""What the catalogue knows of a system."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castalia.core.model import Model

PATH = re.compile(r"([a-z]\w*)(\.[a-z]\w*)+:[A-Z]\w*")
"""Folder, modules and class of a system, below ``castalia.models``."""


@dataclass(frozen=True)
class Entry:
    """One system.

    Attributes:
        name: what users type.
        title: its full name.
        path: where its class is, below ``castalia.models``: ``"autoencoders.vae:VAE"``.
        media: what it makes.
        paper: who, when, where.
        capabilities: names of the capability classes that it derives from (a test holds them to the class).
        cls: the class itself, for systems that are not in ``castalia.models`` (toys of the tests); ``path`` then says
            no more than the family.
        good: what it is good at, and what not, in one sentence for those who choose.
    """

    name: str
    title: str
    path: str
    media: tuple[str, ...]
    paper: str
    capabilities: tuple[str, ...]
    cls: type[Model] | None = None
    good: str = ""

    def __post_init__(self) -> None:
        if self.cls is None and not PATH.fullmatch(self.path):
            raise ValueError(f"{self.name}: {self.path!r} is not of the form 'family.module:Class'")

    @property
    def family(self) -> str:
        """Folder of ``models/``."""
        return self.path.split(".")[0]

    def load(self) -> type[Model]:
        """Import and return the class."""
        if self.cls is not None:
            return self.cls
        module, name = self.path.split(":")
        found = importlib.import_module(f"castalia.models.{module}")  # safe: a literal of a table of this folder
        return vars(found)[name]
