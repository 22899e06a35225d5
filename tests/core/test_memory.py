"""The allocator keeps what is freed, and is left alone where somebody else has a say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import resource, sys
from castalia.core.memory import keep_memory
told = keep_memory() if sys.argv[1] == "keep" else None
import numpy as np
def step():
    held = [np.ones(10 << 20, np.uint8) for _ in range(5)]
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(what: str, **environment: str) -> tuple[str, int]:
    """Whether the allocator was told, and pages that ten further steps had mapped."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", WORK, what]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    told, faults = done.stdout.split()
    return told, int(faults)


def test_the_heap_asks_for_large_pages() -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").is_dir():
        pytest.skip("this system has none")
    look = "; print(open('/proc/self/smaps').read())"
    for code, wanted in (("print(keep_memory())", True), ("print()", False)):
        command = [sys.executable, "-c", "from castalia.core.memory import keep_memory; " + code + look]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if found.startswith("False"):
            pytest.skip("another C library, a preloaded allocator or limited addresses")
        flags = [part.split("VmFlags:", 1)[1].splitlines()[0].split() for part in found.split("[heap]")[1:]]
        assert any("hg" in of_one for of_one in flags) == wanted


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_used_again() -> None:
    told, faults = run("keep")
    if told == "False":
        pytest.skip("another C library, a preloaded allocator or limited addresses")
    assert faults < 100
    assert run("leave")[1] > 10_000  # so the test can tell: ten times fifty megabytes in pages of four kilobytes


def test_wishes_of_the_environment_are_left_alone() -> None:
    assert run("keep", LD_PRELOAD="")[0] == "False"
    assert run("keep", MALLOC_ARENA_MAX="2")[0] == "False"
    assert run("keep", GLIBC_TUNABLES="glibc.malloc.tcache_count=3")[0] == "False"


def test_limited_addresses_are_left_alone() -> None:
    code = "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40));" + WORK
    done = subprocess.run([sys.executable, "-c", code, "keep"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False")
