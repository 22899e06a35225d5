"""Textual inversion: one word is new, and every other stays as it is."""

from __future__ import annotations

from pathlib import Path

import torch

from castalia import api, runs
from castalia.core.captions import bytes_of
from castalia.models.multimodal.latent_diffusion import LatentDiffusion
from castalia.models.multimodal.personal import SubjectWords
from castalia.models.multimodal.textual_inversion import TextualInversion
from castalia.models.multimodal.words import Words, WordsConfig
from castalia.training.loop import train
from tests.models.multimodal.subjects import begun, recipe_on, samples


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
