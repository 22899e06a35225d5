"""Recipes: what to run and what to expect from it.

A recipe is a function without arguments that returns one complete :class:`castalia.configuration.Recipe`; a
variant calls the base and replaces fields. ``RECIPES`` is the literal table of them, by the name that
``--recipe`` takes; ``DEFAULTS`` says which one a model uses for which data set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from castalia.core.errors import UsageError, near

if TYPE_CHECKING:
    from castalia.configuration import Recipe


def _vae(name: str) -> Callable[[], Recipe]:
    def load() -> Recipe:
        from castalia.recipes import vae

        return vae.RECIPES[name]()

    return load


def _adversarial(name: str) -> Callable[[], Recipe]:
    def load() -> Recipe:
        from castalia.recipes import adversarial

        return adversarial.RECIPES[name]()

    return load


def _diffusion(name: str) -> Callable[[], Recipe]:
    def load() -> Recipe:
        from castalia.recipes import diffusion

        return diffusion.RECIPES[name]()

    return load


def _wavenet(name: str) -> Callable[[], Recipe]:
    def load() -> Recipe:
        from castalia.recipes import wavenet

        return wavenet.RECIPES[name]()

    return load


RECIPES: dict[str, Callable[[], Recipe]] = {
    name: _vae(name)
    for name in (
        "vae-digits",
        "vae-digits-plane",
        "vae-mnist",
        "vae-mnist-importance",
        "vae-mnist-dense",
        "vae-mnist-burda",
        "vae-cifar",
        "vae-emoji",
        "vae-emoji-64",
        "vae-pictures",
    )
}

RECIPES |= {
    name: _adversarial(name)
    for name in (
        "gan-grid",
        "gan-ring",
        "pacgan-grid",
        "pacgan-ring",
        "wgan-gp-grid",
        "wgan-gp-ring",
        "dcgan-digits",
        "wgan-digits",
        "dcgan-mnist",
        "wgan-mnist",
        "wgan-gp-mnist",
        "cgan-mnist",
        "dcgan-stacked-mnist",
        "pacdcgan-stacked-mnist",
        "wgan-gp-stacked-mnist",
        "dcgan-emoji",
        "dcgan-pictures",
        "wgan-pictures",
        "wgan-gp-cifar",
        "book-dcgan",
        "book-wgan-gp",
        "book-cgan",
    )
}

RECIPES |= {
    name: _diffusion(name)
    for name in (
        "diffusion-digits",
        "diffusion-digits-likelihood",
        "ddpm-mnist",
        "ddpm-mnist-likelihood",
        "ddpm-cifar",
        "ddpm-emoji",
        "ddpm-pictures",
        "ddpm-grid",
        "edm-digits",
        "edm-mnist",
        "edm-pictures",
        "edm-grid",
    )
}

RECIPES |= {
    name: _wavenet(name)
    for name in (
        "wavenet-vowels",
        "wavenet-digits",
        "wavenet-digits-mixture",
        "wavenet-audio",
        "wavenet-paper",
        "wavenet-tiny",
    )
}

POINTS = ("grid-25", "ring-8", "swiss-roll", "two-moons", "*.csv")
"""Sources of points; the last stands for any CSV or TSV file."""

DEFAULTS: dict[tuple[str, str], str] = {
    ("vae", "digits"): "vae-digits",
    ("vae", "mnist"): "vae-mnist",
    ("vae", "cifar10-jpeg"): "vae-cifar",
    ("vae", "noto-emoji"): "vae-emoji",
    ("vae", "*"): "vae-pictures",
    ("gan", "digits"): "dcgan-digits",
    ("gan", "mnist"): "dcgan-mnist",
    ("gan", "stacked-mnist"): "pacdcgan-stacked-mnist",
    ("gan", "noto-emoji"): "dcgan-emoji",
    ("gan", "*"): "dcgan-pictures",
    ("wgan", "digits"): "wgan-digits",
    ("wgan", "mnist"): "wgan-gp-mnist",
    ("wgan", "stacked-mnist"): "wgan-gp-stacked-mnist",
    ("wgan", "cifar10-jpeg"): "wgan-gp-cifar",
    ("wgan", "*"): "wgan-pictures",
    ("ddpm", "digits"): "diffusion-digits",
    ("ddpm", "mnist"): "ddpm-mnist",
    ("ddpm", "cifar10-jpeg"): "ddpm-cifar",
    ("ddpm", "noto-emoji"): "ddpm-emoji",
    ("ddpm", "*"): "ddpm-pictures",
    ("edm", "digits"): "edm-digits",
    ("edm", "mnist"): "edm-mnist",
    ("edm", "*"): "edm-pictures",
    ("wavenet", "vowels"): "wavenet-vowels",
    ("wavenet", "free-spoken-digits"): "wavenet-digits",
    ("wavenet", "*"): "wavenet-audio",
    **{("gan", points): "pacgan-grid" for points in POINTS},
    **{("wgan", points): "wgan-gp-grid" for points in POINTS},
    **{("ddpm", points): "ddpm-grid" for points in POINTS},
    **{("edm", points): "edm-grid" for points in POINTS},
}

DEMOS: dict[str, str] = {
    "vae": "vae-digits",
    "gan": "dcgan-digits",
    "wgan": "wgan-digits",
    "ddpm": "diffusion-digits",
    "edm": "edm-digits",
    "wavenet": "wavenet-tiny",
}
"""The recipe that shows each system on built-in data; ``castalia demo`` runs them all."""


def recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UsageError: there is none; near matches are listed.
    """
    if name not in RECIPES:
        raise UsageError(f"There is no recipe {name!r}. {near(name, RECIPES)}")
    return RECIPES[name]()


def default(model: str, source: str) -> Recipe:
    """Return the recipe that ``model`` uses for the data ``source``."""
    table = ("*.csv",) if source.lower().endswith((".csv", ".tsv")) else ()
    name = next((DEFAULTS[model, kind] for kind in (source, *table, "*") if (model, kind) in DEFAULTS), None)
    if name is None:
        raise UsageError(f"{model} has no recipe for {source!r}; name one with --recipe. {near(model, RECIPES)}")
    return recipe(name)
