"""Consistency models: the identity at the lowest level, the papers' grids, a teacher's step, and Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from castalia import runs
from castalia.cli.main import main
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion import samplers, schedules
from castalia.models.diffusion.consistency import Consistency, ConsistencyConfig, ConsistencyOptions
from castalia.models.diffusion.edm import EDM, EDMConfig
from castalia.nn.unet import UNetConfig
from castalia.recipes import recipe
from tests.tools import Table

TINY = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4)
SPEC = ImageSpec(1, 8, 8, ("a", "b"))


def stirred(model: Any, seed: int = 0) -> Any:
    """A model whose weights say something."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel() if p.ndim > 1 else 16))
    return model.eval()


def pictures(**config: Any) -> Consistency:
    return stirred(build(Consistency, ConsistencyConfig(unet=TINY, conditional=True, **config), SPEC))


def examples(n: int = 6) -> Batch:
    x = torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Batch.of(x, torch.arange(n) % 2)


def test_the_function_is_the_identity_at_the_lowest_level() -> None:
    """Exactly, whatever the weights, in training and in drawing (eq. 5)."""
    model = pictures(data_mean=0.2)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2])
    low = torch.full((3, 1, 1, 1), model.config.sigma_min)
    assert torch.equal(model.result(model.network, x, low, label).detach(), x)
    drawn = model.denoiser(label, clip=False)(x, model.config.sigma_min, label)
    torch.testing.assert_close(drawn, x, rtol=0, atol=3e-7)  # x - m + m
    high = torch.full((3, 1, 1, 1), 1.0)
    assert float((model.result(model.network, x, high, label).detach() - x).abs().max()) > 0.1


def test_training_and_drawing_mean_the_same_function() -> None:
    model = pictures(data_mean=0.2)
    x, label = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])
    for sigma in (0.01, 0.7, 30.0):
        wide = torch.full((3, 1, 1, 1), sigma)
        about = model.result(model.network, sigma * x - 0.2, wide, label) + 0.2
        torch.testing.assert_close(
            model.denoiser(label, clip=False)(sigma * x, sigma, label), about, rtol=1e-4, atol=1e-5
        )


def test_curricula() -> None:
    """Song & Dhariwal, eq. 11: 11, 21, 41 ... 1,281 levels, equal shares. Song et al., appendix C: from 2 to 151."""
    doubling = ConsistencyConfig()
    assert [doubling.levels_at(i / 8) for i in range(8)] == [10 * 2**i + 1 for i in range(8)]
    assert doubling.levels_at(1.0) == 1281
    growing = ConsistencyConfig(curriculum="growing", first=2, last=150, average=0.95)
    assert growing.levels_at(0.0) == 2
    assert growing.levels_at(1.0) == 151
    assert growing.levels_at(0.25) == math.ceil(math.sqrt(0.25 * (151**2 - 4) + 4) - 1) + 1
    assert growing.decay_at(2) == pytest.approx(0.95)
    assert growing.decay_at(100) == pytest.approx(math.exp(2 * math.log(0.95) / 100))
    fixed = ConsistencyConfig(curriculum="fixed", first=40, last=40, average=0.95)
    assert {fixed.levels_at(i / 4) for i in range(5)} == {40}
    assert fixed.decay_at(40) == 0.95


def test_levels_are_drawn_as_often_as_the_paper_says() -> None:
    """Eq. 10 of Song & Dhariwal: differences of the error function; over 20 levels."""
    model = pictures()
    sigmas = torch.tensor(schedules.karras_sigmas(20, 0.002, 80.0)[-2::-1])
    drawn = model.draw_level(sigmas, BatchRng(0, total=50_000))
    found = torch.bincount(drawn, minlength=19) / 50_000
    at = torch.erf((sigmas.double().log() + 1.1) / (math.sqrt(2) * 2.0))
    wanted = (at[1:] - at[:-1]) / (at[-1] - at[0])
    assert float((found - wanted).abs().max()) < 0.01
    even = pictures(curriculum="growing").draw_level(sigmas, BatchRng(0, total=50_000))
    assert float((torch.bincount(even, minlength=19) / 50_000 - 1 / 19).abs().max()) < 0.005


def test_loss_against_the_formula() -> None:
    """Pseudo-Huber distance between neighbouring levels with the same noise, weighted with their distance."""
    model, batch = pictures(label_drop=0.5), examples()
    rng, progress = BatchRng(3, total=6), Progress(1, 2)
    loss, logs = model.loss(batch, rng, progress)
    count = model.config.levels_at(0.5)
    assert int(logs["levels"]) == count
    sigmas = torch.tensor(schedules.karras_sigmas(count, 0.002, 80.0)[-2::-1])
    lower, z = model.draw_level(sigmas, rng), rng.normal("noise", 1, 8, 8)
    label = model.labels.for_training(batch, rng)
    assert label is not None
    total = []
    for i in range(6):
        x0 = batch.x[i : i + 1].float() / 127.5 - 1
        low, high = (float(sigmas[lower[i] + k]) for k in (0, 1))
        one, y = z[i : i + 1], label[i : i + 1]
        f = model.denoiser(y, clip=False)
        error = (f(x0 + high * one, high, y) - f(x0 + low * one, low, y)).detach()
        c = 0.00054 * 8
        total.append((math.sqrt(float(error.square().sum()) + c * c) - c) / (high - low))
    assert loss.item() == pytest.approx(sum(total) / 6, rel=2e-3)


def test_no_gradient_reaches_the_target() -> None:
    """Only the result at the higher level is moved: the gradient is that with the target held fixed."""
    model, batch = pictures(), examples()
    loss, _ = model.loss(batch, BatchRng(0, total=6), Progress(0, 1))
    loss.backward()
    assert all(p.grad is not None for p in model.network.parameters())
    average = pictures(average=0.9, curriculum="growing", first=2, last=150)
    average.begin(BatchRng(0, total=1))
    average.loss(batch, BatchRng(0, total=6), Progress(0, 1))[0].backward()
    assert all(p.grad is None for p in average.target.parameters())


def test_both_levels_see_the_same_dropout() -> None:
    """With two equal levels' worth of input, results differ by nothing but dropout: and that is the same."""
    model = stirred(
        build(
            Consistency,
            ConsistencyConfig(unet=UNetConfig(channels=(8, 16), blocks=1, attention=(1,), groups=4, dropout=0.5)),
            SPEC,
        )
    )
    model.train()
    seen: list[Tensor] = []
    model.network.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
    model.config = ConsistencyConfig(sigma_min=0.5, sigma_max=0.5 + 1e-7, first=2, last=2, curriculum="fixed")
    model.loss(examples(), BatchRng(0, total=6), Progress(0, 1))
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        one, two = (model.network(torch.ones(1, 1, 8, 8), torch.zeros(1)) for _ in range(2))
    assert float((one - two).abs().max()) > 1e-3  # it does drop


def test_the_average_follows() -> None:
    model = pictures(average=0.9, curriculum="fixed", first=40, last=40)
    model.begin(BatchRng(0, total=1))
    before = [p.clone() for p in model.target.parameters()]
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(1.0)
    model.follow(examples(), BatchRng(0, total=6), Progress(0, 1))
    for old, new in zip(before, model.target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


def teacher(**config: Any) -> EDM:
    model = build(EDM, EDMConfig(unet=TINY, conditional=True, **config), SPEC)
    assert isinstance(model, EDM)
    model.initialise(Table(examples(64).x, SPEC, examples(64).label), BatchRng(0, total=1), {})
    return stirred(model, seed=5)


def distilled(parent: EDM | None, **config: Any) -> Consistency:
    data = Table(examples(64).x, SPEC, examples(64).label)
    model = build(Consistency, ConsistencyConfig(unet=TINY, conditional=True, teacher=True, **config), SPEC)
    assert isinstance(model, Consistency)
    model.initialise(data, BatchRng(0, total=1), {} if parent is None else {"teacher": parent})
    return model.eval()


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_teachers_step_is_heuns(guidance: float) -> None:
    """Against the family's sampler with the teacher's own denoiser, one step, with guidance too."""
    parent = teacher()
    model = distilled(parent, teacher_guidance=guidance)
    x, label = 3 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])
    high, low = torch.full((4, 1, 1, 1), 3.0), torch.full((4, 1, 1, 1), 2.0)
    found = model.teach(x, high, low, label)
    plain = parent.denoiser(torch.tensor([0, 1, 2]), clip=False)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        null = plain(x, sigma, torch.full_like(label, 2))
        return null + guidance * (plain(x, sigma, label) - null)

    torch.testing.assert_close(found, samplers.heun(denoise, x, [3.0, 2.0]), rtol=1e-4, atol=1e-4)


def test_distillation_starts_from_the_teacher_and_says_what_is_wrong() -> None:
    parent = teacher()
    model = distilled(parent)
    for ours, copied, theirs in zip(
        model.network.parameters(), model.teacher.parameters(), parent.network.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
        assert torch.equal(copied, theirs)
    assert float(model.data_std) == float(parent.data_std)
    with pytest.raises(UsageError, match="--parent teacher=RUN"):
        distilled(None)
    with pytest.raises(UsageError, match="network"):
        distilled(
            build(
                EDM,
                EDMConfig(unet=UNetConfig(channels=(8,), blocks=1, attention=(0,), groups=4), conditional=True),
                SPEC,
            )
        )  # type: ignore[arg-type]


def test_distilling_an_ideal_teacher_of_gaussian_data_gives_the_closed_form() -> None:
    """Data N(0, d^2): f = d x / sqrt(d^2 + sigma^2) at e -> 0. F = 0 is the teacher's; training finds the function."""
    x = torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0))
    spec = PointsSpec(2)
    parent = build(EDM, EDMConfig(), spec)
    parent.initialise(Table(x, spec), BatchRng(0, total=1), {})
    model = build(
        Consistency,
        ConsistencyConfig(teacher=True, curriculum="fixed", first=18, last=18, average=0.5, distance="squared"),
        spec,
    )
    assert isinstance(model, Consistency)
    model.initialise(Table(x, spec), BatchRng(0, total=1), {"teacher": parent})
    model.begin(BatchRng(0, total=1))
    model.train()
    optimizer = torch.optim.Adam(model.network.parameters(), 2e-3)
    for step in range(1000):
        batch = Batch.of(x[torch.randint(0, len(x), (256,), generator=torch.Generator().manual_seed(step))])
        loss, _ = model.loss(batch, BatchRng(step, total=256), Progress(step, 1000))
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / 1000)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.follow(batch, BatchRng(step, total=256), Progress(step, 1000))
    model.eval()
    z = torch.randn(500, 2, generator=torch.Generator().manual_seed(9))
    for sigma in (0.5, 2.0, 80.0):
        there = z * math.sqrt(1 + sigma**2)
        found = model.denoiser(None, clip=False)(there, sigma).detach()
        assert float((found - z).square().mean().sqrt()) < 0.3  # 1 at the highest level before training
    made = model.sample(500, rng=SampleRng(0, range(500)), options=ConsistencyOptions(steps=1)).x
    assert float(made.std()) == pytest.approx(1.0, abs=0.25)


def test_several_steps_take_as_many_evaluations_and_end_clean() -> None:
    model = pictures()
    calls: list[int] = []
    forward = model.network.forward_embedded

    def counted(x: Tensor, embedding: Tensor) -> Tensor:
        calls.append(len(x))
        return forward(x, embedding)

    model.network.forward_embedded = counted  # type: ignore[method-assign]
    for steps in (1, 2, 5):
        calls.clear()
        model.sample(2, rng=SampleRng(0, [0, 1]), options=ConsistencyOptions(steps=steps))
        assert calls == [2] * steps
    sigmas = model.job(None, ConsistencyOptions(steps=3), SampleRng(0, [0])).sigmas
    assert sigmas[0] == pytest.approx(80.0)
    assert sigmas[-1] == 0
    assert all(a > b for a, b in pairwise(sigmas))


def test_wrong_values_and_the_papers_size() -> None:
    for wrong in ({"first": 1}, {"first": 50, "last": 20}, {"average": 1.0}, {"sigma_min": 100.0}):
        with pytest.raises(ValueError, match=r"first|average|sigma"):
            ConsistencyConfig(**wrong)  # type: ignore[arg-type]
    made = recipe("consistency-cifar")
    with torch.device("meta"):
        model = Consistency(made.config, ImageSpec(3, 32, 32))  # type: ignore[arg-type]
    # Karras et al. 2022 give 55.7 million for this network (DDPM++); theirs begins with half of the channels, and halves
    # and doubles sizes by residual blocks
    assert sum(p.numel() for p in model.parameters()) == 54_293_763


def test_a_student_of_a_run_that_the_command_line_names(tmp_path: Path) -> None:
    """``--parent teacher=RUN``: the run begins from it, and says what is wrong with the option."""
    small = ["--precision", "float32", "--quiet", "--set", "training.batch_size=8"]
    assert main(["train", "--recipe", "edm-tiny", "--steps", "3", "--out", str(tmp_path / "edm"), *small]) == 0
    student = ["train", "--recipe", "consistency-tiny", "--steps", "3", "--set", "config.teacher=true", *small]
    asked = [*student, "--out", str(tmp_path / "student"), "--parent", f"teacher={tmp_path / 'edm'}"]
    assert main(asked) == 0
    model, parent = (runs.open_run(tmp_path / name).model()[0] for name in ("student", "edm"))
    assert isinstance(model, Consistency)
    assert isinstance(parent, EDM)
    copied = zip(model.teacher.parameters(), parent.network.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in copied)
    assert main([*student, "--out", str(tmp_path / "none")]) == 2
    assert main([*student, "--out", str(tmp_path / "none"), "--parent", "teacher"]) == 2
