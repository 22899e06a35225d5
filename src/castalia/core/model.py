"""The contract between a system and everything around it.

A :class:`Model` is one system from one paper, written as single-device code. It says *what* is optimised
(:class:`Stage`, :class:`Objective`, :class:`Update`); the training loop decides *how*: precision, sharding,
averaging of weights, checkpoints, logging. What a model can do it declares by type (:class:`Generator`,
:class:`Density`, :class:`Latents`, :class:`Inference`, :class:`Refinement`, :class:`Streaming`, :class:`Exportable`),
and one conformance suite holds it to its word. Whatever goes in or comes out is a :class:`Batch` in natural units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import torch
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError, near
from castalia.core.guest import guest
from castalia.core.rng import Rng, SampleRng, derive
from castalia.core.spec import Field, LabelSpec, Spec

Logs = Mapping[str, Tensor]

Given = Mapping[str, Tensor]
"""What is asked for, by the names of :meth:`Generator.accepts`: each the ``x`` of its spec, first dimension n."""


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
class Sampling(Config):
    """How to sample. Systems add options of their own, each with a default, so that all can be typed and stored.

    Attributes:
        temperature: 1 samples the model; less is closer to its modes.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError("temperature must be a number from 0 up")


@dataclass(frozen=True)
class Preview:
    """Where sampling step by step stands.

    Attributes:
        step: steps done, from 1.
        steps: steps at most; a sampler may stop before.
        examples: computes what the finished examples would be as far as can be told now, or their beginning where they
            are made piece by piece.
    """

    step: int
    steps: int
    examples: Callable[[], Batch]


Watch = Callable[[Preview], None]
"""Called after each step of a sampler that has steps. What it raises ends the sampling."""

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
    """

    Config: ClassVar[type[Config]]
    shard_units: ClassVar[tuple[type[nn.Module], ...]] = ()
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


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods of examples, and what kind of number they are.

    Attributes:
        nats: ``float64`` (B,), log-likelihood (or a bound on it) of each example in natural units.
        kind: ``exact``; ``bound`` (in expectation not above the truth); ``estimate``.
        detail: how it was obtained, for example ``importance weighted, K = 5000``.
        preprocessing: what was done to the data first, for example ``dynamic binarisation``.
        values: the natural values, least first, over which pictures have a probability, where those are not all 256. It
            is what baselines must be measured over as well: among fewer values each is likelier.
        error: numerical error of one of them in nats, as far as it was looked for: of the solver of an equation.
    """

    nats: Tensor
    kind: Literal["exact", "bound", "estimate"]
    detail: str
    preprocessing: str
    values: tuple[int, ...] | None = None
    error: float = 0.0


class Density(ABC):
    """A model that can say how likely an example is."""

    @abstractmethod
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Log-likelihood of examples in natural units, given what stands beside them where the model is conditional.

        Args:
            batch: examples (B, ...).
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
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        """Examples in natural units from latents (B, latent_dims).

        Args:
            z: latents ``float32``.
            given: as in :meth:`Generator.sample`; what is missing is as if it were unknown where the model knows that,
                else the most frequent.
            rng: draws what the latents leave open; None gives the expected example.
        """


class Inference(Latents):
    """A model that also finds the latents of an example."""

    @abstractmethod
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        """Latents ``float32`` (B, latent_dims) of examples; the mean, or a posterior draw where ``rng`` is given."""

    @abstractmethod
    def posterior_kl(self, batch: Batch) -> Tensor:
        """KL to the prior per latent dimension, nats, ``float32`` (B, latent_dims).

        Infinite throughout where an example has one latent vector and no other.
        """


class Refinement(ABC):
    """A model that can redraw given examples, wholly (image-to-image) or in part (inpainting)."""

    spec: Any

    @final
    @torch.no_grad()
    def refine(
        self,
        batch: Batch,
        *,
        strength: float = 1.0,
        mask: Tensor | None = None,
        given: Given | None = None,
        rng: SampleRng,
        options: Sampling | None = None,
        watch: Watch | None = None,
    ) -> Batch:
        """Examples like those of ``batch``, in natural units, same shape.

        Args:
            batch: examples (B, ...) in natural units.
            strength: 0 returns them as they are; 1 keeps nothing of what is redrawn. The steps asked for are the steps
                run, whatever the strength.
            mask: ``bool`` (B or 1, 1, H, W), True where to redraw; everything else comes back bit for bit. None
                redraws everything.
            given: as in :meth:`Generator.sample`.
            rng: one stream per example.
            options: as in :meth:`Generator.sample`.
            watch: as in :meth:`Generator.sample`.

        Raises:
            UsageError: examples of another shape, a strength outside [0, 1], a mask that does not fit, or what
                :meth:`Generator.sample` refuses.
        """
        assert isinstance(self, Generator)
        check_redraw(batch.x, strength, mask, self.spec.fields()["x"].shape)
        checked, chosen = check_given(self, given, len(batch)), sampling(self, options)
        if strength == 0:
            return replace(batch, x=batch.x.clone())
        x = self.redraw(batch, strength, mask, checked, rng, chosen, watch)
        x = x if mask is None else torch.where(mask.to(x.device), x, batch.x.to(x.device))
        return replace(batch, x=x)

    @abstractmethod
    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: Any,
        watch: Watch | None,
    ) -> Tensor:
        """The ``x`` of what :meth:`refine` returns; everything has been checked, strength is above 0.

        What lies outside the mask is put back afterwards; a model may, and mostly must, hold it on its way as well.
        """


class Streaming(ABC):
    """A model that makes its examples piece by piece: tokens, samples of sound, rows of a picture.

    ``draw`` and this are one sampler: the pieces of a stream, one behind the other, are the example.

    Attributes:
        along: the dimension of ``x`` along which the pieces follow one another; -1 is the last.
    """

    along: ClassVar[int] = -1

    @abstractmethod
    def start(self, n: int, given: Given, rng: SampleRng, options: Any) -> Any:
        """The state of ``n`` streams before their first piece; what is given as their beginning has been taken in."""

    @abstractmethod
    def advance(self, state: Any) -> tuple[Tensor, Any]:
        """The next piece of each stream (n, ...), natural units, and the state after it.

        Raises:
            StopIteration: all streams have ended.
        """

    @abstractmethod
    def naive(self, n: int, given: Given, rng: SampleRng, options: Any) -> Batch:
        """What ``draw`` returns, computed anew from the beginning for every piece: slow, and easy to believe."""


class Exportable(ABC):
    """A model whose network calls can run outside Castalia."""

    @abstractmethod
    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Return, by name, a module of one network call and example inputs (first dimension is the batch)."""


CAPABILITIES: tuple[type, ...] = (Generator, Density, Latents, Inference, Refinement, Streaming, Exportable)


def build(cls: type[Model], config: Config, spec: Spec, seed: int = 0) -> Model:
    """Construct a model whose initial weights depend on ``seed`` only, leaving torch's generator as it was."""
    with guest(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        return cls(config, spec)  # type: ignore[call-arg]


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


def check_given(model: Generator, given: Given | None, n: int) -> dict[str, Tensor]:
    """What was given, on the model's device.

    Raises:
        UsageError: the model does not accept it, or it is of another type, shape or range than it should be.
    """
    known = model.accepts()
    checked: dict[str, Tensor] = {}
    for name, value in (given or {}).items():
        if name not in known:
            if name == "label":
                raise UsageError("This model is not conditional: it was trained without labels, and takes no class.")
            what = f"It takes: {', '.join(known)}. {near(name, known)}" if known else "It takes nothing."
            raise UsageError(f"This model cannot be given {name!r}. {what}")
        check_field(name, value, known[name], n)
        checked[name] = value.to(model.device)
    return checked


def check_field(name: str, value: Tensor, spec: Spec, n: int) -> None:
    """Refuse a tensor that is not n times the ``x`` of ``spec``.

    Raises:
        UsageError: the text names it and says what is wrong.
    """
    field: Field = spec.fields()["x"]
    shape = "(" + ", ".join([str(n), *("any" if d is None else str(d) for d in field.shape)]) + ")"
    fits = value.ndim == 1 + len(field.shape) and len(value) == n
    sizes = zip(field.shape, value.shape[1:], strict=False)
    if value.dtype != field.dtype or not fits or any(d not in (None, s) for d, s in sizes):
        raise UsageError(f"{name} must be {field.dtype} of shape {shape}, not {value.dtype} {tuple(value.shape)}.")
    if value.is_floating_point() and not value.isfinite().all():
        raise UsageError(f"{name}: some values are not finite.")
    if not value.numel() or (field.low is None and field.high is None):
        return
    open_ended = any(d is None for d in field.shape)
    inside = value[value != field.padding] if open_ended else value
    if not inside.numel():
        return
    low, high = inside.min().item(), inside.max().item()
    if (field.low is not None and low < field.low) or (field.high is not None and high > field.high):
        bounds = f"from {field.low:g} up" if field.high is None else f"between {field.low:g} and {field.high:g}"
        what = "labels" if isinstance(spec, LabelSpec) else "values"
        raise UsageError(f"{name}: the {what} must lie {bounds}, not {low:g} to {high:g}.")


def check_redraw(x: Tensor, strength: float, mask: Tensor | None, shape: tuple[int | None, ...]) -> None:
    """Refuse what cannot be redrawn.

    Raises:
        UsageError: examples of another shape, a strength outside [0, 1], or a mask that does not fit.
    """
    if tuple(x.shape[1:]) != shape:
        raise UsageError(f"This model redraws examples of shape {shape}, not {tuple(x.shape[1:])}.")
    if not 0 <= strength <= 1:
        raise UsageError(f"strength lies between 0 and 1; {strength:g} does not.")
    if mask is None:
        return
    fits = mask.dtype == torch.bool and mask.ndim == x.ndim and mask.shape[0] in (1, len(x))
    if not fits or any(m not in (1, s) for m, s in zip(mask.shape[1:], shape, strict=True)):
        raise UsageError(
            f"The mask must be bool and fit {tuple(x.shape)} (1 or all examples, 1 or all channels, the same size), "
            f"not {mask.dtype} {tuple(mask.shape)}."
        )


def sampling(model: Generator, options: Sampling | None) -> Any:
    """The sampling options to use: the given ones, or the model's defaults.

    Raises:
        UsageError: they are those of another system.
    """
    kind = model.SampleOptions
    if options is None:
        return kind()
    if not isinstance(options, kind):
        raise UsageError(f"{type(model).__name__} takes {kind.__name__}, not {type(options).__name__}.")
    return options
