"""The run: a folder with everything that a verb needs and nothing that a verb cannot rebuild.

config.json          recipe, spec, fingerprint of the data, versions
plan.json            steps, precision and threads, decided once
model.safetensors    averaged weights of the newest checkpoint; self-verifying
metrics.jsonl        one line per logging interval
assets/              vocabularies and the like, by their SHA-256
checkpoints/         the newest few, each with a manifest of hashes
samples/             grids drawn during training
results.json         what `castalia evaluate` measured
README.md            the model card
index.html           the page of the training, renewed while it goes on
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import platform
import shutil
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from castalia import checkpoints
from castalia.catalogue import entry
from castalia.checkpoints import Checkpoint
from castalia.configuration import (
    SCHEMA_VERSION,
    Recipe,
    recipe_from_json,
    spec_from_json,
    spec_to_json,
)
from castalia.core import assets
from castalia.core.config import Config, differences, from_json, to_json
from castalia.core.data import Dataset
from castalia.core.errors import RunError, UsageError
from castalia.core.files import disk_error, open_plain, read_bounded, read_sealed, remove, write_bytes, write_sealed
from castalia.core.model import Model, build, lay_out
from castalia.core.precision import Precision, bf16_is_native
from castalia.core.spec import Spec
from castalia.core.weights import load_parts, load_tensors, tensor_digest
from castalia.version import __version__

METRICS_LIMIT = 1 << 30
"""Bytes of ``metrics.jsonl``: some millions of lines."""


@dataclass(frozen=True)
class Run:
    """A run folder that has been read and checked.

    Attributes:
        path: the folder.
        recipe: what it was made from.
        spec: the shape of one example.
        fingerprint: hash of the training data; empty for an imported run.
        completed: the recipe's configuration with what only the data knew (:meth:`Model.complete`); None where that was
            nothing.
        said: sentences on why it was trained with this recipe.
    """

    path: Path
    recipe: Recipe
    spec: Spec
    fingerprint: str
    completed: Config | None = None
    said: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The configuration that the network is built from."""
        return self.recipe.config if self.completed is None else self.completed

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """File of the averaged weights."""
        return self.path / "model.safetensors"

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl``; a line cut by a crash is left out.

        Raises:
            RunError: it cannot be read.
        """
        path = self.path / "metrics.jsonl"
        if not os.path.lexists(path):
            return []
        lines = []
        for text in read_bounded(path, METRICS_LIMIT).splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict) and type(line.get("step")) is int and _is_number(line["step"]):
                lines.append(line)
        return lines

    def losses(self) -> dict[str, list[tuple[float, float]]]:
        """The logged losses as (step, value), by name."""
        lines = self.metrics()
        names = dict.fromkeys(k for line in lines for k in line if k.endswith("/loss"))
        return {name: [(line["step"], line[name]) for line in lines if _is_number(line.get(name))] for name in names}

    def steps_done(self) -> int:
        """The last step that was logged; 0 where none was."""
        lines = self.metrics()
        return lines[-1]["step"] if lines else 0

    def planned(self) -> int | None:
        """Steps that were planned; None where no plan can be read."""
        try:
            plan = read_sealed(self.path / "plan.json") if (self.path / "plan.json").exists() else None
        except RunError:
            return None
        steps = plan.get("steps") if isinstance(plan, dict) else None
        return steps if isinstance(steps, int) else None

    def newest_grid(self) -> Path | None:
        """The picture of the samples that were drawn last in training."""
        return max((self.path / "samples").glob("step-*.png"), default=None)

    def results(self) -> dict[str, Any]:
        """What was measured so far, by metric name."""
        path = self.path / "results.json"
        return read_sealed(path) if path.exists() else {}

    def precision(self, device: torch.device, asked: Precision | Literal["auto"] = "auto") -> Precision:
        """The precision to sample in: ``auto`` is that of the training where this hardware has it, else float32.

        It is not measured again, so that a run gives the same samples each time.

        Raises:
            RunError: ``plan.json`` is damaged.
        """
        if asked != "auto":
            return asked
        path = self.path / "plan.json"
        plan = read_sealed(path) if path.exists() else None  # an imported run was not trained here
        trained = plan.get("precision") if isinstance(plan, dict) else None
        return "bfloat16" if trained == "bfloat16" and bf16_is_native(device) else "float32"

    def model(self, device: torch.device | None = None, *, at: Checkpoint | None = None) -> tuple[Model, str]:
        """Build the model with its averaged weights, in evaluation mode.

        Args:
            device: where it should compute; None takes the accelerator where there is one.
            at: the checkpoint whose averaged weights to take; None takes those of ``model.safetensors``.

        Returns:
            The model, and which weights it has: their step and the start of their SHA-256.

        Raises:
            RunError: there are no readable weights; the text says what is damaged.
        """
        problem: RunError | None = None
        source = self.weights if at is None else at.path / "ema"
        try:
            tensors, metadata = load_tensors(source) if at is None else load_parts(at.path, "ema")
        except RunError as error:
            problem = error
            found = checkpoints.newest(self.checkpoints) if at is None else None
            if found is None:
                raise RunError(f"{error} There is no intact checkpoint to use instead.") from error
            tensors, metadata = load_parts(found.path, "ema")
        origin = f"step {metadata.get('castalia.step', '?')}, sha256 {tensor_digest(tensors)[:16]}"
        model = build(entry(self.recipe.model).load(), self.config, self.spec)
        load_weights(model, tensors, source)
        if problem is not None:
            warnings.warn(f"{problem} Using {origin} instead.", stacklevel=2)
        model.eval().to(device or default_device())
        lay_out(model)  # as in training: faster
        return model, origin

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        about = f"{self.recipe.model} on {Path(self.recipe.data.source).name}, {self.steps_done():,} steps: {self.path}"
        newest, shown = self.newest_grid(), ""
        if newest is not None:
            data = base64.b64encode(newest.read_bytes()).decode()
            shown = f'<img src="data:image/png;base64,{data}" alt="samples" style="max-width:30rem">'
        return f"<p>{html.escape(about)}</p>{shown}"

    def weights_are_of(self, step: int) -> bool:
        """Whether ``model.safetensors`` is intact and of that step."""
        try:
            return load_tensors(self.weights)[1].get("castalia.step") == str(step)
        except RunError:
            return False

    def publish_weights(self, source: Path) -> None:
        """Make ``model.safetensors`` a copy of the given file, atomically.

        A copy and not a link: one damaged block on the disk must not take the checkpoint as well.
        """
        temporary = self.path / f".model.tmp-{uuid.uuid4().hex[:8]}"
        try:
            with open_plain(source) as original, open(temporary, "wb") as file:
                shutil.copyfileobj(original, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.weights)
        except OSError as error:
            remove(temporary)
            raise disk_error(self.weights, error) from error

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines that a resumed run will write again."""
        kept = [line for line in self.metrics() if line.get("step", 0) <= step]
        write_bytes(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())


def _is_number(value: Any) -> bool:
    """Whether a value from a file is a number that can be drawn; JSON knows whole numbers of any length."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 1 << 63


def complete(recipe: Recipe, data: Dataset) -> Config:
    """The configuration of a new run: what the recipe says, its parents settle, and only the data know."""
    kind = entry(recipe.model).load()
    parents = {role: open_run(Path(path)).config for role, path in recipe.parents}
    return kind.complete(kind.inherit(recipe.config, parents), data)


def start_from(model: Model, parent: Model, source: Path) -> None:
    """Copy the weights of a finished run's model; adapters, which it does not have, stay as they begin.

    Raises:
        RunError: names or shapes do not fit.
    """
    own = model.state_dict()
    new = {id(t) for part in model.adapters() for t in (*part.parameters(), *part.buffers())}
    mine = [name for name, t in (*model.named_parameters(), *model.named_buffers()) if id(t) in new]
    kept = {name: own[name] for name in mine if name in own}
    try:
        load_weights(model, {**kept, **{k: v.cpu() for k, v in parent.state_dict().items()}}, source)
    except RunError as error:
        theirs, here = ({"spec": to_json(m.spec), "config": to_json(m.config)} for m in (parent, model))
        found = "; ".join(differences(theirs, here)[:5]) or "another system"
        raise RunError(
            f"The networks differ, so {source} cannot be the start of this one (there against here): {found}. {error}"
        ) from error


def load_weights(model: Model, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into a model, strictly.

    Raises:
        RunError: names or shapes do not fit the model; the text names the first that does not.
    """
    own = model.state_dict()
    for name in own.keys() ^ tensors.keys():
        raise RunError(f"{source} does not fit the configuration: {'no' if name in own else 'unexpected'} {name!r}.")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape or own[name].dtype != tensor.dtype:
            raise RunError(
                f"{source} does not fit the configuration: {name!r} is {tensor.dtype}{list(tensor.shape)}, "
                f"expected {own[name].dtype}{list(own[name].shape)}."
            )
    model.load_state_dict(dict(tensors))
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise RunError(f"{source} holds values in {name!r} that are not finite numbers; it cannot be used.")


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def create(
    path: Path,
    recipe: Recipe,
    spec: Spec,
    fingerprint: str,
    completed: Config | None = None,
    said: tuple[str, ...] = (),
) -> Run:
    """Write the configuration of a new run, and the assets that it names.

    Raises:
        UsageError: the folder holds something already.
        RunError: it cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file. Choose another --out.")
    if (path / "config.json").exists():
        raise UsageError(
            f"{path} holds a run. Choose another --out, or continue that run with --resume (in Python: resume=True, "
            "which does nothing where it is finished)."
        )
    if path.exists() and any(path.iterdir()):
        raise UsageError(f"{path} is not empty, and has no config.json of a run. Choose another --out.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(path, error) from error
    completed = None if completed == recipe.config else completed
    assets.store(path / "assets", spec, recipe.config, completed, recipe.data.options)
    write_sealed(
        path / "config.json",
        {
            "schema_version": SCHEMA_VERSION,
            "recipe": to_json(recipe),
            **({} if completed is None else {"completed": to_json(completed)}),
            "spec": spec_to_json(spec),
            "fingerprint": fingerprint,
            **({"said": list(said)} if said else {}),
            "made_with": {
                "castalia": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
    )
    return Run(path, recipe, spec, fingerprint, completed, said)


def discard(path: Path, kept: bool) -> None:
    """Remove a run that was just created and never began; with ``kept`` its folder, which was there before, stays."""
    for entry_ in list(path.iterdir()) if kept and path.is_dir() else [path]:
        if entry_.is_dir() and not entry_.is_symlink():
            shutil.rmtree(entry_, ignore_errors=True)
        else:
            remove(entry_)


def open_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RunError: it is not one, or its configuration is damaged or of a newer version.
    """
    if not path.is_dir():
        raise RunError(f"There is no run at {path}.")
    if not (path / "config.json").is_file():
        raise RunError(f"{path} is not a run: it has no config.json.")
    data = read_sealed(path / "config.json")
    if not isinstance(data, dict) or type(data.get("schema_version")) is not int:
        raise RunError(f"{path}/config.json is not a Castalia run configuration.")
    if data["schema_version"] > SCHEMA_VERSION:
        raise RunError(f"{path} was written by a newer Castalia (schema {data['schema_version']}); upgrade to read it.")
    assets.look_in(path / "assets")
    try:
        recipe = recipe_from_json(data.get("recipe"), f"{path}/config.json: recipe")
        spec = spec_from_json(data.get("spec"), f"{path}/config.json: spec")
        known = data.get("completed")
        completed = None if known is None else from_json(type(recipe.config), known, f"{path}/config.json: completed")
    except UsageError as error:
        raise RunError(str(error)) from error
    fingerprint = data.get("fingerprint", "")
    if not isinstance(fingerprint, str):
        raise RunError(f"{path}/config.json: 'fingerprint' must be a text.")
    said = data.get("said", [])
    if not isinstance(said, list) or not all(isinstance(text, str) for text in said):
        raise RunError(f"{path}/config.json: 'said' must be a list of texts.")
    return Run(path, recipe, spec, fingerprint, completed, tuple(said))


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that the trained weights depend on. Where data lie may change: their hash may not."""
    data = to_json(recipe)
    for name in ("expected", "parents"):
        data.pop(name)
    data["data"].pop("source")
    for name in ("keep", "samples", "sample_every", "checkpoint_every", "tracker", "recompute"):
        data["training"].pop(name)
    return data


def check_same(run: Run, recipe: Recipe, data: Dataset) -> None:
    """Refuse to resume a run with another recipe or other data.

    Raises:
        UsageError: lists what differs.
    """
    found = differences(_decisive(run.recipe), _decisive(recipe))
    if found:
        longer = any(line.startswith(("training.steps", "training.minutes")) for line in found)
        hint = f" To train it longer, begin another run with its weights: --start {run.path}" if longer else ""
        text = "; ".join(found[:5])
        raise UsageError(f"{run.path} was started with other settings (there against here): {text}.{hint}")
    if run.fingerprint and run.fingerprint != data.fingerprint:
        raise UsageError(f"{run.path} was trained on other data than {data.name} holds now; a resume would mix them.")
