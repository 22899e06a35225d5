"""DALL-E: the distribution over pixels, masks, the chain rule, the cache, and the choice among candidates."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from castalia.core.captions import bytes_of
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.models.multimodal.dalle import DALLE, DALLEConfig, DALLEOptions
from castalia.models.multimodal.dalle_network import PriorConfig, Transformer, kinds, pattern
from castalia.models.multimodal.dvae import (
    CodesConfig,
    Decoder,
    Encoder,
    inward,
    kl_to_even,
    log_prob,
    outward,
    relaxed,
)
from castalia.recipes import recipe
from tests.models.multimodal.captioned import scenes, some


def model(**changes: Any) -> DALLE:
    config = recipe("dalle-tiny").config
    assert isinstance(config, DALLEConfig)
    data = scenes()
    made = build(DALLE, DALLE.complete(replace(config, **changes), data), data.spec)
    assert isinstance(made, DALLE)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=g))
    return made.eval()


# pixels and codes


def test_the_distribution_over_pixels_integrates_to_one() -> None:
    x = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for location, scale in ((0.0, 0.0), (1.3, -1.0), (-2.0, 0.5)):
        outputs = torch.tensor([location, scale]).view(1, 2, 1, 1).expand(200_000, 2, 1, 1)
        density = log_prob(outputs, x.float().view(-1, 1, 1, 1)).double().exp()
        assert float(density.mean()) == pytest.approx(1.0, abs=2e-3)


def test_the_scale_of_pixels_has_a_least_value() -> None:
    """Nothing is gained by being surer; and where that was wrong, the gradient leads out again."""
    x = torch.full((1, 1, 1, 1), 0.5)

    def nats(location: float, scale: float, narrowest: float) -> torch.Tensor:
        outputs = torch.tensor([location, scale], requires_grad=True)
        found = log_prob(outputs.view(1, 2, 1, 1), x, narrowest)
        found.sum().backward()
        assert outputs.grad is not None
        gradients.append(float(outputs.grad[1]))
        return found.detach()

    gradients: list[float] = []
    torch.testing.assert_close(nats(0.0, -30.0, -2.0), nats(0.0, -15.0, -2.0), atol=1e-4, rtol=0)
    wide = -math.log(2) + 2 + math.log(4)
    assert float(nats(0.0, -30.0, -2.0)) == pytest.approx(wide, abs=1e-3)
    assert float(nats(0.0, -5.0, -7.0)) > wide + 2
    gradients.clear()
    nats(3.0, -4.0, -2.0)
    assert gradients[0] > 1
    for narrowest in (-11.0, 7.0):
        with pytest.raises(ValueError, match="narrowest"):
            CodesConfig(narrowest=narrowest)


def test_pictures_survive_the_way_in_and_out() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    location = torch.logit(inward(x))
    assert torch.equal(outward(torch.cat([location, torch.zeros_like(location)], 1)), x)


def test_relaxation_becomes_a_choice_as_it_cools_and_draws_in_proportion() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(40_000, 3, 1, 1)
    uniform = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0))
    cold = relaxed(logits, uniform, 1e-3)
    assert float((cold.amax(1) > 0.999).float().mean()) > 0.98
    shares = cold.round().mean(0).flatten()
    torch.testing.assert_close(shares, torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0), rtol=0, atol=0.02)
    warm = relaxed(logits, uniform, 1.0)
    torch.testing.assert_close(warm.sum(1), torch.ones(40_000, 1, 1))


def test_kl_to_even_codes() -> None:
    even = torch.zeros(2, 8, 3, 3)
    assert float(kl_to_even(even).abs().max()) < 1e-5
    sure = torch.zeros(1, 8, 1, 1)
    sure[0, 3] = 50.0
    assert kl_to_even(sure).item() == pytest.approx(math.log(8), abs=1e-5)


def test_a_code_number_is_its_one_hot_vector() -> None:
    decoder = Decoder(CodesConfig(codes=12, width=8, levels=2, blocks=1, entry=8), 3)
    codes = torch.randint(0, 12, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    hot = F.one_hot(codes, 12).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(decoder.of_codes(codes), decoder(hot), rtol=1e-4, atol=1e-5)


def test_sizes_of_the_papers_autoencoder() -> None:
    """From the layers of appendix A.1: 256 channels, four levels of two blocks, 8,192 codes."""
    with torch.device("meta"):
        encoder, decoder = Encoder(CodesConfig(), 3), Decoder(CodesConfig(), 3)

    def residual(i: int, o: int, kernels: tuple[int, ...]) -> int:
        h = o // 4
        sizes = (i, h, h, h, o)
        convs = sum(a * b * k * k + b for a, b, k in zip(sizes, sizes[1:], kernels, strict=False))
        return convs + (i * o + o if i != o else 0)

    widths = [256, 256, 512, 1024, 2048]
    blocks = sum(residual(a, b, (3, 3, 3, 1)) + residual(b, b, (3, 3, 3, 1)) for a, b in pairwise(widths))
    assert sum(p.numel() for p in encoder.parameters()) == 3 * 256 * 49 + 256 + blocks + 2048 * 8192 + 8192
    back = [128, 2048, 1024, 512, 256]
    blocks = sum(residual(a, b, (1, 3, 3, 3)) + residual(b, b, (1, 3, 3, 3)) for a, b in pairwise(back))
    assert sum(p.numel() for p in decoder.parameters()) == 8192 * 128 + 128 + blocks + 256 * 6 + 6


def test_the_papers_transformer_has_twelve_billion_parameters() -> None:
    with torch.device("meta"):
        network = Transformer(PriorConfig(), 16_384, 256, 8_192, 32, 32)
    assert sum(p.numel() for p in network.parameters()) / 1e9 == pytest.approx(12.0, abs=0.4)
    assert kinds(64)[:8] == ["row", "column", "row", "row", "row", "column", "row", "row"]
    assert kinds(64)[-1] == "square"


# masks and the chain rule


@pytest.mark.parametrize("kind", ["row", "column", "square"])
def test_masks_are_what_the_words_say(kind: str) -> None:
    """Written down cell by cell for 3 words and 4x5 codes."""
    length, rows, columns, square = 3, 4, 5, 3
    sees = pattern(kind, length, columns, square)
    for i in range(length + rows * columns):
        for j in range(i + 1):
            found = bool(sees(torch.tensor(i), torch.tensor(j)))
            if i < length or j < length:
                assert found
                continue
            (r, c), (s, d) = divmod(i - length, columns), divmod(j - length, columns)
            wanted = {
                "row": s == r or (s == r - 1 and d >= c),
                "column": d == c,
                "square": r - s <= 1 and abs(c - d) <= 1,
            }[kind]
            assert found == wanted, (i, j)


def test_sparse_attention_equals_dense_attention_with_a_mask() -> None:
    made = model().prior
    torch.manual_seed(0)
    h = torch.randn(2, made.length + 6, 16)
    block = made.blocks[0]
    q, k, v = block.attention.qkv(block.norm1(h)).view(2, -1, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
    t = h.shape[1]
    at = torch.arange(t)
    mask = (at[:, None] >= at) & pattern("row", made.length, made.columns, 3)(at[:, None], at)
    scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~mask, float("-inf"))
    dense = block.attention.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, t, 16))
    torch.testing.assert_close(block.attention(block.norm1(h)), dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masks", ["sparse", "dense"])
def test_no_token_sees_what_comes_after_it(masks: str) -> None:
    config = recipe("dalle-tiny").config
    made = model(prior=replace(config.prior, masks=masks)).prior  # type: ignore[attr-defined]
    words = torch.randint(258, 280, (1, made.length), generator=torch.Generator().manual_seed(0))
    codes = torch.randint(0, 32, (1, made.cells), generator=torch.Generator().manual_seed(1))
    text, picture = made(words, codes)
    other = codes.clone()
    other[0, 5] = (other[0, 5] + 1) % 32
    text2, picture2 = made(words, other)
    assert torch.equal(text, text2)
    assert torch.equal(picture[:, :6], picture2[:, :6])
    assert not torch.equal(picture[:, 6:], picture2[:, 6:])
    changed = words.clone()
    changed[0, 4] = 257
    assert torch.equal(made(changed, codes)[0][:, :4], text[:, :4])


def test_probabilities_of_all_small_pictures_sum_to_one() -> None:
    network = Transformer(PriorConfig(2, 2, 8, 0.0, 3), 4, 2, 3, 1, 3).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        grid = torch.cartesian_prod(*[torch.arange(3)] * 3)
        words = torch.tensor([[1, 2]]).expand(27, -1)
        _, nats = network.nats(words, grid)
    assert float((-nats.double().sum(1)).exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_the_cache_writes_what_the_whole_network_says() -> None:
    """Greedy codes with a cache are the likeliest codes of the network without one, step by step; with guidance too."""
    made = model()
    words = made.words.tokens(bytes_of(["a large red star at the top", "a small blue ring and a large green heart"]))
    for scale in (1.0, 2.0):
        options = DALLEOptions(temperature=0.0, guidance=scale)
        codes = made._written(words, SampleRng(0, range(2)), options)
        with torch.no_grad():
            _, asked = made.prior(made.prior.padded(words), codes)
            nothing = made.prior.padded(made.words.nothing(2, words.device))
            _, plain = made.prior(nothing, codes)
        assert torch.equal((plain + scale * (asked - plain)).argmax(-1), codes)


# the losses


def test_loss_of_the_transformer_weighs_words_and_codes() -> None:
    made, batch = model(caption_drop=0.0), some(4)
    data = made.encoded(scenes())
    import numpy as np

    encoded = data.batch(np.arange(4))
    loss, _ = made.prior_loss(encoded, BatchRng(0, total=4), Progress(0, 1))
    text, picture = made.log_prob(batch)
    words, cells = made.prior.length - 1, made.prior.cells
    wanted = -(text / words / 8 + picture / cells * 7 / 8).mean()
    assert loss.item() == pytest.approx(float(wanted), rel=1e-4)


def test_temperature_and_kl_follow_the_paper() -> None:
    made = model()
    assert made.heat(0.0) == 1.0
    assert made.heat(1.0) == pytest.approx(1 / 16)
    assert made.heat(0.5) == pytest.approx(0.5 * (1 + 1 / 16))
    start, _ = made.code_loss(some(4), BatchRng(0, total=4), Progress(0, 100))
    later, logs = made.code_loss(some(4), BatchRng(0, total=4), Progress(10, 100))
    cooler, _ = model(kl=0.0).code_loss(some(4), BatchRng(0, total=4), Progress(10, 100))
    assert later.item() - cooler.item() == pytest.approx(6.6 / 192 * logs["kl"].item() / (4 * 4), rel=1e-3)
    assert math.isfinite(start.item())


# drawing


def test_the_best_of_many_is_what_clip_finds_nearest() -> None:
    made = model()
    captions = bytes_of(["a large red star at the top"] * 3)
    rng = SampleRng(0, range(3))
    best = made.sample(3, {"caption": captions}, rng=rng, options=DALLEOptions(candidates=4)).x
    words = made.words.tokens(captions)
    vector = made.of_texts(["a large red star at the top"])[0]
    likeness = []
    for i in range(4):
        codes = made._written(words, rng.at("candidate", i) if i else rng, DALLEOptions())
        likeness.append(made.of_pictures(made.pictures(codes.view(3, made.rows, made.columns))) @ vector)
    torch.testing.assert_close(made.of_pictures(best) @ vector, torch.stack(likeness).amax(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="judged"):
        model(judged=False).sample(1, rng=SampleRng(0, [0]), options=DALLEOptions(candidates=2))


def test_without_a_caption_it_writes_one() -> None:
    drawn = model().sample(4, rng=SampleRng(0, range(4)))
    assert drawn.extra["caption"].shape[0] == 4


def test_cells_that_do_not_fit() -> None:
    config = recipe("dalle-tiny").config
    assert isinstance(config, DALLEConfig)
    with pytest.raises(ValueError, match="cells of 64 pixels"):
        build(DALLE, replace(config, codes=CodesConfig(codes=4, width=4, levels=7, blocks=1)), scenes().spec)
