"""DreamBooth: a text-to-picture run that is taught a subject by all of its weights, and its own pictures beside.

Papers
    Ruiz et al. 2023, "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation"
    (arXiv:2208.12242): section 3.2, equation 2. Hu et al. 2021: adapters in place of all weights (``rank``).

    L = |eps - eps_theta(z_t, t, "a [V] star")|^2 + lambda |eps' - eps_theta(z'_t', t', "a star")|^2

The second term is the prior's preservation: pictures z' of the kind, which the run drew before anything was changed.
Without it the kind becomes the subject, and everything else is forgotten in its order of likeness.

What differs, and why
    What the run drew is kept as latents, as they were before the decoder: they are never decoded and encoded again.
    They are buffers, so a run can be resumed without its start.
    ``class_prompts`` may name more than the kind: a run of few words preserves what it is asked to preserve.

Expected: see ``recipes/dreambooth.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from castalia.core.captions import CAPTION, bytes_of
from castalia.core.data import Batch
from castalia.core.model import Logs, Progress, evaluating
from castalia.core.rng import Rng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.diffusion.process import WordsDrawing
from castalia.models.multimodal.picture_lora import PictureLoRA, PictureLoRAConfig
from castalia.nn.adapters import plain_state

AT_ONCE = 64
"""Class pictures drawn at once."""


@dataclass(frozen=True)
class DreamBoothConfig(PictureLoRAConfig):
    """Configuration of DreamBooth.

    Attributes:
        rank: of adapters; 0: all weights of the denoiser are moved.
        text_encoder: whether the words' transformer is moved too.
        prior: lambda, the weight of the prior's preservation; 0: none.
        class_pictures: how many pictures of the kind are drawn for it.
        class_prompts: what is said of them, in turns; none: the templates with the kind.
        class_guidance: with which they are drawn.
    """

    rank: int = 0
    text_encoder: bool = False
    prior: float = 1.0
    class_pictures: int = 200
    class_prompts: tuple[str, ...] = ()
    class_guidance: float = 2.0
    least: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.prior, self.class_guidance) < 0 or self.class_pictures < 1:
            raise ValueError("prior and class_guidance must not be negative, class_pictures must be positive")


class Drawn(nn.Module):
    """Latents (n, latent, h, w) that the run drew, and their captions' tokens ``int64`` (n, L)."""

    latents: Tensor
    words: Tensor

    def __init__(self, count: int, shape: tuple[int, int, int], length: int) -> None:
        super().__init__()
        self.register_buffer("latents", torch.zeros(count, *shape))
        self.register_buffer("words", torch.zeros(count, length, dtype=torch.int64))


class DreamBooth(PictureLoRA):
    """Latent diffusion whose denoiser learns a subject and keeps its kind."""

    Config = DreamBoothConfig
    config: DreamBoothConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    stage = "dreambooth"

    def __init__(self, config: DreamBoothConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.drawn_before = Drawn(config.class_pictures if config.prior else 0, self.shape, config.words.length)

    def moved(self) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList([self.added if c.rank else self.network, *([self.text] if c.text_encoder else [])])

    def adapters(self) -> tuple[nn.Module, ...]:
        return self.added, self.drawn_before

    def begin(self, rng: Rng) -> None:
        """Draw what is to be preserved."""
        c, kept = self.config, self.drawn_before
        if not len(kept.latents):
            return
        sentences = c.class_prompts or c.sentences(c.kind)
        seed = int(rng.shared(1).integers("class pictures", 2**62))
        options = WordsDrawing(guidance=c.class_guidance)
        with evaluating(self):
            for first in range(0, c.class_pictures, AT_ONCE):
                rows = range(first, min(first + AT_ONCE, c.class_pictures))
                own = SampleRng(seed, rows, self.device)
                captions = bytes_of([sentences[i % len(sentences)] for i in rows]).to(self.device)
                call, plain, _ = self.asked(len(rows), {CAPTION: captions}, own)
                kept.words[rows.start : rows.stop] = self.words.tokens(captions)
                kept.latents[rows.start : rows.stop] = self.from_noise(call, plain, own, options)

    def subject_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Equation 2, averaged over the batch."""
        loss, logs = super().subject_loss(batch, rng, progress)
        if not self.config.prior:
            return loss, logs
        which = rng.integers("class picture", len(self.drawn_before.latents))
        call = self.calling(len(batch), self.drawn_before.words[which], None)
        prior = self.process.loss(call, self.drawn_before.latents[which], rng.at("prior")).mean()
        return loss + self.config.prior * prior, {**logs, "prior": prior.detach()}

    def plain(self) -> dict[str, Tensor]:
        state = plain_state(self, "added.")
        return {name: value for name, value in state.items() if not name.startswith("drawn_before.")}
