"""Sampling by the later systems of diffusion beside diffusers' networks and schedulers, with the same weights.

The networks of theirs are those that ``castalia export --format diffusers`` writes, so both sides compute the same
functions; parity is tested. Equal precision: float32, the same solver, steps, batch, threads and allocator; theirs in
torch's default order, as its pipelines run. Defaults: ours as ``castalia sample`` chooses (bfloat16, memory kept),
theirs in float32 as it comes. Where diffusers has no pipeline (flows, words by another text network), its scheduler is
driven as its documentation does. Words are encoded outside of theirs, and each time in ours, which also hides padding.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Options, Row, Run, alternate
from benchmarks.sides import Side
from castalia import api
from castalia.catalogue import entry
from castalia.core.captions import CAPTION, bytes_of
from castalia.core.config import Config
from castalia.core.model import build
from castalia.core.precision import Precision
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.text import TextSpec
from castalia.interop.diffusers_systems import whole_of
from castalia.models.diffusion.consistency import ConsistencyConfig
from castalia.models.diffusion.dit import DiTConfig
from castalia.models.diffusion.flow_matching import FlowMatchingConfig
from castalia.models.diffusion.transformer import TransformerConfig
from castalia.models.multimodal.latent_diffusion import LatentDiffusionConfig
from castalia.models.multimodal.words import WordsConfig
from castalia.nn.unet import small_28
from castalia.recipes import recipe

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

WORDS = WordsConfig(length=16, words=("a", "large", "red", "star", "small", "blue"))
CAPTIONS = ["a large red star", "a small blue star"] * 8
SAMPLES = 16


@dataclass(frozen=True)
class Case:
    """A system, and how it draws.

    Attributes:
        name: for the table.
        system: of the catalogue.
        steps: of the solver.
        options: further ones of ours.
    """

    name: str
    system: str
    steps: int
    options: tuple[tuple[str, Any], ...] = ()

    def config(self) -> Config:
        """Of the model."""
        if self.system == "flow-matching":
            return FlowMatchingConfig(unet=small_28())
        if self.system == "consistency":
            return ConsistencyConfig(unet=small_28(), data_std=0.5)
        if self.system == "dit":
            return DiTConfig(transformer=TransformerConfig(2, 192, 6, 6), variance="fixed_small")
        made = recipe("latent-diffusion-scenes").config
        assert isinstance(made, LatentDiffusionConfig)
        return replace(made, words=WORDS)

    def spec(self) -> ImageSpec:
        """Of the pictures."""
        if self.system == "latent-diffusion":
            return ImageSpec(3, 32, 32, (), columns=((CAPTION, TextSpec("bytes", 257, 40)),))
        return ImageSpec(1, 28, 28)


CASES = (
    Case("flow matching, 32-64-64, 28x28 grey: 25 steps of Euler", "flow-matching", 25, (("sampler", "euler"),)),
    Case("consistency, 32-64-64, 28x28 grey: 2 steps", "consistency", 2),
    Case("DiT, 6 blocks of 192, patches of 2, 28x28 grey: 25 steps of DDIM", "dit", 25,
         (("sampler", "ddim"), ("grid", "leading"))),
    Case("latent diffusion with words, 32x32 colour: 16 steps of DPM-Solver++ 2M, guidance 2", "latent-diffusion", 16),
)  # fmt: skip


def made(case: Case) -> Any:
    """Our model with random weights, the same in two processes."""
    torch.manual_seed(0)
    model = build(entry(case.system).load(), case.config(), case.spec(), 0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    return model.eval()


def ours(case: Case, precision: Precision) -> Run:
    """A drawing as ``castalia sample`` does it."""
    model = made(case).to(memory_format=torch.channels_last)
    how = model.SampleOptions(**{"steps": case.steps, **dict(case.options)})
    given = {CAPTION: bytes_of(CAPTIONS)} if case.system == "latent-diffusion" else None
    return lambda: api.draw(model, SAMPLES, given=given, options=how, precision=precision).x


def theirs(case: Case) -> Run:
    """The same by their networks and schedulers, in float32."""
    import diffusers

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    model = made(case)
    found: dict[str, Any] = {}
    for part in whole_of(model, case.system).parts:
        network = getattr(diffusers, part.kind)(**part.fields).eval()
        missing, unexpected = network.load_state_dict(part.tensors, strict=False)
        assert not unexpected
        assert all("pos_embed" in name for name in missing)
        found[part.folder] = network
    shape = (SAMPLES, *(model.shape if case.system == "latent-diffusion" else case.spec().shape))
    return _DRAWING[case.system](diffusers, model, found, shape, case.steps)


def _flow(diffusers: Any, model: Any, parts: dict[str, Any], shape: tuple[int, ...], steps: int) -> Run:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()

    def run() -> Tensor:
        scheduler.set_timesteps(steps)
        x = torch.randn(shape)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(parts["unet"](x, t).sample, t, x).prev_sample
        return _pixels(x)

    return run


def _consistency(diffusers: Any, model: Any, parts: dict[str, Any], shape: tuple[int, ...], steps: int) -> Run:
    pipeline = diffusers.ConsistencyModelPipeline(parts["unet"], diffusers.CMStochasticIterativeScheduler())
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(batch_size=shape[0], num_inference_steps=steps, output_type="np")


def _dit(diffusers: Any, model: Any, parts: dict[str, Any], shape: tuple[int, ...], steps: int) -> Run:
    scheduler, label = diffusers.DDIMScheduler(), torch.zeros(shape[0], dtype=torch.int64)

    def run() -> Tensor:
        scheduler.set_timesteps(steps)
        x = torch.randn(shape)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(parts["transformer"](x, t.expand(shape[0]), label).sample, t, x).prev_sample
        return _pixels(x)

    return run


def _latents(diffusers: Any, model: Any, parts: dict[str, Any], shape: tuple[int, ...], steps: int) -> Run:
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    with torch.no_grad():
        asked = model.words.tokens(bytes_of(CAPTIONS))
        words = torch.cat([model.text.every(model.words.nothing(shape[0], asked.device)), model.text.every(asked)])

    def run() -> Tensor:
        scheduler.set_timesteps(steps)
        x = torch.randn(shape)
        with torch.no_grad():
            for t in scheduler.timesteps:
                plain, told = parts["unet"](torch.cat([x, x]), t, words).sample.chunk(2)
                x = scheduler.step(plain + 2 * (told - plain), t, x).prev_sample
            return _pixels(parts["vae"].decode(x / parts["vae"].config.scaling_factor).sample)

    return run


def _pixels(x: Tensor) -> Tensor:
    return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


_DRAWING: dict[str, Callable[..., Run]] = {
    "flow-matching": _flow,
    "consistency": _consistency,
    "dit": _dit,
    "latent-diffusion": _latents,
}


def rows(options: Options) -> Iterator[Row]:
    """Each system, at equal precision and at defaults."""
    for case in CASES[:1] if options.quick else CASES:
        for precision, target, words in (("float32", 1.3, "float32"), ("bfloat16", 2.0, "each at its defaults")):
            work = f"{case.name}, samples: {SAMPLES}, {words}"
            if not options.wants(work):
                continue
            equal = precision == "float32"
            with (
                Side(ours, case, precision, threads=options.threads, keeps=True) as mine,
                Side(theirs, case, threads=options.threads, keeps=equal) as other,
            ):
                timing = alternate(mine, other, options.rounds)
            note = (
                ""
                if equal
                else "ours in bfloat16, and keeps its memory; theirs in float32, with the allocator as it comes"
            )
            yield timing.row("drawing", work, "diffusers", target=target, note=note)
