"""Lists of numbers on the command line, as people write them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from castalia.core.config import Config, override
from castalia.core.errors import UsageError


@dataclass(frozen=True)
class Some(Config):
    numbers: tuple[float, ...] = ()
    names: tuple[str, ...] = ("a",)
    pair: tuple[int, int] = (1, 2)
    size: int | tuple[int, int] | None = None
    text: str = ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("numbers=0.0001,0.001,.5", Some(numbers=(1e-4, 1e-3, 0.5))),
        ("numbers=[1, 2]", Some(numbers=(1.0, 2.0))),
        ("numbers=1e-4, 2", Some(numbers=(1e-4, 2.0))),
        ('names=["left", "a {}, seen"]', Some(names=("left", "a {}, seen"))),
        ("pair=(3, 4)", Some(pair=(3, 4))),
        ("size=8,12", Some(size=(8, 12))),
        ("size=8", Some(size=8)),
        ("text=a,b", Some(text="a,b")),
    ],
)
def test_lists_need_no_brackets(written: str, meant: Some) -> None:
    assert override(Some(), [written]) == meant


@pytest.mark.parametrize(
    "written",
    [
        "numbers=1,b",
        "numbers=",
        "numbers=(1,2",
        "pair=1",
        "pair=1,2,3",
        "pair=1.5,2",
        "pair=3,4,",
        "names=a,b",
        "numbers=1,,2",
    ],
)
def test_what_is_no_list_of_these_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match=written.partition("=")[0]):
        override(Some(), [written])
