"""SampleRNN: sound, one sample after another, by recurrent tiers that each see longer.

Paper
    Mehri, Kumar, Gulrajani, Kumar, Jain, Sotelo, Courville & Bengio 2017, "SampleRNN: An Unconditional End-to-End
    Neural Audio Generation Model" (arXiv:1612.07837): eq. 1 to 9, section 2.3 (truncated backpropagation), table 3.

Equations
    p(x) = prod_t p(x_t | x_1 ... x_{t-1}). The tier k sees frames f_t of FS_k samples:
    inp_t = W f_t + c_t,  h_t = GRU(h_t-1, inp_t),  c below = W_j h_t for each of r frames   (eq. 3 to 7)
    The lowest sees the last FS samples, embedded: a perceptron of three layers, a softmax over 256 values (eq. 8, 9).

What differs, and why
    Any number of tiers; the paper has two and three. Values are mu-law codes (or the paper's linear ones); the paper
    stretches every clip to its own extremes first, which shifts silence, and which is not done here.
    A training example is a crop of several stretches: the state is carried from one to the next and no gradient is, as
    in the paper; weights move once for the crop and not once for each stretch.
    Labels, where there are some, are added to what the highest tier hears. The paper has none.

Expected: see ``recipes/samplernn.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.capabilities import Density, Likelihood, Streaming
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.precision import precision_context
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.streams import WaveNetSampling
from castalia.models.sound.tiers import Network, State, Steps, whole
from castalia.nn import mulaw
from castalia.nn.labels import Labels
from castalia.nn.samples import MuLaw

CODES = 256
PIECE = 1024
"""Samples, about, per address of randomness, and per piece of a stream."""
AT_ONCE = 1 << 18
"""Samples times rows that are measured at once; bounds the memory."""
LOOKED_AT = 500
"""Clips looked at for the frequencies of values."""


@dataclass(frozen=True)
class SampleRNNConfig(Config):
    """Configuration of a SampleRNN.

    Attributes:
        frames: samples of a frame of each tier above the samples, the largest first; each a multiple of the next.
        dim: units of every layer.
        layers: GRUs of each tier.
        embedding: dimensions of a value, for the perceptron.
        levels: ``mulaw``, fine where it is quiet; or ``linear``, the paper's.
        truncation: samples through which gradients flow; whole frames of the highest tier.
        weight_norm: whether linear layers have weight normalisation (Salimans & Kingma 2016).
        conditional: whether labels are used, where the data have them.
    """

    frames: tuple[int, ...] = (16, 4)
    dim: int = 128
    layers: int = 1
    embedding: int = 64
    levels: Literal["mulaw", "linear"] = "mulaw"
    truncation: int = 512
    weight_norm: bool = True
    conditional: bool = True

    def __post_init__(self) -> None:
        if not self.frames or min(*self.frames, self.dim, self.layers, self.embedding) < 1 or self.frames[-1] < 2:
            raise ValueError("frames, dim, layers and embedding must be positive, the smallest frame at least 2")
        if any(a % b or a <= b for a, b in zip(self.frames, self.frames[1:], strict=False)):
            raise ValueError("frames fall, and each is a multiple of the next")
        if self.truncation < 1 or self.truncation % self.frames[0]:
            raise ValueError(f"truncation is a multiple of the largest frame, {self.frames[0]}")


@dataclass
class Stream:
    """Where sampling stands. Going on uses up the state.

    Attributes:
        steps: the network, step by step.
        past: all codes so far, behind a frame of silence, and room for the rest, ``int64`` (n, ...).
        label: (n,), or None.
        options: how to sample.
        rng: one stream per example.
        done: samples that are made, a prompt included.
        total: samples that shall be made, a prompt included.
        first: samples of the prompt that have not been given out.
    """

    steps: Steps
    past: np.ndarray
    label: Tensor | None
    options: WaveNetSampling
    rng: SampleRng
    done: int
    total: int
    first: int


class SampleRNN(Generator[SampleRNNConfig, AudioSpec], Density, Streaming):
    """p(x_t | everything before) by tiers of GRUs."""

    Config = SampleRNNConfig
    SampleOptions: ClassVar[type[Sampling]] = WaveNetSampling

    def __init__(self, config: SampleRNNConfig, spec: AudioSpec) -> None:
        super().__init__()
        if spec.channels != 1:
            raise UsageError("SampleRNN makes mono; set data.options.channels=1 to mix stereo down.")
        self.config, self.spec = config, spec
        c = config
        self.classes = len(spec.classes) if c.conditional else 0
        self.labels, self.values = Labels(self.classes), MuLaw()
        self.network = Network(
            c.frames, c.dim, c.layers, CODES, c.embedding, mulaw.SILENCE, self.classes, c.weight_norm
        )

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Set the last bias to how often values occur (in 500 clips at most); count the labels."""
        self.labels.fit(data)
        parts = []
        for ids in np.array_split(some_of(data, LOOKED_AT), 20):
            if len(ids):
                batch = data.batch(ids)
                parts.append(self.codes(batch.x)[there(batch)])
        self.network.out.bias.copy_(self.values.base(torch.cat(parts)))

    def codes(self, x: Tensor) -> Tensor:
        """Codes ``int64`` (B, T) of sound (B, 1, T)."""
        if self.config.levels == "mulaw":
            return mulaw.encode(x[:, 0])
        return ((x[:, 0].float().clamp(-1, 1) + 1) * (CODES / 2)).floor().long().clamp(0, CODES - 1)

    def sound(self, codes: Tensor) -> Tensor:
        """Sound ``float32`` (B, 1, T) of codes (B, T)."""
        if self.config.levels == "mulaw":
            return mulaw.decode(codes)[:, None]
        return ((codes.float() + 0.5) / (CODES / 2) - 1)[:, None]

    def _silence(self, n: int) -> Tensor:
        return torch.full((n, self.config.frames[0]), mulaw.SILENCE, device=self.device)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("samplernn", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per sample of the crops; padding is divided by as well, so that processes weigh all samples alike."""
        codes, mask = self.codes(batch.x), there(batch)
        nats = torch.zeros((), device=batch.x.device)
        label, state = self.labels.of(batch), self.network.begin(len(codes))
        before = self._silence(len(codes))
        for part, known in zip(*(x.split(self.config.truncation, 1) for x in (codes, mask)), strict=True):
            scores, state = self._scores(before, part, state, label)
            nats = nats + (scores * known).sum()
            state = tuple(s.detach() for s in state)
            before = part[:, -self.config.frames[0] :]
        bits = nats.detach() / mask.sum().clamp(min=1) / math.log(2)
        return nats / mask.numel(), {"bits_per_sample": bits}

    def _scores(self, before: Tensor, codes: Tensor, state: State, label: Tensor | None) -> tuple[Tensor, State]:
        """Nats (n, T) that each code costs, and the state; T need not be whole frames where nothing follows."""
        size = codes.shape[1]
        padded = F.pad(codes, (0, whole(size, self.config.frames[0]) - size), value=mulaw.SILENCE)
        logits, state = self.network(before, padded, state, label)
        return F.cross_entropy(logits[:, :size].float().mT, codes, reduction="none"), state

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        """A label where it is conditional; a prompt: the beginning of the sound."""
        return {**({"label": LabelSpec(self.spec.classes)} if self.classes else {}), "prompt": self.spec}

    def draw(self, n: int, given: Given, rng: SampleRng, options: WaveNetSampling, watch: Watch | None) -> Batch:
        """Sound of the length asked for, by :meth:`start` and :meth:`advance`."""
        state = self.start(n, given, rng, options)
        pieces, steps = [], -(-state.total // self.piece) + 1
        while True:
            try:
                piece, state = self.advance(state)
            except StopIteration:
                break
            pieces.append(piece)
            if watch is not None:
                so_far = list(pieces)
                watch(Preview(len(pieces), steps, lambda p=so_far, label=state.label: Batch.of(torch.cat(p, 2), label)))
        return Batch.of(torch.cat(pieces, 2), state.label)

    @property
    def piece(self) -> int:
        """Samples of a piece of a stream."""
        return whole(PIECE, self.config.frames[0])

    def cost(self, options: WaveNetSampling) -> int:
        return options.samples(self.spec) + 16 * self.config.dim * self.config.layers * len(self.config.frames)

    @torch.no_grad()
    def start(self, n: int, given: Given, rng: SampleRng, options: WaveNetSampling) -> Stream:
        """The state before the first sample, or after the prompt."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        label = None if label is None else label.to(self.device)
        prompt = given.get("prompt")
        known = self.codes(prompt).cpu().numpy() if prompt is not None else np.zeros((n, 0), np.int64)
        size, frame = known.shape[1], self.config.frames[0]
        total = size + options.samples(self.spec)
        past = np.full((n, frame + total), mulaw.SILENCE, np.int64)
        past[:, frame : frame + size] = known
        with precision_context("float32", self.device):
            steps = Steps(self.network, n, label)
            for t in range(0, size, self.config.frames[-1]):
                steps.hear(t, past[:, t : t + frame])
        return Stream(steps, past, label, options, rng, size, total, size)

    @torch.no_grad()
    def advance(self, state: Stream) -> tuple[Tensor, Stream]:
        """The prompt, then up to about a thousand samples: (n, 1, T).

        Raises:
            StopIteration: the sound has the length asked for.
        """
        frame = self.config.frames[0]
        if state.first:
            piece, state.first = state.past[:, frame : frame + state.first], 0
            return self.sound(torch.from_numpy(piece)).to(self.device), state
        if state.done >= state.total:
            raise StopIteration
        begin, number = state.done, state.done // self.piece
        end = min((number + 1) * self.piece, state.total)
        noise = self._noise(state.rng, number)
        with precision_context("float32", self.device):
            for t in range(begin, end):
                past = state.past[:, t : t + frame]
                if t % self.config.frames[-1] == 0:
                    state.steps.hear(t, past)
                logits = state.steps.look(t, past)
                drawn = self.values.draw(logits, noise[:, t % self.piece, None], state.options.temperature)
                state.past[:, frame + t] = drawn
        state.done = end
        piece = torch.from_numpy(state.past[:, frame + begin : frame + end])
        return self.sound(piece).to(self.device), state

    def _noise(self, rng: SampleRng, number: int) -> np.ndarray:
        return rng.at("piece", number).uniform("sample", self.piece).cpu().numpy()

    @torch.no_grad()
    def naive(self, n: int, given: Given, rng: SampleRng, options: WaveNetSampling) -> Batch:
        """The same by computing everything anew from the beginning for every sample."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        label = None if label is None else label.to(self.device)
        prompt = given.get("prompt")
        codes = self.codes(prompt) if prompt is not None else torch.zeros(n, 0, dtype=torch.int64, device=self.device)
        total = codes.shape[1] + options.samples(self.spec)
        while (t := codes.shape[1]) < total:
            padded = F.pad(codes, (0, whole(t + 1, self.config.frames[0]) - t), value=mulaw.SILENCE)
            with precision_context("float32", self.device):
                logits = self.network(self._silence(n), padded, self.network.begin(n), label)[0][:, t].cpu().numpy()
            noise = self._noise(rng, t // self.piece)[:, t % self.piece, None]
            drawn = torch.from_numpy(self.values.draw(logits, noise, options.temperature)).to(codes)
            codes = torch.cat([codes, drawn[:, None]], 1)
        return Batch.of(self.sound(codes), label)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Exact. A conditional model is given the labels; where there are none, it sums over all there could be."""
        codes, mask = self.codes(batch.x), there(batch)
        how = "mu-law, 256 codes" if self.config.levels == "mulaw" else "256 even steps"
        if not self.classes or batch.label is not None:
            return Likelihood(self._measured(codes, mask, self.labels.of(batch)), "exact", "chain rule", how)
        each = [self._measured(codes, mask, torch.full_like(batch.ids, label)) for label in range(self.classes)]
        weights = self.labels.shares.double().log()[:, None].to(codes.device)
        nats = torch.logsumexp(torch.stack(each) + weights, 0)
        return Likelihood(nats, "exact", "chain rule, summed over labels", how)

    def _measured(self, codes: Tensor, mask: Tensor, label: Tensor | None) -> Tensor:
        """Nats (B,) of clips from their beginnings, the state carried from stretch to stretch."""
        nats = torch.zeros(len(codes), dtype=torch.float64, device=codes.device)
        stretch = whole(4096, self.config.frames[0])
        for rows in torch.arange(len(codes)).split(max(1, AT_ONCE // stretch)):
            state, before = self.network.begin(len(rows)), self._silence(len(rows))
            known = None if label is None else label[rows]
            for part, counts in zip(codes[rows].split(stretch, 1), mask[rows].split(stretch, 1), strict=True):
                scores, state = self._scores(before, part, state, known)
                nats[rows] -= (scores.double() * counts).sum(1)
                before = part[:, -self.config.frames[0] :]
        return nats


def there(batch: Batch) -> Tensor:
    """Which samples of a batch (B, T) are no padding."""
    length = batch.extra.get("length", torch.full((len(batch),), batch.x.shape[-1], device=batch.x.device))
    return torch.arange(batch.x.shape[-1], device=batch.x.device) < length[:, None]
