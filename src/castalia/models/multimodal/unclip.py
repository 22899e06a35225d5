"""DALL-E 2 (unCLIP): words to an embedding of CLIP, the embedding to a small picture, that one to a larger.

Papers
    Ramesh, Dhariwal, Nichol, Chu & Chen 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents"
    (arXiv:2204.06125): P(x | y) = P(x | z_i, y) P(z_i | y) (eq. 1). Section 2.1: the decoder, told the embedding by the
    time and by four more words; 2.1 too: upsamplers, trained on spoilt small pictures; 2.2: the prior, two samples of
    which the one nearer to the caption is kept; 3: variations, mixes, words added to a picture.
    Nichol et al. 2022, "GLIDE" (arXiv:2112.10741): the decoder's network. Radford et al. 2021: CLIP. Ho et al. 2022,
    "Cascaded Diffusion Models" (arXiv:2106.15282): noise added to what an upsampler is given.

Four stages of one run: ``clip``; ``prior``, on embeddings of pictures and captions; ``decoder``, pictures at the size
of the data divided by ``upsample``; ``upsampler``. In training the decoder loses the embedding in 10 % of the examples
and the words in 50 %, the prior loses the caption in 10 %.

What is asked for may be a caption, an embedding of a picture (``embedding``, d values of unit length, as
:meth:`UnCLIP.encode` gives them), or both, and then the words are added to the picture. The embedding is the model's
latent vector: mixes of two pictures are walks between their embeddings, variations are drawn by decoding one again.

What differs, and why
    One run has all of it, trained on the same data; the paper's CLIP saw other pictures. The decoder's words are those
    of CLIP's own text network, as in later public work, not of another transformer. Embeddings are not reduced by
    principal components (that served the paper's autoregressive prior). One upsampler; the paper has two, whose small
    pictures are blurred and degraded; here noise is added to them (Ho et al.). Upsamplers
    see whole pictures here, and attention where their network has it.

Expected: see ``recipes/unclip.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Exportable, Inference, Matching, Refinement, Upscaling
from castalia.core.captions import CAPTION
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Watch, check_given
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion.process import Call, Process, ProcessConfig, WordsDrawing, guided
from castalia.models.multimodal.clip import CLIP, CLIPConfig, small_clip
from castalia.models.multimodal.embeddings_prior import EmbeddingPrior, EmbeddingPriorConfig, scaled
from castalia.models.multimodal.unet import WordUNet
from castalia.models.multimodal.words import Words, captioned, ends, found_words
from castalia.nn.pixels import inward, outward
from castalia.nn.unet import ResidualBlock, UNetConfig

EMBEDDING = "embedding"
TOKENS = 4
"""Words that an embedding becomes for the decoder."""


@dataclass(frozen=True)
class UnCLIPConfig(Config):
    """Configuration of DALL-E 2.

    Attributes:
        clip: pictures and words; its words are those of all.
        prior: from caption to embedding.
        decoder: the network of the decoder.
        upsampler: the network of the upsampler.
        upsample: how many times smaller the decoder's pictures are; 1 leaves the upsampler out.
        process: of the decoder.
        prior_steps: T of the prior.
        candidates: embeddings drawn for a caption, of which the nearest to it is kept.
        drop_caption: prior: share of examples that are learned without caption.
        drop_embedding: decoder: share without embedding.
        drop_words: decoder: share without words.
        spoil: upsampler: deviation of the noise that is added to the small pictures, at most; values are in [-1, 1].
        shares: of all steps, for clip, prior, decoder and upsampler.
    """

    clip: CLIPConfig = field(default_factory=small_clip)
    prior: EmbeddingPriorConfig = field(default_factory=EmbeddingPriorConfig)
    decoder: UNetConfig = field(default_factory=UNetConfig)
    upsampler: UNetConfig = field(default_factory=UNetConfig)
    upsample: int = 2
    process: ProcessConfig = field(default_factory=lambda: ProcessConfig(prediction="v"))
    prior_steps: int = 1000
    candidates: int = 2
    drop_caption: float = 0.1
    drop_embedding: float = 0.1
    drop_words: float = 0.5
    spoil: float = 0.2
    shares: tuple[float, float, float, float] = (0.15, 0.2, 0.5, 0.15)

    def __post_init__(self) -> None:
        if self.upsample < 1 or not 1 <= self.candidates <= 1_000 or min(self.shares) <= 0 or self.spoil < 0:
            raise ValueError("upsample is at least 1, candidates 1 to 1,000, shares positive, spoil not negative")
        for name in ("drop_caption", "drop_embedding", "drop_words"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} lies in [0, 1)")


@dataclass(frozen=True)
class UnCLIPOptions(WordsDrawing):
    """How pictures are drawn; see :class:`castalia.models.diffusion.drawing.DrawingOptions`.

    Attributes:
        steps: of the decoder's sampler.
        guidance: of the decoder, by embedding and words.
        prior_guidance: of the prior, by the caption.
        prior_steps: of the prior's sampler.
        upsample_steps: of the upsampler's.
    """

    steps: int = 16
    prior_guidance: float = 1.0
    prior_steps: int = 12
    upsample_steps: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.prior_steps, self.upsample_steps) < 1 or self.prior_guidance < 0:
            raise ValueError("prior_steps and upsample_steps are at least 1, prior_guidance not negative")


class UnCLIP(Generator[UnCLIPConfig, ImageSpec], Inference, Refinement, Upscaling, Matching, Exportable):
    """P(x | y) = P(x | z, y) P(z | y)."""

    Config = UnCLIPConfig
    SampleOptions = UnCLIPOptions
    shard_units = (ResidualBlock,)

    def __init__(self, config: UnCLIPConfig, spec: ImageSpec) -> None:
        super().__init__()
        captioned(spec)
        c = config
        if spec.height % c.upsample or spec.width % c.upsample:
            raise ValueError(f"upsample={c.upsample} does not divide pictures of {spec.width}x{spec.height}")
        self.config, self.spec, self.words = config, spec, Words(c.clip.words)
        self.latent_dims = c.clip.dims
        self.small = (spec.channels, spec.height // c.upsample, spec.width // c.upsample)
        self.clip = CLIP(c.clip, spec)
        width = c.clip.text.width
        self.prior = EmbeddingPrior(c.prior, c.clip.dims, width, c.clip.words.length)
        self.tokens = nn.Linear(c.clip.dims, TOKENS * width)
        self.none = nn.Embedding(1, c.clip.dims)  # in place of an embedding that is left out
        nn.init.zeros_(self.none.weight)
        self.decoder = WordUNet(c.decoder, spec.channels, spec.channels, width, c.clip.dims)
        if c.upsample > 1:
            self.upsampler = WordUNet(c.upsampler, 2 * spec.channels, spec.channels, width, c.clip.dims)
        self.process = Process(c.process)
        self.prior_process = Process(ProcessConfig(c.prior_steps, "cosine", "x0"))

    @classmethod
    def complete(cls, config: UnCLIPConfig, data: Dataset) -> UnCLIPConfig:
        """Find the words of the captions."""
        return replace(config, clip=replace(config.clip, words=found_words(config.clip.words, data)))

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        decoder = nn.ModuleList([self.decoder, self.tokens, self.none])
        stages = (
            Stage("clip", (Objective("clip", self.clip, self.clip.loss, project=self.clip.bound),), share=c.shares[0]),
            Stage("prior", (Objective("prior", self.prior, self.prior_loss),), share=c.shares[1]),
            Stage("decoder", (Objective("decoder", decoder, self.decoder_loss),), share=c.shares[2]),
        )
        if c.upsample == 1:
            return stages
        last = (Objective("upsampler", self.upsampler, self.upsampler_loss),)
        return *stages, Stage("upsampler", last, share=c.shares[3])

    @torch.no_grad()
    def seen(self, x: Tensor) -> Tensor:
        """Embeddings of pictures (B, d), scaled."""
        return scaled(self.clip.sight(x.float()))

    @torch.no_grad()
    def said(self, captions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encoded words (B, L, width), the captions' embeddings (B, d), scaled, and which words there are (B, L)."""
        tokens = self.words.tokens(captions)
        return self.encoded(tokens)

    @torch.no_grad()
    def encoded(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of word tokens ``int64`` (B, L)."""
        h, last = self.clip.text.every(tokens), ends(tokens)
        there = torch.arange(tokens.shape[1], device=tokens.device) <= last[:, None]
        return h.float(), scaled(self.clip.text.project(h[torch.arange(len(h), device=h.device), last])), there

    def prior_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Eq. 2: squared error of the predicted embedding per value."""
        tokens, z = self.words.tokens(batch.extra[CAPTION]), self.seen(batch.x)
        dropped = (rng.uniform("drop caption") < self.config.drop_caption)[:, None]
        words, caption, _ = self.encoded(torch.where(dropped, self.words.nothing(len(tokens), tokens.device), tokens))
        caption = torch.where(dropped, self.prior.none, caption)
        mse = self.prior_process.loss(lambda x, t: self.prior(x, t, words, caption), z, rng).mean()
        return mse, {"mse": mse.detach()}

    def decoder_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Squared error of the prediction per value, of pictures at the decoder's size."""
        c, x0 = self.config, self.shrunk(inward(batch.x))
        tokens, z = self.words.tokens(batch.extra[CAPTION]), self.seen(batch.x)
        without = (rng.uniform("drop words") < c.drop_words)[:, None]
        tokens = torch.where(without, self.words.nothing(len(tokens), tokens.device), tokens)
        z = torch.where((rng.uniform("drop embedding") < c.drop_embedding)[:, None], self.none.weight, z)
        mse = self.process.loss(self.decoding(z, tokens), x0, rng).mean()
        return mse, {"mse": mse.detach()}

    def upsampler_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The same of whole pictures, given small ones with a little noise."""
        x0 = inward(batch.x)
        low = self.shrunk(x0)
        noise = rng.normal("spoil", *low.shape[1:]) * (self.config.spoil * rng.uniform("how much")).view(-1, 1, 1, 1)
        mse = self.process.loss(self.enlarging(low + noise, self.seen(batch.x)), x0, rng).mean()
        return mse, {"mse": mse.detach()}

    def shrunk(self, x: Tensor) -> Tensor:
        """Pictures at the decoder's size: means of squares."""
        return x if self.config.upsample == 1 else F.avg_pool2d(x, self.config.upsample)

    def decoding(self, z: Tensor, tokens: Tensor) -> Call:
        """The decoder's prediction, given embeddings (B, d) and words ``int64`` (B, L)."""
        words, _, there = self.encoded(tokens)
        more = self.tokens(z).unflatten(1, (TOKENS, -1))
        context = torch.cat([more, words], 1)
        seen = torch.cat([torch.ones(len(z), TOKENS, dtype=torch.bool, device=z.device), there], 1)
        return lambda x, t: self.decoder.look(x, t, context, z, seen)

    def enlarging(self, low: Tensor, z: Tensor) -> Call:
        """The upsampler's prediction, given small pictures (B, C, h, w) and embeddings (B, d)."""
        wide = F.interpolate(low, self.larger(low), mode="bilinear", align_corners=False)
        nothing = self.encoded(self.words.nothing(1, z.device))[0].expand(len(z), -1, -1)
        return lambda x, t: self.upsampler.look(torch.cat([x, wide], 1), t, nothing, z)

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {CAPTION: captioned(self.spec), EMBEDDING: PointsSpec(self.latent_dims)}

    def draw(self, n: int, given: Given, rng: SampleRng, options: UnCLIPOptions, watch: Watch | None) -> Batch:
        tokens = self.words.tokens(given[CAPTION]) if CAPTION in given else self.words.nothing(n, self.device)
        z = scaled(given[EMBEDDING]) if EMBEDDING in given else self.embedding(tokens, rng, options)
        extra = {CAPTION: given[CAPTION]} if CAPTION in given else None
        return Batch.of(self.drawn(z, tokens, rng, options, watch), None, extra)

    @torch.no_grad()
    def embedding(self, tokens: Tensor, rng: SampleRng, options: UnCLIPOptions) -> Tensor:
        """Embeddings (n, d) drawn from the prior for word tokens (n, L); of an empty caption, of any picture."""
        empty = (ends(tokens) == 1)[:, None]
        words, caption, _ = self.encoded(tokens)
        nothing = self.encoded(self.words.nothing(1, tokens.device))[0].expand(len(tokens), -1, -1)
        asked = torch.where(empty, self.prior.none, caption)
        call: Call = lambda x, t: self.prior(x, t, words, asked)  # noqa: E731
        plain: Call = lambda x, t: self.prior(x, t, nothing, self.prior.none.expand_as(asked))  # noqa: E731
        denoise = self.prior_process.denoise(guided(call, plain, options.prior_guidance))
        o = replace(options, steps=options.prior_steps, sampler="dpm++2m", grid="logistic")
        levels = self.prior_process.levels(o)
        best, z = torch.full((len(tokens), 1), -math.inf, device=tokens.device), torch.zeros_like(caption)
        for i in range(self.config.candidates):
            own = rng.at("prior", i)
            start = math.hypot(1, levels[0]) * o.temperature * own.normal("latent", self.latent_dims)
            found = scaled(self.prior_process.draw(denoise, start, levels, o, own))
            near = (found * caption).sum(1, keepdim=True).masked_fill(empty, 0.0)  # of any picture the first is as good
            z = torch.where(near > best, found, z)
            best = torch.maximum(best, near)
        return z

    def drawn(self, z: Tensor, tokens: Tensor, rng: SampleRng, options: UnCLIPOptions, watch: Watch | None) -> Tensor:
        """Pictures ``uint8`` of embeddings and words."""
        levels = self.process.levels(options)
        start = math.hypot(1, levels[0]) * options.temperature * rng.normal("latent", *self.small)
        low = self.small_picture(z, tokens, start, levels, rng, options, watch)
        return outward(self.enlarged(low, z, rng, options, self.told(watch, options.steps, options)))

    def small_picture(
        self,
        z: Tensor,
        tokens: Tensor,
        start: Tensor,
        levels: list[float],
        rng: SampleRng,
        options: UnCLIPOptions,
        watch: Watch | None,
        hold: Any = None,
    ) -> Tensor:
        """The decoder's picture in [-1, 1]; ``hold`` changes each denoised picture."""
        call = self.decoding(z, tokens)
        plain = self.decoding(self.none.weight.expand_as(z), self.words.nothing(len(z), z.device))

        def settle(x: Tensor) -> Tensor:
            x = x.clamp(-1, 1)
            return x if hold is None else hold(x)

        denoise = self.process.denoise(guided(call, plain, options.guidance), settle)
        show = lambda x: Batch.of(outward(F.interpolate(x, self.spec.shape[1:])))  # noqa: E731
        with torch.no_grad():
            told = self.told(watch, 0, options)
            return self.process.draw(denoise, start, levels, options, rng.at("decoder"), show=show, watch=told)

    def larger(self, low: Tensor) -> tuple[int, int]:
        """Height and width of the upsampler's pictures, given small ones."""
        return self.times * low.shape[2], self.times * low.shape[3]

    @torch.no_grad()
    def enlarged(self, low: Tensor, z: Tensor, rng: SampleRng, options: UnCLIPOptions, watch: Watch | None) -> Tensor:
        """Small pictures in [-1, 1], enlarged by the upsampler."""
        if self.config.upsample == 1:
            return low
        o = replace(options, steps=options.upsample_steps, sampler="dpm++2m", grid="logistic")
        levels, own = self.process.levels(o), rng.at("upsampler")
        start = math.hypot(1, levels[0]) * o.temperature * own.normal("latent", low.shape[1], *self.larger(low))
        denoise = self.process.denoise(self.enlarging(low, z), lambda x: x.clamp(-1, 1))
        show = lambda x: Batch.of(outward(x))  # noqa: E731
        return self.process.draw(denoise, start, levels, o, own, show=show, watch=watch)

    def told(self, watch: Watch | None, before: int, options: UnCLIPOptions) -> Watch | None:
        """A watch that counts the steps of decoder and upsampler together."""
        if watch is None or self.config.upsample == 1:
            return watch
        steps = options.steps + options.upsample_steps
        return lambda preview: watch(Preview(before + preview.step, steps, preview.examples))

    @torch.no_grad()
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        """Embeddings of pictures, of unit length, ``float32`` (B, d): what ``embedding`` may be given, and latents.

        With ``rng`` of what the pictures may have been before their values were rounded.
        """
        x = batch.x.float()
        if rng is not None:
            x = x + rng.uniform("rounding", *x.shape[1:]) - 0.5
        return F.normalize(self.seen(x), dim=1)

    def posterior_kl(self, batch: Batch) -> Tensor:
        return torch.full((len(batch), self.latent_dims), math.inf, device=batch.x.device)

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        """Pictures of embeddings of any length, the noise of the decoder as ``rng`` says, else that of example 0."""
        checked = check_given(self, given, len(z))
        own = SampleRng(0, [0] * len(z), z.device) if rng is None else rng
        captions = checked.get(CAPTION)
        tokens = self.words.nothing(len(z), z.device) if captions is None else self.words.tokens(captions)
        return Batch.of(self.drawn(scaled(z), tokens, own, UnCLIPOptions(), None))

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: UnCLIPOptions,
        watch: Watch | None,
    ) -> Tensor:
        """A variation: the picture's own embedding, noise up to ``strength``; outside a mask all is held."""
        captions = given.get(CAPTION, batch.extra.get(CAPTION))
        tokens = self.words.nothing(len(batch), self.device)
        if captions is not None:
            tokens = self.words.tokens(captions.to(self.device))
        z = scaled(given[EMBEDDING]) if EMBEDDING in given else self.seen(batch.x)
        whole = inward(batch.x)
        low, levels = self.shrunk(whole), self.process.levels(options, strength)
        noise = rng.normal("latent", *self.small)
        start = (0.0 if strength == 1 and mask is None else 1.0) * low + levels[0] * options.temperature * noise
        hold = None
        if mask is not None:
            there = mask.to(low.device).expand(len(batch), 1, *self.spec.shape[1:]).float()
            free = F.max_pool2d(there, self.config.upsample) > 0
            hold = lambda x: torch.where(free, x, low)  # noqa: E731
        small = self.small_picture(z, tokens, start, levels, rng, options, watch, hold)
        return outward(self.enlarged(small, z, rng, options, self.told(watch, options.steps, options)))

    @property
    def times(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.config.upsample

    def enlarge(self, x: Tensor, given: Given, rng: SampleRng, options: UnCLIPOptions, watch: Watch | None) -> Tensor:
        """By the upsampler, which is told the pictures' own embeddings where none are given; words it does not see.

        Raises:
            UsageError: the run has no upsampler.
        """
        if self.times == 1:
            raise UsageError("This run has no upsampler (config.upsample=1), so it enlarges nothing.")
        x = x.to(self.device)
        if EMBEDDING in given:
            z = scaled(given[EMBEDDING])
        else:
            z = self.seen(F.interpolate(x.float(), self.spec.shape[1:], mode="bilinear", align_corners=False))
        return outward(self.enlarged(inward(x), z, rng, options, watch))

    def of_pictures(self, x: Tensor) -> Tensor:
        return self.clip.of_pictures(x)

    def of_texts(self, texts: Any) -> Tensor:
        return self.clip.of_texts(texts)

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """CLIP's two networks, as in ``clip``."""
        return self.clip.export_calls()

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """A finished run of ``clip`` as the parent ``clip`` saves its training: its weights are where ours begin.

        Raises:
            UsageError: its networks or words differ.
        """
        parent = parents.get("clip")
        if parent is None:
            return
        if not isinstance(parent, CLIP) or parent.config != self.config.clip:
            raise UsageError("The parent `clip` must be a run of `clip` with the same configuration and words.")
        self.clip.load_state_dict(parent.state_dict())
