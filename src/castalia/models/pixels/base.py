"""What every system of the family shares: the chain rule over pixels, drawing row by row, completion, likelihoods.

    p(x) = prod_i p(x_i | x_1, ..., x_{i-1}),    pixels row by row from the left, channels in their order.

A system derives from :class:`PixelModel` and brings a network (with a cache) and what a pixel can be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Likelihood, PictureProgram, Streaming
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.precision import precision_context
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.stacks import Cache, PixelNetwork
from castalia.models.pixels.taps import fit_gains
from castalia.models.pixels.values import (
    Binary,
    Softmax,
    Values,
    check_values,
    counts_of,
    evenly,
    few_values,
    values_of,
)
from castalia.nn.labels import Labels, classes_of

AT_ONCE = 1 << 24
"""Numbers of a layer that are measured at once; bounds the memory."""

FITTED = 128
"""Pictures on which normalised layers find their gains."""


PICTURE = """
x, y, (seen, values) = np.zeros((1, *{shape}), "f4"), np.zeros({shape}), numbers
for i in range({pixels} * {channels}):
    at = i % {channels}, i // {channels} // {width}, i // {channels} % {width}
    told = run("network", x{label})[0, :, at[1], at[2]].reshape({channels}, -1)[at[0]].astype(float)
    told = told if len(told) > 1 else np.array([0.0, told[0]])
    chance = np.exp(told - told.max())
    k = np.random.choice(len(chance), p=chance / chance.sum())
    x[0][at], y[at] = seen[k], values[k]
"""
"""One value after another, with NumPy alone."""


@dataclass(frozen=True)
class PixelConfig(Config):
    """What the configurations of all systems of the family have in common.

    Attributes:
        likelihood: ``softmax`` over the values of a channel, ``bernoulli`` (pictures are binarised), or ``logistic``: a
            mixture of discretised logistics for all channels of a pixel.
        binarise: Bernoulli: ``dynamic`` draws binary pixels anew each time, ``threshold`` cuts at one half.
        few: model only the values that the data hold where these are at most 64 (for ``logistic``: and evenly spaced).
        values: these values, least first; () finds them in the data, or takes all 256.
        mixtures: logistic: components.
        conditional: learn the labels of the data as well.
        label_drop: conditional: share of examples that are learned without their label, for guidance.
    """

    likelihood: Literal["softmax", "bernoulli", "logistic"] = "softmax"
    binarise: Literal["dynamic", "threshold"] = "dynamic"
    few: bool = True
    values: tuple[int, ...] = ()
    mixtures: int = 10
    conditional: bool = False
    label_drop: float = 0.1

    def __post_init__(self) -> None:
        check_values(self.values, even=self.likelihood == "logistic")
        if self.mixtures < 1 or not 0 <= self.label_drop < 1:
            raise ValueError("mixtures must be positive, label_drop a share below 1")


@dataclass(frozen=True)
class PixelSampling(Sampling):
    """How to sample.

    Attributes:
        rows: how much of a prompt is kept, from above: 14 are 14 rows, 14.5 half a row more; None is the upper half.
        guidance: softmax and Bernoulli, with a label: 1 asks for it plainly, more insists.
    """

    rows: float | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows is not None and not 0 <= self.rows < 1e6:
            raise ValueError("rows must be a number from 0 up")
        if not 0 <= self.guidance < 1e4:
            raise ValueError("guidance must be a number from 0 up")


@dataclass
class Stream:
    """Where sampling stands. Going on uses up the state.

    Attributes:
        cache: computes the network; None where everything is computed anew.
        noise: uniform numbers (H, W, n, draws).
        label: (n,), or None.
        known: codes of the prompt (n, C, H, W), or None.
        kept: how many pixels of it are kept, in the order in which they are made.
        options: how to sample.
        guided: whether the cache has rows without the label behind those with it.
        row: the next one.
        n: how many pictures.
    """

    cache: Cache
    noise: np.ndarray
    label: Tensor | None
    known: np.ndarray | None
    kept: int
    options: PixelSampling
    guided: bool
    row: int
    n: int


P = TypeVar("P", bound=PixelConfig)


class PixelModel(Generator[P, ImageSpec], Density, Streaming, Exportable):
    """A network over the pixels before, and all that can be asked of it.

    Args:
        config: of the system.
        spec: of the pictures.
        looks: how often a network is asked for a binary pixel; 0: once for each channel.
    """

    SampleOptions: ClassVar[type[Sampling]] = PixelSampling
    along: ClassVar[int] = 2
    network: PixelNetwork

    def __init__(self, config: P, spec: ImageSpec, looks: int = 0) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.labels = Labels(classes_of(spec, config.conditional), config.label_drop)
        c = config
        self.values: Values = values_of(c.likelihood, spec.channels, c.values, c.binarise, c.mixtures, looks)

    @property
    def classes(self) -> int:
        """Labels that the network tells apart: those of the data and the null class, or 0."""
        return self.labels.classes + 1 if self.labels.classes else 0

    @classmethod
    def complete(cls, config: P, data: Dataset) -> P:
        """Find the values of the pixels."""
        if config.likelihood == "bernoulli" or config.values or not config.few:
            return config
        found = few_values(data)
        return (
            config if config.likelihood == "logistic" and not evenly(found or (0,)) else replace(config, values=found)
        )

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find the gains of normalised layers; set the last bias to how often values occur; count the labels."""
        self.labels.fit(data)
        x = data.batch(some_of(data, FITTED)).x.to(self.device)
        fit_gains(self.network, self.values.features(self.values.codes(x, None)))
        last = self.network.last()
        assert last.bias is not None
        last.bias.copy_(self.values.base(counts_of(data)))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("pixels", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per picture, averaged over the batch."""
        codes = self.values.codes(batch.x, rng)
        nats = -self.values.log_prob(
            self.network(self.values.features(codes), self.labels.for_training(batch, rng)), codes
        )
        loss = nats.mean()
        return loss, {"bits_per_dim": loss.detach() / (self.spec.dims * math.log(2))}

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        """A label where it is conditional; a prompt: a picture of which the upper part is kept."""
        return {**({"label": LabelSpec(self.spec.classes)} if self.classes else {}), "prompt": self.spec}

    def draw(self, n: int, given: Given, rng: SampleRng, options: PixelSampling, watch: Watch | None) -> Batch:
        """Pictures row by row, by :meth:`start` and :meth:`advance`."""
        state, rows = self.start(n, given, rng, options), []
        height, width = self.spec.height, self.spec.width
        for done in range(1, height + 1):
            row, state = self.advance(state)
            rows.append(row)
            if watch is not None:
                empty = row.new_zeros(n, self.spec.channels, height - done, width)
                so_far = [*rows, empty]
                watch(Preview(done, height, lambda p=so_far, label=state.label: Batch.of(torch.cat(p, 2), label)))
        return Batch.of(torch.cat(rows, dim=2), state.label)

    @torch.no_grad()
    def start(self, n: int, given: Given, rng: SampleRng, options: PixelSampling) -> Stream:
        """An empty picture; the upper part of a prompt is taken in as its rows are asked for."""
        label, guided = self._label(given, rng, options)
        known, kept = self._prompt(given, options)
        seen = label if not guided or label is None else torch.cat([label, self._null(n)])
        cache = self.network.cache(2 * n if guided else n, self.spec.width, seen)
        return Stream(cache, self._noise(rng), label, known, kept, options, guided, 0, n)

    @torch.no_grad()
    def advance(self, state: Stream) -> tuple[Tensor, Stream]:
        """The next row of each picture, (n, C, 1, W).

        Raises:
            StopIteration: the pictures are whole.
        """
        if state.row >= self.spec.height:
            raise StopIteration
        n, width, looks, values = state.n, self.spec.width, self.values.looks, self.values
        each, draws = self.spec.channels // looks, values.draws // looks
        codes = np.zeros((n, self.spec.channels, width), np.int64)
        table = self._table()
        state.cache.next_row()
        for column in range(width):
            number = state.row * width + column
            for group in range(looks):
                mine = slice(group * each, (group + 1) * each)
                outputs = state.cache.look(column, group)
                if number < state.kept:
                    assert state.known is not None
                    made = state.known[:, mine, state.row, column]
                else:
                    if state.guided:
                        outputs = outputs[n:] + np.float32(state.options.guidance) * (outputs[:n] - outputs[n:])
                    uniform = state.noise[state.row, column, :, group * draws : (group + 1) * draws]
                    made = values.draw(outputs, uniform, state.options.temperature)
                codes[:, mine, column] = made
                seen = table[made]
                state.cache.x[:n, column, mine] = seen
                if state.guided:
                    state.cache.x[n:, column, mine] = seen
        state.row += 1
        return values.pixels(torch.from_numpy(codes).to(self.device))[:, :, None], state

    @torch.no_grad()
    def naive(self, n: int, given: Given, rng: SampleRng, options: PixelSampling) -> Batch:
        """The same by computing the whole network anew for every value."""
        label, guided = self._label(given, rng, options)
        known, kept = self._prompt(given, options)
        noise, values, looks = self._noise(rng), self.values, self.values.looks
        channels, height, width = self.spec.shape
        each, draws = channels // looks, values.draws // looks
        codes = torch.zeros(n, channels, height, width, dtype=torch.int64, device=self.device)
        for number in range(height * width):
            row, column = divmod(number, width)
            for group in range(looks):
                mine = slice(group * each, (group + 1) * each)
                if number < kept:
                    assert known is not None
                    codes[:, mine, row, column] = torch.from_numpy(known[:, mine, row, column]).to(codes)
                    continue
                with precision_context("float32", self.device):
                    x = values.features(codes)
                    outputs = self.network(x, label)[:, :, row, column].chunk(looks, 1)[group]
                    if guided:
                        plain = self.network(x, self._null(n))[:, :, row, column].chunk(looks, 1)[group]
                        outputs = plain + options.guidance * (outputs - plain)
                uniform = noise[row, column, :, group * draws : (group + 1) * draws]
                drawn = values.draw(outputs.float().cpu().numpy(), uniform, options.temperature)
                codes[:, mine, row, column] = torch.from_numpy(drawn).to(codes)
        return Batch.of(values.pixels(codes), label)

    def cost(self, options: PixelSampling) -> int:
        """Its values, and a little of what is kept of it: many pictures at once are far faster."""
        return self.spec.dims + self.spec.width * self.network.last().inputs

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Exact. A conditional model is given the labels; where there are none, it sums over all there could be."""
        self.values.check(batch.x)
        codes, detail = self.values.codes(batch.x, rng), "chain rule, given the label" if self.classes else "chain rule"
        if not self.classes or batch.label is not None:
            nats = self._measured(codes, self.labels.of(batch))
        else:
            every = [self._measured(codes, torch.full_like(batch.ids, i)) for i in range(self.labels.classes)]
            weights = self.labels.shares.double().log()[:, None].to(codes.device)
            nats, detail = torch.logsumexp(torch.stack(every) + weights, 0), "chain rule, summed over labels"
        return Likelihood(nats, "exact", detail, self.values.preprocessing, self.values.natural)

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The network: features of pictures in [-1, 1] (and labels) to outputs for every pixel."""
        x = torch.zeros(2, *self.spec.shape, device=self.device)
        label = (torch.zeros(2, dtype=torch.int64, device=self.device),) if self.classes else ()
        return {"network": (self.network, (x, *label))}

    def export_picture(self) -> PictureProgram | None:
        """Value after value, of the first class where there are classes; None for mixtures of logistics."""
        if not isinstance(self.values, Softmax | Binary):
            return None
        each = self.values.levels if isinstance(self.values, Softmax) else 1
        codes = torch.arange(max(each, 2), device=self.device)
        table = [self.values.features(codes).tolist(), self.values.pixels(codes).tolist()]
        label, (c, h, w) = ", np.array([label])" if self.classes else "", self.spec.shape
        return PictureProgram(PICTURE.format(shape=(c, h, w), pixels=h * w, width=w, channels=c, label=label), table)

    # inside

    def _measured(self, codes: Tensor, label: Tensor | None) -> Tensor:
        """Nats ``float64`` (B,); a few pictures at a time bound the memory."""
        numbers = self.spec.height * self.spec.width * max(self.values.maps, 4 * self.network.last().inputs)
        rows, parts = max(1, AT_ONCE // numbers), []
        for first in range(0, len(codes), rows):
            mine = slice(first, first + rows)
            outputs = self.network(self.values.features(codes[mine]), None if label is None else label[mine])
            parts.append(self.values.log_prob(outputs, codes[mine]).double())
        return torch.cat(parts)

    def _label(self, given: Given, rng: SampleRng, options: PixelSampling) -> tuple[Tensor | None, bool]:
        """The labels, and whether what is drawn leans towards them."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        guided = label is not None and options.guidance != 1
        if options.guidance != 1 and (label is None or self.config.likelihood == "logistic"):
            raise UsageError("guidance needs a conditional model, of likelihood softmax or bernoulli.")
        if guided and not self.config.label_drop:
            raise UsageError("guidance needs a model that has learned without labels too (config.label_drop above 0).")
        return None if label is None else label.to(self.device), guided

    def _null(self, n: int) -> Tensor:
        found = self.labels.null(n)
        assert found is not None
        return found

    def _prompt(self, given: Given, options: PixelSampling) -> tuple[np.ndarray | None, int]:
        """Codes of the prompt (n, C, H, W), and how many of its pixels are kept."""
        if "prompt" not in given:
            if options.rows is not None:
                raise UsageError("rows says how much of a prompt is kept; give one, or leave rows out.")
            return None, 0
        rows = self.spec.height / 2 if options.rows is None else options.rows
        if rows > self.spec.height:
            raise UsageError(f"rows={rows:g}: the pictures of this model have {self.spec.height}.")
        codes = self.values.codes(given["prompt"], None)
        return codes.cpu().numpy(), round(rows * self.spec.width)

    def _noise(self, rng: SampleRng) -> np.ndarray:
        """Uniform numbers (H, W, n, draws)."""
        height, width = self.spec.height, self.spec.width
        drawn = rng.uniform("pixels", height, width, self.values.draws)
        return np.ascontiguousarray(drawn.cpu().numpy().transpose(1, 2, 0, 3))

    def _table(self) -> np.ndarray:
        """The feature of each code."""
        every = torch.arange(getattr(self.values, "levels", 2), device=self.device)
        return self.values.features(every).cpu().numpy()
