"""A run's processes, watched and disturbed from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

PATIENCE = 120.0  # seconds that processes may take to notice that one of them is gone


def command(run: Path, configs: Iterable[str], devices: int = 1, more: Iterable[str] = ()) -> list[str]:
    """The command line of a run; the same one resumes it."""
    given = [word for config in configs for word in ("--config", config)]
    if devices > 1:
        given += ["--fabric.accelerator", "cpu", "--fabric.devices", str(devices), "--fabric.strategy", "ddp"]
    return [sys.executable, "-m", "worldmodel", "fit", *given, *more, "--run", str(run)]


def heed() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Processes:
    """All processes that a command starts, in a session of their own.

    Args:
        command: to be started.
        printed: gets what they print; nothing is kept if None.
        environment: added to that of this process.
    """

    def __init__(
        self, command: list[str], printed: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        with open(printed or os.devnull, "ab") as file:
            self.main = subprocess.Popen(
                command,
                stdout=file,
                stderr=file if printed else None,
                start_new_session=True,
                env=os.environ | dict(environment or {}),
                preexec_fn=heed,
            )

    def alive(self) -> list[psutil.Process]:
        """Those that have not ended, the first one started first."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) == self.main.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return sorted(found, key=lambda process: process.pid != self.main.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process."""
        with contextlib.suppress(ProcessLookupError):
            self.main.send_signal(number)

    def wait(self, timeout: float | None = None) -> int:
        """Exit code of the first process.

        Raises:
            subprocess.TimeoutExpired: it runs longer than ``timeout`` seconds.
        """
        return self.main.wait(timeout)

    def ended(self, patience: float = PATIENCE) -> None:
        """Wait until nothing of the run is left.

        Raises:
            RuntimeError: something is after ``patience`` seconds, and is ended by force.
        """
        until = time.monotonic() + patience
        while self.main.poll() is None or self.alive():
            if time.monotonic() > until:
                left = [process.pid for process in self.alive()]
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                raise RuntimeError(f"{len(left)} processes were left after {patience:g} s")
            time.sleep(0.1)
