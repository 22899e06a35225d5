"""A stage made ready: its order of examples, its optimizers, its wrapped losses; and one update of each."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from castalia.checkpoints import Checkpoint
from castalia.configuration import Budget, Training
from castalia.core.data import Batch, Dataset, Order
from castalia.core.errors import UsageError, near
from castalia.core.model import Model, Objective, Optimizer, Progress, Stage, Update, evaluating
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import BatchRng, derive
from castalia.core.threads import asked, cores
from castalia.training import optimizers, parallel, sharding
from castalia.training.parallel import World
from castalia.training.sharding import Shards
from castalia.training.splitting import Split


@dataclass
class Part:
    """One objective (or update) of a stage with what was made for it.

    Attributes:
        objective: the objective.
        call: runs its loss, averaging gradients over processes; None for an update.
        optimizer: moves its parameters; None for an update.
        optimizer_name: under which the optimizer's state is saved.
        parameters: what it moves.
        others: the model's other parameters, which its loss must not reach.
        buffers: floating buffers of the whole model, restored where a step is refused: its loss may run other
            networks too, whose batch statistics must not keep what was not finite.
        first_draw: number of its first batch among the step's batches.
    """

    objective: Objective | Update
    call: nn.Module | None
    optimizer: torch.optim.Optimizer | None
    optimizer_name: str
    parameters: list[nn.Parameter]
    others: list[nn.Parameter]
    buffers: list[Tensor]
    first_draw: int
    kept: list[Tensor] = field(default_factory=list)

    def spare(self, state: Sequence[Tensor]) -> list[Tensor]:
        """Copies of tensors, in memory that is there from the last time."""
        if [t.shape for t in self.kept] != [t.shape for t in state]:
            self.kept = [torch.empty_like(t) for t in state]
        if state:  # a buffer of 8-bit pictures has none
            torch._foreach_copy_(self.kept, list(state))  # pyright: ignore[reportPrivateImportUsage]
        return self.kept

    def select(self) -> None:
        """Let gradients reach this part's parameters and no others."""
        for p in self.parameters:
            p.requires_grad_(True)
        for p in self.others:
            p.requires_grad_(False)


class ActiveStage:
    """A stage between its first and last step.

    Args:
        stage: what the model asked for.
        start: the run's step at which it begins.
        steps: how many steps it has.
        model: the whole model.
        data: its examples, see :func:`examples_of`.
        training: the recipe's training section.
        world: this process among its peers.
        shards: the model, where it is cut up.
    """

    def __init__(
        self,
        stage: Stage,
        start: int,
        steps: int,
        model: Model,
        data: Dataset,
        training: Training,
        world: World,
        shards: Shards | Split | None = None,
    ) -> None:
        self.shards = shards
        self.stage, self.start, self.steps = stage, start, steps
        self.data, self.training, self.world = data, training, world
        self.batch_size = stage.batch_size or training.batch_size
        if self.batch_size % training.accumulate:
            raise UsageError(
                f"The stage {stage.name!r} has batches of {self.batch_size}, which do not divide into "
                f"{training.accumulate} micro-batches (training.accumulate)."
            )
        self.order = Order(len(data), self.batch_size, derive(training.seed, "stage", stage.name), data.blocks)
        self.draws = sum(o.repeat for o in stage.objectives)
        self.readers = self._readers()
        self.model = model
        self.parts: list[Part] = []
        shared: dict[tuple[int, Optimizer], tuple[str, torch.optim.Optimizer]] = {}
        draw = 0
        still = {id(p) for part in model.frozen() for p in part.parameters()}
        for objective in stage.objectives:
            mine = [p for p in objective.module.parameters() if id(p) not in still]
            ids = {id(p) for p in mine}
            others = [p for p in model.parameters() if id(p) not in ids]
            buffers = [b for b in model.buffers() if b.is_floating_point()]
            part = Part(objective, None, None, "", mine, others, buffers, draw)
            if isinstance(objective, Objective):
                part.select()  # DDP looks at the parameters that want gradients
                part.call = shards.call if shards else parallel.wrap(objective.module, world)
                settings = objective.optimizer or training.optimizer
                key = (id(objective.module), settings)
                if key not in shared:
                    shared[key] = objective.name, optimizers.make(mine, settings, training, objective.module)
                part.optimizer_name, part.optimizer = shared[key]
            self.parts.append(part)
            draw += objective.repeat
        self._selected: Part | None = None

    @property
    def end(self) -> int:
        """The run's step at which it is over."""
        return self.start + self.steps

    def _readers(self) -> int:
        """Threads that may read the next batch beside this one: 0 where it is not known or no core is free for them.

        A thread that waits for a core would hold up the others (``core/threads.py``). So beside computing threads,
        cores count as free where a person has left them free.
        """
        objectives = self.stage.objectives
        alike = self.training.accumulate == 1 or all(isinstance(o, Objective) for o in objectives)
        if self.data.blocks is None or not alike or any(o.every > 1 for o in objectives):
            return 0
        mine = cores() // self.world.local_size
        if self.world.device.type != "cpu":
            return max(1, mine - 1)
        left = asked() is not None or bool(self.training.threads)
        return max(0, mine - torch.get_num_threads()) if left else 0

    def micro_batches(self, part: Part, local: int, repeat: int) -> Iterator[tuple[Batch, BatchRng]]:
        """This process's batches for one update, each with its randomness."""
        draw = local * self.draws + part.first_draw + repeat
        ids = self.order.ids(draw)
        seed = derive(self.training.seed, self.stage.name, part.objective.name, local, repeat)
        # accumulation is of gradients: an update without them sees its batch whole
        parts = self.training.accumulate if isinstance(part.objective, Objective) else 1
        total, size = self.batch_size, self.batch_size // parts
        first, rows = self.world.rows(size)
        starts = [micro * size + first for micro in range(parts)]
        progress = Progress(local, self.steps)
        for micro, start in enumerate(starts, 1):
            rng = BatchRng(seed, total=total, start=start, rows=rows, device=self.world.device)
            augment = BatchRng(derive(seed, "augment"), total=total, start=start, rows=rows)
            batch = self.data.batch(ids[start : start + rows], augment).to(self.world.device)
            if self.readers:
                coming, top = (ids, starts[micro]) if micro < parts else (self.order.ids(draw + 1), first)
                self.data.expect(coming[top : top + rows], self.readers)
            if self.stage.transform:
                with self.whole(), evaluating(self.model):
                    batch = self.stage.transform(batch, rng.at("transform"), progress)
            yield batch, rng

    def whole(self, *, keep: bool = False) -> AbstractContextManager[None]:
        """A block in which the model's own parameters are in place; see :meth:`Shards.gathered`."""
        return self.shards.gathered(keep=keep) if self.shards else nullcontext()

    def backward(
        self, part: Part, local: int, repeat: int, precision: Precision, notes: dict[str, list[Tensor]]
    ) -> list[Tensor]:
        """Compute the gradients of one update, without applying them; return the ids of the examples used."""
        objective = part.objective
        assert isinstance(objective, Objective)
        assert part.call is not None
        if self._selected is not part:
            part.select()
            self._selected = part
        for p in part.parameters:
            p.grad = None
        used = []
        for batch, rng in self.micro_batches(part, local, repeat):
            with precision_context(precision, self.world.device):
                loss, named = part.call(objective.loss, batch, rng, Progress(local, self.steps))
            (loss / self.training.accumulate if self.training.accumulate > 1 else loss).backward()
            note(notes, objective.name, {"loss": loss, **named})
            used.append(batch.ids)
        return used

    def run(
        self, part: Part, local: int, repeat: int, precision: Precision
    ) -> tuple[dict[str, float], list[Tensor], bool]:
        """One update of one part: gradients, the check that they are finite, the optimizer's step.

        Returns:
            The logged values, the ids of the examples used, and whether all was finite (else nothing moved).
        """
        notes: dict[str, list[Tensor]] = {}
        objective = part.objective
        seed = derive(self.training.seed, "layers", self.stage.name, objective.name, local, repeat, self.world.replica)
        if self.world.device.type == "cpu":  # for layers that draw from it, such as dropout
            torch.default_generator.manual_seed(seed)  # the other one looks for accelerators, for half a millisecond
        else:
            torch.manual_seed(seed)
        if isinstance(objective, Update):
            ((batch, rng),) = self.micro_batches(part, local, repeat)
            with torch.no_grad(), self.whole(keep=True):
                module = objective.module  # its state_dict would put the shards back
                state = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
                kept = part.spare(state)
                before = [t.clone() for t in objective.apart] if self.world.size > 1 else []
                with precision_context(precision, self.world.device):
                    note(notes, objective.name, objective.step(batch, rng, Progress(local, self.steps)))
                parallel.unite(objective.module, self.world, objective.apart, before)
                finite = all_finite(state)
                if not finite:
                    restore(state, kept)
            return settle(notes, self.world), [batch.ids], finite
        assert part.optimizer is not None
        kept = [b.clone() for b in part.buffers]
        used = self.backward(part, local, repeat, precision, notes)
        if isinstance(self.shards, Split):
            norm = self.shards.norm(part.parameters)
        else:
            norm = sharding.total_norm([p.grad for p in part.parameters if p.grad is not None])
        if self.training.clip:
            torch.nn.utils.clip_grads_with_norm_(part.parameters, self.training.clip, norm)
        note(notes, objective.name, {"gradient_norm": norm})
        logs = settle(notes, self.world)
        if not all(math.isfinite(logs[f"{objective.name}/{key}"]) for key in ("loss", "gradient_norm")):
            restore(part.buffers, kept)
            return logs, used, False
        factor = optimizers.multiplier(self.training.schedule, local, self.steps)
        optimizers.set_rate(part.optimizer, factor)
        part.optimizer.step()
        if objective.project:
            with torch.no_grad(), self.whole(keep=True):
                objective.project()
        return logs, used, True

    def optimizer_state(self) -> dict[str, Tensor]:
        """The state of all its optimizers as named tensors."""
        tensors: dict[str, Tensor] = {}
        for part in self.parts:
            if part.optimizer is not None:
                state = optimizers.state_tensors(part.optimizer, part.optimizer_name)
                whole = self.shards.whole_moments(part.optimizer, state) if isinstance(self.shards, Split) else state
                tensors.update(whole)
        return tensors

    def load_optimizer_state(self, checkpoint: Checkpoint) -> None:
        """Restore the optimizers from a checkpoint taken inside this stage."""
        tensors = checkpoint.tensors("optimizer")
        for part in self.parts:
            if part.optimizer is not None and part.optimizer_name == part.objective.name:
                mine = self.shards.moments(part.optimizer, tensors) if isinstance(self.shards, Split) else tensors
                optimizers.load_state_tensors(part.optimizer, mine, part.optimizer_name)

    def attempt(self) -> None:
        """Forward and backward passes of one step, and its updates; nothing changes. For measuring speed."""
        self.readers = 0  # the same batch each time, and nothing beside it
        updated = [part.objective.module for part in self.parts if isinstance(part.objective, Update)]
        buffers = [*self.model.buffers(), *(p.data for module in updated for p in module.parameters())]
        kept = [b.clone() for b in buffers]
        context: Precision = "bfloat16" if torch.is_autocast_enabled(self.world.device.type) else "float32"
        for part in self.parts:
            if isinstance(part.objective, Objective):
                for repeat in range(part.objective.repeat):
                    self.backward(part, 0, repeat, context, {})
                for p in part.parameters:
                    p.grad = None
            else:
                for repeat in range(part.objective.repeat):
                    self.run(part, 0, repeat, context)
        restore(buffers, kept)

    def seconds(self, budget: float, precision: Precision) -> float:
        """How long a step takes on average, measured for about ``budget`` seconds; everything is put back.

        Each objective and update is timed as training runs it, with its optimizer, and counts as often as it is due.
        """
        self.readers = 0
        tensors = [*self.model.parameters(), *self.model.buffers()]
        kept = [t.detach().clone() for t in tensors]
        every = [(part, repeat) for part in self.parts for repeat in range(part.objective.repeat)]
        times: dict[int, list[float]] = {}
        try:
            for part, repeat in every:  # a first time warms up
                self.run(part, 0, repeat, precision)
            started = time.perf_counter()
            while not times or time.perf_counter() - started < budget:
                for number, (part, repeat) in enumerate(every):
                    begin = time.perf_counter()
                    self.run(part, 0, repeat, precision)
                    times.setdefault(number, []).append((time.perf_counter() - begin) / part.objective.every)
        finally:
            restore(tensors, kept)
            for p in self.model.parameters():
                p.grad = None
        return sum(statistics.median(found) for found in times.values())


def examples_of(stage: Stage, model: Model, data: Dataset, shards: Shards | None = None) -> Dataset:
    """The examples of a stage: its own, where it makes some of the training set."""
    if stage.data is None:
        return data
    with evaluating(model), shards.gathered() if shards else nullcontext():
        return stage.data(data)


def moved_by(stage: Stage) -> list[nn.Module]:
    """The modules that a stage's objectives and updates move."""
    return [objective.module for objective in stage.objectives]


def budgeted(stages: tuple[Stage, ...], training: Training) -> tuple[Stage, ...]:
    """The stages with what the recipe says of them.

    Raises:
        UsageError: it names a stage that there is not.
    """
    names = [stage.name for stage in stages]
    for name in training.stages:
        if name not in names:
            raise UsageError(f"training.stages: this model has no stage {name!r}. {near(name, names)}")
    budgets = [training.stages.get(stage.name, Budget()) for stage in stages]
    return tuple(
        replace(s, share=b.share or s.share, batch_size=b.batch_size or s.batch_size)
        for s, b in zip(stages, budgets, strict=True)
    )


def stage_steps(stages: tuple[Stage, ...], training: Training, steps: int) -> list[int]:
    """How many steps each stage has: its own, or a share of ``steps``; see :func:`stage_ends`."""
    own = [training.stages[s.name].steps if s.name in training.stages else 0 for s in stages]
    shared = tuple(s for s, n in zip(stages, own, strict=True) if not n)
    ends = stage_ends(shared, steps) if shared else []
    counts = iter([end - before for before, end in zip([0, *ends], ends, strict=False)])
    return [n or next(counts) for n in own]


def stage_ends(stages: tuple[Stage, ...], steps: int) -> list[int]:
    """The run's step at which each stage ends, from the stages' shares; every stage gets a step if there are enough."""
    total = sum(s.share for s in stages)
    ends, passed = [], 0.0
    for number, stage in enumerate(stages):
        passed += stage.share
        after = len(stages) - 1 - number
        end = max(round(steps * passed / total), (ends[-1] if ends else 0) + 1)
        ends.append(max(min(end, steps - after), min(number + 1, steps)))
    return ends


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all numbers of all tensors are finite.

    A sum is, where all of them are: it is computed in one pass, without a table of answers. It may overflow; then each
    number is looked at.
    """
    sums = torch.stack([t.sum() for t in tensors]) if tensors else torch.zeros(1)
    return bool(sums.isfinite().all()) or all(bool(t.isfinite().all()) for t in tensors)


@torch.no_grad()
def restore(tensors: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    """Copy values kept earlier back into tensors."""
    for tensor, old in zip(tensors, kept, strict=True):
        tensor.copy_(old)


def note(notes: dict[str, list[Tensor]], prefix: str, named: Mapping[str, Tensor]) -> None:
    """Collect scalars under ``prefix/name``."""
    for name, value in named.items():
        notes.setdefault(f"{prefix}/{name}", []).append(value.detach())


def settle(notes: Mapping[str, list[Tensor]], world: World) -> dict[str, float]:
    """Average the collected scalars over micro-batches and processes, in one transfer."""
    if not notes:
        return {}
    means = [v[0] if len(v) == 1 else torch.stack(v).mean() for v in notes.values()]
    values = parallel.mean_over(torch.stack([m.float().double() for m in means]), world)
    return dict(zip(notes, values.tolist(), strict=True))
