"""Runs of several systems as folders of the parts of diffusers' pipelines, and such folders read onto a run.

    folder/
      vae/          AutoencoderKL              latent-diffusion
      unet/         UNet2DConditionModel       latent-diffusion; UNet2DModel: flow-matching, consistency
      transformer/  DiTTransformer2DModel      dit, and latent-diffusion with network=transformer
      prior/        PriorTransformer           unclip
      scheduler/    what each was trained for
      encoder_hidden_states.safetensors        latent-diffusion without captions: what stands in place of words

Each part is what ``from_pretrained(folder, subfolder=...)`` of its class loads. The way back wants a run of the same
sizes, from which everything comes that the folder does not hold: words and their transformer, what else the data say.
What diffusers computes otherwise is told in the folder's README.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from castalia import card
from castalia.configuration import Data, Recipe
from castalia.core.errors import RunError, UsageError
from castalia.core.files import disk_error, write_bytes, write_json
from castalia.core.model import Model
from castalia.core.specs.image import ImageSpec
from castalia.core.weights import load_tensors, save_tensors
from castalia.interop import diffusers_parts as parts
from castalia.interop import diffusers_schedule
from castalia.interop.diffusers_defaults import DEFAULTS, compare
from castalia.interop.diffusers_files import WEIGHTS, fields_of, finite, header_fields, plain_size, weights_file
from castalia.interop.diffusers_layout import to_theirs, to_unet2d, unet_layers
from castalia.interop.diffusers_runs import SAME, schedule_of, whole_range
from castalia.interop.diffusers_schedule import read_schedule, schedule_of_file, scheduler_file
from castalia.interop.diffusers_words import from_condition, shares, to_condition
from castalia.interop.target import new_folder
from castalia.models.diffusion.consistency import Consistency
from castalia.models.diffusion.ddpm import DDPMConfig
from castalia.models.diffusion.dit import DiT
from castalia.models.diffusion.flow_matching import FlowMatching
from castalia.models.diffusion.process import ProcessConfig
from castalia.models.diffusion.transformer import Transformer
from castalia.models.multimodal.latent_diffusion import LatentDiffusion
from castalia.models.multimodal.unclip import UnCLIP
from castalia.models.multimodal.unet import WordUNet
from castalia.nn.unet import UNet
from castalia.runs import Run, create, open_run

CONFIG, INSTEAD = "config.json", "encoder_hidden_states.safetensors"

Take = Callable[[Mapping[str, Tensor]], None]


@dataclass(frozen=True)
class Part:
    """A network of a run as one of diffusers.

    Attributes:
        folder: its name.
        kind: class of diffusers.
        fields: of its configuration.
        tensors: its weights.
        take: puts weights of theirs into the run's model.
        note: what diffusers computes otherwise, and what to do.
    """

    folder: str
    kind: str
    fields: dict[str, Any]
    tensors: dict[str, Tensor]
    take: Take
    note: str = ""


@dataclass(frozen=True)
class Whole:
    """All that is written of a run.

    Attributes:
        parts: networks.
        scheduler: the file of what they were trained for.
        use: how to draw, for the README.
    """

    parts: tuple[Part, ...]
    scheduler: dict[str, Any]
    use: str


def whole_of(model: Model, system: str) -> Whole:
    """A model of a system as parts.

    Raises:
        UsageError: it has no parts that diffusers has; the text says why.
    """
    if not isinstance(getattr(model, "spec", None), ImageSpec):
        raise UsageError("Diffusers draws pictures; this run makes something else.")
    for kind, make in _MAKERS:
        if isinstance(model, kind):
            return make(model)
    raise UsageError(f"diffusers has no parts of a {system}; --format folder writes any run.")


# the systems


def _latent_diffusion(model: LatentDiffusion) -> Whole:
    c, first = model.config, model.config.first
    found: list[Part] = []
    if first.kind != "kl":
        raise UsageError("only first stages with first.kind=kl are written for diffusers")
    own = nn.ModuleDict({"encoder": model.encoder, "decoder": model.decoder})
    layers = list(parts.autoencoder_layers(model.encoder, model.decoder))
    state = parts.centred(own.state_dict(), model.middle.flatten())

    def take_vae(theirs: Mapping[str, Tensor]) -> None:
        own.load_state_dict(parts.ours_of(layers, own.state_dict(), theirs))
        model.middle.zero_()

    fields = parts.autoencoder_fields(first, model.spec.channels, model.spec.height, float(model.deviation))
    found.append(Part("vae", "AutoencoderKL", fields, parts.named(layers, state), take_vae))
    if isinstance(model.network, Transformer):
        found.append(_transformer(model.network, first.latent))
    else:
        found.append(_condition(model))
    schedule = replace(schedule_of(_as_ddpm(c.process)), clip_sample=False)
    words = "" if c.known == "caption" else f" What stands in place of words lies in {INSTEAD}."
    use = (
        f"Latents of shape {model.shape}; pictures are vae.decode(latents / vae.config.scaling_factor).{words} The"
        " words' transformer and its tokens are not written: theirs are others."
    )
    return Whole(tuple(found), scheduler_file(schedule), use)


def _condition(model: LatentDiffusion) -> Part:
    network = model.network
    assert isinstance(network, WordUNet)
    fields, tensors = to_condition(network, (model.shape[1], model.shape[2]))

    def take(theirs: Mapping[str, Tensor]) -> None:
        network.load_state_dict(from_condition(network, theirs))

    return Part("unet", "UNet2DConditionModel", fields, tensors, take)


def _as_ddpm(config: ProcessConfig) -> DDPMConfig:
    return DDPMConfig(timesteps=config.timesteps, schedule=config.schedule, prediction=config.prediction)


def _transformer(network: Transformer, channels: int) -> Part:
    def take(theirs: Mapping[str, Tensor]) -> None:
        network.load_state_dict(parts.from_transformer(network, theirs))

    note = (
        "diffusers spaces the frequencies of time a little wider than the paper. For the same numbers, after loading: "
        "for block in transformer.transformer_blocks: block.norm1.emb.time_proj.downscale_freq_shift = 0"
    )
    fields, tensors = parts.transformer_fields(network, channels), parts.to_transformer(network)
    return Part("transformer", "DiTTransformer2DModel", fields, tensors, take, note)


def _dit(model: DiT) -> Whole:
    whole_range(model)
    network = model.network
    assert isinstance(network, Transformer)
    part = _transformer(network, model.spec.shape[0])
    return Whole((part,), scheduler_file(schedule_of(model.config)), "Pictures in [-1, 1], without an autoencoder.")


def _unet(model: FlowMatching | Consistency, backwards: bool) -> Part:
    whole_range(model)
    network, spec = model.network, model.spec
    assert isinstance(network, UNet)
    assert isinstance(spec, ImageSpec)
    config = network.config
    fields = to_unet2d(config, network.in_channels, network.out_channels, network.classes, (spec.height, spec.width))

    def turned(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return parts.backwards(state, config.cos_first, config.freq_shift) if backwards else state

    def take(theirs: Mapping[str, Tensor]) -> None:
        layers = [*unet_layers(network), ("label", ("class_embedding",))]
        network.load_state_dict(turned(parts.ours_of(layers, network.state_dict(), theirs, shares(network))))

    note = f"Class {network.classes} means no class." if network.classes else ""
    return Part("unet", "UNet2DModel", asdict(fields), to_theirs(network, turned(network.state_dict())), take, note)


def _flow(model: FlowMatching) -> Whole:
    if model.config.end:
        raise UsageError(
            "a flow that leaves noise at its end (config.end) cannot be written: diffusers has no such path"
        )
    scheduler = {**header_fields("FlowMatchEulerDiscreteScheduler"), "num_train_timesteps": 1000, "shift": 1.0}
    use = (
        "Times run from 1000 (noise) to 0, and the network says noise less picture, as that scheduler wants it: "
        "for t in scheduler.timesteps: x = scheduler.step(unet(x, t).sample, t, x).prev_sample"
    )
    return Whole((_unet(model, True),), scheduler, use)


def _consistency(model: Consistency) -> Whole:
    c = model.config
    if model.time_scale != 250.0:
        raise UsageError("unet.time=fourier cannot be written: diffusers tells its network 250 times the logarithm")
    scheduler = {
        **header_fields("CMStochasticIterativeScheduler"),
        "num_train_timesteps": 40,
        "sigma_min": c.sigma_min,
        "sigma_max": c.sigma_max,
        "sigma_data": float(model.data_std),
        "rho": c.rho,
        "clip_denoised": not c.data_mean,
    }
    use = "ConsistencyModelPipeline(unet, scheduler) draws"
    use += f" pictures less {c.data_mean:.9g}, their mean: add it." if c.data_mean else " pictures."
    return Whole((_unet(model, False),), scheduler, use)


def _prior(model: UnCLIP) -> Whole:
    network = model.prior

    def take(theirs: Mapping[str, Tensor]) -> None:
        network.load_state_dict({**network.state_dict(), **parts.from_prior(network, theirs)})

    note = "Its perceptrons bend by GELU's usual approximation, diffusers' by GELU itself: results differ by some 1e-3."
    fields = parts.prior_fields(network, model.config.prior.heads)
    part = Part("prior", "PriorTransformer", fields, parts.to_prior(network), take, note)
    schedule = schedule_of(_as_ddpm(model.prior_process.config))
    scheduler = {
        **header_fields("UnCLIPScheduler"),
        "num_train_timesteps": schedule.num_train_timesteps,
        "prediction_type": "sample",
        "clip_sample": False,
    }
    use = (
        "Embeddings of length sqrt(d); prior.post_process_latents makes them of length 1, as CLIP compares them. CLIP, "
        "decoder and upsampler are not written: diffusers has other ones."
    )
    return Whole((part,), scheduler, use)


_MAKERS: tuple[tuple[type, Callable[[Any], Whole]], ...] = (
    (LatentDiffusion, _latent_diffusion),
    (DiT, _dit),
    (FlowMatching, _flow),
    (Consistency, _consistency),
    (UnCLIP, _prior),
)


# folders


def export_parts(run: Run, out: Path) -> Path:
    """Write a run as parts.

    Raises:
        UsageError: diffusers has no such network, or ``out`` holds something already.
        RunError: the run has no readable weights, or the folder cannot be written.
    """
    model, _ = run.model(torch.device("cpu"))
    whole = whole_of(model, run.recipe.model)
    with new_folder(out) as folder:
        for part in whole.parts:
            _make(folder / part.folder)
            write_json(folder / part.folder / CONFIG, {**header_fields(part.kind), **part.fields})
            save_tensors(folder / part.folder / WEIGHTS, part.tensors)
        _make(folder / "scheduler")
        write_json(folder / "scheduler" / diffusers_schedule.FILE, whole.scheduler)
        if (vectors := _instead(model)) is not None:
            save_tensors(folder / INSTEAD, {"vectors": vectors.weight.detach()[:, None].contiguous()})
        write_bytes(folder / "README.md", _readme(whole).encode())
    return out


def _instead(model: Model) -> nn.Embedding | None:
    """What a latent diffusion without captions is told in place of words."""
    if not isinstance(model, LatentDiffusion) or not isinstance(model.network, WordUNet):
        return None
    return {"caption": None, "class": getattr(model, "names", None), "nothing": model.nothing}[model.config.known]


def _make(folder: Path) -> None:
    try:
        folder.mkdir()
    except OSError as error:
        raise disk_error(folder, error) from error


def _readme(whole: Whole) -> str:
    lines = ["---", "library_name: diffusers", "---", "", "Trained with Castalia, written for diffusers.", ""]
    lines += [f'    {part.kind}.from_pretrained(FOLDER, subfolder="{part.folder}")' for part in whole.parts]
    kind = whole.scheduler["_class_name"]
    lines += [f'    {kind}.from_pretrained(FOLDER, subfolder="scheduler")', "", whole.use, ""]
    for part in whole.parts:
        lines += [part.note, ""] if part.note else []
    return "\n".join(lines)


def import_parts(source: Path, start: Run, out: Path) -> Run:
    """Make a run of those parts that a folder has; everything else is the run's whose sizes they have.

    Args:
        source: the folder. Nothing in it is believed before it is checked.
        start: the run.
        out: a new or empty folder for the run; it appears whole or not at all.

    Returns:
        The run: it can be sampled. Its data are unknown.

    Raises:
        UsageError: ``start`` is a run of another kind, or ``out`` holds something already.
        RunError: a part is damaged, or not of the run's sizes; the text names file and field or tensor.
    """
    model, _ = start.model(torch.device("cpu"))
    whole = whole_of(model, start.recipe.model)
    alone = whole.parts[0] if len(whole.parts) == 1 and os.path.lexists(source / CONFIG) else None
    if alone is None:
        _nothing_else(source, whole, start.recipe.model)
    scheduler = source / "scheduler" / diffusers_schedule.FILE
    if _there(source / "scheduler"):
        _same_process(scheduler, whole.scheduler)
    elif whole.parts[0].kind == "UNet2DModel":
        raise RunError(f"{source} has no scheduler/, which says what its network was trained for.")
    taken = [part for part in whole.parts if part is alone or _there(source / part.folder)]
    if not taken:
        raise RunError(f"{source} has no part that a {start.recipe.model} has: {_names(whole)}.")
    for part in taken:
        _take(part, source if part is alone else source / part.folder, model)
    if (vectors := _instead(model)) is not None and os.path.lexists(source / INSTEAD):
        value, shape = _tensors(source / INSTEAD).get("vectors"), vectors.weight[:, None].shape
        if value is None or value.shape != shape:
            raise RunError(f"{source / INSTEAD} has no 'vectors' of {tuple(shape)}.")
        with torch.no_grad():
            vectors.weight.copy_(value[:, 0])
    with new_folder(out) as folder:
        data = replace(Data("unknown"), options=start.recipe.data.options)
        run = create(folder, Recipe(start.recipe.model, start.config, data), start.spec, "")
        save_tensors(
            run.weights, model.state_dict(), {"castalia.model": start.recipe.model, "castalia.step": "imported"}
        )
        card.write(run)
    return open_run(out)


def _names(whole: Whole) -> str:
    return ", ".join(f"{part.folder}/" for part in whole.parts)


def _nothing_else(source: Path, whole: Whole, system: str) -> None:
    """Refuse what would not be read: half of a model is another model."""
    allowed = {"README.md", "model_index.json", "scheduler", INSTEAD, *(part.folder for part in whole.parts)}
    for path in sorted(source.iterdir()):
        if path.name not in allowed and not path.name.startswith("."):
            raise RunError(f"{path} would not be read: of a {system} there are {_names(whole)} and scheduler/.")


def _there(folder: Path) -> bool:
    """Whether there is a part.

    Raises:
        RunError: it is a link, or no folder.
    """
    if folder.is_symlink():
        raise RunError(f"{folder} is a symbolic link, which could point anywhere.")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is not a folder.")
    return folder.exists()


FREE = ("sample_size", "dropout", "force_upcast", "scaling_factor", "num_train_timesteps")
"""Fields that say nothing of how weights are used, or are read on their own."""


def _take(part: Part, folder: Path, model: Model) -> None:
    """Read a part into the model."""
    path, fields = folder / CONFIG, fields_of(folder / CONFIG, part.kind)
    # of a transformer the size is where its fixed positions are
    free = ("dropout",) if part.kind == "DiTTransformer2DModel" else FREE
    compare(path, part.kind, fields, part.fields, free)
    if part.kind == "AutoencoderKL":
        assert isinstance(model, LatentDiffusion)
        scale = fields.get("scaling_factor", DEFAULTS[part.kind]["scaling_factor"])
        if type(scale) not in (int, float) or not 1e-6 < scale < 1e6:
            raise RunError(f"{path}: scaling_factor is {str(scale)[:40]}; it lies between 1e-6 and 1e6.")
        model.deviation.fill_(1 / scale)
    path = weights_file(folder)
    try:
        part.take(_tensors(path))
    except UsageError as error:
        raise RunError(f"{path}: {str(error).rstrip('.')}.") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, ``float32``, all finite."""
    plain_size(path)
    return finite(path, load_tensors(path)[0])


TRAINED = {
    "FlowMatchEulerDiscreteScheduler": ("num_train_timesteps",),
    "CMStochasticIterativeScheduler": ("sigma_min", "sigma_max", "sigma_data", "rho", "clip_denoised"),
    "UnCLIPScheduler": ("num_train_timesteps", "prediction_type", "beta_schedule"),
}
"""Fields of schedulers that say how a network was trained; others choose how to draw."""


def _same_process(path: Path, expected: Mapping[str, Any]) -> None:
    """Whether a scheduler is for networks that were trained as the run was."""
    kind = str(expected["_class_name"])
    if kind == "DDPMScheduler":
        theirs = read_schedule(path)
        wanted = schedule_of_file(expected)
        same = theirs.num_train_timesteps == wanted.num_train_timesteps
        if not same or not np.abs(theirs.values().numpy() - wanted.values().numpy()).max() <= SAME:
            raise RunError(f"{path}: its betas are not those that the run was trained with.")
        if theirs.prediction_type != wanted.prediction_type:
            raise RunError(f"{path}: prediction_type is {theirs.prediction_type!r}, not {wanted.prediction_type!r}.")
        return
    fields = fields_of(path, kind)
    compare(path, kind, fields, expected, [name for name in DEFAULTS[kind] if name not in TRAINED[kind]])
