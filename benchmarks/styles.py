"""Steps of StyleGAN2 beside the package stylegan2-pytorch, and of BigGAN beside a bare loop over torch's own layers.

StyleGAN2: networks differ, so ours is given sizes with which a step has at least as many operations as theirs (the note
has both). A step is one update of the critic and one of the generator, 32 pixels, 16 pictures, without penalties and
augmentation on either side. The package asks for a GPU and for torchvision when it is imported, of which its networks
need neither; where it is not installed the row is left out:

    pip install --no-deps stylegan2_pytorch kornia kornia_rs einops

BigGAN: blocks, conditional normalisation, spectral norms (``torch.nn.utils.parametrizations``) and attention as public
code has them, at the sizes of ``biggan-emoji`` without labels; hinge losses, one update each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Options, Row, Run, alternate
from benchmarks.loops import pictures, quiet
from benchmarks.sides import HeldTraining, Side
from castalia import recipes
from castalia.catalogue import entry
from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.media.image.array import ImageArray

SIDE, BATCH = 32, 16


def _package() -> Any:
    """The networks of stylegan2-pytorch; None where it is not installed."""
    for name in ("fire", "torchvision", "vector_quantize_pytorch", "aim"):  # what its networks have no use for
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["torchvision"].transforms = ModuleType("transforms")  # type: ignore[attr-defined]
    sys.modules["vector_quantize_pytorch"].VectorQuantize = None  # type: ignore[attr-defined]
    there, torch.cuda.is_available = torch.cuda.is_available, lambda: True
    try:
        from stylegan2_pytorch import stylegan2_pytorch as package  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    finally:
        torch.cuda.is_available = there
    return package


def their_stylegan(data: ImageArray, steps: int) -> Run:
    """Updates of their critic and generator, hinge losses, Adam; a run is ``steps`` steps."""
    package = _package()
    generator, critic = package.Generator(SIDE, 512, network_capacity=16), package.Discriminator(SIDE)
    mapping = package.StyleVectorizer(512, 8)
    g = torch.optim.Adam([*generator.parameters(), *mapping.parameters()], 2e-4, betas=(0.5, 0.9), fused=True)
    d = torch.optim.Adam(critic.parameters(), 4e-4, betas=(0.5, 0.9), fused=True)
    x = data.x

    def made() -> Tensor:
        style = mapping(torch.randn(BATCH, 512))[:, None].expand(-1, generator.num_layers, -1)
        return generator(style, torch.rand(BATCH, SIDE, SIDE, 1))

    def run() -> None:
        for _ in range(steps):
            real = x[torch.randint(len(x), (BATCH,))].float().expand(-1, 3, -1, -1) / 255
            with torch.no_grad():
                fake = made()
            d.zero_grad(set_to_none=True)
            (F.relu(1 + critic(real)[0]) + F.relu(1 - critic(fake)[0])).mean().backward()
            d.step()
            g.zero_grad(set_to_none=True)
            critic(made())[0].mean().backward()
            g.step()

    return run


class _Norm(nn.Module):
    """Batch normalisation with gains and biases from a vector."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = (spectral_norm(nn.Linear(code, channels, bias=False)) for _ in range(2))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.norm(x) * (1 + self.gain(code))[:, :, None, None] + self.bias(code)[:, :, None, None]


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList((_Norm(inputs, code), _Norm(outputs, code)))
        self.first, self.second = (spectral_norm(nn.Conv2d(i, outputs, 3, padding=1)) for i in (inputs, outputs))
        self.skip = spectral_norm(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = self.first(F.interpolate(F.relu(self.norms[0](x, code)), scale_factor=2))
        return self.second(F.relu(self.norms[1](h, code))) + self.skip(F.interpolate(x, scale_factor=2))


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int, down: bool, first: bool) -> None:
        super().__init__()
        self.down, self.begins = down, first
        self.first, self.second = (spectral_norm(nn.Conv2d(i, outputs, 3, padding=1)) for i in (inputs, outputs))
        self.skip = spectral_norm(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(F.relu(self.first(x if self.begins else F.relu(x))))
        if not self.down:
            return h + self.skip(x)
        return F.avg_pool2d(h, 2) + (self.skip(F.avg_pool2d(x, 2)) if self.begins else F.avg_pool2d(self.skip(x), 2))


class _Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        sizes = ((c, c // 8), (c, c // 8), (c, c // 2), (c // 2, c))
        self.q, self.k, self.v, self.out = (spectral_norm(nn.Conv2d(i, o, 1, bias=False)) for i, o in sizes)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x).flatten(2), F.max_pool2d(self.k(x), 2).flatten(2), F.max_pool2d(self.v(x), 2).flatten(2)
        weights = torch.softmax(q.transpose(1, 2) @ k, -1)
        return self.gain * self.out((v @ weights.transpose(1, 2)).view(len(x), -1, *x.shape[2:])) + x


class _Generator(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...], latent: int, maps: int) -> None:
        super().__init__()
        sizes = [channels * w for w in widths]
        self.parts = latent // len(sizes)
        self.first = spectral_norm(nn.Linear(self.parts, 16 * sizes[0]))
        self.blocks = nn.ModuleList(_Up(i, o, self.parts) for i, o in pairwise(sizes))
        self.attention = _Attention(sizes[2])
        self.norm, self.out = nn.BatchNorm2d(sizes[-1]), spectral_norm(nn.Conv2d(sizes[-1], maps, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        first, *codes = z.split(self.parts, 1)
        h = self.first(first).view(len(z), -1, 4, 4)
        for number, (block, code) in enumerate(zip(self.blocks, codes, strict=True)):
            h = block(h, code)
            h = self.attention(h) if number == 1 else h
        return torch.tanh(self.out(F.relu(self.norm(h))))


class _Critic(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...], maps: int) -> None:
        super().__init__()
        sizes = [maps, *(channels * w for w in widths)]
        last = len(widths) - 1
        self.blocks = nn.ModuleList(_Down(sizes[i], sizes[i + 1], i < last, i == 0) for i in range(len(widths)))
        self.attention, self.out = _Attention(sizes[1]), spectral_norm(nn.Linear(sizes[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x)
            x = self.attention(x) if number == 0 else x
        return self.out(F.relu(x).sum((2, 3)))[:, 0]


def bare_biggan(data: ImageArray, steps: int, channels: int, widths: tuple[int, ...], latent: int) -> Run:
    """BigGAN's layers in the loop that a person would write; a run is ``steps`` steps."""
    generator, critic = _Generator(channels, widths, latent, 1), _Critic(channels, widths[::-1], 1)
    for network in (generator, critic):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    moves = [torch.optim.Adam(n.parameters(), 2e-4, betas=(0.0, 0.999), fused=True) for n in (generator, critic)]
    x = data.x

    def run() -> None:
        for _ in range(steps):
            real = x[torch.randint(len(x), (BATCH,))].float() / 127.5 - 1
            with torch.no_grad():
                fake = generator(torch.randn(BATCH, latent))
            moves[1].zero_grad(set_to_none=True)
            (F.relu(1 - critic(real)).mean() + F.relu(1 + critic(fake)).mean()).backward()
            moves[1].step()
            moves[0].zero_grad(set_to_none=True)
            critic.requires_grad_(False)
            (-critic(generator(torch.randn(BATCH, latent))).mean()).backward()
            critic.requires_grad_(True)
            moves[0].step()

    return run


def operations(*passes: Any) -> float:
    """Millions of operations of forward passes together."""
    with FlopCounterMode(display=False) as counter:
        for one in passes:
            one()
    return counter.get_total_flops() / 1e6


def rows(options: Options) -> Iterator[Row]:
    """Speed of ours as a multiple of the other side's."""
    data, steps = pictures(SIDE), 4
    work = "step of BigGAN, 32x32, batch 16, float32"
    if options.wants(work):
        base = recipes.recipe("biggan-emoji")
        config = replace(base.config, augment=(), orthogonal=0.0)
        recipe = quiet(replace(base, config=config), options.threads, batch_size=BATCH)
        sizes = (config.channels, config.widths, config.latent_dims)
        with (
            Side(HeldTraining, recipe, data, steps, threads=options.threads, keeps=True) as ours,
            Side(bare_biggan, data, steps, *sizes, threads=options.threads, keeps=True) as bare,
        ):
            yield alternate(ours, bare, options.rounds).row("styles", work, "torch's layers", target=1.0, per=steps)
    work, package = "step of StyleGAN2, 32x32, batch 16, float32", _package()
    if options.wants(work) and package is not None:
        base = recipes.recipe("stylegan2-emoji-32")
        config = replace(base.config, channels=4096, most=128, ada=(), r1=0.0, path=0.0)
        model = build(entry("stylegan2").load(), config, ImageSpec(3, SIDE, SIDE), seed=0)
        z, x = torch.randn(1, model.latent_dims), torch.randn(1, 3, SIDE, SIDE)
        own = operations(lambda: model.generator(z, None), lambda: model.critic(torch.cat([x] * 4), None))
        generator, critic = package.Generator(SIDE, 512, network_capacity=16), package.Discriminator(SIDE)
        style, noise = torch.randn(1, generator.num_layers, 512), torch.rand(1, SIDE, SIDE, 1)
        other = operations(lambda: generator(style, noise), lambda: critic(torch.cat([x] * 4)))
        recipe = quiet(replace(base, config=config), options.threads, batch_size=BATCH)
        with (
            Side(HeldTraining, recipe, data, steps, threads=options.threads, keeps=True) as ours,
            Side(their_stylegan, data, steps, threads=options.threads, keeps=True) as theirs,
        ):
            timing = alternate(ours, theirs, options.rounds)
        note = f"a picture made and four judged: {own:,.0f} million operations, theirs {other:,.0f}"
        yield timing.row("styles", work, "stylegan2-pytorch", target=1.0, per=steps, note=note)
