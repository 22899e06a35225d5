"""GPT-2 in Hugging Face's folders: the same numbers as transformers in both directions, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from castalia.core import assets
from castalia.core.errors import RunError, UsageError
from castalia.core.model import build
from castalia.core.rng import SampleRng
from castalia.core.specs.text import TextSpec
from castalia.interop.gpt2 import Received, fit, looks_like_gpt2, read_gpt2, write_gpt2
from castalia.media.text.tokens import END, tokens_of, train_pieces
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.writing import WritingOptions

pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

LENGTH = 16
TEXTS = ["the cat sat on the mat; that's the cat's hat.\n\n  Caf\u00e9 \U0001f600 1234"] * 8


@pytest.fixture(scope="module")
def spec() -> TextSpec:
    pieces = train_pieces(TEXTS, 300)
    return TextSpec("bpe", pieces.size, LENGTH, vocabulary=assets.keep(pieces.data(), "vocabulary.json"))


@pytest.fixture(scope="module")
def ours(spec: TextSpec) -> GPT2:
    model = build(GPT2, GPT2Config(3, 4, 32, init=0.2), spec)
    assert isinstance(model, GPT2)
    with torch.no_grad():  # nothing may be zero, or it could be anywhere
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model.eval()


@pytest.fixture(scope="module")
def folder(ours: GPT2, spec: TextSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(ours.config, spec, ours.state_dict(), tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers.GPT2LMHeadModel.from_pretrained(folder).eval()


def received(path: Path) -> GPT2:
    found = read_gpt2(path)
    model = GPT2(found.config, found.spec)
    model.load_state_dict(found.state)
    return model.eval()


def copy(folder: Path, to: Path, **fields: object) -> Path:
    """A copy of an export, with other fields in its configuration."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    config = json.loads((to / "config.json").read_text()) | fields
    (to / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))
    return to


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_transformers_reads_ours(ours: GPT2, theirs: Any, dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randint(0, ours.spec.size, (5, LENGTH), generator=torch.Generator().manual_seed(0))
    a, b = GPT2(ours.config, ours.spec).to(dtype).eval(), theirs.to(dtype)
    a.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(a(x), b(x).logits, atol=tolerance, rtol=0)
    theirs.to(torch.float32)


@pytest.mark.parametrize("form", ["prefix", "plain", "shards", "old buffers", "double"])
def test_we_read_transformers(tmp_path: Path, folder: Path, form: str) -> None:
    """Weights that transformers drew, stored as it stores them, or as older versions did."""
    config = transformers.GPT2Config(
        vocab_size=read_gpt2(folder).spec.size, n_positions=LENGTH, n_embd=24, n_layer=2, n_head=3, initializer_range=0.2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    path = tmp_path / "theirs"
    model.save_pretrained(path, **({"max_shard_size": "20KB"} if form == "shards" else {}))
    if form == "shards":
        assert (path / "model.safetensors.index.json").exists()
        assert len(list(path.glob("model-*.safetensors"))) > 2
    elif form != "prefix":
        tensors = load_file(path / "model.safetensors")
        if form == "plain":
            tensors = {name.removeprefix("transformer."): t for name, t in tensors.items()}
        elif form == "double":
            tensors = {name: t.double() for name, t in tensors.items()}
        else:
            tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, LENGTH, LENGTH)
            tensors["transformer.h.1.attn.masked_bias"] = torch.tensor(-1e4)
            tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        save_file(tensors, path / "model.safetensors")
    for name in ("vocab.json", "merges.txt"):
        (path / name).write_bytes((folder / name).read_bytes())
    mine = received(path)
    assert (mine.config.heads, mine.config.layers, mine.config.dropout) == (3, 2, 0.1)
    x = torch.randint(0, mine.spec.size, (5, LENGTH))
    with torch.no_grad():
        torch.testing.assert_close(mine(x), model(x).logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(mine.double()(x), model.double()(x).logits, atol=1e-12, rtol=0)


def test_there_and_back(ours: GPT2, folder: Path, spec: TextSpec) -> None:
    found = read_gpt2(folder)
    assert (found.spec, found.config.dim) == (spec, 32)
    assert all(torch.equal(found.state[name], t) for name, t in ours.state_dict().items())
    assert looks_like_gpt2(folder)
    assert not looks_like_gpt2(folder.parent)


def test_losses_and_gradients(ours: GPT2, theirs: Any) -> None:
    x = torch.randint(0, ours.spec.size, (4, LENGTH), generator=torch.Generator().manual_seed(1))
    ours.zero_grad()
    theirs.zero_grad()
    mine = torch.nn.functional.cross_entropy(ours(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    other = theirs(x, labels=x).loss
    assert mine.item() == pytest.approx(other.item(), abs=1e-5)
    mine.backward()
    other.backward()
    a, b = ours.blocks[1].attention.qkv.weight.grad, theirs.transformer.h[1].attn.c_attn.weight.grad  # type: ignore[union-attr]
    torch.testing.assert_close(a, b.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.tokens.weight.grad, theirs.transformer.wte.weight.grad, atol=1e-5, rtol=0)


def test_greedy_texts_are_theirs(ours: GPT2, theirs: Any) -> None:
    prompt = torch.tensor([[5, 6, 7]])
    options = WritingOptions(temperature=0, length=LENGTH - 3, end=False)
    mine = ours.sample(1, {"prompt": prompt}, rng=SampleRng(0, [0]), options=options).x
    other = theirs.generate(prompt, do_sample=False, max_new_tokens=LENGTH - 3, min_new_tokens=LENGTH - 3, pad_token_id=0,
                            attention_mask=torch.ones_like(prompt), eos_token_id=None)  # fmt: skip
    assert torch.equal(mine, other)


@pytest.mark.parametrize("kind", ["bpe", "bytes", "chars"])
def test_their_tokenizer_is_ours(tmp_path: Path, spec: TextSpec, kind: str) -> None:
    text = TEXTS[0] + "\n \n\tnew"
    if kind == "bytes":
        spec = TextSpec("bytes", 257, 4)
    elif kind == "chars":
        alphabet = "".join(sorted(set(text)))
        spec = TextSpec("chars", len(alphabet) + 1, 4, alphabet=alphabet)
    config = GPT2Config(1, 1, 4)
    path = write_gpt2(config, spec, build(GPT2, config, spec).state_dict(), tmp_path / "x")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, model_max_length=10_000)
    ids = tokens_of(spec).encode(text).tolist()
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert tokenizer.convert_tokens_to_ids(END) == spec.end == tokenizer.eos_token_id
    back = read_gpt2(path).spec
    assert np.array_equal(tokens_of(back).encode(text), ids)
    assert kind == "bytes" or back == spec  # bytes come back as pieces without merges


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"activation_function": "gelu"}, "activation_function is 'gelu'; Castalia's GPT-2 has 'gelu_new'"),
        ({"model_type": "gpt_neo"}, "model_type is 'gpt_neo'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"n_layer": 10**9}, "n_layer is 1000000000, but the weights have 3"),
        ({"vocab_size": 7}, "vocab_size is 7"),
        ({"n_inner": 12}, "n_inner is 12"),
        ({"n_head": 5}, "heads must divide dim"),
        ({"n_head": 0}, "must be positive"),
        ({"n_head": "4"}, r"config\.json"),
        ({"resid_pdrop": "x"}, r"config\.json"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, folder: Path, fields: dict[str, object], said: str) -> None:
    with pytest.raises(RunError, match=said):
        read_gpt2(copy(folder, tmp_path / "x", **fields))


def test_absent_fields_are_as_they_were_at_first(tmp_path: Path, folder: Path) -> None:
    names = ("activation_function", "scale_attn_weights", "add_cross_attention", "n_inner", "vocab_size")
    found = read_gpt2(copy(folder, tmp_path / "x", **dict.fromkeys(names, "absent")))
    assert found.config.layers == 3


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, folder: Path) -> None:
    path = copy(folder, tmp_path / "x")
    good = load_file(path / "model.safetensors")

    def refused(said: str, **change: torch.Tensor | None) -> None:
        tensors = {**good, **{k.replace("__", "."): v for k, v in change.items()}}
        save_file({k: v for k, v in tensors.items() if v is not None}, path / "model.safetensors")
        with pytest.raises(RunError, match=said):
            read_gpt2(path)

    refused("lacks 'h.1.ln_1.bias'", **{"transformer.h.1.ln_1.bias": None})
    refused("unexpected tensor 'extra'", extra=torch.ones(2))
    refused("lacks 'h.3.attn.c_attn.bias'", **{"transformer.h.3.ln_1.bias": torch.ones(32)})
    refused("unexpected tensor 'h.999999.ln_1.bias'", **{"transformer.h.999999.ln_1.bias": torch.ones(32)})
    refused("head is not its embedding", **{"lm_head.weight": torch.zeros_like(good["transformer.wte.weight"])})
    refused("shape", **{"transformer.h.1.attn.c_attn.weight": torch.ones(96, 32)})
    refused("has 1 dimensions", **{"transformer.wte.weight": torch.ones(5)})
    refused("not floating-point", **{"transformer.ln_f.bias": torch.ones(32, dtype=torch.int64)})
    (path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match=r"model\.safetensors"):
        read_gpt2(path)


def test_pickles_are_not_read(tmp_path: Path, folder: Path) -> None:
    path = copy(folder, tmp_path / "x")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(RunError, match=r"pytorch_model\.bin can run any program .* convert it first"):
        read_gpt2(path)
    (path / "pytorch_model.bin").unlink()
    with pytest.raises(RunError, match="has neither"):
        read_gpt2(path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.bin", ""])
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, folder: Path, name: str) -> None:
    path = copy(folder, tmp_path / "x")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    with pytest.raises(RunError, match="not the name of a weights file"):
        read_gpt2(path)
    (path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(RunError, match="weight_map"):
        read_gpt2(path)


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path, folder: Path) -> None:
    path = copy(folder, tmp_path / "x")
    other = train_pieces(["zzz yyy " * 20], 262)
    (path / "vocab.json").write_text(json.dumps(other.vocabulary))
    (path / "merges.txt").write_text("".join(f"{a} {b}\n" for a, b in other.merges))
    with pytest.raises(RunError, match="its vocabulary has 262 tokens, but its weights have"):
        read_gpt2(path)


def test_a_shorter_context(ours: GPT2, folder: Path) -> None:
    found = fit(read_gpt2(folder), 6)
    assert isinstance(found, Received)
    model = GPT2(found.config, found.spec)
    model.load_state_dict(found.state)
    x = torch.randint(0, ours.spec.size, (2, 6))
    with torch.no_grad():
        assert torch.equal(model.eval()(x), ours(x))
    with pytest.raises(UsageError, match="context of 16 tokens"):
        fit(read_gpt2(folder), 17)
