"""What the processes of a long experiment begin with: cores of their own, and a life no longer than their parent's."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

_LIBC = ctypes.CDLL(None)  # found here: between fork and exec nothing should be looked for
_PR_SET_PDEATHSIG = 1


def stay(cores: set[int]) -> None:
    """Keep this process on ``cores``, and let it not outlive the one that started it."""
    os.sched_setaffinity(0, cores)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def own_cores(count: int) -> Iterator[set[int]]:
    """``count`` cores of this machine that nobody else holds by this function; fewer where there are no more.

    A core is held by a lock of the kernel's on a file, which the death of the holder frees.
    """
    folder = Path(tempfile.gettempdir()) / f"worldmodel-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        held: set[int] = set()
        for core in sorted(os.sched_getaffinity(0)):
            file = stack.enter_context((folder / f"{core}.lock").open("w"))
            if len(held) < count and _lock(file):
                held.add(core)
        yield held or set(os.sched_getaffinity(0))


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
