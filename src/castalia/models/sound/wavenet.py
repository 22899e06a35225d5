"""WaveNet: sound, one sample after another.

Papers
    van den Oord et al. 2016, "WaveNet: A Generative Model for Raw Audio" (arXiv:1609.03499): eq. 1 (the chain rule),
    section 2.1 (dilated causal convolutions), 2.2 (mu-law and softmax), eq. 2 (the gate), 2.4 and figure 4 (residual
    and skip connections; ``stack.py``), eq. 3 (a label inside the gates).
    Paine et al. 2016, "Fast Wavenet Generation Algorithm" (arXiv:1611.09482): ``queues.py``.
    Mixture output: Salimans et al. 2017 (arXiv:1701.05517), as in Parallel WaveNet (arXiv:1711.10433).

Equations
    p(x) = prod_t p(x_t | x_1, ..., x_{t-1}), and in each layer
    z = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h),    x' = x + W_r z,    skip += W_s z,
    where * is a causal convolution with a dilation of 1, 2, 4, ..., and h is the label.

What differs, and why
    The 1x1 convolutions to the skip connections are one matrix over all layers, which is the same sum in fewer passes.
    Before the first sample the layers' inputs are zero, not the sound: there is no beginning to invent, and queues that
    begin empty give the same numbers.
    The last bias starts at the frequencies of values, so that training starts from the model of independent samples.
    The tables of the first convolution and the rows of the last start as random waves over the codes, so that
    neighbours among the 256 codes begin alike. From independent numbers their order has to be learnt first, which costs
    a short training a quarter of a bit (measured on the system's page).

Expected: see ``recipes/wavenet.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Likelihood, Streaming
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.precision import precision_context
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.queues import Queues
from castalia.models.sound.stack import Layer, Network, pack
from castalia.models.sound.streams import Stream, WaveNetSampling, steps
from castalia.models.sound.voice import SPEAKER, Voice
from castalia.nn.labels import Labels
from castalia.nn.mel import LogMel
from castalia.nn.samples import MuLaw, sample_distribution

PIECE = 1000
"""Samples per address of randomness, and per piece of a stream."""

NOTHING = 256
"""The code that stands before the first sample."""

AT_ONCE = 1 << 15
"""Samples that are measured at once; bounds the memory."""

LOOKED_AT = 500
"""Clips looked at, evenly spaced in the data, for the frequencies of values."""


@dataclass(frozen=True)
class WaveNetConfig(Config):
    """Configuration of a WaveNet.

    Attributes:
        blocks: how often the dilations 1, 2, 4, ... begin anew.
        layers: layers of a block.
        kernel: taps of a dilated convolution.
        channels: of the residual path; a gate has twice as many.
        skip: channels of the skip connections and of the layer after them.
        output: ``softmax`` over 256 mu-law codes, or ``mixture`` of logistics over 16-bit values.
        mixtures: logistics of the mixture.
        conditional: whether labels are used, where the data have them.
        voices: whether speakers are used, where the data have them (``data.options.speakers``).
        mel: bands of the frames of which it makes the sound, a vocoder; 0: it is none.
        hop: samples of a frame.
    """

    blocks: int = 1
    layers: int = 10
    kernel: int = 3
    channels: int = 32
    skip: int = 64
    output: Literal["softmax", "mixture"] = "softmax"
    mixtures: int = 10
    conditional: bool = True
    voices: bool = False
    mel: int = 0
    hop: int = 128

    def __post_init__(self) -> None:
        if min(self.blocks, self.layers, self.channels, self.skip, self.mixtures) < 1 or self.kernel < 2:
            raise ValueError("blocks, layers, channels, skip and mixtures must be positive, kernel at least 2")
        if self.mel < 0 or self.hop < 2:
            raise ValueError("mel must not be negative, and hop is at least 2")
        if self.layers > 16:
            raise ValueError("layers is at most 16: the last dilation is 2 ** (layers - 1); give more blocks")

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of all layers, in order."""
        return tuple(2**i for _ in range(self.blocks) for i in range(self.layers))

    @property
    def field(self) -> int:
        """How many samples before it a sample depends on."""
        return 2 + (self.kernel - 1) * sum(self.dilations)


class WaveNet(Generator[WaveNetConfig, AudioSpec], Density, Streaming, Exportable):
    """p(x_t | everything before) by a stack of dilated causal convolutions."""

    Config = WaveNetConfig
    SampleOptions: ClassVar[type[Sampling]] = WaveNetSampling
    shard_units = (Layer,)

    def __init__(self, config: WaveNetConfig, spec: AudioSpec) -> None:
        super().__init__()
        if spec.channels != 1:
            raise UsageError("WaveNet makes mono; set data.options.channels=1 to mix stereo down.")
        self.config, self.spec = config, spec
        self.classes = len(spec.classes) if config.conditional else 0
        self.labels = Labels(self.classes)
        told = dict(spec.columns).get(SPEAKER)
        self.speakers = len(told.classes) if config.voices and isinstance(told, LabelSpec) else 0
        self.mel = LogMel(spec.rate, config.mel, config.hop) if config.mel else None
        self.values = sample_distribution(config.output, config.mixtures)
        c, codes = config, isinstance(self.values, MuLaw)
        self.network = Network(
            c.dilations,
            c.kernel,
            c.channels,
            c.skip,
            self.values.maps,
            codes,
            self.classes,
            self.speakers,
            c.mel,
            c.hop,
        )

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Set the last bias to how often values occur (in 500 clips at most); count the labels."""
        self.labels.fit(data)
        parts = []
        for ids in np.array_split(some_of(data, LOOKED_AT), 20):
            if len(ids):
                batch = data.batch(ids)
                parts.append(self.values.values(batch.x[:, 0])[counted(batch, 0)])
        bias = self.network.out.bias
        assert bias is not None
        bias.copy_(self.values.base(torch.cat(parts)))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("wavenet", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per sample of the crops, over those that have all that they depend on (or half a crop) before them.

        What does not count is divided by as well, so that several processes, with unequal shares of it, weigh all
        samples alike; the log has the bits of a sample that counts.
        """
        values = self.values.values(batch.x[:, 0])
        voice = self._voice(batch, self.labels.of(batch))
        outputs = self.network(values[:, :-1], voice.label, voice.speaker, voice.frames)
        mask = counted(batch, self.config.field)
        nats = -self.values.log_prob(outputs.transpose(1, 2)[mask].T, values[mask]).sum()
        return nats / mask.numel(), {"bits_per_sample": nats.detach() / mask.sum().clamp(min=1) / math.log(2)}

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        """A label where it is conditional, a speaker where it knows some; a prompt: the beginning of the sound.

        ``mel``: of a vocoder, a sound whose mel frames are to be heard.
        """
        out: dict[str, Spec] = {"label": LabelSpec(self.spec.classes)} if self.classes else {}
        out |= {SPEAKER: dict(self.spec.columns)[SPEAKER]} if self.speakers else {}
        plain = replace(self.spec, columns=(), classes=())
        return {**out, "prompt": plain, **({"mel": plain} if self.mel is not None else {})}

    def draw(self, n: int, given: Given, rng: SampleRng, options: WaveNetSampling, watch: Watch | None) -> Batch:
        """Sound of the length asked for, by :meth:`start` and :meth:`advance`."""
        state = self.start(n, given, rng, options)
        total, pieces = state.total, []
        count = (state.first is not None) + -(-total // PIECE) - state.done // PIECE
        while state.done < total or state.first is not None:
            piece, state = self.advance(state)
            pieces.append(piece)
            if watch is not None:
                so_far = list(pieces)
                label = state.voice.label
                watch(Preview(len(pieces), count, lambda p=so_far, label=label: Batch.of(torch.cat(p, 2), label)))
        return Batch.of(torch.cat(pieces, dim=2), state.voice.label)

    def cost(self, options: WaveNetSampling) -> int:
        """Its samples, and a little of what is kept of it in the queues: many streams at once are far faster."""
        c = self.config
        kept = len(c.dilations) * c.channels * (max(c.dilations) * (c.kernel - 1) + 128)
        return options.samples(self.spec) + kept // 32

    @torch.no_grad()
    def start(self, n: int, given: Given, rng: SampleRng, options: WaveNetSampling) -> Stream:
        """Empty queues, or those after the prompt."""
        voice, prompt = self._asked(given, rng, n), given.get("prompt")
        length = 0 if prompt is None else prompt.shape[-1]
        total = self._total(given, options) - (0 if options.length is not None or voice.frames is None else length)
        queues = Queues(pack(self.network), n, self._condition(voice, n), self._local(voice), self.config.hop, length)
        nothing = np.full(n, NOTHING) if self.network.codes else np.zeros(n, np.float32)
        if prompt is None or not length:
            return Stream(queues, (nothing, nothing), voice, options, rng, 0, total, None)
        values = self.values.values(prompt[:, 0])
        # everything is kept that a later step can reach, and nothing before it is computed
        recent = values[:, -(self.config.field + queues.packed.ring) :]
        with precision_context("float32", self.device):  # that of the queues
            inputs, _ = self.network.states(recent, voice.at(length - recent.shape[1]))
        queues.fill(torch.stack([x[:, :, :-1].transpose(1, 2) for x in inputs], dim=1).float().cpu().numpy())
        last, older = values[:, -1].cpu().numpy(), values[:, -2].cpu().numpy() if length > 1 else nothing
        first = self.values.sound(values)[:, None]
        return Stream(queues, (last, older), voice, options, rng, length, length + max(total, 0), first)

    @torch.no_grad()
    def advance(self, state: Stream) -> tuple[Tensor, Stream]:
        """The prompt, then up to 1,000 samples: (n, 1, T).

        Raises:
            StopIteration: the sound has the length asked for.
        """
        if state.first is None and state.done >= state.total:
            raise StopIteration
        if state.first is not None:
            piece, state.first = state.first, None
            return piece, state
        count = min(PIECE - state.done % PIECE, state.total - state.done)
        first = state.done % PIECE
        noise = self._noise(state.rng, state.done // PIECE)[first : first + count]
        made = steps(state, self.values, noise)
        state.done += count
        return self.values.sound(torch.from_numpy(made)).to(self.device)[:, None], state

    @torch.no_grad()
    def naive(self, n: int, given: Given, rng: SampleRng, options: WaveNetSampling) -> Batch:
        """The same by computing the whole receptive field anew for every sample."""
        voice, total = self._asked(given, rng, n), self._total(given, options)
        empty = torch.zeros(n, 1, 0, device=self.device)
        values = self.values.values(given.get("prompt", empty)[:, 0])
        total += values.shape[1] if options.length is not None or voice.frames is None else 0
        while (done := values.shape[1]) < total:
            with precision_context("float32", self.device):
                recent = values[:, -self.config.field :]
                outputs = self.network.told(recent, voice.at(done - recent.shape[1]))[:, :, -1].cpu().numpy()
            noise = self._noise(rng, done // PIECE)[done % PIECE]
            drawn = torch.from_numpy(self.values.draw(outputs, noise, options.temperature)).to(values)
            values = torch.cat([values, drawn[:, None]], dim=1)
        return Batch.of(self.values.sound(values)[:, None], voice.label)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Exact. A conditional model is given the labels; where there are none, it sums over all there could be."""
        values, mask = self.values.values(batch.x[:, 0]), counted(batch, 0)
        if not self.classes or batch.label is not None:
            nats, detail = self._measured(values, mask, self._voice(batch, self.labels.of(batch))), "chain rule"
        else:
            words = [torch.full_like(batch.ids, label) for label in range(self.classes)]
            each = [self._measured(values, mask, self._voice(batch, word)) for word in words]
            weights = self.labels.shares.double().log()[:, None].to(values.device)
            nats, detail = torch.logsumexp(torch.stack(each) + weights, 0), "chain rule, summed over labels"
        detail += ", given the speaker" if self.speakers else ""
        detail += ", given its mel frames" if self.mel is not None else ""
        return Likelihood(nats, "exact", detail, self.values.preprocessing)

    def _measured(self, values: Tensor, mask: Tensor, voice: Voice) -> Tensor:
        """Nats (B,), in stretches, each with all the samples that it depends on before it."""
        nats = torch.zeros(len(values), dtype=torch.float64, device=values.device)
        field, longest = self.config.field, values.shape[1]
        step = min(max(AT_ONCE // 4, 4 * field), longest)  # so that little is computed twice
        rows = max(1, AT_ONCE // max(step, 1))
        for first in range(0, len(values), rows):
            mine = slice(first, first + rows)
            known = voice.rows(mine)
            for begin in range(0, int(mask[mine].sum(1).max()), step):
                end, context = min(begin + step, longest), min(begin, field)
                some = values[mine, begin - context : end - 1]
                outputs = self.network.told(some, known.at(begin - context))[:, :, context:]
                found = self.values.log_prob(outputs, values[mine, begin:end]).double()
                nats[mine] += torch.where(mask[mine, begin:end], found, 0).sum(1)
        return nats

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The network: values (codes, or samples of a mixture), labels, speakers, frames to outputs for each sample.

        Of a model with speakers or frames, but without labels, nothing: a program has no inputs that are left out.
        """
        x, zero = torch.zeros(2, 1, 64, device=self.device), torch.zeros(2, dtype=torch.int64, device=self.device)
        frames = torch.zeros(2, self.config.mel, -(-64 // self.config.hop), device=self.device)
        sides = [zero if self.classes else None, zero if self.speakers else None, frames if self.config.mel else None]
        while sides and sides[-1] is None:
            sides.pop()
        told = [side for side in sides if side is not None]
        return {"network": (self.network, (self.values.values(x[:, 0]), *told))} if len(told) == len(sides) else {}

    # inside

    def _voice(self, batch: Batch, label: Tensor | None) -> Voice:
        """What is told of examples.

        Raises:
            UsageError: nobody knows who speaks.
        """
        speaker = batch.extra.get(SPEAKER) if self.speakers else None
        if self.speakers and speaker is None:
            raise UsageError(
                "This model was trained with speakers, and these data have none: set data.options.speakers."
            )
        return Voice(label, speaker, self._heard(batch.x))

    def _heard(self, x: Tensor) -> Tensor | None:
        """Mel frames of sound (B, 1, T); None for no vocoder."""
        if self.mel is None:
            return None
        with torch.autocast(x.device.type, enabled=False):
            return self.mel(x.float()[:, 0])

    def _asked(self, given: Given, rng: SampleRng, n: int) -> Voice:
        """What a sampling is told; labels and speakers that are not given are drawn, frames are silent."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        speaker = given.get(SPEAKER, rng.integers(SPEAKER, self.speakers)) if self.speakers else None
        frames = self._heard(given["mel"].to(self.device)) if "mel" in given and given["mel"].shape[-1] else None
        if self.mel is not None and frames is None:
            frames = torch.full((n, self.config.mel, 1), -1.0, device=self.device)
        on = [None if side is None else side.to(self.device) for side in (label, speaker)]
        return Voice(on[0], on[1], frames)

    def _total(self, given: Given, options: WaveNetSampling) -> int:
        """Samples that shall be made; of a vocoder those of the sound that is given, a prompt included."""
        if options.length is None and "mel" in given and given["mel"].shape[-1]:
            return given["mel"].shape[-1]
        return options.samples(self.spec)

    def _noise(self, rng: SampleRng, piece: int) -> np.ndarray:
        """Uniform numbers (PIECE, n, draws) of a stretch of samples; the same however far it is used."""
        drawn = rng.at("piece", piece).uniform("sample", PIECE, self.values.draws)
        return drawn.transpose(0, 1).contiguous().cpu().numpy()

    def _condition(self, voice: Voice, n: int) -> np.ndarray:
        """What word and speaker add before the gates, ``float32`` (n, L, 2R), g halved."""
        found = self.network.conditions(voice)
        if found is None:
            return np.zeros((n, len(self.config.dilations), 2 * self.config.channels), np.float32)
        return self._halved(found.squeeze(3))

    def _local(self, voice: Voice) -> np.ndarray | None:
        """What each frame adds before the gates, ``float32`` (F, L, n, 2R), g halved; None for nothing."""
        found = self.network.local(voice)
        return None if found is None else self._halved(found.permute(3, 1, 0, 2))

    def _halved(self, found: Tensor) -> np.ndarray:
        condition = found.detach().float().cpu().numpy().copy()
        condition[..., self.config.channels :] *= 0.5
        return condition


def counted(batch: Batch, field: int) -> Tensor:
    """Which samples of a batch (B, T) count: no padding; in a crop from inside a clip, none without its past.

    Where the past would take more than half of a crop, half of it is enough.
    """
    length = batch.extra.get("length", torch.full((len(batch),), batch.x.shape[-1], device=batch.x.device))
    start = batch.extra.get("start", torch.zeros_like(length))
    t = torch.arange(batch.x.shape[-1], device=batch.x.device)
    needed = torch.where(start > 0, torch.clamp(length // 2, max=field), 0)
    return (t < length[:, None]) & (t >= needed[:, None])
