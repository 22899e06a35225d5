"""What makes lines verse: syllables, rhyme and metre of English words.

By spelling, where nothing else is known: a group of vowels is a syllable, a silent e is none, and words rhyme whose
letters agree from the last sounded vowel on. Nothing can be said of stress then. A pronouncing dictionary of a person's
own (the format of the CMU dictionary: a word, white space, its sounds, stressed vowels marked 1 or 2) knows better, and
metre as well.

A form says how many syllables each line has, which lines rhyme, and which syllables are stressed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from castalia.core.errors import DataError, UsageError
from castalia.core.files import read_bounded

WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*")
VOWELS = re.compile(r"[aeiouy]+")
LARGEST_DICTIONARY = 1 << 25
"""Bytes."""

FORMS = {
    "haiku": ("5,7,5", "", ""),
    "couplet": ("10,10", "AA", ""),
    "quatrain": ("8,6,8,6", "ABAB", ""),
    "limerick": ("8,8,5,5,8", "AABBA", ""),
    "sonnet": ("10,10,10,10,10,10,10,10,10,10,10,10,10,10", "ABABCDCDEFEFGG", ""),
    "blank": ("10,10,10,10", "", "01"),
}
"""Syllables of the lines, their rhymes, and the metre: what can be asked for by name."""


@dataclass(frozen=True)
class Sounds:
    """How a word sounds.

    Attributes:
        syllables: how many.
        stress: a 1 for each that is stressed, a 0 for each that is not; empty where that is not known.
        ending: what a word that rhymes ends in as well.
    """

    syllables: int
    stress: str
    ending: str


class Ear:
    """Hears words.

    Args:
        known: sounds of words in capital letters, as :func:`dictionary` reads them; other words go by spelling.
    """

    def __init__(self, known: Mapping[str, Sounds] | None = None) -> None:
        self.known = known or {}

    def hears(self, word: str) -> Sounds:
        """The sounds of a word."""
        return self.known.get(word.upper()) or spelled(word)

    def words(self, line: str) -> list[str]:
        """The words of a line."""
        return WORD.findall(line)

    def syllables(self, line: str) -> int:
        """How many syllables a line has."""
        return sum(self.hears(word).syllables for word in self.words(line))

    def stress(self, line: str) -> str:
        """Stresses of a line, ``?`` where nothing is known; a word of one syllable may be either."""
        found = []
        for word in self.words(line):
            heard = self.hears(word)
            found.append("?" * heard.syllables if heard.syllables == 1 or not heard.stress else heard.stress)
        return "".join(found)

    def rhymes(self, one: str, other: str) -> bool:
        """Whether two lines end alike, with different words."""
        ends = [self.words(line)[-1:] for line in (one, other)]
        if not all(ends):
            return False
        (a,), (b,) = ends
        return a.lower() != b.lower() and self.hears(a).ending == self.hears(b).ending


def spelled(word: str) -> Sounds:
    """The sounds of a word by its letters."""
    letters = (
        word.lower().replace("n't", "nt" if word.lower()[:-3][-1:] in tuple("aeiouyro") else "ent").replace("'", "")
    )
    letters = re.sub(r"(?<=[^aeiouy])e(?=(ly|ful|less|ment|thing|times?|where|fore)$)", "", letters)
    if len(letters) > 3 and re.search(r"[^aeiouyl]es$", letters) and not re.search(r"(s|x|z|ch|sh|c|g)es$", letters):
        letters = letters[:-2] + "s"
    if len(letters) > 3 and re.search(r"[^aeiouytd]ed$", letters) and not re.search(r"[^aeiouyl]led$", letters):
        letters = letters[:-2] + "d"
    little = re.search(r"([^aeiouyl])le([sd]?)$", letters)  # a syllable of its own: table, handled
    sounded = letters[: little.start() + 1] if little else letters
    if not little and len(letters) > 2:
        sounded = re.sub(r"(?<=[^aeiouy])e$|(?<=[aeiouy]l)e(?=[sd]$)", "", letters) or letters
    groups = list(VOWELS.finditer(sounded))
    split = len(
        re.findall(r"i[ao](?!u)|crea|[eu]a(?=[lnr])|eo(?!p)|[aeiou]e[tm]$|dea$", re.sub("tio|cia", "to", sounded))
    )
    split = (
        min(split, 1)
        + len(re.findall(r"[aeiouy](?=ing)", sounded))
        + bool(re.search(r"(thm|[^aeiouy]?sm)s?$", sounded))
    )
    count = max(1, len(groups) + split + bool(little))
    start = groups[-1].start() if groups else 0
    return Sounds(count, "", _alike(letters[start:]))


def _alike(ending: str) -> str:
    """An ending with letters that sound alike made the same."""
    ending = re.sub(r"^(ee|ea|ie|e)$", "ee", ending)
    return re.sub(r"^(y|ie|ye|igh|eye)$", "y", ending)


def dictionary(path: str | Path) -> dict[str, Sounds]:
    """Sounds of the words of a pronouncing dictionary, the first of each.

    Raises:
        DataError: the file cannot be read, or a line of it makes no sense; the text names the line.
    """
    found: dict[str, Sounds] = {}
    text = read_bounded(Path(path), LARGEST_DICTIONARY).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.split("#")[0].strip()
        if not entry or entry.startswith(";;;"):
            continue
        word, *sounds = entry.split()
        vowels = [i for i, sound in enumerate(sounds) if sound[-1].isdigit()]
        if not sounds:
            raise DataError(f"{path}, line {number}: a word and its sounds were expected, and there is {line[:40]!r}.")
        if word.endswith(")") or not vowels:  # another way to say it, or a letter's sound alone
            continue
        stressed = [i for i in vowels if sounds[i][-1] in "12"] or vowels
        ending = " ".join(re.sub(r"\d", "", sound) for sound in sounds[stressed[-1] :])
        stress = "".join("0" if sounds[i][-1] == "0" else "1" for i in vowels)
        found.setdefault(word.upper(), Sounds(len(vowels), stress, ending))
    if not found:
        raise DataError(f"{path} has no words with sounds in it.")
    return found


@dataclass(frozen=True)
class Form:
    """What lines have to be.

    Attributes:
        syllables: of each line.
        rhymes: a letter for each line, those with the same letter rhyme; ``-`` or nothing: with none.
        metre: stresses that are repeated along a line (``01``: iambic); empty: any.
    """

    syllables: tuple[int, ...]
    rhymes: str = ""
    metre: str = ""

    def __post_init__(self) -> None:
        if not self.syllables or any(not 1 <= n <= 40 for n in self.syllables):
            raise UsageError("A form has lines of 1 to 40 syllables each, for example 5,7,5.")
        if self.rhymes and len(self.rhymes) != len(self.syllables):
            raise UsageError(f"{len(self.syllables)} lines need as many letters of rhyme, not {self.rhymes!r}.")
        if self.rhymes and not all(c.isalpha() or c == "-" for c in self.rhymes):
            raise UsageError(f"Rhymes are letters, and - for a line without, as in AB-B; not {self.rhymes!r}.")
        if set(self.metre) - {"0", "1"}:
            raise UsageError("A metre is made of 0 (unstressed) and 1 (stressed), for example 01.")

    @staticmethod
    def of(name: str, rhymes: str | None = None, metre: str | None = None) -> Form:
        """A form by name, or by the syllables of its lines.

        Raises:
            UsageError: there is no such form.
        """
        lines, own_rhymes, own_metre = FORMS.get(name.lower(), (name, "", ""))
        rhymes = "" if rhymes == "-" else rhymes
        try:
            counts = tuple(int(part) for part in lines.split(","))
        except ValueError as error:
            raise UsageError(
                f"A form is {', '.join(FORMS)}, or syllables of lines as in 5,7,5; not {name!r}."
            ) from error
        return Form(counts, own_rhymes if rhymes is None else rhymes, own_metre if metre is None else metre)

    def partner(self, number: int) -> int | None:
        """The last line before ``number`` that it rhymes with."""
        letter = self.rhymes[number : number + 1]
        if not letter.isalpha():
            return None
        return next((i for i in reversed(range(number)) if self.rhymes[i] == letter), None)

    def faults(self, ear: Ear, lines: Sequence[str], number: int, line: str) -> tuple[int, int, int]:
        """What is wrong with a line behind others: syllables too many or few, rhymes missing, stresses misplaced."""
        partner = self.partner(number)
        unrhymed = partner is not None and not ear.rhymes(lines[partner], line)
        misplaced = 0
        if self.metre:
            pattern = self.metre * (self.syllables[number] // len(self.metre) + 1)
            misplaced = sum(a not in ("?", b) for a, b in zip(ear.stress(line), pattern, strict=False))
        return abs(ear.syllables(line) - self.syllables[number]), int(unrhymed), misplaced
