"""A notebook for stories on the command line: write on, try again, take back, change, branch; kept after every word."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

import torch

from castalia import api
from castalia.core.capabilities import Streaming
from castalia.core.data import Batch
from castalia.core.errors import CastaliaError, RunError, UsageError
from castalia.core.files import sha256
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.core.sampling import Sampling
from castalia.core.specs.text import TextSpec
from castalia.creative.story import Passage, Story, read
from castalia.media.text.medium import TextMedium
from castalia.media.text.tokens import tokens_of

HALF = "\ufffd"
"""What a character of several bytes is while some of them are missing."""

HELP = """\
  (nothing)     write on            again         the same place, another seed
  say TEXT      write yourself      undo          back to the passage before (nothing is lost)
  edit [TEXT]   another text in place of this passage; without TEXT in $EDITOR
  cut N         a branch from this passage after its first N tokens
  to N          stand behind passage N; 0: before the beginning
  map           all passages        show          the story up to here
  set NAME=VALUE ...                as of castalia sample (temperature, length, top_p ...)
  quit
"""
LENGTH = 100
"""Tokens of a passage where nobody says how many."""


class Notebook:
    """A story, a model that writes it, and a file that it is kept in.

    Args:
        run: folder of the run.
        path: the file; it is made where there is none.
        settings: sampling options, ``name=value`` each; others are those that the story was last written with.
        precision: of the networks.
        out: where texts are shown.

    Raises:
        UsageError: the run writes no text piece by piece.
        RunError: the file is no story.
    """

    def __init__(
        self,
        run: str | Path,
        path: Path,
        settings: tuple[str, ...] = (),
        precision: Precision | Literal["auto"] = "auto",
        out: TextIO | None = None,
    ) -> None:
        opened = api.load(run)
        self.model, origin = api.generator(opened), opened.model()[1]
        if not isinstance(self.model, Streaming) or not isinstance(self.model.spec, TextSpec):
            raise UsageError(f"{run} writes no text: stories need a language model.")
        self.spec: TextSpec = self.model.spec
        self.precision: Precision = opened.precision(self.model.device, precision)
        self.tokens, self.path, self.out = tokens_of(self.spec), path, out or sys.stdout
        self.story = read(path) if path.exists() else Story()
        self.known = self._digest()
        if self.story.weights and self.story.weights != str(origin):
            self.say("The weights are not those that wrote this story: its seeds will give other texts from now on.")
        self.story.run, self.story.weights = str(run), str(origin)
        self.settings: tuple[str, ...] = ()
        try:
            self.set(self.story.settings)
        except UsageError as error:  # of another model
            self.say(f"The settings of the story were left out. {error}")
        self.set(settings)

    def say(self, text: str) -> None:
        """Show a line."""
        self.out.write(text + "\n")
        self.out.flush()

    def set(self, settings: tuple[str, ...]) -> None:
        """Take settings over, each in place of an earlier one of its name."""
        kept = {one.partition("=")[0].strip(): one for one in (*self.settings, *settings)}
        self._options(tuple(kept.values()))
        self.settings = self.story.settings = tuple(kept.values())

    def _options(self, settings: tuple[str, ...]) -> Sampling:
        named = any(one.partition("=")[0].strip() == "length" for one in settings)
        return api.sampling_options(self.model, settings if named else (*settings, f"length={LENGTH}"))

    # what can be done

    def go_on(self, before: int | None) -> int:
        """Write a passage behind another, and show it as it comes; the seed is one that was not had there."""
        seed, settings = self.story.next_seed(before), self.settings
        text, stopped = "", False
        try:
            for latest in continued(
                self.model, self.story.text(before) if before else "", seed, self._options(settings), self.precision
            ):
                ready = latest.rstrip(HALF)
                self.out.write(ready[len(text) :])
                self.out.flush()
                text = ready
        except KeyboardInterrupt:  # what is there stays, as the beginning of a passage
            stopped = True
        self.out.write("\n")
        if stopped and not text:
            raise UsageError("Stopped before anything was written.")
        return self.story.add(Passage(before, text, cut=True) if stopped else Passage(before, text, seed, settings))

    def again(self) -> int:
        """Write the passage anew from the same place.

        Raises:
            UsageError: nothing has been written here.
        """
        here = self.story.here
        if here is None or self.story.passages[here].seed is None:
            raise UsageError("Nothing was written here that could be tried again; an empty line writes on.")
        return self.go_on(self.story.passages[here].before)

    def cut(self, count: int) -> int:
        """Branch from the passage after its first ``count`` tokens."""
        passage = self._here()
        tokens = self.tokens.encode(passage.text)
        if not 0 < count < len(tokens):
            raise UsageError(f"The passage has {len(tokens)} tokens: cut after 1 to {len(tokens) - 1} of them.")
        text = self.tokens.decode(tokens[:count]).rstrip(HALF)
        return self.story.add(Passage(passage.before, text, cut=True))

    def change(self, text: str) -> int:
        """Another text in place of the passage, as a branch beside it."""
        self.tokens.encode(text)  # what the model has no tokens for is refused now
        return self.story.add(Passage(self._here().before, text))

    def undo(self) -> None:
        """Back to the passage before."""
        self.story.go(self._here().before)

    def _here(self) -> Passage:
        if self.story.here is None:
            raise UsageError("The story has not begun.")
        return self.story.passages[self.story.here]

    def do(self, line: str) -> bool:
        """Do what a line says and keep the story; whether to go on.

        Raises:
            UsageError: the line makes no sense.
        """
        word, _, rest = line.strip("\n").partition(" ")
        word = word.strip()
        if word in ("quit", "q", "exit"):
            return False
        if word == "":
            self.go_on(self.story.here)
        elif word == "again":
            self.again()
        elif word == "say":
            text = rest.replace("\\n", "\n")
            self.tokens.encode(text)  # what the model has no tokens for is refused now
            self.story.add(Passage(self.story.here, text))
        elif word == "undo":
            self.undo()
        elif word == "edit":
            self.change(rest.replace("\\n", "\n") if rest else _in_editor(self._here().text))
        elif word in ("cut", "to"):
            if not rest.strip().isdecimal() or len(rest.strip()) > 9:
                raise UsageError(f"{word} takes a number.")
            (self.cut if word == "cut" else lambda n: self.story.go(n or None))(int(rest))
        elif word == "set":
            self.set(tuple(_split(rest)))
        elif word in ("map", "show", "help"):
            self.say({"map": self.story.tree, "show": self.story.text, "help": lambda: HELP}[word]())
            return True
        else:
            raise UsageError(
                f"{word!r} is nothing that can be done here; help says what is. To write yourself: say TEXT"
            )
        self.keep()
        return True

    def keep(self) -> None:
        """Write the file.

        Raises:
            RunError: somebody else has written it meanwhile.
        """
        if self._digest() != self.known:
            raise RunError(
                f"{self.path} was changed by somebody else since this notebook was opened, and was left as it is. "
                "Leave with quit and open it again."
            )
        self.story.save(self.path)
        self.known = self._digest()

    def _digest(self) -> str:
        return sha256(self.path) if self.path.exists() else ""


@torch.no_grad()
def continued(model: object, text: str, seed: int, options: Sampling, precision: Precision) -> Iterator[str]:
    """What a model writes behind a text, after each of its pieces; of a long text it sees the end.

    Raises:
        UsageError: it has no tokens for something in the text.
    """
    assert isinstance(model, Streaming)
    spec = model.spec  # type: ignore[attr-defined]
    device = model.device  # type: ignore[attr-defined]
    before = torch.from_numpy(tokens_of(spec).encode(text))
    room = max(spec.length - getattr(options, "length", LENGTH), spec.length // 2, 1)
    given = {"prompt": before[None, -room:].to(device)} if len(before) else {}
    pieces: list[torch.Tensor] = []
    with precision_context(precision, device):
        state = model.start(1, given, SampleRng(seed, [0], device), options)
        waiting = len(given) > 0  # the prompt is handed out first
        while True:
            try:
                piece, state = model.advance(state)
            except StopIteration:
                return
            if waiting:
                waiting = False
                continue
            pieces.append(piece.reshape(1, -1))
            yield TextMedium().texts(Batch.of(torch.cat(pieces, 1)), spec)[0]


def _in_editor(text: str) -> str:
    """A text as it comes back from the person's editor."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise UsageError("There is no editor: set EDITOR, or say edit TEXT.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "passage.txt"
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*_split(editor), str(path)], check=True)
            changed = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError, subprocess.CalledProcessError) as error:
            raise UsageError(f"The editor {editor!r} could not be used: {error}") from error
        return changed if text.endswith("\n") else changed.removesuffix("\n")  # editors end a file with a line


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r} cannot be read: {error}.") from error


def story(options: Namespace) -> int:
    """Open the notebook, and do what is typed until the end."""
    notebook = Notebook(options.run, Path(options.file), tuple(options.settings or ()), options.precision)
    typed = sys.stdin.isatty()
    if typed:
        notebook.say(notebook.story.text() or "A new story. An empty line writes; help says what else can be done.")
    while True:
        if typed:
            sys.stdout.write("\n> ")
            sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return 0
        try:
            if not notebook.do(line):
                return 0
        except CastaliaError as error:
            if not typed:
                raise
            notebook.say(f"{error}")
