"""Losses and gradients forced to NaN and infinity at random steps.

Every loss of every system is wrapped from outside, and in random updates made to give a non-finite loss, a finite loss
with a non-finite gradient, or a non-finite activation in the middle of a network. What was there before the poisoned
update must be there after the step, bit for bit: weights, optimizer moments, floating buffers, and the averages, except
where it was their turn to move. What is said must name the examples.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from castalia import api, checkpoints
from castalia.core.config import override
from castalia.core.errors import NonFiniteError
from castalia.core.model import Model, Objective, Progress, Stage, build
from castalia.runs import open_run
from castalia.training import loop
from castalia.training.ema import EVERY, Ema
from castalia.training.loop import train
from castalia.training.stage import ActiveStage
from torture import small
from torture.report import Options, Row
from torture.same import differences

BAD = {"NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf}
PLACES = ("loss", "gradient", "activation")
STEPS, SHORT_STEPS = 40, 17
SHARE = 0.3
"""Share of the steps that are poisoned."""
RUNS, SHORT_RUNS = 8, 2
VARIANTS = {"gan": ("config.critic_norm=batch",)}
"""Settings for every other training: batch statistics in a network that another one's loss runs."""
STOPS, SHORT_STOPS = 6, 2


def run(options: Options) -> list[Row]:
    """Poison trainings of every system."""
    rows = []
    for name in small.systems(options):
        folder = options.folder / f"poison-{name}"
        folder.mkdir()
        dice = random.Random(f"{options.seed} poison {name}")
        rows.append(survived(name, folder, dice, SHORT_RUNS if options.short else RUNS, options))
        rows.append(stopped(name, folder, dice, SHORT_STOPS if options.short else STOPS))
        for row in rows[-2:]:
            options.say(f"  {row.what}: {row.note}")
    return rows


def survived(name: str, folder: Path, dice: random.Random, count: int, options: Options) -> Row:
    """Trainings with single poisoned steps, which go on."""
    steps = SHORT_STEPS if options.short else STEPS
    failures: list[str] = []
    seen: Counter[str] = Counter()
    for number in range(count):
        bad = {step for step in range(steps - 1) if dice.random() < SHARE}  # the last one has to be good
        recipe = small.recipe(name, steps=steps, max_bad_steps=steps, checkpoint_every=5, seed=number)
        if number % 2 and name in VARIANTS:
            recipe = replace(recipe, config=override(recipe.config, [text[7:] for text in VARIANTS[name]]))
        poison = Poison(bad, random.Random(f"{options.seed} {name} {number}"))
        out = folder / f"run-{number}"
        with poison.poured(), redirect_stderr(StringIO()) as told:
            train(recipe, api.training_data(recipe), out, callback=poison.after)
        failures += [f"{name}, run {number}: {text}" for text in [*poison.failures, *poison.unsaid(told.getvalue())]]
        newest = checkpoints.newest(out / "checkpoints")
        if newest is None or newest.step != steps or newest.state()["skipped"] != len(poison.done):
            failures.append(f"{name}, run {number}: ended at {newest}, after {len(poison.done)} poisoned steps")
        elif not all(
            t.isfinite().all() for group in ("model", "ema", "optimizer") for t in newest.tensors(group).values()
        ):
            failures.append(f"{name}, run {number}: the last checkpoint is not finite")
        seen.update(dose.word for dose in poison.done)
    note = ", ".join(f"{n} {word}" for word, n in sorted(seen.items()))
    what = f"{name}: loss, gradient or activation not finite; nothing moves, the examples are named, training ends well"
    return Row("poison", what, sum(seen.values()), tuple(failures), note)


def stopped(name: str, folder: Path, dice: random.Random, count: int) -> Row:
    """Trainings that go bad for good: they stop, and continue from the checkpoint that they name."""
    failures: list[str] = []
    healthy = small.recipe(name, steps=12, checkpoint_every=3, max_bad_steps=3)
    data = api.training_data(healthy)
    straight = folder / "straight" / "run"  # its name stands in the samples
    train(healthy, data, straight, quiet=True)
    for number in range(count):
        first = dice.randrange(1, 9)
        poison = Poison(set(range(first, 99)), random.Random(f"{name} {number}"))
        out = folder / f"stop-{number}" / "run"
        where = f"{name}, stop {number} from step {first}"
        try:
            with poison.poured(), redirect_stderr(StringIO()):
                train(healthy, data, out, callback=poison.after)
            failures.append(f"{where}: training did not stop")
            continue
        except NonFiniteError as error:
            text = str(error)
        failures += [f"{where}: {problem}" for problem in [*poison.failures, *poison.unsaid(text, last=True)]]
        expected = first // 3 * 3
        good = checkpoints.newest(out / "checkpoints")
        if (good.step if good else 0) != expected:
            failures.append(f"{where}: the newest checkpoint is {good}, not that of step {expected}")
        if (str(good.path) if good else "no checkpoint yet") not in text:
            failures.append(f"{where}: {text!r} does not name {good}")
        if good and not all(t.isfinite().all() for t in open_run(out).model()[0].state_dict().values()):
            failures.append(f"{where}: the weights are not finite")
        train(healthy, data, out, quiet=True, resume=True)
        failures += [f"{where}, continued in health: {text}" for text in differences(straight, out)]
    what = f"{name}: three such steps in a row; stops, names the last good checkpoint, continues bit for bit in health"
    return Row("poison", what, count, tuple(failures))


@dataclass(frozen=True)
class Dose:
    """One poisoned update: the step (from 1), the objective, what was done, the ids of its examples."""

    step: int
    objective: str
    word: str
    ids: tuple[int, ...]


@dataclass
class Poison:
    """Wraps the losses of a model that is about to be trained, and watches what becomes of it.

    Attributes:
        bad: steps (from 0) to poison; one update of each, drawn at random.
        dice: draws the update and the kind.
        done: what was done.
        failures: what did not hold.
    """

    bad: set[int]
    dice: random.Random
    done: list[Dose] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def poured(self) -> Iterator[None]:
        """A block in which trainings are poisoned."""

        def building(*arguments: Any) -> Model:
            self.model = build(*arguments)
            stages = self.model.stages
            self.model.stages = lambda: tuple(map(self.poisoned, stages()))  # type: ignore[method-assign]
            return self.model

        def averaging(*arguments: Any) -> Ema:
            self.ema = Ema(*arguments)
            return self.ema

        def activating(*arguments: Any) -> ActiveStage:
            self.active = ActiveStage(*arguments)
            return self.active

        with (
            mock.patch.object(loop, "build", building),
            mock.patch.object(loop, "Ema", averaging),
            mock.patch.object(loop, "ActiveStage", activating),
        ):
            self.before: dict[str, Tensor] | None = None
            self.target: tuple[int, int] | None = None
            yield

    def poisoned(self, stage: Stage) -> Stage:
        """A stage whose losses are wrapped."""
        self.updates = sum(o.repeat for o in stage.objectives if isinstance(o, Objective))
        wrapped = [self.wrap(o) if isinstance(o, Objective) else o for o in stage.objectives]
        return replace(stage, objectives=tuple(wrapped))

    def wrap(self, objective: Objective) -> Objective:
        """An objective that is poisoned when its turn comes."""

        def loss(batch: Any, rng: Any, progress: Progress) -> tuple[Tensor, Mapping[str, Tensor]]:
            if progress.step not in self.bad or self.before is not None:
                return objective.loss(batch, rng, progress)
            if self.target is None or self.target[0] != progress.step:
                self.target = progress.step, self.dice.randrange(self.updates)
            if self.target[1] > 0:  # the turn of a later update
                self.target = self.target[0], self.target[1] - 1
                return objective.loss(batch, rng, progress)
            self.before = self.snapshot()
            kind, place = self.dice.choice(list(BAD)), self.dice.choice(PLACES)
            out, named = self.spoil(objective, BAD[kind], place, lambda: objective.loss(batch, rng, progress))
            ids = tuple(batch.ids.tolist())
            self.done.append(Dose(progress.step + 1, objective.name, f"{kind} in the {place}", ids))
            return out, named

        return replace(objective, loss=loss)

    def spoil(
        self, objective: Objective, value: float, place: str, call: Callable[[], tuple[Tensor, Mapping[str, Tensor]]]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute a loss, and put the value into it, into its gradient, or into an activation on the way."""
        if place == "activation":
            leaves = [m for m in self.model.modules() if not list(m.children()) and list(m.parameters())]
            hooks = [m.register_forward_hook(lambda m, a, out: out + value) for m in self.dice.sample(leaves, 2)]
            try:
                out, named = call()
            finally:
                for hook in hooks:
                    hook.remove()
            return (out if not out.isfinite() else out * math.nan), named  # the leaf may not have been on the way
        out, named = call()
        if place == "loss":
            return out + value, named
        victim = self.dice.choice(list(objective.module.parameters()))
        return Tainted.apply(out, victim, value), named

    def snapshot(self) -> dict[str, Tensor]:
        """Weights, floating buffers, moments and averages, copied."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors().items()}

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a poisoned update might reach; integer buffers count and are let be."""
        state = {f"model {k}": t for k, t in self.model.state_dict().items() if t.is_floating_point()}
        moments = {f"optimizer {k}": t for k, t in self.active.optimizer_state().items()}
        return state | moments | {f"average {k}": t for k, t in self.ema.averages.items()}

    def after(self, step: int, logs: Mapping[str, float]) -> None:
        """The callback after each step: compare."""
        if self.before is None:
            if step - 1 in self.bad:
                self.failures.append(f"step {step} was to be poisoned, and was not")
            return
        dose, now = self.done[-1], self.tensors()
        for name in self.before.keys() | now.keys():
            if name not in now or name not in self.before:
                self.failures.append(f"{dose.word}, step {step}: {name} came or went")
            elif name.startswith("average") and step % EVERY == 0:
                if not now[name].isfinite().all():
                    self.failures.append(f"{dose.word}, step {step}: {name} is not finite")
            elif not torch.equal(now[name], self.before[name]):
                self.failures.append(f"{dose.word} of {dose.objective}, step {step}: {name} changed")
        self.before = None

    def unsaid(self, text: str, last: bool = False) -> list[str]:
        """Poisoned steps of which the text says nothing, or not which examples they had."""
        found = []
        for dose in self.done[-1:] if last else self.done:
            names = ", ".join(map(str, dose.ids[:8]))
            what = rf"{re.escape(dose.objective)}/(loss|gradient_norm) (nan|-?inf)"
            if not re.search(rf"Step {dose.step:,} was skipped: .*{what}.*Its examples: {names}\b", text):
                found.append(
                    f"step {dose.step} ({dose.word} of {dose.objective}) is not reported with {names}: {text[-300:]}"
                )
        return found


class Tainted(torch.autograd.Function):
    """A loss as it is, whose gradient for one parameter is spoiled."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, parameter: nn.Parameter, value: float) -> Tensor:
        ctx.value, ctx.like = value, parameter
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        spoiled = torch.zeros_like(ctx.like)
        spoiled[(-1,) * spoiled.ndim] = ctx.value
        return gradients[0], spoiled, None
