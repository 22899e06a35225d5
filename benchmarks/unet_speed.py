"""Our U-Net beside diffusers' ``UNet2DModel``: the same weights, the same batch, in turn, in one process.

    python benchmarks/unet_speed.py [--size small|middle|cifar] [--rounds 9] [--threads 1] [--json FILE]

Four jobs: a training step's forward and backward pass in float32 and under bfloat16 autocast, and a sampler's
call in float32 and with bfloat16 weights. As a sampler would, ours takes the embedding of the time from a table
made before; diffusers computes it in every call, and has no other way.

diffusers runs twice, with its default memory layout and with channels-last (which ours has, as in Castalia's loop).
A round times the three in turn, by processor time; a ratio is theirs / ours within a round, and what is reported is
the median over rounds. The ratio to look at is the one against the faster of the two layouts.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from castalia.interop.diffusers_layout import to_theirs, to_unet2d
from castalia.nn.unet import UNet, UNetConfig, ddpm_cifar, small_28

SIZES: dict[str, tuple[UNetConfig, int, int, int]] = {
    "small": (small_28(), 1, 28, 32),
    "middle": (UNetConfig(channels=(64, 128, 128), attention=(1,), head_channels=64, eps=1e-5), 3, 32, 16),
    "cifar": (ddpm_cifar(), 3, 32, 8),
}
"""By name: configuration, channels, side, batch."""


def pair(config: UNetConfig, channels: int, side: int) -> tuple[UNet, UNet2DModel]:
    """Both networks with the same random weights."""
    torch.manual_seed(0)
    ours = UNet(config, channels, channels)
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    theirs = UNet2DModel(**asdict(to_unet2d(config, channels, channels, 0, (side, side))))
    theirs.load_state_dict(to_theirs(ours, ours.state_dict()))
    return ours, theirs


def training(call: Callable[[Tensor], Tensor], net: nn.Module, x: Tensor, bf16: bool) -> Callable[[], None]:
    """Forward and backward."""

    def run() -> None:
        net.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = call(x).float().square().mean()
        loss.backward()

    return run


def sampling(call: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """One call without gradients."""

    def run() -> None:
        with torch.inference_mode():
            call(x)

    return run


def jobs(name: str) -> Iterator[tuple[str, dict[str, Callable[[], None]]]]:
    """Each job, and what each side runs."""
    config, channels, side, batch = SIZES[name]
    x = torch.randn(batch, channels, side, side)
    t = torch.randint(1000, (batch,))
    for job in ("train float32", "train bfloat16 autocast", "sample float32", "sample bfloat16 weights"):
        bf16, train = "bfloat16" in job, job.startswith("train")
        sides: dict[str, Callable[[], None]] = {}
        for who in ("ours", "theirs", "theirs channels-last"):
            ours, theirs = pair(config, channels, side)
            net: nn.Module = (ours if who == "ours" else theirs).train(train)
            if who != "theirs":
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if bf16 and not train:
                net.to(torch.bfloat16)
            mine = x.to(memory_format=torch.channels_last) if who != "theirs" else x
            mine = mine.bfloat16() if bf16 and not train else mine
            if who != "ours":
                call = lambda x, net=theirs: net(x, t).sample  # noqa: E731
            elif train:
                call = lambda x, net=ours: net(x, t.float())  # noqa: E731
            else:
                with torch.inference_mode():
                    table = ours.embed(t[:1].float())
                call = lambda x, net=ours, table=table: net.forward_embedded(x, table)  # noqa: E731
            sides[who] = training(call, net, mine, bf16) if train else sampling(call, mine)
        yield job, sides


def seconds(run: Callable[[], None]) -> float:
    """Processor time of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    rows = []
    for job, sides in jobs(options.size):
        for run in sides.values():  # memory and oneDNN's caches
            run(), run()
        rounds = [{who: seconds(run) for who, run in sides.items()} for _ in range(options.rounds)]
        ms = {who: 1000 * statistics.median(r[who] for r in rounds) for who in sides}
        ratios = {who: statistics.median(r[who] / r["ours"] for r in rounds) for who in sides if who != "ours"}
        best = min(ratios.values())
        rows.append({"size": options.size, "job": job, "ms": ms, "ratios": ratios, "ratio": best})
        print(
            f"{options.size} {job:<24} ours {ms['ours']:8.1f} ms   theirs {ms['theirs']:8.1f} ms"
            f"   channels-last {ms['theirs channels-last']:8.1f} ms   ratio to the faster {best:.2f}",
            flush=True,
        )
    if options.json:
        about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        result = {**about, "threads": options.threads, "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
