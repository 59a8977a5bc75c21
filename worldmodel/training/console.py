"""What is shown of work under way: a bar on a terminal, a line now and then elsewhere. Free of torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

_SECONDS = 15.0  # between two lines where there is no terminal


class Bar:
    """How much of ``total`` is done.

    Args:
        what: is done, such as ``collecting episodes``.
        total: of it.
        shown: nothing is printed if not, as on all ranks but the first.
        file: standard output if None.
    """

    def __init__(self, what: str, total: int, shown: bool = True, file: TextIO | None = None) -> None:
        self.done, self._what, self._total = 0, what, total
        self._file, self._shown = file or sys.stdout, shown
        self._printed = time.monotonic()
        is_terminal = self._file.isatty()
        self._tqdm = tqdm(total=total, desc=what, file=self._file, leave=False, disable=not (shown and is_terminal))
        self._plain = shown and not is_terminal

    def at(self, done: int) -> None:
        """``done`` are done by now."""
        self._tqdm.update(done - self.done)
        self.done = done
        if self._plain and time.monotonic() - self._printed > _SECONDS:
            self._print(f"{self._what}: {done:,} of {self._total:,}")

    def _print(self, text: str) -> None:
        print(text, file=self._file, flush=True)
        self._printed = time.monotonic()

    def close(self) -> None:
        self._tqdm.close()


@contextmanager
def bar(what: str, total: int, shown: bool = True) -> Iterator[Bar]:
    """A ``Bar`` that is gone when the work is over, however it ends."""
    made = Bar(what, total, shown)
    try:
        yield made
    finally:
        made.close()


def megabytes(folder: Path) -> str:
    """What a folder takes on the disk."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:,.0f} MB" if size >= 10e6 else f"{size / 1e6:.1f} MB"


def facts(**known: str) -> str:
    """A line for each, names in a column."""
    return "\n".join(f"{name:10s}{fact}" for name, fact in known.items())
