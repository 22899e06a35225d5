"""Winograd's convolutions (``nn/winograd.py``) beside torch's: single layers, and evaluations of whole networks.

Both sides keep their memory, as the command line does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmarks.harness import Options, Row, Run, alternate
from benchmarks.sides import Side
from benchmarks.unet import CASES, Case, pair
from castalia.nn import winograd
from castalia.nn.unet import UNet

LAYERS = ((64, 32), (128, 32), (128, 16), (128, 8), (256, 16), (256, 8))
"""Channels in and out, side; of 16 pictures."""

REPEATS = 5
"""Calls of a layer in one timing."""


def layer(channels: int, side: int, ours: bool) -> Run:
    """Calls of one layer."""
    x = torch.randn(16, channels, side, side).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(memory_format=torch.channels_last)
    bias = torch.randn(channels)

    def run() -> None:
        with torch.no_grad():
            for _ in range(REPEATS):
                winograd.convolve(x, weight, bias) if ours else F.conv2d(x, weight, bias, padding=1)

    return run


def evaluation(case: Case, ours: bool) -> Run:
    """One evaluation in sampling, in a process of its own."""
    network = pair(case)[0].eval().get_submodule("network")
    assert isinstance(network, UNet)
    x = torch.randn(case.samples, case.channels, case.side, case.side).to(memory_format=torch.channels_last)
    if not ours:
        winograd.pays = lambda shape, outputs: False
    with torch.no_grad():
        embedding = network.embed(torch.tensor([5.0]))

    def run() -> None:
        with torch.no_grad():
            network.forward_embedded(x, embedding)

    return run


def rows(options: Options) -> Iterator[Row]:
    """Layers, then networks."""
    for channels, side in LAYERS[2:3] if options.quick else LAYERS:
        used = winograd.pays(torch.Size((16, channels, side, side)), channels)
        with (
            Side(layer, channels, side, True, threads=options.threads, keeps=True) as mine,
            Side(layer, channels, side, False, threads=options.threads, keeps=True) as plain,
        ):
            yield alternate(mine, plain, options.rounds).row(
                "convolutions",
                f"3x3, {channels} to {channels} channels, 16 of {side}x{side}, float32",
                "torch",
                per=REPEATS,
                note="" if used else "too little to be used",
            )
    wide, paper = CASES[1], CASES[-1]
    for case in () if options.quick else (wide, paper, replace(paper, samples=1)):
        with (
            Side(evaluation, case, True, threads=options.threads, keeps=True) as mine,
            Side(evaluation, case, False, threads=options.threads, keeps=True) as plain,
        ):
            yield alternate(mine, plain, options.rounds).row(
                "convolutions", f"{case.name}: an evaluation, samples: {case.samples}, float32", "torch's convolutions"
            )
