"""The queue of jobs, in a file that outlives the server: first come, first served.

A job is ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``. One that was running when everything stopped is
queued again, once; what was running twice is told as failed, so that nothing that ends the worker is begun for ever.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from castalia.core.errors import CastaliaError, RunError

State = Literal["queued", "running", "done", "failed", "cancelled"]

LONGEST = 256
"""Jobs that may wait."""

EACH = 64
"""Jobs of one client that may wait."""

REMEMBERED = 1_000
"""Finished jobs that are remembered; the oldest are forgotten with their files, unless they are kept on a board."""

TRIES = 2
"""Times that a job is begun where the worker ends in the middle of it."""

TABLE = """
create table if not exists jobs (
  id integer primary key autoincrement, wish text not null, client text not null, state text not null,
  created real not null, started real, ended real, tries integer not null default 0,
  message text not null default '', files text not null default '[]', recipe text not null default '{}'
)
"""


class Full(CastaliaError):
    """The queue is full; the request may be made again later."""


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        id: its number; lower ones are done first.
        wish: what was asked for.
        client: who asked.
        state: how it stands.
        created: when, in seconds since 1970; likewise ``started`` and ``ended``.
        tries: how often it was begun.
        message: why it failed.
        files: names of what was made.
        recipe: everything needed to make it again.
    """

    id: int
    wish: dict[str, Any]
    client: str
    state: State
    created: float
    started: float | None
    ended: float | None
    tries: int
    message: str
    files: list[str]
    recipe: dict[str, Any]

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Jobs:
    """The queue.

    Args:
        path: the file.

    Raises:
        RunError: it is damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self.db.execute("pragma journal_mode=wal")
            self.db.execute(TABLE)
            self.db.execute("select id, recipe from jobs limit 1").fetchall()
        except sqlite3.Error as error:
            raise RunError(f"{path}: the queue cannot be opened ({error}). Move it away to begin a new one.") from error

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def add(self, wish: dict[str, Any], client: str) -> Job:
        """Queue a job.

        Raises:
            Full: too many are waiting.
        """
        (waiting,) = self.db.execute("select count(*) from jobs where state='queued'").fetchone()
        (mine,) = self.db.execute("select count(*) from jobs where state='queued' and client=?", (client,)).fetchone()
        if waiting >= LONGEST or mine >= EACH:
            many = f"{mine} of yours" if mine >= EACH else str(waiting)
            raise Full(f"{many} jobs are waiting already; try again when some are done, or cancel some.")
        found = self.db.execute(
            "insert into jobs (wish, client, state, created) values (?, ?, 'queued', ?)",
            (json.dumps(wish), client, time.time()),
        )
        return self.get(int(found.lastrowid or 0))

    def get(self, number: int) -> Job:
        """The job of that number.

        Raises:
            KeyError: there is none.
        """
        known = 0 < number < 1 << 53  # what the file can hold
        row = self.db.execute("select * from jobs where id=?", (number,)).fetchone() if known else None
        if row is None:
            raise KeyError(number)
        return _job(row)

    def list(self, most: int = 200) -> list[Job]:
        """The newest, the newest first."""
        return [_job(row) for row in self.db.execute("select * from jobs order by id desc limit ?", (most,))]

    def waiting(self) -> list[Job]:
        """Those that wait, in their order."""
        return [_job(row) for row in self.db.execute("select * from jobs where state='queued' order by id")]

    def begin(self) -> Job | None:
        """Take the first that waits."""
        row = self.db.execute("select id from jobs where state='queued' order by id limit 1").fetchone()
        if row is None:
            return None
        self.db.execute("update jobs set state='running', started=?, tries=tries+1 where id=?", (time.time(), row[0]))
        return self.get(row[0])

    def end(
        self, number: int, state: State, message: str = "", files: list[str] | None = None, recipe: Any = None
    ) -> Job:
        """Say how a job ended."""
        self.db.execute(
            "update jobs set state=?, message=?, ended=?, files=?, recipe=? where id=?",
            (state, message, time.time(), json.dumps(files or []), json.dumps(recipe or {}), number),
        )
        return self.get(number)

    def again(self, number: int) -> Job:
        """Queue a running job again, in its old place; or say that it failed, where that was tried."""
        if self.get(number).tries >= TRIES:
            return self.end(
                number,
                "failed",
                "The worker ended twice while it did this: most likely it needs too much memory.",
            )
        self.db.execute("update jobs set state='queued', started=null where id=?", (number,))
        return self.get(number)

    def put_back(self, number: int) -> None:
        """Queue a running job again because the server stops: nothing went wrong with it."""
        self.db.execute("update jobs set state='queued', started=null, tries=tries-1 where id=?", (number,))

    def recover(self) -> list[Job]:
        """Queue again what was running when the last server stopped."""
        return [self.again(row[0]) for row in self.db.execute("select id from jobs where state='running'").fetchall()]

    def forget(self, kept: set[int]) -> list[int]:
        """Forget the oldest finished jobs, but not those that are kept; return their numbers."""
        rows = self.db.execute(
            "select id from jobs where state in ('done', 'failed', 'cancelled') order by id desc limit -1 offset ?",
            (REMEMBERED,),
        ).fetchall()
        old = [row[0] for row in rows if row[0] not in kept]
        self.db.executemany("delete from jobs where id=?", [(number,) for number in old])
        return old


def _job(row: tuple[Any, ...]) -> Job:
    number, wish, client, state, created, started, ended, tries, message, files, recipe = row
    return Job(
        number, json.loads(wish), client, state, created, started, ended, tries, message, json.loads(files),
        json.loads(recipe),
    )  # fmt: skip
