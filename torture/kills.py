"""kill -9, SIGTERM and SIGINT at any moment; the resumed run must equal the uninterrupted one bit for bit.

Moments are of three kinds. *By the clock*: anywhere in the life of a process forked with its imports behind it. *From
the start*: anywhere in the life of a process of its own, imports included. *Aimed*: at a chosen operation on a file,
inside a checkpoint's write, the publishing of the weights, the removal of an old checkpoint, a sample grid, the
start. A training is killed and resumed until it reaches its end, and is then compared.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from castalia import checkpoints, recipes
from castalia.catalogue import CATALOGUE
from castalia.core.errors import CastaliaError
from torture.processes import Fresh, Process, Server, await_moment, catches, environment, finish, server
from torture.report import Options, Row
from torture.same import differences, measured

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STEPS = 24
TRAINING = (
    *("batch_size=8", "checkpoint_every=3", "log_every=5", "sample_every=8"),
    *("samples=4", "threads=1", "precision=float32"),
)
LONG = {"clock": 48, "start up": 18, "checkpoint": 12, "publish": 6, "removal": 6, "samples": 4, "start": 6}
"""Moments in trainings of each system, by kind; 100 of them."""
SHORT = {"clock": 3, "start up": 1, "checkpoint": 2, "publish": 1, "removal": 1}
LONG_EVALUATION = {"clock": 6, "start up": 3, "results": 6}
SHORT_EVALUATION = {"clock": 1, "results": 1}
OPERATIONS = {"checkpoint": 24, "publish": 6, "removal": 10, "samples": 10, "start": 40, "results": 4}
"""Aimed moments are before one of the first so many operations of their kind: about two checkpoints."""


def run(options: Options) -> list[Row]:
    """Kill trainings and evaluations of every system."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background of a shell; children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    names = options.systems or (("vae",) if options.short else tuple(CATALOGUE))
    rows: list[Row] = []
    with server(options.folder) as forks:
        for name in names:
            folder = options.folder / name
            folder.mkdir()
            dice = random.Random(f"{options.seed} {name}")
            plan = moments(SHORT if options.short else LONG, dice)
            shaken = Shaken(name, folder, forks, dice)
            rows.append(shaken.trainings(plan))
            options.say(f"  {rows[-1].what}: {rows[-1].note}")
            if name == names[0] and not options.short:  # the same operations for all
                rows.append(shaken.operations())
                options.say(f"  {rows[-1].what}: {rows[-1].note}")
            plan = moments(SHORT_EVALUATION if options.short else LONG_EVALUATION, dice)
            rows.append(shaken.evaluations(plan))
            options.say(f"  {rows[-1].what}: {rows[-1].note}")
            shutil.rmtree(folder)
    return rows


def moments(counts: dict[str, int], dice: random.Random) -> list[tuple[str, int]]:
    """Pairs of a kind and a signal, shuffled; the signals take turns within each kind."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    plan = [(kind, int(SIGNALS[i % 3])) for i, kind in enumerate(kinds)]
    dice.shuffle(plan)
    return plan


def train(name: str, steps: int = STEPS, *more: str) -> list[str]:
    """The command line of a short training, without its folder; ``more`` are settings of the training."""
    settings = [word for text in (*TRAINING, *more) for word in ("--set", f"training.{text}")]
    recipe = recipes.of(name).demo
    return ["train", name, "--recipe", recipe, "--steps", str(steps), "--seed", "3", *settings, "--quiet"]


def verdict(
    number: int, code: int | None, caught: bool, done: bool, words: str, newest: int, imports: bool = False
) -> str | None:
    """What is wrong with how a process ended, or None.

    Args:
        number: the signal that it got.
        code: its exit code; None where it did not end.
        caught: whether it had the training's handlers when the signal was sent.
        done: whether its work was finished when it had ended.
        words: what it said.
        newest: step of its newest checkpoint; -1 without one.
        imports: whether it may have been importing. Python raises KeyboardInterrupt there, inside of compiled modules
            too, which may turn it into another error, or abort: any exit code but 0 will do.
    """
    name = signal.Signals(number).name
    if code is None:
        return f"{name}: still running after a long time"
    if number == signal.SIGKILL:
        return None if code == -number else f"{name}: exit code {code}"
    if done and code in (0, -number, 128 + number):
        return None  # it had nothing left to lose
    if caught and code != 128 + number:
        return f"{name}: exit code {code} instead of {128 + number}"
    if imports and number == signal.SIGINT and not caught and code != 0 and not told(words):
        return None
    if code not in (-number, 128 + number):
        return f"{name}: exit code {code}"
    if (caught or told(words)) and told(words) != str(newest):
        return f"{name}: said that step {told(words) or 'none'} is saved, and the newest checkpoint is of step {newest}"
    return None


def told(words: str) -> str:
    """The step that an interrupted training said it had saved; nothing where it did not."""
    return words.partition("Stopped by a signal after step ")[2].split(";")[0].replace(",", "")


@dataclass
class Tally:
    """What happened to the processes of one row."""

    landed: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    late: int = 0
    halves: int = 0
    chains: int = 0

    def note(self) -> str:
        """In words."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.landed.items()))
        signals = ", ".join(f"{n} {name}" for name, n in sorted(self.signals.items()))
        codes = ", ".join(f"{n} x {code}" for code, n in sorted(self.codes.items()))
        halves = f"; {self.halves} left half a checkpoint" if self.halves else ""
        return f"{signals}; {kinds}; exit codes {codes}; {self.late} came too late{halves}; {self.chains} whole runs"


class Shaken:
    """One system under kills.

    Args:
        name: of the system.
        folder: where to work.
        forks: the server.
        dice: says when.
    """

    def __init__(self, name: str, folder: Path, forks: Server, dice: random.Random) -> None:
        self.name, self.folder, self.forks, self.dice = name, folder, forks, dice
        self.env = environment(folder.parent)
        self.log = folder / "words.txt"

    # starting

    def begin(self, arguments: list[str], run: Path, kind: str, number: int, life: tuple[float, float]) -> Process:
        """Start a process that meets its moment; where the clock says when, wait for it and send the signal."""
        self.log.unlink(missing_ok=True)
        self.caught = self.early = False
        if kind not in ("clock", "start up"):
            aim = (kind, self.dice.randint(1, OPERATIONS[kind]), number)
            return self.forks.start(arguments, run, self.log, aim)
        if kind == "clock":
            process: Process = self.forks.start(arguments, run, self.log)
            seconds = self.dice.uniform(0, life[0])
        else:
            process = Fresh(["-m", "castalia", *arguments], self.env, self.log)
            seconds = self.dice.uniform(0, life[1])
        if await_moment(process, seconds):
            self.caught = catches(process.pid, signal.SIGTERM)
            self.early = self.caught and latest(run) <= STEPS // 2
            os.kill(process.pid, number)
        return process

    def words(self) -> str:
        """What the last process said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def time(self, arguments: list[str], run: Path, tally: Tally, *, fresh: bool) -> float:
        """Seconds of an uninterrupted process."""
        self.log.unlink(missing_ok=True)
        started = time.monotonic()
        process: Process = (
            Fresh(["-m", "castalia", *arguments], self.env, self.log)
            if fresh
            else self.forks.start(arguments, run, self.log, counts=self.folder / "counts.json")
        )
        if (code := finish(process)) != 0:
            tally.failures.append(f"{self.name}: uninterrupted, exit code {code}: {self.words()[-500:]}")
        return time.monotonic() - started

    # trainings

    def trainings(self, plan: list[tuple[str, int]]) -> Row:
        """Kill trainings at all moments of the plan."""
        tally, wanted = Tally(), len(plan)
        straight = self.folder / "straight" / "run"
        forked = self.folder / "forked" / "run"
        whole = self.time([*train(self.name), "--out", str(straight)], straight, tally, fresh=True)
        life = self.time([*train(self.name), "--out", str(forked)], forked, tally, fresh=False)
        # a fork must be no other thing than a process of its own
        tally.failures += [f"{self.name}, forked: {text}" for text in differences(straight, forked)]
        tries = 0
        while plan and tries < 4 * wanted and not tally.failures:
            tries += self.chain(plan, straight, life, whole, tally)
        if plan and not tally.failures:
            tally.failures.append(f"{self.name}: {len(plan)} moments were never met: {Counter(k for k, _ in plan)}")
        what = f"{self.name}: training killed and resumed; then weights, averages, moments, log and grids equal"
        return Row("kills", what, wanted - len(plan), tuple(tally.failures), tally.note())

    def chain(self, plan: list[tuple[str, int]], straight: Path, life: float, whole: float, tally: Tally) -> int:
        """Kill and resume one training until it is done; moments that were met leave the plan."""
        run = self.folder / f"chain-{tally.chains}" / "run"
        arguments = [*train(self.name), "--out", str(run), "--resume"]
        tries, story = 0, []
        while plan:
            tries += 1
            kind, number = plan.pop()
            left = 1 - newest(run) / STEPS if newest(run) > 0 else 1.0
            start = whole - life
            process = self.begin(arguments, run, kind, number, (life * left + 0.05, start + life * left))
            code = finish(process)
            done = newest(run) == STEPS and (run / "README.md").exists()
            story.append(f"{kind} {signal.Signals(number).name} -> {code}")
            if code == 0 and done and self.early:  # half of the training was still to come
                tally.failures.append(f"{self.name}, {kind}: {signal.Signals(number).name} was not heeded")
                return tries
            if code == 0 and done:  # it was there first
                tally.late += 1
                plan.insert(self.dice.randint(0, len(plan)), (kind, number))
                break
            if problem := verdict(number, code, self.caught, done, self.words(), newest(run), kind == "start up"):
                tally.failures.append(f"{self.name}, {kind}: {problem}; {' | '.join(story)}: {self.words()[-800:]}")
                return tries
            tally.landed[kind] += 1
            tally.signals[signal.Signals(number).name] += 1
            tally.codes[code or 0] += 1
            tally.halves += any((run / "checkpoints").glob(".tmp-*"))
            if done:
                break
        if (code := finish(self.forks.start(arguments, run, self.log))) != 0:
            tally.failures.append(f"{self.name}: the last resume ended with {code}: {self.words()[-800:]}")
        tally.failures += [f"{self.name}, after {' | '.join(story)}: {t}" for t in differences(straight, run)]
        tally.chains += 1
        if not tally.failures:
            shutil.rmtree(run.parent)
        return tries

    def operations(self) -> Row:
        """Kill -9 at the first operation on a file, at the second, and so on to the last of a training."""
        tally = Tally()
        command = train(self.name, 6, "checkpoint_every=2", "sample_every=3", "log_every=2")
        straight = self.folder / "operations" / "run"
        self.time([*command, "--out", str(straight)], straight, tally, fresh=False)
        count = json.loads((self.folder / "counts.json").read_text())["any"]
        for number in range(1, count + 1):
            run = self.folder / "operation" / "run"
            arguments = [*command, "--out", str(run), "--resume"]
            code = finish(self.forks.start(arguments, run, self.log, ("any", number, signal.SIGKILL)))
            half = any((run / "checkpoints").glob(".tmp-*"))
            again = finish(self.forks.start(arguments, run, self.log))
            if code != -signal.SIGKILL or again != 0:
                tally.failures.append(f"{self.name}, operation {number}: exit codes {code}, {again}: {self.words()}")
            tally.failures += [f"{self.name}, operation {number}: {text}" for text in differences(straight, run)]
            tally.halves += half
            shutil.rmtree(run.parent, ignore_errors=True)
        what = f"{self.name}: kill -9 at each operation on a file of a training in turn; resumed, all is equal"
        return Row("kills", what, count, tuple(tally.failures), f"{tally.halves} left half a checkpoint")

    # evaluations

    def evaluations(self, plan: list[tuple[str, int]]) -> Row:
        """Kill evaluations: the results are the old or the new ones, and a repeated evaluation gives the latter."""
        tally, wanted = Tally(), len(plan)
        what = f"{self.name}: evaluation killed; results whole, old or new; repeated, the same numbers"
        old, new = self.folder / "old" / "run", self.folder / "new" / "run"
        shutil.copytree(self.folder / "straight" / "run", old)
        arguments = ["--samples", "2", "--limit", "40", "--drawn", "40", "--quiet"]
        self.time(["evaluate", str(old), *arguments, "--seed", "1"], old, tally, fresh=False)
        shutil.copytree(old, new)
        fresh = any(kind == "start up" for kind, _ in plan)  # else nobody asks how long such a one takes
        whole = self.time(["evaluate", str(new), *arguments, "--seed", "2"], new, tally, fresh=fresh)
        tries, life = 0, 0.0
        while plan and not tally.failures and tries < 6 * wanted:
            run = self.folder / f"measured-{tally.chains}" / "run"
            shutil.copytree(old, run)
            command = ["evaluate", str(run), *arguments, "--seed", "2"]
            if not life:
                life = self.time(command, run, tally, fresh=False)
                shutil.rmtree(run)
                shutil.copytree(old, run)
            for kind, number in [plan.pop() for _ in range(min(4, len(plan)))]:
                tries += 1
                process = self.begin(command, run, kind, number, (life, whole))
                code = finish(process)
                state = self.state(run, old, new)
                if code == 0 and state == "new":
                    tally.late += 1
                    plan.insert(0, (kind, number))
                    continue
                if problem := verdict(number, code, False, state == "new", self.words(), -1, kind == "start up"):
                    tally.failures.append(f"{self.name}, evaluation, {kind}: {problem}: {self.words()[-800:]}")
                if state not in ("old", "new"):
                    tally.failures.append(f"{self.name}, evaluation, {kind}: {state}")
                tally.landed[kind] += 1
                tally.signals[signal.Signals(number).name] += 1
                tally.codes[code or 0] += 1
            self.time(command, run, tally, fresh=False)
            if (state := self.state(run, old, new)) != "new":
                tally.failures.append(f"{self.name}, evaluation repeated: {state}")
            tally.chains += 1
        if plan and not tally.failures:
            tally.failures.append(f"{self.name}: {len(plan)} moments were never met")
        return Row("kills", what, wanted - len(plan), tuple(tally.failures), tally.note())

    @staticmethod
    def state(run: Path, old: Path, new: Path) -> str:
        """Whether a run's results are ``old`` or ``new``, else what is wrong."""
        try:
            found = measured(run)
            card = (run / "README.md").read_text()
        except (OSError, CastaliaError) as error:
            return f"the results cannot be read: {error}"
        if not (card.startswith("# ") and card.endswith("```\n")):
            return "the card is cut"
        if found == measured(old):
            return "old"
        return "new" if found == measured(new) else f"other numbers: {json.dumps(found)[:600]}"


def newest(run: Path) -> int:
    """Step of a run's newest intact checkpoint; -1 without one."""
    found = checkpoints.newest(run / "checkpoints")
    return found.step if found is not None else -1


def latest(run: Path) -> int:
    """Step of a run's newest checkpoint, unread; 0 without one."""
    return max((int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")), default=0)
