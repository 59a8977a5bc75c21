"""The processes of a run, which end together."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lightning.fabric import Fabric

from worldmodel.errors import UserError

_T = TypeVar("_T")

LAUNCHER = "WORLDMODEL_LAUNCHER"  # the process that starts the others, by its number
_PERIOD = 1.0  # seconds between two looks
_GRACE = 10.0  # seconds in which a process ends by itself
_ALONE = "another process of this run is gone, so this one ends: the same command goes on from the checkpoint"
_speaks = threading.Lock()  # whoever has it says so: the one that a collective has told, or the watch
_GONE = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")  # how collectives say it


def launch(fabric: Fabric, function: Callable[[Fabric, _T], None], given: _T) -> None:
    """Call ``function(fabric, given)`` in every process, starting them first where nobody else has.

    Fabric ends the first process when one that it started dies. The other way round, the others would wait for a
    first process that was killed for as long as a collective may take, half an hour: here they end within seconds.
    Processes that a cluster's launcher starts are watched by it.

    Raises:
        UserError: another process of the run is gone.
    """
    launcher = os.environ.get(LAUNCHER)
    if launcher and os.environ.get("LOCAL_RANK", "0") != "0":
        threading.Thread(target=_end_with, args=(int(launcher),), daemon=True).start()
    elif "LOCAL_RANK" not in os.environ:  # nobody has started this one as one of several: it starts the others
        os.environ[LAUNCHER] = str(os.getpid())  # its children inherit it
    try:
        fabric.launch(lambda launched: function(launched, given))
    except RuntimeError as cause:
        if fabric.world_size == 1 or not any(words in str(cause) for words in _GONE):
            raise
        _speaks.acquire(blocking=False)
        raise UserError(_ALONE) from cause
    finally:
        if not launcher:  # a later run of this process, started by somebody else, is none of our children's
            os.environ.pop(LAUNCHER, None)


def _end_with(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_PERIOD)
    if _speaks.acquire(blocking=False):
        print(f"worldmodel: {_ALONE}", file=sys.stderr, flush=True)
    else:
        time.sleep(_GRACE)
    os._exit(1)  # the main thread may be held by a collective, which no exception reaches
