"""One of two processes that begin and end a process group many times: ``python -m torture.rounds RANK ROUNDS PORT``.

Found by killing: a reducer that outlived its process group made one training in some dozens hang after its last step.
"""

from __future__ import annotations

import faulthandler
import os
import sys

import torch

from castalia.training import parallel

PATIENCE = 30.0
"""Seconds after which a round hangs."""


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
