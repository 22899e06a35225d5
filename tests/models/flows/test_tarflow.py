"""TarFlow: patches, causality, caches, noise and its removal, guidance, size."""

from __future__ import annotations

import math

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.flows.tarflow import TarFlow, TarFlowConfig, TarFlowOptions
from castalia.models.flows.tokens import PatchFlow
from castalia.recipes import tarflow as recipes
from tests.models.flows.test_layers import stir
from tests.tools import Table

SPEC = ImageSpec(1, 8, 8, ("a", "b"))


def made(width: float = 0.05, **changes: object) -> TarFlow:
    config = TarFlowConfig(**{"patch": 2, "dim": 16, "head": 8, "blocks": 2, "depth": 1, **changes})  # type: ignore[arg-type]
    model = build(TarFlow, config, SPEC)
    assert isinstance(model, TarFlow)
    x = torch.randint(0, 256, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    model.initialise(Table(x, SPEC, torch.arange(64) % 2), BatchRng(0, total=1), {})
    stir(model, width=width)
    return model.eval()


@pytest.mark.parametrize("backwards", [False, True])
def test_patches_are_put_back(backwards: bool) -> None:
    flow = PatchFlow((3, 4, 6), 2, 8, 1, 2, backwards=backwards)
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(flow.picture(flow.tokens(x)), x)
    first = flow.tokens(x)[0, 0].view(3, 2, 2)
    assert torch.equal(first, x[0, :, 2:, 4:] if backwards else x[0, :, :2, :2])


@pytest.mark.parametrize("backwards", [False, True])
def test_a_patch_is_moved_by_those_before_it_alone(backwards: bool) -> None:
    torch.manual_seed(0)
    flow = PatchFlow((1, 4, 4), 2, 8, 2, 2, backwards=backwards).double().eval()
    stir(flow)
    t = flow.tokens(torch.randn(1, 1, 4, 4, dtype=torch.float64))

    def moved(t: torch.Tensor) -> torch.Tensor:
        return flow.tokens(flow(flow.picture(t))[0])

    jacobian = torch.autograd.functional.jacobian(moved, t)[0, :, :, 0]  # type: ignore[index]  # (T, 4, T, 4)
    for i in range(4):
        for j in range(4):
            block = jacobian[i, :, j]
            if j > i:
                assert (block == 0).all()
            elif j < i:
                assert (block != 0).all()
            else:
                assert (block - torch.diag(block.diagonal()) == 0).all()


def test_likelihood_with_noise_is_a_bound_for_the_picture() -> None:
    """Summed over all pictures of two values in a corner, exp of the bound's best estimate is at most 1."""
    spec = ImageSpec(1, 2, 4)
    model = build(TarFlow, TarFlowConfig(patch=2, dim=8, head=4, blocks=2, depth=1, noise=0.9), spec)
    assert isinstance(model, TarFlow)
    every = torch.tensor([[(n >> i) & 1 for i in range(8)] for n in range(256)], dtype=torch.uint8).view(256, 1, 2, 4)
    model.initialise(Table(255 * every, spec), BatchRng(0, total=1), {})
    stir(model, width=0.1)
    model.eval()
    assert model.units.levels == 2
    found = model.log_likelihood(Batch.of(255 * every), rng=SampleRng(0, range(256)), samples=400)
    assert found.kind == "bound"
    total = float(found.nats.exp().sum())
    assert 0.5 < total < 1.03  # many noises come near the whole probability, which is 1


def test_denoising_is_tweedies_formula() -> None:
    """A model that is exactly N(0, s^2) in its units shrinks a noisy picture by 1 - sigma^2 / s^2."""
    model = made(width=0.0, noise=0.1)
    norm = model.layers.levels[0][0]  # type: ignore[index]
    norm.log_scale.data.fill_(math.log(1 / 0.4) / 3)  # y / 0.4 is standard normal
    norm.bias.data.zero_()
    y = torch.randn(3, 1, 8, 8)
    sigma = 0.1 * 255 / 512
    torch.testing.assert_close(model.denoised(y, None), y * (1 - sigma**2 / 0.4**2), atol=1e-5, rtol=1e-5)


def test_guidance() -> None:
    """Without weight nothing; with it, the mean of a later patch moves away from the unconditional one."""
    model = made(width=0.3, conditional=True, noise=0.0)
    rng, label = SampleRng(0, range(6)), {"label": torch.ones(6, dtype=torch.int64)}
    plain = model.sample(6, label, rng=rng).x
    zero = model.sample(6, label, rng=rng, options=TarFlowOptions(guidance=0.0)).x
    strong = model.sample(6, label, rng=rng, options=TarFlowOptions(guidance=1.0)).x
    assert torch.equal(plain, zero)
    assert not torch.equal(plain, strong)
    flow = model.reading[0]
    z = torch.randn(2, 1, 8, 8)
    both = [flow.inverse(z, lab) for lab in (torch.ones(2, dtype=torch.int64), None)]
    flow.guidance = 1.0
    mixed = flow.inverse(z, torch.ones(2, dtype=torch.int64))
    second = [flow.tokens(x)[:, 1] for x in (*both, mixed)]
    cond, free = (
        flow._moments(flow.tokens(z)[:, :1], torch.ones(2, dtype=torch.int64), None, 0),
        flow._moments(flow.tokens(z)[:, :1], None, None, 0),
    )
    weight = 1 / 15
    mean, log_std = ((1 + weight) * c[:, 0] - weight * f[:, 0] for c, f in zip(cond, free, strict=True))
    torch.testing.assert_close(second[2], flow.tokens(z)[:, 1] * log_std.exp() + mean)


def test_guidance_without_labels_is_refused() -> None:
    with pytest.raises(UsageError, match="conditional"):
        made().sample(1, rng=SampleRng(0, [0]), options=TarFlowOptions(guidance=1.0))


def test_the_size_of_the_paper() -> None:
    """2-768-8-8 at 64 pixels: eight transformers of eight blocks of 768."""
    with torch.device("meta"):
        model = TarFlow(recipes.imagenet_64().config, ImageSpec(3, 64, 64))
    block = 12 * 768**2 + 13 * 768
    flow = 8 * block + (12 * 768 + 768) + 1024 * 768 + 2 * 768 + (768 * 24 + 24)
    assert sum(p.numel() for p in model.parameters()) == 8 * flow + 6


def test_pictures_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(UsageError, match="patches of 3"):
        build(TarFlow, TarFlowConfig(patch=3, dim=8, head=4), SPEC)
    with pytest.raises(UsageError, match="patches of 8"):
        build(TarFlow, TarFlowConfig(patch=8, dim=8, head=4), SPEC)


def test_directions_take_turns() -> None:
    assert [flow.backwards for flow in made(blocks=4).reading] == [False, True, False, True]


@torch.no_grad()
def test_the_loss_is_the_density_of_what_was_made_noisy() -> None:
    """The bound without its last term, which no weight changes: log P(x | y) / q(y | x)."""
    model = made(noise=0.1)
    x = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    rng = SampleRng(3, range(6))
    loss, logs = model.loss(Batch.of(x), rng, Progress(0, 1))
    bound = model.log_likelihood(Batch.of(x), rng=rng).nats
    torch.testing.assert_close(loss.double(), (model._noisy(x, rng)[2] - bound).mean(), atol=1e-3, rtol=1e-5)
    assert float(logs["bits_per_dim"]) == pytest.approx(float(loss) / (64 * math.log(2)), rel=1e-5)


def test_samples_are_denoised_if_asked() -> None:
    """What is drawn without it, and then denoised, is what is drawn with it."""
    model, rng = made(width=0.3, noise=0.5), SampleRng(0, range(6))
    noisy = model.sample(6, rng=rng, options=TarFlowOptions(denoise=False)).x
    clean = model.sample(6, rng=rng).x
    assert not torch.equal(noisy, clean)
    with torch.no_grad():
        y = model.layers.inverse(rng.normal("latent", 64)).view(6, 1, 8, 8)
    assert torch.equal(model.units.outward(y), noisy)
    assert torch.equal(model.units.outward(model.denoised(y, None)), clean)


@torch.no_grad()
def test_latents_of_noisy_pictures_and_pictures_without_noise() -> None:
    model, rng = made(noise=0.3), SampleRng(0, range(4))
    x = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    z = model.encode(Batch.of(x), rng=rng)
    assert torch.equal(z, model.layers(model._noisy(x, rng)[0], None)[0])
    y = model.layers.inverse(z).view(4, 1, 8, 8)
    assert torch.equal(model.decode(z).x, model.units.outward(model.denoised(y, None)))
    cold = model.sample(4, rng=rng, options=TarFlowOptions(temperature=0.0)).x
    assert torch.equal(cold, model.decode(torch.zeros(4, 64)).x)


@pytest.mark.parametrize("wrong", [{"head": 7}, {"noise": -1.0}, {"scale": "logit"}, {"bits": 5}, {"label_drop": 0.0}])
def test_wrong_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        TarFlowConfig(**wrong)  # type: ignore[arg-type]
