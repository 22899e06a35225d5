"""PixelCNN beside what a tutorial does: masked square convolutions, and drawing with the whole network for each pixel.

* A training step, float32 as for the other loops: ours in its own loop, against a bare loop (index, loss, backward,
  fused AdamW) over the same network, and over the same layers as ``nn.Conv2d`` with a mask of zeros (the plain network
  of 10 blocks).
* A picture of 28x28, gated network: from what was kept of the rows above, against the whole network for every pixel,
  under the same noise; both give the same picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Options, Row, Run, alternate
from benchmarks.loops import pictures, quiet
from benchmarks.sides import HeldTraining, Side
from castalia import recipes
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.data import Batch, Order
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng, derive
from castalia.core.specs.image import ImageSpec
from castalia.media.image.array import ImageArray
from castalia.models.pixels.base import PixelSampling
from castalia.models.pixels.pixelcnn import PixelCNN, PixelCNNConfig


class Masked(nn.Conv2d):
    """A square convolution whose weights are multiplied by a mask: A or B."""

    def __init__(self, inputs: int, outputs: int, kernel: int, kind: str) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        mask = torch.ones(kernel, kernel)
        mask[kernel // 2, kernel // 2 + (kind == "B") :] = 0
        mask[kernel // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.get_buffer("mask"), self.bias, padding=self.padding)


class Tutorial(nn.Module):
    """The plain network as it is mostly written."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        h = config.maps
        self.first = Masked(1, 2 * h, config.first, "A")
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(2 * h, h, 1),
                nn.ReLU(),
                Masked(h, h, config.kernel, "B"),
                nn.ReLU(),
                nn.Conv2d(h, 2 * h, 1),
            )
            for _ in range(config.layers)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(2 * h, config.head, 1), nn.ReLU(), nn.Conv2d(config.head, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def bare(recipe: Recipe, data: ImageArray, steps: int, tutorial: bool) -> Run:
    """The loop that a person would write; a run is ``steps`` steps."""
    settings = recipe.training
    model = build(entry(recipe.model).load(), recipe.config, data.spec, 0).train()
    assert isinstance(model, PixelCNN)
    network = Tutorial(model.config) if tutorial else model
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, betas=(0.9, 0.99), fused=True)
    order, x, done = Order(len(data), settings.batch_size, 0), data.x, [0]

    def run() -> None:
        for step in range(done[0], done[0] + steps):
            ids = torch.from_numpy(order.ids(step))
            optimizer.zero_grad(set_to_none=True)
            if tutorial:
                grey = x[ids].float() / 255
                binary = torch.bernoulli(grey)
                loss = F.binary_cross_entropy_with_logits(network(2 * binary - 1), binary, reduction="sum") / len(ids)
            else:
                rng = BatchRng(derive(0, step), total=len(ids))
                loss, _ = model.loss(Batch(x[ids], ids), rng, Progress(step, 10**6))
            loss.backward()
            optimizer.step()
        done[0] += steps

    return run


class Drawing:
    """Pictures of an untrained gated network, by one way or the other."""

    def __init__(self, config: PixelCNNConfig, n: int, naive: bool) -> None:
        model = build(PixelCNN, config, ImageSpec(1, 28, 28)).eval()
        assert isinstance(model, PixelCNN)
        self.model, self.n, self.naive = model, n, naive

    def __call__(self) -> None:
        rng = SampleRng(0, range(self.n))
        if self.naive:
            self.model.naive(self.n, {}, rng, PixelSampling())
        else:
            self.model.sample(self.n, rng=rng)


def rows(options: Options) -> Iterator[Row]:
    """Steps as ratios of speeds, and drawing."""
    gated, plain = recipes.recipe("pixelcnn-mnist"), recipes.recipe("pixelcnn-mnist-plain")
    steps, size = (1, 8) if options.quick else (6, 32)
    plainly = {"optimizer": replace(gated.training.optimizer, name="adamw", betas=(0.9, 0.99)), "batch_size": size}
    for name, recipe, tutorial, target in (
        ("gated PixelCNN 32x8", gated, False, 0.97),
        ("plain PixelCNN 32x10", plain, False, 0.97),
        ("plain PixelCNN 32x10", plain, True, 1.0),
    ):
        ours, data = quiet(recipe, options.threads, **plainly), pictures(28, 1280)
        with (
            Side(HeldTraining, ours, data, steps, threads=options.threads, keeps=True) as left,
            Side(bare, ours, data, steps, tutorial, threads=options.threads, keeps=True) as right,
        ):
            timing = alternate(left, right, options.rounds)
        peer = "bare loop, masked square convolutions" if tutorial else "bare loop, the same network"
        work = f"step of {name}, 28x28, batch {size}, float32"
        yield timing.row("pixels", work, peer, target=target, per=steps)
    config = gated.config
    assert isinstance(config, PixelCNNConfig)
    config = replace(config, maps=8, layers=2, head=8) if options.quick else config
    with (
        Side(Drawing, config, 1, False, threads=options.threads, keeps=True) as left,
        Side(Drawing, config, 1, True, threads=options.threads, keeps=True) as right,
    ):
        timing = alternate(left, right, min(options.rounds, 3))
    yield timing.row("pixels", "a picture of 28x28, gated PixelCNN 32x8", "the whole network for each pixel", target=20)
