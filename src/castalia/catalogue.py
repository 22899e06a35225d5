"""The one literal table of systems: looked up by name, imported only when used.

Listing a system here is all that the command line, the conformance suite and the demo need to find it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castalia.core.errors import UsageError, near

if TYPE_CHECKING:
    from castalia.core.model import Model


@dataclass(frozen=True)
class Entry:
    """One system.

    Attributes:
        name: what users type.
        title: its full name.
        family: folder of ``models/``.
        media: what it makes.
        paper: who, when, where.
        capabilities: names of the capability classes that it derives from (a test holds them to the class).
        load: imports and returns the class.
    """

    name: str
    title: str
    family: str
    media: tuple[str, ...]
    paper: str
    capabilities: tuple[str, ...]
    load: Callable[[], type[Model]]


def _vae() -> type[Model]:
    from castalia.models.autoencoders.vae import VAE

    return VAE


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="vae",
            title="Variational autoencoder",
            family="autoencoders",
            media=("image",),
            paper="Kingma & Welling 2014 (arXiv:1312.6114); Rezende et al. 2014 (arXiv:1401.4082); "
            "importance weighting: Burda et al. 2016 (arXiv:1509.00519)",
            capabilities=("Density", "Latents", "Inference", "Exportable"),
            load=_vae,
        ),
    )
}


def entry(name: str) -> Entry:
    """Look a system up.

    Raises:
        UsageError: there is none of that name; near matches are listed.
    """
    if name not in CATALOGUE:
        raise UsageError(f"There is no model {name!r}. {near(name, CATALOGUE)}")
    return CATALOGUE[name]
