"""A story that branches, kept as a file that people can read: passages, each of which goes on from another.

    castalia story 1
    run: runs/plays
    weights: 0f3c...
    settings: ["temperature=0.8", "length=100"]
    here: 3

    [1] typed
    ROMEO:
    [2] from 1; seed 0; ["temperature=0.8", "length=100"]
    What light ...
    [3] from 1; seed 1; ["temperature=0.8", "length=100"]
    ...

A passage that was written follows from the weights, the text before it, its seed and its settings. Lines of a passage
that begin with a bracket or a backslash have a backslash before them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from castalia.core.errors import RunError, UsageError
from castalia.core.files import read_bounded, write_bytes

LARGEST = 1 << 26
"""Bytes of a file."""

FIRST = "castalia story 1"
HEADER = re.compile(r"\[(\d{1,9})\] (?:(?:from (\d{1,9}); )?(typed|cut|seed (\d{1,18}))(?:; (.*))?)$")


@dataclass(frozen=True)
class Passage:
    """A piece of the story.

    Attributes:
        before: number of the passage that it goes on from; None: it is a beginning.
        text: itself.
        seed: of what was written; None where it was typed, or cut from another.
        settings: sampling options that were given, ``name=value`` each.
        cut: it is the beginning of a passage that was cut.
    """

    before: int | None
    text: str
    seed: int | None = None
    settings: tuple[str, ...] = ()
    cut: bool = False


@dataclass
class Story:
    """All passages, and where one is.

    Attributes:
        run: the run that writes, as it was named.
        weights: digest of its weights.
        settings: sampling options that passages are written with, ``name=value`` each.
        passages: by their numbers, from 1.
        here: number of the passage at which the story stands; None: before any.
    """

    run: str = ""
    weights: str = ""
    settings: tuple[str, ...] = ()
    passages: dict[int, Passage] = field(default_factory=dict)
    here: int | None = None

    def path(self, number: int | None) -> list[int]:
        """Numbers of the passages from the beginning to this one."""
        found: list[int] = []
        while number is not None:
            found.append(number)
            number = self.passages[number].before
        return found[::-1]

    def text(self, number: int | None = None) -> str:
        """The story up to a passage; None: up to where it stands."""
        return "".join(self.passages[one].text for one in self.path(self.here if number is None else number))

    def branches(self, number: int | None) -> list[int]:
        """Numbers of the passages that go on from this one, or that begin."""
        return [one for one, passage in self.passages.items() if passage.before == number]

    def next_seed(self, before: int | None) -> int:
        """A seed that no branch from there has had."""
        return 1 + max((self.passages[one].seed or 0 for one in self._written(before)), default=-1)

    def _written(self, before: int | None) -> list[int]:
        return [one for one in self.branches(before) if self.passages[one].seed is not None]

    def add(self, passage: Passage) -> int:
        """Take a passage in, and stand behind it."""
        number = 1 + max(self.passages, default=0)
        self.passages[number] = passage
        self.here = number
        return number

    def go(self, number: int | None) -> None:
        """Stand somewhere else; nothing is lost.

        Raises:
            UsageError: there is no such passage.
        """
        if number is not None and number not in self.passages:
            raise UsageError(
                f"There is no passage {number}; the map has {', '.join(map(str, self.passages)) or 'none'}."
            )
        self.here = number

    def tree(self) -> str:
        """All passages, a line each, as they go on from one another."""
        lines: list[str] = []
        waiting = [(one, 0) for one in reversed(self.branches(None))]
        while waiting:
            number, depth = waiting.pop()
            passage = self.passages[number]
            kind = "cut" if passage.cut else "typed" if passage.seed is None else f"seed {passage.seed}"
            words = " ".join(passage.text.split())
            mark = "*" if number == self.here else " "
            lines.append(f"{mark} {'  ' * depth}[{number}] {kind}: {words[:60]}{'...' if len(words) > 60 else ''}")
            waiting += [(one, depth + 1) for one in reversed(self.branches(number))]
        return "\n".join(lines)

    # the file

    def written(self) -> str:
        """The file's text."""
        chosen = f"settings: {json.dumps(list(self.settings), ensure_ascii=False)}"
        lines = [FIRST, f"run: {self.run}", f"weights: {self.weights}", chosen, f"here: {self.here or 0}", ""]
        for number, passage in self.passages.items():
            how = "cut" if passage.cut else "typed" if passage.seed is None else f"seed {passage.seed}"
            start = "" if passage.before is None else f"from {passage.before}; "
            settings = f"; {json.dumps(list(passage.settings), ensure_ascii=False)}" if passage.settings else ""
            lines.append(f"[{number}] {start}{how}{settings}")
            lines += [f"\\{line}" if line[:1] in ("[", "\\") else line for line in passage.text.split("\n")]
        return "\n".join(lines) + "\n"

    def save(self, path: Path) -> None:
        """Write the file; an older one stands until the new one is whole."""
        write_bytes(path, self.written().encode("utf-8", "surrogatepass"))


def read(path: Path) -> Story:
    """The story in a file.

    Raises:
        RunError: it is none; the text names the line.
    """
    try:
        text = read_bounded(path, LARGEST).decode("utf-8", "surrogatepass").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is no story: byte {error.start:,} is no text.") from error
    lines = text.removesuffix("\n").split("\n")
    heads: dict[str, str] = {name: value for name, _, value in (line.partition(": ") for line in lines[1:5])}
    if lines[0] != FIRST or set(heads) != {"run", "weights", "settings", "here"}:
        raise RunError(f"{path} is no story: it should begin with {FIRST!r}, run, weights, settings, and where one is.")
    chosen = _settings(heads["settings"], path)
    story, texts, header = Story(heads["run"], heads["weights"], chosen), list[str](), None
    for number, line in enumerate([*lines[6:], "[0] typed"], 7):
        if not line.startswith("["):
            texts.append(line[1:] if line.startswith("\\") else line)
            continue
        if header is not None:
            _take(story, header, "\n".join(texts), path)
        header, texts = HEADER.match(line), []
        if header is None:
            raise RunError(f"{path}, line {number}: no passage begins like this: {line[:60]!r}.")
    try:
        story.go(int(heads["here"]) or None)
    except (ValueError, UsageError) as error:
        raise RunError(f"{path}, line 5: there is no passage {heads['here'][:20]!r}.") from error
    return story


def _take(story: Story, header: re.Match[str], text: str, path: Path) -> None:
    number, before, kind, seed, settings = header.groups()
    if int(number) in story.passages or (before is not None and int(before) not in story.passages) or number == "0":
        raise RunError(f"{path}: passage {number} comes twice, or goes on from one that is not before it.")
    story.passages[int(number)] = Passage(
        None if before is None else int(before),
        text,
        None if seed is None else int(seed),
        _settings(settings or "[]", path),
        kind == "cut",
    )


def _settings(text: str, path: Path) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: no settings are written like this: {text[:60]!r}.") from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RunError(f"{path}: settings are a list of texts, not {text[:60]!r}.")
    return tuple(found)
