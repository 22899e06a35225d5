from __future__ import annotations

import errno
import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from castalia import api
from castalia.catalogue import CATALOGUE
from castalia.core.capabilities import Latents
from castalia.core.errors import CastaliaError, MissingExtra, RunError, UsageError
from castalia.core.files import disk_error
from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.interop import programs
from castalia.models.autoencoders.vae import VAE, VAEConfig
from castalia.models.diffusion.base import Diffusion
from castalia.nn.convolutions import convolve

CPU = torch.device("cpu")
CONFIGS = {
    "dense": (VAEConfig(network="dense", latent_dims=3, widths=(8,)), ImageSpec(1, 5, 6)),
    "conv": (VAEConfig(latent_dims=3, widths=(4, 8), hidden=8, top=4), ImageSpec(3, 7, 9)),
}


@pytest.mark.parametrize("network", CONFIGS)
def test_torch_programs_agree_with_the_model(make_run, tmp_path, network):
    run = make_run(*CONFIGS[network])
    parities = programs.export_torch(run, tmp_path / "out")
    assert [p.call for p in parities] == ["encoder", "decoder", "pictures"]
    assert all(p.max_relative_error <= programs.TOLERANCE for p in parities)
    model, _ = run.model(CPU)
    assert isinstance(model, VAE)
    decoder = torch.export.load(parities[1].file).module()
    for batch in (1, 4, 9):
        z = torch.randn(batch, 3, generator=torch.Generator().manual_seed(batch))
        assert torch.allclose(decoder(z), model.outputs(z), atol=1e-5)


def test_the_description_says_what_goes_in_and_out(make_run, tmp_path):
    run = make_run(*CONFIGS["dense"])
    programs.export_torch(run, tmp_path / "out")
    text = json.loads((tmp_path / "out" / "calls.json").read_text())
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "encoder.pt2",
        "decoder.pt2",
        "pictures.pt2",
        "calls.json",
    }
    assert "[-1, 1]" in text["units"]
    assert text["config"]["likelihood"] == "bernoulli"
    assert text["calls"]["encoder"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 1, 5, 6]}]
    assert text["calls"]["encoder"]["outputs"] == [{"name": "output", "dtype": "float32", "shape": ["batch", 6]}]
    assert text["calls"]["decoder"]["outputs"][0]["shape"] == ["batch", 1, 5, 6]
    assert text["calls"]["decoder"]["parity"]["batches"] == [1, 2, 5]


def test_archives_hold_no_pickle(make_run, tmp_path):
    for parity in programs.export_torch(make_run(*CONFIGS["dense"]), tmp_path / "out"):
        with zipfile.ZipFile(parity.file) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                assert not data.startswith((b"\x80", b"PK")), name
                assert b"data.pkl" not in data, name


def test_a_program_that_disagrees_is_refused(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "TOLERANCE", -1.0)
    with pytest.raises(RunError, match="does not agree with the original"):
        programs.export_torch(make_run(*CONFIGS["dense"]), tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(make_run, tmp_path, monkeypatch):
    def full(path, data):
        raise disk_error(path, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(programs, "write_bytes", full)
    with pytest.raises(CastaliaError, match="disk") as caught:
        programs.export_torch(make_run(VAEConfig(network="dense", widths=(8,), latent_dims=2)), tmp_path / "out")
    assert "cannot export" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))


def test_what_is_compared_is_what_is_exported():
    """Without gradients a wide network rounds otherwise, by up to the error that is allowed."""
    layer = nn.Conv2d(128, 128, 3, padding=1)

    class Wide(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return convolve(layer, x)

    x = (torch.randn(2, 128, 48, 48),)
    assert programs.compare(Wide(), x, lambda i: (layer(*i).detach(),)) == (0.0, 0.0)


def test_compare_measures_errors():
    module = nn.Linear(3, 2)
    x = (torch.zeros(2, 3),)
    assert programs.compare(module, x, lambda i: (module(*i).detach(),)) == (0.0, 0.0)
    absolute, relative = programs.compare(module, x, lambda i: (module(*i).detach() * 1.01,))
    assert absolute > 0
    assert relative == pytest.approx(0.01, rel=1e-3)
    assert programs.compare(module, x, lambda i: (module(*i).detach()[:2],))[1] == float("inf")
    assert programs.compare(module, x, lambda i: (module(*i).detach() * torch.nan,))[1] == float("inf")


def test_whole_number_inputs_stay_in_range():
    module = nn.Embedding(7, 2)
    assert programs.compare(module, (torch.tensor([[0, 6]]),), lambda i: (module(*i).detach(),)) == (0.0, 0.0)


def test_a_call_that_cannot_be_exported_is_told(make_run, tmp_path, monkeypatch):
    class Branching(nn.Module):
        def forward(self, x):
            return x + 1 if bool(x.sum() > 0) else x

    monkeypatch.setattr(VAE, "export_calls", lambda self: {"decoder": (Branching(), (torch.zeros(2, 3),))})
    with pytest.raises(RunError, match="cannot export the decoder"):
        programs.export_torch(make_run(*CONFIGS["dense"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_without_calls_and_full_targets_are_refused(make_run, tmp_path, monkeypatch):
    run = make_run(*CONFIGS["dense"])
    with pytest.raises(UsageError, match="not empty"):
        programs.export_torch(run, run.path)
    monkeypatch.setitem(CATALOGUE, "vae", replace(CATALOGUE["vae"], capabilities=("Latents",)))
    with pytest.raises(UsageError, match="no network calls"):
        programs.export_torch(run, tmp_path / "out")


def test_the_missing_extra_is_named(make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"castalia\[onnx\]"):
        programs.export_onnx(make_run(*CONFIGS["dense"]), tmp_path / "out")


@pytest.mark.parametrize("network", CONFIGS)
def test_onnx_graphs_agree_with_the_model(make_run, tmp_path, network):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'castalia[onnx]'")
    import onnxruntime

    run = make_run(*CONFIGS[network])
    parities = programs.export_onnx(run, tmp_path / "out")
    assert [p.file.name for p in parities] == ["encoder.onnx", "decoder.onnx", "pictures.onnx"]
    text = json.loads((tmp_path / "out" / "calls.json").read_text())
    session = onnxruntime.InferenceSession(str(parities[1].file), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == [i["name"] for i in text["calls"]["decoder"]["inputs"]]
    assert session.get_inputs()[0].shape[1:] == [3]
    assert isinstance(session.get_inputs()[0].shape[0], str)  # a free dimension has a name
    model, _ = run.model(CPU)
    assert isinstance(model, VAE)
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    (ours,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
    assert torch.allclose(torch.from_numpy(ours), model.outputs(z), atol=1e-5)


ALONE = ("vae-tiny", "gan-tiny", "edm-tiny", "vqvae-tiny", "glow-tiny", "pixelcnn-tiny")


@pytest.mark.parametrize("recipe", ALONE)
def test_a_few_lines_make_a_picture_with_onnxruntime_alone(recipe, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'castalia[onnx]'")
    from PIL import Image

    run = api.train(None, None, tmp_path / "run", recipe=recipe, steps=1, quiet=True)
    programs.export_onnx(run, tmp_path / "out")
    text = (tmp_path / "out" / "picture.py").read_text()
    assert len([line for line in text.splitlines() if line and not line.startswith(("#", "import"))]) <= 18
    assert "torch" not in text
    assert "castalia" not in text
    seeded = "import numpy; numpy.random.seed(7); exec(open('picture.py').read())"
    subprocess.run([sys.executable, "-c", seeded, "3"], cwd=tmp_path / "out", check=True)
    with Image.open(tmp_path / "out" / "picture.png") as picture:
        made = np.asarray(picture).astype(float)
        assert picture.size == (8, 8)
        assert len(np.unique(made)) > 1
    model, _ = run.model(CPU)
    if isinstance(model, Latents):  # the same noise through the model itself
        np.random.seed(7)
        z = torch.from_numpy(np.random.randn(1, model.latent_dims)).float()
        given = {"label": torch.tensor([3])} if model.accepts() else {}
        if isinstance(model, Diffusion):
            options = model.SampleOptions(sampler="euler")
            job = model.job(given.get("label"), options, SampleRng(0, range(1), CPU))
            ours = job.start(z.view(1, *model.spec.shape))
        elif recipe == "glow-tiny":
            ours = model.decode(z).x
        else:
            ours = model.decode(z, given).x
        # a picture of few values is rounded to them by the model, and not by the lines
        assert np.abs(made - ours[0, 0].numpy()).max() <= 255 / 16 / 2 + 1
