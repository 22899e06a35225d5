"""Diffusion with a transformer in place of the U-Net.

Papers
    Peebles & Xie 2023, "Scalable Diffusion Models with Transformers" (arXiv:2212.09748): the network, see
    transformer.py; training as in Nichol & Dhariwal 2021 (arXiv:2102.09672): 1,000 steps, linear betas, prediction of
    the noise, learned variance; guidance by class (Ho & Salimans 2022).

Everything but the network is ``ddpm``'s. The paper's pictures are latents of an autoencoder, 32x32 of 4 channels for
256 pixels: for that see ``latent-diffusion``, whose denoiser can be this one. Here pictures are taken as they are.

What differs, and why
    Guidance acts on all channels; the authors' code guides the first three of four, by oversight. Times, as in
    ``ddpm``, need not be whole numbers.

Expected: see ``recipes/dit.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from castalia.core.specs.image import ImageSpec
from castalia.models.diffusion.ddpm import DDPM, DDPMConfig
from castalia.models.diffusion.networks import Network
from castalia.models.diffusion.transformer import Block, Transformer, TransformerConfig


@dataclass(frozen=True)
class DiTConfig(DDPMConfig):
    """Configuration of diffusion with a transformer.

    Attributes:
        transformer: the network; ``unet`` and ``perceptron`` of the family have no use here.
        variance: learned in the paper.
    """

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    variance: Literal["fixed_small", "fixed_large", "learned"] = "learned"


class DiT(DDPM):
    """``ddpm`` with another network."""

    Config = DiTConfig
    shard_units = (Block,)
    config: DiTConfig

    def make_network(self, maps: int) -> Network:
        spec = self.spec
        assert isinstance(spec, ImageSpec)
        channels = spec.channels
        return Transformer(self.config.transformer, channels, maps * channels, spec.height, spec.width, self.classes)
