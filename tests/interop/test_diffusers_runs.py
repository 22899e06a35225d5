"""Runs to diffusers and back, and a sampling of each beside the other's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia import runs
from castalia.configuration import Data, Recipe, Training
from castalia.core.errors import CastaliaError, RunError, UsageError
from castalia.core.model import build
from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.core.weights import save_tensors
from castalia.interop.diffusers import Received, from_diffusers, looks_like_diffusers
from castalia.interop.diffusers_runs import config_of, export_diffusers, import_diffusers, schedule_of
from castalia.interop.diffusers_schedule import Schedule
from castalia.models.diffusion.ddpm import DDPM, DDPMConfig, DDPMOptions
from castalia.nn.unet import UNetConfig

diffusers = pytest.importorskip("diffusers", reason="the test extra installs diffusers")

CPU = torch.device("cpu")
UNET = UNetConfig(channels=(8, 8), groups=2, attention=(), head_channels=8, blocks=1)
CONFIG = DDPMConfig(unet=UNET, timesteps=100)
SPEC = ImageSpec(1, 8, 8)


def made(folder: Path, config: DDPMConfig = CONFIG, spec: ImageSpec | PointsSpec = SPEC) -> runs.Run:
    """A run with random weights."""
    run = runs.create(folder, Recipe("ddpm", config, Data("mnist"), Training(steps=7)), spec, "abc")
    model = build(DDPM, config, spec, seed=1)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * 0.1)
    save_tensors(run.weights, model.state_dict(), {"castalia.model": "ddpm", "castalia.step": "7"})
    return run


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        (CONFIG, SPEC),
        (replace(CONFIG, schedule="cosine", prediction="v", variance="learned"), ImageSpec(3, 6, 10)),
        (
            replace(CONFIG, schedule="scaled_linear", variance="fixed_small", conditional=True),
            ImageSpec(1, 8, 8, ("0", "1")),
        ),
        (replace(CONFIG, prediction="x0", zero_snr=True), SPEC),
    ],
)
def test_there_and_back(tmp_path, config, spec):
    run = made(tmp_path / "run", config, spec)
    back = import_diffusers(export_diffusers(run, tmp_path / "folder"), tmp_path / "back")
    assert back.recipe.config == config
    assert back.spec == spec
    assert back.fingerprint == ""
    (ours, _), (theirs, origin) = run.model(CPU), back.model(CPU)
    assert origin.startswith("step imported")
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(theirs.state_dict()[n], t) for n, t in ours.state_dict().items())
    rng = SampleRng(0, range(2))
    options = DDPMOptions(steps=3)
    assert torch.equal(ours.sample(2, rng=rng, options=options).x, theirs.sample(2, rng=rng, options=options).x)


class Given(SampleRng):
    """A source whose first noise is given."""

    noise: torch.Tensor

    def normal(self, purpose: str, *shape: int) -> torch.Tensor:
        assert purpose == "latent"
        return self.noise


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_sampling_by_diffusers_is_ours(tmp_path, prediction):
    """``DDIMPipeline`` on what we wrote, beside our DDIM from the same noise: to one grey value of 255."""
    run = made(tmp_path / "run", replace(CONFIG, prediction=prediction, schedule="cosine"))
    pipe = diffusers.DDIMPipeline.from_pretrained(export_diffusers(run, tmp_path / "folder"))
    pipe.set_progress_bar_config(disable=True)
    # theirs keeps the predicted noise where it clips the picture, ours does not; so neither clips
    pipe.scheduler.register_to_config(clip_sample=False)
    theirs = pipe(
        batch_size=4, num_inference_steps=10, output_type="np", generator=torch.Generator().manual_seed(0)
    ).images
    model, _ = run.model(CPU)
    rng = Given(0, range(4))
    rng.noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    options = DDPMOptions(sampler="ddim", steps=10, grid="leading", clip=False)
    ours = model.sample(4, rng=rng, options=options).x
    assert 10 < ours.float().std() < 200
    difference = np.abs(ours.numpy().transpose(0, 2, 3, 1).astype(float) - 255 * theirs)
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("schedule", "timesteps", "zero_snr", "named"),
    [
        ("linear", 1000, False, True),
        ("linear", 4000, False, True),
        ("linear", 100, True, True),
        ("cosine", 1000, False, True),
        ("cosine", 10, False, True),
        ("cosine", 1000, True, True),
        ("scaled_linear", 1000, False, True),
        ("scaled_linear", 10, False, False),  # its last betas would be above 1, and are cut
        ("scaled_linear", 10, True, False),
    ],
)
def test_schedules_are_theirs(schedule, timesteps, zero_snr, named):
    """Our betas, and what ``DDPMScheduler`` makes of the file; where no formula gives them, they are listed."""
    config = replace(CONFIG, timesteps=timesteps, schedule=schedule, zero_snr=zero_snr, prediction="v")
    found = schedule_of(config)
    np.testing.assert_allclose(found.values().numpy(), config.process().betas, atol=1e-6)
    assert (found.trained_betas is None) == named
    fields = {k: getattr(found, k) for k in found.__dataclass_fields__}
    theirs = diffusers.DDPMScheduler(**fields).alphas_cumprod.numpy()
    np.testing.assert_allclose(theirs, config.process().alpha_bars, atol=2e-6)


def test_pipelines_of_diffusers_become_runs(tmp_path):
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=2,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
    )
    diffusers.DDIMPipeline(net, diffusers.DDIMScheduler()).save_pretrained(tmp_path / "folder")
    run = import_diffusers(tmp_path / "folder", tmp_path / "run")
    assert run.spec == SPEC
    config = run.recipe.config
    assert isinstance(config, DDPMConfig)
    assert (config.timesteps, config.schedule, config.variance) == (1000, "linear", "learned")
    model, _ = run.model(CPU)
    for sampler in ("ddpm", "dpm++2m"):
        options = DDPMOptions(sampler=sampler, steps=3)
        assert model.sample(2, rng=SampleRng(0, range(2)), options=options).x.shape == (2, 1, 8, 8)
    assert "unknown" in (run.path / "README.md").read_text()


def test_folders_are_told_apart(tmp_path):
    run = made(tmp_path / "run")
    pipeline = export_diffusers(run, tmp_path / "pipeline")
    assert looks_like_diffusers(pipeline)
    assert looks_like_diffusers(pipeline / "unet")
    assert not looks_like_diffusers(run.path)
    assert not looks_like_diffusers(tmp_path)
    (pipeline / "unet" / "config.json").write_text("{")
    assert not looks_like_diffusers(pipeline / "unet")


@pytest.mark.parametrize(
    ("file", "change", "match"),
    [
        ("scheduler/scheduler_config.json", {"beta_end": 0.03}, "beta_schedule 'linear' from 0.001 to 0.03"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid'"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned"}, "variance_type is 'learned'"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned_range"}, "'learned_range' for 1 out_channels"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "zero_snr"),
        ("unet/config.json", {"sample_size": None}, "sample_size is missing"),
    ],
)
def test_what_no_ddpm_is(tmp_path, file, change, match):
    folder = export_diffusers(made(tmp_path / "run"), tmp_path / "folder")
    data = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**data, **change}))
    with pytest.raises(RunError, match=match):
        import_diffusers(folder, tmp_path / "back")
    assert {p.name for p in tmp_path.iterdir()} == {"run", "folder"}


def test_classes_without_a_null_class_are_refused():
    config = replace(UNET, null_class=False)
    received = replace(_received(), config=config, classes=3)
    with pytest.raises(UsageError, match='none of them means "no class"'):
        config_of(received)
    with pytest.raises(UsageError, match="give the folder of its pipeline"):
        config_of(replace(_received(), schedule=None))
    with pytest.raises(UsageError, match="out_channels is 3 for 1"):
        config_of(replace(_received(), out_channels=3))


def _received() -> Received:
    return Received(UNET, 1, 1, 0, (8, 8), {}, Schedule())


def test_runs_that_are_not_exported(tmp_path):
    run = made(tmp_path / "run")
    model, _ = run.model(CPU)
    state = dict(model.state_dict())
    # pictures of three greys, from 10 to 100
    state["units.table"] = torch.tensor([10, 55, 100, *range(3, 256)], dtype=torch.uint8)
    state["units.count"] = torch.tensor(3)
    save_tensors(run.weights, state, {})
    with pytest.raises(UsageError, match="values from 10 to 100"):
        export_diffusers(run, tmp_path / "out")
    points = made(tmp_path / "points", CONFIG, PointsSpec(2))
    with pytest.raises(UsageError, match="draws pictures"):
        export_diffusers(points, tmp_path / "out")
    odd = made(tmp_path / "odd", CONFIG, ImageSpec(1, 7, 7))
    with pytest.raises(UsageError, match="7x7 cannot be exported"):
        export_diffusers(odd, tmp_path / "out")
    labelled = made(tmp_path / "labelled", replace(CONFIG, conditional=True), ImageSpec(1, 8, 8, ("a", "b")))
    with pytest.raises(UsageError, match="label 3 does not exist"):
        export_diffusers(labelled, tmp_path / "out", label=3)
    assert not (tmp_path / "out").exists()
    one = export_diffusers(labelled, tmp_path / "one", label=1)
    assert from_diffusers(one).classes == 0
    with pytest.raises(CastaliaError, match="not empty"):
        export_diffusers(labelled, tmp_path / "one")
