"""A program that is tried, by a process of its own: ``sandbox.py`` starts it and waits.

It runs alone, without the package. The first line that it is told is JSON with limits and a secret, all further ones
are the program. The secret is written only if the program comes to its end, so that none passes by leaving early.

Walls, as far as the system has them. For everybody: time of the processor, memory, size of a file, files that are open.
On Linux a namespace of its own (``alone``: no network, no signals to others, a working folder of 64 MiB in memory that
is gone with it), nothing that can be written elsewhere (``shut``: Landlock), and system calls that are refused
(``single``, by seccomp: processes, threads, sockets, rights and times of files, and those that lead out). What was put
up is told before the program begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import sys
import traceback
import types

MOUNTS, USER, NET, IPC, PID = 0x20000, 0x10000000, 0x40000000, 0x08000000, 0x20000000
"""Namespaces, of ``unshare``."""
PRIVATE = 0x4000 | 0x40000
"""A mount, and all below it, whose changes nobody else sees."""
WRITING, TRUNCATE = 0b1_1111_1111_0010, 1 << 14
"""Landlock: writing to files, and making and removing all kinds of them; cutting files, from its third version on."""
TO_FILES = 1 << 1 | TRUNCATE
RULESET, RULE, RESTRICT = 444, 445, 446
"""Numbers of its system calls, the same on all machines."""
DEATH, NO_NEW_PRIVILEGES, SECCOMP = 1, 38, 22
"""Of ``prctl``."""
EVERYWHERE = (425, 435, 452)
"""System calls that are refused and have one number on all machines: io_uring_setup, clone3, fchmodat2."""
ARCHITECTURES = {
    # clone, fork, vfork; socket, connect; chmod, fchmod, chown, fchown, lchown, fchownat, fchmodat; utime, utimes,
    # futimesat, utimensat; truncate; xattrs; setsid, setpgid; ptrace, process_vm_writev, mount, unshare, setns, bpf
    "x86_64": (0xC000003E, (
        56, 57, 58, 41, 42, 90, 91, 92, 93, 94, 260, 268, 132, 235, 261, 280, 76, 188, 189, 190, 197, 198, 199, 112,
        109, 101, 311, 165, 272, 308, 321,
    )),
    "aarch64": (0xC00000B7, (
        220, 198, 203, 52, 53, 54, 55, 88, 45, 5, 6, 7, 14, 15, 16, 157, 154, 117, 271, 40, 97, 268, 280,
    )),
}  # fmt: skip
"""By machine: its number, and those of the system calls that are refused."""


class Ruleset(ctypes.Structure):
    """What is forbidden."""

    _fields_ = (("handled", ctypes.c_uint64),)


class Beneath(ctypes.Structure):
    """What is allowed below a folder, or to a file."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("place", ctypes.c_int32))


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


def alone(libc: ctypes.CDLL, folder: str) -> bool:
    """Neither network nor other processes, and a folder in memory; the caller goes on two processes further down.

    The one between is the first of the namespace: signals to itself would be ignored by the system, and with its end
    all others end. Whether that was possible.
    """
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(MOUNTS | USER | NET | IPC | PID) != 0:
        return False
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    libc.mount(b"none", b"/", None, PRIVATE, None)
    for place, size in ((folder, b"size=64m,nr_inodes=4096"), ("/proc", b"size=4k")):
        libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, size)
    os.chdir(folder)
    for _ in range(2):
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        libc.prctl(DEATH, signal.SIGKILL, 0, 0, 0)
    return True


def shut(libc: ctypes.CDLL, folder: str) -> bool:
    """Nothing can be written outside a folder any more. Whether that was possible."""
    version = libc.syscall(RULESET, None, 0, 1)
    rights = WRITING | (TRUNCATE if version >= 3 else 0)
    rules = Ruleset(rights)
    number = libc.syscall(RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    if number < 0:
        return False
    done = True
    for place, allowed in ((folder, rights), (os.devnull, rights & TO_FILES)):
        inside = os.open(place, os.O_PATH | os.O_CLOEXEC)
        beneath = Beneath(allowed, inside)
        done = done and libc.syscall(RULE, number, 1, ctypes.byref(beneath), 0) == 0
        os.close(inside)
    done = done and libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and libc.syscall(RESTRICT, number, 0) == 0
    os.close(number)
    return done


def single(libc: ctypes.CDLL) -> bool:
    """Refuse system calls, with EPERM. Whether that was possible."""
    if os.uname().machine not in ARCHITECTURES:
        return False
    architecture, calls = ARCHITECTURES[os.uname().machine]
    calls = (*calls, *EVERYWHERE)
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


def walls_of(told: dict[str, int]) -> list[str]:
    """Put them up; those that stand."""
    walls: list[str] = []
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(DEATH, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):
            walls += ["alone"] if alone(libc, os.getcwd()) else []
        with contextlib.suppress(OSError):
            walls += ["shut"] if shut(libc, os.getcwd()) else []
        walls += ["single"] if single(libc) else []
    with contextlib.suppress(ImportError, ValueError, OSError):  # not everywhere
        limit(told["seconds"], told["memory"])
        walls.append("limits")
    return walls


def main() -> None:
    """Put up the walls, run the program, and tell how it ended."""
    told = json.loads(sys.stdin.readline())
    program, out = sys.stdin.read(), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)

    def tell(**what: object) -> None:
        os.write(out, json.dumps(what).encode() + b"\n")

    secret = told.pop("secret")
    tell(walls=walls_of(told))
    module = sys.modules["program"] = types.ModuleType("program")
    try:
        code = compile(program, "program", "exec", dont_inherit=True)
        exec(code, module.__dict__)  # safe: what this process is for, behind its walls, where a person says --run-code
    except BaseException as error:  # whatever a program raises, leaving included, it has not come to its end
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "program"]
        tell(wrong=f"{type(error).__name__}: {error}"[:300], line=frames[-1].lineno if frames else None)
        os._exit(1)
    tell(secret=secret)
    os._exit(0)


if __name__ == "__main__":
    main()
