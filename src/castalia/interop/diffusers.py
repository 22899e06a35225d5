"""Folders of the diffusers library: its ``UNet2DModel``, alone or in a pipeline with a scheduler.

    folder/                                     folder/
      config.json                                 model_index.json
      diffusion_pytorch_model.safetensors         unet/{config.json, diffusion_pytorch_model.safetensors}
                                                  scheduler/scheduler_config.json

Both kinds are read and written; diffusers is not needed for it. A pipeline with all of its files in one folder, as
the oldest ones have, is read too. Received folders are not believed: files must be
plain and of a sensible size, configurations are read field by field, and the header of the weights is compared with
what the configuration asks for before a weight is read. Weights in ``.bin`` files, which can run code, are refused.

What diffusers can do with what we write
    ``DDPMPipeline`` and ``DDIMPipeline`` draw pictures with networks without classes.
    Their pipelines know no labels: give ``label`` to write a network that draws this one class only.
    A learned variance doubles the output. ``DDPMPipeline`` uses it; ``DDIMPipeline`` cannot, and needs
    ``drop_variance``, which leaves that half of the last layer out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from castalia.core.config import from_json, to_json
from castalia.core.errors import RunError, UsageError
from castalia.core.files import disk_error, read_json, write_bytes, write_json
from castalia.core.weights import save_tensors
from castalia.interop import diffusers_schedule
from castalia.interop.diffusers_files import (
    JSON_LIMIT,
    WEIGHTS,
    fields_of,
    header_fields,
    opened_weights,
    plain_size,
    weights_file,
)
from castalia.interop.diffusers_layout import UNet2D, from_unet2d, to_theirs, to_unet2d
from castalia.interop.diffusers_schedule import SCHEDULERS, Schedule, read_schedule, scheduler_file
from castalia.interop.target import new_folder
from castalia.nn.unet import UNet, UNetConfig

CONFIG, INDEX = "config.json", "model_index.json"

PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")

NULL_CLASS = "castalia.null_class"
"""Field of the weights' metadata: the last class means "no label". diffusers ignores it, and has no such field."""


@dataclass(frozen=True)
class Received:
    """A ``UNet2DModel`` as ours.

    Attributes:
        config: of our network.
        in_channels: of its input.
        out_channels: of its output; twice that where it predicts a variance too.
        classes: number of labels; 0 without.
        size: height and width of the pictures, None where the folder does not say.
        state: weights of our network, ``float32``.
        schedule: what the scheduler's file says; None for a folder without one.
    """

    config: UNetConfig
    in_channels: int
    out_channels: int
    classes: int
    size: tuple[int, int] | None
    state: dict[str, Tensor]
    schedule: Schedule | None

    def network(self) -> UNet:
        """The network with its weights, in evaluation mode."""
        net = UNet(self.config, self.in_channels, self.out_channels, self.classes)
        net.load_state_dict(self.state)
        return net.eval()


# reading


def looks_like_diffusers(folder: Path) -> bool:
    """Whether to try :func:`from_diffusers` on a folder; Castalia's own folders have a ``config.json`` too."""
    if (folder / INDEX).is_file():
        return True
    try:
        plain_size(folder / CONFIG, JSON_LIMIT)
        data = read_json(folder / CONFIG, JSON_LIMIT)
    except RunError:
        return False
    return isinstance(data, dict) and "_class_name" in data


def has_parts(folder: Path) -> bool:
    """Whether a folder holds at least one part of a pipeline, or is one; see diffusers_systems.py."""
    return any((folder / name / CONFIG).is_file() for name in ("", "vae", "unet", "transformer", "prior"))


def from_diffusers(folder: Path) -> Received:
    """Read a folder that diffusers' ``save_pretrained`` wrote, of a ``UNet2DModel`` or of a pipeline around one.

    Args:
        folder: the folder. Nothing in it is believed before it is checked.

    Returns:
        Configuration, weights and schedule.

    Raises:
        RunError: it is not such a folder, or damaged, or the network is of a kind that Castalia does not have; the
            text names file and field.
    """
    if not folder.is_dir():
        raise RunError(f"There is no folder at {folder}.")
    schedule, model = None, folder
    if _there(folder / INDEX):
        schedule, model = _pipeline(folder), _part(folder, "unet")
    path = model / CONFIG
    if not _there(path):
        raise RunError(f"{folder} is not a folder of diffusers: it has neither {INDEX} nor {CONFIG}.")
    fields = fields_of(path, "UNet2DModel")
    try:
        theirs = from_json(UNet2D, fields, str(path))
        with opened_weights(weights_file(model)) as weights:
            null_class = weights.metadata.get(NULL_CLASS) == "true" and bool(theirs.num_class_embeds)
            config, classes = from_unet2d(theirs, null_class)
            with torch.device("meta"):
                net = UNet(config, theirs.in_channels, theirs.out_channels, classes)
            state = weights.read(net)
    except UsageError as error:
        text = str(error)
        raise RunError(text if str(path) in text else f"{path}: {text}.") from error
    except OSError as error:
        raise RunError(f"{model} cannot be read: {error.strerror}.") from error
    return Received(config, theirs.in_channels, theirs.out_channels, classes, theirs.size, state, schedule)


def _pipeline(folder: Path) -> Schedule:
    """Check the parts of a pipeline, and read its scheduler."""
    path = folder / INDEX
    parts = fields_of(path, *PIPELINES)
    if parts.pop("unet", None) != ["diffusers", "UNet2DModel"]:
        raise RunError(f"{path}: 'unet' is not a UNet2DModel, the only network of diffusers that Castalia reads.")
    scheduler = parts.pop("scheduler", None)
    if not isinstance(scheduler, list) or len(scheduler) != 2 or scheduler[1] not in SCHEDULERS:
        raise RunError(
            f"{path}: 'scheduler' is {str(scheduler)[:80]}; Castalia reads {', '.join(SCHEDULERS)}. The network "
            f"alone can be read from {folder / 'unet'}."
        )
    for name in parts:
        raise RunError(f"{path}: the pipeline has a part {name!r}, which Castalia does not know.")
    return read_schedule(_part(folder, "scheduler") / diffusers_schedule.FILE)


def _there(path: Path) -> bool:
    """Whether there is a file or a link, even one that leads nowhere."""
    return path.exists() or path.is_symlink()


def _part(folder: Path, name: str) -> Path:
    """Folder of a pipeline's part: its own, or that of the pipeline."""
    if (folder / name).is_symlink():
        raise RunError(f"{folder / name} is a symbolic link, which could point anywhere.")
    return folder / name if (folder / name).is_dir() else folder


def to_diffusers(
    config: UNetConfig,
    in_channels: int,
    out_channels: int,
    classes: int,
    state: Mapping[str, Tensor],
    size: tuple[int, int],
    folder: Path,
    schedule: Schedule | None = None,
    *,
    label: int | None = None,
    drop_variance: bool = False,
) -> Path:
    """Write a folder that diffusers loads and runs.

    Args:
        config: of the network.
        in_channels: of its input.
        out_channels: of its output.
        classes: its number of labels.
        state: its weights.
        size: height and width of the pictures.
        folder: a new or empty folder; it appears whole or not at all.
        schedule: what it was trained for: writes a pipeline (``DDPMPipeline.from_pretrained(folder)``,
            ``UNet2DModel.from_pretrained(folder, subfolder="unet")``). None writes the network alone
            (``UNet2DModel.from_pretrained(folder)``).
        label: write a network without classes that draws this one; number ``classes`` is the null class.
        drop_variance: leave out the half of the output that predicts a variance.

    Returns:
        ``folder``.

    Raises:
        UsageError: ``folder`` holds something already, or diffusers has no such network; the text names the option.
        RunError: it cannot be written.
    """
    with torch.device("meta"):
        net = UNet(config, in_channels, out_channels, classes)
    state = dict(state)
    if label is not None:
        if not 0 <= label < classes + config.null_class:
            raise UsageError(f"label {label} does not exist: the network has {classes} classes")
        # label and time meet as a sum, and a constant term of that sum is a bias
        state["time.2.bias"] = state["time.2.bias"] + state.pop("label.weight")[label]
        classes = 0
    if drop_variance:
        if out_channels != 2 * in_channels:
            raise UsageError("the network predicts no variance that could be left out")
        out_channels = in_channels
        state["last.weight"], state["last.bias"] = state["last.weight"][:in_channels], state["last.bias"][:in_channels]
        if schedule is not None and schedule.variance_type in ("learned", "learned_range"):
            schedule = replace(schedule, variance_type="fixed_small")
    if label is not None or drop_variance:
        with torch.device("meta"):
            net = UNet(config, in_channels, out_channels, classes)
    theirs = to_unet2d(config, in_channels, out_channels, classes, size)
    metadata = {NULL_CLASS: "true"} if classes and config.null_class else {}
    with new_folder(folder) as out:
        model = out if schedule is None else out / "unet"
        try:
            model.mkdir(exist_ok=True)
            if schedule is not None:
                (out / "scheduler").mkdir()
        except OSError as error:
            raise disk_error(folder, error) from error
        write_json(model / CONFIG, {**header_fields("UNet2DModel"), **to_json(theirs)})
        save_tensors(model / WEIGHTS, to_theirs(net, state), metadata)
        if schedule is not None:
            write_json(out / "scheduler" / diffusers_schedule.FILE, scheduler_file(schedule))
            parts = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
            write_json(out / INDEX, {**header_fields("DDPMPipeline"), **parts})
        write_bytes(out / "README.md", _readme(theirs, schedule).encode())
    return folder


def _readme(theirs: UNet2D, schedule: Schedule | None) -> str:
    """What model hubs read, and how to use the folder."""
    if schedule is None:
        use = ["from diffusers import UNet2DModel", "", "net = UNet2DModel.from_pretrained(FOLDER)"]
    elif theirs.num_class_embeds:
        use = [
            "from diffusers import DDPMScheduler, UNet2DModel",
            "",
            "# the pipelines of diffusers know no labels: call net(x, t, class_labels=...) in a loop of your own",
            'net = UNet2DModel.from_pretrained(FOLDER, subfolder="unet")',
            'scheduler = DDPMScheduler.from_pretrained(FOLDER, subfolder="scheduler")',
        ]
    else:
        learned = theirs.out_channels == 2 * theirs.in_channels
        kind = "DDPMPipeline" if learned else "DDIMPipeline"
        use = [f"from diffusers import {kind}", "", f"pictures = {kind}.from_pretrained(FOLDER)(batch_size=4).images"]
    head = ["---", "library_name: diffusers", "tags:", "- castalia", "- ddpm", "---", ""]
    return "\n".join([*head, "Trained with Castalia, written for diffusers.", "", "```python", *use, "```", ""])
