"""Recipes of the autoencoder with an inverse autoregressive flow; each is a VAE's of the house with the flow added.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from castalia.configuration import Recipe
from castalia.core.model import Optimizer
from castalia.models.autoencoders.iaf import IAFConfig
from castalia.models.autoencoders.vae import VAEConfig
from castalia.recipes import vae
from castalia.recipes.preset import Preset


def bent(base: Recipe, **changes: Any) -> Recipe:
    """A VAE's recipe with a flow, and a price of latents that is free at first."""
    assert isinstance(base.config, VAEConfig)
    own = {**asdict(base.config), "free_bits": IAFConfig.free_bits, **changes}
    return replace(base, model="iaf", config=IAFConfig(**own), expected=())


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits, seconds: the demo."""
    return bent(vae.digits(), flow_widths=(64,), context=32)


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    # free bits look at the mean of a batch, which two processes do not share
    base = bent(vae.tiny(), flow_widths=(16,), context=8, free_bits=0.0, beta=0.1)
    # eps so that a gradient which is only rounding moves nothing
    return replace(base, training=replace(base.training, optimizer=Optimizer(eps=1e-3)))


def mnist() -> Recipe:
    """Dynamically binarised MNIST: two steps of 320."""
    return bent(vae.mnist())


def mnist_paper() -> Recipe:
    """The flow of the paper's best row for MNIST, eight steps of 1,920 over 32 latents, for an accelerator."""
    base = bent(vae.mnist(), latent_dims=32, steps=8, flow_widths=(1920, 1920), context=1920, hidden=450)
    return replace(base, training=replace(base.training, steps=400_000, lr=1e-3))


def emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    return bent(vae.emoji())


def pictures() -> Recipe:
    """Any pictures at 32 pixels: the default for people's own folders."""
    return bent(vae.pictures_32())


RECIPES: dict[str, Callable[[], Recipe]] = {
    "iaf-digits": digits,
    "iaf-mnist": mnist,
    "iaf-mnist-paper": mnist_paper,
    "iaf-emoji": emoji,
    "iaf-pictures": pictures,
    "iaf-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "iaf-digits",
    "mnist": "iaf-mnist",
    "noto-emoji": "iaf-emoji",
    "*": "iaf-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("iaf-pictures", 1_500, 10_000, "simple things to be told"),),
}

DEMO = "iaf-digits"

TINY = "iaf-tiny"
