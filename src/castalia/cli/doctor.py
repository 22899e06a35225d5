"""Is this installation healthy? Versions, hardware, conflicting packages, and one training step."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from pathlib import Path

from castalia.version import __version__

EXTRAS = {
    "av": "video",
    "pyarrow": "parquet",
    "tensorboard": "track",
    "onnx": "onnx",
    "huggingface_hub": "hub",
}


def check() -> tuple[dict[str, str], bool]:
    """Return what was found by name, and whether all is well."""
    report: dict[str, str] = {}
    healthy = True
    report["python"] = platform.python_version()
    report["castalia"] = __version__
    for package in ("torch", "numpy", "pillow", "safetensors"):
        try:
            report[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            report[package], healthy = "MISSING: pip install castalia", False
    for package, extra in EXTRAS.items():
        found = importlib.util.find_spec(package) is not None
        report[package] = "installed" if found else f"not installed (optional: pip install 'castalia[{extra}]')"
    for package in ("torchvision", "torchaudio"):
        if importlib.util.find_spec(package) is not None:
            text = _fits_torch(package)
            report[package] = text
            healthy = healthy and "WRONG" not in text
    import torch

    report["processor"] = (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    )
    from castalia.core.precision import bf16_is_native

    native = bf16_is_native(torch.device("cpu"))
    report["bfloat16 products"] = "native" if native else "not native (float32 is used)"
    report["accelerator"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    report["disk"] = f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free here"
    report["CASTALIA_DATA"] = os.environ.get("CASTALIA_DATA", "not set")
    try:
        report["one training step"] = _step()
    except Exception as error:  # whatever is broken, the doctor says so
        report["one training step"], healthy = f"FAILED: {error}", False
    return report, healthy


def _fits_torch(package: str) -> str:
    version = importlib.metadata.version(package)
    needs = [r for r in importlib.metadata.requires(package) or () if r.startswith("torch")]
    have = importlib.metadata.version("torch").split("+")[0]
    if any("==" in r and r.split("==")[1].split(";")[0].strip() != have for r in needs):
        return f"WRONG: {version} was built for another torch and breaks other packages; pip uninstall {package}"
    return f"{version} (not needed by Castalia)"


def _step() -> str:
    import torch

    from castalia.core.data import Batch
    from castalia.core.model import Progress, build
    from castalia.core.rng import BatchRng
    from castalia.core.specs.image import ImageSpec
    from castalia.models.autoencoders.vae import VAE, VAEConfig

    model = build(VAE, VAEConfig(latent_dims=4, widths=(8,), hidden=16), ImageSpec(1, 8, 8))
    assert isinstance(model, VAE)
    batch = Batch(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4))
    started = time.perf_counter()
    loss, _ = model.loss(batch, BatchRng(0, total=4), Progress(0, 1))
    loss.backward()
    return f"works ({1000 * (time.perf_counter() - started):.0f} ms)"
