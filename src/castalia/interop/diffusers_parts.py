"""Networks that diffusers has too, beside its U-Nets: an autoencoder, a transformer, a prior. Plain data in, plain data
out; and the way of naming layers that all of them share.

    ours                                       diffusers
    first_stage.Encoder, Decoder               AutoencoderKL
    diffusion.transformer.Transformer          DiTTransformer2DModel
    multimodal.embeddings_prior.EmbeddingPrior PriorTransformer

What no field of theirs can say is put into weights where that is exact: the mean of the latents into the two maps at
the ends of the autoencoder, and in a flow the direction of time into the first matrix that sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.models.diffusion.transformer import Transformer
from castalia.models.multimodal.embeddings_prior import EmbeddingPrior
from castalia.models.multimodal.first_stage import Block, Decoder, Encoder, FirstStageConfig
from castalia.nn.attention import PictureAttention

Layers = Iterable[tuple[str, tuple[str, ...]]]
"""Our names of layers with theirs; several of theirs lie one below the other in ours."""


def named(
    layers: Layers, state: Mapping[str, Tensor], shares: Mapping[str, list[int]] | None = None
) -> dict[str, Tensor]:
    """Weights by their names.

    Args:
        layers: names of all layers.
        state: our weights.
        shares: rows of each part, of layers whose parts differ in size.
    """
    found: dict[str, Tensor] = {}
    for ours, theirs in layers:
        for kind in ("weight", "bias"):
            value = state.get(f"{ours}.{kind}")
            if value is None:
                continue
            if value.ndim == 4 and ".to_" in theirs[0]:
                value = value.flatten(1)  # a map of channels, which is no convolution there
            parts = value.split((shares or {}).get(ours) or value.shape[0] // len(theirs))
            found |= {f"{name}.{kind}": part.contiguous() for name, part in zip(theirs, parts, strict=True)}
    return found


def ours_of(
    layers: Layers,
    state: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    shares: Mapping[str, list[int]] | None = None,
) -> dict[str, Tensor]:
    """Our weights, ``float32``, of theirs; ``shares`` as of :func:`named`.

    Raises:
        UsageError: names or shapes are not those of our network; the text gives the first.
    """
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, names in layers:
        for kind in ("weight", "bias"):
            key = f"{ours}.{kind}"
            if key not in state:
                continue
            parts, shape = [f"{name}.{kind}" for name in names], tuple(state[key].shape)
            rows = (shares or {}).get(ours) or [shape[0] // len(parts)] * len(parts)
            for part, count in zip(parts, rows, strict=True):
                if part not in theirs:
                    raise UsageError(f"there is no {part!r}")
                given, wanted = tuple(theirs[part].shape), (count, *shape[1:])
                if given != wanted and (*given, 1, 1) != wanted:
                    raise UsageError(f"{part!r} gives {given} where {wanted} is expected")
            value = torch.cat([theirs[part].float() for part in parts])
            found[key], used = value.reshape(shape).contiguous(), used | set(parts)
    if others := sorted(theirs.keys() - used):
        raise UsageError(f"unexpected {others[0]!r}")
    return found


# the autoencoder


def autoencoder_layers(encoder: Encoder, decoder: Decoder) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of a first stage's layers, ours behind ``encoder.`` and ``decoder.``."""
    yield "encoder.quant", ("quant_conv",)
    yield "decoder.quant", ("post_quant_conv",)
    for way, net in (("encoder", encoder), ("decoder", decoder)):
        yield f"{way}.first", (f"{way}.conv_in",)
        yield f"{way}.norm", (f"{way}.conv_norm_out",)
        yield f"{way}.last", (f"{way}.conv_out",)
        side, level, block = ("down", 0, 0) if way == "encoder" else ("up", 0, 0)
        for i, layer in enumerate(net.layers):
            if isinstance(layer, Block):
                yield from _block(f"{way}.layers.{i}", f"{way}.{side}_blocks.{level}.resnets.{block}")
                block += 1
            else:
                yield f"{way}.layers.{i}", (f"{way}.{side}_blocks.{level}.{side}samplers.0.conv",)
                level, block = level + 1, 0
        for i, layer in enumerate(net.middle):
            if isinstance(layer, PictureAttention):
                at = f"{way}.mid_block.attentions.0"
                yield f"{way}.middle.{i}.norm", (f"{at}.group_norm",)
                yield f"{way}.middle.{i}.qkv", _asked(at)
                yield f"{way}.middle.{i}.out", (f"{at}.to_out.0",)
            else:
                yield from _block(f"{way}.middle.{i}", f"{way}.mid_block.resnets.{i // 2}")


def _asked(theirs: str) -> tuple[str, ...]:
    """Queries, keys and values, which are one matrix here."""
    return tuple(f"{theirs}.to_{name}" for name in "qkv")


def _block(ours: str, theirs: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{ours}.{name}", (f"{theirs}.{name}",)
    yield f"{ours}.skip", (f"{theirs}.conv_shortcut",)


def autoencoder_fields(config: FirstStageConfig, channels: int, side: int, deviation: float) -> dict[str, Any]:
    """Configuration of the ``AutoencoderKL``; latents that it scales have unit deviation."""
    levels = len(config.channels)
    return {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(config.channels),
        "layers_per_block": config.blocks,
        "act_fn": "silu",
        "latent_channels": config.latent,
        "norm_num_groups": config.groups,
        "sample_size": side,
        "scaling_factor": 1 / deviation,
        "force_upcast": False,
        "mid_block_add_attention": True,
    }


def centred(state: Mapping[str, Tensor], mean: Tensor) -> dict[str, Tensor]:
    """Weights of an autoencoder whose latents are those of another less ``mean`` (latent,); exact but for rounding."""
    found, n = dict(state), len(mean)
    first, last = "encoder.quant.bias", "decoder.quant.bias"
    found[first] = torch.cat([state[first][:n] - mean, state[first][n:]])
    found[last] = state[last] + state["decoder.quant.weight"][:, :, 0, 0] @ mean
    return found


# the diffusion transformer

_TIME = "norm1.emb.timestep_embedder.linear_{}"
_LABEL = "norm1.emb.class_embedder.embedding_table.weight"


def transformer_layers(net: Transformer) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of a transformer's layers, but for what each of their blocks has of time and label."""
    yield "patch", ("pos_embed.proj",)
    yield "tell_last", ("proj_out_1",)
    yield "last", ("proj_out_2",)
    for i in range(net.config.depth):
        at = f"transformer_blocks.{i}"
        yield f"tell.{i}", (f"{at}.norm1.linear",)
        yield f"blocks.{i}.qkv", _asked(f"{at}.attn1")
        yield f"blocks.{i}.out", (f"{at}.attn1.to_out.0",)
        yield f"blocks.{i}.up", (f"{at}.ff.net.0.proj",)
        yield f"blocks.{i}.down", (f"{at}.ff.net.2",)


def transformer_fields(net: Transformer, channels: int) -> dict[str, Any]:
    """Configuration of the ``DiTTransformer2DModel``.

    Raises:
        UsageError: theirs has no such size; the text names the option.
    """
    c = net.config
    if net.rows != net.columns or c.ratio != 4:
        raise UsageError("diffusers has this transformer only for square pictures, and with transformer.ratio=4")
    return {
        "num_attention_heads": c.heads,
        "attention_head_dim": c.width // c.heads,
        "in_channels": channels,
        "out_channels": net.outputs,
        "num_layers": c.depth,
        "dropout": c.dropout,
        "sample_size": c.patch * net.rows,
        "patch_size": c.patch,
        "num_embeds_ada_norm": max(net.classes, 1),
        "norm_eps": 1e-6,
    }


def to_transformer(net: Transformer) -> dict[str, Tensor]:
    """Weights of theirs: each of its blocks has the embeddings of time and label once more."""
    state = net.state_dict()
    found = named(transformer_layers(net), state)
    # without classes theirs has one all the same, of which it is told nothing
    label = state["label.weight"] if net.classes else torch.zeros(2, net.config.width)
    for i in range(net.config.depth):
        found[f"transformer_blocks.{i}.{_LABEL}"] = label
        for k in (1, 2):
            for kind in ("weight", "bias"):
                found[f"transformer_blocks.{i}.{_TIME.format(k)}.{kind}"] = state[f"time.{2 * (k - 1)}.{kind}"]
    return found


def from_transformer(net: Transformer, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights of theirs.

    Raises:
        UsageError: names or shapes are not those of our network, or blocks are told time or label in different ways.
    """
    keys = {f"time.{2 * (k - 1)}.{kind}": f"{_TIME.format(k)}.{kind}" for k in (1, 2) for kind in ("weight", "bias")}
    keys |= {"label.weight": _LABEL} if net.classes else {}
    if not net.classes and any(value.any() for name, value in theirs.items() if name.endswith(_LABEL)):
        raise UsageError("it was taught classes, and the run has none")
    found: dict[str, Tensor] = {}
    rest = {name: value for name, value in theirs.items() if ".norm1.emb." not in name}
    for ours, name in keys.items():
        every = [theirs.get(f"transformer_blocks.{i}.{name}") for i in range(net.config.depth)]
        first, shape = every[0], net.state_dict()[ours].shape
        if first is None or first.shape != shape:
            raise UsageError(f"'transformer_blocks.0.{name}' is not of the shape {tuple(shape)}")
        if not all(other is not None and torch.equal(first, other) for other in every):
            raise UsageError(f"blocks differ in {name!r}, of which ours has one for all")
        found[ours] = first.float()
    # fixed positions, which diffusers writes in some versions
    rest = {name: value for name, value in rest.items() if name != "pos_embed.pos_embed"}
    return found | ours_of(transformer_layers(net), net.state_dict(), rest)


# the prior


def prior_layers(net: EmbeddingPrior) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of a prior's layers."""
    for ours, theirs in (
        ("words", "encoder_hidden_states_proj"),
        ("caption", "embedding_proj"),
        ("picture", "proj_in"),
        ("time.0", "time_embedding.linear_1"),
        ("time.2", "time_embedding.linear_2"),
        ("norm", "norm_out"),
        ("out", "proj_to_clip_embeddings"),
    ):
        yield ours, (theirs,)
    for i in range(len(net.blocks)):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        yield f"{ours}.norm1", (f"{theirs}.norm1",)
        yield f"{ours}.norm2", (f"{theirs}.norm3",)
        yield f"{ours}.attention.qkv", _asked(f"{theirs}.attn1")
        yield f"{ours}.attention.out", (f"{theirs}.attn1.to_out.0",)
        yield f"{ours}.up", (f"{theirs}.ff.net.0.proj",)
        yield f"{ours}.down", (f"{theirs}.ff.net.2",)


def prior_fields(net: EmbeddingPrior, heads: int) -> dict[str, Any]:
    """Configuration of the ``PriorTransformer``.

    Raises:
        UsageError: the words are of another width than embeddings.
    """
    dims = net.out.out_features
    if net.words.in_features != dims:
        raise UsageError(
            f"diffusers has this prior only where words are as wide as embeddings (clip.text.width={dims}); here they "
            f"are {net.words.in_features} wide"
        )
    return {
        "num_attention_heads": heads,
        "attention_head_dim": net.width // heads,
        "num_layers": len(net.blocks),
        "embedding_dim": dims,
        "num_embeddings": len(net.places) - 4,
        "additional_embeddings": 4,
        "dropout": 0.0,
    }


def to_prior(net: EmbeddingPrior) -> dict[str, Tensor]:
    """Weights of theirs; what it predicts has the length of sqrt(d), and ``clip_std`` makes that 1."""
    dims = net.out.out_features
    return {
        **named(prior_layers(net), net.state_dict()),
        "positional_embedding": net.places.detach()[None].contiguous(),
        "prd_embedding": net.query.detach().view(1, 1, -1).contiguous(),
        "clip_mean": torch.zeros(1, dims),
        "clip_std": torch.full((1, dims), dims**-0.5),
    }


def from_prior(net: EmbeddingPrior, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights of theirs, but for the vector of left-out captions, which theirs lacks.

    Raises:
        UsageError: names or shapes are not those of our network.
    """
    rest, found = dict(theirs), dict[str, Tensor]()
    for name, ours in (("positional_embedding", "places"), ("prd_embedding", "query")):
        value, shape = rest.pop(name, None), net.state_dict()[ours].shape
        wanted = (1,) * (3 - len(shape)) + tuple(shape)
        if value is None or tuple(value.shape) != wanted:
            raise UsageError(f"{name!r} is not of the shape {wanted}")
        found[ours] = value.float().reshape(shape)
    dims = net.out.out_features
    for name, only in (("clip_mean", 0.0), ("clip_std", dims**-0.5)):
        value = rest.pop(name, None)
        if value is None or tuple(value.shape) != (1, dims) or not torch.allclose(value.float(), torch.tensor(only)):
            raise UsageError(f"{name!r} is not {only:.6g} throughout, as for embeddings of length 1")
    return found | ours_of(prior_layers(net), net.state_dict(), rest)


# the direction of time


def turned(weight: Tensor, cos_first: bool, freq_shift: float, end: float = 1000.0) -> Tensor:
    """The first matrix (width, features) of a network's time that sees ``end`` - t, so that it may be told t.

    cos(w (T - t)) and sin(w (T - t)) are a reflection of cos(w t) and sin(w t); twice is nothing.
    """
    half = weight.shape[1] // 2
    steps = torch.arange(half, dtype=torch.float32)
    rate = torch.exp(-torch.log(torch.tensor(10_000.0)) * steps / (half - freq_shift)).double()
    c, s = torch.cos(end * rate), torch.sin(end * rate)
    a, b = (part.double() for part in weight[:, : 2 * half].chunk(2, 1))
    cosine, sine = (a, b) if cos_first else (b, a)
    cosine, sine = cosine * c + sine * s, cosine * s - sine * c
    pair = torch.cat([cosine, sine] if cos_first else [sine, cosine], 1)
    return torch.cat([pair.to(weight.dtype), weight[:, 2 * half :]], 1)


def backwards(state: Mapping[str, Tensor], cos_first: bool, freq_shift: float) -> dict[str, Tensor]:
    """Weights of a U-Net that is told 1000 - t, and says the opposite: noise less example, not example less noise."""
    return {
        **state,
        "time.0.weight": turned(state["time.0.weight"], cos_first, freq_shift),
        "last.weight": -state["last.weight"],
        "last.bias": -state["last.bias"],
    }
