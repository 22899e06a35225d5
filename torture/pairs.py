"""Two processes that train one model under ``torchrun``: one of them is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from castalia.catalogue import CATALOGUE
from torture.kills import train
from torture.processes import PATIENCE, Fresh, await_moment, environment, finish, offspring
from torture.report import Options, Row
from torture.same import differences

BOUND = 60.0
"""Seconds after which ``torchrun`` must have ended. It gives the other process 30 to end by itself."""

KILLS = 5
"""Of each system, in the long form."""

CHAIN = 3
"""Kills of one training before it is left to reach its end."""

COMMAND = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "castalia"]


def run(options: Options) -> list[Row]:
    """Kill one of two processes of every system, each with the whole model and each with half of it."""
    names = options.systems or (("vae",) if options.short else tuple(CATALOGUE))
    commands = {name: train(name) for name in names}
    return [row(options, names, commands, shard=shard) for shard in (False, True)]


def row(options: Options, names: tuple[str, ...], commands: dict[str, list[str]], *, shard: bool = False) -> Row:
    """Kill one of two processes at a random moment, of start-up too; the launcher ends, and a resume gives the same.

    Args:
        options: how long.
        names: of the systems.
        commands: the training of each, without its folder.
        shard: whether each process holds a part of the model, and writes a part of each checkpoint.
    """
    kind = "sharded" if shard else "pair"
    commands = {name: [*command, *(["--shard"] if shard else [])] for name, command in commands.items()}
    failures: list[str] = []
    ends: list[float] = []
    ranks = [0, 0]
    runs = late = 0
    for name in names:
        dice = random.Random(f"{options.seed} {name} {kind}")
        straight = options.folder / f"{name}-{kind}" / "straight" / "run"
        started = time.monotonic()
        if (code := finish(launch(commands[name], straight, options.folder))) != 0:
            failures.append(f"{name}: uninterrupted, exit code {code}")
            continue
        life = time.monotonic() - started
        wanted, tries = (1 if options.short else KILLS), 0
        while wanted > 0 and tries < 4 * KILLS and not failures:
            run = straight.parent.with_name(f"chain-{runs}") / "run"
            for _ in range(min(CHAIN, wanted)):
                tries += 1
                found = kill_one(commands[name], run, options.folder, dice, life)
                if isinstance(found, str):
                    failures.append(f"{name}: {found}")
                elif found is None:
                    late += 1
                    break
                else:
                    ranks[found[0]] += 1
                    ends.append(found[1])
                    wanted -= 1
            if (code := finish(launch(commands[name], run, options.folder, "--resume"))) != 0:
                failures.append(f"{name}: the last resume ended with {code}")
            failures += [f"{name}, {kind}: {text}" for text in differences(straight, run)]
            runs += 1
        shutil.rmtree(options.folder / f"{name}-{kind}")
    note = (
        f"rank 0 killed {ranks[0]} times, rank 1 {ranks[1]} times; the launcher ended after at most "
        f"{max(ends, default=0):.1f} s, on average {sum(ends) / max(len(ends), 1):.1f} s; {late} came too late; "
        f"{runs} whole runs"
    )
    who = "two processes with half of the model each" if shard else "two processes"
    what = f"{who}, one killed ({', '.join(names)}): no hang, and the resumed run equals the uninterrupted one"
    return Row("pairs", what, len(ends), tuple(failures), note)


def launch(command: list[str], run: Path, folder: Path, *more: str) -> Fresh:
    """Start two processes."""
    return Fresh([*COMMAND, *command, "--out", str(run), *more], environment(folder), folder / "pair.txt")


def kill_one(
    command: list[str], run: Path, folder: Path, dice: random.Random, life: float
) -> tuple[int, float] | str | None:
    """Kill one of the two.

    Returns:
        Which, and how long the launcher took to end; None where the training was done before; else what is wrong.
    """
    process = launch(command, run, folder, "--resume")
    until = time.monotonic() + PATIENCE
    while len(offspring(process.pid)) < 2:
        if time.monotonic() > until or process.wait(0.02) is not None:
            finish(process, 0)
            return "the two processes did not start"
    workers = offspring(process.pid)
    rank = dice.randrange(2)
    if not await_moment(process, dice.uniform(0, 0.7 * life)):
        return None
    try:
        os.kill(offspring(process.pid)[rank], signal.SIGKILL)  # the list anew: an ended process has left it
    except (IndexError, ProcessLookupError):
        process.wait(PATIENCE)
        return None
    killed = time.monotonic()
    code = finish(process, BOUND)
    seconds = time.monotonic() - killed
    if code is None:
        return f"rank {rank} was killed and the launcher still ran after {BOUND:.0f} s"
    if code == 0:
        return f"rank {rank} was killed and the launcher ended with 0"
    if alive := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        return f"rank {rank} was killed, and the launcher left processes behind"
    return rank, seconds
