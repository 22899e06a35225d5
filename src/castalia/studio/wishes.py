"""What the page may ask for: the bodies of requests, with their types and bounds.

They are the studio's public interface (``/openapi.json``). Files are named by identifiers that the studio gave out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from castalia.studio.forms import MOST

Name = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=20_000)]
Seed = Annotated[int, Field(ge=0, lt=1 << 62)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
Value = Annotated[int, Field(ge=-(1 << 53), le=1 << 53)] | Number | bool | Text | None
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9]{4,40}$")]
FileId = Annotated[str, Field(pattern=r"^(upload|job)-[a-z0-9]{1,40}(-[0-9]{1,4})?$")]
Options = Annotated[dict[Name, Any], Field(max_length=60)]
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$")]


class Wish(BaseModel):
    """What all have in common: nothing that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True)


class File(Wish):
    """A file that was uploaded, or made here."""

    file: FileId


Given = Annotated[dict[Name, Value | File], Field(max_length=40)]


class Sample(Wish):
    """Draw examples."""

    do: Literal["sample"] = "sample"
    run: Identifier
    n: Annotated[int, Field(ge=1, le=MOST)] = 16
    seed: Seed = 0
    start: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    prior: Literal["trained", "fitted"] = "trained"
    given: Given = {}
    options: Annotated[dict[Name, Value], Field(max_length=60)] = {}


class Write(Wish):
    """Write a text; its pieces come as events."""

    do: Literal["text"] = "text"
    run: Identifier
    seed: Seed = 0
    given: Given = {}
    options: Annotated[dict[Name, Value], Field(max_length=60)] = {}


class Edit(Wish):
    """Do an edit, with its own options; examples and masks are identifiers of files."""

    do: Literal["edit"] = "edit"
    run: Identifier
    edit: Name
    options: Options = {}


class Place(Wish):
    """A place among latents: where it begins, and what it is moved by."""

    seed: Seed | None = 0
    of: FileId | None = None
    plane: Annotated[tuple[Number, Number], Field(strict=False)] | None = None
    moves: Annotated[dict[Name, Number], Field(max_length=64)] = {}


class Film(Wish):
    """A film that visits places."""

    do: Literal["film"] = "film"
    run: Identifier
    places: Annotated[list[Place], Field(min_length=2, max_length=24)]
    frames: Annotated[int, Field(ge=2, le=240)] = 48
    fps: Annotated[float, Field(gt=0, le=60, strict=False)] = 12
    loop: bool = True
    given: Given = {}


class Evaluate(Wish):
    """Measure a run on its held-out data."""

    do: Literal["evaluate"] = "evaluate"
    run: Identifier
    drawn: Annotated[int, Field(ge=0, le=50_000)] | None = None


class Compare(Wish):
    """Measure runs side by side."""

    do: Literal["compare"] = "compare"
    runs: Annotated[list[Identifier], Field(min_length=2, max_length=12)]
    drawn: Annotated[int, Field(ge=2, le=10_000)] = 500


Job = Annotated[Sample | Write | Edit | Film | Evaluate | Compare, Field(discriminator="do")]


class Decode(Wish):
    """The picture of a place, at once."""

    where: Place
    given: Given = {}


class Dream(Wish):
    """Begin a dream, or do something in one."""

    session: Identifier
    begin: bool = False
    seed: Seed = 0
    temperature: Annotated[float, Field(ge=0, le=3, strict=False)] = 1.0
    action: Annotated[list[Annotated[Number, Field(strict=False)]], Field(max_length=32)] | None = None


class Train(Wish):
    """Begin a training in a new folder."""

    name: Folder
    model: Name | None = None
    recipe: Name | None = None
    data: Annotated[str, Field(max_length=4096)] | None = None
    minutes: Annotated[float, Field(gt=0, le=10_000, strict=False)] | None = None
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    seed: Seed = 0
    settings: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=40)] = []


class Keep(Wish):
    """Keep files of a job on a board."""

    files: Annotated[list[FileId], Field(min_length=1, max_length=MOST)]
    note: Annotated[str, Field(max_length=2_000)] = ""


class Board(Wish):
    """A board by its name."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
