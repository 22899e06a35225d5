"""Runs as parts of diffusers' pipelines, beside diffusers itself on the same weights; and such folders read onto runs."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from castalia import runs, verbs
from castalia.catalogue import entry
from castalia.cli.main import main
from castalia.configuration import Data, Recipe
from castalia.core.captions import CAPTION
from castalia.core.config import Config
from castalia.core.errors import RunError, UsageError
from castalia.core.model import Model, build
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.core.specs.text import TextSpec
from castalia.core.weights import save_tensors
from castalia.interop.diffusers_defaults import DEFAULTS, equal
from castalia.interop.diffusers_parts import turned
from castalia.interop.diffusers_systems import INSTEAD, export_parts, import_parts
from castalia.models.diffusion.consistency import ConsistencyConfig
from castalia.models.diffusion.ddpm import DDPMConfig
from castalia.models.diffusion.dit import DiTConfig
from castalia.models.diffusion.flow_matching import FlowMatchingConfig
from castalia.models.diffusion.process import ProcessConfig
from castalia.models.diffusion.samplers import SAMPLERS
from castalia.models.diffusion.transformer import TransformerConfig
from castalia.models.multimodal.clip import CLIPConfig
from castalia.models.multimodal.embeddings_prior import EmbeddingPriorConfig
from castalia.models.multimodal.first_stage import FirstStageConfig
from castalia.models.multimodal.latent_diffusion import LatentDiffusionConfig
from castalia.models.multimodal.towers import TextConfig, VisionConfig
from castalia.models.multimodal.unclip import UnCLIPConfig
from castalia.models.multimodal.words import WordsConfig
from castalia.nn.embeddings import sinusoids
from castalia.nn.pixels import inward
from castalia.nn.unet import UNetConfig

diffusers: Any = pytest.importorskip("diffusers", reason="the test extra installs diffusers")

PLAIN = ImageSpec(3, 16, 16)
CLASSES = ImageSpec(3, 16, 16, ("a", "b"))
ONE = ImageSpec(3, 16, 16, ("a",))
CAPTIONS = ImageSpec(3, 16, 16, (), columns=((CAPTION, TextSpec("bytes", 257, 40)),))
UNET = UNetConfig(channels=(16, 32), blocks=1, attention=(0, 1), head_channels=8, groups=4)
FIRST = FirstStageConfig(channels=(8, 16), blocks=1, latent=3, groups=4, adversarial=0.0, perceptual=0.0)
TRANSFORMER = TransformerConfig(patch=2, width=24, depth=2, heads=2)


def made(folder: Path, name: str, config: Config, spec: Spec = PLAIN) -> runs.Run:
    """A run of a model whose every weight is changed."""
    model = build(entry(name).load(), config, spec)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    run = runs.create(folder, Recipe(name, config, Data("unknown")), spec, "")
    save_tensors(run.weights, model.state_dict(), {})
    return runs.open_run(folder)


def latent(folder: Path, spec: ImageSpec = PLAIN, **changes: Any) -> runs.Run:
    words = WordsConfig(length=10, words=("star", "red"))
    config = LatentDiffusionConfig(first=FIRST, unet=UNET, text=TextConfig(12, 1, 2), words=words, **changes)
    run = made(folder, "latent-diffusion", config, spec)
    state = run.model()[0].state_dict()
    state["middle"] = torch.tensor([0.4, -0.3, 0.1]).view(3, 1, 1)
    state["deviation"] = torch.tensor(1.7)
    save_tensors(run.weights, state, {})
    return run


def stirred(run: runs.Run) -> runs.Run:
    """The run with all weights half as large again."""
    state = run.model()[0].state_dict()
    save_tensors(run.weights, {k: v * 1.5 if v.is_floating_point() else v for k, v in state.items()}, {})
    return run


def same(run: runs.Run, other: runs.Run, part: str) -> None:
    """Weights behind a prefix, as far as rounding leaves them."""
    ours, theirs = (r.model()[0].state_dict() for r in (run, other))
    names = [name for name in ours if name.startswith(part)]
    assert names
    for name in names:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-6)


def pictures(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


# latent diffusion


@torch.no_grad()
@pytest.mark.parametrize("known", ["caption", "class", "nothing"])
def test_latent_diffusion(tmp_path: Path, known: Any) -> None:
    spec = {"caption": CAPTIONS, "class": CLASSES, "nothing": PLAIN}[known]
    run = latent(tmp_path / "run", spec, known=known, process=ProcessConfig(schedule="linear", prediction="v"))
    verbs.export(run, tmp_path / "out", "diffusers")
    model: Any = run.model()[0]
    vae = diffusers.AutoencoderKL.from_pretrained(tmp_path / "out", subfolder="vae").eval()
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "out", subfolder="unet").eval()
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    x = pictures(4)
    z = vae.encode(inward(x)).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(z, model.latent(x), atol=1e-5, rtol=1e-5)
    decoded = vae.decode(z / vae.config.scaling_factor).sample
    torch.testing.assert_close(decoded, model.decoder(z * model.deviation + model.middle), atol=1e-5, rtol=1e-5)
    t = torch.tensor([0, 3, 500, 999])
    np.testing.assert_allclose(scheduler.alphas_cumprod, 1 / (1 + model.process.sigmas**2), atol=1e-5)
    assert scheduler.config.prediction_type == "v_prediction"
    assert not scheduler.config.clip_sample
    if known != "caption":
        vectors = load_file(tmp_path / "out" / INSTEAD)["vectors"]
        label = torch.tensor([0, 1, 2, 0]) if known == "class" else torch.zeros(4, dtype=torch.int64)
        ours = model.calling(4, None, label if known == "class" else None)(z, t.float())
        torch.testing.assert_close(ours, unet(z, t, vectors[label]).sample, atol=1e-5, rtol=1e-5)
    else:
        assert not (tmp_path / "out" / INSTEAD).exists()
    # what diffusers saves comes back
    vae.save_pretrained(tmp_path / "saved" / "vae")
    unet.save_pretrained(tmp_path / "saved" / "unet")
    scheduler.save_pretrained(tmp_path / "saved" / "scheduler")
    other = latent(tmp_path / "other", spec, known=known, process=ProcessConfig(schedule="linear", prediction="v"))
    stirred(other)
    assert main(["import", str(tmp_path / "saved"), "--start", str(other.path), "--out", str(tmp_path / "back")]) == 0
    back = runs.open_run(tmp_path / "back")
    found: Any = back.model()[0]
    same(run, back, "network.")
    torch.testing.assert_close(found.latent(x), model.latent(x), atol=1e-5, rtol=1e-5)
    assert bool((found.picture(z).int() - model.picture(z).int()).abs().max() <= 1)


def test_what_stands_in_place_of_words_comes_back(tmp_path: Path) -> None:
    run = latent(tmp_path / "run", CLASSES, known="class")
    export_parts(run, tmp_path / "out")
    other = latent(tmp_path / "other", CLASSES, known="class")
    stirred(other)
    same(run, import_parts(tmp_path / "out", other, tmp_path / "back"), "names.")


# transformers


def frequencies(theirs: Any) -> Any:
    """Their transformer with the paper's frequencies, as the folder's README says."""
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return theirs.eval()


@torch.no_grad()
@pytest.mark.parametrize("classes", [True, False])
def test_dit(tmp_path: Path, classes: bool) -> None:
    spec = CLASSES if classes else PLAIN
    run = made(tmp_path / "run", "dit", DiTConfig(transformer=TRANSFORMER, conditional=classes), spec)
    export_parts(run, tmp_path / "out")
    theirs = frequencies(diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "out", subfolder="transformer"))
    model: Any = run.model()[0]
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([0, 17, 999])
    label = torch.tensor([0, 1, 2]) if classes else None
    asked = torch.zeros(3, dtype=torch.int64) if label is None else label
    ours = model.network(x, t.float(), label)
    torch.testing.assert_close(ours, theirs(x, t, asked).sample, atol=1e-5, rtol=1e-5)
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    assert scheduler.config.variance_type == "learned_range"
    theirs.save_pretrained(tmp_path / "saved" / "transformer")
    start = made(tmp_path / "start", "dit", DiTConfig(transformer=TRANSFORMER, conditional=classes), spec)
    stirred(start)
    back = import_parts(tmp_path / "saved", start, tmp_path / "back")
    same(run, back, "network.blocks")
    same(run, back, "network.time")
    # a part alone
    assert import_parts(tmp_path / "saved" / "transformer", start, tmp_path / "alone").recipe.model == "dit"
    if not classes:
        taught = made(tmp_path / "taught", "dit", DiTConfig(transformer=TRANSFORMER, conditional=True), ONE)
        with pytest.raises(RunError, match="was taught classes"):
            import_parts(export_parts(taught, tmp_path / "one"), start, tmp_path / "no")
        wide = made(tmp_path / "wide", "dit", DiTConfig(transformer=TRANSFORMER), ImageSpec(3, 24, 24))
        with pytest.raises(RunError, match="sample_size is 16"):
            import_parts(tmp_path / "saved", wide, tmp_path / "no")
    state = load_file(tmp_path / "saved" / "transformer" / "diffusion_pytorch_model.safetensors")
    state["transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"] += 1
    save_file(state, tmp_path / "saved" / "transformer" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(RunError, match="blocks differ in"):
        import_parts(tmp_path / "saved", start, tmp_path / "no")


@torch.no_grad()
def test_latent_diffusion_with_a_transformer(tmp_path: Path) -> None:
    run = latent(tmp_path / "run", CLASSES, known="class", network="transformer", transformer=TRANSFORMER)
    export_parts(run, tmp_path / "out")
    theirs = frequencies(diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "out", subfolder="transformer"))
    model: Any = run.model()[0]
    z, t, label = torch.randn(3, 3, 8, 8), torch.tensor([0, 17, 999]), torch.tensor([0, 1, 2])
    torch.testing.assert_close(model.network(z, t.float(), label), theirs(z, t, label).sample, atol=1e-5, rtol=1e-5)
    assert not (tmp_path / "out" / INSTEAD).exists()


# flows and consistency


def test_time_turned_twice_is_as_it_was() -> None:
    w = torch.randn(5, 12, dtype=torch.float64)
    t = torch.tensor([0.0, 12.5, 400.0, 1000.0])
    for first in (True, False):
        for shift in (0.0, 1.0):
            other = turned(w, first, shift)
            torch.testing.assert_close(turned(other, first, shift), w)
            a, b = (sinusoids(v, 12, cos_first=first, freq_shift=shift).double() for v in (t, 1000 - t))
            torch.testing.assert_close(a @ other.T, b @ w.T, atol=2e-4, rtol=1e-4)  # features are float32


@torch.no_grad()
@pytest.mark.parametrize("classes", [True, False])
def test_a_sampling_of_a_flow_is_diffusers(tmp_path: Path, classes: bool) -> None:
    spec = CLASSES if classes else PLAIN
    config = FlowMatchingConfig(unet=replace(UNET, null_class=True), conditional=classes)
    run = made(tmp_path / "run", "flow-matching", config, spec)
    verbs.export(run, tmp_path / "out", "diffusers")
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet").eval()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    model: Any = run.model()[0]
    label = torch.tensor([1, 0]) if classes else None
    x = z = torch.randn(2, 3, 16, 16)
    scheduler.set_timesteps(6)
    y, left = z, scheduler.sigmas.tolist()
    for step, t in enumerate(scheduler.timesteps):
        velocity = model.network(y, torch.full((2,), 1000 - float(t)), label)
        torch.testing.assert_close(unet(x, t, label).sample, -velocity, atol=1e-4, rtol=1e-4)
        x = scheduler.step(unet(x, t, label).sample, t, x).prev_sample
        y = y + (left[step] - left[step + 1]) * velocity
    torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)
    # our own sampler on the same grid: x / t at the level (1 - t) / t
    levels = [1000.0, *((s / (1 - s)) for s in left[1:-1]), 0.0]
    denoise = model.denoiser(label, clip=False).for_labels(label, model.classes, model.SampleOptions())
    ours = SAMPLERS["euler"](denoise, levels[0] * z, levels, noise=lambda step: z)
    assert float((ours - x).abs().max()) < 0.02 * float(x.abs().max())  # ours begins at a thousandth of the way
    unet.save_pretrained(tmp_path / "saved" / "unet")
    scheduler.save_pretrained(tmp_path / "saved" / "scheduler")
    start = made(tmp_path / "start", "flow-matching", config, spec)
    stirred(start)
    same(run, import_parts(tmp_path / "saved", start, tmp_path / "back"), "network.")


@torch.no_grad()
@pytest.mark.parametrize("mean", [0.0, -0.3])
def test_a_consistency_model_is_diffusers(tmp_path: Path, mean: float) -> None:
    run = made(tmp_path / "run", "consistency", ConsistencyConfig(unet=UNET, data_std=0.6, data_mean=mean))
    export_parts(run, tmp_path / "out")
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet").eval()
    scheduler = diffusers.CMStochasticIterativeScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    model: Any = run.model()[0]
    assert scheduler.config.clip_denoised == (mean == 0)
    scheduler.set_timesteps(1)
    x, t = 80 * torch.randn(2, 3, 16, 16), scheduler.timesteps[0]
    output = unet(scheduler.scale_model_input(x, t), t).sample
    found = scheduler.step(output, t, x).prev_sample  # a single step, after which no noise is added
    wanted = model.result(model.network, x, torch.full((2, 1, 1, 1), 80.0), None)
    wanted = wanted if mean else wanted.clamp(-1, 1)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    text = (tmp_path / "out" / "README.md").read_text()
    assert ("add it" in text) == (mean != 0)
    start = made(tmp_path / "start", "consistency", ConsistencyConfig(unet=UNET, data_std=0.6, data_mean=mean))
    scheduler.save_pretrained(tmp_path / "out" / "scheduler")
    same(run, import_parts(tmp_path / "out", start, tmp_path / "back"), "network.")
    other = made(tmp_path / "other", "consistency", ConsistencyConfig(unet=UNET, data_std=0.5))
    with pytest.raises(RunError, match=r"sigma_data is 0\.6"):
        import_parts(tmp_path / "out", other, tmp_path / "no")
    file = tmp_path / "out" / "scheduler" / "scheduler_config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in fields.items() if key != "sigma_data"}))
    with pytest.raises(RunError, match=r"sigma_data is 0\.5"):  # diffusers' default
        import_parts(tmp_path / "out", start, tmp_path / "no")
    file.unlink()
    file.parent.rmdir()
    with pytest.raises(RunError, match="has no scheduler/"):
        import_parts(tmp_path / "out", start, tmp_path / "no")


# the prior


def unclip(folder: Path, text: int = 16) -> runs.Run:
    clip = CLIPConfig(
        dims=16,
        vision=VisionConfig(patch=8, width=16, layers=1, heads=2),
        text=TextConfig(text, 1, 2),
        words=WordsConfig(length=8, words=("star",)),
    )
    small = UNetConfig(channels=(8,), blocks=1, attention=(), head_channels=8, groups=4)
    config = UnCLIPConfig(clip=clip, prior=EmbeddingPriorConfig(24, 2, 2), decoder=small, upsampler=small)
    return made(folder, "unclip", config, CAPTIONS)


@torch.no_grad()
def test_the_prior_of_unclip(tmp_path: Path) -> None:
    run = unclip(tmp_path / "run")
    export_parts(run, tmp_path / "out")
    theirs = diffusers.PriorTransformer.from_pretrained(tmp_path / "out", subfolder="prior").eval()
    model: Any = run.model()[0]
    z, caption, words = torch.randn(3, 16), torch.randn(3, 16), torch.randn(3, 8, 16)
    t = torch.tensor([0, 17, 999])
    ours = model.prior(z, t.float(), words, caption)
    found = theirs(z, t, caption, words, torch.ones(3, 8)).predicted_image_embedding
    torch.testing.assert_close(found, ours, atol=5e-3, rtol=1e-3)  # GELU, as the README says
    for block in theirs.transformer_blocks:
        block.ff.net[0].approximate = "tanh"
    found = theirs(z, t, caption, words, torch.ones(3, 8)).predicted_image_embedding
    torch.testing.assert_close(found, ours, atol=1e-5, rtol=1e-5)
    unit = theirs.post_process_latents(z / z.norm(dim=1, keepdim=True) * 4)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))
    scheduler = diffusers.UnCLIPScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    torch.testing.assert_close(scheduler.alphas_cumprod, 1 / (1 + model.prior_process.sigmas**2), atol=1e-5, rtol=1e-4)
    theirs.save_pretrained(tmp_path / "saved" / "prior")
    start = unclip(tmp_path / "start")
    stirred(start)
    back = import_parts(tmp_path / "saved", start, tmp_path / "back")
    same(run, back, "prior.blocks")
    same(run, back, "prior.places")
    same(start, back, "decoder.")
    weights = tmp_path / "saved" / "prior" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    for name, value in (
        ("clip_std", state["clip_std"] * 7),
        ("positional_embedding", state["positional_embedding"].mT),
    ):
        save_file({**state, name: value.contiguous()}, weights)
        with pytest.raises(RunError, match=name):
            import_parts(tmp_path / "saved", start, tmp_path / "no")
    with pytest.raises(UsageError, match="as wide as embeddings"):
        export_parts(unclip(tmp_path / "wide", text=24), tmp_path / "no")


# what is refused


def test_runs_that_are_not_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name, config, spec, text in (
        ("ddpm", DDPMConfig(unet=UNET), PLAIN, "no parts of a ddpm"),
        ("flow-matching", FlowMatchingConfig(), PointsSpec(2), "draws pictures"),
        ("flow-matching", FlowMatchingConfig(unet=UNET, end=0.1), PLAIN, "has no such path"),
        ("consistency", ConsistencyConfig(unet=replace(UNET, time="fourier")), PLAIN, "fourier"),
        ("dit", DiTConfig(transformer=replace(TRANSFORMER, ratio=2.0)), PLAIN, "ratio=4"),
        ("dit", DiTConfig(transformer=TRANSFORMER), ImageSpec(3, 16, 8), "square"),
    ):
        run = made(tmp_path / f"{name}-{text[:4]}", name, config, spec)
        with pytest.raises(UsageError, match=text):
            export_parts(run, out)
    with pytest.raises(UsageError, match=r"first\.kind=kl"):
        export_parts(made(tmp_path / "vq", "latent-diffusion", LatentDiffusionConfig(
            first=replace(FIRST, kind="vq", codes=8), unet=UNET), PLAIN), out)  # fmt: skip
    assert not out.exists()


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    run = latent(tmp_path / "run")
    folder = export_parts(run, tmp_path / "out")
    config, weights = folder / "unet" / "config.json", folder / "unet" / "diffusion_pytorch_model.safetensors"
    vae, scheduler = folder / "vae" / "config.json", folder / "scheduler" / "scheduler_config.json"

    def refused(match: str, start: runs.Run = run) -> None:
        with pytest.raises(RunError, match=match):
            import_parts(folder, start, tmp_path / "no")
        assert not (tmp_path / "no").exists()

    def changed(path: Path, match: str, **fields: Any) -> None:
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), **fields}))
        refused(match)
        path.write_text(before)

    changed(config, "freq_shift is 0; the run has 1", freq_shift=0)
    changed(config, "_class_name is 'UNet2DModel'", _class_name="UNet2DModel")
    changed(vae, "scaling_factor is -1", scaling_factor=-1)
    changed(vae, "scaling_factor is nan", scaling_factor=float("nan"))
    changed(vae, "scaling_factor is True", scaling_factor=True)
    changed(vae, "scaling_factor is 1000000", scaling_factor=10**400)
    changed(vae, "latents_mean is", latents_mean=[0.1, 0.2, 0.3])
    changed(config, "act_fn is gelu", act_fn="gelu")
    changed(config, "center_input_sample is True", center_input_sample=True)
    changed(config, "there is no field 'surprise'", surprise=1)
    changed(config, "layers_per_block is True", layers_per_block=True)
    changed(config, "in_channels is 10000", in_channels=10**400)
    changed(scheduler, "its betas", trained_betas=[1.0] * 1000, rescale_betas_zero_snr=True)
    before = config.read_text()
    fields = json.loads(before)
    for name in ("attention_head_dim", "cross_attention_dim", "block_out_channels"):
        config.write_text(json.dumps({key: value for key, value in fields.items() if key != name}))
        refused(f"{name} is")  # what is left out is diffusers' default
    config.write_text(before)
    changed(vae, "shift_factor is 0.1", shift_factor=0.1)
    changed(scheduler, "its betas", beta_end=0.3)
    changed(scheduler, "prediction_type is", prediction_type="v_prediction")
    state = load_file(weights)
    before = weights.read_bytes()
    for name, value, match in (
        ("conv_in.weight", torch.zeros(1), "conv_in.weight' gives"),
        ("conv_in.bias", state["conv_in.bias"] / 0, "not finite"),
        ("conv_in.bias", torch.tensor(0.5), "conv_in.bias' gives"),
        ("conv_in.bias", state["conv_in.bias"].double() + 1e300, "has the type torch.float64"),
        ("conv_in.bias", state["conv_in.bias"].long(), "has the type torch.int64"),
        ("other", torch.zeros(1), "unexpected 'other'"),
    ):
        save_file({**state, name: value}, weights)
        refused(match)
    at = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_{}.weight"
    told = [name for name in state if name.endswith("time_emb_proj.bias")][:2]
    for first, second in ((at.format("q"), at.format("k")), told):
        # what is one matrix here must be cut where it was cut
        moved = {first: torch.cat([state[first], state[second][:3]]), second: state[second][3:].clone()}
        save_file({**state, **moved}, weights)
        refused("where .* is expected")
    save_file({k: v for k, v in state.items() if k != "conv_out.bias"}, weights)
    refused("there is no 'conv_out.bias'")
    weights.write_bytes(before[:-10])
    refused("not a valid safetensors|damaged")
    weights.write_bytes(before)
    weights.rename(weights.with_suffix(".bin"))
    refused("pickle file")
    weights.with_suffix(".bin").rename(weights)
    with pytest.raises(UsageError, match="no parts of a ddpm"):
        import_parts(folder, made(tmp_path / "ddpm", "ddpm", DDPMConfig(unet=UNET)), tmp_path / "no")
    refused(
        "unet would not be read: of a dit there are transformer",
        made(tmp_path / "dit", "dit", DiTConfig(transformer=TRANSFORMER)),
    )
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"")
    refused("pytorch_lora_weights.safetensors would not be read")
    (folder / "pytorch_lora_weights.safetensors").unlink()
    other = latent(tmp_path / "other", CLASSES, known="class", network="transformer", transformer=TRANSFORMER)
    refused("unet would not be read", other)
    vae.rename(tmp_path / "config.json")
    vae.symlink_to(tmp_path / "nowhere")
    refused("symbolic link")
    vae.unlink()
    (tmp_path / "config.json").rename(vae)
    (folder / "unet").rename(tmp_path / "elsewhere")
    (folder / "unet").write_text("")
    refused("unet is not a folder")
    (folder / "unet").unlink()
    (folder / "unet").symlink_to(tmp_path / "elsewhere")
    refused("symbolic link")


def test_defaults_are_those_of_diffusers() -> None:
    for name, ours in DEFAULTS.items():
        found = inspect.signature(getattr(diffusers, name).__init__).parameters
        theirs = {key: p.default for key, p in found.items() if key != "self"}
        assert set(theirs) == set(ours), name
        assert all(equal(theirs[key], ours[key]) for key in ours), name


def test_wishes_that_parts_cannot_fulfil_are_refused(tmp_path: Path) -> None:
    run = made(tmp_path / "run", "flow-matching", FlowMatchingConfig(unet=UNET))
    with pytest.raises(UsageError, match="of a ddpm"):
        verbs.export(run, tmp_path / "out", "diffusers", drop_variance=True)
    assert not (tmp_path / "out").exists()


def test_the_command_line_asks_for_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_parts(latent(tmp_path / "run"), tmp_path / "out")
    assert main(["import", str(tmp_path / "out"), "--out", str(tmp_path / "back")]) == 2
    assert "--start RUN" in capsys.readouterr().err


def test_models_are_what_they_were(tmp_path: Path) -> None:
    """Writing changes nothing of the run's model."""
    run = made(tmp_path / "run", "flow-matching", FlowMatchingConfig(unet=UNET))
    before: Model = run.model()[0]
    export_parts(run, tmp_path / "out")
    after = run.model()[0].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.state_dict().items())
