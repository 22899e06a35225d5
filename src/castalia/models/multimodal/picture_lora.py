"""LoRA of pictures: a text-to-picture run that is taught a subject by a small addition to its matrices of attention.

Papers
    Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685), equation 3; Ryu 2023, who
    applied it to the cross-attention of latent diffusion. Rombach et al. 2022: the network below.

    h = W x + (alpha / r) B A x   at queries, keys, values and outputs of self- and cross-attention, B = 0 at first

What differs, and why
    See ``nn/adapters.py`` for how A starts. The words' transformer is not adapted: its queries, keys and values are one
    matrix here, which the files that others read have no place for.

Expected: see ``recipes/picture_lora.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from castalia.core.specs.image import ImageSpec
from castalia.models.multimodal.personal import Personal, PersonalConfig
from castalia.models.multimodal.unet import Attention
from castalia.nn.adapters import AdaptedLinear, Adapter, merge, plain_state

Target = Literal["query", "key", "value", "out"]


@dataclass(frozen=True)
class PictureLoRAConfig(PersonalConfig):
    """Configuration of LoRA on latent diffusion.

    Attributes:
        rank: r, of what is added to a matrix.
        alpha: what is added is multiplied by alpha / r.
        targets: to which matrices of attention.
        places: of self- and cross-attention, or of cross-attention only.
        drop_adapted: share that is dropped of what an adapter reads.
    """

    rank: int = 4
    alpha: float = 4.0
    targets: tuple[Target, ...] = ("query", "key", "value", "out")
    places: Literal["all", "cross"] = "all"
    drop_adapted: float = 0.0
    least: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < self.least or self.alpha <= 0 or not 0 <= self.drop_adapted < 1:
            raise ValueError(f"rank is at least {self.least}, alpha positive, drop_adapted a share")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets names at least one of {', '.join(get_args(Target))}, each once")


class PictureLoRA(Personal):
    """Latent diffusion, frozen, with adapters."""

    Config = PictureLoRAConfig
    config: PictureLoRAConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    stage = "picture-lora"

    def __init__(self, config: PictureLoRAConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.added = nn.ModuleDict()
        found = [(name, part) for name, part in self.network.named_modules() if isinstance(part, Attention)]
        for name, attention in found if config.rank else ():
            if config.places == "cross" and not name.endswith(".cross"):
                continue
            for target in config.targets:
                old: nn.Linear = getattr(attention, target)
                adapter = Adapter(old.in_features, old.out_features, config.rank, config.alpha, config.drop_adapted)
                setattr(attention, target, AdaptedLinear.of(old, adapter))
                self.added[f"{name}.{target}".replace(".", "-")] = adapter
        if config.rank and not self.added:
            raise ValueError("the network has no attention to words that could be adapted (config.unet.attention)")

    def adapted(self) -> dict[str, Adapter]:
        """The adapters by the names of the layers of ``network`` that they stand beside."""
        layers = self.network.named_modules()
        return {name: layer.beside[0] for name, layer in layers if isinstance(layer, AdaptedLinear)}

    def moved(self) -> nn.ModuleList:
        return nn.ModuleList([self.added])

    def adapters(self) -> tuple[nn.Module, ...]:
        return (self.added,)

    # into the matrices and out again

    def merge(self) -> None:
        """Put what is added into the matrices: the same function, at no further cost. Not for training."""
        merge(self)

    def unmerge(self) -> None:
        """Take it out again."""
        merge(self, -1)

    def plain(self) -> Mapping[str, Tensor]:
        """Weights of a latent diffusion that is the same function, by its names."""
        return plain_state(self, "added.")
