"""Network calls as programs that run without Castalia: torch.export (``.pt2``) and ONNX (``.onnx``).

Only single calls leave (an encoder, a decoder, a denoiser), never a sampling loop: loops are where exporters
fail. The batch is a free dimension. Every file is read back and compared with the original on random inputs
of :data:`BATCHES` rows before the folder appears; ``calls.json`` says what goes in, what comes out, and
in which units.
"""

from __future__ import annotations

import importlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from castalia.catalogue import entry
from castalia.configuration import spec_to_json
from castalia.core.capabilities import Exportable, PictureProgram
from castalia.core.config import to_json
from castalia.core.errors import CastaliaError, MissingExtra, RunError, UsageError
from castalia.core.files import sha256, write_bytes, write_json
from castalia.core.rng import derive
from castalia.core.specs.image import ImageSpec
from castalia.interop.target import new_folder
from castalia.runs import Run
from castalia.version import __version__

BATCHES = (1, 2, 5)
"""Batch sizes of the comparison; 1 is the one that exporters like to take for a constant."""

TOLERANCE = 1e-5
"""Largest error that is let pass, as a part of the largest output."""

Runner = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Parity:
    """How an exported call compares with the original.

    Attributes:
        call: name of the call.
        file: what was written.
        max_abs_error: largest difference of any output value, over all compared batches.
        max_relative_error: the same, divided by the largest output value of that batch.
    """

    call: str
    file: Path
    max_abs_error: float
    max_relative_error: float


@dataclass(frozen=True)
class _Call:
    """One call of a model: its module, example inputs and outputs, and what they are called."""

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @property
    def dynamic(self) -> tuple[dict[int, Any], ...]:
        """The first dimension of every input but single numbers is the batch, and free."""
        batch = torch.export.Dim("batch", min=1)
        return tuple({0: batch} if one.ndim else {} for one in self.inputs)


def export_torch(run: Run, out: Path) -> list[Parity]:
    """Write each network call as a ``torch.export`` program, ``<call>.pt2``, for ``torch.export.load``.

    Args:
        run: a run with weights, of a model that declares ``Exportable``.
        out: a new or empty folder; it appears whole or not at all.

    Returns:
        The comparison with the original, per call.

    Raises:
        UsageError: the model has no calls to export, or ``out`` holds something already.
        RunError: torch cannot export a call, or a program does not agree with the original.
    """

    def write(call: _Call, folder: Path) -> tuple[Path, Runner]:
        path = folder / f"{call.name}.pt2"
        program = torch.export.export(call.module, call.inputs, dynamic_shapes=call.dynamic)
        # example inputs would be stored as Python objects inside the archive
        program.example_inputs = None
        whole = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.export.save(program, whole)
        write_bytes(path, whole.getvalue())
        loaded = torch.export.load(path).module()
        return path, lambda inputs: _as_tuple(loaded(*inputs))

    return _export(run, out, "torch.export", write)


def export_onnx(run: Run, out: Path) -> list[Parity]:
    """Write each network call as an ONNX graph, ``<call>.onnx``, and compare it under onnxruntime on the CPU.

    Args:
        run: a run with weights, of a model that declares ``Exportable``.
        out: a new or empty folder; it appears whole or not at all.

    Returns:
        The comparison with the original, per call.

    Raises:
        MissingExtra: the ``onnx`` extra is not installed.
        UsageError: the model has no calls to export, or ``out`` holds something already.
        RunError: a call cannot be exported, or a graph does not agree with the original.
    """
    runtime = _onnxruntime()

    def write(call: _Call, folder: Path) -> tuple[Path, Runner]:
        path = folder / f"{call.name}.onnx"
        program = torch.onnx.export(
            call.module,
            call.inputs,
            dynamo=True,
            dynamic_shapes=call.dynamic,
            input_names=list(call.input_names),
            output_names=list(call.output_names),
            verbose=False,
        )
        assert program is not None  # dynamo=True always returns one
        program.save(path)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def run_graph(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            feed = {name: t.numpy() for name, t in zip(call.input_names, inputs, strict=True)}
            return tuple(torch.from_numpy(a) for a in session.run(list(call.output_names), feed))

        return path, run_graph

    return _export(run, out, "ONNX", write)


PICTURE = """\
# Makes a picture of {model} with onnxruntime and NumPy: python picture.py{asked}
import functools, json, struct, sys, zlib
import numpy as np, onnxruntime

net = functools.cache(lambda call: onnxruntime.InferenceSession(call + ".onnx"))
run = lambda call, *x: net(call).run(None, {{i.name: v for i, v in zip(net(call).get_inputs(), x)}})[0]
{lines}
x = np.clip(np.rint(y), 0, 255).astype(np.uint8).transpose(1, 2, 0)
rows = b"".join(b"\\0" + row.tobytes() for row in x)
head = struct.pack(">IIBBBBB", x.shape[1], x.shape[0], 8, {{1: 0, 2: 4, 3: 2, 4: 6}}[x.shape[2]], 0, 0, 0)
part = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
png = part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
open("picture.png", "wb").write(b"\\x89PNG\\r\\n\\x1a\\n" + png)
"""
"""What is written beside ONNX graphs that together make whole pictures."""


def _root(error: BaseException) -> str:
    """What an exporter's error comes from: the first line of the innermost one, without colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().split("\n")[0][:300]


def _picture(run: Run, program: PictureProgram) -> str:
    """The text of ``picture.py``."""
    read = "" if program.numbers is None else 'numbers = json.load(open("picture.json"))\n'
    asked = ""
    if "[label]" in program.lines:
        last = len(run.spec.classes) - 1  # type: ignore[attr-defined]
        asked = f" [CLASS NUMBER, 0 to {last}]"
        read = (
            f'label = int((sys.argv + ["0"])[1]); 0 <= label <= {last} or sys.exit("classes are 0 to {last}")\n{read}'
        )
    return PICTURE.format(model=run.recipe.model, asked=asked, lines=read + program.lines.strip("\n"))


def _export(run: Run, out: Path, form: str, write: Callable[[_Call, Path], tuple[Path, Runner]]) -> list[Parity]:
    """Write and compare every call of a run's model, and describe them in ``calls.json``."""
    if "Exportable" not in entry(run.recipe.model).capabilities:
        raise UsageError(f"{run.recipe.model} has no network calls that run outside Castalia.")
    model, origin = run.model(torch.device("cpu"))
    assert isinstance(model, Exportable)
    parities, described = [], {}
    with new_folder(out) as folder, torch.no_grad():
        for name, (module, inputs) in model.export_calls().items():
            call = _describe(name, module.eval(), inputs)
            with warnings.catch_warnings(), _quiet("torch.onnx", "torch.export", "onnxscript"):
                warnings.simplefilter("ignore")  # exporters talk about their own insides
                try:
                    path, runner = write(call, folder)
                except CastaliaError:
                    raise
                # exporters raise whatever their insides raise; for the user it is one thing
                except Exception as error:
                    why = _root(error)
                    raise RunError(f"{form} cannot export the {name} of {run.recipe.model}: {why}") from error
                absolute, relative = compare(call.module, call.inputs, runner)
            if not relative <= TOLERANCE:
                raise RunError(
                    f"The exported {name} does not agree with the original: error {absolute:.3g}, "
                    f"{relative:.3g} of the largest output, where {TOLERANCE:g} is allowed. "
                    "Nothing was written."
                )
            parities.append(Parity(name, out / path.name, absolute, relative))
            described[name] = {
                "file": path.name,
                "sha256": sha256(path),
                "inputs": _tensors(call.input_names, call.inputs),
                "outputs": _tensors(call.output_names, call.outputs),
                "parity": {
                    "batches": list(BATCHES),
                    "max_abs_error": absolute,
                    "max_relative_error": relative,
                },
            }
        description = {
            "format": form,
            "model": run.recipe.model,
            "weights": origin,
            "units": inspect.cleandoc(type(model).export_calls.__doc__ or ""),
            "spec": spec_to_json(run.spec),
            "config": to_json(run.config),
            "calls": described,
            "made_with": {"castalia": __version__, "torch": torch.__version__},
        }
        write_json(folder / "calls.json", description)
        if form == "ONNX" and isinstance(run.spec, ImageSpec) and (program := model.export_picture()):
            write_bytes(folder / "picture.py", _picture(run, program).encode())
            if program.numbers is not None:
                write_json(folder / "picture.json", program.numbers)
    return parities


def compare(module: nn.Module, inputs: tuple[Tensor, ...], runner: Runner) -> tuple[float, float]:
    """Largest absolute and relative error of ``runner`` against ``module`` over :data:`BATCHES`.

    Floating inputs are standard normal, whole numbers are uniform up to the largest of the example's. The
    relative error is the absolute one divided by the largest absolute output of the batch; a wrong shape or a
    value that is not finite counts as an infinite error.
    """
    absolute = relative = 0.0
    for batch in BATCHES:
        generator = torch.Generator().manual_seed(derive(0, "parity", batch))
        drawn = tuple(_random_like(t, batch, generator) for t in inputs)
        with torch.enable_grad():  # without, some layers take ways of their own that are not exported
            expected = tuple(t.detach() for t in _as_tuple(module(*drawn)))
        for ours, theirs in zip(expected, runner(drawn), strict=True):
            if ours.shape != theirs.shape or not bool(torch.isfinite(theirs).all()):
                return float("inf"), float("inf")
            error = float((ours.double() - theirs.double()).abs().max())
            absolute = max(absolute, error)
            relative = max(relative, error / max(float(ours.double().abs().max()), torch.finfo(torch.float32).tiny))
    return absolute, relative


def _describe(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> _Call:
    """Inputs are named after the parameters of the module's ``forward``, outputs are numbered."""
    input_names = tuple(inspect.signature(module.forward).parameters)[: len(inputs)]
    outputs = _as_tuple(module(*inputs))
    output_names = ("output",) if len(outputs) == 1 else tuple(f"output_{i}" for i in range(len(outputs)))
    return _Call(name, module, inputs, outputs, input_names, output_names)


def _tensors(names: Sequence[str], tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [
        {"name": n, "dtype": str(t.dtype).removeprefix("torch."), "shape": ["batch", *t.shape[1:]] if t.ndim else []}
        for n, t in zip(names, tensors, strict=True)
    ]


def _random_like(example: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    shape = (batch, *example.shape[1:]) if example.ndim else ()
    if example.is_floating_point():
        return torch.randn(shape, generator=generator, dtype=example.dtype)
    return torch.randint(int(example.max()) + 1, shape, generator=generator, dtype=example.dtype)


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _onnxruntime() -> ModuleType:
    try:
        for name in ("onnx", "onnxscript"):
            importlib.import_module(name)  # safe: literal names
        return importlib.import_module("onnxruntime")  # safe: a literal name
    except ImportError as error:
        raise MissingExtra("Export to ONNX", "onnx") from error


class _quiet:
    """Silence loggers below errors, for the length of a block."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
