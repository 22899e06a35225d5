"""The diffusion transformer: the paper's sizes, parity with diffusers on shared weights, and what it says at the start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.diffusion.dit import DiT, DiTConfig
from castalia.models.diffusion.transformer import Transformer, TransformerConfig, positions, size
from castalia.recipes import recipe


@pytest.mark.parametrize(
    ("name", "patch", "millions"),
    [("S", 2, 33), ("S", 8, 33), ("B", 2, 130), ("B", 4, 130), ("L", 2, 458), ("XL", 2, 675), ("XL", 8, 676)],
)
def test_sizes_of_the_paper(name: Any, patch: int, millions: int) -> None:
    """Tables 1 and 4: on latents of 32x32x4 with 1,000 classes and learned variance; the fixed positions are not counted."""
    with torch.device("meta"):
        network = Transformer(size(name, patch), 4, 8, 32, 32, 1000)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.7)


def test_the_exact_count_of_xl_2() -> None:
    """The authors' code prints 675,129,632: with the fixed positions, 256 of 1,152."""
    with torch.device("meta"):
        network = Transformer(size("XL", 2), 4, 8, 32, 32, 1000)
    d, inner, depth = 1152, 4608, 28
    block = d * 3 * d + 3 * d + d * d + d + d * inner + inner + inner * d + d + d * 6 * d + 6 * d
    rest = 4 * 4 * d + d + 256 * d + d + d * d + d + 1001 * d + d * 2 * d + 2 * d + d * 32 + 32
    assert sum(p.numel() for p in network.parameters()) == depth * block + rest == 674_834_720


def shared() -> tuple[Transformer, DiTTransformer2DModel]:
    """Ours and theirs with the same random weights (theirs has the embeddings of time and label in every block)."""
    torch.manual_seed(0)
    theirs = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=3,
        out_channels=6,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=5,
        dropout=0.0,
        norm_eps=1e-6,
    ).eval()
    for block in theirs.transformer_blocks:
        # the paper's frequencies; diffusers spaces them so that the slowest is 1 / 10,000
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    ours = Transformer(TransformerConfig(patch=2, width=24, depth=2, heads=2), 3, 6, 8, 8, 5).eval()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=g))
    own = dict(ours.named_parameters())
    state: dict[str, Tensor] = {
        "pos_embed.proj.weight": own["patch.weight"],
        "pos_embed.proj.bias": own["patch.bias"],
        "proj_out_1.weight": own["tell_last.weight"],
        "proj_out_1.bias": own["tell_last.bias"],
        "proj_out_2.weight": own["last.weight"],
        "proj_out_2.bias": own["last.bias"],
    }
    for i in range(2):
        at = f"transformer_blocks.{i}"
        for k in (1, 2):
            for kind in ("weight", "bias"):
                state[f"{at}.norm1.emb.timestep_embedder.linear_{k}.{kind}"] = own[f"time.{2 * (k - 1)}.{kind}"]
        state[f"{at}.norm1.emb.class_embedder.embedding_table.weight"] = own["label.weight"]
        for kind in ("weight", "bias"):
            state[f"{at}.norm1.linear.{kind}"] = own[f"tell.{i}.{kind}"]
            for name, part in zip(("to_q", "to_k", "to_v"), own[f"blocks.{i}.qkv.{kind}"].chunk(3), strict=True):
                state[f"{at}.attn1.{name}.{kind}"] = part
            state[f"{at}.attn1.to_out.0.{kind}"] = own[f"blocks.{i}.out.{kind}"]
            state[f"{at}.ff.net.0.proj.{kind}"] = own[f"blocks.{i}.up.{kind}"]
            state[f"{at}.ff.net.2.{kind}"] = own[f"blocks.{i}.down.{kind}"]
    missing, unexpected = theirs.load_state_dict({k: v.detach() for k, v in state.items()}, strict=False)
    assert not unexpected
    assert all("pos_embed.pos_embed" in name for name in missing)
    return ours, theirs


def test_parity_with_diffusers() -> None:
    ours, theirs = shared()
    x, t, label = torch.randn(4, 3, 8, 8), torch.tensor([0, 17, 500, 999]), torch.tensor([0, 3, 5, 1])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, t.float(), label), theirs(x, t, label).sample, rtol=1e-4, atol=1e-5)


def test_positions_are_those_of_the_paper() -> None:
    """Half of the width for the column and half for the row, sines first."""
    found = positions(3, 5, 16)
    assert found.shape == (15, 16)
    at = found.view(3, 5, 16)
    assert torch.equal(at[0, :, 8:], at[0, :1, 8:].expand(5, 8))  # rows do not change along a row
    torch.testing.assert_close(at[2, 3, :4], torch.sin(3 / 10_000 ** (torch.arange(4) / 4)))
    torch.testing.assert_close(at[2, 3, 12:], torch.cos(2 / 10_000 ** (torch.arange(4) / 4)))


def model(**config: Any) -> DiT:
    small = TransformerConfig(patch=2, width=24, depth=2, heads=2)
    made = build(DiT, DiTConfig(transformer=small, conditional=True, **config), ImageSpec(1, 8, 12, ("a", "b")))
    assert isinstance(made, DiT)
    return made


def test_at_the_start_every_block_is_the_identity_and_nothing_comes_out() -> None:
    made = model()
    network = made.network
    assert isinstance(network, Transformer)
    h = torch.randn(2, 24, 24)
    told = network.embed(torch.tensor([3.0, 900.0]), torch.tensor([0, 2]))
    assert torch.equal(network.blocks[0](h, told[:, :144]), h)
    assert (
        float(network(torch.randn(2, 1, 8, 12), torch.tensor([3.0, 900.0]), torch.tensor([0, 2])).detach().abs().max())
        == 0
    )
    x = torch.randint(0, 256, (64, 1, 8, 12)).to(torch.uint8)
    _, logs = made.loss(Batch.of(x, torch.zeros(64, dtype=torch.int64)), BatchRng(0, total=64), Progress(0, 1))
    assert logs["mse"].item() == pytest.approx(1.0, abs=0.1)  # of the noise, predicted as nothing


def test_pictures_that_are_not_square_and_patches_that_do_not_fit() -> None:
    made = model().eval()
    drawn = made.sample(3, rng=SampleRng(0, range(3)))
    assert drawn.x.shape == (3, 1, 8, 12)
    with pytest.raises(ValueError, match="patches of 3 do not divide pictures of 12x8"):
        build(DiT, DiTConfig(transformer=TransformerConfig(patch=3, width=24, depth=1, heads=2)), ImageSpec(1, 8, 12))
    with pytest.raises(ValueError, match="width"):
        TransformerConfig(width=30, heads=4)


def test_a_patch_goes_out_where_it_came_in() -> None:
    """Only the tokens of one patch are moved: the output changes in that patch alone."""
    network = Transformer(TransformerConfig(patch=4, width=16, depth=1, heads=2), 2, 3, 8, 12)
    with torch.no_grad():
        network.last.weight.normal_()
        network.last.bias.normal_()
        network.blocks[0].out.weight.zero_()
    plain = network(torch.zeros(1, 2, 8, 12), torch.zeros(1))
    x = torch.zeros(1, 2, 8, 12)
    x[..., 4:8, 8:12] = torch.randn(4, 4)
    changed = (network(x, torch.zeros(1)) - plain).detach().abs().sum((0, 1)) > 0
    assert bool(changed[4:8, 8:12].all())
    assert int(changed.sum()) == 16


def test_the_papers_recipe() -> None:
    made = recipe("dit-paper")
    assert isinstance(made.config, DiTConfig)
    assert made.config.transformer == size("XL", 4)
    assert (made.config.variance, made.config.schedule, made.config.timesteps) == ("learned", "linear", 1000)
