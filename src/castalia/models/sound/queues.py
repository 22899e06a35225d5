"""WaveNet sample by sample: what was computed is kept, and a step costs one pass through the layers.

A dilated layer needs its own input of ``dilation`` steps ago. Keeping these inputs, a queue of dilation * (kernel - 1)
for each layer, makes a step O(layers) where computing everything anew is O(receptive field) (Paine et al. 2016,
arXiv:1611.09482). What is left is dozens of products of small matrices, and the time goes to calling them. So:

* A layer's residual product and the next layer's newest tap are one matrix. With ``sigmoid(g) = (1 + tanh(g/2)) / 2``
  and ``z = tanh(f) sigmoid(g)``, row l of the state is ``v = [x, tanh f, tanh f tanh(g/2)]``, and ``v @ M`` is the next
  ``[x, f, g/2]`` but for what came before: four calls for a layer.
* A tap that reaches back r steps is computed for r steps at once (64 at most): their inputs are known.
* The first product is a table, looked up by code.

It is all NumPy, on the processor: its calls cost a third of torch's. Streams of a batch go side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AHEAD = 64
"""Steps for which a far tap is computed at once."""


@dataclass(frozen=True)
class Packed:
    """A network's weights as the steps use them, ``float32``; R channels, L layers, S skip channels, m maps.

    Attributes:
        now: newest input to the first row, (256 + 1, 3R) by code, or (1, 3R) to be multiplied by a value.
        before: the input before that one, likewise.
        through: (L - 1, 3R, 3R), from one row to the next.
        taps: (L, kernel - 1, R, 2R): of inputs 1, 2, ... dilations ago.
        offset: (L, R): what residual biases add up to in a layer's input; the rows are without it.
        bias: (L, 2R): what is added before the gate, without the label's part.
        head: three matrices (L R + 1, S + 1), (S + 1, S + 1), (S + 1, m); the added one carries the biases.
        dilations: of the layers.
    """

    now: np.ndarray
    before: np.ndarray
    through: np.ndarray
    taps: np.ndarray
    offset: np.ndarray
    bias: np.ndarray
    head: tuple[np.ndarray, np.ndarray, np.ndarray]
    dilations: tuple[int, ...]

    @property
    def ring(self) -> int:
        """Steps that are kept: what the farthest tap needs, in whole stretches."""
        return -(-max(self.dilations) * self.taps.shape[1] // AHEAD) * AHEAD + AHEAD


class Queues:
    """The state of ``n`` streams.

    Attributes:
        kept: ``float32`` (L, ring, n, R): each layer's inputs, by step modulo the ring.
        step: steps done.
        outputs: ``float32`` (n, maps), of the next sample, after :meth:`look`.
    """

    def __init__(
        self,
        packed: Packed,
        n: int,
        condition: np.ndarray,
        local: np.ndarray | None = None,
        hop: int = 1,
        begin: int = 0,
    ) -> None:
        """An empty state.

        Args:
            packed: the weights.
            n: streams.
            condition: ``float32`` (n, L, 2R), what words and speakers add before the gates (halved for g, as ``bias``).
            local: ``float32`` (F, L, n, 2R), what each frame adds, likewise.
            hop: samples of a frame.
            begin: position in the sound of the first step.
        """
        self.local, self.hop, self.begin = local, hop, begin
        self.packed, self.n, self.step = packed, n, 0
        layers, taps, r, two = packed.taps.shape
        self.kept = np.zeros((layers, packed.ring, n, r), np.float32)
        self.rows = np.zeros((layers, n, 3 * r), np.float32)
        self.ahead = np.zeros((layers, AHEAD, n, two), np.float32)
        self.gated = np.ones((n, layers * r + 1), np.float32)  # the last one stays 1: it carries a bias
        first, second, last = packed.head
        # compared with an array, because a plain 0 has to be converted every time
        self.hidden = [
            (np.zeros((n, m.shape[1]), np.float32), np.zeros(m.shape[1], np.float32)) for m in (first, second)
        ]
        self.outputs = np.zeros((n, last.shape[1]), np.float32)
        constant = packed.bias + condition  # (n, L, 2R)
        self._flat = self.kept.reshape(layers, packed.ring * n, r)
        self._rows = [(row, row[:, r:], row[:, r : 2 * r], row[:, 2 * r :]) for row in self.rows]
        self._f, self._fg = (self.rows[:, :, a : a + r].transpose(1, 0, 2) for a in (r, 2 * r))
        self._gated = self.gated[:, :-1].reshape(n, layers, r)
        self._x, self._offset = self.rows[:, :, :r], packed.offset[:, None]
        self._ahead = [[self.ahead[l, phase] for l in range(layers)] for phase in range(AHEAD)]
        self._due: list[list[tuple]] = [[] for _ in range(AHEAD)]
        for l, dilation in enumerate(packed.dilations):
            size = min(dilation, AHEAD)
            for phase in range(0, AHEAD, size):
                into = self.ahead[l, phase : phase + size].reshape(size * n, two)
                added = np.ascontiguousarray(constant[:, l])
                reaches = [(dilation * (j + 1), packed.taps[l, j]) for j in range(taps)]
                self._due[phase].append(
                    (self._flat[l], into, self.ahead[l, phase : phase + size], added, size * n, reaches, l)
                )
        steps = zip(packed.through, self._rows[:-1], self._rows[1:], strict=True)
        self._steps = [(v[0], m, o[0], *o[1:]) for m, v, o in steps]

    def fill(self, inputs: np.ndarray) -> None:
        """Take in a beginning that was computed at once: every layer's inputs, ``float32`` (n, L, T, R)."""
        last = inputs[:, :, -self.packed.ring :].transpose(1, 2, 0, 3)
        self.kept[:, self.packed.ring - last.shape[1] :] = last

    def look(self, now: np.ndarray, before: np.ndarray) -> np.ndarray:
        """One step: the outputs ``float32`` (n, maps) for the next sample, in memory that the next step uses again.

        Args:
            now: (n, 3R), the newest sample's part of the first row (see :attr:`Packed.now`).
            before: that of the sample before it.
        """
        n, ring, dot, add, tanh, multiply = self.n, self.packed.ring, np.dot, np.add, np.tanh, np.multiply
        phase = self.step % AHEAD
        for kept, into, block, constant, rows, taps, layer in self._due[phase]:
            start = (self.step - taps[0][0]) % ring * n
            dot(kept[start : start + rows], taps[0][1], into)
            for reach, tap in taps[1:]:
                start = (self.step - reach) % ring * n
                add(into, dot(kept[start : start + rows], tap), into)
            add(block, constant, block)
            if self.local is not None:
                place = np.arange(self.begin + self.step, self.begin + self.step + rows // n) // self.hop
                add(block, self.local[np.minimum(place, len(self.local) - 1), layer], block)
        ahead = self._ahead[phase]
        row, gate, f, g = self._rows[0]
        add(now, before, row)
        add(gate, ahead[0], gate)
        tanh(gate, gate)
        multiply(f, g, g)
        for (v, m, out, gate, f, g), past in zip(self._steps, ahead[1:], strict=True):
            dot(v, m, out)
            add(gate, past, gate)
            tanh(gate, gate)
            multiply(f, g, g)
        add(self._x, self._offset, self.kept[:, self.step % ring])
        add(self._f, self._fg, self._gated)
        first, second, last = self.packed.head
        (one, zero), (two, nil) = self.hidden
        np.maximum(dot(self.gated, first, one), zero, out=one)
        np.maximum(dot(one, second, two), nil, out=two)
        dot(two, last, self.outputs)
        self.step += 1
        return self.outputs
