"""CLIP: which picture belongs to which caption.

Paper
    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (arXiv:2103.00020):
    figure 3 (the loss), section 2.4 (the networks), 2.5 (training), 3.1 (classes by their names).

With unit vectors u_i of the pictures of a batch, v_j of its captions and a learned temperature tau,

    loss = 1/2 [mean_i -log softmax_j(u_i v_j / tau)_i  +  mean_j -log softmax_i(u_i v_j / tau)_j].

1 / tau is held below 100. Equal logits have a loss of ln B. The published sizes: ViT-B/32 151,277,313 parameters,
ViT-B/16 149,620,737, ViT-L/14 427,616,513, RN50 102,007,137.

What differs, and why
    Captions are cut into the words of one's own data and bytes, see words.py; the published sizes count with its 49,408
    pieces. Pictures of any channels and size; those of three are normalised by the paper's means and deviations.
    In several processes the whole batch is compared, as in the paper. Two captions of a batch that are the same text
    are not counted as wrong answers for one another (``same_text``): in small data they are frequent.

Expected: see ``recipes/clip.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Exportable, Matching, Perception
from castalia.core.captions import CAPTION, bytes_of
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.models.multimodal.towers import (
    Block,
    ResNetConfig,
    ResNetTower,
    TextConfig,
    TextTower,
    VisionConfig,
    VisionTower,
)
from castalia.models.multimodal.words import Words, WordsConfig, captioned, found_words
from castalia.nn.gathering import everyone

MEANS, DEVIATIONS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CLIPConfig(Config):
    """Configuration of CLIP; the defaults are ViT-B/32.

    Attributes:
        dims: length of the vectors that are compared.
        network: of pictures: a vision transformer or a residual network.
        vision: ``vit``.
        resnet: ``resnet``.
        text: of captions.
        words: how captions become tokens.
        temperature: tau at the start.
        same_text: captions of a batch with the same text are no wrong answers for one another.
    """

    dims: int = 512
    network: Literal["vit", "resnet"] = "vit"
    vision: VisionConfig = field(default_factory=VisionConfig)
    resnet: ResNetConfig = field(default_factory=ResNetConfig)
    text: TextConfig = field(default_factory=TextConfig)
    words: WordsConfig = field(default_factory=lambda: WordsConfig(length=77))
    temperature: float = 0.07
    same_text: bool = True

    def __post_init__(self) -> None:
        if self.dims < 1 or not 0.01 <= self.temperature <= 100:
            raise ValueError("dims must be positive, temperature lies between 0.01 and 100")


def small_clip() -> CLIPConfig:
    """For pictures of 32 pixels."""
    return CLIPConfig(128, "vit", VisionConfig(4, 128, 4, 4), text=TextConfig(128, 3, 4), words=WordsConfig(length=16))


class Sight(nn.Module):
    """Pictures ``float32`` (B, C, H, W), 0 to 255, to vectors (B, dims)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: CLIPConfig, spec: ImageSpec) -> None:
        super().__init__()
        c = spec.channels
        means, deviations = (MEANS, DEVIATIONS) if c == 3 else ((0.5,) * c, (0.5,) * c)
        self.register_buffer("shift", torch.tensor(means).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(deviations).view(-1, 1, 1), persistent=False)
        size = (c, spec.height, spec.width, config.dims)
        self.tower = VisionTower(config.vision, *size) if config.network == "vit" else ResNetTower(config.resnet, *size)

    def forward(self, x: Tensor) -> Tensor:
        return self.tower((x / 255 - self.shift) / self.scale)


class CLIP(Model[CLIPConfig, ImageSpec], Matching, Perception, Exportable):
    """Two networks whose vectors are near where picture and caption belong together."""

    Config = CLIPConfig
    shard_units = (Block,)

    def __init__(self, config: CLIPConfig, spec: ImageSpec) -> None:
        super().__init__()
        captioned(spec)
        self.config, self.spec, self.words = config, spec, Words(config.words)
        self.sight = Sight(config, spec)
        self.text = TextTower(config.text, config.words.size, config.words.length, config.dims)
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / config.temperature)]))

    @classmethod
    def complete(cls, config: CLIPConfig, data: Dataset) -> CLIPConfig:
        """Find the words of the captions."""
        return replace(config, words=found_words(config.words, data))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("clip", self, self.loss, project=self.bound),)),)

    @torch.no_grad()
    def bound(self) -> None:
        """1 / tau stays at most 100."""
        self.log_scale.clamp_(max=math.log(100))

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Figure 3 of the paper, over the batch of all processes."""
        tokens = self.words.tokens(batch.extra[CAPTION])
        u = everyone(F.normalize(self.sight(batch.x.float()).float(), dim=1), rng)
        v = everyone(F.normalize(self.text(tokens).float(), dim=1), rng)
        logits = self.log_scale.exp() * u @ v.T
        if self.config.same_text:
            said = everyone(tokens, rng)
            same = (said[:, None] == said).all(-1).fill_diagonal_(False)
            logits = logits.masked_fill(same, float("-inf"))
        own = torch.arange(len(logits), device=logits.device)
        loss = 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))
        right = (logits.argmax(1) == own).float().mean()
        return loss, {"right": right, "scale": self.log_scale.detach().exp().squeeze()}

    # what it can do

    @torch.no_grad()
    def of_pictures(self, x: Tensor) -> Tensor:
        return F.normalize(self.sight(x.to(self.device).float()).float(), dim=1)

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(self.text(self.words.tokens(bytes_of(list(texts)).to(self.device))).float(), dim=1)

    def perceive(self) -> Mapping[str, nn.Module]:
        return {"sight": self.sight}

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Pictures, 0 to 255, to vectors; tokens to vectors; neither of unit length."""
        pictures = torch.zeros(2, *self.spec.shape, device=self.device)
        return {
            "pictures": (self.sight, (pictures,)),
            "texts": (self.text, (self.words.nothing(2, self.device),)),
        }
