"""What an optimizer decays."""

from __future__ import annotations

from castalia.configuration import Training
from castalia.core.model import Optimizer, build
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.vae import VAE, VAEConfig
from castalia.training import optimizers


def test_biases_are_not_decayed_whatever_their_shape() -> None:
    """The base map of a VAE is a bias per pixel: decayed, it would forget the mean picture."""
    model = build(VAE, VAEConfig(network="dense", latent_dims=2, widths=(8,)), ImageSpec(1, 4, 4))
    made = optimizers.make(list(model.parameters()), Optimizer(weight_decay=0.1), Training(), model)
    decayed = {id(p) for group in made.param_groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert names
    assert all(name.endswith(".weight") for name in names), names
    assert sum(len(group["params"]) for group in made.param_groups) == len(list(model.parameters()))
