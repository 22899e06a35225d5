"""What is kept of a training while it goes on: where it stands, checkpoints, published averages, pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from castalia import checkpoints
from castalia.catalogue import entry
from castalia.configuration import medium_of
from castalia.core.config import to_json
from castalia.core.data import Batch, Dataset
from castalia.core.errors import RunError
from castalia.core.model import Generator, Model, build
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.core.weights import load_parts, save_tensors
from castalia.runs import Run
from castalia.training import parallel
from castalia.training.ema import Ema
from castalia.training.sharding import local, whole
from castalia.training.sharding import rows as rows_of
from castalia.training.splitting import Split
from castalia.training.stage import ActiveStage


@dataclass
class State:
    """What a checkpoint holds besides tensors.

    Attributes:
        step: steps done.
        seconds: training time so far, over all sessions.
        window: sum and count of each logged value since the last line of ``metrics.jsonl``.
        skipped: steps whose update was dropped because loss or gradient was not finite.
        bad_in_a_row: of those, the latest without a good one between.
        plan: what was decided before the first step, see :class:`castalia.training.plan.Plan`.
    """

    step: int = 0
    seconds: float = 0.0
    window: dict[str, list[float]] = field(default_factory=dict)
    skipped: int = 0
    bad_in_a_row: int = 0
    plan: dict[str, Any] = field(default_factory=dict)


def state_of(found: checkpoints.Checkpoint | None) -> State:
    """Where training stood.

    Raises:
        RunError: the checkpoint holds something else; one that was only damaged is not taken in the first place.
    """
    if found is None:
        return State()
    path = found.path / "state.json"
    try:
        state = State(**found.state())
        sound = all(type(n) is int and n >= 0 for n in (state.step, state.skipped, state.bad_in_a_row))
        sound &= math.isfinite(state.seconds) and isinstance(state.plan, dict)
        sound &= all(len(pair) == 2 and math.isfinite(sum(pair)) and pair[1] > 0 for pair in state.window.values())
        sound &= state.step == found.step
    except (TypeError, AttributeError, OverflowError) as error:
        raise RunError(f"{path} is not the state of a training ({error}).") from error
    if not sound:
        raise RunError(f"{path} is not the state of a training.")
    return state


def newest(run: Run) -> checkpoints.Checkpoint | None:
    """The checkpoint to continue from; ``model.safetensors`` is made to agree with it.

    Raises:
        RunError: there was training, but nothing intact is left of it to continue from.
    """
    found = checkpoints.newest(run.checkpoints)
    if found is not None:
        if not run.weights_are_of(found.step):  # killed between the checkpoint and the publishing, or damaged since
            publish(run, found)
        return found
    broken = checkpoints.damaged(run.checkpoints)
    if broken:
        raise RunError(
            f"Every checkpoint of {run.path} is damaged ({', '.join(p.name for p in broken)}), so it cannot be "
            "continued. Train anew with another --out."
        )
    if run.weights.exists():
        raise RunError(
            f"{run.path} has weights but no checkpoints (an imported run, or they were removed), so it cannot be "
            "continued. Train anew with another --out."
        )
    return None


def stored(found: checkpoints.Checkpoint, model: Model) -> dict[str, Tensor]:
    """The weights of a checkpoint; what is frozen is stored with the averages, once."""
    tensors = found.tensors("model")
    return {**found.tensors("ema"), **tensors} if model.frozen() else tensors


def passed_over(run: Run, found: checkpoints.Checkpoint | None) -> list[str]:
    """A sentence where damaged checkpoints newer than the one used were found."""
    newer = [
        p.name
        for p in checkpoints.damaged(run.checkpoints)
        if found is not None and checkpoints.step_of(p) > found.step
    ]
    return [f"damaged and passed over: {', '.join(newer)}"] if newer else []


def save(
    run: Run,
    state: State,
    model: Model,
    ema: Ema,
    active: ActiveStage,
    keep: int,
    world: parallel.World,
    split: Split | None = None,
) -> None:
    """Write a checkpoint and publish its averages; what is frozen is stored once, with them."""
    still = {id(t) for part in model.frozen() for t in (*part.parameters(), *part.buffers())}
    names = {name for name, t in (*model.named_parameters(), *model.named_buffers()) if id(t) in still}
    moving = {name: t for name, t in model.state_dict().items() if name not in names}
    groups = {"model": moving, "ema": ema.state(), "optimizer": active.optimizer_state()}
    if split:  # whole, as one process has them
        groups |= {"model": split.whole(moving), "ema": split.whole(groups["ema"])}
    about = {"castalia.model": run.recipe.model, "castalia.step": str(state.step)}

    def write() -> None:
        made = checkpoints.save(run.checkpoints, state.step, groups, asdict(state), metadata=about, keep=keep)
        run.publish_weights(made.path / "ema.safetensors")

    if not world.sharded:
        parallel.on_main(write, world)
        return
    pieces = {name: {key: local(t) for key, t in group.items()} for name, group in groups.items()}
    rows = {name: {key: r for key, t in group.items() if (r := rows_of(t))} for name, group in groups.items()}
    team = checkpoints.Team(
        world.rank, world.size, partial(parallel.on_main, world=world), partial(parallel.on_all, world=world)
    )
    made = checkpoints.save(
        run.checkpoints, state.step, pieces, asdict(state), metadata=about, keep=keep, team=team, rows=rows
    )
    parallel.on_main(lambda: publish(run, made), world)


def publish(run: Run, found: checkpoints.Checkpoint) -> None:
    """Make ``model.safetensors`` agree with a checkpoint."""
    if (found.path / "ema.safetensors").exists():
        run.publish_weights(found.path / "ema.safetensors")
    else:
        save_tensors(run.weights, *load_parts(found.path, "ema"))


def grid(run: Run, step: int) -> Path:
    """The picture of the samples drawn after a step."""
    return run.path / "samples" / f"step-{step:08d}.png"


ALIKE = 0.03
"""Share of the data's variance below which samples show one thing again and again."""


def alike(samples: Batch, data: Dataset) -> str:
    """A sentence where samples hardly differ from each other although the data do; empty otherwise."""
    if data.blocks is not None:  # examples on a disk are read in an order of their own
        return ""
    real = data.batch(np.arange(min(len(data), 256), dtype=np.int64)).x
    if samples.x.shape[1:] != real.shape[1:] or samples.x.dtype == torch.int64 or len(samples) < 8:
        return ""
    mine, theirs = (float(x.double().var(0).mean()) for x in (samples.x, real))
    if not theirs > 0 or mine > ALIKE * theirs:
        return ""
    return (
        f"the samples are nearly all alike (their variance is {100 * mine / theirs:.1f} % of the data's). Early that "
        "is usual; if it stays so, the model has collapsed."
    )


def draw(
    model: Model,
    ema: Ema,
    precision: Precision,
    run: Run,
    step: int,
    world: parallel.World,
    data: Dataset,
    split: Split | None = None,
) -> str:
    """Draw samples, always from the same seed so that they can be compared; what is wrong with them, in words."""
    if world.apart:  # a whole model, made for this
        weights = split.whole(ema.state()) if split else whole(ema.state(), wanted=world.main)
        if not world.main:
            return ""
        model = build(entry(run.recipe.model).load(), run.config, model.spec)
        model.load_state_dict(weights)
        ema = Ema(model.to(world.device), 0)
    if not world.main or not isinstance(model, Generator):
        return ""
    medium, seed = medium_of(model.spec), run.recipe.training.seed
    n = run.recipe.training.samples or medium.shown
    origin = {
        "model": run.recipe.model,
        "run": run.path.name,
        "step": step,
        "seed": seed,
        "config": to_json(run.config),
    }
    try:
        with ema.applied(), torch.no_grad(), precision_context(precision, world.device):
            samples = model.sample(n, rng=SampleRng(seed, range(n), world.device)).cpu()
        grid(run, step).parent.mkdir(exist_ok=True)
        medium.draw(samples, model.spec, grid(run, step), recipe=origin)
    except Exception as error:  # a picture is not worth a training
        return f"no samples were drawn ({type(error).__name__}: {error}). The training is not touched by that."
    return alike(samples, data)
