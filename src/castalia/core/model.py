"""The contract between a system and everything around it.

A :class:`Model` is one system from one paper, written as single-device code. It says *what* is optimised
(:class:`Stage`, :class:`Objective`, :class:`Update`); the training loop decides *how*: precision, sharding,
averaging of weights, checkpoints, logging. What a model can do besides sampling it declares by type
(:class:`Density`, :class:`Latents`, :class:`Inference`, :class:`Refinement`, :class:`Exportable`), and one
conformance suite holds it to its word.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset, Spec
from castalia.core.errors import UsageError
from castalia.core.rng import Rng, SampleRng, derive

Logs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of a system: a frozen dataclass of plain values that survives a JSON round trip."""


@dataclass(frozen=True)
class Progress:
    """Where training stands, for schedules that live inside an objective (KL warm-up, fading in).

    Attributes:
        step: steps done in this stage.
        steps: steps that this stage will do in all.
    """

    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """Share of the stage that is done, 0 to 1."""
        return self.step / max(self.steps, 1)


@dataclass(frozen=True)
class NoOptions(Config):
    """The sampling options of a system that has none."""


@dataclass(frozen=True)
class Preview:
    """Where sampling step by step stands.

    Attributes:
        step: steps done, from 1.
        steps: steps in all.
        examples: computes what the finished examples would be as far as can be told now, natural units (n, ...).
    """

    step: int
    steps: int
    examples: Callable[[], Tensor]


Watch = Callable[[Preview], None]
"""Called after each step of a sampler that has steps. What it raises ends the sampling."""

LossFn = Callable[[Batch, Rng, Progress], tuple[Tensor, Logs]]
UpdateFn = Callable[[Batch, Rng, Progress], Logs]


@dataclass(frozen=True)
class Optimizer:
    """How an objective's parameters move. ``None`` fields are taken from the recipe's training section.

    Attributes:
        name: ``adamw`` (decoupled decay), ``adam`` (L2 inside the gradient), ``adamax``, ``rmsprop`` or ``sgd``.
        lr: peak learning rate.
        betas: decay rates of the moments (momentum is ``betas[0]`` for rmsprop and sgd).
        eps: added to the denominator.
        weight_decay: strength of the decay; vectors and scalars are never decayed.
    """

    name: Literal["adamw", "adam", "adamax", "rmsprop", "sgd"] = "adamw"
    lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr <= 0:
            raise ValueError("lr must be positive")
        if not all(0 <= beta < 1 for beta in self.betas) or self.eps < 0 or self.weight_decay < 0:
            raise ValueError("betas lie in [0, 1); eps and weight_decay must not be negative")


@dataclass(frozen=True)
class Objective:
    """One loss and the parameters that it moves.

    Several objectives alternate within a step, in the order listed: a critic five times, then a generator.

    Attributes:
        name: prefix of its logged values; unique within the stage.
        module: whose parameters the loss moves, all of them and no others. For a subset, make an
            ``nn.ModuleList`` of the parts.
        loss: ``(batch, rng, progress) -> (scalar float32 loss, named scalars to log)``; the mean over the batch.
        optimizer: its optimizer; None uses the recipe's. Objectives that share a module *and* an equal
            optimizer share the optimizer's state (lazy regularisation).
        every: runs only in steps divisible by it (R1 every 16).
        repeat: gradient updates per step, each with a fresh batch (critic x 5).
        project: called after each move of the parameters, under ``torch.no_grad``, to bring them back to where they
            must lie (weight clipping). It draws nothing and sees whole parameters, which it changes in place.
    """

    name: str
    module: nn.Module
    loss: LossFn
    optimizer: Optimizer | None = None
    every: int = 1
    repeat: int = 1
    project: Callable[[], None] | None = None


@dataclass(frozen=True)
class Update:
    """A step without gradients: contrastive divergence, CMA-ES, k-means, adaptive augmentation.

    ``step`` changes the module's parameters and buffers in place. Whatever must survive an interruption has to
    be a buffer of the module. Several processes call it with their own rows and must agree afterwards: after each
    call the module's parameters become their mean over processes, and its buffers those of the first process.
    Where it leaves anything non-finite, the module is put back as it was and the step counts as refused.

    Attributes:
        name: prefix of its logged values.
        module: what it changes.
        step: ``(batch, rng, progress) -> named scalars to log``, under ``torch.no_grad``.
        every: runs only in steps divisible by it.
        repeat: calls per step, each with a fresh batch.
    """

    name: str
    module: nn.Module
    step: UpdateFn
    every: int = 1
    repeat: int = 1


@dataclass(frozen=True)
class Stage:
    """A stretch of training with its own objectives and fresh optimizers; stages follow one another.

    Attributes:
        name: for logs; unique within the model.
        objectives: what happens in one step, in order.
        share: part of the run's total steps, relative to the other stages' shares.
        batch_size: examples per draw over all processes; None uses the recipe's.
        enter: called once before the stage's first step, to set weights or buffers from the previous stage. It is
            not called again on a resume inside the stage: what it does must lie in the state dict.
        transform: applied to each batch before the objectives see it, for example a frozen encoder or a
            lower resolution.
    """

    name: str
    objectives: tuple[Objective | Update, ...]
    share: float = 1.0
    batch_size: int | None = None
    enter: Callable[[Rng], None] | None = None
    transform: Callable[[Batch], Batch] | None = None


C = TypeVar("C", bound=Config)
S = TypeVar("S", bound=Spec)
O = TypeVar("O", bound=Config)


class Model(nn.Module, ABC, Generic[C, S]):
    """One system, with a configuration C, for examples of shape S.

    Construct with ``Model(config, spec)``; initial weights come from torch's global generator (see :func:`build`).

    Attributes:
        Config: the class of its configuration.
        SampleOptions: the class of its sampling options. Every field has a default, and ``SampleOptions()`` is how the
            system samples unless told otherwise.
        config: its configuration.
        spec: the shape of one example.
        classes: number of class labels that it can be asked for; 0 where it is not conditional.
        shard_units: classes of modules whose parameters nobody but their own ``forward`` uses, and through which no
            loss takes a gradient of a gradient. Sharded training gathers them one at a time, and in bfloat16 where it
            computes in that.
    """

    Config: ClassVar[type[Config]]
    SampleOptions: ClassVar[type[Config]] = NoOptions
    shard_units: ClassVar[tuple[type[nn.Module], ...]] = ()
    config: C
    spec: S
    classes: int = 0

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Fit what must be known before step 0: base rates, actnorm, tokenizers, encoders of tables.

        Called once per run, on every process with the same arguments, never on resume. The default does nothing.

        Args:
            data: the training set.
            rng: randomness of 1 row.
            parents: models of the finished runs that the recipe names.
        """

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """Return what training does, in order. Most models have one stage."""

    @abstractmethod
    def sample(
        self,
        n: int,
        condition: Tensor | None = None,
        *,
        rng: SampleRng,
        temperature: float = 1.0,
        options: Config | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Return ``n`` new examples in natural units.

        Args:
            n: how many; equals ``rng.rows``.
            condition: class labels ``int64`` (n,) below ``classes``; None lets a conditional system choose.
            rng: one stream per example: the example depends on its own stream only.
            temperature: 1 samples the model; less is closer to its modes.
            options: an instance of ``SampleOptions``; None is the default one.
            watch: told of every step by systems that sample in steps; others ignore it.

        Raises:
            UsageError: a condition where ``classes`` is 0, or labels out of range (see :func:`check_condition`).
        """

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods of examples, and what kind of number they are.

    Attributes:
        nats: ``float64`` (B,), log-likelihood (or a bound on it) of each example in natural units.
        kind: ``exact``; ``bound`` (in expectation not above the truth); ``estimate``.
        detail: how it was obtained, for example ``importance weighted, K = 5000``.
        preprocessing: what was done to the data first, for example ``dynamic binarisation``.
    """

    nats: Tensor
    kind: Literal["exact", "bound", "estimate"]
    detail: str
    preprocessing: str


class Density(ABC):
    """A model that can say how likely an example is."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Log-likelihood of examples in natural units.

        Args:
            x: examples (B, ...).
            rng: one stream per example.
            samples: importance samples per example, for models with a bound; others ignore it.
        """


class Latents(ABC):
    """A model that makes each example from a latent vector whose prior is a standard normal.

    Attributes:
        latent_dims: length of the vector.
    """

    latent_dims: int

    @abstractmethod
    def decode(self, z: Tensor, condition: Tensor | None = None, *, rng: SampleRng | None = None) -> Tensor:
        """Examples in natural units from latents (B, latent_dims).

        Args:
            z: latents ``float32``.
            condition: class labels ``int64`` (B,) of a conditional model; None takes class 0, or none where the model
                can do without.
            rng: draws what the latents leave open; None gives the expected example.
        """


class Inference(Latents):
    """A model that also finds the latents of an example."""

    @abstractmethod
    def encode(self, x: Tensor, *, rng: SampleRng | None = None) -> Tensor:
        """Latents ``float32`` (B, latent_dims) of examples; the mean, or a posterior draw where ``rng`` is given."""

    @abstractmethod
    def posterior_kl(self, x: Tensor) -> Tensor:
        """KL to the prior per latent dimension, nats, ``float32`` (B, latent_dims)."""


class Refinement(ABC):
    """A model that can redraw given examples, wholly (image-to-image) or in part (inpainting)."""

    @abstractmethod
    def refine(
        self,
        x: Tensor,
        *,
        strength: float = 1.0,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
        rng: SampleRng,
        options: Config | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Examples like ``x``, in natural units, same shape.

        Args:
            x: examples (B, ...) in natural units.
            strength: 0 returns ``x`` as it is; 1 keeps nothing of what is redrawn. The steps asked for are the steps
                run, whatever the strength.
            mask: ``bool`` (B or 1, 1, H, W), True where to redraw; everything else comes back bit for bit. None
                redraws everything.
            condition: as in :meth:`Model.sample`.
            rng: one stream per example.
            options: as in :meth:`Model.sample`.
            watch: as in :meth:`Model.sample`.
        """


class Exportable(ABC):
    """A model whose network calls can run outside Castalia."""

    @abstractmethod
    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Return, by name, a module of one network call and example inputs (first dimension is the batch)."""


CAPABILITIES: tuple[type, ...] = (Density, Latents, Inference, Refinement, Exportable)


def build(cls: type[Model], config: Config, spec: Spec, seed: int = 0) -> Model:
    """Construct a model whose initial weights depend on ``seed`` only, leaving torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        return cls(config, spec)  # type: ignore[call-arg]


def check_condition(model: Model, condition: Tensor | None, n: int) -> None:
    """Refuse a condition that ``model`` cannot take.

    Raises:
        UsageError: the model is not conditional, or the labels are not ``int64`` (n,) from 0 to ``classes - 1``.
    """
    if condition is None:
        return
    if not model.classes:
        raise UsageError("This model is not conditional: it was trained without labels, and takes no class.")
    if condition.dtype != torch.int64 or condition.shape != (n,):
        raise UsageError(f"The labels must be int64 of shape ({n},), not {condition.dtype} {tuple(condition.shape)}.")
    if n and not 0 <= int(condition.min()) <= int(condition.max()) < model.classes:
        raise UsageError(f"The labels must lie between 0 and {model.classes - 1}.")


def sample_options(model: Model, options: Config | None, kind: type[O]) -> O:
    """The sampling options to use: the given ones, or the defaults of ``kind``, which is the model's SampleOptions.

    Raises:
        UsageError: they are those of another system.
    """
    if options is None:
        return kind()
    if not isinstance(options, kind):
        raise UsageError(f"{type(model).__name__} takes {kind.__name__}, not {type(options).__name__}.")
    return options
