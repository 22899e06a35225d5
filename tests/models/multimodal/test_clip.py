"""CLIP: the loss of figure 3, parity with transformers on shared weights, published counts, words as tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPModel

from castalia.core.captions import CAPTION, bytes_of, texts_of
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.text import TextSpec
from castalia.creative.edits.find import EDIT, Options
from castalia.evaluation import matching
from castalia.models.multimodal.clip import CLIP, CLIPConfig
from castalia.models.multimodal.towers import (
    ResNetConfig,
    ResNetTower,
    TextConfig,
    TextTower,
    VisionConfig,
    VisionTower,
)
from castalia.models.multimodal.words import END, START, Words, WordsConfig, ends, found_words
from tests.models.multimodal.captioned import scenes, some

SMALL = CLIPConfig(
    dims=16, vision=VisionConfig(8, 24, 2, 2), text=TextConfig(24, 2, 2), words=WordsConfig(length=16, most=50)
)


def model(**changes: object) -> CLIP:
    data = scenes()
    made = build(CLIP, CLIP.complete(replace(SMALL, **changes), data), data.spec)  # type: ignore[arg-type]
    assert isinstance(made, CLIP)
    return made


# words


def test_words_are_those_of_the_data_and_everything_else_is_bytes() -> None:
    config = found_words(WordsConfig(length=16, most=20), scenes())
    words = Words(config)
    assert len(config.words) == 20
    assert {"small", "large"} <= set(config.words)
    tokens = words.tokens(bytes_of(["A small RED zebra!", ""]))
    assert tokens[0, 0] == START
    assert words.text(tokens[0]) == "a small red zebra!" or words.text(tokens[0]).startswith("a small red")
    assert tokens[1].tolist() == [START] + [END] * 15
    assert ends(tokens).tolist()[1] == 1
    assert texts_of(bytes_of(["ein Herz", "hé"])) == ["ein Herz", "hé"]


def test_long_captions_are_cut_and_still_end() -> None:
    words = Words(WordsConfig(length=6))
    tokens = words.tokens(bytes_of(["abcdefghij"]))
    assert tokens.shape == (1, 6)
    assert tokens[0].tolist() == [START, *b"abcd", END]


def test_without_captions_there_is_a_sentence_that_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"data\.options\.captions"):
        build(CLIP, SMALL, ImageSpec(3, 16, 16))


# the loss


def test_equal_logits_have_a_loss_of_ln_b() -> None:
    made = model()
    with torch.no_grad():
        made.sight.tower.project.weight.zero_()  # type: ignore[union-attr]
    loss, logs = made.loss(some(8), BatchRng(0, total=8), Progress(0, 1))
    assert loss.item() == pytest.approx(math.log(8), abs=1e-6)
    assert logs["scale"].item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_loss_against_figure_3() -> None:
    made, batch = model(same_text=False), some(8)
    loss, _ = made.loss(batch, BatchRng(0, total=8), Progress(0, 1))
    u = F.normalize(made.sight(batch.x.float()), dim=1)
    v = F.normalize(made.text(made.words.tokens(batch.extra["caption"])), dim=1)
    logits = (u @ v.T / 0.07).detach().double()
    rows = -torch.log_softmax(logits, 1).diagonal().mean()
    columns = -torch.log_softmax(logits, 0).diagonal().mean()
    assert loss.item() == pytest.approx(float(rows + columns) / 2, rel=1e-5)


def test_the_same_text_is_no_wrong_answer() -> None:
    made, batch = model(), some(4)
    twice = Batch.of(torch.cat([batch.x, batch.x]), None, {"caption": torch.cat([batch.extra["caption"]] * 2)})
    both, _ = made.loss(twice, BatchRng(0, total=8), Progress(0, 1))
    u = F.normalize(made.sight(batch.x.float()), dim=1)
    v = F.normalize(made.text(made.words.tokens(batch.extra["caption"])), dim=1)
    e = (u @ v.T / 0.07).detach().double().exp()
    wrong = 2 * (e.sum(1) - e.diagonal()), 2 * (e.sum(0) - e.diagonal())  # three others, each twice; not its own again
    wanted = sum(-(e.diagonal() / (e.diagonal() + w)).log().mean() for w in wrong) / 2
    assert both.item() == pytest.approx(float(wanted), rel=1e-5)


def test_gradients_of_both_sides_and_the_bound_of_the_scale() -> None:
    made = model()
    made.loss(some(8), BatchRng(0, total=8), Progress(0, 1))[0].backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in made.parameters())
    with torch.no_grad():
        made.log_scale.fill_(10.0)
    made.bound()
    assert made.log_scale.exp().item() == pytest.approx(100)


# parity and sizes


def shared() -> tuple[TextTower, VisionTower, CLIPModel]:
    text = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 2, "num_hidden_layers": 2,
            "vocab_size": 300, "max_position_embeddings": 12, "hidden_act": "quick_gelu", "eos_token_id": END,
            "bos_token_id": START, "pad_token_id": 1}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
              "image_size": 16, "patch_size": 4, "hidden_act": "quick_gelu"}  # fmt: skip
    torch.manual_seed(0)
    theirs = CLIPModel(TheirConfig(text_config=text, vision_config=vision, projection_dim=10)).eval()
    ours = (
        TextTower(TextConfig(24, 2, 2), 300, 12, 10).eval(),
        VisionTower(VisionConfig(4, 32, 2, 4), 3, 16, 16, 10).eval(),
    )
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(0.2 * torch.randn(p.shape))
        t, v = theirs.text_model, theirs.vision_model
        ours[0].tokens.weight.copy_(t.embeddings.token_embedding.weight)
        ours[0].places.copy_(t.embeddings.position_embedding.weight)
        ours[1].patch.weight.copy_(v.embeddings.patch_embedding.weight)
        ours[1].first.copy_(v.embeddings.class_embedding)
        ours[1].places.copy_(v.embeddings.position_embedding.weight)
        copy(ours[1].norm_before, v.pre_layrnorm)
        for tower, other, last, project in (
            (ours[0], t, t.final_layer_norm, theirs.text_projection),
            (ours[1], v, v.post_layernorm, theirs.visual_projection),
        ):
            copy(tower.norm, last)
            tower.project.weight.copy_(project.weight)  # type: ignore[union-attr]
            for block, layer in zip(tower.blocks, other.encoder.layers, strict=True):
                copy(block.norm1, layer.layer_norm1)
                copy(block.norm2, layer.layer_norm2)
                copy(block.out, layer.self_attn.out_proj)
                copy(block.up, layer.mlp.fc1)
                copy(block.down, layer.mlp.fc2)
                parts = [getattr(layer.self_attn, f"{name}_proj") for name in "qkv"]
                block.qkv.weight.copy_(torch.cat([p.weight for p in parts]))
                block.qkv.bias.copy_(torch.cat([p.bias for p in parts]))
    return *ours, theirs


def copy(ours: nn.Module, theirs: nn.Module) -> None:
    ours.load_state_dict(theirs.state_dict())


def test_towers_equal_those_of_transformers_on_shared_weights() -> None:
    text, vision, theirs = shared()
    tokens = torch.tensor([[START, 260, 270, 280, END, END], [START, 299, END, END, END, END]])
    pictures = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        words = theirs.text_projection(theirs.text_model(tokens).pooler_output)
        seen = theirs.visual_projection(theirs.vision_model(pictures).pooler_output)
        torch.testing.assert_close(text(tokens), words, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(vision(pictures), seen, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("patch", "width", "layers", "heads", "dims", "text", "count"),
    [
        (32, 768, 12, 12, 512, (512, 12, 8), 151_277_313),
        (16, 768, 12, 12, 512, (512, 12, 8), 149_620_737),
        (14, 1024, 24, 16, 768, (768, 12, 12), 427_616_513),
    ],
)
def test_published_counts(patch: int, width: int, layers: int, heads: int, dims: int, text: tuple, count: int) -> None:
    """With 49,408 pieces, 77 tokens and the temperature."""
    with torch.device("meta"):
        vision = VisionTower(VisionConfig(patch, width, layers, heads), 3, 224, 224, dims)
        words = TextTower(TextConfig(*text), 49_408, 77, dims)
    assert sum(p.numel() for tower in (vision, words) for p in tower.parameters()) + 1 == count


def test_published_count_of_rn50() -> None:
    with torch.device("meta"):
        vision = ResNetTower(ResNetConfig(), 3, 224, 224, 1024)
        words = TextTower(TextConfig(512, 12, 8), 49_408, 77, 1024)
    assert sum(p.numel() for tower in (vision, words) for p in tower.parameters()) + 1 == 102_007_137


def test_the_residual_network_works() -> None:
    data = scenes(32)
    config = replace(SMALL, network="resnet", resnet=ResNetConfig((1, 1, 1, 1), 8, 4))
    made = build(CLIP, CLIP.complete(config, data), data.spec)
    loss, _ = made.loss(some(8, 32), BatchRng(0, total=8), Progress(0, 1))  # type: ignore[union-attr]
    loss.backward()
    assert loss.item() > 0
    with pytest.raises(ValueError, match="at least 32x32"):
        ResNetTower(ResNetConfig(), 3, 16, 16, 8)


# what it is for


def test_vectors_are_of_unit_length_and_do_not_depend_on_neighbours() -> None:
    made, batch = model().eval(), some(6)
    u, v = made.of_pictures(batch.x), made.of_texts(["a small red heart", "x", ""])
    torch.testing.assert_close(u.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(v.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(made.of_pictures(batch.x[4:]), u[4:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.of_texts(["x"])[0], v[1], rtol=1e-4, atol=1e-5)


class Knows:
    """It sees in a picture of one colour which text it belongs to."""

    def of_pictures(self, x: Tensor) -> Tensor:
        return F.one_hot(x.flatten(1)[:, 0].long(), 8).float()

    def of_texts(self, texts: list[str]) -> Tensor:
        return F.one_hot(torch.tensor([int(t[-1]) for t in texts]), 8).float()


def test_retrieval_is_counted_right() -> None:
    from tests.tools import Table

    spec = ImageSpec(
        1, 2, 2, tuple(f"number {i}" for i in range(4)), columns=(("caption", TextSpec("bytes", 257, 20)),)
    )
    x = torch.arange(4, dtype=torch.uint8).repeat(5).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()

    class Captioned(Table):
        def batch(self, ids, rng=None):  # type: ignore[no-untyped-def]
            batch = super().batch(ids, rng)
            said = [f"it is {(int(v) + (i >= 16)) % 8}" for i, v in zip(ids, batch.x[:, 0, 0, 0], strict=True)]
            return replace(batch, extra={"caption": bytes_of(said)})

    data = Captioned(x, spec, torch.arange(4).repeat(5))
    import numpy as np

    found = matching.measure(Knows(), data, np.arange(20), seed=0)  # type: ignore[arg-type]
    assert found["recall_1"].value == pytest.approx(16 / 20)  # the last four captions are those of others
    assert found["named_accuracy"].value == 1.0


def test_find_gives_the_nearest_pictures_first() -> None:
    made, data = model().eval(), scenes()

    class Here:
        model = made

        def data(self, source):  # type: ignore[no-untyped-def]
            return data

    grid = EDIT.run(Here(), Options(words="a large red star", n=5))  # type: ignore[arg-type]
    likeness = [one["likeness"] for one in grid.recipe["found"]]  # type: ignore[union-attr]
    assert likeness == sorted(likeness, reverse=True)
    assert len(grid.examples) == 5  # type: ignore[union-attr]
    captions = texts_of(data.batch(np.arange(len(data))).extra[CAPTION])
    assert all(one["caption"] == captions[one["example"]] for one in grid.recipe["found"])  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="--words"):
        EDIT.run(Here(), Options(words=" "))  # type: ignore[arg-type]
