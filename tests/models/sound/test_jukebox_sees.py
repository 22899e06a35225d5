"""Jukebox: what its priors see and are told, codes that begin anew, sizes of the paper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from castalia.core.data import Batch
from castalia.core.model import build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.spec import LabelSpec
from castalia.core.specs.audio import AudioSpec
from castalia.media.captions import caption_columns
from castalia.models.autoencoders.quantiser import Quantiser
from castalia.models.sound.codec import Level, spectral_convergence, spectral_loss
from castalia.models.sound.jukebox import Jukebox, JukeboxConfig
from castalia.models.sound.prior import LETTERS, Known, Prior, behind
from castalia.nn.causal import Cache, CausalAttention
from castalia.nn.sparse import block, column, previous
from castalia.recipes import jukebox as recipes

SPEC = AudioSpec(8000, 1, 128, ("a", "i", "u"), columns=(("speaker", LabelSpec(("anna", "ben"))), *caption_columns(6)))
SMALL = replace(recipes.tiny().config, letters=5, drop=0.3)
WHEN = torch.tensor([[1.0, 0.25, 0.25]])
CODES = torch.arange(16)[None]


def louder(module: nn.Module) -> None:
    """Weights large enough that everything is heard."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                part.weight.mul_(8)


def a_prior(ratio: int = 0, layers: int = 3) -> Prior:
    torch.manual_seed(1)
    prior = Prior(16, 16, 4, 5, 2, 3, ratio, 16, layers, 2, 0.0, 16, 32)
    louder(prior)
    return prior.eval()


def known(speaker: int = 0, label: int = 0) -> Known:
    return Known(torch.tensor([speaker]), torch.tensor([label]), torch.tensor([[97, 98, 99, 100, 101]]))


def logits(prior: Prior, who: Known, above: torch.Tensor | None = None) -> torch.Tensor:
    return prior.through(prior.inputs(CODES[:, :-1], who, WHEN, above))[:, prior.front - 1 :, : prior.codes]


def test_a_code_is_told_what_is_above_it_where_it_is_predicted():
    """Without convolutions over the codes above, each stands for exactly its own four codes."""
    prior = a_prior(ratio=4)
    assert prior.above is not None
    with torch.no_grad():
        for convolution in prior.above.convolutions:
            convolution.weight.zero_()
    above = torch.tensor([[3, 8, 1, 12]])
    before = logits(prior, known(), above)
    for j in range(4):
        other = above.clone()
        other[0, j] = (above[0, j] + 7) % 16
        after = logits(prior, known(), other)
        torch.testing.assert_close(after[:, : 4 * j], before[:, : 4 * j], rtol=0, atol=1e-5)
        assert all((after[:, 4 * j + k] - before[:, 4 * j + k]).abs().max() > 1e-3 for k in range(4))


def test_three_layers_of_patterns_reach_everything():
    """By gradients: the last code's logits depend on every code before it, and two layers do not do it."""

    def heard(layers: int) -> torch.Tensor:
        prior = a_prior(layers=layers)
        h = prior.inputs(CODES[:, :-1], known(), WHEN, None).detach().requires_grad_()
        prior.through(h)[0, -1].square().sum().backward()
        assert h.grad is not None
        return h.grad[0, prior.front :].abs().sum(1) > 0

    assert heard(3).all()
    assert not heard(2).all()
    i, j = torch.arange(16)[:, None], torch.arange(16)
    masks = [f(4)(i, j) & (j <= i) for f in (block, column, previous)]
    assert [int(mask[13].sum()) for mask in masks] == [2, 4, 4]
    reach = torch.eye(16)
    for mask in masks:
        reach = (mask.float() + torch.eye(16)) @ reach  # what is seen, and what is kept
    assert ((reach > 0) == (j <= i)).all()


def test_words_are_seen_by_all_layers_and_predicted_from_those_before():
    i, j = torch.arange(22)[:, None], torch.arange(22)
    assert all(behind(pattern, 6)(i, j)[:, :6].all() for pattern in (block(4), column(4), previous(4)))
    prior, first = a_prior(layers=1), known()
    second = replace(first, words=torch.tensor([[97, 98, 99, 122, 101]]))
    assert ((logits(prior, first) - logits(prior, second)).abs().amax((0, 2)) > 1e-4).all()
    (_, one), (_, two) = (prior(CODES, who, WHEN, None) for who in (first, second))
    torch.testing.assert_close(one[:, :3], two[:, :3], rtol=0, atol=1e-5)
    assert (one[:, 3:] - two[:, 3:]).abs().amin() > 0
    short = prior.words(replace(first, words=torch.tensor([[104, 105, -1]])))
    assert short.tolist() == [[16 + 104, 16 + 105, *[16 + LETTERS - 1] * 3]]


def test_voices_classes_and_times_are_heard():
    prior = a_prior()
    plain = logits(prior, known())
    for other in (known(speaker=1), known(speaker=2), known(label=2), known(label=3)):
        assert (logits(prior, other) - plain).abs().max() > 1e-2
    changes = ([0, 0, 0], [2, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [-9, -9, -9])
    begun = [prior.begin(known(), WHEN + torch.tensor(change)) for change in changes]
    assert len({tuple(b[0].tolist()) for b in begun}) == 5


def test_what_is_asked_for_changes_what_is_drawn():
    model = build(Jukebox, SMALL, SPEC).eval()
    assert isinstance(model, Jukebox)
    louder(model.priors)
    assert set(model.accepts()) == {"label", "speaker", "caption", "prompt"}
    zero, rng = torch.zeros(64, dtype=torch.int64), SampleRng(0, range(64))
    base = {"label": zero, "speaker": zero, "caption": torch.full((64, 6), -1)}
    plain = model.sample(64, base, rng=rng).x
    assert torch.equal(model.sample(64, base, rng=rng).x, plain)
    for name, other in (("label", zero + 2), ("speaker", zero + 1), ("caption", torch.full((64, 6), 104))):
        assert not torch.equal(model.sample(64, {**base, name: other}, rng=rng).x, plain)


def test_a_share_of_examples_is_learned_without_anything_told():
    model = build(Jukebox, SMALL, SPEC)
    assert isinstance(model, Jukebox)
    extra = {"speaker": torch.ones(400, dtype=torch.int64), "caption": torch.full((400, 6), 97)}
    told = model._known(Batch.of(torch.zeros(400, 1, 8), torch.full((400,), 2), extra), BatchRng(0, total=400))
    hidden = told.speaker == 2
    assert 0.2 < hidden.float().mean() < 0.4
    assert (told.speaker[~hidden] == 1).all()
    assert told.label.tolist() == torch.where(hidden, 3, 2).tolist()
    assert torch.equal((told.words == -1).all(1), hidden)


@pytest.mark.parametrize(("restart", "least", "most"), [(0.1, 0.9, 1.0), (0.0, 0.0, 0.5)])
def test_codes_that_begin_anew_are_used(restart, least, most):
    """All 32 codes begin at one place, and the vectors lie in 32 others."""
    g = torch.Generator().manual_seed(0)
    book = Quantiser(32, 4, "ema", 0.9, restart)
    book.begin(0.01 * torch.randn(32, 4, generator=g))
    centres = 3 * torch.randn(32, 4, generator=g)
    for step in range(200):
        z = centres[torch.randint(32, (256,), generator=g)] + 0.02 * torch.randn(256, 4, generator=g)
        book.follow(z, book.nearest(z), BatchRng(step, total=1))
    chosen = book.nearest(centres[torch.arange(3200) % 32] + 0.02 * torch.randn(3200, 4, generator=g))
    assert least <= len(chosen.unique()) / 32 <= most


def test_spectra_are_compared_in_shares_of_their_strength():
    resolutions = ((256, 64, 256), (128, 32, 100))
    x = 0.3 * torch.randn(3, 1, 1000, generator=torch.Generator().manual_seed(0))
    for scale in (0.0, 0.1, 0.5, 1.0, 2.0):
        assert spectral_loss(x, scale * x, resolutions).item() == pytest.approx(abs(1 - scale), abs=1e-3)
    assert spectral_convergence(x, 0.9 * x, resolutions[0]).tolist() == pytest.approx([-20.0] * 3, abs=0.01)
    same = x.clone().requires_grad_()
    spectral_loss(x, same, resolutions).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()  # a clip that is met exactly breaks nothing


def test_the_encoder_has_the_gradient_of_the_decoder_at_the_codes():
    level = Level(1, 2, 8, 1, 3, 16, 4, 0.99, 0.1)
    y, z, index, _ = level.through(torch.randn(2, 1, 64))
    weight = torch.randn_like(y)
    (found,) = torch.autograd.grad((y * weight).sum(), z)
    quantised = level.quantiser.vectors(index).detach().requires_grad_()
    again = level.decoder(quantised.view(2, -1, 4).transpose(1, 2))
    (expected,) = torch.autograd.grad((again * weight).sum(), quantised)
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0


def test_attention_may_be_narrow():
    layer = CausalAttention(16, 2, inner=4)
    assert [tuple(p.shape) for p in layer.parameters()] == [(12, 16), (12,), (16, 4), (16,)]
    x, cache = torch.randn(2, 5, 16), Cache.empty(2, 2, 5, 2, torch.float32, torch.device("cpu"))
    steps = [layer(x[:, t : t + 1], cache, torch.full((2, 1), t)) for t in range(5)]
    torch.testing.assert_close(torch.cat(steps, 1), layer(x), rtol=1e-4, atol=1e-5)


def test_sizes_of_the_papers_recipe():
    """Autoencoders of 1.4 million by the multipliers of the paper; priors said to be of 1, 1 and 5 billion."""
    config = recipes.paper().config
    assert isinstance(config, JukeboxConfig)
    with torch.device("meta"):
        model = Jukebox(config, AudioSpec(44_100, 1, 8192 * 128, columns=caption_columns(512)))

    def count(*modules: nn.Module) -> int:
        return sum(p.numel() for m in modules for p in m.parameters())

    assert 1.4e6 < sum(count(level.encoder, level.decoder) for level in model.levels) < 2e6
    assert [round(count(prior) / 1e9, 2) for prior in model.priors] == [0.87, 0.87, 5.04]
    assert (model.config.hops, [model.context(i) for i in range(3)]) == ((8, 32, 128), [8192] * 3)


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_recipe_can_be_built(name):
    recipe = recipes.RECIPES[name]()
    config, options = recipe.config, recipe.data.options
    assert isinstance(config, JukeboxConfig)
    rate = options.rate or 8000
    with torch.device("meta"):
        model = Jukebox(config, AudioSpec(rate, 1, options.samples(rate)))
    for i, (below, above) in enumerate(zip(config.hops, config.hops[1:], strict=False)):
        assert model.context(i) % (above // below) == 0
