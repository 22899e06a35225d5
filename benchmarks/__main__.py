"""All rows, or some groups of them: ``python -m benchmarks [GROUP ...]``.

    python -m benchmarks                       # everything, a table
    python -m benchmarks unet --rounds 9       # one group
    python -m benchmarks --json FILE --page docs/benchmarks.md
    python -m benchmarks unet --only DDIM --into FILE --page docs/benchmarks.md    # some rows again, beside the others

A ratio is taken within a round, in which both sides run one after the other; the table shows the median over rounds and
their smallest and largest. Each group runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Row

GROUPS = (
    "vae",
    "unet",
    "convolutions",
    "samplers",
    "loops",
    "pixels",
    "rbm",
    "memory",
    "metrics",
    "start",
    "flows",
    "styles",
    "drawing",
)
UNEQUAL = " †"
"""Ends the work of rows that were measured before both sides were given the same allocator."""

PEERS = ("torch", "diffusers", "pythae", "scikit-learn", "torchmetrics", "prdc", "normflows")


def main() -> int:
    """Measure, print, write; 1 if a group could not run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; none: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of each process (1)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="rows whose work holds it")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="put the rows into earlier results, with their own load"
    )
    parser.add_argument("--page", type=Path, help="write the table as a page of the documentation")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    options = parser.parse_args()
    if unknown := sorted(set(options.groups) - set(GROUPS)):
        parser.error(f"unknown group: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    if options.here:
        return _here(options)
    started, rows, ceilings, failed = time.monotonic(), [], {}, []
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        for group in options.groups or GROUPS:
            out = Path(folder) / f"{group}.json"
            command = [sys.executable, "-m", "benchmarks", group, "--here", "--json", str(out)]
            command += ["--rounds", str(options.rounds), "--threads", str(options.threads)]
            command += ["--quick"] if options.quick else []
            command += [word for text in options.only for word in ("--only", text)]
            environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
            if subprocess.run(command, env=environment, check=False).returncode:
                failed.append(group)
            if out.exists():
                found = json.loads(out.read_text())
                rows += [_row(r) for r in found["rows"]]
                ceilings |= found["ceilings"]
            load.append(os.getloadavg()[0])
    about = {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "rounds": options.rounds,
        "load": [round(min(load), 1), round(max(load), 1)],
        "versions": {name: _version(name) for name in PEERS},
        "ceilings": ceilings,
    }
    print(f"\n{table(rows)}\n")
    content = about | {"rows": [asdict(row) | {"met": row.met} for row in rows], "failed": failed}
    if options.into:
        content = merged(json.loads(options.into.read_text()), content)
        options.into.write_text(json.dumps(content, indent=2) + "\n")
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if options.page:
        options.page.write_text(page(content))
    for group in failed:
        print(f"{group} could not run; its message is above.")
    return 1 if failed else 0


def _here(options: argparse.Namespace) -> int:
    """Run groups in this process."""
    import torch

    from benchmarks import ceilings

    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    rows: list[Row] = []
    try:
        for group in options.groups:
            for row in importlib.import_module(f"benchmarks.{group}").rows(
                Options(options.rounds, options.threads, options.quick, tuple(options.only))
            ):
                rows.append(row)
                print(line(row), flush=True)
    finally:
        found = {"rows": [asdict(row) for row in rows], "ceilings": ceilings.everything(options.threads)}
        options.json.write_text(json.dumps(found))
    return 0


def merged(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Earlier results with rows that were measured again, which keep what is to be known of their measurement.

    Args:
        earlier: results of ``--json``; their rows of the same group, work and peer are taken out.
        later: those of the new rows; they stand in ``again`` of the result, the newest last.
    """
    new = {_key(row) for row in later["rows"]}
    others = [one | {"rows": [r for r in one["rows"] if _key(r) not in new]} for one in earlier.get("again", [])]
    rows = [row for row in earlier["rows"] if _key(row) not in new]
    return earlier | {"rows": rows, "again": [*(one for one in others if one["rows"]), later]}


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["group"], row["work"].removesuffix(UNEQUAL), row["peer"]


def _row(found: dict[str, Any]) -> Row:
    values = {f.name: found[f.name] for f in fields(Row)}
    return Row(**(values | {"profile": tuple((name, share) for name, share in found["profile"])}))


def line(row: Row) -> str:
    """A row for the terminal."""
    sides = f"{row.ours:.4g}" + ("" if row.theirs is None else f" against {row.theirs:.4g}") + f" {row.unit}"
    verdict = "" if row.met is None else f"  [{row.direction} {row.target:g}: {'met' if row.met else 'MISSED'}]"
    ratio = "" if row.theirs is None else f"  {row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
    ratio += "" if row.cpu is None else f", by processor time {row.cpu:.2f}"
    share = "" if row.share is None else f"  {100 * row.share:.0f} % of {row.ceiling}"
    return f"{row.work} | {row.peer or '-'} | {sides}{ratio}{verdict}{share}"


def table(rows: Sequence[Row], busy: bool = False) -> str:
    """The rows as a Markdown table; those of a busy machine are judged by processor time, which holds no waiting."""
    lines = [
        "| work | beside | ours | theirs | value (range) | by processor time | target | met | of the ceiling |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = "" if row.theirs is None else f"{row.theirs:.4g} {row.unit}"
        cpu = "" if row.cpu is None else f"{row.cpu:.2f}"
        target = "" if row.target is None else f"{row.direction} {row.target:g}"
        judged = replace(row, value=row.cpu) if busy and row.cpu is not None else row
        met = {None: "", True: "yes", False: "**no**"}[judged.met]
        share = "" if row.share is None else f"{100 * row.share:.0f} % of {row.ceiling}"
        lines.append(
            f"| {row.work} | {row.peer} | {row.ours:.4g} {row.unit} | {theirs} | {row.value:.2f} "
            f"({row.low:.2f} to {row.high:.2f}) | {cpu} | {target} | {met} | {share} |"
        )
    return "\n".join(lines)


def page(content: dict[str, Any]) -> str:
    """The page of the documentation.

    Args:
        content: what ``--json`` writes.
    """
    rows = [_row(row) for row in content["rows"]]
    again = content.get("again", [])
    every = [*rows, *(_row(row) for one in again for row in one["rows"])]
    profiles = "\n".join(
        f"| {row.work} | {', '.join(f'{name} {100 * share:.0f} %' for name, share in row.profile)} |"
        for row in every
        if row.profile
    )
    unequal = UNEQUAL_CONDITIONS if any(row.work.endswith(UNEQUAL) for row in rows) else ""
    return f"""# Benchmarks

Written by {_about(content)}.

Both sides of a row run in turn, each in a process of its own where it trains or samples, with the same threads, batch,
clipping and allocator (memory is kept on both sides, as `castalia train` keeps it); rows at defaults say what each side
has. A value is taken within a round, and the table has the median over {content["rounds"]} rounds (fewer for the
slowest rows), with the smallest and the largest. It is theirs / ours in time, so that 2 means twice as fast; for
samplers it is ours / theirs, a share of their cost; for rows without another side it is the number itself. What each
row does stands at the top of its file in `benchmarks/`.

{unequal}{"".join(_again(one) for one in again)}{"## All other rows" if again else ""}

{table(rows)}

{_notes(rows)}

## Ceilings

What torch's own kernels reach on this machine with the same number of threads, in the same run.

| ceiling | measured |
|---|---|
{_ceilings(content)}

## Where our time goes

Operations by their own processor time. While the profiler looks on, its records break up the memory that is free,
so operations with large results are charged with new memory, and their shares are too large.

| work | operations |
|---|---|
{profiles}
"""


UNEQUAL_CONDITIONS = """**Rows marked † were measured under unequal conditions**, before both sides were given the same
allocator: ours kept its memory, theirs gave it back to the system and asked for it again. They are not judged until
they are measured again.

"""


def _again(one: dict[str, Any]) -> str:
    """The part of the page on rows that were measured apart from the others."""
    rows = [_row(row) for row in one["rows"]]
    low, high = one["load"]
    return f"""## Measured again on {one["date"]}

By {_about(one)}. The load of the machine was {low:g} to {high:g}: times are longer than on an idle one, and ratios of
wall time say what the neighbours did. So these rows are judged by processor time; they are medians over
{one["rounds"]} rounds (fewer for the slowest rows).

{table(rows, busy=True)}

{_notes(rows)}

| ceiling | measured |
|---|---|
{_ceilings(one)}

"""


def _about(content: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    return (
        f"`{content['command']}` on {content['date']} ({content['minutes']} minutes), {content['processor']},\n"
        f"{content['cores']} cores, {content['threads']} threads in each process; {versions}"
    )


def _notes(rows: Sequence[Row]) -> str:
    return "\n".join(f"- {row.work}: {row.note}." for row in rows if row.note)


def _ceilings(content: dict[str, Any]) -> str:
    return "\n".join(f"| {name} | {value:.4g} |" for name, value in content["ceilings"].items())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    sys.exit(main())
