"""One U-Net, two descriptions: ours, and the ``UNet2DModel`` of diffusers. Plain data in, plain data out.

    ours                               UNet2DModel
    channels, blocks                   block_out_channels, layers_per_block
    attention                          AttnDownBlock2D and AttnUpBlock2D at the same levels
    middle                             mid_block_type, add_attention
    heads=1 / head_channels=n          attention_head_dim null / n
    middle_groups                      attn_norm_num_groups
    cos_first, freq_shift              flip_sin_to_cos, freq_shift
    conditioning="scale_shift"         resnet_time_scale_shift="scale_shift"
    down, up = "conv"                  DownBlock2D, UpBlock2D, downsample_type, upsample_type "conv"
    down, up = "block"                 ResnetDownsampleBlock2D, ResnetUpsampleBlock2D, ... "resnet"
    down_padding                       downsample_padding
    classes (+ 1 for the null class)   num_class_embeds

Of the weights, three matrices of each attention are one of ours, and the ``time_emb_proj`` of all residual blocks
are the parts of our ``projection``. No number changes on the way, in either direction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.nn.unet import Down, ResidualBlock, UNet, UNetConfig, Up

MOST = {"levels": 16, "channels": 1 << 16, "blocks": 64, "classes": 1 << 20}
"""Largest numbers that a file may ask for; far above any network that exists."""


@dataclass(frozen=True)
class UNet2D:
    """The configuration of ``UNet2DModel`` (diffusers 0.42), with its names and its defaults."""

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0.0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1.0
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the pictures, where the file says so."""
        return (self.sample_size, self.sample_size) if isinstance(self.sample_size, int) else self.sample_size


_SUPPORTED: dict[str, tuple[object, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D", None),
    "mid_block_scale_factor": (1.0,),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}

_STEPS = {
    "down": {"DownBlock2D": "conv", "ResnetDownsampleBlock2D": "resnet", "AttnDownBlock2D": None},
    "up": {"UpBlock2D": "conv", "ResnetUpsampleBlock2D": "resnet", "AttnUpBlock2D": None},
}
"""How each type of block changes the size; None leaves it to ``downsample_type`` or ``upsample_type``."""


def from_unet2d(theirs: UNet2D, null_class: bool) -> tuple[UNetConfig, int]:
    """Our configuration of a ``UNet2DModel``, and its number of classes.

    Args:
        theirs: what its file holds.
        null_class: whether the last of its classes means "no label"; their file cannot say so.

    Raises:
        UsageError: it uses something that our network does not have; the text names the field.
    """
    for name, known in _SUPPORTED.items():
        if getattr(theirs, name) not in known:
            raise UsageError(
                f"{name} is {getattr(theirs, name)!r}; Castalia's U-Net knows {' and '.join(map(repr, known))} only"
            )
    channels = theirs.block_out_channels
    _bounded("block_out_channels (its length)", len(channels), MOST["levels"])
    for value in channels:
        _bounded("block_out_channels", value, MOST["channels"])
    _bounded("in_channels", theirs.in_channels, MOST["channels"])
    _bounded("out_channels", theirs.out_channels, MOST["channels"])
    _bounded("layers_per_block", theirs.layers_per_block, MOST["blocks"])
    classes = theirs.num_class_embeds or 0
    _bounded("num_class_embeds", classes + 1, MOST["classes"])
    if theirs.time_embedding_dim is not None:
        _bounded("time_embedding_dim", theirs.time_embedding_dim, MOST["channels"])
    if theirs.size is not None:
        for value in theirs.size:
            _bounded("sample_size", value, MOST["channels"])
    down, attention = _levels("down", theirs.down_block_types, theirs.downsample_type, len(channels))
    up, attention_up = _levels("up", theirs.up_block_types[::-1], theirs.upsample_type, len(channels))
    if attention != attention_up:
        raise UsageError(
            f"up_block_types has attention at levels {attention_up} and down_block_types at {attention}; "
            "Castalia's U-Net has it at the same levels on both ways"
        )
    middle = "none" if theirs.mid_block_type is None else "attention" if theirs.add_attention else "plain"
    modulated = theirs.resnet_time_scale_shift == "scale_shift"
    try:
        config = UNetConfig(
            channels=channels,
            blocks=theirs.layers_per_block,
            attention=attention,
            middle=middle,
            head_channels=theirs.attention_head_dim,
            dropout=theirs.dropout,
            groups=theirs.norm_num_groups,
            # diffusers leaves this normalisation out where scale and shift are used and no groups are named
            middle_groups=0 if modulated and theirs.attn_norm_num_groups is None else theirs.attn_norm_num_groups,
            eps=theirs.norm_eps,
            cos_first=theirs.flip_sin_to_cos,
            freq_shift=float(theirs.freq_shift),
            embedding=theirs.time_embedding_dim,
            conditioning="scale_shift" if modulated else "add",
            down="block" if down == "resnet" else "conv",
            up="block" if up == "resnet" else "conv",
            down_padding=cast(Literal[0, 1], theirs.downsample_padding),
            null_class=null_class or not classes,
        )
    except ValueError as error:
        raise UsageError(f"no such network can be built: {error}") from error
    return config, classes - (1 if classes and null_class else 0)


def _bounded(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise UsageError(f"{name} is {value}; it must lie between 1 and {most}")


def _levels(way: str, types: tuple[str, ...], default: str, levels: int) -> tuple[str, tuple[int, ...]]:
    """How one way changes the size, and its levels with attention. ``types`` begin at full resolution."""
    field, known = f"{way}_block_types", _STEPS[way]
    if len(types) != levels:
        raise UsageError(f"{field} names {len(types)} blocks where block_out_channels has {levels}")
    types = tuple(t.removeprefix("UNetRes") for t in types)
    for name in types:
        if name not in known:
            raise UsageError(f"{field} has {name!r}; Castalia's U-Net knows {', '.join(known)}")
    # the last level changes no size on the way down, the first (full resolution) none on the way up
    stepping = types[:-1] if way == "down" else types[1:]
    steps = {known[t] or default for t in stepping} or {"conv"}
    if len(steps) > 1:
        raise UsageError(
            f"{field} changes the size by convolution at some levels and by residual blocks at others; "
            "Castalia's U-Net does the same at all"
        )
    return steps.pop(), tuple(i for i, t in enumerate(types) if t.startswith("Attn"))


def to_unet2d(config: UNetConfig, in_channels: int, out_channels: int, classes: int, size: tuple[int, int]) -> UNet2D:
    """The ``UNet2DModel`` that computes what our network computes.

    Raises:
        UsageError: it has an option that diffusers does not; the text names the option.
    """
    if config.time != "sinusoidal":
        raise UsageError(
            "time=fourier cannot be exported: diffusers takes the logarithm of the time, and divides the output by it"
        )
    if config.max_period != 10_000:
        raise UsageError(f"max_period={config.max_period:g} cannot be exported: diffusers has 10000")
    if config.skip_rescale:
        raise UsageError("skip_rescale cannot be exported: diffusers' UNet2DModel has no such option")
    if config.down == "pool" or config.up == "nearest":
        raise UsageError("down=pool and up=nearest cannot be exported: diffusers has convolutions or residual blocks")
    for side in size:
        for _ in config.channels[1:]:
            if side % 2:
                raise UsageError(
                    f"pictures of {size[0]}x{size[1]} cannot be exported with {len(config.channels)} levels: an odd "
                    "side is met on the way down, where diffusers fails. Train on padded pictures, or with fewer levels"
                )
            side //= 2
    head = config.head_channels
    if head is None and config.heads > 1:
        widths = {config.channels[level] for level in config.attention_levels}
        if len(widths) > 1:
            raise UsageError(
                f"heads={config.heads} over levels of {sorted(widths)} channels cannot be exported: diffusers knows "
                "one number of channels per head. Give head_channels"
            )
        head = widths.pop() // config.heads if widths else None
    modulated = config.conditioning == "scale_shift"
    groups: int | None = None
    if config.middle == "attention":
        groups = config.groups if config.middle_groups is None else config.middle_groups
        if groups == 0 and not modulated:
            raise UsageError("middle_groups=0 cannot be exported without conditioning=scale_shift")
        groups = None if groups == (0 if modulated else config.groups) else groups

    def types(way: str, resnet: str, conv: str) -> tuple[str, ...]:
        kind = config.down if way == "Down" else config.up
        return tuple(
            f"Attn{way}Block2D" if level in config.attention else resnet if kind == "block" else conv
            for level in range(len(config.channels))
        )

    return UNet2D(
        sample_size=size[0] if size[0] == size[1] else size,
        in_channels=in_channels,
        out_channels=out_channels,
        time_embedding_dim=config.embedding,
        freq_shift=int(config.freq_shift) if config.freq_shift == int(config.freq_shift) else config.freq_shift,
        flip_sin_to_cos=config.cos_first,
        down_block_types=types("Down", "ResnetDownsampleBlock2D", "DownBlock2D"),
        mid_block_type=None if config.middle == "none" else "UNetMidBlock2D",
        up_block_types=types("Up", "ResnetUpsampleBlock2D", "UpBlock2D")[::-1],
        block_out_channels=config.channels,
        layers_per_block=config.blocks,
        downsample_padding=config.down_padding,
        downsample_type="resnet" if config.down == "block" else "conv",
        upsample_type="resnet" if config.up == "block" else "conv",
        dropout=config.dropout,
        attention_head_dim=head,
        norm_num_groups=config.groups,
        attn_norm_num_groups=groups,
        norm_eps=config.eps,
        resnet_time_scale_shift="scale_shift" if modulated else "default",
        add_attention=config.middle != "plain",
        num_class_embeds=classes + config.null_class if classes else None,
    )


# weights


def unet_layers(net: UNet) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our names of layers, each with theirs; several of theirs lie one below the other in ours."""
    yield "time.0", ("time_embedding.linear_1",)
    yield "time.2", ("time_embedding.linear_2",)
    yield "first", ("conv_in",)
    yield "norm", ("conv_norm_out",)
    yield "last", ("conv_out",)
    blocks: list[tuple[str, str, ResidualBlock]] = []
    attentions: list[tuple[str, str]] = []
    for way in ("down", "up"):
        for i, level in enumerate(getattr(net, way)):
            ours, theirs = f"{way}.{i}", f"{way}_blocks.{i}"
            for j in range(len(level.blocks)):
                blocks.append((f"{ours}.blocks.{j}", f"{theirs}.resnets.{j}", level.blocks[j]))
                attentions.append((f"{ours}.attentions.{j}", f"{theirs}.attentions.{j}"))
            step = level.step
            if isinstance(step, Down | Up):
                if step.kind == "block":
                    blocks.append((f"{ours}.step.block", f"{theirs}.{way}samplers.0", step.block))
                else:
                    yield f"{ours}.step.conv", (f"{theirs}.{way}samplers.0.conv",)
        if way == "down" and len(net.middle):
            for j, k in enumerate((0, 2)):
                block = net.middle[k]
                assert isinstance(block, ResidualBlock)
                blocks.append((f"middle.{k}", f"mid_block.resnets.{j}", block))
            attentions.append(("middle.1", "mid_block.attentions.0"))
    for ours, theirs, _ in blocks:
        for a, b in (("norm1", "norm1"), ("conv1", "conv1"), ("norm2", "norm2"), ("conv2", "conv2")):
            yield f"{ours}.{a}", (f"{theirs}.{b}",)
        yield f"{ours}.skip", (f"{theirs}.conv_shortcut",)
    for ours, theirs in attentions:
        yield f"{ours}.norm", (f"{theirs}.group_norm",)
        yield f"{ours}.qkv", (f"{theirs}.to_q", f"{theirs}.to_k", f"{theirs}.to_v")
        yield f"{ours}.out", (f"{theirs}.to_out.0",)
    order = {id(block): theirs for _, theirs, block in blocks}
    yield "projection", tuple(f"{order[id(block)]}.time_emb_proj" for block in net.residual_blocks())


def names(net: UNet) -> dict[str, tuple[tuple[str, tuple[int, ...]], ...]]:
    """Our tensors, each with the names and shapes of theirs that, one below the other, make it up.

    Theirs may lack trailing dimensions of one: what is a linear layer there is a 1x1 convolution here.
    """
    layers = dict(unet_layers(net))
    shares = [block.width for block in net.residual_blocks()]
    found = {}
    for name, tensor in net.state_dict().items():
        layer, _, kind = name.rpartition(".")
        theirs = ("class_embedding",) if layer == "label" else layers[layer]
        rows = shares if layer == "projection" else [tensor.shape[0] // len(theirs)] * len(theirs)
        rest = tensor.shape[1:2] if ".attentions." in theirs[0] else tensor.shape[1:]
        found[name] = tuple((f"{t}.{kind}", (n, *rest)) for t, n in zip(theirs, rows, strict=True))
    return found


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def new_name(name: str) -> str:
    """The present name of a tensor; attention was called otherwise before diffusers 0.12."""
    match = re.fullmatch(r"(.*\battentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)", name)
    return f"{match[1]}.{_OLD_ATTENTION[match[2]]}.{match[3]}" if match else name


def to_ours(net: UNet, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict, float32, from theirs (present names)."""
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    return {
        name: torch.cat([theirs[part].float() for part, _ in parts]).reshape(shapes[name]).contiguous()
        for name, parts in names(net).items()
    }


def to_theirs(net: UNet, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict from ours."""
    found = {}
    for name, parts in names(net).items():
        pieces = ours[name].split([shape[0] for _, shape in parts])
        found |= {part: piece.reshape(shape).contiguous() for (part, shape), piece in zip(parts, pieces, strict=True)}
    return found
