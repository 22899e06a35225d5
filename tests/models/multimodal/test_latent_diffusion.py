"""Latent diffusion: parity with diffusers on shared weights, the first stage's losses, and what is held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from castalia.core.captions import bytes_of
from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.diffusion.process import WordsDrawing
from castalia.models.diffusion.transformer import Transformer, TransformerConfig
from castalia.models.multimodal.first_stage import Critic, Decoder, Encoder, FirstStageConfig, distance
from castalia.models.multimodal.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from castalia.models.multimodal.unet import WordAttention, WordUNet
from castalia.nn.attention import PictureAttention
from castalia.nn.pixels import inward
from castalia.nn.unet import ResidualBlock, UNetConfig
from castalia.recipes import recipe
from castalia.training import sentences
from tests.models.multimodal.captioned import scenes, some


def model(spec: ImageSpec | None = None, **changes: Any) -> LatentDiffusion:
    config = recipe("latent-diffusion-tiny").config
    assert isinstance(config, LatentDiffusionConfig)
    data = scenes(8)
    config = replace(config, **changes)
    made = build(LatentDiffusion, LatentDiffusion.complete(config, data), spec or data.spec)
    assert isinstance(made, LatentDiffusion)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return made.eval()


def copy(ours: nn.Module, theirs: Any) -> None:
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if k in theirs.state_dict()})


def copy_block(ours: Any, theirs: Any, told: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
    for name in ("norm1", "conv1", "norm2", "conv2"):
        copy(getattr(ours, name), getattr(theirs, name))
    if theirs.conv_shortcut is not None:
        copy(ours.skip, theirs.conv_shortcut)
    if told is not None:
        theirs.time_emb_proj.weight.copy_(told[0])
        theirs.time_emb_proj.bias.copy_(told[1])


def copy_attention(ours: PictureAttention, theirs: Any) -> None:
    copy(ours.norm, theirs.group_norm)
    for name, weight, bias in zip(
        ("to_q", "to_k", "to_v"),
        ours.qkv.weight.chunk(3),
        ours.qkv.bias.chunk(3),
        strict=True,  # type: ignore[union-attr]
    ):
        getattr(theirs, name).weight.copy_(weight[:, :, 0, 0])
        getattr(theirs, name).bias.copy_(bias)
    theirs.to_out[0].weight.copy_(ours.out.weight[:, :, 0, 0])
    theirs.to_out[0].bias.copy_(ours.out.bias)


def stir(module: nn.Module) -> None:
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=g) / (p[0].numel() ** 0.5 if p.ndim > 1 else 1) * 3)


@torch.no_grad()
def test_the_first_stage_equals_autoencoder_kl_on_shared_weights() -> None:
    config = FirstStageConfig(channels=(8, 16), blocks=2, latent=3, groups=4)
    encoder, decoder = Encoder(config, 3, 6), Decoder(config, 3)
    stir(encoder)
    stir(decoder)
    theirs = AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), layers_per_block=2, latent_channels=3, norm_num_groups=4,
    ).eval()  # fmt: skip
    copy(encoder.first, theirs.encoder.conv_in)
    layers = iter(encoder.layers)
    for level in theirs.encoder.down_blocks:
        for resnet in level.resnets:
            copy_block(next(layers), resnet)
        for step in level.downsamplers or ():
            copy(next(layers), step.conv)
    for ours, other in ((encoder, theirs.encoder), (decoder, theirs.decoder)):
        copy_block(ours.middle[0], other.mid_block.resnets[0])
        copy_attention(ours.middle[1], other.mid_block.attentions[0])  # type: ignore[arg-type]
        copy_block(ours.middle[2], other.mid_block.resnets[1])
        copy(ours.norm, other.conv_norm_out)
        copy(ours.last, other.conv_out)
    copy(encoder.quant, theirs.quant_conv)
    copy(decoder.quant, theirs.post_quant_conv)
    copy(decoder.first, theirs.decoder.conv_in)
    layers = iter(decoder.layers)
    for level in theirs.decoder.up_blocks:
        for resnet in level.resnets:
            copy_block(next(layers), resnet)
        for step in level.upsamplers or ():
            copy(next(layers), step.conv)
    x, z = torch.randn(2, 3, 16, 12), torch.randn(2, 3, 8, 6)
    posterior = theirs.encode(x).latent_dist
    torch.testing.assert_close(encoder(x).chunk(2, 1)[0], posterior.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoder(z), theirs.decode(z).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_network_equals_unet_2d_condition_on_shared_weights() -> None:
    config = UNetConfig(
        channels=(8, 16), blocks=1, attention=(0, 1), heads=2, groups=4, cos_first=True, freq_shift=0.0, eps=1e-5
    )
    ours = WordUNet(config, 3, 3, 10).eval()
    stir(ours)
    theirs = UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=10, attention_head_dim=2, norm_num_groups=4,
    ).eval()  # fmt: skip
    told = iter(zip(ours.projection.weight.split(ours._widths), ours.projection.bias.split(ours._widths), strict=True))

    def words(mine: Any, other: Any) -> None:
        copy(mine.norm, other.norm)
        copy(mine.enter, other.proj_in)
        copy(mine.leave, other.proj_out)
        block, peer = mine.blocks[0], other.transformer_blocks[0]
        for name in ("norm1", "norm2", "norm3"):
            copy(getattr(block, name), getattr(peer, name))
        for attention, their in ((block.own, peer.attn1), (block.cross, peer.attn2)):
            for name, layer in (("to_q", attention.query), ("to_k", attention.key), ("to_v", attention.value)):
                copy(layer, getattr(their, name))
            copy(attention.out, their.to_out[0])
        copy(block.up, peer.ff.net[0].proj)
        copy(block.down, peer.ff.net[2])

    copy(ours.first, theirs.conv_in)
    copy(ours.time[0], theirs.time_embedding.linear_1)
    copy(ours.time[2], theirs.time_embedding.linear_2)
    for level, other in zip(ours.down, theirs.down_blocks, strict=True):
        for i, (block, attention) in enumerate(zip(level.blocks, level.attentions, strict=True)):
            copy_block(block, other.resnets[i], next(told))
            words(attention, other.attentions[i])
        if level.step is not None:
            copy(level.step.conv, other.downsamplers[0].conv)
    copy_block(ours.middle[0], theirs.mid_block.resnets[0], next(told))
    words(ours.middle[1], theirs.mid_block.attentions[0])
    copy_block(ours.middle[2], theirs.mid_block.resnets[1], next(told))
    for level, other in zip(ours.up, theirs.up_blocks, strict=True):
        for i, (block, attention) in enumerate(zip(level.blocks, level.attentions, strict=True)):
            copy_block(block, other.resnets[i], next(told))
            words(attention, other.attentions[i])
        if level.step is not None:
            copy(level.step.conv, other.upsamplers[0].conv)
    copy(ours.norm, theirs.conv_norm_out)
    copy(ours.last, theirs.conv_out)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    x, context, t = torch.randn(3, 3, 8, 8), torch.randn(3, 5, 10), torch.tensor([0, 17, 999])
    torch.testing.assert_close(ours.look(x, t.float(), context), theirs(x, t, context).sample, rtol=1e-3, atol=1e-4)


def test_sizes_of_the_paper() -> None:
    """KL-f8: 83,653,863 weights, as its published files hold; the network of 320 channels with words of 1,280."""
    with torch.device("meta"):
        first = FirstStageConfig()
        both = nn.ModuleList([Encoder(first, 3, 8), Decoder(first, 3)])
        network = WordUNet(
            UNetConfig(channels=(320, 640, 1280, 1280), blocks=2, attention=(0, 1, 2), heads=8, groups=32), 4, 4, 1280
        )
    assert sum(p.numel() for p in both.parameters()) == 83_653_863
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(872e6, rel=0.01)


def test_the_table_of_the_quantised_stage_is_the_nearest_vectors() -> None:
    first = replace(recipe("latent-diffusion-tiny").config.first, kind="vq", codes=7)  # type: ignore[attr-defined]
    made = model(first=first)
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    near = made.nearest(z)
    for b in range(2):
        for i in range(4):
            gaps = (made.quantiser.codebook - z[b, :, i, i]).norm(dim=1)
            torch.testing.assert_close(near[b, :, i, i], made.quantiser.codebook[gaps.argmin()])
    loss, _ = made.first_loss(some(4, 8), BatchRng(0, total=4), Progress(0, 10))
    loss.backward()
    assert made.quantiser.codes.grad is not None
    assert bool((made.quantiser.codes.grad != 0).any())
    assert made.encoder.first.weight.grad is not None  # through the straight-through estimate
    assert made.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, 3, 8, 8)


def test_the_adversarial_weight_balances_the_gradients() -> None:
    made = model()
    x = inward(some(4, 8).x)
    found = made.decoder(made.code(x))
    plain, fooled = (found - x).abs().mean(), -made.critic(found).mean()
    weight = made.balance(plain, fooled, BatchRng(0, total=4))
    last = made.decoder.last.weight
    sizes = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (plain, weight * fooled)]
    assert float(sizes[0]) == pytest.approx(float(sizes[1]), rel=0.02)


def test_the_critic_counts_from_its_share_of_the_stage_on() -> None:
    made, batch = model(), some(4, 8)
    early, logs = made.first_loss(batch, BatchRng(0, total=4), Progress(0, 10))
    late, _ = made.first_loss(batch, BatchRng(0, total=4), Progress(9, 10))
    assert early.item() == pytest.approx(
        logs["error"].item() + 1e-6 * logs["kl"].item() / 192, rel=1e-6
    )  # per value of 3x8x8
    assert late.item() != early.item()
    critic = Critic(3, 8)
    assert distance(critic, batch.x.float(), batch.x.float()).item() == 0


def test_latents_have_unit_deviation_and_come_back() -> None:
    made = model()
    data = scenes(8)
    made.latents(data)
    z = made.latent(data.batch(np.arange(500)).x)
    assert float(z.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(z.square().mean().sqrt()) == pytest.approx(1.0, abs=0.1)
    x = inward(data.batch(np.arange(4)).x)
    with torch.no_grad():
        direct = made.decoder(made.code(x))
    again = inward(made.picture(made.latent(data.batch(np.arange(4)).x)))
    torch.testing.assert_close(again, direct.clamp(-1, 1), rtol=0, atol=0.01)


def test_words_behind_the_end_are_not_seen() -> None:
    """A caption's padding has embeddings of its own, and they change nothing."""
    made = model()
    words = made.words.tokens(bytes_of(["a red star"]))
    x, t = torch.randn(1, *made.shape), torch.tensor([5.0])
    before = made.calling(1, words, None)(x, t)
    with torch.no_grad():
        made.text.places[-1] += 100.0
    assert torch.equal(before, made.calling(1, words, None)(x, t))
    other = made.words.tokens(bytes_of(["a blue star"]))
    assert not torch.equal(before, made.calling(1, other, None)(x, t))


def test_classes_and_the_transformer() -> None:
    spec = ImageSpec(3, 8, 8, ("a", "b"))
    small = TransformerConfig(patch=2, width=16, depth=1, heads=2)
    for network in ("unet", "transformer"):
        made = model(spec, known="class", network=network, transformer=small)
        assert isinstance(made.network, Transformer if network == "transformer" else WordUNet)
        rng = SampleRng(0, range(2))
        one = made.sample(2, {"label": torch.tensor([0, 0])}, rng=rng)
        two = made.sample(2, {"label": torch.tensor([1, 1])}, rng=rng)
        assert not torch.equal(one.x, two.x)
        batch = Batch.of(torch.randn(4, 2 * 3 * 16), torch.tensor([0, 1, 0, 1]))
        loss, _ = made.loss(batch, BatchRng(0, total=4), Progress(0, 1))
        loss.backward()
    with pytest.raises(ValueError, match="captions"):
        LatentDiffusionConfig(known="caption", network="transformer")


def test_nothing_known_and_sizes_that_do_not_fit() -> None:
    made = model(ImageSpec(3, 8, 8), known="nothing")
    assert made.accepts() == {}
    assert made.sample(2, rng=SampleRng(0, range(2)), options=WordsDrawing(guidance=3.0)).x.shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="does not divide"):
        model(ImageSpec(3, 9, 8), known="nothing")


def test_the_networks_attention_all_asks_words() -> None:
    made = WordUNet(UNetConfig(channels=(8, 16), blocks=1, attention=(0, 1), heads=2, groups=4), 3, 3, 10)
    kinds = [type(m) for m in made.modules() if isinstance(m, PictureAttention | WordAttention)]
    assert kinds == [WordAttention] * 7
    assert len([m for m in made.modules() if isinstance(m, ResidualBlock)]) == 8


def test_captions_that_are_not_learned_are_told() -> None:
    """A person whose pictures have captions hears before the training that it will not know them."""
    data = scenes(8)
    assert sentences.left_out(model(), data) == []
    told = sentences.left_out(model(known="nothing"), data)
    assert len(told) == 1
    assert "--set config.known=caption" in told[0]
