"""A program that is tried, by a process of its own: ``sandbox.py`` starts it and waits.

It runs alone, without the package. The first line that it is told is JSON with limits and a secret, all further ones
are the program. The secret is written only if the program comes to its end, so that none passes by leaving early.

Walls, as far as the system has them: time, memory, size and number of files for everybody; on Linux no network and no
sight of other processes (namespaces), nothing that can be written outside the working folder (Landlock), and no further
processes (seccomp). What was
put up is told before the program begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import struct
import sys
import traceback

USER, NET, IPC, PID = 0x10000000, 0x40000000, 0x08000000, 0x20000000
"""Namespaces, of ``unshare``."""
WRITING = 0b1_1111_1111_0010
"""Landlock's first version: writing to files, and making and removing all kinds of them."""
RULESET, RULE, RESTRICT = 444, 445, 446
"""Numbers of its system calls, the same on all machines."""
NO_NEW_PRIVILEGES, SECCOMP = 38, 22
ARCHITECTURES = {"x86_64": (0xC000003E, (56, 57, 58, 435)), "aarch64": (0xC00000B7, (220, 435))}
"""By machine: its number, and those of the system calls that make processes and threads."""


class Ruleset(ctypes.Structure):
    """What is forbidden."""

    _fields_ = (("handled", ctypes.c_uint64),)


class Beneath(ctypes.Structure):
    """What is allowed below a folder."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def limit(seconds: int, memory: int) -> None:
    """Of time, memory, and files."""
    import resource

    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def alone(libc: ctypes.CDLL) -> bool:
    """Neither network nor other processes; the caller goes on in a child. Whether that was possible."""
    if libc.unshare(USER | NET | IPC | PID) != 0:
        return False
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    return True


def shut(libc: ctypes.CDLL, folder: str) -> bool:
    """Nothing can be written outside a folder any more. Whether that was possible."""
    rules = Ruleset(WRITING)
    number = libc.syscall(RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    if number < 0:
        return False
    inside = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    beneath = Beneath(WRITING, inside)
    done = (
        libc.syscall(RULE, number, 1, ctypes.byref(beneath), 0) == 0
        and libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        and libc.syscall(RESTRICT, number, 0) == 0
    )
    os.close(inside)
    os.close(number)
    return done


def single(libc: ctypes.CDLL) -> bool:
    """No process and no thread can be made any more. Whether that was possible."""
    if os.uname().machine not in ARCHITECTURES:
        return False
    architecture, calls = ARCHITECTURES[os.uname().machine]
    load, equal, above, end = 0x20, 0x15, 0x35, 0x06
    steps = [(load, 0, 0, 4), (equal, 0, len(calls) + 3, architecture), (load, 0, 0, 0)]
    steps += [(above, len(calls) + 1, 0, 0x40000000)]  # another numbering of the same machine
    steps += [(equal, len(calls) - i, 0, call) for i, call in enumerate(calls)]
    steps += [(end, 0, 0, 0x7FFF0000), (end, 0, 0, 0x00050001)]  # allowed; refused with EPERM
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(buffer))
    done = libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    return done and libc.prctl(SECCOMP, 2, ctypes.create_string_buffer(program), 0, 0) == 0


def main() -> None:
    """Put up the walls, run the program, and tell how it ended."""
    told = json.loads(sys.stdin.readline())
    program, out = sys.stdin.read(), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    walls: list[str] = []
    with contextlib.suppress(ImportError, ValueError, OSError):  # not everywhere
        limit(told["seconds"], told["memory"])
        walls.append("limits")
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        with contextlib.suppress(OSError):
            walls += ["alone"] if alone(libc) else []
        with contextlib.suppress(OSError):
            walls += ["shut"] if shut(libc, os.getcwd()) else []
        walls += ["single"] if single(libc) else []

    def tell(**what: object) -> None:
        os.write(out, json.dumps(what).encode() + b"\n")

    tell(walls=walls)
    secret = told.pop("secret")
    try:
        exec(compile(program, "program", "exec"), {"__name__": "program"})
    except BaseException as error:  # whatever a program raises, leaving included, it has not come to its end
        last = traceback.extract_tb(error.__traceback__)[-1].lineno if error.__traceback__ else None
        tell(wrong=f"{type(error).__name__}: {error}"[:300], line=last)
        os._exit(1)
    tell(secret=secret)
    os._exit(0)


if __name__ == "__main__":
    main()
