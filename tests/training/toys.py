"""One toy of each hard kind, to prove the contract before its tenants arrive.

Pictures are 1x4x4. Each toy is the smallest system with the structure that its namesakes will have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.catalogue import Entry
from castalia.configuration import Data, Recipe, Training
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Model, Objective, Optimizer, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.specs.image import ImageSpec
from tests.tools import GENTLE, Table

SPEC = ImageSpec(1, 4, 4)


def table() -> Table:
    """Thirty noisy pictures."""
    x = torch.randint(0, 256, (30, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Table(x, SPEC)


def recipe(name: str, **training: object) -> Recipe:
    """A short training of a toy."""
    settings = {
        "steps": 12,
        "batch_size": 6,
        "log_every": 5,
        "precision": "float32",
        "schedule": GENTLE,
        "samples": 2,
        **training,
    }
    return Recipe(name, ToyConfig(), Data("table"), Training(**settings))  # type: ignore[arg-type]


@dataclass(frozen=True)
class ToyConfig(Config):
    """Nothing to configure."""


class Toy(Generator):
    Config = ToyConfig

    def __init__(self, config: ToyConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.generator = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16))
        self.calls: list[str] = []

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        out = self.generator(options.temperature * rng.normal("z", 3)).sigmoid() * 255
        return Batch.of(out.reshape(n, 1, 4, 4).to(torch.uint8))


class Alternating(Toy):
    """Critic three times, a lazy penalty every fourth step, a generator; adaptive state in a buffer; dropout.

    The shape of WGAN-GP and of StyleGAN2-ADA.
    """

    def __init__(self, config: ToyConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.critic = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
        self.augment = nn.Module()
        self.augment.register_buffer("strength", torch.zeros(()))

    @property
    def strength(self) -> Tensor:
        return self.augment.strength

    def stages(self) -> tuple[Stage, ...]:
        shared = Optimizer("adam", lr=1e-3, betas=(0.0, 0.9))
        return (
            Stage(
                "train",
                (
                    Objective("critic", self.critic, self.critic_loss, shared, repeat=3),
                    Objective("penalty", self.critic, self.penalty, shared, every=4),
                    Objective("generator", self.generator, self.generator_loss, Optimizer("adam", betas=(0.0, 0.9))),
                    Update("adapt", self.augment, self.adapt, every=2),
                ),
            ),
        )

    def fake(self, rng: Rng) -> Tensor:
        return self.generator(rng.normal("z", 3))

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress):
        self.calls.append("critic")
        real = self.critic(batch.x.flatten(1).float() / 255).mean()
        return self.critic(self.fake(rng)).mean() - real, {"real": real}

    def penalty(self, batch: Batch, rng: Rng, progress: Progress):
        self.calls.append("penalty")
        x = (batch.x.flatten(1).float() / 255).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(x).sum(), x, create_graph=True)
        # the last bias does not move the slope: keep it in the graph, as every parameter must be reached
        return slope.square().sum(1).mean() + 0 * self.critic[-1].bias.sum(), {}

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress):
        self.calls.append("generator")
        return -self.critic(self.fake(rng)).mean(), {}

    def adapt(self, batch: Batch, rng: Rng, progress: Progress) -> Mapping[str, Tensor]:
        self.calls.append("adapt")
        self.augment.strength += 0.01
        return {"strength": self.strength.clone()}


class Stages(Toy):
    """An autoencoder, then a prior over its codes: fresh optimizer, other batch size, a hook and a transform.

    The shape of VQ-VAE with a prior, DALL-E, Jukebox, deep belief nets and Progressive GAN.
    """

    def __init__(self, config: ToyConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.encoder = nn.Linear(16, 3)
        self.prior = nn.Linear(3, 3)
        self.entered: list[str] = []
        self.sizes: list[tuple[str, int]] = []

    def stages(self) -> tuple[Stage, ...]:
        auto = nn.ModuleList([self.encoder, self.generator])
        return (
            Stage("codes", (Objective("codes", auto, self.reconstruct),), share=2.0),
            Stage(
                "prior",
                (Objective("prior", self.prior, self.predict, Optimizer("sgd", lr=0.01)),),
                batch_size=4,
                enter=self.start_prior,
                transform=self.to_codes,
            ),
        )

    def start_prior(self, rng: Rng) -> None:
        self.entered.append("prior")
        with torch.no_grad():
            self.prior.weight.copy_(rng.normal("start", 3, 3)[0])

    def to_codes(self, batch: Batch, rng: Rng, progress: Progress) -> Batch:
        return Batch(self.encoder(batch.x.flatten(1).float() / 255), batch.ids)

    def reconstruct(self, batch: Batch, rng: Rng, progress: Progress):
        self.sizes.append(("codes", len(batch)))
        x = batch.x.flatten(1).float() / 255
        return F.mse_loss(self.generator(self.encoder(x)), x), {}

    def predict(self, batch: Batch, rng: Rng, progress: Progress):
        self.sizes.append(("prior", len(batch)))
        return F.mse_loss(self.prior(torch.zeros_like(batch.x)) + 0 * self.prior.weight.sum(), batch.x), {}


class Chain(Toy):
    """A restricted Boltzmann machine by persistent contrastive divergence: its chain is state, it has no loss.

    The shape of PCD and of replay-buffer energy models.
    """

    def __init__(self, config: ToyConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.weight = nn.Parameter(0.01 * torch.randn(16, 8))
        self.register_buffer("chain", torch.zeros(12, 16))

    chain: Tensor

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        self.chain.copy_((rng.uniform("chain", 12, 16)[0] < 0.5).float())

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Update("pcd", self, self.diverge),)),)

    def diverge(self, batch: Batch, rng: Rng, progress: Progress) -> Mapping[str, Tensor]:
        v = (batch.x.flatten(1) > 127).float()
        hidden = (rng.uniform("h", 12, 8)[0] < torch.sigmoid(self.chain @ self.weight)).float()
        self.chain.copy_((rng.uniform("v", 12, 16)[0] < torch.sigmoid(hidden @ self.weight.T)).float())
        data = v.T @ torch.sigmoid(v @ self.weight) / len(v)
        model = self.chain.T @ torch.sigmoid(self.chain @ self.weight) / len(self.chain)
        self.weight += 0.1 * (data - model)
        return {"weight": self.weight.norm()}


class GradientFree(Toy):
    """An evolution strategy: population mean and step size are buffers. The shape of a world model's controller."""

    def __init__(self, config: ToyConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("sigma", torch.ones(()))

    mean: Tensor
    sigma: Tensor

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("vision", (Objective("vision", self.generator, self.vision),)),
            Stage("controller", (Update("evolve", self, self.evolve),)),
        )

    def vision(self, batch: Batch, rng: Rng, progress: Progress):
        return self.generator(rng.normal("z", 3)).square().mean(), {}

    def evolve(self, batch: Batch, rng: Rng, progress: Progress) -> Mapping[str, Tensor]:
        noise = rng.normal("population", 16, 2)[0]
        cost = (self.mean + self.sigma * noise - torch.tensor([1.0, -2.0])).square().sum(1)
        best = noise[cost.argsort()[:4]].mean(0)
        self.mean += self.sigma * best
        self.sigma *= 0.97
        return {"cost": cost.min()}


class Poisoned(Toy):
    """Gives a non-finite loss or gradient in chosen steps, after touching a floating buffer (as batch norm does)."""

    bad_loss: tuple[int, ...] = ()
    bad_gradient: tuple[int, ...] = ()
    bad_update: tuple[int, ...] = ()

    def __init__(self, config: ToyConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("running", torch.zeros(()))

    running: Tensor

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("loss", self, self.loss), Update("drift", self, self.drift))),)

    def drift(self, batch: Batch, rng: Rng, progress: Progress) -> Mapping[str, Tensor]:
        bad = progress.step in self.bad_update
        self.generator[0].weight.add_(float("nan") if bad else 1e-3)
        return {"silent": torch.tensor(float("nan") if progress.step % 2 else 1.0)}

    def loss(self, batch: Batch, rng: Rng, progress: Progress):
        out = self.generator(rng.normal("z", 3)).square().mean()
        self.running.fill_(float("nan") if progress.step in self.bad_loss else float(progress.step))
        if progress.step in self.bad_loss:
            out = out * float("nan")
        if progress.step in self.bad_gradient:
            out = out + (self.generator[0].bias[0] - self.generator[0].bias[0].detach()).abs().sqrt()
        return out, {}


TOYS: dict[str, type[Toy]] = {
    "toy-alternating": Alternating,
    "toy-stages": Stages,
    "toy-chain": Chain,
    "toy-gradient-free": GradientFree,
    "toy-poisoned": Poisoned,
}


def entry_of(name: str, kind: type[Model]) -> Entry:
    """A catalogue entry for a class of the tests."""
    return Entry(name, name, "toys", ("image", "points", "graph"), "none", (), kind)


def entries() -> dict[str, Entry]:
    """Catalogue entries of the toys."""
    return {name: entry_of(name, cls) for name, cls in TOYS.items()}
