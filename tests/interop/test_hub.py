from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from castalia.core.errors import MissingExtra, RunError, UsageError
from castalia.interop import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Stub(ModuleType):
    """A hub with one repository, kept in a folder."""

    def __init__(self, store: Path) -> None:
        super().__init__("huggingface_hub")
        self.store, self.calls = store, []

    def HfApi(self):
        return self

    def create_repo(self, **options):
        self.calls.append(("create_repo", options))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.store)
        self.calls.append(("upload_folder", {"repo_id": repo_id}))
        return SimpleNamespace(oid=COMMIT)

    def snapshot_download(self, *, repo_id, revision, local_dir, allow_patterns):
        if revision != COMMIT:
            raise OSError("404: no such revision")
        for name in allow_patterns:
            if (self.store / name).exists():
                shutil.copyfile(self.store / name, Path(local_dir) / name)
        return local_dir


@pytest.fixture
def stub(tmp_path, monkeypatch) -> Stub:
    made = Stub(tmp_path / "store")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    return made


def test_publish_and_fetch(make_run, stub, tmp_path):
    run = make_run()
    address = hub.export_hub(run, "someone/tiny-vae")
    assert str(address) == f"hf://someone/tiny-vae@{COMMIT}"
    assert stub.calls[0] == (
        "create_repo",
        {"repo_id": "someone/tiny-vae", "private": True, "exist_ok": True},
    )
    made = hub.import_hub(str(address), tmp_path / "imported")
    assert made.recipe == run.recipe
    assert (stub.store / "README.md").exists()


def test_a_changed_download_is_refused(make_run, stub, tmp_path):
    address = hub.export_hub(make_run(), "someone/tiny-vae")
    with open(stub.store / "config.json", "a") as file:
        file.write(" ")
    with pytest.raises(RunError, match="damaged or was changed"):
        hub.import_hub(str(address), tmp_path / "imported")


def test_errors_of_the_hub_are_told(make_run, stub, tmp_path):
    with pytest.raises(RunError, match="no such revision"):
        hub.import_hub("hf://someone/tiny-vae@v1", tmp_path / "imported")


@pytest.mark.parametrize(
    "address",
    [
        "hf://someone/name",
        "hf://someone/name@",
        "hf://name@abc",
        "hf://a/b/c@main",
        "hf://../b@main",
        "hf://a/..@main",
        "hf://a/b@../main",
        "https://a/b@main",
        "hf://a/b@main\n",
    ],
)
def test_addresses_without_a_pinned_revision_or_of_another_form(address):
    with pytest.raises(UsageError, match="hf://owner/name@revision"):
        hub.parse_address(address)


def test_the_missing_extra_is_named(make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"castalia\[hub\]"):
        hub.export_hub(make_run(), "someone/name")
    with pytest.raises(MissingExtra, match=r"castalia\[hub\]"):
        hub.import_hub(f"hf://someone/name@{COMMIT}", tmp_path / "imported")
