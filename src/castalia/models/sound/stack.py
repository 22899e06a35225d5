"""WaveNet's network: a stack of dilated causal convolutions with gates, residual and skip connections (figure 4).

:func:`pack` puts its weights together for :mod:`castalia.models.sound.queues`, which computes it sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.sound.queues import Packed
from castalia.models.sound.voice import Voice


class Layer(nn.Module):
    """A gated residual layer (figure 4, the dashed box)."""

    def __init__(self, channels: int, kernel: int, dilation: int, last: bool) -> None:
        super().__init__()
        self.past = dilation * (kernel - 1)
        self.dilated = nn.Conv1d(channels, 2 * channels, kernel, dilation=dilation)
        self.residual = None if last else nn.Conv1d(channels, channels, 1)  # nobody reads on after the last layer

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next layer's input and the gated values, each (B, R, T), from ``x`` and (B, 2R, 1 or T)."""
        pre = self.dilated(F.pad(x, (self.past, 0)))
        if condition is not None:
            pre = pre + condition.to(pre.dtype)
        f, g = pre.chunk(2, dim=1)
        z = torch.tanh(f) * torch.sigmoid(g)
        return x if self.residual is None else x + self.residual(z), z


class Network(nn.Module):
    """Outputs for every sample from all before it.

    Args:
        dilations: of the layers, in order.
        kernel: taps of a dilated convolution.
        channels: of the residual path.
        skip: channels of the skip connections and of the layer after them.
        maps: outputs per sample.
        codes: whether values are codes below ``maps``, else they are numbers.
        classes: number of labels; 0 for none.
        speakers: number of speakers; 0 for none.
        bands: of the frames of a local condition; 0 for none.
        hop: samples of a frame.
    """

    def __init__(
        self,
        dilations: Sequence[int],
        kernel: int,
        channels: int,
        skip: int,
        maps: int,
        codes: bool,
        classes: int,
        speakers: int = 0,
        bands: int = 0,
        hop: int = 1,
    ) -> None:
        super().__init__()
        self.hop = hop
        self.dilations, self.codes, self.channels = tuple(dilations), codes, channels
        r, count = channels, len(self.dilations)
        # the causal convolution in front of the layers has two taps; on one-hot codes it is two tables
        self.now, self.before = (nn.Embedding(maps, r) if self.codes else nn.Linear(1, r, False) for _ in range(2))
        self.layers = nn.ModuleList(Layer(r, kernel, d, i + 1 == count) for i, d in enumerate(self.dilations))
        self.label = nn.Embedding(classes, count * 2 * r) if classes else None
        self.speaker = nn.Embedding(speakers, count * 2 * r) if speakers else None
        self.frames = nn.Conv1d(bands, count * 2 * r, 3, padding=1) if bands else None
        self.skip = nn.Conv1d(count * r, skip, 1)
        self.hidden = nn.Conv1d(skip, skip, 1)
        self.out = nn.Conv1d(skip, maps, 1)
        with torch.no_grad():
            if self.codes:
                for table in (self.now, self.before):
                    table.weight.copy_(waves(maps, r, 3.0, 0.7))
                self.out.weight.copy_(waves(maps, skip, 8.0, 0.4 * skip**-0.5)[..., None])
            else:
                self.out.weight.mul_(0.1)
            for told in (self.label, self.speaker):
                if told is not None:
                    told.weight.zero_()

    def forward(
        self,
        values: Tensor,
        label: Tensor | None = None,
        speaker: Tensor | None = None,
        frames: Tensor | None = None,
    ) -> Tensor:
        """Outputs (B, maps, T + 1), the one at t for sample t given samples before it, from (B, T) and conditions.

        Args:
            values: codes ``int64`` or numbers, (B, T).
            label: ``int64`` (B,), or None.
            speaker: ``int64`` (B,), or None.
            frames: ``float32`` (B, bands, F), the first of which begins with the first sample; or None.
        """
        return self.told(values, Voice(label, speaker, frames))

    def told(self, values: Tensor, voice: Voice) -> Tensor:
        """The same for conditions together, and a stretch from inside a sound."""
        return self.outputs(self.states(values, voice)[1])

    def states(self, values: Tensor, voice: Voice) -> tuple[list[Tensor], list[Tensor]]:
        """Each layer's input and gated values, (B, R, T + 1)."""
        now, before = (f(values if self.codes else values[..., None]) for f in (self.now, self.before))  # (B, T, R)
        x = (F.pad(now, (0, 0, 1, 0)) + F.pad(before, (0, 0, 2, 0))[:, :-1]).transpose(1, 2)
        conditions, local = self.conditions(voice), self.local(voice)
        at = None if local is None else voice.frames_at(self.hop, x.shape[2])
        inputs, gated = [], []
        for i, layer in enumerate(self.layers):
            inputs.append(x)
            condition = None if conditions is None else conditions[:, i]
            if local is not None and at is not None:
                heard = local[:, i].index_select(2, at)
                condition = heard if condition is None else condition + heard
            x, z = layer(x, condition)
            gated.append(z)
        return inputs, gated

    def conditions(self, voice: Voice) -> Tensor | None:
        """What word and speaker add before the gates, (B, L, 2R, 1) (eq. 3); None for nothing."""
        found = [
            table(number)
            for table, number in ((self.label, voice.label), (self.speaker, voice.speaker))
            if table is not None and number is not None
        ]
        return torch.stack(found).sum(0).unflatten(1, (len(self.layers), -1, 1)) if found else None

    def local(self, voice: Voice) -> Tensor | None:
        """What each frame adds before the gates, (B, L, 2R, F); None for nothing."""
        if self.frames is None or voice.frames is None:
            return None
        return self.frames(voice.frames).unflatten(1, (len(self.layers), -1))

    def outputs(self, gated: list[Tensor]) -> Tensor:
        """From all layers' gated values to (B, maps, T)."""
        return self.out(F.relu(self.hidden(F.relu(self.skip(torch.cat(gated, dim=1))))))


def waves(codes: int, channels: int, fastest: float, height: float) -> Tensor:
    """Random cosines over the codes, ``float32`` (codes, channels), of up to ``fastest`` half periods."""
    speed, phase = fastest * torch.rand(channels), 2 * np.pi * torch.rand(channels)
    return height * torch.cos(np.pi * speed * torch.linspace(-1, 1, codes)[:, None] + phase)


def pack(network: Network) -> Packed:
    """Put a network's weights together as the steps of :class:`Queues` use them."""
    r, count = network.channels, len(network.dilations)
    half = np.concatenate([np.ones(r), np.full(r, 0.5)])  # sigmoid(g) = (1 + tanh(g / 2)) / 2

    def numbers(parameter: Tensor | None) -> np.ndarray:
        assert parameter is not None
        return parameter.detach().double().cpu().numpy()

    layers = [layer for layer in network.layers if isinstance(layer, Layer)]
    dilated = [numbers(layer.dilated.weight).transpose(2, 1, 0) * half for layer in layers]  # (kernel, R, 2R)
    offset, through, bias = np.zeros((count, r)), np.zeros((max(count - 1, 0), 3 * r, 3 * r)), np.zeros((count, 2 * r))
    for l, layer in enumerate(layers):
        bias[l] = numbers(layer.dilated.bias) * half + offset[l] @ dilated[l][-1]
        if layer.residual is not None:
            residual = numbers(layer.residual.weight)[:, :, 0].T
            offset[l + 1] = offset[l] + numbers(layer.residual.bias)
            following = np.concatenate([np.eye(r), residual / 2, residual / 2])  # of [x, tanh f, tanh f tanh(g/2)]
            through[l] = np.concatenate([following, following @ dilated[l + 1][-1]], axis=1)
    fronts = [numbers(front.weight) for front in (network.now, network.before)]
    fronts = fronts if network.codes else [front.T for front in fronts]
    if network.codes:  # the row of NOTHING, which stands before the first sample
        fronts = [np.concatenate([front, np.zeros((1, r))]) for front in fronts]
    now, before = (np.concatenate([front, front @ dilated[0][-1]], axis=1) for front in fronts)
    skip = numbers(network.skip.weight)[:, :, 0].T / 2  # of tanh f + tanh f tanh(g/2)
    hidden = numbers(network.hidden.weight)[:, :, 0].T
    head = [_with_bias(skip, network.skip.bias), _with_bias(hidden, network.hidden.bias)]
    out = _with_bias(numbers(network.out.weight)[:, :, 0].T, network.out.bias)[:, :-1]
    taps = np.stack([weights[-2::-1] for weights in dilated])
    single = [np.ascontiguousarray(a, np.float32) for a in (now, before, through, taps, offset, bias, *head, out)]
    now, before, through, taps, offset, bias, first, second, third = single
    return Packed(now, before, through, taps, offset, bias, (first, second, third), network.dilations)


def _with_bias(weight: np.ndarray, bias: Tensor | None) -> np.ndarray:
    """(in + 1, out + 1): the last input is 1 and carries the bias, and the last output is 1 again."""
    assert bias is not None
    whole = np.zeros((weight.shape[0] + 1, weight.shape[1] + 1))
    whole[:-1, :-1], whole[-1, :-1], whole[-1, -1] = weight, bias.detach().double().cpu().numpy(), 1
    return whole
