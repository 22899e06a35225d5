"""Molecules."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "molgan",
        "MolGAN",
        "molecules.molgan:MolGAN",
        media=("molecule",),
        paper="De Cao & Kipf 2018 (arXiv:1805.11973)",
        capabilities=("Generator", "Latents", "Exportable"),
        good="Small molecules as graphs, made in one step, and drawn towards a wanted property while it learns.",
    ),
)
