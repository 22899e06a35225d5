"""Textual inversion: a subject as a new word of a text-to-picture run, of which nothing else is changed.

Paper
    Gal et al. 2022, "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion"
    (arXiv:2208.01618): section 3, and several vectors for a word (section 5.1).

    v* = arg min over v of  E |eps - eps_theta(z_t, t, c(y with v for the word))|^2

The vectors begin as that of ``kind``, the one word that names the subject coarsely, and are the only numbers that move:
those of all other words stay bit for bit, and so does what the run draws of them.

What differs, and why
    After each step a vector has the norm that it began with (``keep_norm``): a long one drowns the words beside it.
    Where ``kind`` has several pieces, the mean of their vectors is the beginning.
    The sentences are of the recipe; the paper's are of photographs.

Expected: see ``recipes/textual_inversion.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.captions import bytes_of
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.models.multimodal.personal import Personal, PersonalConfig
from castalia.models.multimodal.words import END, START


@dataclass(frozen=True)
class TextualInversionConfig(PersonalConfig):
    """Configuration of textual inversion.

    Attributes:
        vectors: how many the word has.
        keep_norm: whether they keep the norm that they begin with.
    """

    vectors: int = 1
    keep_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.vectors <= self.words.length - 2:
            raise ValueError(f"vectors lies between 1 and {self.words.length - 2}, the words of a caption")


class Placeholders(nn.Module):
    """Vectors (n, width) of new words, and the norms (n, 1) that they began with."""

    norms: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(count, width))
        self.register_buffer("norms", self.vectors.detach().norm(dim=1, keepdim=True))

    @torch.no_grad()
    def begin(self, vector: Tensor) -> None:
        """Set all of them to a vector (width,)."""
        self.vectors.copy_(vector.expand_as(self.vectors))
        self.norms.copy_(self.vectors.norm(dim=1, keepdim=True))


class Extended(nn.Embedding):
    """An embedding whose last rows are no part of it: so the one can be frozen and the other not."""

    def __init__(self, old: nn.Embedding, more: Placeholders) -> None:
        super().__init__(old.num_embeddings, old.embedding_dim)
        self.load_state_dict(old.state_dict())
        self.beside = (more,)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, torch.cat([self.weight, self.beside[0].vectors]))


class TextualInversion(Personal):
    """Latent diffusion, frozen, with a new word."""

    Config = TextualInversionConfig
    config: TextualInversionConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    stage = "textual-inversion"

    def __init__(self, config: TextualInversionConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.placeholders = Placeholders(config.vectors, config.text.width)
        self.text.tokens = Extended(self.text.tokens, self.placeholders)

    def standing(self) -> tuple[str, ...]:
        token = self.config.token
        return token, *(f"{token}_{i}" for i in range(1, self.config.vectors))

    @property
    def subject(self) -> str:
        return self.config.token

    def moved(self) -> nn.ModuleList:
        return nn.ModuleList([self.placeholders])

    def adapters(self) -> tuple[nn.Module, ...]:
        return (self.placeholders,)

    @torch.no_grad()
    def begin(self, rng: Rng) -> None:
        """The vectors as that of ``kind``."""
        tokens = self.words.tokens(bytes_of([self.config.kind])).to(self.device)[0]
        own = tokens[(tokens != START) & (tokens != END)]
        self.placeholders.begin(self.text.tokens.weight[own].mean(0))

    def settle(self) -> None:
        """The norms as they began."""
        if self.config.keep_norm:
            own = self.placeholders
            own.vectors.mul_(own.norms / own.vectors.norm(dim=1, keepdim=True).clamp(min=1e-12))
