"""Cascades: augmentation and its truncated form, what an upsampler sees, stages that keep to themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.diffusion.cascade import Cascade, CascadeConfig, CascadeOptions, shrunk
from castalia.models.diffusion.edm import EDM, EDMConfig, EDMOptions
from castalia.models.diffusion.upsampler import UpsamplingUNet, blurred
from castalia.nn.unet import UNet, UNetConfig
from castalia.recipes import recipe
from tests.tools import Table

TINY = UNetConfig(channels=(8,), blocks=1, attention=(), groups=4, middle="none")
SPEC = ImageSpec(1, 8, 8, ("a", "b", "c"))
Options = CascadeOptions


def stirred(model: Any, seed: int = 0) -> Any:
    """A model whose weights say something."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel() if p.ndim > 1 else 16))
    return model.eval()


def cascade(spec: ImageSpec = SPEC, **config: Any) -> Cascade:
    config = {"base": TINY, "upsamplers": (TINY,), "data_std": 0.5, **config}
    return stirred(build(Cascade, CascadeConfig(**config), spec))


def noisy(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_resolutions_are_rounded_up_and_pictures_are_means() -> None:
    model = cascade(ImageSpec(3, 21, 16), upsamplers=(TINY, TINY), factors=(2, 4))
    assert [p.spec.shape for p in model.parts] == [(3, 3, 2), (3, 6, 4), (3, 21, 16)]
    assert [s.name for s in model.stages()] == ["3x2", "6x4", "21x16"]
    x = noisy(2, 3, 21, 16)
    small = shrunk(x, 4).double()
    assert small.shape == (2, 3, 6, 4)
    assert float((small[..., 1, 2] - x[..., 4:8, 8:12].double().mean((2, 3))).abs().max()) <= 0.5
    assert float((small[..., 5, 0] - x[..., 20:, :4].double().mean((2, 3))).abs().max()) <= 0.5  # what is left
    assert torch.equal(model.small(Batch.of(x), 0).x, shrunk(shrunk(x, 4), 2))
    drawn = model.sample(2, rng=SampleRng(0, range(2)), options=Options(steps=2, upsample_steps=2)).x
    assert drawn.shape == (2, 3, 21, 16)


@torch.no_grad()
def test_level_zero_is_no_augmentation() -> None:
    """In training with ``augment=0`` nothing is added; at sampling with ``level=0`` no noise matters."""
    model = cascade(augment=0.0)
    low = torch.rand(4, 1, 4, 4) * 2 - 1
    spoilt, level = model.spoilt(low, BatchRng(0, total=4))
    assert torch.equal(spoilt, low)
    assert torch.equal(level, torch.zeros(4))
    model = cascade()
    z = SampleRng(0, range(3)).normal("latent", model.latent_dims)
    sizes = [math.prod(s) for s in model.noises()]
    assert sizes == [16, 16, 64]
    other = z.clone()
    other[:, 16:32] *= -1  # only what is added
    for level_, same in ((0.0, True), (0.3, False)):
        drawn = [model.climb(one, None, SampleRng(0, range(3)), Options(level=level_), None) for one in (z, other)]
        assert torch.equal(*drawn) == same
    plain = model.climb(z, None, SampleRng(0, range(3)), Options(level=0.0), None)
    cut = model.climb(z, None, SampleRng(0, range(3)), Options(level=0.0, truncated=True), None)
    assert torch.equal(plain, cut)


def test_noise_of_the_level_is_added_and_the_network_is_told() -> None:
    model = cascade(augment=0.5)
    low = torch.zeros(4_000, 1, 4, 4)
    spoilt, level = model.spoilt(low, BatchRng(0, total=4_000))
    assert float(level.min()) >= 0
    assert float(level.max()) <= 0.5
    assert float(level.mean()) == pytest.approx(0.25, abs=0.01)
    scaled = spoilt / level.view(-1, 1, 1, 1)
    assert float(scaled.std()) == pytest.approx(1, abs=0.01)
    network = model.uppers[0].seeing  # type: ignore[union-attr,operator]
    assert isinstance(network, UpsamplingUNet)
    x, t, beside = torch.randn(2, 1, 8, 8), torch.zeros(2), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        one, two = (network.look(x, t, beside, torch.full((2,), s)) for s in (0.0, 0.4))
    assert float((one - two).abs().max()) > 1e-3


def test_the_truncated_start_is_where_sampling_would_have_gone_on() -> None:
    """Gaussian data, whose denoiser is known: the state at sigma = s has the deviation (v + s^2)^(1/2)."""
    from castalia.models.diffusion.drawing import Job
    from castalia.nn.units import PictureUnits

    v, s = 0.09, 0.4
    job = Job(
        lambda x, sigma: x * v / (v + sigma**2),
        EDM(EDMConfig(unet=TINY), SPEC).levels(EDMOptions(steps=60)),
        "heun",
        {},
        SampleRng(0, [0]),
        PictureUnits(),
        80.0,
    )
    start = 80 * torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cut = job.until(s)
    assert cut.sigmas[-1] == s
    state = cut.flow(start)
    assert float(state.std()) == pytest.approx(math.sqrt(v + s**2), rel=0.02)
    rest = replace(job, sigmas=[s, *(sigma for sigma in job.sigmas if sigma < s)])
    torch.testing.assert_close(rest.flow(state), job.flow(start), rtol=0, atol=5e-3)


@torch.no_grad()
def test_truncated_pictures_are_like_those_with_noise_added() -> None:
    """Both ways give the upsampler pictures of the same mean and deviation, and save the last steps."""
    model = cascade()
    x = noisy(200, 1, 8, 8, seed=3)
    model.initialise(Table(x, SPEC), BatchRng(0, total=1), {})
    job = model.base.job(None, Options(), SampleRng(0, range(400)))
    z = SampleRng(0, range(400)).normal("latent", 1, 4, 4)
    noise = SampleRng(1, range(400)).normal("latent", 1, 4, 4)
    low = [
        model.handed_on(model.base, job, 80 * z, noise, Options(level=0.5, truncated=way)).flatten(1)
        for way in (False, True)
    ]
    assert float(low[0].mean()) == pytest.approx(float(low[1].mean()), abs=0.05)
    assert float(low[0].std()) == pytest.approx(float(low[1].std()), rel=0.15)
    assert len(job.until(0.5).sigmas) < len(job.sigmas)


def test_blur_is_a_gaussian_filter_that_keeps_the_mean() -> None:
    x = torch.zeros(2, 1, 7, 7)
    x[:, :, 3, 3] = 1
    found = blurred(x, torch.tensor([0.5, 0.01]))
    side = math.exp(-0.5 / 0.25)
    kernel = torch.tensor([side, 1, side]) / (1 + 2 * side)
    torch.testing.assert_close(found[0, 0, 2:5, 2:5], kernel[:, None] * kernel)
    torch.testing.assert_close(found[1], x[1])
    flat = torch.full((1, 2, 1, 3), 0.3)
    torch.testing.assert_close(blurred(flat, torch.tensor([0.6])), flat)
    model, low = cascade(augment=0.0, blur=0.5), torch.rand(400, 1, 4, 4)
    share = (model.spoilt(low, BatchRng(0, total=400))[0] != low).flatten(1).any(1).float().mean()
    assert 0.4 < float(share) < 0.6


def test_an_upsampler_sees_the_small_picture() -> None:
    """The output changes with it, and only with its own: a picture does not see its neighbour's."""
    model = cascade()
    a, b = noisy(2, 1, 4, 4, seed=1), noisy(2, 1, 4, 4, seed=2)
    rng = SampleRng(0, range(2))
    one, two = model.upscale(a, rng=rng), model.upscale(torch.stack([a[0], b[1]]), rng=rng)
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])
    assert not torch.equal(one, model.upscale(a, rng=SampleRng(1, range(2))))
    assert model.upscale(noisy(3, 1, 5, 9), rng=SampleRng(0, range(3))).shape == (3, 1, 10, 18)
    with pytest.raises(UsageError, match="channels"):
        model.upscale(noisy(1, 3, 4, 4), rng=SampleRng(0, [0]))


def test_guidance_of_an_upsampler_is_the_mix_of_both_branches() -> None:
    model = cascade(conditional=True)
    (part,) = model.upsamplers()
    label, low = torch.tensor([0, 1, 2]), torch.randn(3, 1, 4, 4)
    x, sigma = torch.randn(3, 1, 8, 8), 0.7
    with torch.no_grad():
        plain = part.job_beside(low, 0.1, label, Options(), SampleRng(0, range(3))).denoise(x, sigma)
        null = part.job_beside(low, 0.1, torch.full((3,), 3), Options(), SampleRng(0, range(3))).denoise(x, sigma)
        led = part.job_beside(low, 0.1, label, Options(guidance=2.5), SampleRng(0, range(3))).denoise(x, sigma)
    assert float((plain - null).abs().max()) > 1e-3
    torch.testing.assert_close(led, null + 2.5 * (plain - null), rtol=1e-4, atol=1e-5)


def test_the_base_is_edm_of_small_pictures_bit_for_bit() -> None:
    """Its loss, and its samples, are those of ``edm`` trained on pictures made smaller."""
    model, x = cascade(data_std=0.0), noisy(40, 1, 8, 8)
    data, small = Table(x, SPEC), Table(shrunk(x, 2), replace(SPEC, height=4, width=4))
    model.initialise(data, BatchRng(0, total=1), {})
    plain = build(EDM, EDMConfig(unet=TINY), small.spec)
    plain.initialise(small, BatchRng(0, total=1), {})
    plain.load_state_dict({**model.base.state_dict(), "data_std": plain.state_dict()["data_std"]})
    assert torch.equal(plain.data_std, model.base.data_std)  # type: ignore[attr-defined]
    (one,), stage = model.stages()[0].objectives, model.stages()[0]
    batch, rng = data.batch(np.arange(8)), BatchRng(5, total=8)
    assert stage.transform is not None
    ours = one.loss(stage.transform(batch, rng, Progress(0, 1)), rng, Progress(0, 1))[0]  # type: ignore[union-attr]
    theirs = plain.loss(small.batch(np.arange(8)), rng, Progress(0, 1))[0]  # type: ignore[attr-defined]
    assert torch.equal(ours, theirs)


def test_stages_train_their_own_network_and_a_result_fits_what_it_was_given() -> None:
    """Blobs in random places: made smaller again, the enlarged picture is the given one, and no other."""
    g = torch.Generator().manual_seed(0)
    place, grid = 1 + 5 * torch.rand(600, 2, generator=g), torch.arange(8.0)
    far = (grid - place[:, :1]).square()[:, :, None] + (grid - place[:, 1:]).square()[:, None]
    x = (255 * torch.exp(-far / 3)).round().to(torch.uint8)[:, None]
    model = build(Cascade, CascadeConfig(base=TINY, upsamplers=(TINY,)), ImageSpec(1, 8, 8))
    data = Table(x, model.spec)
    model.initialise(data, BatchRng(0, total=1), {})
    model.train()
    for index, steps in ((0, 2), (1, 300)):
        assert isinstance(model, Cascade)
        stage, others = model.stages()[index], model.parts[1 - index]
        before = [p.clone() for p in others.parameters()]
        (one,) = stage.objectives
        assert isinstance(one, Objective)
        assert stage.transform is not None
        optimizer = torch.optim.AdamW(one.module.parameters(), lr=4e-3)
        for step in range(steps):
            rng = BatchRng(step, total=32)
            ids = torch.randint(0, 500, (32,), generator=torch.Generator().manual_seed(step)).numpy()
            batch = stage.transform(data.batch(ids), rng, Progress(step, steps))
            loss, _ = one.loss(batch, rng, Progress(step, steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        assert all(torch.equal(p, q) for p, q in zip(others.parameters(), before, strict=True))
    model.eval()
    assert isinstance(model, Cascade)
    given = shrunk(x[500:540], 2)
    made = model.upscale(given, rng=SampleRng(0, range(40)), options=Options(level=0.02))
    again = shrunk(made, 2).double()
    own = (again - given.double()).square().mean((1, 2, 3)).sqrt()
    other = (again - given.roll(1, 0).double()).square().mean((1, 2, 3)).sqrt()
    assert float(own.mean()) < 0.4 * float(other.mean())
    assert float((own < other).float().mean()) > 0.95


def test_redrawing_holds_what_is_outside_the_mask_on_the_way() -> None:
    """What a mask leaves is bit for bit the given picture, and the base's mask is what it touches."""
    model, x = cascade(), noisy(2, 1, 8, 8)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 3:5] = True
    drawn = model.refine(Batch.of(x), mask=mask, rng=SampleRng(0, range(2))).x
    assert torch.equal(drawn[..., :3], x[..., :3])
    assert torch.equal(drawn[..., 5:], x[..., 5:])
    assert not torch.equal(drawn[..., 3:5], x[..., 3:5])
    assert F.max_pool2d(mask.float(), 2)[0, 0, 0].tolist() == [0, 1, 1, 0]


def test_the_papers_size() -> None:
    """ImageNet with 1,000 classes, by way of 32, 64 and 256 pixels."""
    c = recipe("cascade-paper").config
    assert isinstance(c, CascadeConfig)
    spec = ImageSpec(3, 256, 256, tuple(map(str, range(1_000))))
    with torch.device("meta"):
        networks = [UNet(c.base, 3, 3, 1_000), *(UpsamplingUNet(u, 3, 1_000) for u in c.upsamplers)]
        assert [s.name for s in Cascade(c, spec).stages()] == ["32x32", "64x64", "256x256"]
    counts = [round(sum(p.numel() for p in n.parameters()) / 1e6) for n in networks]
    assert counts == [496, 520, 318]


def test_what_makes_no_sense_is_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"factors": (1,)},
        {"factors": (2, 2)},
        {"factors": (), "upsamplers": ()},
        {"shares": (1.0,)},
        {"augment": -0.1},
        {"augment": 100.0},
        {"blur": 2.0},
        {"blur_low": 0.7},
        {"conditional": True, "base": replace(TINY, null_class=False)},
        {"label_drop": 0.0},
    ]
    for config in wrong:
        with pytest.raises(ValueError):
            CascadeConfig(**config)
    for options in ({"level": -1.0}, {"upsample_steps": 0}, {"upsample_guidance": -1.0}):
        with pytest.raises(ValueError):
            Options(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"augment=0.5"):
        cascade().sample(1, rng=SampleRng(0, [0]), options=Options(level=0.6))
