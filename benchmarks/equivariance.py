"""How well pictures of trained style-based generators move with their input: EQ-T of runs, side by side.

    python benchmarks/equivariance.py RUN [RUN ...] [-n 500] [--seed 0]

A StyleGAN3 is moved at its Fourier features. StyleGAN and StyleGAN2 begin with a constant: it is moved by interpolation
in the Fourier domain, round its edges, and noise is left out, which would stick to pixels by construction. That is the
most that can be done for them; Karras et al. 2021 (arXiv:2106.12423) gave theirs Fourier features first (configuration
B of table 1).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from castalia.core.capabilities import Styled
from castalia.core.rng import SampleRng
from castalia.estimators.equivariance import How, decibels, errors
from castalia.evaluation.equivariance import Movable
from castalia.models.adversarial.stylegan import StyleGAN
from castalia.models.adversarial.stylegan2 import StyleGAN2
from castalia.models.adversarial.styles import no_noise
from castalia.runs import open_run

ROWS = 8


def shifted(maps: Tensor, move: Tensor, side: int) -> Tensor:
    """Maps (C, h, w), moved for each of (B, 3, 3), round their edges: (B, C, h, w)."""
    h, w = maps.shape[1:]
    right, down = -move[:, 0, 2] * side, -move[:, 1, 2] * side  # in samples
    phase_x = torch.exp(-2j * math.pi * torch.fft.fftfreq(w)[None, :] * right[:, None])
    phase_y = torch.exp(-2j * math.pi * torch.fft.fftfreq(h)[None, :] * down[:, None])
    spectrum = torch.fft.fft2(maps)[None] * phase_y[:, None, :, None] * phase_x[:, None, None, :]
    return torch.fft.ifft2(spectrum).real


class Begins(torch.nn.Module):
    """Moves the constant of a generator while it makes pictures."""

    def __init__(self, model: StyleGAN | StyleGAN2) -> None:
        super().__init__()
        self.model = model
        synthesis = model.generator.synthesis
        self.holder = synthesis.levels[0] if isinstance(model, StyleGAN2) else synthesis.convs[0]  # type: ignore[index]

    def render_moved(self, styles: Tensor, move: Tensor) -> Tensor:
        """Pictures one by one, each with its own constant."""
        constant, out = self.holder.constant, []
        side = min(constant.shape[1:])
        noise = no_noise(self.model.generator.noise_sizes, styles.device)
        try:
            for style, one in zip(styles, shifted(constant.detach(), move, side), strict=True):
                self.holder.constant = torch.nn.Parameter(one)
                out.append(self.model.generator.synthesis(style[None], noise))
        finally:
            self.holder.constant = constant
        return torch.cat(out).float()


@torch.no_grad()
def measured(path: str, n: int, seed: int, hows: Sequence[How]) -> dict[str, float]:
    """Decibels by kind of move."""
    model, _ = open_run(Path(path)).model()
    model = model.eval()
    assert isinstance(model, Styled)
    made = model if isinstance(model, Movable) else Begins(model)  # type: ignore[arg-type]
    found: dict[str, list[Tensor]] = {how: [] for how in hows}
    for first in range(0, n, ROWS):
        rng = SampleRng(seed, range(first, min(n, first + ROWS)))
        styles = model.styles(rng.normal("latent", model.latent_dims))
        for how in hows:
            uniform = rng.at("move", how).uniform("far", 2)
            found[how].append(errors(lambda move: made.render_moved(styles, move), how, uniform))  # noqa: B023
    return {how: decibels(torch.cat(parts).mean().item()) for how, parts in found.items()}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for path in asked.runs:
        found = measured(path, asked.n, asked.seed, ("integer", "fractional"))
        print(path, *(f"{how} {value:.2f} dB" for how, value in found.items()), sep="  ")


if __name__ == "__main__":
    main()
