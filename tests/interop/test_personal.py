"""Files of personalisation against diffusers: the network, adapters merged there, learned embeddings; and the way back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.loaders import (  # pyright: ignore[reportPrivateImportUsage]
    StableDiffusionLoraLoaderMixin,  # pyright: ignore[reportPrivateImportUsage]
    TextualInversionLoaderMixin,  # pyright: ignore[reportPrivateImportUsage]
)
from safetensors.torch import load_file, save_file

from castalia import runs, verbs
from castalia.cli.main import main
from castalia.configuration import Data, Recipe
from castalia.core.captions import CAPTION, bytes_of
from castalia.core.errors import RunError, UsageError
from castalia.core.model import build
from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.text import TextSpec
from castalia.core.weights import save_tensors
from castalia.interop.diffusers_systems import import_parts
from castalia.interop.diffusers_words import LORA_FILE, METADATA, PREFIX, WORDS_FILE, layer_to_ours, layer_to_theirs
from castalia.interop.personal import import_words
from castalia.models.multimodal.dreambooth import DreamBooth, DreamBoothConfig
from castalia.models.multimodal.first_stage import FirstStageConfig
from castalia.models.multimodal.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from castalia.models.multimodal.picture_lora import PictureLoRA, PictureLoRAConfig
from castalia.models.multimodal.textual_inversion import TextualInversion, TextualInversionConfig
from castalia.models.multimodal.towers import TextConfig
from castalia.models.multimodal.words import WordsConfig
from castalia.nn.unet import UNetConfig

SPEC = ImageSpec(3, 16, 16, (), columns=((CAPTION, TextSpec("bytes", 257, 40)),))
SIZES = {
    "known": "caption",
    "first": FirstStageConfig(channels=(8, 8), blocks=1, latent=3, groups=4, adversarial=0.0, perceptual=0.0),
    "unet": UNetConfig(channels=(16, 32), blocks=1, attention=(0, 1), head_channels=8, groups=4),
    "text": TextConfig(12, 1, 2),
    "words": WordsConfig(length=10, words=("star", "red")),
}


def made(folder: Path, name: str, kind: type, config: Any) -> runs.Run:
    """A run of a model whose every weight is changed."""
    model = build(kind, config, SPEC)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    run = runs.create(folder, Recipe(name, config, Data("unknown")), SPEC, "")
    save_tensors(run.weights, model.state_dict(), {})
    return runs.open_run(folder)


@pytest.fixture
def start(tmp_path: Path) -> runs.Run:
    return made(tmp_path / "start", "latent-diffusion", LatentDiffusion, LatentDiffusionConfig(**SIZES))  # type: ignore[arg-type]


def on(start: runs.Run, folder: Path, name: str, kind: type, config: Any) -> runs.Run:
    """A run that was started from another, with what it learned stirred."""
    run = made(folder, name, kind, config)
    state = {**run.model()[0].state_dict(), **start.model()[0].state_dict()}
    save_tensors(run.weights, state, {})
    return run


def asked(model: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, times, words and which of them are seen."""
    tokens = model.words.tokens(bytes_of(["a red star", "a sks star"]))
    context = model.text.every(tokens)
    seen = torch.ones(context.shape[:2], dtype=torch.bool)
    seen[0, 6:] = False
    return (
        torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0)),
        torch.tensor([7, 900]),
        context,
        seen,
    )


@torch.no_grad()
def test_the_network_is_theirs(start: runs.Run, tmp_path: Path) -> None:
    verbs.export(start, tmp_path / "out", "diffusers")
    theirs = UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet").eval()
    model: Any = start.model()[0]
    x, t, context, seen = asked(model)
    ours = model.network.look(x, t.float(), context, None, seen)
    found = theirs(x, t, context, encoder_attention_mask=seen).sample
    torch.testing.assert_close(ours, found, atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in model.network.parameters())
    # what diffusers writes is read onto a run
    theirs.save_pretrained(tmp_path / "saved" / "unet")
    back = import_parts(tmp_path / "saved", start, tmp_path / "back").model()[0].state_dict()
    assert all(torch.equal(value, back[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["picture-lora", "dreambooth"])
@torch.no_grad()
def test_adapters_do_in_diffusers_what_they_do_here(start: runs.Run, tmp_path: Path, name: str) -> None:
    """As peft adds them: W + B A (alpha / r), at the layers that the file names."""
    kind, config = (PictureLoRA, PictureLoRAConfig) if name == "picture-lora" else (DreamBooth, DreamBoothConfig)
    more = {"class_pictures": 2} if name == "dreambooth" else {}
    run = on(start, tmp_path / "lora", name, kind, config(**SIZES, rank=3, alpha=6.0, **more))  # type: ignore[arg-type]
    verbs.export(start, tmp_path / "below", "diffusers")
    verbs.export(run, tmp_path / "out", "diffusers")
    theirs = UNet2DConditionModel.from_pretrained(tmp_path / "below" / "unet").eval()
    model: Any = run.model()[0]
    x, t, context, seen = asked(model)
    before = theirs(x, t, context, encoder_attention_mask=seen).sample
    read: Any = StableDiffusionLoraLoaderMixin.lora_state_dict(str(tmp_path / "out"), return_lora_metadata=True)
    tensors, alphas, metadata = read
    assert not alphas
    assert metadata == {"unet.r": 3, "unet.lora_alpha": 3, "unet.target_modules": metadata["unet.target_modules"],
                        "unet.peft_type": "LORA"}  # fmt: skip
    assert set(metadata["unet.target_modules"]) == {"to_q", "to_k", "to_v", "to_out.0"}
    for key in [k for k in tensors if k.endswith(".lora_A.weight")]:
        layer: Any = theirs.get_submodule(key.removeprefix(PREFIX).removesuffix(".lora_A.weight"))
        layer.weight += tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
    after = theirs(x, t, context, encoder_attention_mask=seen).sample
    torch.testing.assert_close(model.network.look(x, t.float(), context, None, seen), after, atol=1e-5, rtol=1e-5)
    assert (after - before).abs().max() > 1e-3
    # and back
    other: Any = import_words(tmp_path / "out", start, tmp_path / "back").model()[0]
    torch.testing.assert_close(other.network.look(x, t.float(), context, None, seen), after, atol=1e-5, rtol=1e-5)


def test_names_of_layers() -> None:
    assert layer_to_theirs("middle.1.blocks.0.own.out") == (
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
    )
    name = "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_k"
    assert layer_to_ours(name) == "up.1.attentions.2.blocks.0.cross.key"
    assert layer_to_theirs(layer_to_ours(name)) == name
    with pytest.raises(UsageError, match="not a matrix of attention"):
        layer_to_ours("up_blocks.1.resnets.0.conv1")


@torch.no_grad()
def test_learned_words(start: runs.Run, tmp_path: Path) -> None:
    config = TextualInversionConfig(**SIZES, vectors=2)  # type: ignore[arg-type]
    run = on(start, tmp_path / "word", "textual-inversion", TextualInversion, config)
    model: Any = run.model()[0]
    assert main(["export", str(run.path), "--format", "diffusers", "--out", str(tmp_path / "out")]) == 0
    state = load_file(tmp_path / "out" / WORDS_FILE)
    assert torch.equal(state["sks"], model.placeholders.vectors)

    class Tokenizer:
        def get_vocab(self) -> dict[str, int]:
            return {}

    tokens, vectors = TextualInversionLoaderMixin._retrieve_tokens_and_embeddings([None], [state], Tokenizer())
    assert tokens == ["sks"]
    assert torch.equal(vectors[0], model.placeholders.vectors)
    # and back, also where the word is written as theirs usually are
    save_file({"<sks>": state["sks"]}, tmp_path / "theirs.safetensors")
    arguments = ["import", str(tmp_path / "theirs.safetensors"), "--start", str(start.path)]
    assert main([*arguments, "--out", str(tmp_path / "back")]) == 0
    other: Any = runs.open_run(tmp_path / "back").model()[0]
    given = {CAPTION: bytes_of(["a sks star"] * 2)}
    drawn = [m.sample(2, given, rng=SampleRng(0, range(2)), options=m.SampleOptions(steps=3)).x for m in (model, other)]
    assert torch.equal(*drawn)


def test_factors_of_a_file_count(start: runs.Run, tmp_path: Path) -> None:
    """alpha / r from metadata, or from tensors as older files have them, under the older names too."""
    run = on(start, tmp_path / "lora", "picture-lora", PictureLoRA, PictureLoRAConfig(**SIZES, rank=2, alpha=2.0))  # type: ignore[arg-type]
    verbs.export(run, tmp_path / "out", "diffusers")
    tensors = load_file(tmp_path / "out" / LORA_FILE)
    about = {METADATA: json.dumps({"unet.r": 2, "unet.lora_alpha": 1})}
    save_file(tensors, tmp_path / "half.safetensors", about)
    older = {k.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): v for k, v in tensors.items()}
    layers = {k.removesuffix(".lora_A.weight") for k in tensors if k.endswith("lora_A.weight")}
    save_file({**older, **{f"{k}.alpha": torch.tensor(1.0) for k in layers}}, tmp_path / "older.safetensors")
    whole: Any = run.model()[0]
    for name in ("half", "older"):
        found: Any = import_words(tmp_path / f"{name}.safetensors", start, tmp_path / name).model()[0]
        for key, adapter in found.adapted().items():
            torch.testing.assert_close(adapter.matrix(), whole.adapted()[key].matrix() / 2)


def test_files_that_do_not_fit(start: runs.Run, tmp_path: Path) -> None:
    a, b = torch.zeros(2, 16), torch.zeros(16, 2)
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    wrong: dict[str, tuple[dict[str, torch.Tensor], str]] = {
        "text": ({"text_encoder.x.lora_A.weight": a, "text_encoder.x.lora_B.weight": b}, "no part of the U-Net"),
        "alone": ({f"{layer}.lora_A.weight": a}, "fit each other"),
        "some": ({f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}, "there is nothing for layer"),
        "nan": ({f"{layer}.lora_A.weight": a / 0, f"{layer}.lora_B.weight": b}, "not finite"),
        "two": ({"x": torch.zeros(12), "y": torch.zeros(12)}, "2 tensors"),
        "wide": ({"x": torch.zeros(7)}, "vectors of 7 numbers"),
        "odd": ({"<>": torch.zeros(12)}, "has no letter"),
    }
    up = "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    wrong |= {
        "twice": (
            {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b, f"{layer}.lora.down.weight": a.clone()},
            "twice",
        ),
        "alpha": (
            {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b, f"{layer}.alpha": torch.ones(3)},
            "no number",
        ),
        "stray": (
            {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b, f"{up}.alpha": torch.ones(1)},
            "no number",
        ),
        "rank": ({f"{layer}.lora_A.weight": a[:0], f"{layer}.lora_B.weight": b[:, :0]}, "has no rows"),
        "huge": ({"x": torch.full((12,), 3e38)}, "no vectors of sensible size"),
        "none": ({"x": torch.zeros(0)}, "no vectors"),
        "double": ({"x": torch.zeros(12).double()}, "has the type"),
    }
    for name, (tensors, text) in wrong.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        with pytest.raises(RunError, match=text):
            import_words(tmp_path / f"{name}.safetensors", start, tmp_path / name)
        assert not (tmp_path / name).exists()
    fine = {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}
    for number, (about, text) in enumerate((
        ({"unet.use_rslora": True}, "use_rslora"),
        ({"unet.lora_alpha": "16"}, "lora_alpha is 16"),
        ({"unet.lora_alpha": 10**400}, "no sensible number"),
        ({"unet.alpha_pattern": {"x": 1}}, "alpha_pattern"),
    )):  # fmt: skip
        save_file(fine, tmp_path / f"about{number}.safetensors", {METADATA: json.dumps(about)})
        with pytest.raises(RunError, match=text):
            import_words(tmp_path / f"about{number}.safetensors", start, tmp_path / "x")
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(RunError, match="can run code"):
        import_words(tmp_path / "x.bin", start, tmp_path / "x")
    with pytest.raises(RunError, match="has neither"):
        import_words(tmp_path / "start", start, tmp_path / "x")
    other = replace(start.config, known="nothing")  # type: ignore[type-var]
    silent = made(tmp_path / "silent", "latent-diffusion", LatentDiffusion, other)
    with pytest.raises(UsageError, match="with captions"):
        import_words(tmp_path / "two.safetensors", silent, tmp_path / "x")
