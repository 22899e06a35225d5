"""Vector-quantised autoencoder, with an autoregressive prior over its codes.

Paper
    van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning" (arXiv:1711.00937): section 3.1
    (eq. 1, 2: z_q(x) is the code nearest to the encoder's output, and gradients pass straight through), 3.2 (eq. 3),
    3.3 (the prior, trained when the codes stand still), 4.1 (the networks), appendix A.1 (moving averages).

    L = -log p(x | z_q(x)) + |sg[z_e(x)] - e|^2 + beta |z_e(x) - sg[e]|^2                                   (eq. 3)

    log p(x) >= log p(x | z_q(x)) + log p(z_q(x))                                           (section 3.2, the bound)

    since the sum over all z has this one term. It is a bound as long as p(x | z) is a distribution over pictures: the
    likelihoods here are (Bernoulli, dequantised Gaussian, discretised logistics), the squared error of most code is
    not.

What differs, and why
    The codebook moves by averages unless told otherwise (``codebook="gradient"`` is eq. 3), and codes that are hardly
    chosen begin anew; see quantiser.py.
    The prior is a small transformer and not a PixelCNN; see codes.py.
    Outputs are offsets from a learned base map, which starts at the mean (and deviation) of the pixels, as in vae.py.
    Pictures whose sides are no multiples of 2^levels are continued to the right and below, and cut off again.

Expected: see ``recipes/vqvae.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Likelihood, Perception, PictureProgram, Refinement
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.encoded import Encoded
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.codes import CodePrior, CodesSpec
from castalia.models.autoencoders.codes_alone import PICTURE, Decode, Pictures, Prior
from castalia.models.autoencoders.quantiser import Quantiser, perplexity, straight_through
from castalia.nn.labels import Labels, classes_of
from castalia.nn.likelihoods import pixel_likelihood
from castalia.nn.seeing import Seeing

FIT_EXAMPLES = 2_000
"""Training examples that are read for the first codes and for the base map."""


@dataclass(frozen=True)
class VQVAEConfig(Config):
    """Configuration of a vector-quantised autoencoder.

    Attributes:
        codes: size of the codebook, K.
        dims: of a code.
        levels: halvings of the picture before its codes.
        channels: of all convolutions.
        blocks: residual blocks in encoder and decoder.
        residual: channels inside of a residual block; 0: ``channels``, as in the paper.
        codebook: moves by ``ema`` (averages) or ``gradient``.
        decay: ema: of the averages, per step.
        restart: ema: a code whose share is below this part of the mean one begins anew; 0: never.
        commitment: beta.
        likelihood: of the pixels: ``bernoulli``, ``gaussian`` or ``logistic`` (discretised mixture).
        binarise: Bernoulli: ``dynamic`` draws binary pixels anew each time, ``threshold`` cuts at one half.
        mixtures: logistic: components.
        conditional: the prior learns the labels of the data as well.
        label_drop: conditional: share of examples that the prior learns without their label.
        prior_dim: of a token of the prior.
        prior_layers: blocks of the prior.
        prior_heads: of its attention.
        prior_dropout: share that it drops.
        prior_share: of the training that the prior gets.
    """

    codes: int = 512
    dims: int = 64
    levels: int = 2
    channels: int = 128
    blocks: int = 2
    residual: int = 32
    codebook: Literal["ema", "gradient"] = "ema"
    decay: float = 0.99
    restart: float = 0.1
    commitment: float = 0.25
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"
    binarise: Literal["dynamic", "threshold"] = "dynamic"
    mixtures: int = 5
    conditional: bool = False
    label_drop: float = 0.1
    prior_dim: int = 128
    prior_layers: int = 4
    prior_heads: int = 4
    prior_dropout: float = 0.1
    prior_share: float = 0.5

    def __post_init__(self) -> None:
        sizes = (self.codes, self.dims, self.levels, self.channels, self.mixtures, self.prior_dim, self.prior_layers)
        if min(sizes) < 1 or min(self.blocks, self.residual) < 0 or self.codes < 2:
            raise ValueError("codes must be at least 2, sizes positive, blocks and residual not negative")
        if self.prior_heads < 1 or self.prior_dim % self.prior_heads:
            raise ValueError("prior_heads must divide prior_dim")
        if not (0 <= self.decay < 1 and 0 <= self.prior_dropout < 1 and 0 <= self.label_drop < 1):
            raise ValueError("decay, prior_dropout and label_drop lie in [0, 1)")
        if min(self.commitment, self.restart) < 0 or not 0 < self.prior_share < 1:
            raise ValueError("commitment and restart must not be negative; prior_share lies between 0 and 1")


@dataclass(frozen=True)
class VQVAEOptions(Sampling):
    """How pictures are drawn.

    Attributes:
        temperature: divides the logits of the prior; 0 takes the likeliest code each time.
        top_k: only so many of the likeliest codes; 0: all.
        top_p: only the likeliest codes that together have this probability; 1: all.
        pixels: their ``mean`` given the codes, or a ``sample`` of them.
    """

    top_k: int = 0
    top_p: float = 1.0
    pixels: Literal["mean", "sample"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("top_k must not be negative, top_p is a probability above 0")


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))): the block of section 4.1."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, inside, 3, padding=1)
        self.second = nn.Conv2d(inside, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class Encoder(nn.Module):
    """Strided 4x4 convolutions, residual blocks, and a 1x1 convolution to the dims of a code."""

    def __init__(self, channels: int, c: VQVAEConfig) -> None:
        super().__init__()
        self.step = 1 << c.levels
        layers: list[nn.Module] = []
        for level in range(c.levels):
            layers += [nn.Conv2d(c.channels if level else channels, c.channels, 4, stride=2, padding=1), nn.ReLU()]
        layers = [*layers[:-1], nn.Conv2d(c.channels, c.channels, 3, padding=1)]
        layers += [Residual(c.channels, c.residual or c.channels) for _ in range(c.blocks)]
        self.body = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(c.channels, c.dims, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) to (B, dims, h, w)."""
        right, below = -x.shape[3] % self.step, -x.shape[2] % self.step
        return self.body(F.pad(x, (0, right, 0, below), mode="replicate") if right or below else x)


class Decoder(nn.Module):
    """The mirror image, and the base map that its outputs are offsets from."""

    def __init__(self, maps: int, height: int, width: int, c: VQVAEConfig) -> None:
        super().__init__()
        self.height, self.width = height, width
        layers: list[nn.Module] = [nn.Conv2d(c.dims, c.channels, 3, padding=1)]
        layers += [Residual(c.channels, c.residual or c.channels) for _ in range(c.blocks)]
        for level in range(c.levels):
            out = maps if level == c.levels - 1 else c.channels
            layers += [nn.ReLU(), nn.ConvTranspose2d(c.channels, out, 4, stride=2, padding=1)]
        self.body = nn.Sequential(*layers)
        self.base = nn.Parameter(torch.zeros(maps, height, width))

    def forward(self, q: Tensor) -> Tensor:
        """Codes (B, dims, h, w) to outputs (B, maps, H, W)."""
        return self.body(q).float()[:, :, : self.height, : self.width] + self.base


class VQVAE(Generator[VQVAEConfig, ImageSpec], Density, Refinement, Perception, Exportable):
    """p(x) = sum over grids z of codes of p(x | z) p(z), with one z for each x."""

    Config = VQVAEConfig
    SampleOptions: ClassVar[type[Sampling]] = VQVAEOptions

    def __init__(self, config: VQVAEConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.pixels = pixel_likelihood(c.likelihood, spec.channels, binarise=c.binarise, mixtures=c.mixtures)
        self.rows, self.columns = (-(-side // (1 << c.levels)) for side in (spec.height, spec.width))
        self.encoder = Encoder(spec.channels, c)
        self.decoder = Decoder(self.pixels.maps, spec.height, spec.width, c)
        self.quantiser = Quantiser(c.codes, c.dims, c.codebook, c.decay, c.restart)
        classes = classes_of(spec, c.conditional)
        self.labels = Labels(classes, c.label_drop)
        self.prior = CodePrior(
            c.codes, self.rows * self.columns, classes, c.prior_dim, c.prior_layers, c.prior_heads, c.prior_dropout
        )
        self._chosen: list[tuple[Tensor, Tensor]] = []  # by the objective, for the update behind it in the same step

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """The base map from the pixels, the first codes from what the encoder makes of some examples."""
        x = data.batch(some_of(data, FIT_EXAMPLES)).x
        scaled = x.float() / 255
        self.decoder.base.copy_(self.pixels.base(scaled.mean(0), scaled.std(0, correction=0)))
        z = torch.cat([self.outputs_of(part) for part in x.split(256)])
        self.quantiser.begin_from(z, rng)
        self.labels.fit(data)

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        share = self.config.prior_share
        networks = nn.ModuleList([self.encoder, self.decoder])
        if self.config.codebook == "gradient":
            networks.append(self.quantiser)
        parts: tuple[Objective | Update, ...] = (Objective("vqvae", networks, self.loss),)
        if self.config.codebook == "ema":
            parts = (*parts, Update("codebook", self.quantiser, self.follow))
        return (
            Stage("codes", parts, share=1 - share),
            Stage("prior", (Objective("prior", self.prior, self.prior_loss),), share=share, data=self.encoded),
        )

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Eq. 3 in nats per example, averaged over the batch."""
        target = self.pixels.target(batch.x, rng)
        maps = self.encoder(self.pixels.features(target)).float()
        z = flat(maps)
        index = self.quantiser.nearest(z)
        quantised = self.quantiser.vectors(index)
        passed = self.grid(straight_through(z, quantised))
        nats = -self.pixels.log_prob(self.decoder(passed)[None], target).mean()
        cells = len(z) / len(batch)
        commitment = (z - quantised.detach()).square().sum(1).mean() * cells
        loss = nats + self.config.commitment * commitment
        logs = {"reconstruction": nats, "commitment": commitment}
        if self.config.codebook == "gradient":
            loss = loss + self.quantiser.pull(z, index).mean() * cells
            logs["perplexity"] = perplexity(index, self.config.codes)
        else:
            self._chosen.append((z.detach(), index))
        return loss, logs

    def follow(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Let the codebook follow the vectors that chose its codes in the objective before."""
        chosen, self._chosen = self._chosen, []
        if not chosen:
            z = self.outputs_of(batch.x, rng)
            chosen = [(z, self.quantiser.nearest(z))]
        z, index = (torch.cat(parts) for parts in zip(*chosen, strict=True))
        use = self.quantiser.use()  # before: what processes have in common
        self.quantiser.follow(z, index, rng)
        return use

    def prior_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per code, averaged over cells and examples."""
        codes = batch.x.flatten(1).long()
        nats = F.cross_entropy(self.prior(codes, self.labels.for_training(batch, rng)).mT, codes)
        return nats, {"nats_per_example": nats.detach() * codes.shape[1]}

    def encoded(self, data: Dataset) -> Dataset:
        """The codes of all training examples; binary pixels are drawn once for each."""
        spec = CodesSpec(self.config.codes, self.rows, self.columns)

        def call(batch: Batch) -> Batch:
            rng = SampleRng(0, batch.ids.tolist(), batch.x.device)
            return Batch(self.codes(batch, rng=rng).int(), batch.ids, batch.label)

        return Encoded(data, call, spec, self.device)

    # between pictures and codes

    def outputs_of(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """z_e of pictures, one row for each cell of each, ``float32`` (B h w, dims)."""
        return flat(self.encoder(self.pixels.features(self.pixels.target(x, rng))).float())

    def grid(self, q: Tensor) -> Tensor:
        """Rows (B h w, dims) as maps (B, dims, h, w)."""
        return q.unflatten(0, (-1, self.rows, self.columns)).permute(0, 3, 1, 2)

    @torch.no_grad()
    def codes(self, batch: Batch, *, rng: Rng | None = None) -> Tensor:
        """Code numbers ``int64`` (B, h, w) of pictures."""
        return self.quantiser.nearest(self.outputs_of(batch.x, rng)).view(-1, self.rows, self.columns)

    def outputs(self, codes: Tensor) -> Tensor:
        """Outputs of the decoder (B, maps, H, W) for code numbers (B, h, w)."""
        return self.decoder(self.grid(self.quantiser.vectors(codes.flatten())))

    @torch.no_grad()
    def pictures(self, codes: Tensor, *, rng: Rng | None = None) -> Batch:
        """Pictures of code numbers (B, h, w): their mean, or drawn from the likelihood where ``rng`` is given."""
        outputs = self.outputs(codes)
        return Batch.of(self.pixels.mean(outputs) if rng is None else self.pixels.sample(outputs, rng))

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.config.conditional else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: VQVAEOptions, watch: Watch | None) -> Batch:
        """Pictures of codes drawn from the prior."""
        return self._written(n, given, rng, options)

    def _written(
        self,
        n: int,
        given: Given,
        rng: SampleRng,
        options: VQVAEOptions,
        held: Tensor | None = None,
        free: Tensor | None = None,
    ) -> Batch:
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        o = options
        codes = self.prior.write(
            n, label, rng, temperature=o.temperature, top_k=o.top_k, top_p=o.top_p, held=held, free=free
        )
        return self.pictures(codes.view(n, self.rows, self.columns), rng=rng if o.pixels == "sample" else None)

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: VQVAEOptions,
        watch: Watch | None,
    ) -> Tensor:
        """Draw the codes of masked cells anew, of those a random share ``strength``; others stand as context.

        A cell knows what is before it, above and to its left, and not what comes after.
        """
        n, step, (h, w) = len(batch), 1 << self.config.levels, (self.rows, self.columns)
        free = rng.uniform("strength", h, w) < strength
        if mask is not None:
            there = mask.to(free.device).expand(n, 1, *self.spec.shape[1:]).float()
            free &= F.max_pool2d(there, step, ceil_mode=True)[:, 0] > 0
        drawn = self._written(n, given, rng, options, self.codes(batch, rng=rng).flatten(1), free.flatten(1))
        changed = free[:, None].repeat_interleave(step, 2).repeat_interleave(step, 3)
        return torch.where(changed[:, :, : self.spec.height, : self.spec.width], drawn.x, batch.x)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Log p(x | z_q(x)) + log p(z_q(x)), given the class where the model knows classes and there is one."""
        target = self.pixels.target(batch.x, rng)
        index = self.quantiser.nearest(flat(self.encoder(self.pixels.features(target)).float()))
        codes = index.view(-1, self.rows, self.columns)
        label = self.labels.null(len(batch)) if batch.label is None else self.labels.of(batch)
        given_codes = self.pixels.log_prob(self.outputs(codes)[None], target)[0].double()
        nats = given_codes + self.prior.log_prob(codes.flatten(1), label)
        detail = "log p(x | z) + log p(z) at the one z of the encoder"
        if self.config.conditional:
            detail += ", null class" if batch.label is None else ", given the label"
        return Likelihood(nats, "bound", detail, self.pixels.preprocessing)

    def perceive(self) -> Mapping[str, nn.Module]:
        """The encoder, which returns maps (B, dims, h, w) before they become codes."""
        return {"encoder": Seeing(self.encoder, self.pixels.seen)}

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Encoder (features in [-1, 1] to z_e), decoder (code numbers to outputs), pictures, and the prior.

        ``pictures``: code numbers to the expected picture, 0 to 255, not rounded. ``prior``: code numbers, row by row
        (and labels), to logits of each given those before it.
        """
        device, shape = self.device, (2, self.rows, self.columns)
        features = torch.zeros(2, *self.spec.shape, device=device)
        numbers = torch.zeros(shape, dtype=torch.int64, device=device)
        numbers[-1] = self.config.codes - 1  # the largest that there is
        label = (torch.zeros(2, dtype=torch.int64, device=device),) if self.config.conditional else ()
        decode = Decode(self.quantiser, self.decoder)
        return {
            "encoder": (self.encoder, (features,)),
            "decoder": (decode, (numbers,)),
            "pictures": (Pictures(decode, self.pixels), (numbers,)),
            "prior": (Prior(self.prior), (numbers.flatten(1), *label)),
        }

    def export_picture(self) -> PictureProgram:
        """Codes drawn one after another, of the first class where there are classes."""
        label, (h, w) = ", np.array([label])" if self.config.conditional else "", (self.rows, self.columns)
        return PictureProgram(PICTURE.format(cells=h * w, rows=h, columns=w, label=label))


def flat(maps: Tensor) -> Tensor:
    """Maps (B, dims, h, w) as rows (B h w, dims)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)
