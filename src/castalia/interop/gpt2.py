"""GPT-2 in the folders of Hugging Face, and the checked way back.

    config.json                        the size
    model.safetensors                  weights; or several files and model.safetensors.index.json
    vocab.json and merges.txt          the vocabulary; or tokenizer.json

Their linear layers of a block are stored as (in, out), transposed to ours. Names may begin with ``transformer.``. The
head is the embedding, and is not stored; a folder that has it must have the same numbers in it. Buffers of masks, which
old files have, are not looked at. Logits agree with theirs to the last bits (tests compare with ``transformers``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from castalia.core import assets
from castalia.core.errors import DataError, MissingExtra, RunError, UsageError
from castalia.core.files import read_json, write_bytes, write_json
from castalia.core.specs.text import TextSpec
from castalia.core.vocabulary import BYTES
from castalia.core.weights import load_tensors
from castalia.interop.target import new_folder
from castalia.media.text.tokens import END, Bytes, Pieces, Tokens, read_pieces, tokens_of
from castalia.models.sequence.gpt2 import GPT2, GPT2Config

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

_LAYERS = {
    "ln_1": "norm1",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "norm2",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}
_WHOLE = {
    "wte.weight": "tokens.weight",
    "wpe.weight": "places.weight",
    "ln_f.weight": "norm.weight",
    "ln_f.bias": "norm.bias",
}
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
"""Theirs and ours."""

_REQUIRED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
"""Fields that a GPT-2 of another kind has otherwise; where they are missing they are so."""


@dataclass(frozen=True)
class Received:
    """A GPT-2 from elsewhere.

    Attributes:
        config: its size.
        spec: its vocabulary and context.
        state: its weights, ``float32``, by our names.
    """

    config: GPT2Config
    spec: TextSpec
    state: Mapping[str, Tensor]


def looks_like_gpt2(path: Path) -> bool:
    """Whether a folder holds a GPT-2 in Hugging Face's form."""
    try:
        data = read_json(path / CONFIG, 1 << 20) if (path / CONFIG).is_file() else None
    except RunError:
        return False
    return isinstance(data, dict) and data.get("model_type") == "gpt2"


def to_huggingface(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Weights by their names, in their shapes."""
    found = {theirs: state[ours] for theirs, ours in _WHOLE.items()}
    for i in range(layers):
        for theirs, ours in _LAYERS.items():
            for part in ("weight", "bias"):
                tensor = state[f"blocks.{i}.{ours}.{part}"]
                turned = part == "weight" and not theirs.startswith("ln")
                found[f"h.{i}.{theirs}.{part}"] = tensor.T.contiguous() if turned else tensor
    return {f"transformer.{name}": tensor for name, tensor in found.items()}


def from_huggingface(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights by our names, in our shapes.

    Raises:
        RunError: one is missing, unexpected, or the head is not the embedding.
    """
    plain = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    if len(plain) < len(tensors):
        raise RunError(f"{where}: has weights with and without the prefix 'transformer.' under the same name.")
    plain = {name: tensor for name, tensor in plain.items() if not _BUFFERS.fullmatch(name)}
    head = plain.pop("lm_head.weight", None)
    layers = 1 + max((int(m[1]) for name in plain if (m := re.match(r"h\.(\d{1,4})\.", name))), default=-1)
    names = dict(_WHOLE)
    for i in range(layers):
        names |= {f"h.{i}.{t}.{p}": f"blocks.{i}.{o}.{p}" for t, o in _LAYERS.items() for p in ("weight", "bias")}
    for name in sorted(names.keys() ^ plain.keys()):
        raise RunError(f"{where}: {'lacks' if name in names else 'has an unexpected tensor'} {name!r}.")
    for name, tensor in plain.items():
        if tensor.ndim != (2 if name.endswith("weight") and ".ln_" not in name and name != "ln_f.weight" else 1):
            raise RunError(f"{where}: {name!r} has {tensor.ndim} dimensions.")
        if not tensor.is_floating_point():
            raise RunError(f"{where}: {name!r} is {tensor.dtype}, not floating-point numbers.")
    if head is not None and not torch.equal(head, plain["wte.weight"]):
        raise RunError(f"{where}: its head is not its embedding, which a GPT-2 has in common.")
    turned = {name for name in plain if name.startswith("h.") and name.endswith("weight") and ".ln_" not in name}
    return {ours: (plain[t].T if t in turned else plain[t]).float().contiguous() for t, ours in names.items()}


def read_gpt2(path: Path) -> Received:
    """Read a folder of Hugging Face.

    Raises:
        RunError: it is damaged, incomplete, or a network that Castalia's GPT-2 is not; the text names file and field.
        MissingExtra: ``tokenizers`` is not installed.
    """
    fields = read_json(path / CONFIG, 1 << 20)
    if not isinstance(fields, dict):
        raise RunError(f"{path / CONFIG}: expected an object.")
    for name, wanted in _REQUIRED.items():
        if name in fields and fields[name] not in wanted:
            raise RunError(
                f"{path / CONFIG}: {name} is {str(fields[name])[:60]!r}; Castalia's GPT-2 has {wanted[0]!r}."
            )
    state = from_huggingface(_tensors(path), str(path))
    size, dim = state["tokens.weight"].shape
    length, layers = len(state["places.weight"]), sum(name.endswith(".norm1.weight") for name in state)
    counted = {"vocab_size": size, "n_positions": length, "n_embd": dim, "n_layer": layers}
    for name, count in counted.items():
        if fields.get(name, count) != count:
            raise RunError(f"{path / CONFIG}: {name} is {str(fields[name])[:60]}, but the weights have {count}.")
    if fields.get("n_inner") not in (None, 4 * dim):
        raise RunError(f"{path / CONFIG}: n_inner is {str(fields['n_inner'])[:60]}; Castalia's GPT-2 has {4 * dim}.")
    heads, drop = fields.get("n_head", 12), fields.get("resid_pdrop", 0.1)
    try:
        config = GPT2Config(layers, heads, dim, dropout=float(drop))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise RunError(f"{path / CONFIG}: {error}.") from error
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in GPT2(config, TextSpec("bytes", size, length)).state_dict().items()}
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise RunError(f"{path}: the weight {name!r} has shape {list(state[name].shape)}, expected {list(shape)}.")
    return Received(config, _spec(path, size, length), state)


def _spec(path: Path, size: int, length: int) -> TextSpec:
    alphabet = _alphabet(path / "tokenizer.json")
    if alphabet is not None and len(alphabet) + 1 == size:
        return TextSpec("chars", size, length, alphabet=alphabet)
    try:
        pieces = read_pieces(path)
    except DataError as error:
        raise RunError(str(error)) from error
    if pieces.size != size:
        raise RunError(f"{path}: its vocabulary has {pieces.size:,} tokens, but its weights have {size:,}.")
    return TextSpec("bpe", size, length, vocabulary=assets.keep(pieces.data(), "vocabulary.json"))


def _alphabet(path: Path) -> str | None:
    """The characters of a vocabulary that :func:`write_vocabulary` made of an alphabet; None for any other."""
    try:
        model = read_json(path, 16 << 20)["model"] if path.is_file() else {}
        if model.get("type") != "WordLevel":
            return None
        pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
        numbered = [model["vocab"][piece] for piece in pieces] == list(range(len(pieces)))
    except (RunError, KeyError, TypeError, AttributeError):
        return None
    letters = "".join(pieces[:-1])
    single = len(letters) == len(pieces) - 1 == len(set(letters))
    return letters if numbered and single and pieces[-1] == END else None


def _tensors(path: Path) -> dict[str, Tensor]:
    """All weights of a folder, from one file or several."""
    if (path / WEIGHTS).exists():
        return load_tensors(path / WEIGHTS)[0]
    if not (path / INDEX).exists():
        old = next((name for name in PICKLES if (path / name).exists()), "")
        hint = (
            f" {old} can run any program when it is loaded, so it is not read: convert it first "
            "(model.save_pretrained(folder, safe_serialization=True) in transformers)."
            if old
            else ""
        )
        raise RunError(f"{path} has neither {WEIGHTS} nor {INDEX}.{hint}")
    index = read_json(path / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise RunError(f"{path / INDEX}: expected an object with 'weight_map'.")
    found: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.safetensors", name):
            raise RunError(f"{path / INDEX}: {name[:80]!r} is not the name of a weights file in this folder.")
        for key, tensor in load_tensors(path / name)[0].items():
            if places.get(key) != name:
                raise RunError(f"{path / name}: holds {key!r}, which {INDEX} says is in {places.get(key)!r}.")
            found[key] = tensor
    for key, name in places.items():
        if key not in found:
            raise RunError(f"{path / name}: lacks {key!r}, which {INDEX} says it holds.")
    return found


def write_gpt2(config: GPT2Config, spec: TextSpec, state: Mapping[str, Tensor], out: Path) -> Path:
    """Write a folder that ``transformers`` loads with ``AutoModelForCausalLM`` and ``AutoTokenizer``.

    Args:
        config: the size.
        spec: vocabulary and context.
        state: weights by our names.
        out: a new or empty folder; it appears whole or not at all.

    Returns:
        ``out``.

    Raises:
        UsageError: ``out`` holds something already.
        RunError: it cannot be written.
        MissingExtra: ``tokenizers`` is not installed.
    """
    from safetensors.torch import save

    if spec.middles:
        raise UsageError("This run has marks for gaps, which the folders of transformers have no place for.")
    with new_folder(out) as folder:
        write_json(folder / CONFIG, _fields(config, spec))
        plain = {name: t.detach().cpu().contiguous() for name, t in to_huggingface(state, config.layers).items()}
        write_bytes(folder / WEIGHTS, save(plain, {"format": "pt"}))
        write_vocabulary(spec, folder)
    return out


def _fields(config: GPT2Config, spec: TextSpec) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        **{name: wanted[0] for name, wanted in _REQUIRED.items()},
        "vocab_size": spec.size,
        "n_positions": spec.length,
        "n_embd": config.dim,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": None,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "initializer_range": config.init,
        "bos_token_id": spec.end,
        "eos_token_id": spec.end,
        "torch_dtype": "float32",
    }


def write_vocabulary(spec: TextSpec, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, and for pieces ``vocab.json`` and ``merges.txt``."""
    tokens = tokens_of(spec)
    tokenizer, pieces = _tokenizer(tokens)
    write_bytes(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    settings = {"model_max_length": spec.length, "bos_token": END, "eos_token": END, "unk_token": END}
    kind = "PreTrainedTokenizerFast" if pieces is None else "GPT2Tokenizer"
    extra = {} if pieces is None else {"add_prefix_space": False}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": kind, **settings, **extra})
    if pieces is not None:
        write_bytes(folder / "vocab.json", json.dumps(pieces.vocabulary, ensure_ascii=False).encode())
        merges = "".join(f"{a} {b}\n" for a, b in pieces.merges)
        write_bytes(folder / "merges.txt", f"#version: 0.2\n{merges}".encode())


def _tokenizer(tokens: Tokens) -> tuple[Any, Pieces | None]:
    """The vocabulary as theirs, with the end of a text as a special token; and as pieces of bytes where it is one."""
    try:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers
    except ImportError as error:
        raise MissingExtra("Writing a vocabulary for transformers", "text") from error
    if isinstance(tokens, Bytes):
        tokens = Pieces(BYTES, ())  # bytes are pieces without merges
    if isinstance(tokens, Pieces):
        made = tokenizers.Tokenizer(models.BPE(vocab=tokens.vocabulary, merges=list(tokens.merges)))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        made.decoder = decoders.ByteLevel()
    else:
        vocabulary = {piece.decode(): i for i, piece in enumerate(tokens.pieces[:-1])} | {END: tokens.end}
        made = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=END))
        made.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        made.decoder = decoders.Fuse()
    made.add_special_tokens([tokenizers.AddedToken(END, special=True, normalized=False)])
    return made, tokens if isinstance(tokens, Pieces) else None


def fit(received: Received, length: int) -> Received:
    """The same with a shorter context.

    Raises:
        UsageError: it has no longer one.
    """
    if not 1 <= length <= received.spec.length:
        raise UsageError(f"This GPT-2 has a context of {received.spec.length} tokens; it cannot have {length}.")
    places = received.state["places.weight"][:length].clone()
    state = {**received.state, "places.weight": places}
    return Received(received.config, replace(received.spec, length=length), state)
