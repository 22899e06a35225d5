"""Subjects taught to a run: the start at first, what moves, the prior's term, merging, words, and the start untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from castalia import api, recipes, runs
from castalia.catalogue import entry
from castalia.configuration import Data
from castalia.core.captions import CAPTION, bytes_of
from castalia.core.errors import UsageError
from castalia.core.model import Model, Progress, build, lay_out, training_mode
from castalia.core.rng import BatchRng, SampleRng
from castalia.models.multimodal.dreambooth import DreamBoothConfig
from castalia.models.multimodal.latent_diffusion import LatentDiffusion
from castalia.models.multimodal.personal import PersonalConfig, SubjectWords
from castalia.models.multimodal.picture_lora import PictureLoRAConfig
from castalia.models.multimodal.textual_inversion import TextualInversion, TextualInversionConfig
from castalia.models.multimodal.unet import Attention, WordUNet
from castalia.models.multimodal.words import Words, WordsConfig
from castalia.nn.adapters import AdaptedLinear, Adapter
from castalia.nn.unet import UNetConfig
from castalia.training.loop import train
from tests.tools import small_recipe

SYSTEMS = ("dreambooth", "textual-inversion", "picture-lora")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """A short run of latent diffusion with attention to words."""
    recipe = small_recipe("latent-diffusion", steps=12)
    below: Any = recipe.config
    recipe = replace(recipe, config=replace(below, unet=replace(below.unet, attention=(0,))))
    return train(recipe, api.training_data(recipe), tmp_path_factory.mktemp("start") / "run", quiet=True)


def recipe_on(start: runs.Run, name: str, steps: int = 6, **config: Any) -> Any:
    """A recipe whose network is to be taken over from the start."""
    base = small_recipe(name, steps=steps)
    kind = type(base.config)
    own = {"kind": "star", "class_pictures": 5} if name == "dreambooth" else {"kind": "star"}
    return replace(base, config=kind(**{**own, **config}), parents=(("start", str(start.path)),))


def begun(start: runs.Run, name: str, **config: Any) -> Any:
    """A model as it is before its first step."""
    recipe = recipe_on(start, name, **config)
    data = api.training_data(recipe)
    model = build(entry(name).load(), runs.complete(recipe, data), data.spec)
    below = start.model()[0]
    model.initialise(data, BatchRng(0, total=1), {"start": below})
    runs.start_from(model, below, start.path)
    lay_out(model)
    training_mode(model)
    stage = model.stages()[-1]
    assert stage.enter is not None
    stage.enter(BatchRng(0, total=1))
    return model


def stir(model: Model, amount: float = 0.1) -> None:
    with torch.no_grad():
        for part in model.adapters():
            for i, p in enumerate(part.parameters()):
                p.add_(amount * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))


def samples(model: Any, caption: str, n: int = 3) -> torch.Tensor:
    given = {CAPTION: bytes_of([caption] * n)}
    model.eval()
    return model.sample(n, given, rng=SampleRng(0, range(n)), options=model.SampleOptions(steps=3)).x


@pytest.mark.parametrize("name", SYSTEMS)
def test_at_first_it_is_the_start(start: runs.Run, name: str) -> None:
    """B is zero, and no known word's vector is new: the same pictures, bit for bit."""
    below: Any = start.model()[0]
    model = begun(start, name, **({"rank": 2} if name == "dreambooth" else {}))
    assert torch.equal(samples(model, "a small red star"), samples(below, "a small red star"))
    x, t = torch.randn(2, *model.shape), torch.tensor([3.0, 700.0])
    tokens = below.words.tokens(bytes_of(["a red star", "a blue ring"]))
    with torch.no_grad():
        assert torch.equal(model.calling(2, tokens, None)(x, t), below.calling(2, tokens, None)(x, t))


@pytest.mark.parametrize(
    ("name", "config", "moving"),
    [
        ("textual-inversion", {"vectors": 2}, ("placeholders.",)),
        ("picture-lora", {}, ("added.",)),
        ("dreambooth", {}, ("network.",)),
        ("dreambooth", {"text_encoder": True}, ("network.", "text.")),
        ("dreambooth", {"rank": 2}, ("added.",)),
    ],
)
def test_only_what_is_named_moves_and_the_start_stays(
    start: runs.Run, tmp_path: Path, name: str, config: dict[str, Any], moving: tuple[str, ...]
) -> None:
    before = start.weights.read_bytes()
    recipe = recipe_on(start, name, **config)
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    assert start.weights.read_bytes() == before
    model, below = run.model()[0], start.model()[0].state_dict()
    fresh = begun(start, name, **config).state_dict()
    same = {key: torch.equal(value, fresh[key]) for key, value in model.state_dict().items()}
    for key, value in below.items():
        assert torch.equal(model.state_dict()[key], value) or key.startswith(moving), key
    named = dict(model.named_parameters())
    moved = {key for key in named if not same[key]}
    assert moved
    assert all(key.startswith(moving) for key in moved)
    # every layer that is named moves: but a layer's A has no gradient before B has moved
    assert {key for key in named if key.startswith(moving)} - moved == set()


def test_every_other_word_stays_bit_for_bit(start: runs.Run, tmp_path: Path) -> None:
    recipe = recipe_on(start, "textual-inversion", steps=8, vectors=2)
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    model, below = run.model()[0], start.model()[0]
    assert isinstance(model, TextualInversion)
    assert isinstance(below, LatentDiffusion)
    assert torch.equal(model.text.tokens.weight, below.text.tokens.weight)
    star = below.text.tokens.weight[below.words.numbers["star"]]
    own = model.placeholders
    assert not torch.equal(own.vectors[0], star)
    # the norm is kept
    torch.testing.assert_close(own.vectors.norm(dim=1), star.norm().expand(2), atol=1e-6, rtol=1e-5)
    assert torch.equal(samples(model, "a small red star"), samples(below, "a small red star"))
    assert not torch.equal(samples(model, "a sks"), samples(model, "a star"))


def test_vectors_begin_as_the_kinds(start: runs.Run) -> None:
    model = begun(start, "textual-inversion", vectors=3)
    star = model.text.tokens.weight[model.words.numbers["star"]]
    assert torch.equal(model.placeholders.vectors, star.expand(3, -1))
    two = begun(start, "textual-inversion", kind="red star")
    table, numbers = two.text.tokens.weight, two.words.numbers
    expected = (table[numbers["red"]] + table[numbers["star"]]) / 2
    torch.testing.assert_close(two.placeholders.vectors[0], expected)


def test_a_word_of_several_vectors() -> None:
    config = WordsConfig(length=12, words=("star", "red"))
    words = SubjectWords(config, "sks", ("sks", "sks_1", "sks_2"))
    plain = Words(config)
    tokens = words.tokens(bytes_of(["a sks, red", "a red star"]))
    new = config.size
    assert tokens[0, :8].tolist() == [257, ord("a"), new, new + 1, new + 2, ord(","), plain.numbers["red"], 256]
    assert torch.equal(tokens[1], plain.tokens(bytes_of(["a red star"]))[0])


@pytest.mark.parametrize("name", ["picture-lora", "dreambooth"])
def test_merged_and_unmerged_are_the_same(start: runs.Run, name: str) -> None:
    model = begun(start, name, rank=3, alpha=6.0).eval()
    stir(model)
    below = start.model()[0]
    assert isinstance(below, LatentDiffusion)
    tokens = model.words.tokens(bytes_of(["a sks star", "a red ring"]))
    x, t = torch.randn(2, *model.shape), torch.tensor([3.0, 700.0])

    def output(net: Any) -> torch.Tensor:
        with torch.no_grad():
            return net.calling(2, tokens, None)(x, t)

    apart, weights = output(model), {k: v.clone() for k, v in model.state_dict().items()}
    assert not torch.allclose(apart, output(below), atol=1e-4)
    model.merge()
    torch.testing.assert_close(output(model), apart, atol=1e-6, rtol=1e-6)
    below.load_state_dict(model.plain())
    torch.testing.assert_close(output(below), apart, atol=1e-6, rtol=1e-6)
    model.unmerge()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[key], atol=1e-6, rtol=1e-6)
    below.load_state_dict(model.plain())
    torch.testing.assert_close(output(below), apart, atol=1e-6, rtol=1e-6)


def test_the_equation_of_an_adapter(start: runs.Run) -> None:
    model = begun(start, "picture-lora", rank=3, alpha=6.0)
    stir(model)
    layer = next(part for part in model.modules() if isinstance(part, AdaptedLinear))
    a, b = layer.beside[0].a.weight, layer.beside[0].b.weight
    x = torch.randn(4, layer.in_features)
    expected = torch.nn.functional.linear(x, layer.weight + 2 * b @ a, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert torch.linalg.matrix_rank(b @ a) == 3


def test_which_matrices_are_adapted(start: runs.Run) -> None:
    every = begun(start, "picture-lora").added
    assert {key.rsplit("-", 2)[1] for key in every} == {"own", "cross"}
    cross = begun(start, "picture-lora", places="cross", targets=("key", "value")).added
    assert cross.keys() == {k for k in every if k.endswith(("cross-key", "cross-value"))}


def losses(start: runs.Run, **config: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = begun(start, "dreambooth", **config)
    data = api.training_data(recipe_on(start, "dreambooth"))
    batch = model.coded(data).batch(np.arange(6))
    loss, logs = model.subject_loss(batch, BatchRng(3, total=6), Progress(0, 1))
    return loss.detach(), dict(logs)


def test_the_priors_preservation(start: runs.Run) -> None:
    """Equation 2; and with lambda 0 it is the plain loss."""
    with_it, logs = losses(start, prior=0.7)
    plain, alone = losses(start, prior=0.0)
    assert "prior" not in alone
    assert torch.equal(logs["mse"], plain)
    assert with_it.item() == pytest.approx((plain + 0.7 * logs["prior"]).item(), rel=1e-6)
    lora = begun(start, "picture-lora")
    batch = lora.coded(api.training_data(recipe_on(start, "dreambooth"))).batch(np.arange(6))
    assert torch.equal(lora.subject_loss(batch, BatchRng(3, total=6), Progress(0, 1))[0].detach(), plain)


def test_class_pictures_are_the_starts_own(start: runs.Run) -> None:
    below: Any = start.model()[0]
    model = begun(start, "dreambooth", class_prompts=("a star", "a red ring"))
    kept = model.drawn_before
    assert torch.equal(kept.words[:2], below.words.tokens(bytes_of(["a star", "a red ring"])))
    assert torch.equal(kept.words[0], kept.words[4])
    assert kept.latents.flatten(1).std(1).min() > 0
    again = begun(start, "dreambooth", class_prompts=("a star", "a red ring")).drawn_before
    assert torch.equal(kept.latents, again.latents)
    assert len(begun(start, "dreambooth", prior=0.0).drawn_before.latents) == 0


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_resumed_run_is_the_same(start: runs.Run, tmp_path: Path, name: str) -> None:
    recipe = recipe_on(start, name)
    recipe = replace(recipe, training=replace(recipe.training, checkpoint_every=2))
    data = api.training_data(recipe)

    def crash(step: int, logs: object) -> None:
        if step == 4:
            raise RuntimeError("crash")

    whole = train(recipe, data, tmp_path / "whole", quiet=True)
    with pytest.raises(RuntimeError, match="crash"):
        train(recipe, data, tmp_path / "run", quiet=True, callback=crash)
    resumed = train(recipe, data, tmp_path / "run", quiet=True, resume=True)
    left, right = whole.model()[0].state_dict(), resumed.model()[0].state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_sizes_and_words_are_the_starts(start: runs.Run) -> None:
    made = runs.complete(recipe_on(start, "picture-lora"), api.training_data(recipe_on(start, "picture-lora")))
    assert isinstance(made, PictureLoRAConfig)
    assert isinstance(start.config, type(recipes.tiny("latent-diffusion").config))
    assert made.words == start.config.words  # type: ignore[attr-defined]
    assert made.unet == start.config.unet  # type: ignore[attr-defined]
    assert made.kind == "star"


def test_adapters_of_the_papers_network() -> None:
    """Rank 4 at all attention of the network of 860 million with words of 768: 797,184 numbers, as its files hold."""
    with torch.device("meta"):
        config = UNetConfig(channels=(320, 640, 1280, 1280), blocks=2, attention=(0, 1, 2), heads=8, groups=32)
        network = WordUNet(config, 4, 4, 768)
        count = 0
        for part in network.modules():
            if isinstance(part, Attention):
                for name in ("query", "key", "value", "out"):
                    layer = getattr(part, name)
                    count += sum(p.numel() for p in Adapter(layer.in_features, layer.out_features, 4, 4.0).parameters())
    assert count == 797_184


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (PersonalConfig, {"token": "<sks>"}),
        (PersonalConfig, {"token": ""}),
        (PersonalConfig, {"kind": " "}),
        (PersonalConfig, {"templates": ("a thing",)}),
        (PersonalConfig, {"base_share": 1.0}),
        (PersonalConfig, {"known": "class"}),
        (PictureLoRAConfig, {"rank": 0}),
        (PictureLoRAConfig, {"targets": ()}),
        (PictureLoRAConfig, {"targets": ("key", "key")}),
        (DreamBoothConfig, {"rank": -1}),
        (DreamBoothConfig, {"prior": -0.1}),
        (DreamBoothConfig, {"class_pictures": 0}),
        (TextualInversionConfig, {"vectors": 0}),
        (TextualInversionConfig, {"vectors": 99}),
    ],
)
def test_configurations_that_make_no_sense(kind: type, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        kind(**wrong)


def test_what_cannot_be_taught(start: runs.Run, tmp_path: Path) -> None:
    recipe = recipe_on(start, "picture-lora")
    data = api.training_data(recipe)
    alone = replace(recipe, parents=(), config=small_recipe("picture-lora").config)
    alone = replace(alone, config=replace(alone.config, base_share=0.0))
    with pytest.raises(UsageError, match="--start RUN"):
        train(alone, data, tmp_path / "a", quiet=True)
    known = recipe_on(start, "textual-inversion", token="star")
    with pytest.raises(UsageError, match="knows the word 'star'"):
        train(known, data, tmp_path / "b", quiet=True)
    larger = replace(recipe, data=replace(recipe.data, options=replace(recipe.data.options, size=12)))
    with pytest.raises(UsageError, match="--size 8"):
        train(larger, api.training_data(larger), tmp_path / "c", quiet=True)
    other = train(small_recipe("ddpm", steps=2), api.training_data(small_recipe("ddpm")), tmp_path / "d", quiet=True)
    with pytest.raises(UsageError, match="latent-diffusion with captions"):
        train(replace(recipe, parents=(("start", str(other.path)),)), data, tmp_path / "e", quiet=True)


def folder_of_pictures(folder: Path, count: int, size: int = 8) -> Path:
    """Pictures and nothing else."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{i}.png")
    return folder


def test_a_folder_of_pictures_without_captions(start: runs.Run, tmp_path: Path) -> None:
    """What is said of them are the templates, so none is needed; samples are asked for in words all the same."""
    folder = folder_of_pictures(tmp_path / "pictures", 4)
    for name in ("dreambooth", "textual-inversion"):
        recipe = recipe_on(start, name, steps=2)
        recipe = replace(recipe, data=Data(str(folder), medium="image", options=replace(recipe.data.options, size=8)))
        data = api.training_data(recipe)
        assert data.spec.columns == ()
        run = train(recipe, data, tmp_path / name, quiet=True)
        assert run.config.words == start.config.words  # type: ignore[attr-defined]
        assert samples(run.model()[0], "a sks star").shape == (3, 3, 8, 8)
        assert [*run.model()[0].accepts()] == [CAPTION]  # type: ignore[attr-defined]
        bare = replace(recipe, config=replace(recipe.config, templates=()))
        with pytest.raises(UsageError, match="have none that are read"):
            train(bare, data, tmp_path / f"{name}-bare", quiet=True)
