"""The one literal table of systems: looked up by name, imported only when used.

A line here is all that the command line, the conformance suite and the demo need to find a system. What else they need
lies where the name says: ``recipes/<name>.py``, ``docs/systems/<name>.md``, ``docs/results/<name>.json``.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castalia.core.errors import UsageError, near

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
    """

    name: str
    title: str
    path: str
    media: tuple[str, ...]
    paper: str
    capabilities: tuple[str, ...]
    cls: type[Model] | None = None

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
        found = importlib.import_module(f"castalia.models.{module}")  # safe: a literal of the table below
        return vars(found)[name]


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "vae",
            "Variational autoencoder",
            "autoencoders.vae:VAE",
            media=("image",),
            paper="Kingma & Welling 2014 (arXiv:1312.6114); Rezende et al. 2014 (arXiv:1401.4082); "
            "importance weighting: Burda et al. 2016 (arXiv:1509.00519)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        ),
        Entry(
            "vqvae",
            "Vector-quantised autoencoder (VQ-VAE)",
            "autoencoders.vqvae:VQVAE",
            media=("image",),
            paper="van den Oord, Vinyals & Kavukcuoglu 2017 (arXiv:1711.00937)",
            capabilities=("Generator", "Density", "Refinement", "Exportable"),
        ),
        Entry(
            "gan",
            "Generative adversarial network (GAN, DCGAN)",
            "adversarial.gan:GAN",
            media=("image", "points"),
            paper="Goodfellow et al. 2014 (arXiv:1406.2661); DCGAN: Radford et al. 2016 (arXiv:1511.06434); classes: "
            "Mirza & Osindero 2014 (arXiv:1411.1784), Miyato & Koyama 2018 (arXiv:1802.05637)",
            capabilities=("Generator", "Latents", "Exportable"),
        ),
        Entry(
            "wgan",
            "Wasserstein GAN (with gradient penalty)",
            "adversarial.wgan:WGAN",
            media=("image", "points"),
            paper="Arjovsky et al. 2017 (arXiv:1701.07875); gradient penalty: Gulrajani et al. 2017 (arXiv:1704.00028)",
            capabilities=("Generator", "Latents", "Exportable"),
        ),
        Entry(
            "ddpm",
            "Denoising diffusion (DDPM, DDIM)",
            "diffusion.ddpm:DDPM",
            media=("image", "points"),
            paper="Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Ho et al. 2020 (arXiv:2006.11239); Song et al. 2021 "
            "(arXiv:2010.02502); Nichol & Dhariwal 2021 (arXiv:2102.09672)",
            capabilities=("Generator", "Density", "Latents", "Refinement", "Exportable"),
        ),
        Entry(
            "edm",
            "Preconditioned diffusion (EDM)",
            "diffusion.edm:EDM",
            media=("image", "points"),
            paper="Karras et al. 2022 (arXiv:2206.00364); likelihood: Song et al. 2021 (arXiv:2011.13456)",
            capabilities=("Generator", "Density", "Latents", "Refinement", "Exportable"),
        ),
        Entry(
            "gpt2",
            "GPT-2",
            "sequence.gpt2:GPT2",
            media=("text",),
            paper="Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
            capabilities=("Generator", "Density", "Streaming", "Exportable"),
        ),
        Entry(
            "lstm",
            "LSTM language model",
            "sequence.lstm:LSTM",
            media=("text",),
            paper="Hochreiter & Schmidhuber 1997; Zaremba, Sutskever & Vinyals 2014 (arXiv:1409.2329)",
            capabilities=("Generator", "Density", "Streaming"),
        ),
        Entry(
            "wavenet",
            "WaveNet",
            "sound.wavenet:WaveNet",
            media=("audio",),
            paper="van den Oord et al. 2016 (arXiv:1609.03499); queues: Paine et al. 2016 (arXiv:1611.09482); mixture "
            "output: Salimans et al. 2017 (arXiv:1701.05517)",
            capabilities=("Generator", "Density", "Streaming", "Exportable"),
        ),
        Entry(
            "rbm",
            "Restricted Boltzmann machine",
            "energy.rbm:RBM",
            media=("image",),
            paper="Smolensky 1986; contrastive divergence: Hinton 2002; persistent chains: Tieleman 2008; likelihood: "
            "Salakhutdinov & Murray 2008",
            capabilities=("Generator", "Density", "Refinement"),
        ),
        Entry(
            "dbn",
            "Deep belief net",
            "energy.dbn:DBN",
            media=("image",),
            paper="Hinton, Osindero & Teh 2006, A fast learning algorithm for deep belief nets; likelihood: "
            "Salakhutdinov & Murray 2008",
            capabilities=("Generator", "Density"),
        ),
        Entry(
            "ebm",
            "Energy-based model",
            "energy.ebm:EBM",
            media=("image", "points"),
            paper="Du & Mordatch 2019 (arXiv:1903.08689)",
            capabilities=("Generator", "Refinement"),
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
