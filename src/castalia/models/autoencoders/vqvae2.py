"""Vector-quantised autoencoder with two grids of codes, one coarse and one fine.

Paper
    Razavi, van den Oord & Vinyals 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2" (arXiv:1906.00446):
    algorithm 1 (the fine codes are chosen given the coarse ones, and both go into the picture), algorithm 2 and section
    3.2 (a prior for each grid, the fine one's given the coarse grid and the class), figure 2.

    log p(x) >= log p(x | e_top, e_bottom) + log p(bottom | top) + log p(top)

    with the codes that the encoder chooses, as in vqvae.py.

What differs, and why
    The priors are transformers and not PixelSNAIL; see codes.py. The fine one is told of every cell what the coarse
    grid has there, by a small network.
    The likelihood of pixels is a distribution over pictures, which squared error is not: so there is a bound.
    Codebooks move by averages, and codes that are hardly chosen begin anew.

Expected: see ``recipes/vqvae2.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Likelihood, Refinement
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.encoded import Encoded
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.codes import CodePrior, CodesSpec
from castalia.models.autoencoders.quantiser import Quantiser, straight_through
from castalia.models.autoencoders.vqvae import (
    FIT_EXAMPLES,
    Decoder,
    Encoder,
    Residual,
    VQVAEConfig,
    VQVAEOptions,
    flat,
)
from castalia.nn.labels import Labels, classes_of
from castalia.nn.likelihoods import pixel_likelihood


@dataclass(frozen=True)
class VQVAE2Config(VQVAEConfig):
    """Configuration of a two-level vector-quantised autoencoder; sizes of the paper for pictures of 256 pixels.

    ``levels`` are the halvings before the fine codes; the coarse grid has half of its sides. ``prior_share`` is the
    training that both priors get together.

    Attributes:
        top_share: of the priors' training that the coarse one gets.
    """

    top_share: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook != "ema":
            raise ValueError("codebooks of a two-level autoencoder move by averages: codebook='ema'")
        if not 0 < self.top_share < 1:
            raise ValueError("top_share lies between 0 and 1")


class Up(nn.Module):
    """Coarse codes (B, dims, h, w) at twice the size: a convolution, residual blocks, a transposed convolution."""

    def __init__(self, c: VQVAE2Config) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(c.dims, c.channels, 3, padding=1)]
        layers += [Residual(c.channels, c.residual or c.channels) for _ in range(c.blocks)]
        self.body = nn.Sequential(*layers, nn.ReLU(), nn.ConvTranspose2d(c.channels, c.dims, 4, stride=2, padding=1))

    def forward(self, q: Tensor) -> Tensor:
        return self.body(q)


class Beside(nn.Module):
    """What the coarse grid says of every fine cell: (B, h, w) code numbers to (B, cells, dim)."""

    def __init__(self, codes: int, dim: int, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.tokens = nn.Embedding(codes, dim)
        nn.init.normal_(self.tokens.weight, 0, 0.02)
        self.around = nn.Conv2d(dim, dim, 3, padding=1)
        self.within = nn.ConvTranspose2d(dim, dim, 2, stride=2)

    def forward(self, top: Tensor) -> Tensor:
        h = self.tokens(top).permute(0, 3, 1, 2)
        h = self.within(F.gelu(h + self.around(h)))
        return h[:, :, : self.rows, : self.columns].flatten(2).transpose(1, 2)


class VQVAE2(Generator[VQVAE2Config, ImageSpec], Density, Refinement, Exportable):
    """p(x) = sum over both grids of p(x | top, bottom) p(bottom | top) p(top)."""

    Config = VQVAE2Config
    SampleOptions: ClassVar[type[Sampling]] = VQVAEOptions

    def __init__(self, config: VQVAE2Config, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.pixels = pixel_likelihood(c.likelihood, spec.channels, binarise=c.binarise, mixtures=c.mixtures)
        self.rows, self.columns = (-(-side // (1 << c.levels)) for side in (spec.height, spec.width))
        self.top_rows, self.top_columns = -(-self.rows // 2), -(-self.columns // 2)
        self.encoder = Encoder(spec.channels, replace(c, dims=c.channels))
        self.top_encoder = Encoder(c.channels, replace(c, levels=1))
        self.top_up, self.top_up_again = Up(c), nn.ConvTranspose2d(c.dims, c.dims, 4, stride=2, padding=1)
        self.join = nn.Conv2d(c.channels + c.dims, c.dims, 1)
        self.decoder = Decoder(self.pixels.maps, spec.height, spec.width, replace(c, dims=2 * c.dims))
        self.top, self.bottom = (Quantiser(c.codes, c.dims, "ema", c.decay, c.restart) for _ in range(2))
        classes = classes_of(spec, c.conditional)
        self.labels = Labels(classes, c.label_drop)
        sizes = c.prior_dim, c.prior_layers, c.prior_heads, c.prior_dropout
        self.top_prior = CodePrior(c.codes, self.top_rows * self.top_columns, classes, *sizes)
        self.prior = CodePrior(c.codes, self.rows * self.columns, classes, *sizes)
        self.beside = Beside(c.codes, c.prior_dim, self.rows, self.columns)
        self._chosen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # by the objective, for the update behind it

    @torch.no_grad()
    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """The base map from the pixels, the first codes from what the encoders make of some examples."""
        x = data.batch(some_of(data, FIT_EXAMPLES)).x
        scaled = x.float() / 255
        self.decoder.base.copy_(self.pixels.base(scaled.mean(0), scaled.std(0, correction=0)))
        maps = torch.cat([self._seen(part, None) for part in x.split(256)])
        z = flat(torch.cat([self.top_encoder(part) for part in maps.split(256)]).float())
        self.top.begin_from(z, rng.at("top"))
        q = self._grid(self.top.vectors(self.top.nearest(z)), self.top_rows, self.top_columns)
        self.bottom.begin_from(flat(self._fine(maps, q).float()), rng.at("bottom"))
        self.labels.fit(data)

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        networks = nn.ModuleList(
            [self.encoder, self.top_encoder, self.top_up, self.top_up_again, self.join, self.decoder]
        )
        parts = (
            Objective("vqvae", networks, self.loss),
            Update("codebooks", nn.ModuleList([self.top, self.bottom]), self.follow),
        )
        fine = nn.ModuleList([self.prior, self.beside])
        return (
            Stage("codes", parts, share=1 - c.prior_share),
            Stage(
                "top",
                (Objective("top", self.top_prior, self.top_loss),),
                share=c.prior_share * c.top_share,
                data=self.encoded,
            ),
            Stage(
                "bottom",
                (Objective("bottom", fine, self.bottom_loss),),
                share=c.prior_share * (1 - c.top_share),
                data=self.encoded,
            ),
        )

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Eq. 2 for both grids, in nats per example, averaged over the batch."""
        target = self.pixels.target(batch.x, rng)
        maps = self.encoder(self.pixels.features(target))
        coarse = flat(self.top_encoder(maps).float())
        top_index = self.top.nearest(coarse)
        top_codes = self.top.vectors(top_index)
        top_q = self._grid(straight_through(coarse, top_codes), self.top_rows, self.top_columns)
        fine = flat(self._fine(maps, top_q).float())
        index = self.bottom.nearest(fine)
        codes = self.bottom.vectors(index)
        q = self._grid(straight_through(fine, codes), self.rows, self.columns)
        nats = -self.pixels.log_prob(self._outputs(top_q, q)[None], target).mean()
        commitment = torch.stack(
            [
                (z - e.detach()).square().sum(1).mean() * (len(z) / len(batch))
                for z, e in ((coarse, top_codes), (fine, codes))
            ]
        ).sum()
        self._chosen.append((coarse.detach(), top_index, fine.detach(), index))
        loss = nats + self.config.commitment * commitment
        return loss, {"reconstruction": nats, "commitment": commitment}

    def follow(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Let both codebooks follow the vectors that chose their codes in the objective before."""
        chosen, self._chosen = self._chosen, []
        if not chosen:
            chosen = [self._vectors(batch.x, rng)]
        coarse, top_index, fine, index = (torch.cat(parts) for parts in zip(*chosen, strict=True))
        logs = {f"{name}_{k}": v for name in ("top", "bottom") for k, v in getattr(self, name).use().items()}
        self.top.follow(coarse, top_index, rng.at("top"))
        self.bottom.follow(fine, index, rng.at("bottom"))
        return logs

    def top_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per coarse code, averaged over cells and examples."""
        top, _ = self._split(batch.x)
        nats = F.cross_entropy(self.top_prior(top, self.labels.for_training(batch, rng)).mT, top)
        return nats, {"nats_per_example": nats.detach() * top.shape[1]}

    def bottom_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per fine code given the coarse grid, averaged over cells and examples."""
        top, bottom = self._split(batch.x)
        beside = self.beside(top.view(-1, self.top_rows, self.top_columns))
        nats = F.cross_entropy(self.prior(bottom, self.labels.for_training(batch, rng), beside).mT, bottom)
        return nats, {"nats_per_example": nats.detach() * bottom.shape[1]}

    def encoded(self, data: Dataset) -> Dataset:
        """The codes of all training examples, coarse ones first; binary pixels are drawn once for each."""
        count = self.top_rows * self.top_columns + self.rows * self.columns
        spec = CodesSpec(self.config.codes, 1, count)

        def call(batch: Batch) -> Batch:
            rng = SampleRng(0, batch.ids.tolist(), batch.x.device)
            top, bottom = self.codes(batch, rng=rng)
            both = torch.cat([top.flatten(1), bottom.flatten(1)], 1)[:, None]
            return Batch(both.int(), batch.ids, batch.label)

        return Encoded(data, call, spec, self.device)

    def _split(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Coarse and fine code numbers ``int64`` (B, cells) of rows as :meth:`encoded` has them."""
        flat_codes, count = codes.flatten(1).long(), self.top_rows * self.top_columns
        return flat_codes[:, :count], flat_codes[:, count:]

    # between pictures and codes

    def _seen(self, x: Tensor, rng: Rng | None) -> Tensor:
        """Maps (B, channels, h, w) of the first encoder."""
        return self.encoder(self.pixels.features(self.pixels.target(x, rng)))

    def _fine(self, maps: Tensor, top_q: Tensor) -> Tensor:
        """What the fine codes are chosen for, (B, dims, h, w), given maps and coarse codes."""
        up = self.top_up(top_q)[:, :, : self.rows, : self.columns]
        return self.join(torch.cat([maps, up.to(maps.dtype)], 1))

    def _outputs(self, top_q: Tensor, q: Tensor) -> Tensor:
        """Outputs (B, maps, H, W) of both grids of codes."""
        up = self.top_up_again(top_q)[:, :, : self.rows, : self.columns]
        return self.decoder(torch.cat([up, q.to(up.dtype)], 1))

    @staticmethod
    def _grid(q: Tensor, rows: int, columns: int) -> Tensor:
        """Rows (B h w, dims) as maps (B, dims, h, w)."""
        return q.unflatten(0, (-1, rows, columns)).permute(0, 3, 1, 2)

    def _vectors(self, x: Tensor, rng: Rng | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coarse vectors and their codes' numbers, fine vectors and theirs."""
        maps = self._seen(x, rng)
        coarse = flat(self.top_encoder(maps).float())
        top = self.top.nearest(coarse)
        fine = flat(self._fine(maps, self._grid(self.top.vectors(top), self.top_rows, self.top_columns)).float())
        return coarse, top, fine, self.bottom.nearest(fine)

    @torch.no_grad()
    def codes(self, batch: Batch, *, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        """Coarse (B, h / 2, w / 2) and fine (B, h, w) code numbers ``int64`` of pictures."""
        _, top, _, bottom = self._vectors(batch.x, rng)
        return top.view(-1, self.top_rows, self.top_columns), bottom.view(-1, self.rows, self.columns)

    def outputs(self, top: Tensor, bottom: Tensor) -> Tensor:
        """Outputs of the decoder (B, maps, H, W) for code numbers of both grids."""
        top_q = self.top.vectors(top).permute(0, 3, 1, 2)
        return self._outputs(top_q, self.bottom.vectors(bottom).permute(0, 3, 1, 2))

    @torch.no_grad()
    def pictures(self, top: Tensor, bottom: Tensor, *, rng: Rng | None = None) -> Batch:
        """Pictures of code numbers: their mean, or drawn from the likelihood where ``rng`` is given."""
        outputs = self.outputs(top, bottom)
        return Batch.of(self.pixels.mean(outputs) if rng is None else self.pixels.sample(outputs, rng))

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.config.conditional else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: VQVAEOptions, watch: Watch | None) -> Batch:
        """Pictures of codes drawn from the priors, coarse ones first."""
        return self._written(n, given, rng, options, None, None)

    def _written(
        self,
        n: int,
        given: Given,
        rng: SampleRng,
        options: VQVAEOptions,
        held: tuple[Tensor, Tensor] | None,
        free: tuple[Tensor, Tensor] | None,
    ) -> Batch:
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        how = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
        stays = [(None, None)] * 2 if held is None or free is None else list(zip(held, free, strict=True))
        top = self.top_prior.write(n, label, rng.at("top"), held=stays[0][0], free=stays[0][1], **how)
        top = top.view(n, self.top_rows, self.top_columns)
        beside = self.beside(top)
        bottom = self.prior.write(
            n, label, rng.at("bottom"), held=stays[1][0], free=stays[1][1], beside=beside, **how
        ).view(n, self.rows, self.columns)
        return self.pictures(top, bottom, rng=rng if options.pixels == "sample" else None)

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

        A coarse cell goes with its four fine ones. A cell knows what is before it, and the whole of what is coarser.
        """
        n, step, (h, w) = len(batch), 2 << self.config.levels, (self.top_rows, self.top_columns)
        free = rng.uniform("strength", h, w) < strength
        if mask is not None:
            there = mask.to(free.device).expand(n, 1, *self.spec.shape[1:]).float()
            free &= F.max_pool2d(there, step, ceil_mode=True)[:, 0] > 0
        fine = free.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : self.rows, : self.columns]
        top, bottom = self.codes(batch, rng=rng)
        held, loose = (top.flatten(1), bottom.flatten(1)), (free.flatten(1), fine.flatten(1))
        drawn = self._written(n, given, rng, options, held, loose)
        changed = free[:, None].repeat_interleave(step, 2).repeat_interleave(step, 3)
        return torch.where(changed[:, :, : self.spec.height, : self.spec.width], drawn.x, batch.x)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Log p(x | top, bottom) + log p(bottom | top) + log p(top), given the class where there is one."""
        target = self.pixels.target(batch.x, rng)
        top, bottom = self.codes(batch, rng=rng)
        label = self.labels.null(len(batch)) if batch.label is None else self.labels.of(batch)
        nats = self.pixels.log_prob(self.outputs(top, bottom)[None], target)[0].double()
        nats = nats + self.top_prior.log_prob(top.flatten(1), label)
        nats = nats + self.prior.log_prob(bottom.flatten(1), label, self.beside(top))
        detail = "log p(x | z) + log p(z) at the codes of the encoder"
        if self.config.conditional:
            detail += ", null class" if batch.label is None else ", given the label"
        return Likelihood(nats, "bound", detail, self.pixels.preprocessing)

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The decoder: coarse and fine code numbers to outputs."""
        top = torch.zeros(2, self.top_rows, self.top_columns, dtype=torch.int64, device=self.device)
        bottom = torch.zeros(2, self.rows, self.columns, dtype=torch.int64, device=self.device)
        return {"decoder": (_Decode(self), (top, bottom))}


class _Decode(nn.Module):
    """Code numbers to outputs, as one call for export."""

    def __init__(self, model: VQVAE2) -> None:
        super().__init__()
        self.top, self.bottom, self.up, self.decoder = model.top, model.bottom, model.top_up_again, model.decoder
        self.rows, self.columns = model.rows, model.columns

    def forward(self, top: Tensor, bottom: Tensor) -> Tensor:
        up = self.up(self.top.vectors(top).permute(0, 3, 1, 2))[:, :, : self.rows, : self.columns]
        return self.decoder(torch.cat([up, self.bottom.vectors(bottom).permute(0, 3, 1, 2)], 1))
