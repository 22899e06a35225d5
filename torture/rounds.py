"""Two processes begin and end a process group many times; none may hang.

Found by killing: a reducer that outlived its process group made one training in some dozens hang after its last step.
Each of the two is ``python -m torture.rounds RANK ROUNDS PORT``.
"""

from __future__ import annotations

import faulthandler
import os
import random
import sys

import torch

from castalia.training import parallel
from torture.processes import Fresh, environment, finish
from torture.report import Options, Row

PATIENCE = 30.0
"""Seconds after which a round hangs."""

PORTS = range(20_000, 32_000)
"""One for each round, below those that the system gives to outgoing connections, which would be in the way at times."""


def run(options: Options) -> list[Row]:
    """Begin and end a group of two processes again and again."""
    count = 20 if options.short else 400
    port = random.Random(options.seed).randrange(PORTS.start, PORTS.stop - count)
    log = options.folder / "rounds.txt"
    command = ["-m", "torture.rounds"]
    two = [Fresh([*command, str(rank), str(count), str(port)], environment(options.folder), log) for rank in range(2)]
    codes = [finish(process, PATIENCE + count) for process in two]
    failures = () if codes == [0, 0] else (f"exit codes {codes}: {log.read_text()[-800:]}",)
    return [Row("rounds", "two processes begin and end a process group: none hangs", count, failures)]


def main(rank: int, rounds: int, port: int) -> None:
    """Wrap a network, average gradients, share values, end the group."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ["MASTER_ADDR"] = "localhost"
    for number in range(rounds):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        os.environ["MASTER_PORT"] = str(port + number)
        _round()
        faulthandler.cancel_dump_traceback_later()


def _round() -> None:
    with parallel.world(torch.device("cpu")) as world:
        net = torch.nn.Linear(4, 4)
        call = parallel.wrap(net, world)
        for _ in range(3):
            call(lambda x: net(x).sum(), torch.ones(2, 4)).backward()
            parallel.on_main(lambda: 3, world)
    # and here, where the frame ends, the wrapper


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
