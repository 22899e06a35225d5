"""StyleGAN: adaptive normalisation, layers, the size of the paper, the penalty of every step."""

from __future__ import annotations

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.model import Objective, Progress, build
from castalia.core.rng import BatchRng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.losses import critic_loss, input_gradient, r1
from castalia.models.adversarial.stylegan import AdaIN, StyleGAN, StyleGANConfig

SPEC = ImageSpec(3, 16, 24)


def small() -> StyleGAN:
    made = build(StyleGAN, StyleGANConfig(6, 8, 2, channels=32, most=8), SPEC)
    assert isinstance(made, StyleGAN)
    return made.train()


def test_adain_gives_maps_the_styles_mean_and_deviation() -> None:
    layer = AdaIN(5, 8)
    style = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    x = 4 + 7 * torch.randn(3, 5, 6, 6, generator=torch.Generator().manual_seed(1))
    y = layer(x, style)
    scale, shift = layer.affine(style).chunk(2, 1)
    torch.testing.assert_close(y.mean((2, 3)), shift, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(y.std((2, 3), correction=0), (scale + 1).abs(), atol=1e-5, rtol=1e-4)


def test_the_size_of_the_paper() -> None:
    """26.2 million parameters (section 2), 18 layers; the paper's has seven more layers to pictures of 4 to 512."""
    with torch.device("meta"):
        model = StyleGAN(StyleGANConfig(), ImageSpec(3, 1024, 1024))
    assert model.style_layers == 18
    assert sum(p.numel() for p in model.generator.parameters()) == pytest.approx(26.2e6, rel=0.003)


def test_each_style_acts_from_its_layer_on() -> None:
    """Another last style changes no map before the last layer; another first one changes all of them."""
    model = small().eval()
    seen: list[torch.Tensor] = []
    for layer in model.generator.synthesis.convs:  # type: ignore[union-attr]
        layer.register_forward_hook(lambda _, __, out: seen.append(out))
    styles = torch.randn(1, model.style_layers, 8, generator=torch.Generator().manual_seed(0))
    runs = []
    for changed in (None, 0, model.style_layers - 1):
        w = styles.clone()
        if changed is not None:
            w[:, changed] += 1
        seen.clear()
        model.render(w)
        runs.append(list(seen))
    same, first, last = runs
    assert all(torch.equal(a, b) for a, b in zip(same[:-1], last[:-1], strict=True))
    assert not torch.equal(same[-1], last[-1])
    assert all(not torch.equal(a, b) for a, b in zip(same, first, strict=True))


def test_the_penalty_is_in_every_step() -> None:
    model = small()
    names = [part.name for part in model.stages()[0].objectives]
    assert names == ["critic", "generator", "style"]
    critic = model.stages()[0].objectives[0]
    assert isinstance(critic, Objective)
    assert critic.optimizer is not None
    assert (critic.optimizer.lr, critic.optimizer.betas) == (1e-3, (0.0, 0.99))
    x = torch.randint(0, 256, (4, *SPEC.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    b, rng = Batch.of(x), BatchRng(0, total=4)
    loss, logs = model.critic_loss(b, rng, Progress(3, 10))
    outputs, gradient = input_gradient(model.critic, model.inside(x))
    fake = model.judge(model.make_still(rng, None), None)
    expected = critic_loss("non-saturating", outputs.flatten(), fake) + 10 * r1(gradient)
    torch.testing.assert_close(loss, expected)
    assert logs["r1"] > 0
