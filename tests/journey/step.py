"""A command as a newcomer types it, and what it has to print and to leave."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import heed


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        says: what it is for.
        words: the command, without ``worldmodel`` in front.
        prints: patterns that are found in what it prints, in this order.
        leaves: files that are there afterwards.
        code: how it exits.
        interrupt: Ctrl-C is pressed once this has been printed.
        meanwhile: what is done once that has been printed, before Ctrl-C; returns what is wrong, or "".
        limit: seconds that it may take.
    """

    says: str
    words: str
    prints: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    code: int = 0
    interrupt: str | None = None
    meanwhile: Callable[[str], str] | None = None
    limit: float = 600.0


@dataclass(frozen=True)
class Walked:
    """What came of a step. ``wrong`` is empty where nothing was.

    ``first`` and ``updated`` are the seconds until the first line, and the first line of updates, was printed.
    """

    says: str
    wrong: str
    seconds: float
    first: float | None
    updated: float | None
    text: str


def walk(step: Step, worldmodel: Path, folder: Path) -> Walked:
    """Type it in ``folder``, and look."""
    begun, lines, times = time.monotonic(), list[str](), list[float]()
    screen, terminal = pty.openpty()  # as a person has it: some lines are for terminals alone
    process = subprocess.Popen(
        [str(worldmodel), *step.words.split()],
        cwd=folder,
        stdout=terminal,
        stderr=terminal,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed,
    )
    os.close(terminal)
    late = threading.Timer(step.limit, os.killpg, (process.pid, signal.SIGKILL))
    late.start()
    other, waits = "", step.interrupt
    for line in _lines(screen):
        lines.append(line)
        times.append(time.monotonic() - begun)
        if waits is not None and re.search(waits, line):
            waits = None
            other = step.meanwhile(line) if step.meanwhile else ""
            process.send_signal(signal.SIGINT)
    code = process.wait()
    late.cancel()
    text = "".join(lines)
    updates = [at for at, line in zip(times, lines, strict=True) if line.startswith("frames")]
    wrong = other or wrong_with(step, code, text, folder)
    first, updated = (found[0] if found else None for found in (times, updates))
    return Walked(step.says, wrong, time.monotonic() - begun, first=first, updated=updated, text=text)


def _lines(screen: int) -> Iterator[str]:
    """What appears there, until everyone has left."""
    with open(screen, errors="replace") as shown, suppress(OSError):  # as Linux says that it is over
        yield from shown


def wrong_with(step: Step, code: int, text: str, folder: Path) -> str:
    """What is not as it should be, in a line."""
    if "Traceback (most recent call last)" in text:
        return "a traceback"
    if code != step.code:
        return f"exit code {code}, not {step.code}: {text.strip().splitlines()[-1] if text.strip() else 'silent'}"
    at = 0
    for pattern in step.prints:
        found = re.compile(pattern).search(text, at)
        if found is None:
            return f"does not print {pattern!r}" + (" after what came before it" if at else "")
        at = found.end()
    missing = [name for name in step.leaves if not any(p.stat().st_size for p in folder.glob(name))]
    return f"leaves no {', '.join(missing)}" if missing else ""
