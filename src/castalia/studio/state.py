"""What all routes of the studio work with: the shelf, the queue, the foreman, the trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from castalia.core.locks import Lock
from castalia.studio import forms
from castalia.studio.foreman import Events, Foreman
from castalia.studio.jobs import Job, Jobs
from castalia.studio.shelf import Shelf
from castalia.studio.trainings import Trainings


class Studio:
    """What the routes work with.

    Args:
        runs: the folder of the runs.
        local: whether only this machine can reach the server.
    """

    def __init__(self, runs: Path, *, local: bool = True) -> None:
        self.shelf = Shelf(runs)
        self.lock = Lock(self.shelf.home).take()  # two studios would do each other's jobs
        self.events = Events()
        self.jobs = Jobs(self.shelf.home / "jobs.sqlite")
        self.foreman = Foreman(self.shelf, self.jobs, self.events)
        self.foreman.resolve = self.resolved
        self.trainings = Trainings(self.shelf, self.events, local=local)

    def resolved(self, job: Job) -> dict[str, Any]:
        """A job's wish with identifiers replaced by paths.

        Raises:
            KeyError: something is gone.
            UsageError: an option that cannot be given.
        """
        wish = job.wish
        if wish["do"] == "compare":
            return {**wish, "paths": [str(self.shelf.run(run)) for run in wish["runs"]]}
        found = {**wish, "path": str(self.shelf.run(wish["run"]))}
        if wish["do"] == "edit":
            found["paths"] = forms.checked(wish["edit"], wish["options"], lambda one: str(self.shelf.file(one)))
        found["shown"] = wish  # what recipes say: identifiers, and no paths of this machine
        if "given" in wish:
            found["given"] = self.given(wish["given"])
        if wish["do"] == "film":
            found["places"] = [self.place(place) for place in wish["places"]]
        return found

    def given(self, values: dict[str, Any]) -> dict[str, Any]:
        """What is asked for: files as paths, and texts that are no files."""
        return {
            name: f"@{self.shelf.file(value['file'])}"
            if isinstance(value, dict)
            else forms.plain(value)
            if isinstance(value, str)
            else value
            for name, value in values.items()
        }

    def place(self, place: dict[str, Any]) -> dict[str, Any]:
        """A place, with the path of the file that it begins with."""
        return {**place, "path": str(self.shelf.file(place["of"]))} if place["of"] else place
