"""Jukebox: sound as codes at three rates, and transformers that write them, top first, for a voice and its words.

Paper
    Dhariwal, Jun, Payne, Kim, Radford & Sutskever 2020, "Jukebox: A Generative Model for Music" (arXiv:2005.00341):
    section 3 (autoencoders, ``codec.py``), 4 (priors and upsamplers, ``prior.py``), 4.2 and 4.3 (labels, timing,
    words), 4.4 (sampling in windows, from a beginning).

Equations
    Each level l has its own autoencoder, with loss
    |x - y|^2 + max-mix + |S(x) - S(y)| + commitment    (section 3.2, 3.3), in units of the data's power.
    p(z) = p(z_top) p(z_middle | z_top) p(z_bottom | z_middle, z_top); here a level sees the one above it.
    A window longer than a context is written in windows that overlap (figure 2b).

What differs, and why
    A voice is a column ``speaker`` and its words a column ``caption`` of the data; a label of the data is told as the
    paper's genres are.
    Codes begin anew beside much used ones and not at a vector of the batch, which in several processes would be another
    one in each (``quantiser.py``).
    Factorised attention is a mask: exact, and no faster than dense attention.
    A prompt comes back as it is, and fades into what its codes sound like at its end.
    The paper aligns words with windows; here every window is told all of them, up to ``letters`` bytes.

Expected: see ``recipes/jukebox.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.audio import AudioSpec
from castalia.core.specs.text import TextSpec
from castalia.models.autoencoders.codes import pick
from castalia.models.sound.codec import Level, largest, spectral_loss
from castalia.models.sound.jukebox_settings import JukeboxConfig, JukeboxSampling
from castalia.models.sound.prior import Known, Prior
from castalia.nn.causal import Cache, CausalBlock
from castalia.nn.labels import Labels

SPEAKER, CAPTION = "speaker", "caption"
FIT_EXAMPLES = 500


class Jukebox(Generator[JukeboxConfig, AudioSpec]):
    """Autoencoders of several rates, and priors over their codes."""

    Config = JukeboxConfig
    SampleOptions: ClassVar[type[Sampling]] = JukeboxSampling
    shard_units = (CausalBlock,)

    def __init__(self, config: JukeboxConfig, spec: AudioSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c, columns = config, dict(spec.columns)
        if spec.length < c.hops[-1]:
            raise UsageError(f"crops of {spec.length} samples are shorter than one code of the top level, {c.hops[-1]}")
        speakers, caption = columns.get(SPEAKER), columns.get(CAPTION)
        self.speakers = len(speakers.classes) if isinstance(speakers, LabelSpec) else 0
        self.letters = min(c.letters, caption.length) if isinstance(caption, TextSpec) else 0
        self.classes = len(spec.classes) if c.conditional else 0
        self.labels = Labels(self.classes, c.drop)
        self.crop = -(-spec.length // c.hops[-1]) * c.hops[-1]
        self.levels = [
            Level(spec.channels, d, m * c.width, m * c.depth, c.growth, c.codes, c.dims, c.decay, c.restart)
            for d, m in zip(c.downs, c.multipliers or (1,) * len(c.downs), strict=True)
        ]
        self.codec = nn.ModuleList(self.levels)
        self.priors = nn.ModuleList(self._prior(i) for i in range(len(c.downs)))
        self.register_buffer("power", torch.ones(()))
        self._chosen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in c.downs]

    power: Tensor

    def _prior(self, i: int) -> Prior:
        c, top = self.config, i == len(self.config.downs) - 1
        return Prior(
            c.codes,
            self.context(i),
            c.row[i],
            self.letters if top else 0,
            self.speakers,
            self.classes,
            0 if top else c.hops[i + 1] // c.hops[i],
            c.prior_dim[i],
            c.prior_layers[i],
            c.prior_heads,
            c.prior_dropout,
            round(c.prior_dim[i] * c.prior_attention),
            max(1, round(c.prior_dim[i] * c.prior_hidden)),
        )

    def context(self, i: int) -> int:
        """Codes of a window of level i: those that the configuration says, or all of a crop."""
        return min(self.config.context[i], self.crop // self.config.hops[i])

    def prior(self, i: int) -> Prior:
        """That of level i."""
        found = self.priors[i]
        assert isinstance(found, Prior)
        return found

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """The power of the data, and the first codes from what the encoders make of some examples."""
        self.labels.fit(data)
        ids = some_of(data, FIT_EXAMPLES)
        x = self._even(data.batch(ids).x[..., : self.crop])
        self.power.copy_(x.square().mean().clamp(min=1e-8))
        for i, level in enumerate(self.levels):
            z = torch.cat([level.rows(part) for part in x.split(32)])
            level.quantiser.begin_from(z, rng.at("level", i))

    def _even(self, x: Tensor) -> Tensor:
        """Sound filled up with silence to whole codes of the top level."""
        return F.pad(x, (0, -x.shape[-1] % self.config.hops[-1]))

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        c, count = self.config, len(self.levels)
        networks = nn.ModuleList(nn.ModuleList([level.encoder, level.decoder]) for level in self.levels)
        books = nn.ModuleList(level.quantiser for level in self.levels)
        first = Stage("codec", (Objective("codec", networks, self.codec_loss), Update("codebook", books, self.follow)))
        stages = [Stage(first.name, first.objectives, share=c.codec_share)]
        for i in reversed(range(count)):
            objective = Objective(f"prior{i}", self.priors[i], self._prior_loss(i))
            stages.append(Stage(f"prior{i}", (objective,), share=(1 - c.codec_share) / count))
        return tuple(stages)

    def codec_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The sum of all levels' losses, which share nothing."""
        c, x = self.config, self._even(batch.x)
        total, logs = torch.zeros((), device=x.device), {}
        for i, level in enumerate(self.levels):
            y, z, index, commitment = level.through(x)
            error = (y - x).square().mean() / self.power
            spectrum = spectral_loss(x, y, c.resolutions)
            loss = error + c.maximum * largest(y - x, 2048) / self.power + c.spectral * spectrum
            total = total + loss + c.commitment * commitment
            logs |= {f"error{i}": error.detach(), f"spectrum{i}": spectrum.detach()}
            self._chosen[i].append((z.detach(), index))
        return total, logs

    def follow(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Let the codebooks follow the vectors that chose their codes in the objective before."""
        logs: dict[str, Tensor] = {}
        for i, level in enumerate(self.levels):
            chosen, self._chosen[i] = self._chosen[i], []
            if not chosen:
                z = level.rows(self._even(batch.x))
                chosen = [(z, level.quantiser.nearest(z))]
            z, index = (torch.cat(parts) for parts in zip(*chosen, strict=True))
            logs |= {f"{name}{i}": value for name, value in level.quantiser.use().items()}
            level.quantiser.follow(z, index, rng.at("level", i))
        return logs

    def _prior_loss(self, i: int):  # noqa: ANN202 (a LossFn)
        def loss(batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
            """Nats per code of a window of each crop."""
            c, size = self.config, self.context(i)
            x = self._even(batch.x)
            top = i == len(self.levels) - 1
            ratio = 1 if top else c.hops[i + 1] // c.hops[i]
            spare = (x.shape[-1] // c.hops[i] - size) // ratio
            at = ratio * int(rng.shared(1).integers("window", spare + 1)[0]) if spare > 0 else 0
            with torch.no_grad():
                codes = self.levels[i].codes(x)[:, at : at + size]
                above = None if top else self.levels[i + 1].codes(x)[:, at // ratio : (at + size) // ratio]
            start = batch.extra.get("start", torch.zeros_like(batch.ids))
            length = batch.extra.get("length", torch.full_like(batch.ids, batch.x.shape[-1]))
            when = self._when(start + at * c.hops[i], start + length)
            nats, letters = self.prior(i)(codes, self._known(batch, rng), when, above)
            loss = nats.mean() + (c.letter_loss * letters.mean() if letters.numel() else 0.0)
            return loss, {"nats_per_code": nats.mean().detach()}

        return loss

    def _when(self, start: Tensor, whole: Tensor) -> Tensor:
        """Total time, where a window begins (both in seconds), and as a share: ``float32`` (n, 3), from samples."""
        total, begin = whole.float() / self.spec.rate, start.float() / self.spec.rate
        return torch.stack([total, begin, (begin / total.clamp(min=1e-6)).clamp(0, 1)], 1)

    def _known(self, batch: Batch, rng: Rng) -> Known:
        """What is told of training examples, left out for a share of them."""
        hidden = rng.uniform("drop") < self.config.drop
        n = torch.full_like(batch.ids, 0)
        speaker = batch.extra.get(SPEAKER, n + self.speakers) if self.speakers else n
        label = self.labels.of(batch) if self.classes else None
        words = batch.extra.get(CAPTION, n[:, None] - 1)
        return Known(
            torch.where(hidden, self.speakers, speaker),
            torch.where(hidden, self.classes, n + self.classes if label is None else label),
            torch.where(hidden[:, None], -1, words),
        )

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        """A voice, words, a label, where it knows them; a prompt: the beginning of the sound."""
        columns = dict(self.spec.columns)
        out: dict[str, Spec] = {"label": LabelSpec(self.spec.classes)} if self.classes else {}
        out |= {SPEAKER: columns[SPEAKER]} if self.speakers else {}
        out |= {CAPTION: columns[CAPTION]} if self.letters else {}
        return {**out, "prompt": AudioSpec(self.spec.rate, self.spec.channels, self.spec.length)}

    def cost(self, options: JukeboxSampling) -> int:
        c = self.config
        sizes = zip(c.prior_layers, c.prior_dim, strict=True)
        kept = max(2 * layers * dim * self.context(i) for i, (layers, dim) in enumerate(sizes))
        return options.samples(self.spec) + kept

    def draw(self, n: int, given: Given, rng: SampleRng, options: JukeboxSampling, watch: Watch | None) -> Batch:
        """Sound: the codes of the top level first, each level in windows; then the bottom level's decoder."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        prompt = given.get("prompt", torch.zeros(n, self.spec.channels, 0, device=self.device))
        if options.upsample and not prompt.shape[-1]:
            raise UsageError("Upsampling needs a prompt: the sound whose top codes are kept.")
        asked = prompt.shape[-1] + (0 if options.upsample else options.samples(self.spec))
        size = -(-asked // self.config.hops[-1]) * self.config.hops[-1]
        zero = torch.zeros(n, dtype=torch.int64, device=self.device)
        known = Known(
            given.get(SPEAKER, zero + self.speakers),
            zero + self.classes if label is None else label,
            given.get(CAPTION, zero[:, None] - 1),
        )
        heard = self._even(prompt) if options.upsample else prompt
        above: Tensor | None = None
        for i in reversed(range(len(self.levels))):
            hop, top = self.config.hops[i], i == len(self.levels) - 1
            begun = heard[..., : heard.shape[-1] // hop * hop]
            begun = begun[..., :0] if options.upsample and not top else begun
            first = self.levels[i].codes(begun) if begun.shape[-1] else zero[:, None][:, :0]
            above = self._write(i, first, size // hop, known, above, asked, rng.at("level", i), options, watch)
        assert above is not None
        sound = self.levels[0].sound(above)[..., :asked].clamp(-1, 1)
        if prompt.shape[-1] and not options.upsample:
            sound = self._led_in(prompt, sound)
        return Batch.of(sound, label)

    def _led_in(self, prompt: Tensor, sound: Tensor) -> Tensor:
        """The prompt itself in place of what its codes sound like, faded over in the last code of the top level."""
        size = prompt.shape[-1]
        share = ((size - torch.arange(size, device=sound.device)) / self.config.hops[-1]).clamp(0, 1)
        begun = share * prompt + (1 - share) * sound[..., :size]
        return torch.cat([begun, sound[..., size:]], -1)

    def _write(
        self,
        i: int,
        codes: Tensor,
        total: int,
        known: Known,
        above: Tensor | None,
        asked: int,
        rng: SampleRng,
        options: JukeboxSampling,
        watch: Watch | None,
    ) -> Tensor:
        """Codes (n, total) of level i behind those that are there, window after window."""
        c, size = self.config, self.context(i)
        ratio = 1 if above is None else c.hops[i + 1] // c.hops[i]
        move = max(round(size * (1 - options.overlap)) // ratio, 1) * ratio
        zero = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
        window = 0
        while codes.shape[1] < total:
            # as late as the codes that are there allow, at whole moves
            start = max(-(-(codes.shape[1] + 1 - size) // move), 0) * move
            end = min(start + size, total)
            upper = None if above is None else above[:, start // ratio : -(-end // ratio)]
            when = self._when(zero + start * c.hops[i], zero + asked)
            new = self._window(i, codes[:, start:], end - start, known, when, upper, rng.at("window", start), options)
            codes = torch.cat([codes[:, :start], new], 1)
            window += 1
            if watch is not None and i == 0:
                now = codes
                steps = window + -(-max(total - end, 0) // move)
                watch(Preview(window, steps, lambda now=now: Batch.of(self.levels[0].sound(now).clamp(-1, 1))))
        return codes

    def _window(
        self,
        i: int,
        begun: Tensor,
        end: int,
        known: Known,
        when: Tensor,
        above: Tensor | None,
        rng: SampleRng,
        options: JukeboxSampling,
    ) -> Tensor:
        """Codes (n, end) of one window, of which some are there already."""
        prior, n = self.prior(i), len(begun)
        width = prior.inner // prior.heads
        kind = prior.places.dtype
        room = prior.front + prior.context
        caches = [Cache.empty(n, prior.heads, room, width, kind, self.device) for _ in prior.blocks]
        uniform = rng.uniform("codes", prior.context)
        codes, done = begun, 0
        while codes.shape[1] < end:
            h = prior.inputs(codes, known, when, above)[:, done:]
            places = torch.arange(done, done + h.shape[1], device=h.device).expand(n, -1)
            logits = prior.through(h, caches, places)[:, -1, : prior.codes]
            done += h.shape[1]
            t = codes.shape[1]
            code = pick(logits, uniform[:, t], options.temperature, options.top_k, options.top_p)
            codes = torch.cat([codes, code[:, None]], 1)
        return codes

    @torch.no_grad()
    def again(self, x: Tensor, level: int) -> Tensor:
        """Sound (B, C, T) encoded and decoded by one level, 0 the bottom."""
        y = self.levels[level].sound(self.levels[level].codes(self._even(x)))
        return y[..., : x.shape[-1]].clamp(-1, 1)


def rates(config: JukeboxConfig, rate: int) -> list[float]:
    """Codes a second of each level, and with their size bits: ``codes * log2``, in kilobits a second."""
    return [rate / hop * math.log2(config.codes) / 1000 for hop in config.hops]
