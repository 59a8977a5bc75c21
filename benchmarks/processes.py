"""What the processes of a long benchmark begin with."""

from __future__ import annotations

import ctypes
import os
import signal

_LIBC = ctypes.CDLL(None)  # found here: between fork and exec nothing should be looked for
_PR_SET_PDEATHSIG = 1


def stay(core: int) -> None:
    """Keep this process on ``core``, and let it not outlive the one that started it."""
    os.sched_setaffinity(0, {core})
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
