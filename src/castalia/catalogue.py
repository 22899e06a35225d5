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
            capabilities=("Generator", "Density", "Latents", "Inference", "Perception", "Exportable"),
            good="Fast to train, draws at once, and has a map of everything it makes: walks, blends, "
            "reconstructions. Fine detail comes out soft.",
        ),
        Entry(
            "vqvae",
            "Vector-quantised autoencoder (VQ-VAE)",
            "autoencoders.vqvae:VQVAE",
            media=("image",),
            paper="van den Oord, Vinyals & Kavukcuoglu 2017 (arXiv:1711.00937)",
            capabilities=("Generator", "Density", "Refinement", "Perception", "Exportable"),
            good="Pictures as a few words of a learned vocabulary, and a language model over them: sharp "
            "reconstructions, samples by class.",
        ),
        Entry(
            "vqvae2",
            "Two-level VQ-VAE (VQ-VAE-2)",
            "autoencoders.vqvae2:VQVAE2",
            media=("image",),
            paper="Razavi, van den Oord & Vinyals 2019 (arXiv:1906.00446)",
            capabilities=("Generator", "Density", "Refinement", "Exportable"),
            good="A VQ-VAE with a coarse grid for the whole and a fine one for details: larger pictures from the same "
            "kind of codes.",
        ),
        Entry(
            "iaf",
            "VAE with inverse autoregressive flow (IAF)",
            "autoencoders.iaf:IAF",
            media=("image",),
            paper="Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016 (arXiv:1606.04934)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Perception", "Exportable"),
            good="A VAE that describes its codes more exactly: better likelihoods from the same networks, and the "
            "same latent space to walk in.",
        ),
        Entry(
            "vdvae",
            "Very deep VAE",
            "autoencoders.vdvae:VDVAE",
            media=("image",),
            paper="Child 2021 (arXiv:2011.10650)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            good="A VAE with latents at every size, from one pixel to all: the best likelihoods of autoencoders, and "
            "one pass to draw.",
        ),
        Entry(
            "gan",
            "Generative adversarial network (GAN, DCGAN)",
            "adversarial.gan:GAN",
            media=("image", "points"),
            paper="Goodfellow et al. 2014 (arXiv:1406.2661); DCGAN: Radford et al. 2016 (arXiv:1511.06434); classes: "
            "Mirza & Osindero 2014 (arXiv:1411.1784), Miyato & Koyama 2018 (arXiv:1802.05637)",
            capabilities=("Generator", "Latents", "Perception", "Exportable"),
            good="Sharp pictures in one step, by a contest of two networks. Training may fail or show few kinds of "
            "pictures: watch the variety.",
        ),
        Entry(
            "wgan",
            "Wasserstein GAN (with gradient penalty)",
            "adversarial.wgan:WGAN",
            media=("image", "points"),
            paper="Arjovsky et al. 2017 (arXiv:1701.07875); gradient penalty: Gulrajani et al. 2017 (arXiv:1704.00028)",
            capabilities=("Generator", "Latents", "Perception", "Exportable"),
            good="A GAN whose contest is steadier, at more work per step: all kinds of pictures, sharp, in one step.",
        ),
        Entry(
            "progan",
            "Progressive GAN",
            "adversarial.progan:ProGAN",
            media=("image",),
            paper="Karras et al. 2018 (arXiv:1710.10196)",
            capabilities=("Generator", "Latents", "Perception", "Exportable"),
            good="A GAN that grows from pictures of 4 pixels to large ones: shapes first, then detail, which keeps the "
            "contest steady. It sees the whole picture only in its last stage.",
        ),
        Entry(
            "biggan",
            "BigGAN and BigGAN-deep",
            "adversarial.biggan:BigGAN",
            media=("image",),
            paper="Brock et al. 2019 (arXiv:1809.11096); attention: Zhang et al. 2019 (arXiv:1805.08318)",
            capabilities=("Generator", "Latents", "Perception", "Exportable"),
            good="Many classes in one sharp generator, and variety traded for typical pictures as one draws. Wants "
            "large batches and an accelerator; its critic learns small data by heart.",
        ),
        Entry(
            "stylegan",
            "StyleGAN",
            "adversarial.stylegan:StyleGAN",
            media=("image",),
            paper="Karras, Laine & Aila 2019 (arXiv:1812.04948)",
            capabilities=("Generator", "Latents", "Styled", "Perception", "Exportable"),
            good="A GAN that is told a style at every layer: coarse and fine can be mixed. Its successor, stylegan2, "
            "is the one to train.",
        ),
        Entry(
            "stylegan2",
            "StyleGAN2 (with ADA)",
            "adversarial.stylegan2:StyleGAN2",
            media=("image",),
            paper="Karras et al. 2020a (arXiv:1912.04958); ADA: Karras et al. 2020b (arXiv:2006.06676)",
            capabilities=("Generator", "Latents", "Styled", "Perception", "Exportable"),
            good="The sharpest pictures in one step, with styles to mix and pictures to find again, from few "
            "pictures too. Long to train.",
        ),
        Entry(
            "stylegan3",
            "StyleGAN3 (T and R)",
            "adversarial.stylegan3:StyleGAN3",
            media=("image",),
            paper="Karras et al. 2021 (arXiv:2106.12423)",
            capabilities=("Generator", "Latents", "Styled", "Perception", "Exportable"),
            good="Pictures whose details move with what they are on: for films between pictures. Slower to train than "
            "stylegan2.",
        ),
        Entry(
            "ddpm",
            "Denoising diffusion (DDPM, DDIM)",
            "diffusion.ddpm:DDPM",
            media=("image", "points"),
            paper="Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Ho et al. 2020 (arXiv:2006.11239); Song et al. 2021 "
            "(arXiv:2010.02502); Nichol & Dhariwal 2021 (arXiv:2102.09672)",
            capabilities=("Generator", "Density", "Latents", "Refinement", "Exportable"),
            good="The most faithful pictures of all families here, steered by class, filled in and redrawn. Slow: "
            "dozens of network calls for each.",
        ),
        Entry(
            "edm",
            "Preconditioned diffusion (EDM)",
            "diffusion.edm:EDM",
            media=("image", "points"),
            paper="Karras et al. 2022 (arXiv:2206.00364); likelihood: Song et al. 2021 (arXiv:2011.13456)",
            capabilities=("Generator", "Density", "Latents", "Refinement", "Exportable"),
            good="Diffusion set up so that it learns evenly at all noise levels: fewer steps for the same quality, "
            "and an exact likelihood.",
        ),
        Entry(
            "nice",
            "NICE",
            "flows.nice:NICE",
            media=("image", "points"),
            paper="Dinh, Krueger & Bengio 2014 (arXiv:1410.8516)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            good="The simplest flow: every picture is a code turned inside out, and how likely it is follows "
            "exactly. Quick to learn; samples are coarse.",
        ),
        Entry(
            "realnvp",
            "RealNVP",
            "flows.realnvp:RealNVP",
            media=("image", "points"),
            paper="Dinh, Sohl-Dickstein & Bengio 2016 (arXiv:1605.08803)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            good="A flow for points and pictures: exact codes, exact likelihoods, samples in one pass. Shapes are "
            "looser than diffusion's.",
        ),
        Entry(
            "glow",
            "Glow",
            "flows.glow:Glow",
            media=("image", "points"),
            paper="Kingma & Dhariwal 2018 (arXiv:1807.03039)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            good="The strongest flow here: exact codes to walk, blend and edit in, good likelihoods, samples in "
            "one pass. Wants many minutes.",
        ),
        Entry(
            "maf",
            "Masked autoregressive flow (MAF)",
            "flows.maf:MAF",
            media=("image", "points"),
            paper="Papamakarios, Pavlakou & Murray 2017 (arXiv:1705.07057); MADE: Germain et al. 2015 "
            "(arXiv:1502.03509)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            good="Exact densities of points and tables, each value given those before it; mixtures where one bell "
            "curve does not fit.",
        ),
        Entry(
            "nsf",
            "Neural spline flow",
            "flows.nsf:NSF",
            media=("image", "points"),
            paper="Durkan, Bekasov, Murray & Papamakarios 2019 (arXiv:1906.04032)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            good="The flow for points with sharp edges and holes: splines bend where the data want it. Exact "
            "densities, quick both ways.",
        ),
        Entry(
            "ffjord",
            "Continuous flow (FFJORD)",
            "flows.ffjord:FFJORD",
            media=("image", "points"),
            paper="Grathwohl et al. 2019 (arXiv:1810.01367); neural ODEs: Chen et al. 2018 (arXiv:1806.07366)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            good="Points flow along a smooth path to noise and back, by any network. Beautiful films of how; slow to "
            "train.",
        ),
        Entry(
            "tarflow",
            "Transformer autoregressive flow (TarFlow)",
            "flows.tarflow:TarFlow",
            media=("image",),
            paper="Zhai et al. 2024 (arXiv:2412.06329)",
            capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
            good="The newest flow: transformers over patches, sharp samples by noise and its removal, guided by class. "
            "Patch by patch to draw.",
        ),
        Entry(
            "pixelcnn",
            "PixelCNN (gated, and plain)",
            "pixels.pixelcnn:PixelCNN",
            media=("image",),
            paper="van den Oord et al. 2016 (arXiv:1601.06759); gates, labels, no blind spot: van den Oord et al. 2016 "
            "(arXiv:1606.05328)",
            capabilities=("Generator", "Density", "Streaming", "Exportable"),
            good="Pixel by pixel with exact likelihoods, the best of all families for small pictures; completes a "
            "picture from its upper part. Drawing is slow.",
        ),
        Entry(
            "pixelcnn-pp",
            "PixelCNN++",
            "pixels.pixelcnn_pp:PixelCNNPP",
            media=("image",),
            paper="Salimans et al. 2017 (arXiv:1701.05517)",
            capabilities=("Generator", "Density", "Streaming", "Exportable"),
            good="PixelCNN for colour: a smooth distribution over 256 values, both coarse and fine structure. "
            "Exact likelihoods; drawing is slow.",
        ),
        Entry(
            "pixelrnn",
            "PixelRNN (Row LSTM, Diagonal BiLSTM)",
            "pixels.pixelrnn:PixelRNN",
            media=("image",),
            paper="van den Oord et al. 2016 (arXiv:1601.06759)",
            capabilities=("Generator", "Density", "Streaming", "Exportable"),
            good="The same with a recurrent memory over rows and diagonals: sees all that came before. Slower to "
            "train than PixelCNN.",
        ),
        Entry(
            "gpt2",
            "GPT-2",
            "sequence.gpt2:GPT2",
            media=("text",),
            paper="Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
            capabilities=("Generator", "Density", "Streaming", "Exportable"),
            good="Continues any text in its manner, by a transformer that sees all that came before. Wants much "
            "text; short runs spell well and make no sense.",
        ),
        Entry(
            "lstm",
            "LSTM language model",
            "sequence.lstm:LSTM",
            media=("text",),
            paper="Hochreiter & Schmidhuber 1997; Zaremba, Sutskever & Vinyals 2014 (arXiv:1409.2329)",
            capabilities=("Generator", "Density", "Streaming"),
            good="Continues text with a small memory that it carries along: little to compute per letter, any "
            "length, less far-sighted than GPT-2.",
        ),
        Entry(
            "wavenet",
            "WaveNet",
            "sound.wavenet:WaveNet",
            media=("audio",),
            paper="van den Oord et al. 2016 (arXiv:1609.03499); queues: Paine et al. 2016 (arXiv:1611.09482); mixture "
            "output: Salimans et al. 2017 (arXiv:1701.05517)",
            capabilities=("Generator", "Density", "Streaming", "Exportable"),
            good="Sound sample by sample: the right colour of voices and instruments, streamed as it is made. "
            "Words take long training.",
        ),
        Entry(
            "jukebox",
            "Jukebox",
            "sound.jukebox:Jukebox",
            media=("audio",),
            paper="Dhariwal, Jun, Payne, Kim, Radford & Sutskever 2020 (arXiv:2005.00341)",
            capabilities=("Generator",),
            good="Long sound as codes at several rates: voices and words, begun or continued from one's own recording.",
        ),
        Entry(
            "samplernn",
            "SampleRNN",
            "sound.samplernn:SampleRNN",
            media=("audio",),
            paper="Mehri et al. 2017 (arXiv:1612.07837)",
            capabilities=("Generator", "Density", "Streaming"),
            good="Sound sample by sample with a longer memory than WaveNet's; cheap to train, many streams at once.",
        ),
        Entry(
            "diffwave",
            "DiffWave",
            "sound.diffwave:DiffWave",
            media=("audio",),
            paper="Kong, Ping, Huang, Zhao & Catanzaro 2021 (arXiv:2009.09761)",
            capabilities=("Generator", "Exportable"),
            good="Sound all at once out of noise, by class; and a vocoder, which turns mel spectrograms into sound.",
        ),
        Entry(
            "musegan",
            "MuseGAN",
            "music.musegan:MuseGAN",
            media=("music",),
            paper="Dong, Hsiao, Yang & Yang 2018 (arXiv:1709.06298)",
            capabilities=("Generator", "Latents", "Exportable"),
            good="A few bars for a whole band at once: chords, style, melody and groove can be varied one by one.",
        ),
        Entry(
            "musenet",
            "MuseNet",
            "music.musenet:MuseNet",
            media=("music",),
            paper="Payne 2019 (openai.com/index/musenet); sparse attention: Child et al. 2019 (arXiv:1904.10509)",
            capabilities=("Generator", "Density", "Streaming"),
            good="Music for several instruments in the manner of a composer, begun or continued from one's own MIDI.",
        ),
        Entry(
            "musicvae",
            "MusicVAE",
            "music.musicvae:MusicVAE",
            media=("music",),
            paper="Roberts, Engel, Raffel, Hawthorne & Eck 2018 (arXiv:1803.05428)",
            capabilities=("Generator", "Density", "Latents", "Inference"),
            good="Short melodies, drum patterns and trios with a space to walk in: morph one tune into another.",
        ),
        Entry(
            "rbm",
            "Restricted Boltzmann machine",
            "energy.rbm:RBM",
            media=("image",),
            paper="Smolensky 1986; contrastive divergence: Hinton 2002; persistent chains: Tieleman 2008; likelihood: "
            "Salakhutdinov & Murray 2008",
            capabilities=("Generator", "Density", "Refinement"),
            good="The classic of energy: binary pixels and hidden causes, trained in seconds. Likelihoods are "
            "estimated from both sides; grey needs Gaussian units.",
        ),
        Entry(
            "dbn",
            "Deep belief net",
            "energy.dbn:DBN",
            media=("image",),
            paper="Hinton, Osindero & Teh 2006, A fast learning algorithm for deep belief nets; likelihood: "
            "Salakhutdinov & Murray 2008",
            capabilities=("Generator", "Density"),
            good="Layers of Boltzmann machines, greedy and then fine-tuned up and down: draws digits by class, and "
            "classifies them.",
        ),
        Entry(
            "dbm",
            "Deep Boltzmann machine",
            "energy.dbm:DBM",
            media=("image",),
            paper="Salakhutdinov & Hinton 2009, Deep Boltzmann Machines; centred: Montavon & Mueller 2012",
            capabilities=("Generator", "Density", "Refinement"),
            good="Two layers of causes without directions: fills in a picture from any part, and draws by moves in "
            "all layers at once.",
        ),
        Entry(
            "ebm",
            "Energy-based model",
            "energy.ebm:EBM",
            media=("image", "points"),
            paper="Du & Mordatch 2019 (arXiv:1903.08689)",
            capabilities=("Generator", "Refinement", "Perception"),
            good="One network that says how natural a picture is, sampled by following its slope. Flexible, slow "
            "to sample, and training needs watching.",
        ),
        Entry(
            "jem",
            "Joint energy-based model (JEM)",
            "energy.jem:JEM",
            media=("image", "points"),
            paper="Grathwohl et al. 2020 (arXiv:1912.03263)",
            capabilities=("Generator", "Refinement", "Perception"),
            good="A classifier that draws what it knows: one network for classes and for pictures of each. Training "
            "needs watching.",
        ),
    )
}


def entry(name: str) -> Entry:
    """Look a system up; whatever the case of its letters.

    Raises:
        UsageError: there is none of that name; near matches are listed.
    """
    known = name if name in CATALOGUE else name.lower()
    if known not in CATALOGUE:
        raise UsageError(f"There is no model {name!r}. {near(known, CATALOGUE)}")
    return CATALOGUE[known]
