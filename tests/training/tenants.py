"""The smallest tenants of other worlds, to prove that the contract holds them before they arrive.

A graph has parts and a size of its own; a picture has a caption; a structure is given a sequence; a prior is trained on
the codes of a frozen encoder; an adapter starts from a finished run; a scorer makes nothing; a table is fitted before
its network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from castalia.core.capabilities import Latents
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.encoded import Encoded
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given
from castalia.core.spec import Field, ScalarSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.core.specs.text import TextSpec
from castalia.media.base import Medium
from tests.tools import Table

WORDS = "abcdefgh"
CAPTION = TextSpec("chars", len(WORDS) + 1, 3, WORDS)


class Rows(Table):
    """A table whose examples have more than one part."""

    def __init__(self, x: Tensor, spec: Spec, extra: Mapping[str, Tensor]) -> None:
        super().__init__(x, spec)
        self.extra = extra

    def batch(self, ids, rng=None):
        plain = super().batch(ids, rng)
        index = torch.from_numpy(ids)
        return Batch(plain.x, plain.ids, plain.label, {name: part[index] for name, part in self.extra.items()})


def numbers(*shape: int, high: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class GraphSpec(Spec):
    """Atoms ``int64`` (A,) padded with -1, and bonds ``int64`` (A, A)."""

    kinds: int
    most: int

    def fields(self) -> Mapping[str, Field]:
        return {
            "x": Field(torch.int64, (None,), padding=-1, low=0, high=self.kinds - 1),
            "bonds": Field(torch.int64, (None, None), padding=0, low=0, high=3),
        }


def graphs() -> Rows:
    atoms, size = numbers(24, 5, high=3), 2 + numbers(24, high=4, seed=1)
    atoms[torch.arange(5) >= size[:, None]] = -1
    bonds = numbers(24, 5, 5, high=4, seed=2)
    there = (atoms >= 0).long()
    spec = GraphSpec(3, 5, columns=(("weight", ScalarSpec("Da", low=0)),))
    return Rows(atoms, spec, {"bonds": bonds * there[:, :, None] * there[:, None, :], "weight": size.float()})


@dataclass(frozen=True)
class TenantConfig(Config):
    """What tenants may be told.

    Attributes:
        modes: fitted to the data before the network is built.
        adapter: rank of an adapter; 0 has none.
    """

    modes: tuple[float, ...] = ()
    adapter: int = 0


class Graph(Generator[TenantConfig, GraphSpec]):
    """Sizes, atoms and bonds from independent rates, given a weight: the shape of MolGAN."""

    Config = TenantConfig

    def __init__(self, config: TenantConfig, spec: GraphSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.atoms = nn.Linear(1, spec.kinds)
        self.bonds = nn.Linear(1, 4)

    def accepts(self) -> Mapping[str, Spec]:
        return {"weight": self.spec.sides()["weight"]}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("graph", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress):
        weight = batch.extra["weight"][:, None]
        atoms = self.atoms(weight)[:, :, None].expand(-1, -1, batch.x.shape[1])
        bonds = self.bonds(weight)[:, :, None, None].expand(-1, -1, *batch.extra["bonds"].shape[1:])
        return F.cross_entropy(atoms, batch.x, ignore_index=-1) + F.cross_entropy(bonds, batch.extra["bonds"]), {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        weight = given["weight"] if "weight" in given else 2 + 4 * rng.uniform("weight")
        size = weight.round().long().clamp(1, self.spec.most)
        most = int(size.max())
        there = torch.arange(most) < size[:, None]
        chance = self.atoms(weight[:, None]).softmax(1).cumsum(1)
        atoms = (rng.uniform("atoms", self.spec.most)[:, :most, None] > chance[:, None]).sum(2).clamp(max=2)
        bonds = rng.integers("bonds", 4, self.spec.most, self.spec.most)[:, :most, :most]
        both = there[:, :, None] & there[:, None]
        return Batch.of(torch.where(there, atoms, -1), None, {"bonds": torch.where(both, bonds, 0)})


def captioned() -> Rows:
    caption = numbers(24, 3, high=8)
    caption[::3, 2] = -1
    x = (caption.clamp(min=0).float().mean(1) * 30)[:, None, None, None].expand(-1, 1, 2, 2).to(torch.uint8)
    return Rows(x.contiguous(), ImageSpec(1, 2, 2, columns=(("caption", CAPTION),)), {"caption": caption})


class Captioned(Generator[TenantConfig, ImageSpec]):
    """A picture given a caption: the shape of DALL-E. Without one it draws a caption first."""

    Config = TenantConfig

    def __init__(self, config: TenantConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.words = nn.Embedding(9, 4)
        self.out = nn.Linear(4, spec.dims)

    def accepts(self) -> Mapping[str, Spec]:
        return dict(self.spec.columns)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("picture", self, self.loss),)),)

    def mean(self, caption: Tensor) -> Tensor:
        return self.out(self.words(caption.clamp(min=0)).mean(1)).view(-1, *self.spec.shape)

    def loss(self, batch: Batch, rng: Rng, progress: Progress):
        return F.mse_loss(self.mean(batch.extra["caption"]), batch.x.float() / 255), {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        caption = given["caption"] if "caption" in given else rng.integers("caption", 8, 3)
        x = (self.mean(caption) * 255).round().clamp(0, 255).to(torch.uint8)
        return Batch.of(x, None, {"caption": caption})


def structures() -> Rows:
    sequence = numbers(24, 3, high=8)
    spec = PointsSpec(3, columns=(("sequence", CAPTION),))
    return Rows(sequence.float(), spec, {"sequence": sequence})


class Structure(Generator[TenantConfig, PointsSpec]):
    """Coordinates given a sequence, which must be given: the shape of a folding network."""

    Config = TenantConfig

    def __init__(self, config: TenantConfig, spec: PointsSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.place = nn.Embedding(9, 1)

    def accepts(self) -> Mapping[str, Spec]:
        return dict(self.spec.columns)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("fold", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress):
        return F.mse_loss(self.place(batch.extra["sequence"])[..., 0], batch.x), {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        sequence = given["sequence"] if "sequence" in given else rng.integers("sequence", 8, 3)
        return Batch.of(self.place(sequence)[..., 0])


def pictures() -> Table:
    return Table(numbers(32, 1, 4, 4, high=256).to(torch.uint8), ImageSpec(1, 4, 4))


class Frozen(Generator[TenantConfig, ImageSpec], Latents):
    """A frozen encoder of a parent, and a prior trained on its codes: the shape of VQ-VAE, Jukebox, latent diffusion."""

    Config = TenantConfig
    latent_dims = 3

    def __init__(self, config: TenantConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.encoder = nn.Sequential(nn.Conv2d(1, 3, 4), nn.BatchNorm2d(3), nn.Flatten())
        self.prior = nn.Linear(3, 3)
        self.seen: list[tuple[int, bool]] = []

    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.encoder,)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        with torch.no_grad():
            self.encoder[0].weight.copy_(rng.normal("encoder", 3, 1, 4, 4)[0])

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("prior", (Objective("prior", self, self.loss),), data=self.codes),)

    def codes(self, data: Dataset) -> Dataset:
        return Encoded(data, lambda batch: Batch(self.encoder(batch.x.float() / 255), batch.ids), PointsSpec(3))

    def loss(self, batch: Batch, rng: Rng, progress: Progress):
        self.seen.append((batch.x.shape[1], self.encoder.training))
        noise = rng.normal("noise", 3)
        return F.mse_loss(self.prior(batch.x + noise), batch.x), {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        return self.decode(rng.normal("latent", 3))

    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        check_given(self, given, len(z))
        x = self.prior(z).mean(1).sigmoid()[:, None, None, None].expand(-1, 1, 4, 4)
        return Batch.of((x * 255).to(torch.uint8))


class Adapted(Generator[TenantConfig, ImageSpec]):
    """A network that may have a low-rank adapter (LoRA), which starts from a run without one."""

    Config = TenantConfig

    def __init__(self, config: TenantConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.base = nn.Linear(3, spec.dims)
        if config.adapter:
            self.adapter = nn.ModuleDict({"down": nn.Linear(3, config.adapter, bias=False)})
            self.adapter["up"] = nn.Linear(config.adapter, spec.dims, bias=False)
            nn.init.zeros_(self.adapter["up"].weight)

    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.base,) if self.config.adapter else ()

    def adapters(self) -> tuple[nn.Module, ...]:
        return (self.adapter,) if self.config.adapter else ()

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("fit", self, self.loss),)),)

    def out(self, z: Tensor) -> Tensor:
        y = self.base(z)
        return y + self.adapter["up"](self.adapter["down"](z)) if self.config.adapter else y

    def loss(self, batch: Batch, rng: Rng, progress: Progress):
        return F.mse_loss(self.out(rng.normal("z", 3)), batch.x.flatten(1).float() / 255), {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        x = self.out(rng.normal("z", 3)).view(-1, *self.spec.shape)
        return Batch.of((x * 255).round().clamp(0, 255).to(torch.uint8))


class Scorer(Model[TenantConfig, ImageSpec]):
    """It makes nothing: the shape of CLIP, of feature networks, of reward and property predictors."""

    Config = TenantConfig

    def __init__(self, config: TenantConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.score = nn.Linear(spec.dims, 1)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("score", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress):
        x = batch.x.flatten(1).float() / 255
        return F.mse_loss(self.score(x)[:, 0], x.mean(1)), {}


class Fitted(Generator[TenantConfig, PointsSpec]):
    """Its network has an output for each mode that the data have: the shape of CTGAN."""

    Config = TenantConfig

    def __init__(self, config: TenantConfig, spec: PointsSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.register_buffer("modes", torch.tensor(config.modes), persistent=False)
        self.logits = nn.Parameter(torch.zeros(len(config.modes)))

    modes: Tensor

    @classmethod
    def complete(cls, config: TenantConfig, data: Dataset) -> TenantConfig:
        import numpy as np

        values = data.batch(np.arange(len(data))).x[:, 0].unique()
        return TenantConfig(modes=tuple(values.tolist()))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("rates", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress):
        which = (batch.x[:, :1] == self.modes).float().argmax(1)
        return F.cross_entropy(self.logits.expand(len(which), -1), which), {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        chance = self.logits.softmax(0).cumsum(0)
        which = torch.searchsorted(chance, rng.uniform("mode")).clamp(max=len(chance) - 1)
        return Batch.of(self.modes[which][:, None].expand(n, self.spec.dims).contiguous())


def rows() -> Table:
    return Table(numbers(40, 2, high=5).float(), PointsSpec(2))


class GraphMedium(Medium):
    """Just enough of a medium for runs of graphs."""

    name = "graph"
    spec = GraphSpec
    options = Sampling
    shown = 4
    reading = "nothing"

    def reads(self, path):
        return False

    def open(self, path, options, split, like=None, progress=None):
        raise UsageError("no files")

    def named(self):
        return {}

    def open_named(self, name, options, split, like=None, progress=None):
        raise UsageError("no sets")

    def tiny(self):
        return graphs()

    def read(self, text, spec):
        raise UsageError("no text")

    def read_file(self, path, spec):
        raise UsageError("no files")

    def write(self, batch, spec, folder, start=0, recipe=None):
        return []

    def picture(self, batch, spec, columns=None):
        return Image.new("L", (4, 4))

    def rates(self, batch, spec):
        return {}

    def distance(self, a, b, spec):
        return 0.0


TENANTS: dict[str, tuple[type[Model], Dataset]] = {
    "graph": (Graph, graphs()),
    "captioned": (Captioned, captioned()),
    "structure": (Structure, structures()),
    "frozen": (Frozen, pictures()),
    "adapted": (Adapted, pictures()),
    "scorer": (Scorer, pictures()),
    "fitted": (Fitted, rows()),
}
