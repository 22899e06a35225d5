"""Lists of settings on the command line, as people write them."""

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
    text: str = ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("numbers=0.0001,0.001,0.5", Some(numbers=(1e-4, 1e-3, 0.5))),
        ("numbers=[1, 2]", Some(numbers=(1.0, 2.0))),
        ("numbers=3", Some(numbers=(3.0,))),
        ("numbers=()", Some()),
        ("names=left,right", Some(names=("left", "right"))),
        ("names=left", Some(names=("left",))),
        ("pair=(3, 4)", Some(pair=(3, 4))),
        ("pair=3,4,", Some(pair=(3, 4))),
        ("text=a,b", Some(text="a,b")),
    ],
)
def test_lists_need_no_brackets(written: str, meant: Some) -> None:
    assert override(Some(), [written]) == meant


@pytest.mark.parametrize("written", ["numbers=1,b", "pair=1", "pair=1,2,3", "pair=a,b", "numbers=1,,2"])
def test_what_is_no_list_of_these_is_refused(written: str) -> None:
    with pytest.raises(UsageError):
        override(Some(), [written])
