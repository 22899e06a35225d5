"""DALL-E 2: parity of the prior with diffusers, what is dropped and held, variations, mixes, and the upsampler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import PriorTransformer
from torch import nn

from castalia.core.captions import bytes_of
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.sampling import Preview
from castalia.creative import latents
from castalia.models.diffusion.process import Process, ProcessConfig, guided
from castalia.models.multimodal.clip import CLIP
from castalia.models.multimodal.embeddings_prior import EmbeddingPrior, EmbeddingPriorConfig, scaled
from castalia.models.multimodal.unclip import UnCLIP, UnCLIPConfig, UnCLIPOptions
from castalia.nn.pixels import inward, outward
from castalia.recipes import recipe
from tests.models.multimodal.captioned import scenes, some


def model(**changes: Any) -> UnCLIP:
    config = recipe("unclip-tiny").config
    assert isinstance(config, UnCLIPConfig)
    data = scenes(8)
    made = build(UnCLIP, UnCLIP.complete(replace(config, **changes), data), data.spec)
    assert isinstance(made, UnCLIP)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return made.eval()


def copy(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.load_state_dict(ours.state_dict())


def test_the_prior_equals_that_of_diffusers_on_shared_weights() -> None:
    torch.manual_seed(0)
    ours = EmbeddingPrior(EmbeddingPriorConfig(width=24, layers=2, heads=2), 10, 14, 6).eval()
    theirs = PriorTransformer(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, embedding_dim=10, num_embeddings=6,
        additional_embeddings=4, dropout=0.0,
    ).eval()  # fmt: skip
    theirs.encoder_hidden_states_proj = nn.Linear(14, 24)
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(0.3 * torch.randn(p.shape))
        theirs.positional_embedding.copy_(ours.places[None])
        theirs.prd_embedding.copy_(ours.query.view(1, 1, -1))
        copy(ours.words, theirs.encoder_hidden_states_proj)
        copy(ours.caption, theirs.embedding_proj)
        copy(ours.picture, theirs.proj_in)
        copy(ours.time[0], theirs.time_embedding.linear_1)
        copy(ours.time[2], theirs.time_embedding.linear_2)
        copy(ours.norm, theirs.norm_out)
        copy(ours.out, theirs.proj_to_clip_embeddings)
        for block, other in zip(ours.blocks, theirs.transformer_blocks, strict=True):
            copy(block.norm1, other.norm1)
            copy(block.norm2, other.norm3)
            for name, weight, bias in zip(
                ("to_q", "to_k", "to_v"),
                block.attention.qkv.weight.chunk(3),
                block.attention.qkv.bias.chunk(3),
                strict=True,
            ):
                getattr(other.attn1, name).weight.copy_(weight)
                getattr(other.attn1, name).bias.copy_(bias)
            copy(block.attention.out, other.attn1.to_out[0])
            copy(block.up, other.ff.net[0].proj)
            copy(block.down, other.ff.net[2])
            other.ff.net[0].approximate = "tanh"  # ours is GELU's usual approximation; they differ by up to 5e-4
        z, caption, words = torch.randn(3, 10), torch.randn(3, 10), torch.randn(3, 6, 14)
        t = torch.tensor([0, 17, 999])
        found = ours(z, t.float(), words, caption)
        wanted = theirs(z, t, caption, words, torch.ones(3, 6)).predicted_image_embedding
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_papers_prior_is_about_a_billion() -> None:
    with torch.device("meta"):
        prior = EmbeddingPrior(EmbeddingPriorConfig(), 768, 768, 77)
    # 24 blocks of width 2,048: 12 width^2 each; the paper rounds to 1 B
    assert sum(p.numel() for p in prior.parameters()) == pytest.approx(1.0e9, rel=0.25)
    block = 12 * 2048**2 + 13 * 2048
    assert sum(p.numel() for p in prior.blocks.parameters()) == 24 * block


def test_embeddings_have_values_of_order_one() -> None:
    z = scaled(torch.randn(5, 16) * 37)
    torch.testing.assert_close(z.square().mean(1), torch.ones(5))


def test_guided_predictions_are_the_affine_mix() -> None:
    one, two = (lambda x, t: x + 1), (lambda x, t: 2 * x)
    x, t = torch.randn(3), torch.zeros(3)
    torch.testing.assert_close(guided(one, two, 3.0)(x, t), 2 * x + 3 * ((x + 1) - 2 * x))
    assert guided(one, two, 1.0) is one


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_the_process_knows_a_perfect_network(prediction: Any) -> None:
    """A network that knows the example has no loss, and its denoiser gives the example at every level."""
    process = Process(ProcessConfig(prediction=prediction))
    x0 = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))

    def call(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sigma = process.sigmas[t.long()].view(-1, 1, 1, 1).double()
        alpha = 1 / (1 + sigma**2).sqrt()
        noise = alpha * sigma
        eps = (x.double() - alpha * x0) / noise
        return {"eps": eps, "x0": x0.double(), "v": alpha * eps - noise * x0}[prediction].float()

    loss = process.loss(call, x0, BatchRng(0, total=4))
    assert float(loss.max()) < 1e-4
    for t in (3, 400, 990):
        sigma = float(process.table.sigmas[t])
        x = x0 + sigma * torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(t))
        torch.testing.assert_close(process.denoise(call)(x, sigma), x0, rtol=1e-2, atol=2e-2)


def test_what_is_dropped_is_not_seen() -> None:
    """With everything dropped, neither loss depends on the captions; with nothing dropped both do."""
    batch = some(8, 8)
    other = Batch(batch.x, batch.ids, None, {"caption": batch.extra["caption"].flip(0)})
    for share, same in ((0.999999, True), (0.0, False)):
        made = model(drop_caption=share, drop_words=share)
        for loss in (made.prior_loss, made.decoder_loss):
            a, b = (loss(x, BatchRng(0, total=8), Progress(0, 1))[0].item() for x in (batch, other))
            assert (a == b) == same


def test_a_sample_is_of_the_embedding_that_is_given() -> None:
    made, rng = model(), SampleRng(0, range(3))
    z = made.encode(some(3, 8))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    one = made.sample(3, {"embedding": z}, rng=rng).x
    assert torch.equal(one, made.sample(3, {"embedding": 5 * z}, rng=rng).x)  # of any length
    assert not torch.equal(one, made.sample(3, {"embedding": z.flip(0)}, rng=rng).x)
    captions = bytes_of(["a large red star at the top"] * 3)
    both = made.sample(3, {"embedding": z, "caption": captions}, rng=rng).x
    assert not torch.equal(one, both)  # the words are added to the picture


def test_the_nearer_of_two_embeddings_is_kept() -> None:
    tokens = model().words.tokens(bytes_of(["a large red star at the top"] * 4))
    rng = SampleRng(3, range(4))
    near = []
    for candidates in (1, 4):
        made = model(candidates=candidates)
        z, caption = made.embedding(tokens, rng, UnCLIPOptions()), made.encoded(tokens)[1]
        near.append((z * caption).sum(1))
    assert bool((near[1] >= near[0] - 1e-5).all())
    assert bool((near[1] > near[0] + 1e-4).any())


def test_a_variation_keeps_what_is_outside_the_mask_and_changes_inside() -> None:
    made, batch = model(), some(2, 8)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    drawn = made.refine(batch, mask=mask, rng=SampleRng(0, range(2))).x
    assert torch.equal(drawn[..., 4:], batch.x[..., 4:])
    assert not torch.equal(drawn[..., :4], batch.x[..., :4])


def test_previews_count_decoder_and_upsampler_and_end_with_the_sample() -> None:
    made, seen = model(), list[Preview]()
    drawn = made.sample(2, rng=SampleRng(0, range(2)), watch=seen.append)
    assert [p.step for p in seen] == list(range(1, 25))
    assert {p.steps for p in seen} == {24}
    assert torch.equal(seen[-1].examples().x, drawn.x)


def test_without_an_upsampler_pictures_are_drawn_whole() -> None:
    made = model(upsample=1)
    assert not hasattr(made, "upsampler")
    assert made.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, 3, 8, 8)
    assert [s.name for s in made.stages()] == ["clip", "prior", "decoder"]
    with pytest.raises(ValueError, match="does not divide"):
        model(upsample=3)


def test_shrinking_and_units() -> None:
    made, x = model(), torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(outward(inward(x)), x)
    torch.testing.assert_close(made.shrunk(inward(x)), F.avg_pool2d(inward(x), 2))


def test_a_finished_clip_saves_its_training() -> None:
    made = model()
    clip = build(CLIP, made.config.clip, made.spec, seed=3)
    made.initialise(scenes(8), BatchRng(0, total=1), {"clip": clip})
    assert all(torch.equal(a, b) for a, b in zip(made.clip.parameters(), clip.parameters(), strict=True))
    other = build(CLIP, replace(made.config.clip, dims=4), made.spec)
    with pytest.raises(UsageError, match="same configuration"):
        made.initialise(scenes(8), BatchRng(0, total=1), {"clip": other})


def test_pictures_are_mixed_by_their_embeddings() -> None:
    """Frames of a walk: the first and last are decodings of the two pictures' own embeddings."""
    made, batch = model(), some(2, 8)
    z = made.encode(batch)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
    frames = latents.interpolate(made, Batch.of(batch.x[:1]), Batch.of(batch.x[1:]), 3)
    torch.testing.assert_close(frames[0, 0].float(), made.decode(z[:1]).x[0].float(), atol=1.0, rtol=0)
    torch.testing.assert_close(frames[0, -1].float(), made.decode(z[1:]).x[0].float(), atol=1.0, rtol=0)
    assert bool(made.posterior_kl(batch).isinf().all())
