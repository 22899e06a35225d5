"""Latent diffusion: an autoencoder makes pictures small, and diffusion works on what it makes of them.

Papers
    Rombach, Blattmann, Lorenz, Esser & Ommer 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"
    (arXiv:2112.10752): section 3.1 and appendix G (first stage, see first_stage.py), 3.2 (diffusion of its latents,
    divided by their deviation), 3.3 (words by cross-attention, see unet.py; classes likewise). Peebles & Xie 2023
    (arXiv:2212.09748): a transformer as the denoiser. Ho & Salimans 2022: dropped conditions, guidance.

Two stages. The first, ``codes``, trains the autoencoder, and the critic beside it:

    L = |x - D(E(x))| + perceptual + KL (or commitment) + w adversarial,   w = |grad of the first two| / |grad of the
    adversarial part|, both at the decoder's last layer, from a share ``critic_start`` of the stage on.

``diffusion`` then trains on latents z / deviation, measured on training pictures. What is known of a picture is its
caption (``caption``: words by a transformer trained with the denoiser), its class (one word), or nothing.

The paper's sizes as presets: KL-f8 and the text-to-picture network of 320 channels that Stable Diffusion has.

What differs, and why
    The perceptual distance is that of the critic's layers (Larsen et al. 2016), since LPIPS's weights would have to be
    downloaded; it counts from the same share of the stage on. The words' transformer has the size of ``text`` and sees
    words of one's own data. Latents are those of the encoder's mean, or drawn anew in every step (``sampled``).
    Values of the quantised first stage are used before quantisation, as in the paper's appendix G ("VQ" layers belong
    to the decoder).

Expected: see ``recipes/latent_diffusion.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Exportable, Refinement
from castalia.core.captions import CAPTION
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.encoded import Encoded
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.autoencoders.quantiser import Quantiser, straight_through
from castalia.models.diffusion.process import Call, Process, ProcessConfig, WordsDrawing, guided
from castalia.models.diffusion.transformer import Transformer, TransformerConfig
from castalia.models.multimodal.first_stage import Critic, Decoder, Encoder, FirstStageConfig, distance, split
from castalia.models.multimodal.towers import TextConfig, TextTower
from castalia.models.multimodal.unet import WordUNet
from castalia.models.multimodal.words import Words, WordsConfig, captioned, ends, found_words
from castalia.nn.gathering import everyone
from castalia.nn.labels import Labels, classes_of
from castalia.nn.pixels import inward, outward
from castalia.nn.unet import ResidualBlock, UNetConfig

FIT_EXAMPLES = 2_000
"""Training pictures on which the deviation of latents is measured."""


@dataclass(frozen=True)
class LatentDiffusionConfig(Config):
    """Configuration of latent diffusion.

    Attributes:
        first: the autoencoder.
        known: what is known of a picture: its caption, its class, or nothing.
        network: of the denoiser: a U-Net, or (not with captions) a transformer.
        unet: ``unet``.
        transformer: ``transformer``.
        text: the words' transformer.
        words: how captions become tokens.
        process: of the diffusion.
        drop: share of examples that are learned as if nothing were known of them.
        sampled: draw latents from the encoder's distribution; else its mean.
        first_share: share of all steps for the first stage.
    """

    first: FirstStageConfig = field(default_factory=FirstStageConfig)
    known: Literal["caption", "class", "nothing"] = "nothing"
    network: Literal["unet", "transformer"] = "unet"
    unet: UNetConfig = field(default_factory=UNetConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    text: TextConfig = field(default_factory=lambda: TextConfig(128, 3, 4))
    words: WordsConfig = field(default_factory=WordsConfig)
    process: ProcessConfig = field(default_factory=lambda: ProcessConfig(schedule="scaled_linear"))
    drop: float = 0.1
    sampled: bool = True
    first_share: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1 or not 0 < self.first_share < 1:
            raise ValueError("drop lies in [0, 1), first_share in (0, 1)")
        if self.network == "transformer" and self.known == "caption":
            raise ValueError("the transformer is told classes, not captions: choose network=unet, or known=class")


class LatentDiffusion(Generator[LatentDiffusionConfig, ImageSpec], Refinement, Exportable):
    """p(z | what is known) by diffusion, and pictures by a decoder."""

    Config = LatentDiffusionConfig
    SampleOptions = WordsDrawing
    shard_units = (ResidualBlock,)
    deviation: Tensor
    middle: Tensor

    def __init__(self, config: LatentDiffusionConfig, spec: ImageSpec) -> None:
        super().__init__()
        c, first, f = config, config.first, config.first.factor
        if spec.height % f or spec.width % f:
            raise ValueError(
                f"the first stage shrinks pictures {f} times, which does not divide {spec.width}x{spec.height}: choose "
                "another size (--size) or fewer first.channels"
            )
        self.config, self.spec, self.words = config, spec, Words(c.words)
        self.shape = (first.latent, spec.height // f, spec.width // f)
        self.encoder = Encoder(first, spec.channels, first.latent * (2 if first.kind == "kl" else 1))
        self.decoder = Decoder(first, spec.channels)
        if first.kind == "vq":
            self.quantiser = Quantiser(first.codes, first.latent, "gradient")
        if first.adversarial or first.perceptual:
            self.critic = Critic(spec.channels, first.critic)
        self.register_buffer("deviation", torch.ones(()))
        self.register_buffer("middle", torch.zeros(first.latent, 1, 1))
        self.classes = classes_of(spec, c.known == "class")
        self.labels = Labels(self.classes, c.drop)
        width = c.text.width
        if c.known == "caption":
            captioned(spec)
            self.text = TextTower(c.text, c.words.size, c.words.length, 0)
        elif c.known == "class" and c.network == "unet":
            self.names = nn.Embedding(self.classes + 1, width)
        if c.network == "unet":
            self.network: nn.Module = WordUNet(c.unet, first.latent, first.latent, width)
        else:
            size = self.shape
            self.network = Transformer(c.transformer, first.latent, first.latent, size[1], size[2], self.classes)
        self.nothing = nn.Embedding(1, width)
        nn.init.zeros_(self.nothing.weight)
        self.process = Process(c.process)

    @classmethod
    def complete(cls, config: LatentDiffusionConfig, data: Dataset) -> LatentDiffusionConfig:
        """Find the words of the captions, where they are learned."""
        return replace(config, words=found_words(config.words, data)) if config.known == "caption" else config

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find how often each class occurs; and the first vectors of the table from what the encoder makes."""
        self.labels.fit(data)
        if self.config.first.kind == "vq":
            with torch.no_grad():
                z = self.encoder(inward(data.batch(some_of(data, 256)).x)).permute(0, 2, 3, 1).flatten(0, 2)
                self.quantiser.begin_from(z, rng)

    # the first stage

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        parts: list[nn.Module] = [self.encoder, self.decoder]
        first = nn.ModuleList(parts)
        if c.first.kind == "vq":
            first.append(self.quantiser)
        objectives = [Objective("autoencoder", first, self.first_loss)]
        if hasattr(self, "critic"):
            objectives.append(Objective("critic", self.critic, self.critic_loss))
        told = [module for name in ("text", "names") if (module := getattr(self, name, None)) is not None]
        denoiser = nn.ModuleList([self.network, *told])
        if c.known == "nothing" and c.network == "unet":
            denoiser.append(self.nothing)
        second = Stage(
            "diffusion",
            (Objective("diffusion", denoiser, self.loss),),
            share=1 - c.first_share,
            data=self.latents,
        )
        return Stage("codes", tuple(objectives), share=c.first_share), second

    def first_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Mean absolute error, perceptual distance, regulariser and adversarial loss, averaged over the batch."""
        c, x = self.config.first, inward(batch.x)
        moments = self.encoder(x).float()
        logs: dict[str, Tensor] = {}
        if c.kind == "kl":
            mean, log_variance = split(moments)
            z = mean + (0.5 * log_variance).exp() * rng.normal("latent", *self.shape)
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean()
            # the authors sum errors over pixels where a mean stands here
            regular, logs["kl"] = c.kl * kl / x[0].numel(), kl.detach()
        else:
            near = self.nearest(moments)
            pull = (moments.detach() - near).square().mean()
            regular = pull + c.commitment * (moments - near.detach()).square().mean()
            z = straight_through(moments, near)
        found = self.decoder(z).float()
        error = (found - x).abs().mean()
        logs["error"] = error.detach()
        loss = error
        judged = hasattr(self, "critic") and progress.fraction >= c.critic_start
        if judged and c.perceptual:
            loss = loss + c.perceptual * distance(self.critic, found, x)
        if judged and c.adversarial:
            fooled = -self.critic(found).mean()
            loss = loss + c.adversarial * self.balance(loss, fooled, rng) * fooled
        return loss + regular, logs

    def balance(self, plain: Tensor, fooled: Tensor, rng: Rng) -> Tensor:
        """Ratio of two losses' gradients at the decoder's last layer (Esser et al., eq. 7), at most 10,000."""
        last = self.decoder.last.weight
        found = [torch.autograd.grad(loss, last, retain_graph=True)[0].flatten()[None] for loss in (plain, fooled)]
        sizes = [everyone(gradient, rng).mean(0).norm() for gradient in found]
        return (sizes[0] / (sizes[1] + 1e-4)).clamp(0, 1e4).detach()

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Hinge loss of the critic of patches."""
        x = inward(batch.x)
        with torch.no_grad():
            made = self.decoder(self.code(x)).float()
        real, fake = self.critic(x), self.critic(made)
        loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        return loss, {"real": real.detach().mean(), "made": fake.detach().mean()}

    def nearest(self, z: Tensor) -> Tensor:
        """The vectors of the table nearest to those of maps (B, latent, h, w)."""
        index = self.quantiser.nearest(z.permute(0, 2, 3, 1).flatten(0, 2))
        return self.quantiser.vectors(index).view(len(z), *z.shape[2:], -1).permute(0, 3, 1, 2)

    def code(self, x: Tensor) -> Tensor:
        """What the decoder is given for pictures in [-1, 1]: the mean, or the nearest vectors."""
        moments = self.encoder(x).float()
        return split(moments)[0] if self.config.first.kind == "kl" else self.nearest(moments)

    # the second stage

    def latents(self, data: Dataset) -> Dataset:
        """:meth:`coded`, once it is known how far latents deviate."""
        self.measure(data)
        return self.coded(data)

    def coded(self, data: Dataset) -> Dataset:
        """What the encoder says of all pictures of a data set, with their words."""

        @torch.no_grad()
        def call(batch: Batch) -> Batch:
            moments = self.encoder(inward(batch.x)).float()
            words = self.words_of(batch)
            return Batch(moments.flatten(1), batch.ids, batch.label, {} if words is None else {"words": words})

        outputs = self.shape[0] * (2 if self.config.first.kind == "kl" else 1)
        classes = tuple(self.spec.classes) if self.classes else ()
        return Encoded(data, call, PointsSpec(outputs * self.shape[1] * self.shape[2], classes), self.device)

    def words_of(self, batch: Batch) -> Tensor | None:
        """Tokens ``int64`` (B, length) of what is said of pictures; None where nothing is learned of it."""
        return self.words.tokens(batch.extra[CAPTION]) if self.config.known == "caption" else None

    @torch.no_grad()
    def measure(self, data: Dataset) -> None:
        """Mean of each channel of the latents, and the deviation of all, on some training pictures."""
        ids = some_of(data, FIT_EXAMPLES)
        parts = [ids[i : i + 128] for i in range(0, len(ids), 128)]
        z = torch.cat([self.mean_of(self.encoder(inward(data.batch(p).x.to(self.device))).float()) for p in parts])
        self.middle.copy_(z.mean((0, 2, 3)).view(-1, 1, 1))
        self.deviation.copy_((z - self.middle).square().mean().sqrt().clamp(min=1e-4))

    def mean_of(self, moments: Tensor) -> Tensor:
        return split(moments)[0] if self.config.first.kind == "kl" else moments

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Squared error of the prediction per value, averaged over the batch."""
        words = None
        if self.config.known == "caption":
            words = batch.extra["words"]
            dropped = (rng.uniform("drop caption") < self.config.drop)[:, None]
            words = torch.where(dropped, self.words.nothing(len(words), words.device), words)
        z, label = self.clean(batch.x, rng), self.labels.for_training(batch, rng)
        mse = self.process.loss(self.calling(len(batch), words, label), z, rng).mean()
        return mse, {"mse": mse.detach()}

    def clean(self, moments: Tensor, rng: Rng) -> Tensor:
        """Latents of unit deviation (n, latent, h, w) of what the encoder says, (n, values)."""
        c, moments = self.config, moments.view(len(moments), -1, *self.shape[1:])
        z = self.mean_of(moments)
        if c.first.kind == "kl" and c.sampled:
            z = z + (0.5 * split(moments)[1]).exp() * rng.normal("latent", *self.shape)
        return (z - self.middle) / self.deviation

    def calling(self, n: int, words: Tensor | None, label: Tensor | None) -> Call:
        """The denoiser's prediction, given word tokens ``int64`` (n, L) or labels (n,)."""
        network = self.network
        if isinstance(network, Transformer):
            return lambda x, t: network(x, t, label)
        assert isinstance(network, WordUNet)
        seen = None
        if words is not None:
            context = self.text.every(words)
            seen = torch.arange(words.shape[1], device=words.device) <= ends(words)[:, None]
        elif label is not None:
            context = self.names(label)[:, None]
        else:
            context = self.nothing.weight.expand(n, 1, -1)
        return lambda x, t: network.look(x, t, context, None, seen)

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        if self.config.known == "caption":
            return {CAPTION: captioned(self.spec)}
        return {"label": LabelSpec(self.spec.classes)} if self.classes else {}

    def asked(self, n: int, given: Given, rng: SampleRng | None) -> tuple[Call, Call, Tensor | None]:
        """The denoiser with what is given, and with nothing; and the labels."""
        words = label = None
        if self.config.known == "caption":
            words = self.words.tokens(given[CAPTION]) if CAPTION in given else self.words.nothing(n, self.device)
        elif self.classes:
            drawn = self.labels.null(n) if rng is None else self.labels.drawn(rng)
            label = given.get("label", drawn)
        nothing = None if words is None else self.words.nothing(n, self.device)
        return self.calling(n, words, label), self.calling(n, nothing, self.labels.null(n)), label

    def draw(self, n: int, given: Given, rng: SampleRng, options: WordsDrawing, watch: Watch | None) -> Batch:
        call, plain, label = self.asked(n, given, rng)
        z = self.from_noise(call, plain, rng, options, watch)
        extra = {CAPTION: given[CAPTION]} if CAPTION in given else None
        return Batch.of(self.picture(z), label, extra)

    def from_noise(
        self, call: Call, plain: Call, rng: SampleRng, options: WordsDrawing, watch: Watch | None = None
    ) -> Tensor:
        """Latents of unit deviation, drawn from nothing but noise."""
        levels = self.process.levels(options)
        start = math.hypot(1, levels[0]) * options.temperature * rng.normal("latent", *self.shape)
        return self.drawn(call, plain, start, levels, rng, options, watch)

    def drawn(
        self,
        call: Call,
        plain: Call,
        start: Tensor,
        levels: list[float],
        rng: SampleRng,
        options: WordsDrawing,
        watch: Watch | None,
        hold: Any = None,
    ) -> Tensor:
        """Latents of unit deviation, drawn from ``start``."""
        scale = options.guidance if self.config.known != "nothing" else 1.0
        denoise = self.process.denoise(guided(call, plain, scale), hold)
        show = lambda z: Batch.of(self.picture(z))  # noqa: E731
        return self.process.draw(denoise, start, levels, options, rng, show=show, watch=watch)

    @torch.no_grad()
    def picture(self, z: Tensor) -> Tensor:
        """Pictures ``uint8`` of latents of unit deviation."""
        raw = (z * self.deviation + self.middle).float()
        return outward(self.decoder(raw if self.config.first.kind == "kl" else self.nearest(raw)).float())

    @torch.no_grad()
    def latent(self, x: Tensor) -> Tensor:
        """Latents of unit deviation (B, latent, h, w) of pictures ``uint8``."""
        return (self.mean_of(self.encoder(inward(x)).float()) - self.middle) / self.deviation

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: WordsDrawing,
        watch: Watch | None,
    ) -> Tensor:
        """Noise up to ``strength`` of the steps is added to the latents and removed; outside the mask they are held."""
        known = dict(given)
        if CAPTION in batch.extra and self.config.known == "caption" and CAPTION not in known:
            known[CAPTION] = batch.extra[CAPTION].to(self.device)
        call, plain, _ = self.asked(len(batch), known, None)
        z, levels = self.latent(batch.x), self.process.levels(options, strength)
        fresh = strength == 1 and mask is None
        start = (0.0 if fresh else 1.0) * z + levels[0] * options.temperature * rng.normal("latent", *self.shape)
        hold = None
        if mask is not None:
            there = mask.to(z.device).expand(len(batch), 1, *self.spec.shape[1:]).float()
            free = F.max_pool2d(there, self.config.first.factor) > 0
            hold = lambda found: torch.where(free, found, z)  # noqa: E731
        return self.picture(self.drawn(call, plain, start, levels, rng, options, watch, hold))

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Encoder (pictures in [-1, 1]) and decoder (latents as they are, not of unit deviation)."""
        pictures = torch.zeros(2, *self.spec.shape, device=self.device)
        latents = torch.zeros(2, *self.shape, device=self.device)
        return {"encoder": (self.encoder, (pictures,)), "decoder": (self.decoder, (latents,))}
