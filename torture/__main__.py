"""The long form of every part: ``python -m torture [PART ...]``.

python -m torture                            # all parts, the table printed
python -m torture kills --systems vae        # one part, one system
python -m torture --json FILE --page docs/torture.md
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

from torture.report import Options, Row, table, write, write_page

PARTS = ("kills", "pairs", "rounds", "disks", "damage", "poison", "readers", "endurance")
"""Modules with a function ``run(options) -> list[Row]``."""


def main() -> int:
    """Run the parts that were asked for; 1 if something did not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--short", action="store_true", help="the form that the tests run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--systems", nargs="+", default=[], help="names from the catalogue; none: all")
    parser.add_argument("--inputs", type=int, default=0, help="of each reader of the part readers, instead of 20,000")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path, help="write the table as a page of the documentation")
    parser.add_argument("--of", nargs="+", type=Path, metavar="FILE", help="run nothing: the page of these results")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"unknown part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.page and not (options.json or options.of):
        parser.error("--page needs --json, from which it is made")
    if options.of:
        if not options.page:
            parser.error("--of needs --page, which is made from it")
        write_page(options.of, options.page)
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # trainings run side by side with what kills them
    rows: list[Row] = []
    started = time.monotonic()
    for part in options.parts or PARTS:
        module = importlib.import_module(f"torture.{part}")
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = module.run(
                Options(options.short, options.seed, Path(folder), tuple(options.systems), options.inputs)
            )
        rows += found
        print(f"\n{part}: {time.monotonic() - begun:.0f} s\n{table(found)}\n", flush=True)
        for row in found:
            for failure in row.failures:
                print(f"FAILED {row.part}: {failure}", flush=True)
        if options.json:
            command = shlex.join(["python", "-m", "torture", *sys.argv[1:]])
            write(rows, command, time.monotonic() - started, options.json)
            if options.page:
                write_page([options.json], options.page)
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
