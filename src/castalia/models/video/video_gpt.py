"""VideoGPT: clips as grids of codes, and a transformer that writes them.

Papers
    Yan, Zhang, Abbeel & Srinivas 2021, "VideoGPT: Video Generation using VQ-VAE and Transformers" (arXiv:2104.10157):
    an autoencoder of three-dimensional convolutions with axial attention (section 3.1), a transformer over its codes,
    frame after frame, given first frames or a class (section 3.2). van den Oord et al. 2017 (arXiv:1711.00937): codes.
    Ho et al. 2019 (arXiv:1912.12180): axial attention.

    z = nearest codes of E(clip) on a grid (T / s, H / f, W / f),   p(z) = prod_t p(z_t | z_{<t}, class, first frames)

Continuation: the first ``given`` frames are seen by a small network, whose output every code is told at its place. In
training that happens in a share ``given_share`` of the examples. Frames that were given come back as they were.

What differs, and why
    The paper lets the transformer attend to the first frames, through a residual network; here what a network makes of
    them is added to every code's embedding at its place of the picture. Codes that nobody chooses begin anew, as in
    ``vqvae``. Squared error is that of a normal distribution with the data's own variance, as in the authors' code.

Expected: see ``recipes/video_gpt.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Exportable
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.encoded import Encoded
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.points import PointsSpec
from castalia.core.specs.video import VideoSpec
from castalia.models.autoencoders.codes import CodePrior
from castalia.models.autoencoders.quantiser import Quantiser, straight_through
from castalia.models.video.cubes import Decoder, Encoder
from castalia.nn.causal import CausalBlock
from castalia.nn.labels import Labels, classes_of
from castalia.nn.pixels import inward, outward

FIT_EXAMPLES = 256
PROMPT = "prompt"


@dataclass(frozen=True)
class VideoGPTConfig(Config):
    """Configuration of VideoGPT.

    Attributes:
        width: channels of the autoencoder.
        blocks: residual blocks with axial attention of each of its networks.
        heads: of that attention.
        halve_time: how many times the frames are halved.
        halve_space: how many times the sides are halved.
        codes: size of the codebook.
        dims: of a code's vector.
        commitment: weight of the commitment.
        decay: of the codebook's averages.
        restart: codes below this share of the mean use begin anew.
        prior_dim: width of the transformer.
        prior_layers: its blocks.
        prior_heads: of its attention.
        prior_dropout: share that is dropped in it.
        conditional: learn the labels of the data as well.
        label_drop: share of labels that are left out.
        given: frames that may be given as the beginning; 0 for none.
        given_share: share of examples that are learned with their beginning given.
        code_share: share of all steps for the autoencoder.
    """

    width: int = 240
    blocks: int = 4
    heads: int = 2
    halve_time: int = 2
    halve_space: int = 2
    codes: int = 2048
    dims: int = 256
    commitment: float = 0.25
    decay: float = 0.99
    restart: float = 0.05
    prior_dim: int = 576
    prior_layers: int = 8
    prior_heads: int = 4
    prior_dropout: float = 0.2
    conditional: bool = False
    label_drop: float = 0.1
    given: int = 1
    given_share: float = 0.5
    code_share: float = 0.4

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.heads, self.codes, self.dims, self.prior_layers) < 1:
            raise ValueError("width, blocks, heads, codes, dims and prior_layers must be positive")
        if self.width % (2 * self.heads) or self.prior_dim % self.prior_heads or not 0 <= self.halve_time <= 4:
            raise ValueError("heads divide half of width, prior_heads prior_dim; halve_time lies between 0 and 4")
        if not 1 <= self.halve_space <= 5 or self.given < 0 or not 0 < self.code_share < 1:
            raise ValueError("halve_space lies between 1 and 5, given is not negative, code_share in (0, 1)")
        if not 0 <= self.given_share <= 1 or not 0 < self.label_drop < 1:
            raise ValueError("given_share lies in [0, 1], label_drop in (0, 1)")


@dataclass(frozen=True)
class VideoGPTOptions(Sampling):
    """How clips are drawn.

    Attributes:
        top_k: only so many of the likeliest codes; 0: all.
        top_p: only the likeliest that together have this probability.
    """

    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("top_k must not be negative, top_p lies in (0, 1]")


class VideoGPT(Generator[VideoGPTConfig, VideoSpec], Exportable):
    """p(codes) by a transformer, and clips by a decoder."""

    Config = VideoGPTConfig
    SampleOptions = VideoGPTOptions
    shard_units = (CausalBlock,)
    variance: Tensor

    def __init__(self, config: VideoGPTConfig, spec: VideoSpec) -> None:
        super().__init__()
        c, s, f = config, 2**config.halve_time, 2**config.halve_space
        if spec.frames % s or spec.height % f or spec.width % f:
            raise ValueError(
                f"the codes are {s} frames and {f}x{f} pixels wide, which does not divide clips of {spec.frames} "
                f"frames of {spec.width}x{spec.height}: choose other sizes, or fewer halve_time and halve_space"
            )
        if c.given >= spec.frames:
            raise ValueError(f"given={c.given} leaves nothing of {spec.frames} frames to be made")
        self.config, self.spec = config, spec
        self.grid = (spec.frames // s, spec.height // f, spec.width // f)
        self.encoder = Encoder(spec.channels, c.width, c.dims, c.blocks, c.heads, c.halve_time, c.halve_space)
        self.decoder = Decoder(spec.channels, c.width, c.dims, c.blocks, c.heads, c.halve_time, c.halve_space)
        self.quantiser = Quantiser(c.codes, c.dims, "ema", c.decay, c.restart)
        classes = classes_of(spec, c.conditional)
        self.labels = Labels(classes, c.label_drop)
        places = math.prod(self.grid)
        self.prior = CodePrior(c.codes, places, classes, c.prior_dim, c.prior_layers, c.prior_heads, c.prior_dropout)
        if c.given:
            layers: list[nn.Module] = []
            channels = spec.channels * c.given
            for _ in range(c.halve_space):
                layers += [nn.Conv2d(channels, c.prior_dim, 4, stride=2, padding=1), nn.SiLU()]
                channels = c.prior_dim
            self.seen = nn.Sequential(*layers, nn.Conv2d(channels, c.prior_dim, 3, padding=1))
            self.free = nn.Embedding(1, c.prior_dim)
            nn.init.zeros_(self.free.weight)
        self.register_buffer("variance", torch.ones(()))
        self._chosen: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Variance of the values, the first codes from what the encoder makes, and how often labels occur."""
        x = inward(data.batch(some_of(data, FIT_EXAMPLES)).x)
        self.variance.copy_(x.var().clamp(min=1e-4))
        z = torch.cat([self.outputs_of(part) for part in x.split(16)])
        self.quantiser.begin_from(z, rng)
        self.labels.fit(data)

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        networks = nn.ModuleList([self.encoder, self.decoder])
        parts = (Objective("vqvae", networks, self.code_loss), Update("codebook", self.quantiser, self.follow))
        prior = nn.ModuleList([self.prior])
        if self.config.given:
            prior.append(self.seen)
            prior.append(self.free)
        share = self.config.code_share
        return (
            Stage("codes", parts, share=share),
            Stage("prior", (Objective("prior", prior, self.prior_loss),), share=1 - share, data=self.encoded),
        )

    def code_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Squared error over the data's variance, and the commitment, averaged over the batch."""
        x = inward(batch.x)
        maps = self.encoder(x).float()
        z = maps.permute(0, 2, 3, 4, 1).flatten(0, 3)
        index = self.quantiser.nearest(z)
        quantised = self.quantiser.vectors(index)
        error = (self.decoder(self.volume(straight_through(z, quantised))).float() - x).square().mean() / self.variance
        commitment = (z - quantised.detach()).square().mean()
        self._chosen.append((z.detach(), index))
        return error + self.config.commitment * commitment, {"error": error.detach(), "commitment": commitment.detach()}

    def follow(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Let the codebook follow the vectors that chose its codes in the objective before."""
        chosen, self._chosen = self._chosen, []
        if not chosen:
            z = self.outputs_of(inward(batch.x))
            chosen = [(z, self.quantiser.nearest(z))]
        z, index = (torch.cat(parts) for parts in zip(*chosen, strict=True))
        use = self.quantiser.use()
        self.quantiser.follow(z, index, rng)
        return use

    def prior_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per code, averaged over places and examples."""
        codes, beside = batch.x.long(), None
        if self.config.given:
            known = rng.uniform("given") < self.config.given_share
            beside = self.told(batch.extra["first"], known)
        nats = F.cross_entropy(self.prior(codes, self.labels.for_training(batch, rng), beside).mT, codes)
        return nats, {"nats_per_clip": nats.detach() * codes.shape[1]}

    def encoded(self, data: Dataset) -> Dataset:
        """Codes of all training clips, with their first frames."""
        spec = PointsSpec(math.prod(self.grid), tuple(self.spec.classes) if self.config.conditional else ())

        @torch.no_grad()
        def call(batch: Batch) -> Batch:
            extra = {"first": batch.x[:, : self.config.given]} if self.config.given else {}
            codes = self.quantiser.nearest(self.outputs_of(inward(batch.x))).view(len(batch), -1)
            return Batch(codes.int(), batch.ids, batch.label, extra)

        return Encoded(data, call, spec, self.device)

    # between clips and codes

    def outputs_of(self, x: Tensor) -> Tensor:
        """z_e of clips in [-1, 1], one row for each place of each, ``float32`` (B t h w, dims)."""
        return self.encoder(x).float().permute(0, 2, 3, 4, 1).flatten(0, 3)

    def volume(self, q: Tensor) -> Tensor:
        """Rows (B t h w, dims) as maps (B, dims, t, h, w)."""
        return q.unflatten(0, (-1, *self.grid)).permute(0, 4, 1, 2, 3)

    def told(self, first: Tensor, known: Tensor) -> Tensor:
        """What every code is told of the first frames ``uint8`` (B, given, C, H, W), (B, places, prior_dim)."""
        maps = self.seen(inward(first).flatten(1, 2))
        wide = torch.where(known.view(-1, 1, 1, 1), maps, self.free.weight.view(1, -1, 1, 1).to(maps.dtype))
        return wide[:, :, None].expand(-1, -1, self.grid[0], -1, -1).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def clips(self, codes: Tensor) -> Tensor:
        """Clips ``uint8`` of codes (B, places)."""
        return outward(self.decoder(self.volume(self.quantiser.vectors(codes.flatten()))).float())

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        s, found = self.spec, dict[str, Spec]()
        if self.config.conditional:
            found["label"] = LabelSpec(s.classes)
        if self.config.given:
            found[PROMPT] = VideoSpec(s.channels, self.config.given, s.height, s.width, s.fps)
        return found

    def draw(self, n: int, given: Given, rng: SampleRng, options: Any, watch: Watch | None) -> Batch:
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        beside = None
        if self.config.given:
            shape = (n, self.config.given, *self.spec.shape[1:])
            first = given[PROMPT] if PROMPT in given else torch.zeros(shape, dtype=torch.uint8, device=self.device)
            beside = self.told(first, torch.full((n,), PROMPT in given, device=self.device))
        codes = self.prior.write(
            n,
            label,
            rng,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            beside=beside,
        )
        x = self.clips(codes)
        if PROMPT in given:
            x = torch.cat([given[PROMPT], x[:, self.config.given :]], 1)
        return Batch.of(x, label)

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Encoder (clips in [-1, 1] to vectors) and decoder (the codes' vectors to clips)."""
        clips = torch.zeros(2, *self.spec.shape, device=self.device)
        vectors = torch.zeros(2, self.config.dims, *self.grid, device=self.device)
        return {"encoder": (self.encoder, (clips,)), "decoder": (self.decoder, (vectors,))}
