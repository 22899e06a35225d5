"""MuseNet: what a token sees, heads, windows that are dropped, and probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.music import MusicSpec
from castalia.media.music.read import MusicOptions
from castalia.media.music.sets import tunes
from castalia.models.music.musenet import MuseNet, MuseNetConfig, MuseNetSampling
from castalia.recipes.musenet import paper

DATA = tunes("test", MusicOptions(kind="events", voices="trio", length=24, steps=2, lowest=36, highest=88, loudness=1))
SPEC: MusicSpec = DATA.spec  # type: ignore[assignment]
NOW = Progress(1, 10)


def small(spec: MusicSpec = SPEC, **config: Any) -> MuseNet:
    made = build(
        MuseNet, MuseNetConfig(**{"layers": 2, "heads": 2, "dim": 16, "dropout": 0.0, "init": 0.3, **config}), spec
    )
    assert isinstance(made, MuseNet)
    return made.double().eval()


def logits(model: MuseNet, batch: Batch) -> torch.Tensor:
    zero = torch.zeros(len(batch), dtype=torch.int64)
    return model(batch.x, zero + model.classes, batch.extra["begun"], batch.extra["whole"])


@pytest.mark.parametrize("attention", ["dense", "strided", "fixed"])
def test_a_token_sees_none_after_it(attention: str) -> None:
    """Nor through its moment, its place in a chord or the part of the piece."""
    model, batch = small(attention=attention, stride=4), DATA.batch(np.arange(6))
    before = logits(model, batch)
    for t in range(SPEC.head, batch.x.shape[1]):
        x = batch.x.clone()
        x[:, t:] = (x[:, t:].clamp(min=0) + 7) % SPEC.end
        after = logits(model, replace(batch, x=x))
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])


def test_probabilities_sum_to_one_and_nobody_plays_a_head() -> None:
    model, batch = small(), DATA.batch(np.arange(4))
    p = logits(model, batch).softmax(-1)
    assert p[..., : SPEC.end + 1].sum(-1).sub(1).abs().max() < 1e-9
    assert p[..., SPEC.end + 1 :].max() == 0


def test_likelihood_is_the_loss() -> None:
    model, batch = small(unknown=0.0), DATA.batch(np.arange(4))
    loss, _ = model.loss(batch, BatchRng(0, total=4), NOW)
    found = model.log_likelihood(batch, rng=SampleRng(0, range(4)))
    count = (batch.x[:, SPEC.head :] >= 0).sum()
    assert loss.item() == pytest.approx(-(found.nats.sum() / count).item(), rel=1e-6)


def test_head_place_and_composer_matter() -> None:
    spec = replace(SPEC, classes=("a", "b"))
    model, batch = small(spec), DATA.batch(np.arange(4))
    zero = torch.zeros(4, dtype=torch.int64)
    plain = model(batch.x, zero, zero, zero + 64)
    for other in (
        model(batch.x, zero + 1, zero, zero + 64),
        model(batch.x, zero + 2, zero, zero + 64),
        model(batch.x, zero, zero + 8, zero + 64),
        model(batch.x, zero, zero, zero - 1),
    ):
        assert not torch.allclose(plain, other)
    x = batch.x.clone()
    x[:, 0] = SPEC.end + 3 + (x[:, 0] - SPEC.end - 3 + 1) % 3
    assert not torch.allclose(plain, model(x, zero, zero, zero + 64))
    labelled = Batch(batch.x, batch.ids, torch.tensor([0, 1, 0, 1]), batch.extra)
    with_label, without = (model.log_likelihood(b, rng=SampleRng(0, range(4))).nats for b in (labelled, batch))
    assert not torch.allclose(with_label, without)


@pytest.mark.parametrize("timing", [False, True])
def test_the_cache_is_reading_anew_also_beyond_the_context(timing: bool) -> None:
    model = small(timing=timing)
    rng, options = SampleRng(0, range(3)), MuseNetSampling(length=70, end=False, quarters=16.0)
    cached, anew = model.sample(3, rng=rng, options=options).x, model.naive(3, {}, rng, options).x
    assert cached.shape == (3, SPEC.head + 70)
    assert torch.equal(cached, anew)
    assert (cached[:, : SPEC.head] > SPEC.end).all()
    assert (cached[:, SPEC.head :] <= SPEC.end).all()


def test_windows_keep_the_head_and_the_newest() -> None:
    model = small()
    head = [SPEC.end + 5] * (SPEC.head - 1)
    body = list(range(100))
    for count in (0, 5, 23):
        assert model.window([*head, SPEC.end + 1, *body[:count]]) == [*head, SPEC.end + 1, *body[:count]]
    for count in (24, 25, 35, 36, 90):
        found = model.window([*head, SPEC.end + 1, *body[:count]])
        kept = found[SPEC.head :]
        assert found[: SPEC.head] == [*head, SPEC.end + 2]
        assert kept == body[count - len(kept) : count]
        assert 11 <= len(kept) <= 23


def test_a_prompt_is_continued_and_needs_its_head() -> None:
    model = small()
    prompt = DATA.batch(np.arange(2)).x[:, : SPEC.head + 6]
    made = model.sample(2, {"prompt": prompt}, rng=SampleRng(0, range(2)), options=MuseNetSampling(length=9)).x
    assert torch.equal(made[:, : prompt.shape[1]], prompt)
    with pytest.raises(UsageError, match="head"):
        model.sample(2, {"prompt": prompt[:, SPEC.head :]}, rng=SampleRng(0, range(2)))


def test_the_published_size() -> None:
    """72 layers, 24 heads, 4,096 tokens; the width is ours."""
    c = paper().config
    assert isinstance(c, MuseNetConfig)
    assert (c.layers, c.heads) == (72, 24)
    spec = MusicSpec("events", 4096, 12, 48, encoding="musenet", size=12_000, instruments=("piano",), loudness=(90,))
    with torch.device("meta"):
        model = MuseNet(c, spec)
    d = c.dim
    block = 12 * d * d + 13 * d
    tables = 12_000 + (4096 + spec.head) + 1 + 4096 + 32 + 129 + 129
    assert sum(p.numel() for p in model.parameters()) == 72 * block + tables * d + 2 * d


def test_what_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="kind=events"):
        MuseNet(MuseNetConfig(), MusicSpec("voices", 16, 4, 16, ("melody",), (0,)))
    for wrong in ({"heads": 3}, {"layers": 0}, {"dropout": 1.0}, {"unknown": 2.0}):
        with pytest.raises(ValueError):
            MuseNetConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="text"):
        MuseNetSampling(stop="x")
