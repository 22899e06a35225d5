"""Worlds."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "world-model",
        "World model",
        "worlds.world_model:WorldModel",
        media=("episode",),
        paper="Ha & Schmidhuber 2018 (arXiv:1803.10122)",
        capabilities=("Generator",),
        good="Dreams an environment from recordings of it, and evolves a small controller there or in its dreams; what "
        "vision does not keep, because it is small in the picture, the controller cannot know.",
    ),
)
