"""DALL-E: pictures of words, by one transformer over words and the codes of a discrete autoencoder.

Paper
    Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation" (arXiv:2102.12092): eq. 1 (the bound), section 2.1 (stage
    one: codes, see dvae.py), 2.2 (stage two: the transformer, see dalle_network.py), 2.6 (the best of many by CLIP).
    Radford et al. 2021 (arXiv:2103.00020): CLIP.

    log p(x, y) >= E_q(z | x) [log p(x | z)] - beta KL(q(z | x) || p(y, z))                                 (eq. 1)

Stage one trains q and p(x | z) with even p(z): the temperature of the relaxation falls from 1 to 1/16 by a cosine, beta
rises from 0 to 6.6 per cell and channel-pixel (6.6 / 192 of nats over pixels). Stage two trains the transformer on the
captions and the likeliest codes, words weighted 1/8 and codes 7/8. A third stage, ``judge``, trains a CLIP on the same
pictures and captions; with ``candidates`` more than one, so many pictures are drawn for each caption and the one that
CLIP finds nearest is kept.

Without a caption the model writes one first: words are part of what it has learned.

What differs, and why
    The paper draws its codes' logits at a precision of 16 bits with gradients scaled per block; here precision is the
    recipe's. Pictures of any size that cells divide, and of any channels. Captions are words of one's own data, see
    words.py; no BPE dropout. Captions are dropped in a share of the examples, so that pictures can be guided towards
    them (Ho & Salimans 2022), as in later public code. The paper's CLIP was another company of networks; here it is a
    stage, so that a run is whole.

Expected: see ``recipes/dalle.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Exportable, Matching, Refinement
from castalia.core.captions import CAPTION, bytes_of
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.encoded import Encoded
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.codes import CodesSpec
from castalia.models.multimodal.clip import CLIP, CLIPConfig, small_clip
from castalia.models.multimodal.dalle_network import PriorConfig, Transformer
from castalia.models.multimodal.dvae import (
    CodesConfig,
    Decoder,
    Encoder,
    inward,
    kl_to_even,
    log_prob,
    outward,
    relaxed,
)
from castalia.models.multimodal.words import Words, WordsConfig, captioned, found_words
from castalia.nn.causal import CausalBlock


@dataclass(frozen=True)
class DALLEConfig(Config):
    """Configuration of DALL-E; the networks' defaults are the paper's.

    Attributes:
        codes: the discrete autoencoder.
        prior: the transformer.
        words: how captions become tokens.
        judge: the CLIP that chooses among candidates; it has the words of the rest.
        judged: whether it is trained.
        temperature: of the relaxation, at the end of stage one; 1 at its start.
        kl: beta at the end of its ramp, in units of nats per pixel value.
        kl_ramp: share of stage one in which beta rises.
        text_weight: share of the words in the loss of stage two.
        caption_drop: share of examples that are learned without their caption.
        code_share: share of all steps for stage one.
        judge_share: share of all steps for the judge.
    """

    codes: CodesConfig = field(default_factory=CodesConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    words: WordsConfig = field(default_factory=lambda: WordsConfig(length=256))
    judge: CLIPConfig = field(default_factory=small_clip)
    judged: bool = True
    temperature: float = 1 / 16
    kl: float = 6.6 / 192
    kl_ramp: float = 0.1
    text_weight: float = 1 / 8
    caption_drop: float = 0.1
    code_share: float = 0.35
    judge_share: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= 1 or self.kl < 0 or not 0 < self.kl_ramp <= 1:
            raise ValueError("temperature and kl_ramp lie in (0, 1], kl must not be negative")
        if not 0 <= self.text_weight < 1 or not 0 <= self.caption_drop < 1:
            raise ValueError("text_weight and caption_drop lie in [0, 1)")
        if min(self.code_share, self.judge_share) <= 0 or self.code_share + self.judge_share >= 1:
            raise ValueError("code_share and judge_share are positive, and leave something for the transformer")


@dataclass(frozen=True)
class DALLEOptions(Sampling):
    """How pictures are drawn.

    Attributes:
        top_k: only so many of the likeliest codes; 0: all.
        top_p: only the likeliest that together have this probability.
        guidance: scale of classifier-free guidance; 1 is the plain model.
        candidates: pictures drawn for each, of which the one that CLIP finds nearest to its caption is kept.
    """

    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    candidates: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 0 or not 0 < self.top_p <= 1 or self.guidance < 0 or not 1 <= self.candidates <= 10_000:
            raise ValueError("top_k and guidance must not be negative, top_p in (0, 1], candidates 1 to 10,000")


class DALLE(Generator[DALLEConfig, ImageSpec], Refinement, Matching, Exportable):
    """p(words, codes) and p(picture | codes)."""

    Config = DALLEConfig
    SampleOptions = DALLEOptions
    shard_units = (CausalBlock,)

    def __init__(self, config: DALLEConfig, spec: ImageSpec) -> None:
        super().__init__()
        captioned(spec)
        c, cell = config, config.codes.cell
        if spec.height % cell or spec.width % cell:
            raise ValueError(
                f"cells of {cell} pixels do not divide pictures of {spec.width}x{spec.height}: choose another size "
                "(--size) or other codes.levels"
            )
        self.config, self.spec, self.words = config, spec, Words(config.words)
        self.rows, self.columns = spec.height // cell, spec.width // cell
        self.encoder, self.decoder = Encoder(c.codes, spec.channels), Decoder(c.codes, spec.channels)
        self.prior = Transformer(c.prior, c.words.size, c.words.length, c.codes.codes, self.rows, self.columns)
        if c.judged:
            self.judge = CLIP(replace(c.judge, words=c.words), spec)

    @classmethod
    def complete(cls, config: DALLEConfig, data: Dataset) -> DALLEConfig:
        """Find the words of the captions."""
        return replace(config, words=found_words(config.words, data))

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        codes = Stage(
            "codes",
            (Objective("dvae", nn.ModuleList([self.encoder, self.decoder]), self.code_loss),),
            share=c.code_share,
        )
        rest = 1 - c.code_share - (c.judge_share if c.judged else 0)
        prior = Stage("prior", (Objective("prior", self.prior, self.prior_loss),), share=rest, data=self.encoded)
        if not c.judged:
            return codes, prior
        judge = Objective("judge", self.judge, self.judge.loss, project=self.judge.bound)
        return codes, prior, Stage("judge", (judge,), share=c.judge_share)

    def code_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Eq. 1 with even p(z), in nats per pixel value, averaged over the batch."""
        c, x = self.config, inward(batch.x)
        logits = self.encoder(x)
        z = relaxed(logits, rng.uniform("codes", *logits.shape[1:]), self.heat(progress.fraction))
        values = x[0].numel()
        nats = -log_prob(self.decoder(z), x, c.codes.narrowest).mean() / values
        kl = kl_to_even(logits).mean()
        # the paper's KL is summed over cells and divided by pixels times channels (192 for a cell of 8x8x3)
        loss = nats + c.kl * min(1.0, progress.fraction / c.kl_ramp) * kl / (self.rows * self.columns)
        return loss, {"nats_per_value": nats.detach(), "kl": kl.detach()}

    def heat(self, fraction: float) -> float:
        """Temperature of the relaxation: a cosine from 1 to ``temperature``."""
        low = self.config.temperature
        return low + 0.5 * (1 - low) * (1 + math.cos(math.pi * min(fraction, 1.0)))

    def prior_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per word and per code, weighted, averaged over the batch."""
        words = batch.extra["words"]
        dropped = rng.uniform("drop caption") < self.config.caption_drop
        words = torch.where(dropped[:, None], self.words.nothing(len(words), words.device), words)
        text, picture = self.prior.nats(words, batch.x.flatten(1).long())
        w = self.config.text_weight
        loss = w * text.mean() + (1 - w) * picture.mean()
        return loss, {"nats_per_word": text.detach().mean(), "nats_per_code": picture.detach().mean()}

    def encoded(self, data: Dataset) -> Dataset:
        """Codes and words of all training examples."""

        @torch.no_grad()
        def call(batch: Batch) -> Batch:
            words = self.words.tokens(batch.extra[CAPTION])
            return Batch(self.codes(batch.x).int(), batch.ids, None, {"words": words})

        return Encoded(data, call, CodesSpec(self.config.codes.codes, self.rows, self.columns), self.device)

    # between pictures and codes

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """The likeliest codes ``int64`` (B, h, w) of pictures ``uint8`` (B, C, H, W)."""
        return self.encoder(inward(x)).argmax(1)

    @torch.no_grad()
    def pictures(self, codes: Tensor) -> Tensor:
        """Pictures ``uint8`` of codes (B, h, w)."""
        return outward(self.decoder.of_codes(codes))

    @torch.no_grad()
    def log_prob(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log p(words) and log p(codes | words) of captioned pictures, nats ``float64`` (B,) each."""
        words = self.words.tokens(batch.extra[CAPTION].to(self.device))
        text, picture = self.prior.nats(words, self.codes(batch.x.to(self.device)).flatten(1))
        return -text.double().sum(1), -picture.double().sum(1)

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {CAPTION: captioned(self.spec)}

    def cost(self, options: DALLEOptions) -> int:
        c = self.config.prior
        return 2 * c.layers * c.dim * (self.prior.length + self.prior.cells) * (2 if options.guidance != 1 else 1)

    def draw(self, n: int, given: Given, rng: SampleRng, options: DALLEOptions, watch: Watch | None) -> Batch:
        captions, words = self._asked(n, given, rng, options)
        x, best = torch.empty(0), torch.full((n,), -math.inf, device=self.device)
        if options.candidates > 1 and not self.config.judged:
            raise UsageError("Candidates are chosen by CLIP, and this run has none: train with config.judged=true.")
        for i in range(options.candidates):
            codes = self._written(words, rng.at("candidate", i) if i else rng, options)
            drawn = self.pictures(codes.view(n, self.rows, self.columns))
            if options.candidates == 1:
                x = drawn
                break
            likeness = (self.of_pictures(drawn) * self._vectors(words)).sum(1)
            x = drawn if i == 0 else torch.where((likeness > best).view(-1, 1, 1, 1), drawn, x)
            best = torch.maximum(best, likeness)
        return Batch.of(x, None, {CAPTION: captions})

    def _asked(self, n: int, given: Given, rng: SampleRng, options: DALLEOptions) -> tuple[Tensor, Tensor]:
        """Captions as bytes and as tokens: those given, or written by the model."""
        if CAPTION in given:
            captions = given[CAPTION]
            return captions, self.words.tokens(captions)
        start = self.words.nothing(n, self.device)[:, :1]
        words = self.prior.captions(start, rng, options.temperature)
        most = captioned(self.spec).length
        return bytes_of([self.words.text(row)[:most] for row in words.cpu()]).to(self.device), words

    def _written(
        self,
        words: Tensor,
        rng: SampleRng,
        options: DALLEOptions,
        held: Tensor | None = None,
        free: Tensor | None = None,
    ) -> Tensor:
        return self.prior.write(
            words,
            rng,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            guidance=options.guidance,
            nothing=self.words.nothing(len(words), words.device),
            held=held,
            free=free,
        )

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: Any,
        watch: Watch | None,
    ) -> Tensor:
        """Draw the codes of masked cells anew, of those a random share ``strength``; the rest stands as context.

        Without a caption, the caption that the picture has, or none at all.
        """
        n, step = len(batch), self.config.codes.cell
        free = rng.uniform("strength", self.rows, self.columns) < strength
        if mask is not None:
            there = mask.to(free.device).expand(n, 1, *self.spec.shape[1:]).float()
            free &= F.max_pool2d(there, step)[:, 0] > 0
        captions = given.get(CAPTION, batch.extra.get(CAPTION))
        words = self.words.nothing(n, self.device) if captions is None else self.words.tokens(captions.to(self.device))
        codes = self._written(words, rng, options, self.codes(batch.x).flatten(1), free.flatten(1))
        changed = free[:, None].repeat_interleave(step, 2).repeat_interleave(step, 3)
        return torch.where(changed, self.pictures(codes.view(n, self.rows, self.columns)), batch.x)

    def of_pictures(self, x: Tensor) -> Tensor:
        return self._judge().of_pictures(x)

    def of_texts(self, texts: Any) -> Tensor:
        return self._judge().of_texts(texts)

    def _vectors(self, words: Tensor) -> Tensor:
        return F.normalize(self._judge().text(words).float(), dim=1)

    def _judge(self) -> CLIP:
        if not self.config.judged:
            raise UsageError("This run has no CLIP, which tells how well pictures and words fit: config.judged=true.")
        return self.judge

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Encoder (pictures in [0.1, 0.9] to logits of codes), decoder (code numbers to outputs)."""
        pictures = torch.full((2, *self.spec.shape), 0.5, device=self.device)
        numbers = torch.zeros(2, self.rows, self.columns, dtype=torch.int64, device=self.device)
        return {"encoder": (self.encoder, (pictures,)), "decoder": (_OfCodes(self.decoder), (numbers,))}


class _OfCodes(nn.Module):
    """Code numbers (B, h, w) to the decoder's outputs, as one call for export."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, codes: Tensor) -> Tensor:
        return self.decoder.of_codes(codes)
