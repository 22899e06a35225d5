"""Trainings of every system that take a fraction of a second, and the command line in a child process."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from castalia import api, recipes
from castalia.catalogue import CATALOGUE
from castalia.configuration import Recipe
from castalia.core.data import Dataset
from castalia.training.loop import train
from torture.report import Options

TINY = {"ddpm": ("config.timesteps=20",)}
"""What is smaller still than in a system's tiny recipe."""

TRAINING = {
    "steps": 8,
    "batch_size": 8,
    "checkpoint_every": 4,
    "log_every": 3,
    "sample_every": 8,
    "samples": 2,
    "threads": 1,
    "precision": "float32",
    "seed": 3,
}


def settings(name: str, **training: object) -> list[str]:
    """What the recipe of a system is changed by, as texts ``path=value``."""
    return [*TINY.get(name, ()), *(f"training.{key}={value}" for key, value in (TRAINING | training).items())]


def recipe(name: str, **training: object) -> Recipe:
    """A short training of a small network on built-in data."""
    return api.make_recipe(recipe=recipes.of(name).tiny, settings=settings(name, **training))


def command(name: str, out: Path, **training: object) -> list[str]:
    """The command line of :func:`recipe`."""
    changes = [word for text in settings(name, **training) for word in ("--set", text)]
    return ["train", name, "--recipe", recipes.of(name).tiny, "--out", str(out), "--quiet", *changes]


def finished(name: str, out: Path, **training: object) -> tuple[Recipe, Dataset]:
    """Make a finished run; returns what it was made from."""
    made = recipe(name, **training)
    data = api.training_data(made)
    train(made, data, out, quiet=True)
    return made, data


def systems(options: Options) -> tuple[str, ...]:
    """The systems to torture: those asked for; else two of them in the short form, all in the long one."""
    return options.systems or (("vae", "gan") if options.short else tuple(CATALOGUE))


def in_child(action: Callable[[], int], log: Path, seconds: int = 120) -> tuple[int, str]:
    """Run an action in a forked child.

    Args:
        action: returns an exit code.
        log: where its output and its errors go; replaced.
        seconds: after which it is killed by an alarm.

    Returns:
        The exit code (128 + number for a signal), and what it printed.
    """
    import signal

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        code = 70
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(file, 1)
            os.dup2(file, 2)
            # under pytest these are no longer the descriptors
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            code = action()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code, log.read_text(errors="replace")


def command_line(
    arguments: Sequence[str], log: Path, before: Callable[[], None] | None = None, seconds: int = 120
) -> tuple[int, str]:
    """Run ``castalia ARGUMENTS`` in a forked child; ``before`` is called there first."""
    from castalia.cli.main import main

    def action() -> int:
        if before is not None:
            before()
        return main(list(arguments))

    return in_child(action, log, seconds)


def complaint(code: int, text: str, place: Path) -> str | None:
    """What is wrong with how a command failed, or None: exit code 1 and one paragraph that names the place."""
    lines = [line for line in text.splitlines() if line.strip()]
    if code != 1:
        return f"exit code {code}: {text[-300:]!r}"
    if "Traceback" in text or not lines or not lines[-1].startswith("castalia: ") or len(lines) > 3:
        return f"not one clear paragraph: {text[-400:]!r}"
    if str(place) not in lines[-1]:
        return f"does not name {place}: {lines[-1]!r}"
    return None
