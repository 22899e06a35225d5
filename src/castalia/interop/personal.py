"""Files of personalisation in the layouts of diffusers, written of runs and read onto a run.

    folder/
      pytorch_lora_weights.safetensors     picture-lora, dreambooth with adapters
      learned_embeds.safetensors           textual-inversion

``load_lora_weights`` and ``load_textual_inversion`` of diffusers' pipelines read them, where networks are of the sizes
of the run. A ``dreambooth`` of all weights is written as the networks that it has, see diffusers_systems.py.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from castalia import card
from castalia.configuration import Data, Recipe
from castalia.core.errors import RunError, UsageError
from castalia.core.files import write_bytes
from castalia.core.model import build
from castalia.core.weights import load_tensors, save_tensors
from castalia.interop.diffusers_files import finite, plain_size
from castalia.interop.diffusers_systems import export_parts
from castalia.interop.diffusers_words import LORA_FILE, WORDS_FILE, lora_to_ours, lora_to_theirs
from castalia.interop.target import new_folder
from castalia.models.multimodal.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from castalia.models.multimodal.picture_lora import PictureLoRA, PictureLoRAConfig, Target
from castalia.models.multimodal.textual_inversion import TextualInversion, TextualInversionConfig
from castalia.models.multimodal.unet import WordUNet
from castalia.models.multimodal.words import pieces
from castalia.runs import Run, create, open_run

LARGEST = 1 << 30
"""Largest size in bytes of a file of adapters or words."""


def export_words(run: Run, out: Path) -> Path:
    """Write what a run that was started from latent diffusion has learned, as diffusers reads it.

    Raises:
        UsageError: diffusers has no such network, or ``out`` holds something already.
        RunError: the run has no readable weights, or the folder cannot be written.
    """
    model, _ = run.model(torch.device("cpu"))
    if isinstance(model, PictureLoRA) and not model.config.rank:
        return export_parts(run, out)
    with new_folder(out) as folder:
        if isinstance(model, TextualInversion):
            vectors = model.placeholders.vectors.detach()
            save_tensors(folder / WORDS_FILE, {model.config.token: vectors})
            use = f'pipeline.load_textual_inversion(FOLDER, weight_name="{WORDS_FILE}")'
        elif isinstance(model, PictureLoRA):
            tensors, metadata = lora_to_theirs(model.adapted())
            save_tensors(folder / LORA_FILE, tensors, metadata)
            use = "pipeline.load_lora_weights(FOLDER)"
        else:
            raise UsageError(f"A {run.recipe.model} has no file of its own to write.")
        text = f"---\nlibrary_name: diffusers\n---\n\nTrained with Castalia, written for diffusers.\n\n    {use}\n"
        write_bytes(folder / "README.md", text.encode())
    return out


def import_words(source: Path, start: Run, out: Path) -> Run:
    """Make a run of a file of personalisation and of the run that it belongs to.

    Args:
        source: one of the files, or a folder with one of them.
        start: a run of latent diffusion with captions: everything that the file does not hold is taken from it.
        out: a new or empty folder for the run; it appears whole or not at all.

    Returns:
        The run: it can be sampled. Its data are unknown.

    Raises:
        UsageError: ``start`` is another kind of run, or ``out`` holds something already.
        RunError: the file is damaged, or does not fit the run; the text names the first tensor that does not.
    """
    below, _ = start.model(torch.device("cpu"))
    if type(below) is not LatentDiffusion or not isinstance(below.network, WordUNet) or below.config.known != "caption":
        raise UsageError(f"{start.path} is not a run of latent-diffusion with captions, as such files need.")
    path = found(source)
    try:
        model: LatentDiffusion
        if _is_lora(path):
            model, name = _with_adapters(path, below), "picture-lora"
        else:
            model, name = _with_words(path, below), "textual-inversion"
    except UsageError as error:
        raise RunError(f"{path}: {str(error).rstrip('.')}.") from error
    with new_folder(out) as folder:
        parents = (("start", str(start.path.resolve())),)
        data = replace(Data("unknown"), options=start.recipe.data.options)
        run = create(folder, Recipe(name, model.config, data, parents=parents), start.spec, "")
        save_tensors(run.weights, model.state_dict(), {"castalia.model": name, "castalia.step": "imported"})
        card.write(run)
    return open_run(out)


def found(source: Path) -> Path:
    """The file that is read of a path.

    Raises:
        RunError: there is none.
    """
    if not source.is_dir():
        plain_size(source, LARGEST)
        return source
    for name in (LORA_FILE, WORDS_FILE):
        if (source / name).exists():
            plain_size(source / name)
            return source / name
    raise RunError(f"{source} has neither {LORA_FILE}, {WORDS_FILE} nor a part of a pipeline.")


def tensors_of(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        RunError: it is damaged, of another format, or holds values that are not finite numbers.
    """
    if path.suffix != ".safetensors":
        raise RunError(f"{path} is not a .safetensors file; files of other formats can run code when they are opened.")
    tensors, metadata = load_tensors(path)
    return finite(path, tensors), metadata


def _is_lora(path: Path) -> bool:
    return any(".lora" in name for name in tensors_of(path)[0])


def _taken_over(below: LatentDiffusion) -> dict[str, object]:
    return {field.name: getattr(below.config, field.name) for field in fields(LatentDiffusionConfig)}


def _with_adapters(path: Path, below: LatentDiffusion) -> PictureLoRA:
    """A run's model beside the adapters of a file."""
    matrices, rank = lora_to_ours(*tensors_of(path))
    names: tuple[Target, ...] = ("query", "key", "value", "out")
    targets = tuple(name for name in names if any(layer.endswith(f".{name}") for layer in matrices))
    places = "all" if any(".own." in layer for layer in matrices) else "cross"
    config = PictureLoRAConfig(**_taken_over(below), rank=rank, alpha=float(rank), targets=targets, places=places)  # type: ignore[arg-type]
    model = build(PictureLoRA, config, below.spec)
    assert isinstance(model, PictureLoRA)
    model.load_state_dict({**model.state_dict(), **below.state_dict()})
    own = model.adapted()
    for name in sorted(own.keys() ^ matrices.keys()):
        raise UsageError(f"{'there is nothing for' if name in own else 'the run has no'} layer {name}")
    with torch.no_grad():
        for name, (a, b) in matrices.items():
            adapter = own[name]
            for layer, value in ((adapter.a, a), (adapter.b, b)):
                if layer.weight.shape != value.shape:
                    shape = tuple(layer.weight.shape)
                    raise UsageError(f"{name}: a matrix of {tuple(value.shape)} where {shape} is expected")
                layer.weight.copy_(value)
    return model


def _with_words(path: Path, below: LatentDiffusion) -> TextualInversion:
    """A run's model with the new word of a file."""
    tensors, _ = tensors_of(path)
    if len(tensors) != 1:
        raise UsageError(f"it holds {len(tensors)} tensors; a file of one word has one")
    name, vectors = next(iter(tensors.items()))
    width = below.config.text.width
    if not vectors.ndim or not vectors.numel() or float(vectors.abs().max()) > 1e6:
        raise UsageError(f"{name!r} holds no vectors of sensible size")
    vectors = vectors.float().reshape(-1, vectors.shape[-1])
    token = "".join(piece for piece in pieces(name) if piece.isalnum())
    if not token:
        raise UsageError(f"its word {name!r} has no letter")
    if vectors.shape[1] != width:
        raise UsageError(f"{name!r} has vectors of {vectors.shape[1]} numbers, the run has words of {width}")
    try:
        config = TextualInversionConfig(**_taken_over(below), token=token, vectors=len(vectors))  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(str(error)) from error
    model = build(TextualInversion, config, below.spec)
    assert isinstance(model, TextualInversion)
    model.load_state_dict({**model.state_dict(), **below.state_dict()})
    with torch.no_grad():
        model.placeholders.vectors.copy_(vectors)
        model.placeholders.norms.copy_(vectors.norm(dim=1, keepdim=True))
    return model
