"""Every reader of what strangers wrote, under a fuzzer that knows the formats.

An input is a good file, or folder, mutated by a dice that is seeded with (seed, reader, number), so each can be made
again: ``python -m torture.readers READER NUMBER --seed SEED --out FOLDER``.

Inputs are read in forked children. Each has a limit of time and of memory, and an audit hook that sees every file
opened, every process started, every connection and every name that a pickle would look up. What may come of an input
is a result, or a ``CastaliaError``. Anything else is a failure: another exception, a signal, the limits, a file outside
the input's folder, a run of a model that is not in the catalogue.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import signal
import site
import struct
import sys
import sysconfig
import tempfile
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import castalia
from castalia.core.errors import CastaliaError
from torture.inputs import Files, Link, Reader, lay
from torture.report import Options, Row
from torture.seeds_media import arrays, pictures
from torture.seeds_runs import runs

INPUTS, SHORT_INPUTS = 20_000, 120
"""Inputs of each reader; a quarter of them where one takes long."""
SECONDS = 10
"""An input that takes longer hangs."""
MEMORY = 384 << 20
"""An input that takes more, in bytes beyond what the process had, takes too much."""
ADDRESSES = 2 << 30
"""Hard limit of a child beyond what it has: what asks for more gets a MemoryError."""
LARGEST = 8 << 20
"""Bytes of a file of an input: what repeats is not repeated again without end."""
BATCH = 2500
"""Inputs of one child."""
MOST_FAILURES = 40
"""Of one reader; then it is left alone."""

FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class", "socket.connect"),
    *("socket.getaddrinfo", "ctypes.dlopen", "urllib.Request"),
)
"""Audit events that no input may cause."""


def readers(folder: Path) -> tuple[Reader, ...]:
    """All readers, with seeds made in ``folder``."""
    return (*pictures(), *arrays(), *runs(folder))


def run(options: Options) -> list[Row]:
    """Fuzz every reader."""
    rows: list[Row] = []
    count = options.inputs or (SHORT_INPUTS if options.short else INPUTS)
    for reader in readers(options.folder):
        rows.append(fuzz(reader, round(count * reader.share), options.seed, options.folder / "input"))
        options.say(f"  {rows[-1].what}: {rows[-1].note}")
    return rows


def make(reader: Reader, seed: int, number: int) -> Files:
    """Input ``number`` of a reader."""
    dice = random.Random(f"{seed} {reader.name} {number}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of names that are there twice
        return _made(reader, dice)


def _made(reader: Reader, dice: random.Random) -> Files:
    files = reader.mutate(dice.choice(reader.seeds), dice)
    if dice.random() < 0.1 and "rehash" not in files:
        with suppress(Exception):  # what is broken already cannot always be taken apart
            twice = reader.mutate(files, dice)
            if all(isinstance(data, Link) or len(data) <= LARGEST for data in twice.values()):
                return twice
    return files


def fuzz(reader: Reader, count: int, seed: int, folder: Path) -> Row:
    """Read ``count`` inputs."""
    failures: list[str] = []
    outcomes: Counter[str] = Counter()
    for files in reader.seeds:  # also imports what is imported late, before children are forked
        lay(files, folder)
        with warnings.catch_warnings(), suppress(CastaliaError):  # some seeds are odd themselves
            warnings.simplefilter("ignore")
            reader.read(folder)
    done = most = 0
    with mmap.mmap(-1, 64) as shared:
        while done < count and len(failures) < MOST_FAILURES:
            report = folder.parent / "report.jsonl"
            report.write_bytes(b"")
            status = child(reader, seed, done, min(done + BATCH, count), folder, shared, report)
            reached, good, refused, peak = struct.unpack("<QQQQ", shared[:32])
            outcomes.update(read=good, refused=refused)
            most = max(most, peak)
            for line in report.read_text().splitlines():
                number, problem = json.loads(line)
                failures.append(f"{reader.name}, input {number} of seed {seed}: {problem}")
            if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 70:
                number = os.WTERMSIG(status)
                word = f"took longer than {SECONDS} s" if number == signal.SIGALRM else f"ended by signal {number}"
                if not number:
                    word = "the fuzzer itself failed here or at the next input"
                failures.append(f"{reader.name}, input {reached} of seed {seed}: {word}")
            done = reached + 1
    again = [
        f"{text} (python -m torture.readers {reader.name!r} NUMBER --seed {seed} --out FOLDER)" for text in failures
    ]
    note = f"{outcomes['read']:,} read, {outcomes['refused']:,} refused; at most {most >> 20} MiB more"
    what = f"{reader.name}: a result or a clear error; no crash, no hang, no file outside, no code"
    return Row("readers", what, done, tuple(again), note)


def child(reader: Reader, seed: int, first: int, last: int, folder: Path, shared: mmap.mmap, report: Path) -> int:
    """Read inputs ``first`` to ``last`` in a forked child; returns its status."""
    shared[:32] = struct.pack("<QQQQ", first, 0, 0, 0)
    sys.stdout.flush()
    sys.stderr.flush()
    if not (pid := os.fork()):
        code = 70
        try:
            work(reader, seed, first, last, folder, shared, report)
        except BaseException as error:
            os.write(2, f"the fuzzer itself: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def work(reader: Reader, seed: int, first: int, last: int, folder: Path, shared: mmap.mmap, report: Path) -> NoReturn:
    """The child: one input after another, until one leaves something behind that the next must not inherit."""
    said = os.open(report, os.O_WRONLY | os.O_APPEND)
    silence()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.fsync = lambda file: None  # what is read is tested here, and not whether it is on the disk
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, used + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.tempdir = str(folder.parent / "temporary")
    os.makedirs(tempfile.tempdir, exist_ok=True)
    watch = Watch((str(folder), tempfile.tempdir))
    sys.addaudithook(watch)
    good = refused = peak = 0
    for number in range(first, last):
        files = make(reader, seed, number)
        lay(files, folder)
        shared[:32] = struct.pack("<QQQQ", number, good, refused, peak)
        problem, base = None, _forget_peak()
        signal.alarm(SECONDS)
        watch.on = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(folder)
            good += 1
        except CastaliaError as error:
            refused += 1
            if not str(error).strip() or len(str(error)) > 4000:
                problem = f"its error has {len(str(error))} characters"
        except BaseException as error:
            problem = f"{type(error).__name__}: {str(error)[:200]} ({_where(error)})"
        watch.on = False
        signal.alarm(0)
        took = _memory("VmHWM") - base
        peak = max(peak, took)
        if watch.seen:
            problem, watch.seen = f"caused {watch.seen[:3]}", []
        if took > MEMORY:
            problem = f"took {took >> 20} MiB"
        shared[:32] = struct.pack("<QQQQ", number, good, refused, min(peak, MEMORY))
        if problem is not None:
            os.write(said, (json.dumps([number, problem]) + "\n").encode())
        if took > MEMORY:
            break
    os._exit(0)


class Watch:
    """An audit hook that notes what an input must not cause.

    Args:
        inside: folders in which files may be opened.
    """

    def __init__(self, inside: tuple[str, ...]) -> None:
        packages = {*site.getsitepackages(), *sysconfig.get_paths().values(), sys.base_prefix, "/usr/share", "/usr/lib"}
        self.readable = (
            *inside,
            *packages,
            str(Path(castalia.__file__).parent),
            "/proc/self/",
            "/proc/cpuinfo",
            "/sys/",
        )
        self.writable = inside
        self.on, self.seen = False, list[str]()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note it."""
        if not self.on:
            return
        if event in FORBIDDEN or (event == "import" and "canary" in str(arguments[0])):
            self.seen.append(f"{event} {str(arguments)[:80]}")
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            mode, flags = arguments[1], arguments[2] or 0
            writes = flags & (os.O_WRONLY | os.O_RDWR) or any(letter in (mode or "") for letter in "wax+")
            if not path.startswith(self.writable if writes else self.readable) and path != os.devnull:
                self.seen.append(f"{'write' if writes else 'read'} of {path}")


def silence() -> None:
    """Nothing of what C libraries print."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _memory(field: str) -> int:
    """Resident memory in bytes: now (``VmRSS``), or at most since the peak was forgotten (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def _forget_peak() -> int:
    """Begin a new peak, so that making an input does not count as reading it; returns what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _where(error: BaseException) -> str:
    """The last lines of the way to an error, in short."""
    trace, places = error.__traceback__, []
    while trace is not None:
        places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(places[-5:])


def main() -> int:
    """Write one input into a folder, and read it."""
    parser = argparse.ArgumentParser(prog="python -m torture.readers", description=main.__doc__)
    parser.add_argument("reader")
    parser.add_argument("number", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reader = next(r for r in readers(Path(folder)) if r.name == options.reader)
        lay(make(reader, options.seed, options.number), options.out)
        print(reader.read(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
