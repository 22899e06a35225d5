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


def _gan() -> type[Model]:
    from castalia.models.adversarial.gan import GAN

    return GAN


def _wgan() -> type[Model]:
    from castalia.models.adversarial.wgan import WGAN

    return WGAN


def _ddpm() -> type[Model]:
    from castalia.models.diffusion.ddpm import DDPM

    return DDPM


def _edm() -> type[Model]:
    from castalia.models.diffusion.edm import EDM

    return EDM


def _wavenet() -> type[Model]:
    from castalia.models.sound.wavenet import WaveNet

    return WaveNet


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
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            load=_vae,
        ),
        Entry(
            name="gan",
            title="Generative adversarial network (GAN, DCGAN)",
            family="adversarial",
            media=("image", "points"),
            paper="Goodfellow et al. 2014 (arXiv:1406.2661); DCGAN: Radford et al. 2016 (arXiv:1511.06434); classes: "
            "Mirza & Osindero 2014 (arXiv:1411.1784), Miyato & Koyama 2018 (arXiv:1802.05637)",
            capabilities=("Generator", "Latents", "Exportable"),
            load=_gan,
        ),
        Entry(
            name="wgan",
            title="Wasserstein GAN (with gradient penalty)",
            family="adversarial",
            media=("image", "points"),
            paper="Arjovsky et al. 2017 (arXiv:1701.07875); gradient penalty: Gulrajani et al. 2017 (arXiv:1704.00028)",
            capabilities=("Generator", "Latents", "Exportable"),
            load=_wgan,
        ),
        Entry(
            name="ddpm",
            title="Denoising diffusion (DDPM, DDIM)",
            family="diffusion",
            media=("image", "points"),
            paper="Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Ho et al. 2020 (arXiv:2006.11239); Song et al. 2021 "
            "(arXiv:2010.02502); Nichol & Dhariwal 2021 (arXiv:2102.09672)",
            capabilities=("Generator", "Density", "Latents", "Refinement", "Exportable"),
            load=_ddpm,
        ),
        Entry(
            name="edm",
            title="Preconditioned diffusion (EDM)",
            family="diffusion",
            media=("image", "points"),
            paper="Karras et al. 2022 (arXiv:2206.00364); likelihood: Song et al. 2021 (arXiv:2011.13456)",
            capabilities=("Generator", "Density", "Latents", "Refinement", "Exportable"),
            load=_edm,
        ),
        Entry(
            name="wavenet",
            title="WaveNet",
            family="sound",
            media=("audio",),
            paper="van den Oord et al. 2016 (arXiv:1609.03499); queues: Paine et al. 2016 (arXiv:1611.09482); mixture "
            "output: Salimans et al. 2017 (arXiv:1701.05517)",
            capabilities=("Generator", "Density", "Streaming", "Exportable"),
            load=_wavenet,
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
