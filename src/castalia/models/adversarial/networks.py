"""Generators and critics: perceptrons, convolutions, residual networks; for points and for pictures of any size.

A generator maps latents (B, z) to examples (B, *shape), pictures in [-1, 1]. A critic maps packs of examples
(B/m, m * channels, ...) to logits (B/m, 1). Both are :class:`castalia.models.adversarial.layers.Chain`.

Papers
    ``conv``: Radford et al. 2016 (arXiv:1511.06434): strided convolutions instead of pooling, no hidden dense layers.
    ``resnet``: Gulrajani et al. 2017 (arXiv:1704.00028), appendix F. ``mlp``: Goodfellow et al. 2014; the toys of
    Gulrajani et al. and of Lin et al. 2018 (arXiv:1712.04086).

What differs, and why
    Any size: each level halves, rounding up; on the way back the picture is cut to size.
    The first layer of ``conv`` is dense onto the smallest size, and the last of its critic dense from there. This is
    the transposed convolution of the 1x1 picture, and the unpadded convolution, that other code has in their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from castalia.core.config import Config
from castalia.core.errors import UsageError
from castalia.core.model import Optimizer
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.adversarial.augment import Change
from castalia.models.adversarial.layers import (
    Chain,
    ConditionalNorm,
    Crop,
    LabelBeside,
    LabelMaps,
    Maxout,
    MeanPool,
    PadToEven,
    Projection,
    Weights,
    halvings,
    normalise_spectrally,
    set_weights,
)
from castalia.models.adversarial.residual import DownBlock, UpBlock
from castalia.nn.trusted import Conv2d, ConvTranspose2d

Act = Callable[[], nn.Module]


@dataclass(frozen=True)
class PlayersConfig(Config):
    """What the two networks are made of, and how they are fed.

    Attributes:
        network: ``mlp``, ``conv`` (DCGAN) or ``resnet``.
        latent_dims: length of the latent vector.
        latent: its distribution in training: ``normal``, or ``uniform`` on (-1, 1).
        widths: ``mlp``: hidden layers of the generator, in its order. ``conv``: channels per level, each level halving
            the picture, largest picture first. ``resnet``: channels per size, the first at full size.
        critic_widths: the critic's, in its order, which for pictures is the same order; empty: the same as ``widths``.
            ``resnet``: one halving each.
        flat: resnet: blocks of the critic that do not halve, after the others.
        kernel: conv: side of the kernels, 4 or 5.
        activation: of the generator: ``relu`` or ``leaky`` (slope 0.2).
        critic_activation: of the critic; ``maxout`` for ``mlp`` only.
        pieces: maxout: values of which the largest is taken.
        norm: of the generator: ``batch`` or ``none``.
        critic_norm: of the critic: ``none``, ``batch`` (not in its first layer) or ``layer``.
        biases: whether layers without a normalisation after them have biases.
        dropout: share of the critic's hidden values that are dropped.
        weights: initial weights: ``normal`` (deviation 0.02), ``he`` or ``torch`` (its own).
        spectral: divide the critic's weights by their largest singular values.
        pack: examples that the critic sees side by side (PacGAN).
        augment: changes made to real and made pictures before the critic sees them: ``colour``, ``translation``,
            ``cutout``.
        condition: how the critic sees the class: ``none`` (the model is not conditional), ``concatenate`` (a map per
            class beside the picture) or ``projection``.
        label_dims: how the generator sees the class: beside the latents as an embedding of this length; 0: as ones
            and zeros.
        conditional_norm: the generator sees the class in its normalisations instead.
        critic_optimizer: the critic's optimizer; null: the recipe's, as the generator.
        critic_steps: updates of the critic per step.
        generator_steps: updates of the generator per step.
    """

    network: Literal["mlp", "conv", "resnet"] = "conv"
    latent_dims: int = 100
    latent: Literal["normal", "uniform"] = "normal"
    widths: tuple[int, ...] = (64, 128)
    critic_widths: tuple[int, ...] = ()
    flat: int = 0
    kernel: int = 4
    activation: Literal["relu", "leaky"] = "relu"
    critic_activation: Literal["relu", "leaky", "maxout"] = "leaky"
    pieces: int = 5
    norm: Literal["batch", "none"] = "batch"
    critic_norm: Literal["none", "batch", "layer"] = "none"
    biases: bool = True
    dropout: float = 0.0
    weights: Weights = "normal"
    spectral: bool = False
    pack: int = 1
    augment: tuple[Change, ...] = ()
    condition: Literal["none", "concatenate", "projection"] = "none"
    label_dims: int = 0
    conditional_norm: bool = False
    critic_optimizer: Optimizer | None = None
    critic_steps: int = 1
    generator_steps: int = 1

    def __post_init__(self) -> None:
        numbers = (*self.widths, *self.critic_widths, self.latent_dims, self.pieces, self.pack)
        if not self.widths or min(*numbers, self.critic_steps, self.generator_steps) < 1:
            raise ValueError("widths, latent_dims, pieces, pack, critic_steps and generator_steps must be positive")
        if self.kernel not in (4, 5):
            raise ValueError("kernel is 4 or 5")
        if min(self.flat, self.label_dims) < 0 or not 0 <= self.dropout < 1:
            raise ValueError("flat and label_dims must not be negative, dropout lies in [0, 1)")
        if self.critic_activation == "maxout" and self.network != "mlp":
            raise ValueError("maxout belongs to network='mlp'")
        if self.flat and self.network != "resnet":
            raise ValueError("flat belongs to network='resnet'")
        if self.condition != "none" and self.pack > 1:
            raise ValueError("a pack holds examples of several classes: condition and pack do not go together")
        if self.conditional_norm and (self.condition == "none" or self.norm == "none"):
            raise ValueError("conditional_norm needs a condition and norm='batch'")


def make_generator(config: PlayersConfig, spec: ImageSpec | PointsSpec) -> Chain:
    """Build the generator with its initial weights.

    Raises:
        UsageError: the network is for pictures and the data is not, or has no labels where they are needed.
    """
    classes = classes_of(config, spec)
    beside = bool(classes) and not config.conditional_norm
    first = [LabelBeside(classes, config.label_dims)] if beside else []
    inputs = config.latent_dims + ((config.label_dims or classes) if beside else 0)
    builders = {"mlp": _mlp_generator, "conv": _conv_generator, "resnet": _resnet_generator}
    layers = builders[config.network](config, spec, inputs)
    last = [nn.Tanh()] if isinstance(spec, ImageSpec) else []
    network = Chain([*first, *layers, *last])
    set_weights(network, config.weights)
    return network


def make_critic(config: PlayersConfig, spec: ImageSpec | PointsSpec) -> Chain:
    """Build the critic with its initial weights; raises as :func:`make_generator`."""
    classes = classes_of(config, spec)
    beside = config.condition == "concatenate"
    channels = config.pack * spec.shape[0] + (classes if beside else 0)
    builders = {"mlp": _mlp_critic, "conv": _conv_critic, "resnet": _resnet_critic}
    layers, features = builders[config.network](config, spec, channels)
    biased = config.biases or config.network != "conv"
    projection = config.condition == "projection"
    head = Projection(features, classes) if projection else nn.Linear(features, 1, bias=biased)
    network = Chain([*([LabelMaps(classes)] if beside else []), *layers, head])
    set_weights(network, config.weights)
    if config.spectral:
        normalise_spectrally(network)
    return network


def classes_of(config: PlayersConfig, spec: ImageSpec | PointsSpec) -> int:
    """Number of classes that the model can be asked for; 0 where it is not conditional.

    Raises:
        UsageError: it should be conditional, and the data has no labels.
    """
    if config.condition == "none":
        return 0
    if not spec.classes:
        raise UsageError(f"config.condition={config.condition} needs labels, and this data has none.")
    return len(spec.classes)


def _picture(config: PlayersConfig, spec: ImageSpec | PointsSpec) -> ImageSpec:
    if not isinstance(spec, ImageSpec):
        raise UsageError(f"config.network={config.network} is for pictures; for points set config.network=mlp.")
    return spec


def _act(name: str) -> Act:
    return nn.ReLU if name == "relu" else lambda: nn.LeakyReLU(0.2)


def _generator_norm(config: PlayersConfig, spec: ImageSpec | PointsSpec, channels: int, flat: bool) -> nn.Module:
    """Batch normalisation of the generator, conditional or not, or the identity."""
    if config.norm == "none":
        return nn.Identity()
    kind = nn.BatchNorm1d if flat else nn.BatchNorm2d
    if config.conditional_norm:
        return ConditionalNorm(kind(channels, affine=False), classes_of(config, spec))
    return kind(channels)


def _critic_norm(config: PlayersConfig, channels: int, flat: bool) -> list[nn.Module]:
    """The critic's normalisation: a layer or none. Layer normalisation has a gain and a bias per channel."""
    if config.critic_norm == "batch":
        return [nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)]
    if config.critic_norm == "layer":
        return [nn.LayerNorm(channels) if flat else nn.GroupNorm(1, channels)]
    return []


def _dropout(config: PlayersConfig) -> list[nn.Module]:
    return [nn.Dropout(config.dropout)] if config.dropout else []


def _mlp_generator(config: PlayersConfig, spec: ImageSpec | PointsSpec, inputs: int) -> list[nn.Module]:
    act, layers = _act(config.activation), []
    for width in config.widths:
        layers.append(nn.Linear(inputs, width, bias=config.biases and config.norm == "none"))
        if config.norm != "none":
            layers.append(_generator_norm(config, spec, width, flat=True))
        layers.append(act())
        inputs = width
    layers.append(nn.Linear(inputs, math.prod(spec.shape)))
    return [*layers, nn.Unflatten(1, spec.shape)] if isinstance(spec, ImageSpec) else layers


def _mlp_critic(config: PlayersConfig, spec: ImageSpec | PointsSpec, channels: int) -> tuple[list[nn.Module], int]:
    size = channels * math.prod(spec.shape[1:])
    layers: list[nn.Module] = [nn.Flatten()]
    for number, width in enumerate(config.critic_widths or config.widths):
        norm = _critic_norm(config, width, flat=True) if number else []
        if config.critic_activation == "maxout":
            layers += [nn.Linear(size, width * config.pieces), Maxout(config.pieces), *norm]
        else:
            layers += [nn.Linear(size, width, bias=not norm), *norm, _act(config.critic_activation)()]
        layers += _dropout(config)
        size = width
    return layers, size


def _conv_generator(config: PlayersConfig, spec: ImageSpec | PointsSpec, inputs: int) -> list[nn.Module]:
    spec, k, act = _picture(config, spec), config.kernel, _act(config.activation)
    sizes = halvings(spec.height, spec.width, len(config.widths))
    bias, bottom = config.biases and config.norm == "none", config.widths[-1]
    layers: list[nn.Module] = [
        nn.Linear(inputs, bottom * math.prod(sizes[-1]), bias=bias),
        nn.Unflatten(1, (bottom, *sizes[-1])),
    ]
    outs = [spec.channels, *config.widths[:-1]]
    for level in reversed(range(len(config.widths))):
        wide, out, (h, w) = config.widths[level], outs[level], sizes[level]
        if config.norm != "none":
            layers.append(_generator_norm(config, spec, wide, flat=False))
        layers.append(act())
        biased = bias if level else config.biases
        layers.append(
            ConvTranspose2d(wide, out, k, 2, padding=k // 2 - (k == 4), output_padding=int(k == 5), bias=biased)
        )
        if (h, w) != (2 * sizes[level + 1][0], 2 * sizes[level + 1][1]):
            layers.append(Crop(h, w))
    return layers


def _conv_critic(config: PlayersConfig, spec: ImageSpec | PointsSpec, channels: int) -> tuple[list[nn.Module], int]:
    spec, k, act = _picture(config, spec), config.kernel, _act(config.critic_activation)
    widths = config.critic_widths or config.widths
    sizes = halvings(spec.height, spec.width, len(widths))
    layers: list[nn.Module] = []
    for number, (wide, (h, w)) in enumerate(zip(widths, sizes, strict=False)):
        norm = _critic_norm(config, wide, flat=False) if number else []
        if k == 4 and (h % 2 or w % 2):
            layers.append(PadToEven(h, w))
        padding = k // 2 - (k == 4)
        layers.append(Conv2d(channels, wide, k, stride=2, padding=padding, bias=config.biases and not norm))
        layers += [*norm, act(), *_dropout(config)]
        channels = wide
    return [*layers, nn.Flatten()], channels * math.prod(sizes[-1])


def _resnet_generator(config: PlayersConfig, spec: ImageSpec | PointsSpec, inputs: int) -> list[nn.Module]:
    spec, act = _picture(config, spec), _act(config.activation)
    sizes = halvings(spec.height, spec.width, len(config.widths) - 1)
    bottom, top = config.widths[-1], config.widths[0]

    def norm(channels: int) -> nn.Module:
        return _generator_norm(config, spec, channels, flat=False)

    layers: list[nn.Module] = [
        nn.Linear(inputs, bottom * math.prod(sizes[-1])),
        nn.Unflatten(1, (bottom, *sizes[-1])),
    ]
    for level in reversed(range(len(config.widths) - 1)):
        layers.append(UpBlock(config.widths[level + 1], config.widths[level], sizes[level], norm, act))
    # the output's normalisation is not conditional, as in the papers
    last = nn.BatchNorm2d(top) if config.norm == "batch" else nn.Identity()
    return [*layers, last, act(), Conv2d(top, spec.channels, 3, padding=1)]


def _resnet_critic(config: PlayersConfig, spec: ImageSpec | PointsSpec, channels: int) -> tuple[list[nn.Module], int]:
    spec, act = _picture(config, spec), _act(config.critic_activation)

    def norm(width: int) -> nn.Module:
        return next(iter(_critic_norm(config, width, flat=False)), nn.Identity())

    layers: list[nn.Module] = []
    for number, wide in enumerate(config.critic_widths or config.widths):
        layers += [DownBlock(channels, wide, norm, act, start=number == 0), *_dropout(config)]
        channels = wide
    layers += [DownBlock(channels, channels, norm, act, halve=False) for _ in range(config.flat)]
    return [*layers, act(), MeanPool()], channels
