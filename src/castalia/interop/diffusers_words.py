"""The U-Net with words as diffusers' ``UNet2DConditionModel``, adapters of it as its LoRA files, and new words as its
learned embeddings. Plain data in, plain data out.

    ours                                   diffusers
    down.0.attentions.1.blocks.0.own       down_blocks.0.attentions.1.transformer_blocks.0.attn1
    middle.1.blocks.0.cross                mid_block.attentions.0.transformer_blocks.0.attn2
    query, key, value, out                 to_q, to_k, to_v, to_out.0
    up, down (of a block)                  ff.net.0.proj, ff.net.2
    an adapter's a, b                      lora_A, lora_B behind the layer's name, behind ``unet.``

A file of adapters is written with alpha = r: the factor alpha / r is in ``lora_B``, so that readers which know no
metadata compute the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.interop.diffusers_layout import to_unet2d, unet_layers
from castalia.interop.diffusers_parts import named, ours_of
from castalia.models.multimodal.unet import WordAttention, WordUNet
from castalia.nn.adapters import Adapter
from castalia.nn.unet import UNet

LORA_FILE, WORDS_FILE = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"
METADATA = "lora_adapter_metadata"
"""Field of a file's metadata in which diffusers keeps the configuration of adapters."""

PREFIX = "unet."
_OTHER = ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "fan_in_fan_out", "lora_bias")
"""Fields of adapters that compute something else."""

_TARGETS = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
    "up": "ff.net.0.proj",
    "down": "ff.net.2",
    **{f"own.{ours}": f"attn1.{theirs}" for ours, theirs in _TARGETS.items()},
    **{f"cross.{ours}": f"attn2.{theirs}" for ours, theirs in _TARGETS.items()},
}


_KEPT = (
    *("sample_size", "in_channels", "out_channels", "freq_shift", "flip_sin_to_cos", "block_out_channels", "dropout"),
    *("layers_per_block", "downsample_padding", "norm_num_groups", "norm_eps", "resnet_time_scale_shift"),
)
"""Fields that both of their networks have."""


# the network


def layers(net: WordUNet) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our names of layers with theirs; several of theirs lie one below the other in ours."""
    words: dict[str, str] = {}
    for name, module in net.named_modules():
        if isinstance(module, WordAttention):
            words[name] = _place(name)
            for ours, theirs in (("norm", "norm"), ("enter", "proj_in"), ("leave", "proj_out")):
                yield f"{name}.{ours}", (f"{words[name]}.{theirs}",)
            for i in range(len(module.blocks)):
                for ours, theirs in _BLOCK.items():
                    yield f"{name}.blocks.{i}.{ours}", (f"{words[name]}.transformer_blocks.{i}.{theirs}",)
    for ours, theirs in unet_layers(net):
        if ours.rpartition(".")[0] not in words:
            yield ours, theirs


def _place(name: str) -> str:
    """Their name of a place with attention."""
    if name == "middle.1":
        return "mid_block.attentions.0"
    way, level, number = re.fullmatch(r"(down|up)\.(\d+)\.attentions\.(\d+)", name).groups()  # type: ignore[union-attr]
    return f"{way}_blocks.{level}.attentions.{number}"


def to_condition(net: WordUNet, size: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of the ``UNet2DConditionModel`` that computes what our network computes.

    Raises:
        UsageError: it has an option that diffusers does not; the text names the option.
    """
    config = net.config
    if net.vector is not None or config.middle != "attention" or config.down == "block" or config.up == "block":
        raise UsageError(
            "diffusers has this network only with unet.middle=attention and with convolutions between its levels "
            "(unet.down, unet.up)"
        )
    plain = asdict(to_unet2d(config, net.in_channels, net.out_channels, 0, size))
    heads = [config.heads if config.head_channels is None else c // config.head_channels for c in config.channels]
    kinds = ["CrossAttn" if level in config.attention else "" for level in range(len(config.channels))]
    fields = {
        **{name: plain[name] for name in _KEPT},
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        # the number of heads, in spite of its name
        "attention_head_dim": heads[0] if len(set(heads)) == 1 else heads,
        "cross_attention_dim": context_of(net),
    }
    return fields, named(layers(net), net.state_dict(), shares(net))


def from_condition(net: WordUNet, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights of a ``UNet2DConditionModel`` with the same configuration.

    Raises:
        UsageError: names or shapes are not those of our network; the text gives the first.
    """
    return ours_of(layers(net), net.state_dict(), theirs, shares(net))


def shares(net: UNet) -> dict[str, list[int]]:
    """Rows of the parts of what tells blocks the time."""
    return {"projection": [block.width for block in net.residual_blocks()]}


def context_of(net: WordUNet) -> int:
    """Width of the words.

    Raises:
        UsageError: the network has no attention to them.
    """
    for module in net.modules():
        if isinstance(module, WordAttention):
            return module.blocks[0].cross.key.in_features  # type: ignore[union-attr, return-value]
    raise UsageError("The network has no attention to words (config.unet.attention), so it is not one of theirs.")


# adapters


def layer_to_theirs(name: str) -> str:
    """Their name of an adapted layer."""
    place, block, layer = re.fullmatch(r"(.+)\.blocks\.(\d+)\.((?:own|cross)\.\w+)", name).groups()  # type: ignore[union-attr]
    return f"{_place(place)}.transformer_blocks.{block}.{_BLOCK[layer]}"


def layer_to_ours(name: str) -> str:
    """Our name of an adapted layer of theirs.

    Raises:
        UsageError: it is not one that is adapted here.
    """
    found = re.fullmatch(
        r"(?:(mid_block)|(down|up)_blocks\.(\d+))\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.(attn[12]\.\S+)", name
    )
    layer = {theirs: ours for ours, theirs in _BLOCK.items()}.get(found[6]) if found else None
    if found is None or layer is None:
        raise UsageError(f"{name!r} is adapted, which is not a matrix of attention in the U-Net")
    place = "middle.1" if found[1] else f"{found[2]}.{found[3]}.attentions.{found[4]}"
    return f"{place}.blocks.{found[5]}.{layer}"


def lora_to_theirs(adapters: Mapping[str, Adapter]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file of adapters, given by our names of the layers that they stand beside."""
    tensors: dict[str, Tensor] = {}
    rank = 1
    for name, adapter in adapters.items():
        theirs, rank = PREFIX + layer_to_theirs(name), adapter.a.out_features
        tensors[f"{theirs}.lora_A.weight"] = adapter.a.weight.detach()
        tensors[f"{theirs}.lora_B.weight"] = adapter.scale * adapter.b.weight.detach()
    targets = sorted({_BLOCK[".".join(name.rsplit(".", 2)[1:])].partition(".")[2] for name in adapters})
    about = {"unet.r": rank, "unet.lora_alpha": rank, "unet.target_modules": targets, "unet.peft_type": "LORA"}
    return tensors, {METADATA: json.dumps(about, sort_keys=True)}


def lora_to_ours(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[dict[str, tuple[Tensor, Tensor]], int]:
    """Matrices A (r, inputs) and B (outputs, r) of a file, with all factors in B, by our names of layers; and r.

    Raises:
        UsageError: it adapts something else, or its parts do not fit each other; the text names the tensor.
    """
    renamed: dict[str, Tensor] = {}
    for old, value in tensors.items():
        name = re.sub(r"\.lora\.(down|up)\.", lambda m: ".lora_A." if m[1] == "down" else ".lora_B.", old)
        if name in renamed:
            raise UsageError(f"{name!r} is there twice, with its old name and with the new one")
        renamed[name] = value
    about = _about(metadata)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    ranks: set[int] = set()
    for name, a in renamed.items():
        if name.endswith(".alpha"):
            if f"{name[:-6]}.lora_A.weight" not in renamed:
                raise UsageError(f"{name!r} is no number that belongs to a matrix")
            continue
        if not name.startswith(PREFIX):
            raise UsageError(f"{name!r} is no part of the U-Net, which alone can be adapted here")
        if name.endswith(".lora_B.weight") and name[:-14] + ".lora_A.weight" in renamed:
            continue
        layer = name.removesuffix(".lora_A.weight")
        b = renamed.get(f"{layer}.lora_B.weight")
        if layer == name or b is None or a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0]:
            raise UsageError(f"{name!r} has no matrix lora_A and lora_B that fit each other")
        rank = a.shape[0]
        if not rank:
            raise UsageError(f"{name!r} has no rows")
        own = renamed.get(f"{layer}.alpha")
        if own is not None and own.numel() != 1:
            raise UsageError(f"'{layer}.alpha' is no number")
        alpha = float(own) if own is not None else about.get("unet.lora_alpha", rank)
        scaled = b.float() * (alpha / rank)
        if not all(bool(torch.isfinite(part).all()) for part in (a.float(), scaled)):
            raise UsageError(f"{name!r} holds values that are not finite")
        found[layer_to_ours(layer.removeprefix(PREFIX))] = a.float(), scaled
        ranks.add(rank)
    if len(ranks) != 1:
        raise UsageError(f"its adapters have the ranks {sorted(ranks)}; one is expected")
    return found, ranks.pop()


def _about(metadata: Mapping[str, str]) -> dict[str, float]:
    """Numbers of the configuration that diffusers keeps beside adapters.

    Raises:
        UsageError: it asks for another kind of adapter, or is none.
    """
    try:
        data = json.loads(metadata.get(METADATA, "{}"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"its field {METADATA} is not JSON") from error
    if not isinstance(data, dict):
        raise UsageError(f"its field {METADATA} is not an object")
    for key, value in data.items():
        if str(key).rpartition(".")[2] in _OTHER and value:
            raise UsageError(f"its adapters have {str(key)[:60]}, which is not known here")
    alpha = data.get("unet.lora_alpha")
    if alpha is not None and (type(alpha) not in (int, float) or not -1e6 < alpha < 1e6):
        raise UsageError(f"unet.lora_alpha is {str(alpha)[:40]}, no sensible number")
    return {} if alpha is None else {"unet.lora_alpha": float(alpha)}
