"""Which cores this process may use, asked before OpenMP pins its main thread: children inherit that. Free of torch."""

from __future__ import annotations

import os

_KEPT = "WORLDMODEL_CORES"  # "process:core,core,..."


def remember() -> None:
    """Note the cores; call it before torch is loaded. A rank that a pinned process has started gets them back."""
    if not hasattr(os, "sched_getaffinity"):
        return
    if (kept := _kept(os.getppid())) is not None:
        os.sched_setaffinity(0, kept)
    os.environ[_KEPT] = f"{os.getpid()}:{','.join(map(str, sorted(os.sched_getaffinity(0))))}"


def cores() -> list[int]:
    """The cores that this process was started with; empty where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(_kept(os.getpid()) or os.sched_getaffinity(0))


def _kept(process: int) -> set[int] | None:
    owner, _, numbers = os.environ.get(_KEPT, "").partition(":")
    return {int(number) for number in numbers.split(",")} if owner == str(process) else None
