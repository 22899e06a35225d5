"""Entry point: parse, run the verb, turn errors into one sentence and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence

from castalia.cli.parser import make_parser
from castalia.core.errors import CastaliaError, shown

COMPUTE = ("train", "sample", "edit", "evaluate", "compare", "features", "serve", "story", "demo")
"""Verbs that run networks."""

TRAIN = ("train", "demo")
"""Those of them that decide themselves how many threads a run has."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; one of several processes ends instead."""
    code = _run(arguments)
    if arguments is None and os.environ.get("WORLD_SIZE", "1") != "1":
        _leave(code)
    return code


def _leave(code: int) -> None:
    """End the process, but do not take the interpreter apart.

    FSDP keeps its process group, and the group its threads, for as long as the process lives. A process was seen to be
    aborted there, after all its work was done; most likely by such a thread that wanted Python's lock too late.
    """
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # nobody listens any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser()
    try:
        options = parser.parse_args(given or ["--help"])
    except SystemExit as stop:
        return int(stop.code or 0)
    theirs, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        if arguments is None and options.verb in COMPUTE:  # the process is ours
            _prepare(options.verb)
        from castalia.cli import verbs

        return verbs.run(options)
    except CastaliaError as error:
        print(f"castalia: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of what we print went away (for example `| head`): do not fail again on flushing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if options.verb in ("models", "data", "runs", "info", "doctor") else 1
    except (OSError, UnicodeError) as error:  # names that are too long, or no UTF-8; a folder that may not be read
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        print(shown(f"castalia: {getattr(error, 'strerror', None) or error}{where[:300]}"), file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:  # torch reports memory as a RuntimeError
        if not isinstance(error, MemoryError) and "alloc" not in str(error) and "out of memory" not in str(error):
            raise
        print("castalia: out of memory; a smaller batch, network or picture needs less.", file=sys.stderr)
        return 1
    finally:
        warnings.showwarning = theirs  # of whoever called main([...])


def _prepare(verb: str) -> None:
    """Set up this process for computing."""
    from castalia.core.memory import keep_memory

    keep_memory()  # before anything large is allocated
    if verb not in TRAIN:
        from castalia.core.threads import use_free_threads

        use_free_threads()


def _show_warning(message: Warning | str, *rest: object, **more: object) -> None:
    print(f"castalia: {shown(str(message))}", file=sys.stderr)
