"""The training loop: one linear function for every system.

Everything that is random or scheduled is a function of (seed, step), so the state of a run is its tensors and
a few numbers, and a resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from castalia import card, checkpoints, health, runs
from castalia.catalogue import entry
from castalia.configuration import Budget, Recipe
from castalia.core.config import Config, to_json
from castalia.core.data import Dataset
from castalia.core.errors import Interrupted, NonFiniteError, UsageError
from castalia.core.guest import guest, no_denormals
from castalia.core.locks import Lock
from castalia.core.model import Model, build, lay_out, training_mode
from castalia.core.rng import BatchRng, derive
from castalia.runs import Run
from castalia.training import keeping, parallel, plan, planning, sentences
from castalia.training.ema import Ema
from castalia.training.progress import Reporter
from castalia.training.recomputing import recompute
from castalia.training.sharding import Shards
from castalia.training.signals import Signals, exit_code
from castalia.training.splitting import Split
from castalia.training.stage import ActiveStage, budgeted, examples_of, moved_by
from castalia.training.watching import Watching

CHECKPOINT_SECONDS = 600.0
"""No more than this much work is ever lost."""

SPARED_SECONDS = 5.0
"""Less work than this is not worth a checkpoint, where the recipe does not say how often."""


def train(
    recipe: Recipe,
    data: Dataset,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    shard: bool = False,
    tensor: int = 1,
    device: torch.device | None = None,
    callback: Callable[[int, Mapping[str, float]], None] | None = None,
    said: Sequence[str] = (),
    began: float | None = None,
) -> Run:
    """Train a model and return its run.

    Args:
        recipe: what to train and how.
        data: the training set.
        out: the run folder.
        resume: continue from the newest intact checkpoint in ``out``, or start where there is none.
        quiet: nothing on the terminal.
        shard: each process keeps only its part of weights, averages and moments. A run may be continued with another
            number of processes, and with or without.
        tensor: processes that share each block, of systems with ``cuts``; the others of ``torchrun`` are replicas. A
            run may be continued without, or with another number.
        device: where to compute; None takes the accelerator where there is one.
        callback: called after each step with its number and its logged values.
        said: sentences on why this recipe, which the run keeps.
        began: when the person's minutes began, by ``time.monotonic``; None: now.

    Raises:
        UsageError: ``out`` is in use, another process writes to it, or a resumed run differs in recipe or data.
        NonFiniteError: loss or gradients stayed non-finite.
        Interrupted: a signal asked to end; the run was saved.
        RunError: the disk is full, the run is damaged, or its folder was moved meanwhile.
    """
    settings, state = recipe.training, keeping.State()
    started = time.monotonic() if began is None else began
    with ExitStack() as stack:
        stack.enter_context(guest())
        stack.enter_context(no_denormals())
        stack.enter_context(torch.random.fork_rng())
        signals = stack.enter_context(Signals())
        world = stack.enter_context(parallel.world(device, shard=shard, tensor=tensor))
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        usual = plan.threads_for(recipe, world)
        plan.check_threads(usual)
        torch.set_num_threads(usual)

        # the run: new, or as it was left; a new one that never does its first step leaves nothing
        new, there = not (resume and (out / "config.json").exists()), out.exists()
        lock = Lock(out)
        stack.callback(lock.release)
        run = _open(recipe, data, out, resume, world, lock, said)

        def leave_nothing(kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
            if new and kind is not None and state.step == 0 and world.main:
                runs.discard(out, there)
            if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):
                raise UsageError(
                    f"Batch normalisation needs at least two examples at a time, and training.batch_size = "
                    f"{settings.batch_size} gives some network one. Take a larger batch, or fewer micro-batches "
                    "(training.accumulate) or processes."
                ) from error

        stack.push(leave_nothing)
        found = parallel.on_main(lambda: keeping.newest(run), world)
        state = keeping.state_of(found)
        decided = parallel.on_main(lambda: plan.load(run.path / "plan.json", state.plan), world)
        if decided is not None:
            plan.check_threads(decided.threads)
            torch.set_num_threads(decided.threads_at(state.step))
        world.rows(settings.batch_size // settings.accumulate)  # refuse a batch that cannot be shared, before all else

        # the model: from its seed or from the checkpoint, laid out as the hardware likes it
        model = build(entry(recipe.model).load(), run.config, data.spec, settings.seed)
        training_mode(model)
        if found is not None:
            runs.load_weights(model, keeping.stored(found, model), found.path)
        else:
            parents = {role: runs.open_run(Path(path)).model()[0] for role, path in recipe.parents}
            model.initialise(data, BatchRng(derive(settings.seed, "initialise"), total=1), parents)
            _check_shapes(model, run)
            if "start" in parents:
                runs.start_from(model, parents["start"], Path(dict(recipe.parents)["start"]))
        if not world.apart:  # which moves what it cuts
            model.to(world.device)
            lay_out(model)
        parallel.broadcast_state(model, world)
        parallel.synchronise(model, world)
        if settings.recompute:
            recompute(model)
        if settings.compile:
            for child in model.children():
                child.compile()  # in place: the names in the state dict do not change

        # the plan: measured once per run
        fewer: list[str] = []
        stages = budgeted(model.stages(), settings)
        if decided is None:
            decided = parallel.on_main(lambda: planning.decide(recipe, run, model, data, world, stages), world)
            torch.set_num_threads(decided.threads_at(0))
            fewer = planning.fewer_threads(decided, 0)
        count = parameter_count(model)
        shards = Shards(model, world, decided.precision) if world.sharded else None
        split = Split(model, world, stages, settings) if world.tensor > 1 else None
        ends = decided.ends(stages)
        if not decided.stages:
            decided = replace(decided, stages=tuple(end - start for start, end in pairwise([0, *ends])))

        # the averages and the log: new, or as they were at the checkpoint
        state.plan = to_json(decided)
        ema = Ema(model, settings.ema_half_life)
        averages = {} if found is None else found.tensors("ema")
        averages = split.parts(averages) if split else averages
        if found is not None:
            ema.load(averages)
        if world.main:
            run.truncate_metrics(state.step)
        reporter = Reporter(run.path, ends[-1], settings.tracker, quiet=quiet or not world.main)
        stack.callback(reporter.close)
        reporter.say(sentences.opening(recipe, data, count, decided, state))
        for sentence in run.said:
            reporter.say(sentence)
        notes = [*data.notes, *sentences.left_out(model, data), *health.few_examples(len(data)), *fewer]
        for sentence in [*notes, *keeping.passed_over(run, found)]:
            reporter.say(f"Note: {sentence}")
        watching = Watching(run, notes) if world.main else None
        if watching is not None:
            reporter.say(f"Watch it: {watching.path}")
        checkpoint_every = settings.checkpoint_every or max(1, ends[-1] // 20)
        sample_every = settings.sample_every or max(1, ends[-1] // 10)

        # a grid that is due was not drawn where the process was killed behind its checkpoint
        due = bool(state.step) and (state.step % sample_every == 0 or state.step == ends[-1])
        if due and not parallel.on_main(lambda: keeping.grid(run, state.step).exists(), world):
            keeping.draw(model, ema, decided.precision, run, state.step, world, data, split)

        active: ActiveStage | None = None
        pace, speed = plan.Pace(), plan.Speed(state.step)
        number, until, look_at = 0, math.inf, math.inf
        spent, saved_at, entered, drawing = state.seconds, time.monotonic(), time.monotonic(), 0.0
        told = ""
        in_all = 60 * settings.minutes or math.inf
        if spent >= in_all:
            ends = [min(end, state.step) for end in ends]  # its time was up before
        while state.step < ends[-1]:
            step = state.step
            if active is None or step == ends[number]:
                number = next(i for i, end in enumerate(ends) if step < end)
                start = ends[number - 1] if number else 0
                stage, enter = stages[number], stages[number].enter
                if step == start and enter is not None:  # before its data are made, as on a resume
                    with shards.gathered(keep=True) if shards else nullcontext():
                        enter(BatchRng(derive(settings.seed, "enter", number), total=1))
                    training_mode(model)
                own = examples_of(stage, model, data, shards)
                left = in_all - spent - (time.monotonic() - started)
                if step == start and decided.timed <= number and settings.minutes:
                    decided = planning.retime(recipe, run, model, own, world, decided, stages, number, left)
                    state.plan, ends = to_json(decided), decided.ends(stages)
                    reporter.steps = ends[-1]
                until = in_all - left + plan.time_of(recipe, stages, number, left) if settings.minutes else math.inf
                mine = replace(settings, lr=settings.stages.get(stage.name, Budget()).lr or settings.lr)
                active = ActiveStage(
                    stage, start, decided.steps_at(number, step), model, own, mine, world, shards or split
                )
                pace, speed, entered = plan.Pace(), plan.Speed(step), time.monotonic()
                timed = settings.minutes and not settings.stages.get(stage.name, Budget()).steps
                look_at = plan.FIRST_LOOK if timed else math.inf
                ema.begin(moved_by(stages[number]))
                if found is not None and step == found.step and step > start:
                    active.load_optimizer_state(found)
                    ema.load(averages)
                averages = {}

            # one step: every objective in turn
            if torch.get_num_threads() != decided.threads_at(step):
                torch.set_num_threads(decided.threads_at(step))
            begun = time.monotonic()
            local, active.steps = step - active.start, decided.steps_at(number, step)
            logs: dict[str, float] = {}
            used: list[Tensor] = []
            finite = True
            for part in active.parts:
                if local % part.objective.every:
                    continue
                for repeat in range(part.objective.repeat):
                    values, used, finite = active.run(part, local, repeat, decided.precision)
                    logs.update(values)
                    if not finite:
                        break
                if not finite:
                    break
            state.step = step + 1
            if finite:
                state.bad_in_a_row = 0
                for name, value in logs.items():
                    if math.isfinite(value):  # an indicator without a value in this step says nothing about it
                        total = state.window.setdefault(name, [0.0, 0])
                        total[0] += value
                        total[1] += 1
            else:
                state.skipped += 1
                state.bad_in_a_row += 1
                text = sentences.bad_step(state, logs, used, data)
                reporter.say(text)
                if state.bad_in_a_row >= settings.max_bad_steps:
                    raise NonFiniteError(f"{text} {sentences.last_good(run, state)}")

            # are other programs in the way of the threads?
            if pace.slow(time.monotonic() - begun) and plan.may_have_fewer(recipe, world):
                had = torch.get_num_threads()
                free = plan.free_threads(had)
                if free < had and decided.threads_at(state.step) == had:
                    decided = decided.with_fewer(state.step, free)
                    plan.store(run.path / "plan.json", decided)
                    state.plan, pace = to_json(decided), plan.Pace()
                    for sentence in planning.fewer_threads(decided, state.step):
                        reporter.say(f"Note: {sentence}")

            # is anything over: the stage, its time, all time?
            elapsed = time.monotonic() - started
            per_step = speed.per_step(state.step)
            unsaved = time.monotonic() - saved_at
            due = state.step % checkpoint_every == 0 and bool(settings.checkpoint_every or unsaved > SPARED_SECONDS)
            due = due or unsaved > CHECKPOINT_SECONDS
            over, late = spent + elapsed >= in_all, spent + elapsed >= until
            in_stage = time.monotonic() - entered
            look = in_stage >= look_at and state.step < ends[number]
            signal, due, over, late, look = _agree(signals.received, due, over, late, look, world)
            left = min(until, in_all - drawing) - spent - elapsed
            known = any(begin > step for begin, _ in decided.paced)  # a resume repeats what came of it
            if look and not over and not late:  # is the pace still the planned one?
                look_at = in_stage + plan.until_next_look(in_stage, left)
                if not known:
                    decided = planning.repace(run, decided, number, state.step, left, per_step, world)
                    state.plan, ends = to_json(decided), decided.ends(stages)
                    reporter.steps = ends[-1]
            if late and not over and not known and number < len(stages) - 1 and state.step < ends[number]:
                reporter.say(f"Note: the time of the stage {active.stage.name!r} is over after {local + 1:,} steps.")
                decided = decided.with_pace(number, state.step, local + 1)
                state.plan, ends = to_json(decided), decided.ends(stages)
                reporter.steps = ends[-1]
            last = state.step == ends[-1]
            ema.update(local + 1, active.batch_size, last=state.step == ends[number])
            if state.step == ends[number] and not last:
                ema.settle(moved_by(stages[number + 1]))
            if callback is not None:
                callback(state.step, logs)

            # now and then: a line of the log, a checkpoint, pictures
            if state.step % settings.log_every == 0 or last or over:
                means = {name: total / count for name, (total, count) in state.window.items()}
                state.window = {}
                if world.main:
                    line = {"step": state.step, "stage": active.stage.name, **means, "skipped": state.skipped}
                    reporter.log(line | {"seconds": round(spent + elapsed, 3)})
                logs = means
            left = min((ends[-1] - state.step) * per_step, max(0.0, in_all - spent - elapsed))
            reporter.show(state.step, logs, active.batch_size / per_step, left, now=last)
            if watching is not None:
                watching.renew(time.monotonic(), state.step, ends[-1], left)
            if last and state.bad_in_a_row:
                raise NonFiniteError(f"The last steps of the training were skipped. {sentences.last_good(run, state)}")
            if (due and not state.bad_in_a_row) or last or over or signal:
                state.seconds = spent + elapsed
                parallel.on_main(lock.check, world)
                keeping.save(run, state, model, ema, active, settings.keep, world, split)
                saved_at = time.monotonic()
            if state.step % sample_every == 0 or last or over:
                begun = time.monotonic()
                problem = keeping.draw(model, ema, decided.precision, run, state.step, world, data, split)
                if problem and problem[:30] != told:
                    reporter.say(f"Note: {problem}")
                told = problem[:30]
                drawing = time.monotonic() - begun
            if signal:
                raise Interrupted(
                    f"Stopped by a signal after step {state.step:,}; everything is saved. Continue with --resume.",
                    exit_code(signal),
                )
            if over and not last:
                reporter.say(f"{settings.minutes:g} minutes are over after step {state.step:,} of {ends[-1]:,}.")
                break
        parallel.on_main(lock.check, world)
        if world.main:
            card.write(run)
        if watching is not None:
            watching.renew(time.monotonic(), state.step, ends[-1], 0.0, done=True)
        reporter.say(f"Done: {run.path}")
        return run


def parameter_count(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def _open(
    recipe: Recipe, data: Dataset, out: Path, resume: bool, world: parallel.World, lock: Lock, said: Sequence[str]
) -> Run:
    """The run, created by process 0 or left by an earlier training."""
    done = resume and (out / "config.json").exists()
    completed = runs.open_run(out).completed if done else runs.complete(recipe, data)
    completed = None if completed == recipe.config else completed
    said = runs.open_run(out).said if done else tuple(said)
    parallel.on_main(lambda: _create(recipe, data, out, resume, completed, lock, said), world)
    return Run(out, recipe, data.spec, data.fingerprint, completed, said)


def _create(
    recipe: Recipe,
    data: Dataset,
    out: Path,
    resume: bool,
    completed: Config | None,
    lock: Lock,
    said: tuple[str, ...],
) -> None:
    """Create the run, or check that the one in ``out`` may be continued; remove what a killed process left.

    From here on the run has one writer, which holds the lock.
    """
    if resume and (out / "config.json").exists():
        lock.take()
    for leftover in [*out.glob(".*.tmp-*"), *out.glob("samples/.*.tmp-*")] if resume else ():
        with suppress(OSError):  # in the way of nothing; where nothing can be written at all, the next write says so
            leftover.unlink()
    if resume and (out / "config.json").exists():
        runs.check_same(runs.open_run(out), recipe, data)
        checkpoints.clean(out / "checkpoints")
        return
    runs.create(out, recipe, data.spec, data.fingerprint, completed, said)
    lock.take()


def _check_shapes(model: Model, run: Run) -> None:
    """See that the run can be built again from its configuration alone.

    Raises:
        TypeError: ``initialise`` gave a tensor another shape than the constructor did.
    """
    fresh = build(type(model), run.config, model.spec).state_dict()
    for name, tensor in model.state_dict().items():
        if name not in fresh or fresh[name].shape != tensor.shape or fresh[name].dtype != tensor.dtype:
            raise TypeError(
                f"{type(model).__name__}.initialise changed the shape or type of {name!r}, so no run could be read "
                "again. What only the data know belongs into the configuration, by Model.complete."
            )


def _agree(
    signal: int, due: bool, over: bool, late: bool, look: bool, world: parallel.World
) -> tuple[int, bool, bool, bool, bool]:
    """One decision for all processes: any signal counts; rank 0's clock counts."""
    if world.size == 1:
        return signal, due, over, late, look
    votes = torch.tensor([float(signal), *(float(vote and world.main) for vote in (due, over, late, look))]).double()
    total = parallel.mean_over(votes, world) * world.size
    number = signal or (15 if total[0] else 0)
    return number, bool(total[1]), bool(total[2]), bool(total[3]), bool(total[4])
