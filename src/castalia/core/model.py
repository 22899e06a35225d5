"""The contract between a system and everything around it.

A :class:`Model` is one system from one paper, written as single-device code. It says *what* is optimised
(:class:`Stage`, :class:`Objective`, :class:`Update`); the training loop decides *how*: precision, sharding,
averaging of weights, checkpoints, logging. What a model can do it declares by type (:class:`Generator`,
:class:`Density`, :class:`Latents`, :class:`Inference`, :class:`Searchable`, :class:`Styled`, :class:`Refinement`,
:class:`Reversible`, :class:`Upscaling`, :class:`Streaming`, :class:`Meshing`, :class:`Perception`, :class:`Matching`,
:class:`Exportable`), and one conformance suite holds it to its word. Whatever goes in or comes out is a
:class:`Batch` in natural units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import torch
from torch import Tensor, nn

from castalia.core.capabilities import (
    Density,
    Exportable,
    Inference,
    Latents,
    Matching,
    Meshing,
    Perception,
    Refinement,
    Reversible,
    Searchable,
    Streaming,
    Styled,
    Upscaling,
)
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UnbuildableError, UsageError
from castalia.core.guest import guest
from castalia.core.rng import Rng, SampleRng, derive
from castalia.core.sampling import Given, Sampling, Watch, check_given, sampling
from castalia.core.spec import Spec

Logs = Mapping[str, Tensor]


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


LossFn = Callable[[Batch, Rng, Progress], tuple[Tensor, Logs]]
UpdateFn = Callable[[Batch, Rng, Progress], Logs]


@dataclass(frozen=True)
class Optimizer:
    """How an objective's parameters move. ``None`` fields are taken from the recipe's training section.

    Attributes:
        name: ``adamw`` (decoupled decay), ``adam`` (L2 inside the gradient), ``adamax``, ``rmsprop``, ``sgd``, or
            ``muon`` (matrices of hidden layers by orthogonal updates, everything else by ``adamw``).
        lr: peak learning rate.
        betas: decay rates of the moments (momentum is ``betas[0]`` for rmsprop and sgd).
        eps: added to the denominator.
        weight_decay: strength of the decay; never of vectors and scalars, nor of what a module calls ``undecayed``.
        others: ``muon``: learning rate of what is no matrix of a hidden layer, relative to that of those.
    """

    name: Literal["adamw", "adam", "adamax", "rmsprop", "sgd", "muon"] = "adamw"
    lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0
    others: float = 0.5

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr <= 0:
            raise ValueError("lr must be positive")
        if not all(0 <= beta < 1 for beta in self.betas) or self.eps < 0 or self.weight_decay < 0:
            raise ValueError("betas lie in [0, 1); eps and weight_decay must not be negative")
        if self.others <= 0:
            raise ValueError("others must be positive")


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
        apart: buffers whose changes by all processes are added up: each changes what belongs to its own rows (a replay
            buffer), or by its share of the batch (running means).
    """

    name: str
    module: nn.Module
    step: UpdateFn
    every: int = 1
    repeat: int = 1
    apart: tuple[Tensor, ...] = ()


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
        transform: ``(batch, rng, progress)``, applied to each batch before the objectives see it, in float32 and with
            its own randomness: a frozen encoder, a lower resolution, noise.
        data: the stage's own examples, made from the training set: episodes instead of their frames, the codes of a
            frozen encoder. It is called at the stage's entry and on every resume inside it, and must give the same.
    """

    name: str
    objectives: tuple[Objective | Update, ...]
    share: float = 1.0
    batch_size: int | None = None
    enter: Callable[[Rng], None] | None = None
    transform: Callable[[Batch, Rng, Progress], Batch] | None = None
    data: Callable[[Dataset], Dataset] | None = None


@dataclass(frozen=True)
class Cut:
    """How a linear layer of a shard unit is cut up where processes share each block (tensor parallelism).

    Attributes:
        of: ``outputs``: each process computes some of its outputs, of an input that all have; ``inputs``: each has some
            of its inputs, and the outputs are added up.
        parts: stretches of outputs, each of which is cut by itself: 3 for queries, keys and values in one layer.
    """

    of: Literal["outputs", "inputs"]
    parts: int = 1


C = TypeVar("C", bound=Config)
S = TypeVar("S", bound=Spec)


class Model(nn.Module, ABC, Generic[C, S]):
    """One system, with a configuration C, for examples of shape S: a generator, or what others are built on.

    Construct with ``Model(config, spec)``; initial weights come from torch's global generator (see :func:`build`).

    Attributes:
        Config: the class of its configuration.
        config: its configuration.
        spec: the shape of one example.
        shard_units: classes of modules whose parameters nobody but their own ``forward`` uses, and through which no
            loss takes a gradient of a gradient. Sharded training gathers them one at a time, and in bfloat16 where it
            computes in that.
        cuts: linear layers of the ``shard_units``, by their names there, that tensor parallelism cuts up; empty where a
            system knows none. Modules of a unit that have ``heads`` then have those of their process.
    """

    Config: ClassVar[type[Config]]
    shard_units: ClassVar[tuple[type[nn.Module], ...]] = ()
    cuts: ClassVar[Mapping[str, Cut]] = {}
    config: C
    spec: S

    @classmethod
    def complete(cls, config: C, data: Dataset) -> C:
        """Put what only the data know into a configuration, before the network is built: modes of columns, a base.

        Called once per run; the run stores the result, and builds its network from it ever after. What is large
        becomes an :class:`~castalia.core.assets.Asset`. (A vocabulary belongs to the medium, and is in the spec.) The
        default changes nothing.
        """
        return config

    @classmethod
    def inherit(cls, config: C, parents: Mapping[str, Config]) -> C:
        """Take over what the finished runs settle that the recipe names: sizes of a network that is started from.

        Called once per run, before :meth:`complete`, with the completed configurations of the parents by role. The
        default changes nothing: a recipe says all.
        """
        return config

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Fit what must be known before step 0: base rates, actnorm. It changes values, never shapes.

        Called once per run, on every process with the same arguments, never on resume. The default does nothing.

        Args:
            data: the training set.
            rng: randomness of 1 row.
            parents: models of the finished runs that the recipe names.
        """

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """Return what training does, in order. Most models have one stage."""

    def frozen(self) -> tuple[nn.Module, ...]:
        """Parts that training leaves as they are: a parent's encoder, the base below an adapter.

        They are in evaluation mode throughout, get no gradients, are not averaged, and are stored once. The default
        has none.
        """
        return ()

    def adapters(self) -> tuple[nn.Module, ...]:
        """Parts that a run of the same network without them does not have; the role ``start`` may leave them out."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device


class Generator(Model[C, S]):
    """A model that makes new examples.

    Attributes:
        SampleOptions: the class of its sampling options. Every field has a default, and ``SampleOptions()`` is how the
            system samples unless told otherwise.
    """

    SampleOptions: ClassVar[type[Sampling]] = Sampling

    def accepts(self) -> Mapping[str, Spec]:
        """What it can be given, by name: ``label``, ``prompt``, ``caption``, a number, a mask. The default is nothing.

        What it is not given is left to the model, in every system alike: the example comes from the distribution that
        the training data have over it.
        """
        return {}

    @final
    @torch.no_grad()
    def sample(
        self,
        n: int,
        given: Given | None = None,
        *,
        rng: SampleRng,
        options: Sampling | None = None,
        watch: Watch | None = None,
    ) -> Batch:
        """Return ``n`` new examples in natural units.

        Args:
            n: how many; equals ``rng.rows``.
            given: what is asked for; every tensor has first dimension n.
            rng: one stream per example: the example depends on its own stream only.
            options: an instance of ``SampleOptions``; None is the default one.
            watch: told of every step by systems that sample in steps; others ignore it.

        Raises:
            UsageError: something is given that the model does not accept or that does not fit, or the options are
                those of another system.
        """
        if n != rng.rows:
            raise UsageError(f"{n} examples were asked for with randomness for {rng.rows}.")
        checked = check_given(self, given, n)
        return self.draw(n, checked, rng, sampling(self, options), watch)

    @abstractmethod
    def draw(self, n: int, given: Given, rng: SampleRng, options: Any, watch: Watch | None) -> Batch:
        """What :meth:`sample` returns; everything has been checked, ``given`` is on the model's device."""

    def cost(self, options: Any) -> int:
        """Numbers that one example takes, roughly: so many fewer are drawn at once. The default is what its spec says.

        Systems whose examples have open dimensions know from their options how long they become.
        """
        total = 0
        for field in self.spec.fields().values():
            size = 1
            for d in field.shape:
                size *= d or 1
            total += size
        return total


CAPABILITIES: tuple[type, ...] = (
    Generator,
    Density,
    Latents,
    Inference,
    Searchable,
    Styled,
    Meshing,
    Refinement,
    Reversible,
    Upscaling,
    Streaming,
    Perception,
    Matching,
    Exportable,
)


def build(cls: type[Model], config: Config, spec: Spec, seed: int = 0) -> Model:
    """Construct a model whose initial weights depend on ``seed`` only, leaving torch's generator as it was.

    Raises:
        UnbuildableError: its options do not fit each other, or the data.
    """
    with guest(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        try:
            return cls(config, spec)  # type: ignore[call-arg]
        except ValueError as error:
            raise UnbuildableError(f"This model cannot be built: {str(error).rstrip('.')}.") from error


def lay_out(model: nn.Module) -> None:
    """Lay weights of two-dimensional convolutions out channels-last, in which they are faster; others stay."""
    for p in model.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)


def training_mode(model: Model) -> None:
    """Put a model into training mode, and what it keeps frozen into evaluation mode."""
    model.train()
    for part in model.frozen():
        part.eval()
        part.requires_grad_(False)


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Run a block with the model in evaluation mode and without gradients; then it is as it was."""
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        if training:
            training_mode(model)
