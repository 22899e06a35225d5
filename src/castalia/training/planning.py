"""Plans of real models: their speed measured on a stage that is thrown away, and what follows from it.

``plan.py`` has the arithmetic and what is stored; here models are run.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from castalia import runs
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.data import Dataset
from castalia.core.guest import guest, no_denormals
from castalia.core.model import Model, Stage, build, lay_out, training_mode
from castalia.runs import Run
from castalia.training import parallel, plan
from castalia.training.stage import ActiveStage, budgeted, examples_of


def foresee(recipe: Recipe, data: Dataset, device: torch.device | None = None) -> plan.Plan:
    """What a training of this recipe would plan here, found with a model that is thrown away."""
    settings = recipe.training
    with guest(), no_denormals(), torch.random.fork_rng(), parallel.world(device) as world:
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(plan.threads_for(recipe, world))
            kind = entry(recipe.model).load()
            model = build(kind, runs.complete(recipe, data), data.spec, settings.seed)
            training_mode(model)
            model.to(world.device)
            lay_out(model)
            stages = budgeted(model.stages(), settings)
            own = examples_of(stages[0], model, data)
            return plan.decide(recipe, world, trial_of(recipe, model, own, world, stages[0]), stages)
        finally:
            torch.set_num_threads(before)


def decide(
    recipe: Recipe, run: Run, model: Model, data: Dataset, world: parallel.World, stages: tuple[Stage, ...]
) -> plan.Plan:
    """Measure the first stage, and store what follows from it."""
    with parallel.apart(model):
        own = examples_of(stages[0], model, data)
        decided = plan.decide(recipe, world, trial_of(recipe, model, own, world, stages[0]), stages)
    plan.store(run.path / "plan.json", decided)
    return decided


def retime(
    recipe: Recipe,
    run: Run,
    model: Model,
    data: Dataset,
    world: parallel.World,
    decided: plan.Plan,
    stages: tuple[Stage, ...],
    number: int,
    left: float,
) -> plan.Plan:
    """Measure a later stage at its entry, and store its steps; a model that is cut up cannot be measured by one."""

    def measure() -> plan.Plan:
        if world.apart:
            return decided.with_stage(number, decided.stages[number:])
        with parallel.apart(model):
            trial = trial_of(recipe, model, data, world, stages[number])
            seconds = trial.seconds(plan.look(recipe.training), decided.precision)
        made = decided.with_stage(number, plan.in_time(recipe, stages, number, left, seconds))
        plan.store(run.path / "plan.json", made)
        return made

    return parallel.on_main(measure, world)


def repace(
    run: Run, decided: plan.Plan, number: int, step: int, left: float, per_step: float, world: parallel.World
) -> plan.Plan:
    """The plan with as many steps of stage ``number`` as fit into the seconds that it has left."""
    had, done = decided.steps_at(number, step), step - sum(decided.stages[:number])
    count = parallel.on_main(lambda: plan.paced(had, done, left, per_step), world)
    if count == had:
        return decided
    changed = decided.with_pace(number, step, count)
    parallel.on_main(lambda: plan.store(run.path / "plan.json", changed), world)
    return changed


def fewer_threads(decided: plan.Plan, step: int) -> list[str]:
    """A sentence where a run computes from this step on with fewer threads than it would have on an idle machine."""
    count = decided.threads_at(step)
    if count == decided.threads:
        return []
    return [
        f"{count} of {decided.threads} threads from step {step:,} on, because other programs keep cores busy, and "
        "threads that wait for a core hold up the others. The plan of the run says so, and a resume does the same; "
        "training.threads sets a number that stays."
    ]


def trial_of(recipe: Recipe, model: Model, data: Dataset, world: parallel.World, stage: Stage) -> ActiveStage:
    """One process's share of a stage, to measure its speed, alone."""
    alone = parallel.World(0, 1, 1, world.device)
    size = (stage.batch_size or recipe.training.batch_size) // world.replicas
    share = replace(recipe.training, batch_size=size)
    return ActiveStage(replace(stage, batch_size=None), 0, 1, model, data, share, alone)
