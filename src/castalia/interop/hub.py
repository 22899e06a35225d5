"""Exported folders on the Hugging Face hub, always at a pinned revision.

Only plumbing: ``snapshot_download`` and ``upload_folder`` move the files, and :mod:`castalia.interop.folder`
judges them. An address is ``hf://owner/name@revision``; a revision is a commit, or a tag, which its
owner can move.
"""

from __future__ import annotations

import importlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castalia.core.errors import MissingExtra, RunError, UsageError
from castalia.interop.folder import export_folder, import_folder
from castalia.interop.received import HASHED, SUMS
from castalia.runs import Run

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ADDRESS = re.compile(rf"hf://({_PART}/{_PART})@([A-Za-z0-9][A-Za-z0-9._/-]{{0,199}})")


@dataclass(frozen=True)
class Address:
    """A model on the hub.

    Attributes:
        repo: ``owner/name``.
        revision: a commit or a tag.
    """

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.revision}"


def parse_address(text: str) -> Address:
    """Read ``hf://owner/name@revision``.

    Raises:
        UsageError: it has another form, or no revision.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or ".." in text:
        raise UsageError(
            f"{text!r} is not an address of a model: write hf://owner/name@revision. The revision (a commit) "
            "is required, so that the same address always means the same weights."
        )
    return Address(match[1], match[2])


def export_hub(run: Run, repo: str, *, private: bool = True) -> Address:
    """Publish a run: export it, then upload the folder in one commit.

    Args:
        run: a run with weights.
        repo: ``owner/name``; made when there is none.
        private: whether a new repository is visible to its owner only.

    Returns:
        The address, pinned to the commit that was made.

    Raises:
        MissingExtra: the ``hub`` extra is not installed.
        UsageError: ``repo`` is not of the form owner/name.
        RunError: the hub refused or cannot be reached.
    """
    hub = _hub()
    parse_address(f"hf://{repo}@main")
    with tempfile.TemporaryDirectory(prefix="castalia-") as temporary:
        folder = export_folder(run, Path(temporary) / "export")
        try:
            api = hub.HfApi()
            api.create_repo(repo_id=repo, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo, folder_path=str(folder), commit_message=f"Castalia {run.recipe.model}"
            )
        except Exception as error:  # which library's errors these are depends on the hub client's version
            raise RunError(f"{repo} could not be published: {error}") from error
    return Address(repo, str(commit.oid))


def import_hub(address: str, out: Path) -> Run:
    """Download an exported folder at a pinned revision and make a run of it, with all checks of an import.

    Args:
        address: ``hf://owner/name@revision``.
        out: a new or empty folder for the run.

    Raises:
        MissingExtra: the ``hub`` extra is not installed.
        UsageError: the address has another form, or ``out`` holds something already.
        RunError: the hub refused or cannot be reached, or the folder is not an intact export.
    """
    found = parse_address(address)
    hub = _hub()
    with tempfile.TemporaryDirectory(prefix="castalia-") as temporary:
        try:
            # a local folder: the hub's shared cache is made of links, which an import refuses
            hub.snapshot_download(
                repo_id=found.repo,
                revision=found.revision,
                local_dir=temporary,
                allow_patterns=[*HASHED, SUMS],
            )
        except Exception as error:
            raise RunError(f"{address} could not be fetched: {error}") from error
        return import_folder(Path(temporary), out)


def _hub() -> Any:
    try:
        return importlib.import_module("huggingface_hub")  # safe: a literal name
    except ImportError as error:
        raise MissingExtra("The Hugging Face hub", "hub") from error
