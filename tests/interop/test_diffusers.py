"""Beside diffusers itself, 0.42.1: the same numbers both ways, and folders that each side reads of the other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from castalia.core.errors import CastaliaError, RunError, UsageError
from castalia.core.weights import load_tensors
from castalia.interop.diffusers import from_diffusers, to_diffusers
from castalia.interop.diffusers_layout import UNet2D, from_unet2d, to_ours, to_theirs, to_unet2d
from castalia.interop.diffusers_schedule import Schedule, read_schedule
from castalia.nn.embeddings import FourierFeatures, sinusoids
from castalia.nn.unet import UNet, UNetConfig, ddpm_cifar, small_28

diffusers = pytest.importorskip("diffusers", reason="the test extra installs diffusers")

BASE = {
    "sample_size": 16,
    "in_channels": 2,
    "out_channels": 2,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}

CASES = {
    "attention at the low level": {},
    "ddpm": {
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "layers_per_block": 2,
    },
    "adm": {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "block_out_channels": (16, 16, 32),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "num_class_embeds": 5,
        "out_channels": 4,
    },
    "adm with groups in the middle": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "add with groups in the middle": {"attn_norm_num_groups": 4},
    "one way in, another out": {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
        "upsample_type": "resnet",
        "add_attention": False,
    },
    "attention at full resolution, none in the middle": {
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
        "mid_block_type": None,
        "attention_head_dim": 16,
    },
    "wide pictures, narrow embedding": {"sample_size": (8, 24), "time_embedding_dim": 24, "num_class_embeds": 3},
    "one level": {
        "block_out_channels": (16,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "sample_size": 9,
    },
}


def theirs_of(**changes):
    """A ``UNet2DModel`` with random weights, biases and norms."""
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**{**BASE, **changes}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return model


def fields(model) -> UNet2D:
    data = {k: v for k, v in model.config.items() if not k.startswith("_")}
    return UNet2D(**data)


def ours_of(model) -> UNet:
    theirs = fields(model)
    config, classes = from_unet2d(theirs, null_class=False)
    net = UNet(config, theirs.in_channels, theirs.out_channels, classes).eval()
    net.load_state_dict(to_ours(net, model.state_dict()))
    return net


def inputs(model, n: int = 4):
    torch.manual_seed(1)
    height, width = fields(model).size or (16, 16)
    label = torch.arange(n) % model.config.num_class_embeds if model.config.num_class_embeds else None
    return torch.randn(n, model.config.in_channels, height, width), torch.tensor([0, 3, 500, 999])[:n], label


def ours_random(config: UNetConfig, channels: int = 1, outputs: int = 1, classes: int = 0) -> UNet:
    torch.manual_seed(2)
    net = UNet(config, channels, outputs, classes).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return net


# the same numbers


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_their_weights_in_our_network(changes):
    """Outputs within 1e-5, at a scale of one; parameters and configuration equal; weights back without a change."""
    model = theirs_of(**changes)
    net = ours_of(model)
    x, t, label = inputs(model)
    with torch.no_grad():
        expected, found = model(x, t, label).sample, net(x, t.float(), label)
    assert expected.std() > 0.1
    assert (expected - found).abs().max() < 1e-5
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in model.parameters())
    back = to_theirs(net, net.state_dict())
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())
    again = to_unet2d(net.config, net.in_channels, net.out_channels, net.classes, x.shape[2:])
    assert to_ours(net, back).keys() == net.state_dict().keys()
    twin = diffusers.UNet2DModel(**asdict(again))
    twin.load_state_dict(back)
    with torch.no_grad():
        assert torch.equal(twin.eval()(x, t, label).sample, expected)


@pytest.mark.parametrize(
    ("config", "classes", "size"),
    [
        (small_28(), 0, 28),
        (replace(small_28(), channels=(16, 16), attention=(0, 1), head_channels=None, heads=2), 10, 14),
        (
            replace(small_28(), conditioning="scale_shift", down="block", up="block", cos_first=True, freq_shift=0.0),
            0,
            28,
        ),
    ],
)
def test_our_weights_in_their_network(config, classes, size):
    net = ours_random(config, 1, 1, classes)
    model = diffusers.UNet2DModel(**asdict(to_unet2d(config, 1, 1, classes, (size, size)))).eval()
    model.load_state_dict(to_theirs(net, net.state_dict()))
    x, t = torch.randn(3, 1, size, size), torch.tensor([0, 7, 999])
    label = torch.tensor([0, 4, 10]) if classes else None
    with torch.no_grad():
        expected, found = model(x, t, label).sample, net(x, t.float(), label)
        table = net.embed(t.float(), label)
        channels_last = net.to(memory_format=torch.channels_last).forward_embedded(x, table)
    assert expected.std() > 0.1
    assert (expected - found).abs().max() < 1e-5
    assert (expected - channels_last).abs().max() < 1e-5


def test_parameters_of_the_ddpm_of_the_paper():
    """diffusers' equivalent of Ho et al.'s CIFAR-10 network, counted there and here."""
    theirs = to_unet2d(ddpm_cifar(), 3, 3, 0, (32, 32))
    assert theirs == UNet2D(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        dropout=0.1,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )
    with torch.device("meta"):
        counts = [sum(p.numel() for p in m.parameters()) for m in (diffusers.UNet2DModel(**asdict(theirs)),)]
        counts.append(sum(p.numel() for p in UNet(ddpm_cifar(), 3, 3).parameters()))
    assert counts == [35_746_307, 35_746_307]


def test_gradients():
    """Of the mean square, for every weight, within 1e-5 of the largest; channels-last and the shared layers included."""
    model = theirs_of(**CASES["adm"])
    net = ours_of(model).to(memory_format=torch.channels_last)
    x, t, label = inputs(model)
    model(x, t, label).sample.square().mean().backward()
    net(x, t.float(), label).square().mean().backward()
    found = to_theirs(net, {name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() < 1e-5 * largest, name


@pytest.mark.parametrize("name", ["attention at the low level", "adm"])
def test_bfloat16(name):
    """Both lose about the same to rounding; ours not more than 1.2 times what theirs does."""
    model = theirs_of(**CASES[name])
    net = ours_of(model).to(memory_format=torch.channels_last)
    x, t, label = inputs(model)
    with torch.no_grad():
        exact = net(x, t.float(), label)
        found = net.bfloat16()(x, t.float(), label)
        beside = model.bfloat16()(x.bfloat16(), t, label).sample.float()
    assert (found - exact).std() < 0.03 * exact.std()
    assert (found - exact).std() < 1.2 * (beside - exact).std()


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_betas(beta_schedule, zero_snr):
    made = {"beta_schedule": beta_schedule, "rescale_betas_zero_snr": zero_snr, "num_train_timesteps": 500}
    theirs = diffusers.DDPMScheduler(**made).betas.double()
    # theirs is float32; near zero terminal signal a quotient of two tiny numbers
    torch.testing.assert_close(Schedule(**made).values(), theirs, atol=1e-6 if not zero_snr else 2e-4, rtol=1e-4)


# folders


def test_folders_of_diffusers(tmp_path):
    """Its own two kinds of folders, and the names that attention had in old ones."""
    model = theirs_of(**CASES["ddpm"])
    model.save_pretrained(tmp_path / "model")
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=500, beta_schedule="squaredcos_cap_v2", variance_type="fixed_large"
    )
    diffusers.DDPMPipeline(model, scheduler).save_pretrained(tmp_path / "ddpm")
    diffusers.DDIMPipeline(model, scheduler).save_pretrained(tmp_path / "ddim")
    old = tmp_path / "old"
    model.save_pretrained(old)
    renamed = {
        n.replace("to_q", "query").replace("to_k", "key").replace("to_v", "value").replace("to_out.0", "proj_attn"): v
        for n, v in load_file(old / "diffusion_pytorch_model.safetensors").items()
    }
    assert any("proj_attn" in n for n in renamed)
    save_file(renamed, old / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    flat = tmp_path / "flat"  # how google/ddpm-cifar10-32 and its like are stored
    shutil.copytree(tmp_path / "ddpm" / "unet", flat)
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        shutil.copy(tmp_path / "ddpm" / name, flat)
    x, t, _ = inputs(model)
    with torch.no_grad():
        expected = model(x, t).sample
        for name in ("ddpm", "ddim", "flat", "model", "old"):
            made = from_diffusers(tmp_path / name)
            assert (made.network()(x, t.float()) - expected).abs().max() < 1e-5
            assert (made.in_channels, made.out_channels, made.classes, made.size) == (2, 2, 0, (16, 16))
    assert made.schedule is None
    schedule = from_diffusers(tmp_path / "ddpm").schedule
    assert schedule == from_diffusers(flat).schedule
    assert schedule == Schedule(500, beta_schedule="squaredcos_cap_v2", variance_type="fixed_large")
    assert from_diffusers(tmp_path / "ddim").schedule == schedule  # which keeps what it does not use


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights(tmp_path, dtype):
    model = theirs_of()
    model.to(dtype).save_pretrained(tmp_path / "half")
    made = from_diffusers(tmp_path / "half")
    assert {t.dtype for t in made.state.values()} == {torch.float32}
    theirs = to_theirs(made.network(), made.state)
    assert all(torch.equal(theirs[n], t.float()) for n, t in model.state_dict().items())


def test_a_network_alone(tmp_path):
    net = ours_random(small_28())
    folder = to_diffusers(net.config, 1, 1, 0, net.state_dict(), (28, 28), tmp_path / "net")
    assert {p.name for p in folder.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors", "README.md"}
    model = diffusers.UNet2DModel.from_pretrained(folder)
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 800])
    with torch.no_grad():
        assert (model(x, t).sample - net(x, t.float())).abs().max() < 1e-5
    made = from_diffusers(folder)
    assert made.config == net.config
    assert all(torch.equal(made.state[n], t) for n, t in net.state_dict().items())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_pipelines_run(tmp_path, prediction):
    """Both pipelines draw; and a step of theirs around our network is a step of theirs around its copy."""
    config = replace(small_28(), channels=(16, 16), attention=(), groups=4, head_channels=16)
    net = ours_random(config)
    schedule = Schedule(prediction_type=prediction, variance_type="fixed_large")
    folder = to_diffusers(config, 1, 1, 0, net.state_dict(), (8, 8), tmp_path / "pipe", schedule)
    for kind in (diffusers.DDPMPipeline, diffusers.DDIMPipeline):
        pipe = kind.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        made = pipe(batch_size=2, num_inference_steps=4, output_type="np", generator=torch.Generator().manual_seed(0))
        assert made.images.shape == (2, 8, 8, 1)
        assert 0 < made.images.std() < 1
        assert pipe.scheduler.config.prediction_type == prediction
        x = torch.randn((2, 1, 8, 8), generator=(noise := torch.Generator().manual_seed(0)))
        pipe.scheduler.set_timesteps(4)
        with torch.no_grad():
            for t in pipe.scheduler.timesteps:
                x = pipe.scheduler.step(net(x, t.float().expand(2)), t, x, generator=noise).prev_sample
        ours = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(ours, made.images, atol=1e-4)
    assert from_diffusers(folder).schedule == schedule


def test_learned_variance(tmp_path):
    """``DDPMPipeline`` uses it, ``DDIMPipeline`` fails, and without that half of the output it does not."""
    config = replace(small_28(), channels=(16, 16), attention=(), groups=4, head_channels=16)
    net = ours_random(config, 1, 2)
    args = (config, 1, 2, 0, net.state_dict(), (8, 8))
    schedule = Schedule(variance_type="learned_range")
    folder = to_diffusers(*args, tmp_path / "learned", schedule)
    pipe = diffusers.DDPMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    assert pipe(num_inference_steps=3, output_type="np").images.shape == (1, 8, 8, 1)
    assert from_diffusers(folder).schedule == schedule
    pipe = diffusers.DDIMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(RuntimeError, match="size"):
        pipe(num_inference_steps=3, output_type="np")
    folder = to_diffusers(*args, tmp_path / "dropped", schedule, drop_variance=True)
    pipe = diffusers.DDIMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    assert pipe(num_inference_steps=3, output_type="np").images.shape == (1, 8, 8, 1)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        assert (from_diffusers(folder).network()(x, t) - net(x, t)[:, :1]).abs().max() < 1e-6
    with pytest.raises(UsageError, match="predicts no variance"):
        to_diffusers(config, 1, 1, 0, ours_random(config).state_dict(), (8, 8), tmp_path / "no", drop_variance=True)


def test_the_card_says_what_runs(tmp_path):
    """The Python in the folder's README runs."""
    config = UNetConfig(channels=(8, 8), groups=2, attention=(), head_channels=8, blocks=1)
    for name, outputs, classes, schedule in (
        ("net", 1, 0, None),
        ("plain", 1, 0, Schedule(num_train_timesteps=50)),
        ("learned", 2, 0, Schedule(num_train_timesteps=2, variance_type="learned_range")),
        ("classes", 1, 3, Schedule()),
    ):
        net = ours_random(config, 1, outputs, classes)
        folder = to_diffusers(config, 1, outputs, classes, net.state_dict(), (8, 8), tmp_path / name, schedule)
        text = (folder / "README.md").read_text()
        assert text.startswith("---\nlibrary_name: diffusers\n")
        code = text.split("```python\n")[1].split("```")[0]
        if name == "learned":
            code = code.replace("batch_size=4", "num_inference_steps=2")
        found: dict = {"FOLDER": folder}
        exec(code, found)
        assert ("pictures" in found) == (name in ("plain", "learned"))
        assert ("net" in found) == (name in ("net", "classes"))


def test_classes_and_the_null_class(tmp_path):
    """A folder with classes keeps the null class; with a label given, the pipelines draw that class."""
    config = replace(small_28(), channels=(16, 16), attention=(), groups=4, head_channels=16)
    net = ours_random(config, 1, 1, 3)
    args = (config, 1, 1, 3, net.state_dict(), (8, 8))
    folder = to_diffusers(*args, tmp_path / "classes", Schedule())
    made = from_diffusers(folder)
    assert made.classes == 3
    assert made.config.null_class
    x, t = torch.randn(4, 1, 8, 8), torch.tensor([3.0, 700.0, 0.0, 999.0])
    model = diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet")
    labels = torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        assert torch.equal(made.network()(x, t, labels), net(x, t, labels))
        assert (model(x, t, labels).sample - net(x, t, labels)).abs().max() < 1e-5
        for label in range(4):
            one = to_diffusers(*args, tmp_path / str(label), Schedule(), label=label)
            pipe = diffusers.DDPMPipeline.from_pretrained(one)
            pipe.set_progress_bar_config(disable=True)
            assert pipe(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 1)
            expected = net(x, t, torch.full((4,), label))
            assert (pipe.unet(x, t).sample - expected).abs().max() < 1e-5
    with pytest.raises(UsageError, match="label 4 does not exist"):
        to_diffusers(*args, tmp_path / "no", Schedule(), label=4)
    # of a folder by diffusers nobody knows whether one of its classes means none
    theirs_of(num_class_embeds=3).save_pretrained(tmp_path / "theirs")
    made = from_diffusers(tmp_path / "theirs")
    assert made.classes == 3
    assert not made.config.null_class


@pytest.mark.parametrize(
    ("change", "size", "match"),
    [
        ({"time": "fourier"}, 8, "time=fourier"),
        ({"max_period": 100.0}, 8, "max_period"),
        ({"skip_rescale": True}, 8, "skip_rescale"),
        ({"down": "pool"}, 8, "down=pool"),
        ({"up": "nearest"}, 8, "up=nearest"),
        ({"middle_groups": 0}, 8, "middle_groups=0"),
        ({"head_channels": None, "heads": 2, "attention": (0, 1)}, 8, "Give head_channels"),
        ({}, 10, "10x10 cannot be exported with 3 levels"),
    ],
)
def test_what_diffusers_does_not_have_is_said(tmp_path, change, size, match):
    config = replace(UNetConfig(channels=(8, 16, 16), groups=4, head_channels=8), **change)
    net = UNet(config, 1, 1)
    with pytest.raises(UsageError, match=match):
        to_diffusers(config, 1, 1, 0, net.state_dict(), (size, size), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_odd_sides_fail_in_diffusers_indeed():
    model = theirs_of(sample_size=7)
    with pytest.raises(RuntimeError, match="size"):
        model(torch.randn(1, 2, 7, 7), 3)


def test_targets_that_hold_something_are_refused(tmp_path):
    (tmp_path / "precious").write_text("x")
    net = ours_random(small_28())
    with pytest.raises(UsageError, match="not empty"):
        to_diffusers(net.config, 1, 1, 0, net.state_dict(), (28, 28), tmp_path)


def test_diffusers_is_not_needed():
    code = "import sys, castalia.interop.diffusers; assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# what is refused


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A pipeline of a tiny network, as bytes to copy."""
    folder = tmp_path_factory.mktemp("written")
    config = UNetConfig(channels=(8, 8), groups=2, attention=(), head_channels=8, blocks=1)
    net = ours_random(config, 1, 1)
    return to_diffusers(config, 1, 1, 0, net.state_dict(), (8, 8), folder / "pipe", Schedule())


@pytest.fixture
def pipe(written, tmp_path) -> Path:
    for source in written.rglob("*"):
        if source.is_file():
            target = tmp_path / "pipe" / source.relative_to(written)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return tmp_path / "pipe"


def edit(path: Path, change: Callable[[dict], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(CastaliaError, match=match) as caught:
        from_diffusers(folder)
    assert isinstance(caught.value, RunError)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"block_out_chanels": [8, 8]}, "no field 'block_out_chanels'.*'block_out_channels'"),
        ({"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel'; Castalia reads UNet2DModel"),
        ({"_class_name": ["UNet2DModel"]}, "_class_name"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types has 'SkipDownBlock2D'"),
        ({"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}, "up_block_types has 'CrossAttnUpBlock2D'"),
        ({"down_block_types": ["DownBlock2D"]}, "down_block_types names 1 blocks"),
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "up_block_types has attention"),
        (
            {
                "block_out_channels": [8, 8, 8],
                "down_block_types": ["DownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"],
            },
            "down_block_types changes the size",
        ),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"center_input_sample": True}, "center_input_sample"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"mid_block_scale_factor": 1.41}, "mid_block_scale_factor"),
        ({"downsample_padding": 2}, "downsample_padding"),
        ({"resnet_time_scale_shift": "ada_group"}, "resnet_time_scale_shift"),
        ({"norm_num_groups": 3}, "no such network can be built: groups=3"),
        ({"norm_num_groups": None}, "norm_num_groups"),
        ({"attention_head_dim": 5}, "no such network can be built"),
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000"),
        ({"layers_per_block": [1, 2]}, "layers_per_block: expected int"),
        ({"block_out_channels": [8] * 100}, "block_out_channels"),
        ({"block_out_channels": [10**12, 8]}, "block_out_channels"),
        ({"block_out_channels": []}, "block_out_channels"),
        ({"in_channels": -1}, "in_channels"),
        ({"num_class_embeds": 10**9}, "num_class_embeds"),
        ({"sample_size": 0}, "sample_size"),
        ({"norm_eps": float("nan")}, "norm_eps.*not a finite number"),
        ({"dropout": 1.5}, "dropout"),
        (
            {"block_out_channels": [16, 16]},
            r"does not fit its configuration: 'time_embedding.linear_1.weight' is \(32, 8\)",
        ),
        ({"num_class_embeds": 3}, "no 'class_embedding.weight'"),
        ({"add_attention": False}, "unexpected 'mid_block.attentions.0"),
    ],
)
def test_networks_that_are_refused(pipe, change, match):
    edit(pipe / "unet" / "config.json", lambda data: data.update(change))
    refused(pipe, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"beta_end": "0.02"}, "beta_end: expected float"),
        ({"beta_start": -0.1}, "lie in"),
        ({"beta_schedule": "laplace"}, "beta_schedule: 'laplace' is not one of linear"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps is 1000000000"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas has 2 values"),
        ({"prediction_type": "flow_prediction"}, "prediction_type"),
        ({"variance_type": "free"}, "variance_type"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"beta_begin": 0.1}, "no field 'beta_begin'.*'beta_start'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "_class_name is 'FlowMatch"),
    ],
)
def test_schedules_that_are_refused(pipe, change, match):
    edit(pipe / "scheduler" / "scheduler_config.json", lambda data: data.update(change))
    refused(pipe, match)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with numpy 2
def test_schedules_of_every_known_scheduler(tmp_path):
    """All fields that the schedulers of diffusers write are known, those for drawing included."""
    from castalia.interop.diffusers_schedule import SCHEDULERS

    for name in SCHEDULERS:
        made = getattr(diffusers, name)(beta_start=0.001, prediction_type="v_prediction")
        made.save_pretrained(tmp_path / name)
        schedule = read_schedule(tmp_path / name / "scheduler_config.json")
        assert schedule.beta_start == 0.001
        assert schedule.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "_class_name is 'StableDiffusionPipeline'"),
        ({"unet": ["diffusers", "UNet2DConditionModel"]}, "'unet' is not a UNet2DModel"),
        ({"scheduler": ["diffusers", "KarrasVeScheduler"]}, "'scheduler' is .*KarrasVe"),
        ({"scheduler": None}, "'scheduler' is None"),
        ({"vqvae": ["diffusers", "VQModel"]}, "a part 'vqvae'"),
    ],
)
def test_pipelines_that_are_refused(pipe, change, match):
    edit(pipe / "model_index.json", lambda data: data.update(change))
    refused(pipe, match)


def test_pickles_are_refused_and_the_way_out_is_told(pipe):
    weights = pipe / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(pipe, r"pickle file.*save_pretrained\(other, safe_serialization=True\)")
    weights.with_suffix(".bin").rename(weights.with_suffix(".fp16.safetensors"))
    refused(pipe, "only diffusion_pytorch_model.fp16.safetensors")
    weights.with_suffix(".fp16.safetensors").unlink()
    refused(pipe, "has no diffusion_pytorch_model.safetensors")


def test_damaged_weights(pipe):
    weights = pipe / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    for data, match in (
        (whole[:-1], "is damaged: its header describes"),
        (whole + b"\0", "is damaged: its header describes"),
        (whole[:5], "header claims"),
        (b"\xff" * 8 + whole[8:], "header claims"),
        (whole[:8] + b"[" + whole[9:], "header cannot be read"),
        (b"", "header claims"),
    ):
        weights.write_bytes(data)
        refused(pipe, match)
    tensors = load_file(_put(weights, whole))
    tensors["conv_in.bias"][0] = float("nan")
    save_file(tensors, weights)
    refused(pipe, "'conv_in.bias' holds values that are not finite")
    tensors["conv_in.bias"] = torch.zeros(8, dtype=torch.int32)
    save_file(tensors, weights)
    refused(pipe, "'conv_in.bias' has the type 'I32'")
    tensors["conv_in.bias"] = torch.zeros(9)
    save_file(tensors, weights)
    refused(pipe, r"'conv_in.bias' is \(9,\), expected \(8,\)")
    del tensors["conv_in.bias"]
    save_file(tensors, weights)
    refused(pipe, "no 'conv_in.bias'")
    tensors["conv_in.bias"] = torch.zeros(8)
    tensors["extra"] = torch.zeros(8)
    save_file(tensors, weights)
    refused(pipe, "unexpected 'extra'")
    del tensors["extra"]
    tensors["mid_block.attentions.0.query.bias"] = tensors["mid_block.attentions.0.to_q.bias"].clone()
    save_file(tensors, weights)
    refused(pipe, "is there twice")


def _put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "unet",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler",
        "scheduler/scheduler_config.json",
    ],
)
def test_links_are_refused(pipe, tmp_path, name):
    (pipe / name).rename(tmp_path / "elsewhere")
    (pipe / name).symlink_to(tmp_path / "elsewhere")
    refused(pipe, "symbolic link")


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_files_that_are_no_configuration(pipe, name):
    path = pipe / name
    for data in (b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"_class_name": ' + b"9" * 5000 + b"}"):
        path.write_bytes(data)
        refused(pipe, "JSON|expected an object|_class_name")
    with open(path, "wb") as file:
        file.truncate(5 << 20)
    refused(pipe, "never needs more")
    path.unlink()
    if name != "model_index.json":
        refused(pipe, "is missing|neither")


def test_folders_that_are_something_else(tmp_path):
    refused(tmp_path / "nowhere", "no folder")
    refused(tmp_path, "neither model_index.json nor config.json")


def test_the_weights_verify_themselves(written):
    """They carry Castalia's digest, which diffusers ignores."""
    _, metadata = load_tensors(written / "unet" / "diffusion_pytorch_model.safetensors")
    assert metadata["format"] == "pt"
    assert len(metadata["castalia.sha256"]) == 64


def test_features_of_time_beside_theirs():
    """Sinusoids to the bit; Fourier features to the rounding of phases of some hundred."""
    from diffusers.models.embeddings import GaussianFourierProjection, get_timestep_embedding

    t = torch.tensor([0.0, 1.0, 17.5, 999.0])
    for flip in (False, True):
        for shift in (0, 1):
            theirs = get_timestep_embedding(t, 32, flip, shift)
            assert torch.equal(sinusoids(t, 32, cos_first=flip, freq_shift=shift), theirs)
    theirs = GaussianFourierProjection(16, scale=16, log=False, flip_sin_to_cos=True)
    ours = FourierFeatures(16, 16.0, cos_first=True)
    ours.frequencies.copy_(theirs.weight.detach())
    t = torch.tensor([-1.5, 0.0, 0.3, 1.0])
    torch.testing.assert_close(ours(t), theirs(t), atol=1e-4, rtol=0)
