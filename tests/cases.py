"""All the tables of cases in one: what is bad is said in one line, and nothing hangs.

``python -m tests.cases [--timeout SECONDS] [TABLE ...]`` runs them, prints a row for each, and exits with 1 where a
case has not passed. A case is a test, or a row of a test that is parametrized.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
TABLES: dict[str, Sequence[str]] = {
    "somebody else's run": ("tests/test_strangers.py",),
    "settings and their ranges": ("tests/training/test_ranges.py", "tests/training/test_bad_runs.py"),
    "command lines and checkpoints": ("tests/training/test_bad_input.py",),
    "options of commands": (
        "tests/training/test_play.py",
        "tests/training/test_imagine.py",
        "tests/training/test_report.py",
        "tests/training/test_export.py",
        "-k",
        "test_mistakes",
    ),
    "damaged files, tables and names": ("tests/training/test_damaged.py",),
    "damaged replays": ("tests/experience/test_replay.py", "-k", "damaged or flipped or full_disk or bad_input"),
    "environments": ("tests/experience/test_bad_environments.py",),
    "wrong data": (
        "tests/experience/test_wrong_data.py",
        "tests/experience/test_wrong_records.py",
        "tests/experience/test_spaces.py",
    ),
    "the player under attack": ("tests/insight/player/attack", "tests/insight/player/test_messages.py"),
    "dreams as environments": ("tests/dream/test_bad_steps.py",),
    "two processes, and signals": ("tests/training/test_lock.py", "tests/training/test_interrupt.py"),
}
_COLUMNS = ("cases", "passed", "skipped", "tracebacks", "otherwise wrong", "hangs")
_FOUND = ("AssertionError", "assert ", "Failed: ")  # how a failure begins that no exception of ours is


class Count(NamedTuple):
    """How the cases of a table have ended."""

    cases: int = 0
    passed: int = 0
    skipped: int = 0  # where this machine lacks what they want
    tracebacks: int = 0  # an exception that nothing has caught
    wrong: int = 0  # said or left something else than it should
    hangs: int = 0  # did not end in time

    def __add__(self, other: object) -> Count:
        assert isinstance(other, Count)
        return Count._make(a + b for a, b in zip(self, other, strict=True))


def run(arguments: Sequence[str], timeout: float) -> Count:
    """Run tests in a process of their own, and count how they end.

    Args:
        arguments: of pytest.
        timeout: seconds for each case.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "cases.xml"
        options = ["-q", "--no-header", "-p", "no:cacheprovider", f"--timeout={timeout}", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if not report.exists():  # the process has died
            print(done.stdout[-2000:], file=sys.stderr)
            return Count(cases=1, tracebacks=1)
        if done.returncode:
            print(done.stdout[-4000:], file=sys.stderr)
        return sum((_ended(case) for case in ElementTree.parse(report).iter("testcase")), Count())


def _ended(case: ElementTree.Element) -> Count:
    found = next((x for x in case if x.tag in ("failure", "error", "skipped")), None)
    if found is None:
        return Count(cases=1, passed=1)
    if found.tag == "skipped":
        return Count(cases=1, skipped=1)
    message = found.get("message", "").removeprefix("failed on setup with ").strip('"')
    if message.startswith("Failed: Timeout"):
        return Count(cases=1, hangs=1)
    return Count(cases=1, wrong=1) if message.startswith(_FOUND) else Count(cases=1, tracebacks=1)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run all the tables of cases, and print how they end.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {'; '.join(TABLES)}. All if none is named")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for a case")
    words = parser.parse_args(given)
    if unknown := [name for name in words.tables if name not in TABLES]:
        parser.error(f"there is no table {unknown[0]!r}: there are {'; '.join(TABLES)}")
    print(f"| table | {' | '.join(_COLUMNS)} |\n|---|{'---|' * len(_COLUMNS)}", flush=True)
    total = Count()
    for name in words.tables or TABLES:
        count = run(TABLES[name], words.timeout)
        print(f"| {name} | {' | '.join(map(str, count))} |", flush=True)
        total += count
    print(f"| **all** | {' | '.join(f'**{x}**' for x in total)} |", flush=True)
    return int(total.passed + total.skipped < total.cases)


if __name__ == "__main__":
    sys.exit(main())
