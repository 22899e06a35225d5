"""A process that has everything imported and forks one child after another, each of which runs a command line.

A forked child is a process like any other and dies like any other, but it is there in milliseconds. Told to, a child
sends itself a signal at its n-th file operation of a kind: moments that a clock would seldom meet.

Lines of JSON in, lines of JSON out; see :class:`torture.processes.Server`. Ends when its input ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from castalia.cli.main import main

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "shutil.copyfile")
"""Audit events of Python, each raised right before the operation."""


def kind_of(event: str, arguments: tuple[Any, ...], folder: str) -> str | None:
    """The kind of a file operation in the run ``folder``; None for one elsewhere.

    Returns:
        ``checkpoint`` inside a checkpoint's write, ``publish`` of the weights, ``removal`` of an old checkpoint,
        ``samples`` for a grid, ``results`` of an evaluation; ``start`` for everything else (configuration, plan,
        reading a checkpoint, the log, the card).
    """
    if event == "os.rmdir" or (event == "os.remove" and arguments[-1] != -1):
        return "removal"  # rmtree removes by name inside an open folder
    paths = [os.fsdecode(a) for a in arguments if isinstance(a, str | bytes | os.PathLike)]
    inside = [p.removeprefix(folder) for p in paths if p.startswith(folder)]
    if not inside:
        return None
    text = " ".join(inside)
    if event == "shutil.rmtree" or (event == "os.rename" and "/step-" in inside[0]):
        return "removal"  # an old checkpoint first loses its name
    for name, mark in (("checkpoint", "/checkpoints/.tmp-"), ("publish", "/.model.tmp-"), ("samples", "/samples")):
        if mark in text:
            return name
    return "results" if "results.json" in text else "start"


class Watch:
    """Counts the file operations of this process, and sends it a signal before a chosen one.

    A file that is opened for writing is opened before kill -9, so that an old one is empty by then.

    Args:
        folder: of the run.
        aim: kind (or ``any``), number (from 1) and signal; None only counts.
    """

    def __init__(self, folder: str, aim: tuple[str, int, int] | None) -> None:
        self.folder, self.aim = folder, aim
        self.seen: Counter[str] = Counter()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event not in EVENTS:
            return
        kind = kind_of(event, arguments, self.folder)
        if kind is None:
            return
        self.seen.update((kind, "any"))
        if self.aim is not None and self.aim[0] in (kind, "any") and self.seen[self.aim[0]] == self.aim[1]:
            number, self.aim = self.aim[2], None
            if event == "open" and number == signal.SIGKILL and arguments[2] & (os.O_WRONLY | os.O_RDWR):
                os.open(arguments[0], arguments[2], 0o666)  # the worst moment: the file is there, and empty
            os.kill(os.getpid(), number)


def preload() -> None:
    """Import what a training and an evaluation import, so that children need not; no thread may come of it."""
    import torch._dynamo  # torch's optimizers import it in their first step

    from castalia import api, recipes
    from castalia.catalogue import CATALOGUE
    from castalia.cli import verbs
    from castalia.evaluation import evaluate
    from castalia.training import loop

    assert all((torch._dynamo, verbs, evaluate, loop))
    for entry in CATALOGUE.values():
        entry.load()
        api.training_data(recipes.demo(entry.name))
    torch.set_num_threads(1)


def child(order: dict[str, Any]) -> NoReturn:
    """Run a command line as a process of its own would, and end."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        aim = order.get("aim")
        watch = Watch(order["folder"], tuple(aim) if aim else None)
        sys.addaudithook(watch)
        code = main(order["arguments"])
        if order.get("counts"):
            Path(order["counts"]).write_text(json.dumps(watch.seen))
    except KeyboardInterrupt:  # outside of main's care, the interpreter dies of the signal itself
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Fork a child for each line."""
    preload()
    print(json.dumps({"ready": len(os.listdir("/proc/self/task"))}), flush=True)
    zombie = 0
    for line in sys.stdin:
        if zombie:
            os.waitpid(zombie, 0)  # only now may its number be given to another process
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until the child takes care of it
        zombie = os.fork()
        if not zombie:
            child(json.loads(line))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        print(json.dumps({"pid": zombie}), flush=True)
        ended = os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        print(json.dumps({"code": code}), flush=True)


if __name__ == "__main__":
    serve()
