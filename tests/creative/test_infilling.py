"""Lines that are taken out of texts: which, how they are asked for, and how many come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import castalia
from castalia import api, editing
from castalia.core.errors import UsageError
from castalia.core.specs.text import TextSpec
from castalia.creative.edit import Page
from castalia.creative.infilling import FORMS, Gap, gaps_of, prompt_of, together
from castalia.media.text.packed import pack
from castalia.models.sequence.gpt2 import GPT2

SPEC = TextSpec("bytes", 260, 64, middles=True)
TEXTS = ["".join(f"line {i} of {k}\n    more\n\n" for i in range(20)) for k in range(3)]


def test_lines_are_whole_and_belong_where_they_were() -> None:
    gaps = gaps_of(pack(TEXTS, SPEC, name="texts"), 30, 0)
    assert len({(gap.before, gap.line) for gap in gaps}) == 30
    for gap in gaps:
        assert gap.line == "    more" or gap.line.startswith("line ")
        assert any(gap.before + gap.line + gap.behind in text for text in TEXTS)
        assert gap.before.endswith("\n")
        assert gap.behind.startswith("\n")
    assert gaps == gaps_of(pack(TEXTS, SPEC, name="texts"), 30, 0)
    assert gaps != gaps_of(pack(TEXTS, SPEC, name="texts"), 30, 1)
    with pytest.raises(UsageError, match="hardly any lines"):
        gaps_of(pack(["no line ends here"], SPEC, name="texts"), 10, 0)


def test_how_a_line_is_asked_for() -> None:
    gap, (p, s, m) = Gap("ab\n", "cd", "\nef"), SPEC.marks
    ab, ef = list(b"ab\n"), list(b"\nef")
    prompts = [prompt_of(SPEC, gap, form, 8) for form in FORMS]
    assert [prompt.tolist() for prompt in prompts] == [[p, *ab, s, *ef, m], [p, s, *ef, m, *ab], ab]
    assert together(prompts).shape == (3, 9)
    long = Gap("x" * 100 + "\n", "cd", "\n" + "y" * 100)
    assert [len(prompt_of(SPEC, long, form, 8)) for form in FORMS] == [56, 56, 56]
    assert gap.right(" cd ")
    assert not gap.right("c d")


def test_what_comes_back_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows the line when it sees what stands behind it, and nothing else."""
    (tmp_path / "texts").mkdir()
    for k in range(12):
        (tmp_path / "texts" / f"{k}.txt").write_text("".join(f"number {i}\n" for i in range(40)))
    settings = ["data.options.middle=0.5", "config.layers=1", "config.heads=1", "config.dim=8"]
    run = castalia.train("gpt2", str(tmp_path / "texts"), tmp_path / "run", steps=1, quiet=True, settings=settings)

    def knows(self: GPT2, n: int, given: Any, **_: Any) -> Any:
        (_, s, m), rows = self.spec.marks, []
        for row in given["prompt"].tolist():
            row = [token for token in row if token >= 0]
            said = list(b"what?\n")
            if s in row:
                behind = bytes(t for t in row[row.index(s) + 1 : row.index(m)] if t < 256).decode()
                said = list(f"number {int(behind.split()[1]) - 1}\nand more".encode())
            rows.append(torch.tensor(row + said + [-1] * (400 - len(row) - len(said))))
        return castalia.core.data.Batch.of(torch.stack(rows))

    with monkeypatch.context() as patch:
        patch.setattr(GPT2, "sample", knows)
        product = editing.edit(api.load(tmp_path / "run"), "infill", n=15)
    assert isinstance(product, Page)
    assert product.numbers["n"] == 15
    assert product.numbers["prefix_first"]["exact"] == product.numbers["suffix_first"]["exact"] == 1
    assert product.numbers["left_to_right"]["exact"] == 0
    real = editing.edit(run, "infill", n=10, length=4)
    assert isinstance(real, Page)
    bits = [real.numbers[form.replace(" ", "_")]["bits_per_byte"] for form in FORMS]
    assert all(7 < b < 9 for b in bits)  # hardly trained: all 260 tokens are about as likely
    editing.write(real, run.spec, tmp_path / "lines.html")
    assert json.loads((tmp_path / "lines.json").read_text())["n"] == 10
    plain = castalia.train(
        "gpt2", str(tmp_path / "texts"), tmp_path / "plain", steps=1, quiet=True, settings=settings[1:]
    )
    with pytest.raises(UsageError, match="not learned"):
        editing.edit(plain, "infill")
