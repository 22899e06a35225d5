from __future__ import annotations

import json
import os
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from castalia.core.errors import CastaliaError, RunError, UsageError
from castalia.core.files import sha256
from castalia.core.rng import SampleRng
from castalia.core.weights import load_tensors
from castalia.interop import received
from castalia.interop.folder import export_folder, import_folder
from castalia.models.autoencoders.vae import VAEConfig
from castalia.runs import open_run

CPU = torch.device("cpu")


@pytest.fixture
def exported(make_run, tmp_path) -> Path:
    return export_folder(make_run(), tmp_path / "export")


def rehash(folder: Path) -> None:
    """What an attacker does after changing a file."""
    lines = [f"{sha256(folder / n)}  {n}\n" for n in received.HASHED if (folder / n).exists()]
    (folder / "SHA256SUMS").write_text("".join(lines))


def edit_config(folder: Path, change) -> None:
    data = json.loads((folder / "config.json").read_text())
    data.pop("sha256")  # as an old version wrote it; whoever changes a file can change the hashes in it
    change(data)
    (folder / "config.json").write_text(json.dumps(data))
    rehash(folder)


def refused(folder: Path, match: str) -> None:
    """The folder is refused with a clear error, and nothing is left behind."""
    out = folder.parent / "imported"
    with pytest.raises(CastaliaError, match=match):
        import_folder(folder, out)
    assert not out.exists()
    assert not [p for p in folder.parent.iterdir() if ".tmp-" in p.name]


# there and back


def test_an_export_holds_exactly_what_it_says(exported):
    names = {p.name for p in exported.iterdir()}
    assert names == {"config.json", "model.safetensors", "metrics.json", "README.md", "SHA256SUMS"}
    front = (exported / "README.md").read_text().split("---\n")[1].splitlines()
    assert "library_name: castalia" in front
    assert front[front.index("tags:") + 1 :][:2] == ["- castalia", "- vae"]
    assert not any(line.startswith("license:") for line in front)
    assert json.loads((exported / "metrics.json").read_text())["metrics"]["bound"]["unit"] == "nats"
    assert not [p for p in exported.parent.iterdir() if ".tmp-" in p.name]


def test_the_usual_tool_verifies_the_sums(exported):
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=exported, check=True, capture_output=True)


def test_round_trip(make_run, tmp_path):
    run = make_run()
    made = import_folder(export_folder(run, tmp_path / "export"), tmp_path / "imported")
    assert (made.recipe, made.spec, made.fingerprint) == (run.recipe, run.spec, run.fingerprint)
    assert made.recipe.training.seed == 3
    assert made.results() == run.results()
    assert "98.5" in (made.path / "README.md").read_text()
    (ours, origin), (theirs, _) = made.model(CPU), run.model(CPU)
    assert origin.startswith("step 7, sha256 ")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    rng = SampleRng(0, range(4))
    assert torch.equal(ours.sample(4, rng=rng).x, theirs.sample(4, rng=rng).x)
    again = export_folder(made, tmp_path / "again")
    # not compared byte by byte: safetensors writes its metadata in any order
    assert load_tensors(again / "model.safetensors")[1] == load_tensors(run.weights)[1]


def test_paths_of_this_computer_are_not_published(make_run, tmp_path):
    run = make_run(source="/home/somebody/holiday", parents=(("teacher", r"C:\Users\somebody\teacher"),))
    out = export_folder(run, tmp_path / "export")
    for path in out.iterdir():
        assert b"somebody" not in path.read_bytes(), path.name
    made = import_folder(out, tmp_path / "imported")
    assert made.recipe.data.source == "holiday"
    assert made.recipe.parents == (("teacher", "teacher"),)


def test_targets_that_hold_something_are_refused(make_run, exported, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        export_folder(open_run(tmp_path / "run"), full)
    with pytest.raises(UsageError, match="not empty"):
        import_folder(exported, full)
    assert [p.name for p in full.iterdir()] == ["precious"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert import_folder(exported, empty).path == empty


def test_a_card_may_be_edited_and_metrics_left_out(exported, tmp_path):
    (exported / "README.md").write_text("---\nlicense: apache-2.0\n---\nMine.")
    (exported / ".gitattributes").write_text("")
    (exported / "metrics.json").unlink()
    rehash(exported)
    made = import_folder(exported, tmp_path / "imported")
    assert made.results() == {}


def test_a_failed_export_leaves_nothing(make_run, tmp_path):
    run = make_run()
    run.weights.unlink()
    with pytest.raises(RunError):
        export_folder(run, tmp_path / "export")
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


# hostile and damaged folders


@pytest.mark.parametrize("name", received.HASHED)
def test_a_flipped_bit_is_found(exported, name):
    data = bytearray((exported / name).read_bytes())
    data[len(data) // 2] ^= 1
    (exported / name).write_bytes(bytes(data))
    refused(exported, f"{name} is damaged or was changed")


def test_a_flipped_bit_is_found_even_with_new_sums(exported):
    data = bytearray((exported / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (exported / "model.safetensors").write_bytes(bytes(data))
    rehash(exported)
    refused(exported, "do not match the SHA-256 stored with them")


def test_a_wrong_hash(exported):
    text = (exported / "SHA256SUMS").read_text()
    (exported / "SHA256SUMS").write_text(("0" if text[0] != "0" else "1") + text[1:])
    refused(exported, "damaged or was changed")


@pytest.mark.parametrize(
    "name",
    ["../run/config.json", "/etc/passwd", r"..\config.json", "README.md", "model.pt", "./config.json", "~/x"],
)
def test_sums_that_name_other_files(exported, name):
    with open(exported / "SHA256SUMS", "a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    refused(exported, "is not a file of an export")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "does not list config.json"),
        ("nonsense\n", "line 1"),
        (f"{'0' * 63}  config.json\n", "line 1"),
        (f"{'0' * 64}  config.json\n" * 2, "listed twice"),
        ("x" * 100_000, "never needs more"),
    ],
)
def test_malformed_sums(exported, text, match):
    (exported / "SHA256SUMS").write_text(text)
    refused(exported, match)


def test_sums_that_are_no_text(exported):
    (exported / "SHA256SUMS").write_bytes(b"\xff\xfe\x00")
    refused(exported, "cannot be read as text")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "metrics.json", "SHA256SUMS"])
def test_a_missing_file(exported, name):
    (exported / name).unlink()
    refused(exported, f"{name} is missing")


def test_not_a_folder(tmp_path):
    with pytest.raises(RunError, match="There is no folder"):
        import_folder(tmp_path / "nothing", tmp_path / "imported")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "metrics.json", "SHA256SUMS"])
def test_a_symbolic_link_is_refused(exported, tmp_path, name):
    outside = tmp_path / "outside"
    (exported / name).rename(outside)
    (exported / name).symlink_to(outside)  # even one whose contents are right
    refused(exported, "symbolic link")


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: os.mkfifo(p)])
def test_what_is_no_plain_file_is_refused(exported, make):
    (exported / "config.json").unlink()
    make(exported / "config.json")
    refused(exported, "not a plain file")


def nested(data, *path):
    for part in path:
        data = data[part]
    return data


@pytest.mark.parametrize(
    ("path", "key", "value", "match"),
    [
        ((), "_target_", "os.system", "no field '_target_'"),
        (("recipe",), "_target_", "os.system", "no field '_target_'"),
        (("recipe", "config"), "__class__", "x", "no field '__class__'"),
        (("recipe", "training"), "hook", "x", "no field 'hook'"),
        (("spec",), "extra", 1, "no field 'extra'"),
        (("recipe",), "model", "os.system", "no model 'os.system'"),
        (("recipe",), "model", "vea", "Did you mean 'vae'"),
        (("recipe",), "model", ["vae"], "field 'model'"),
        (("recipe", "config"), "latent_dims", "3", "latent_dims"),
        (("recipe", "config"), "latent_dims", 3.5, "latent_dims"),
        (("recipe", "config"), "latent_dims", -3, "must be positive"),
        (("recipe", "config"), "beta", float("nan"), "not a finite number"),
        (("recipe", "config"), "latent_dims", 4, "does not fit the configuration"),
        (("recipe", "config"), "widths", [8, 8], "does not fit the configuration"),
        (("recipe", "config"), "widths", [10**15], "does not fit the configuration"),
        (("recipe", "config"), "latent_dims", 10**30, "latent_dims: a number beyond"),
        (("spec",), "height", 10**9, "height must be 1 to 32,768"),
        (("spec",), "height", -5, "height must be 1 to 32,768"),
        (("spec",), "medium", ["image"], "config.json"),
        (("spec",), "medium", "hologram", "medium"),
        ((), "schema_version", 999, "newer Castalia"),
        ((), "schema_version", "1", "not a Castalia run"),
        ((), "fingerprint", 5, "fingerprint"),
    ],
)
def test_a_hostile_configuration(exported, path, key, value, match):
    edit_config(exported, lambda data: nested(data, *path).update({key: value}))
    refused(exported, match)


def test_a_configuration_of_endless_layers_is_given_up(make_run, tmp_path):
    config = VAEConfig(network="conv", latent_dims=2, widths=(2,), hidden=4, blocks=0)
    folder = export_folder(make_run(config), tmp_path / "export")
    edit_config(folder, lambda data: data["recipe"]["config"].update(blocks=10**9))
    refused(folder, "many more")


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"schema_version": ' + "1" * 5000 + "}", '{"a": NaN}']
)
def test_a_configuration_that_is_no_object(exported, text):
    (exported / "config.json").write_text(text)
    rehash(exported)
    refused(exported, "config.json")


def test_a_configuration_of_many_megabytes(exported):
    (exported / "config.json").write_text(" " * (received.LIMITS["config.json"] + 1))
    rehash(exported)
    refused(exported, "never needs more")


ENDLESS = '{"metrics": {"a": {"value": 1%s, "unit": "", "kind": "", "n": 1, "seed": 0}}}' % ("0" * 400)


@pytest.mark.parametrize(
    "text", ["[]", '{"metrics": {"a": 5}}', '{"metrics": {"a": {}}}', '{"metrics": 7}', "{", ENDLESS]
)
def test_metrics_of_another_shape(exported, text):
    (exported / "metrics.json").write_text(text)
    rehash(exported)
    refused(exported, "metrics.json")


@pytest.mark.parametrize("claim", [2**63, 2**40, received.HEADER_LIMIT + 1, 100_000, 2**64 - 1])
def test_a_huge_safetensors_header(exported, claim):
    path = exported / "model.safetensors"
    path.write_bytes(struct.pack("<Q", claim) + path.read_bytes()[8:])
    rehash(exported)
    refused(exported, "its header claims")


@pytest.mark.parametrize("data", [b"", b"\x01", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"\x80\x04K\x01"])
def test_weights_that_are_no_safetensors(exported, data):
    (exported / "model.safetensors").write_bytes(data)
    rehash(exported)
    refused(exported, "damaged|not a valid safetensors")


def change_header(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    change(header)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])
    rehash(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda h: h.pop("base"), "no 'base'"),
        (lambda h: h.update(extra=h["base"]), "unexpected 'extra'"),
        (lambda h: h["base"].update(shape=[30]), "'base' is"),
        (lambda h: h["base"].update(shape=[10**18]), "'base' is"),
        (lambda h: h["base"].update(shape=7), "header cannot be read"),
        (lambda h: h["base"].update(dtype="F64"), "safetensors"),
        (lambda h: h["base"].update(data_offsets=[0, 2**62]), "safetensors"),
        (lambda h: h["__metadata__"].clear(), "^$"),
    ],
)
def test_a_changed_header(exported, tmp_path, change, match):
    change_header(exported, change)
    if match == "^$":  # a file without our digest is still held to SHA256SUMS
        assert import_folder(exported, tmp_path / "imported").recipe.model == "vae"
    else:
        refused(exported, match)


def test_bytes_after_the_tensors_are_refused(exported):
    with open(exported / "model.safetensors", "ab") as file:
        file.write(b"\0" * 64)
    rehash(exported)
    refused(exported, "where the configuration asks for")


def test_an_interrupted_import_leaves_nothing(exported, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("castalia.interop.folder.check_weights_header", fail)
    with pytest.raises(KeyboardInterrupt):
        import_folder(exported, exported.parent / "imported")
    assert {p.name for p in exported.parent.iterdir()} == {"run", "export"}


def test_reading_configuration_leaves_no_hook_behind(make_run):
    from torch.nn.modules import module

    before = dict(module._global_parameter_registration_hooks)
    run = make_run()
    received.check_weights_header(run.weights, run)
    with pytest.raises(RunError):
        received.check_weights_header(run.weights, replace(run, recipe=replace(run.recipe, model="vae", config=None)))
    assert dict(module._global_parameter_registration_hooks) == before
