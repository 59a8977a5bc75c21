"""Disturb a training run in every way that we know, go on each time, and compare it with one that nobody disturbed.

``python -m benchmarks.torture --hours 1 [--disk FOLDER] [--config ...]``. A start lives for a random time, then one of
these strikes: SIGKILL to the first process, SIGKILL to another one (a worker of the environments), SIGTERM, Ctrl-C
twice, and, where ``--disk`` names a folder on a small file system of its own, a disk that fills. In every second start
the clock jumps by up to an hour, forwards and backwards. A run that ends is compared, and the next one begins. The last
line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import PATIENCE, Processes, command
from benchmarks.resume import differences, outcome

_JUMPS = """
import random, time
_real, _chance = time.time, random.Random()
time.time = lambda: _real() + _chance.uniform(-3600, 3600)
"""  # as sitecustomize: of every Python that starts
_CONFIGS = ["tests/training/tiny.yaml", "benchmarks/torture.yaml"]
_TURN = 0.5  # seconds between the two of Ctrl-C twice

Disturbance = Callable[[Processes, random.Random], None]


def kill_first(run: Processes, rng: random.Random) -> None:
    run.signal(signal.SIGKILL)


def kill_another(run: Processes, rng: random.Random) -> None:
    first, *others = run.alive() or [None]
    if chosen := rng.choice(others or [first]):
        chosen.kill()


def terminate(run: Processes, rng: random.Random) -> None:
    run.signal(signal.SIGTERM)


def interrupt_twice(run: Processes, rng: random.Random) -> None:
    run.signal(signal.SIGINT)
    time.sleep(_TURN * rng.random())
    run.signal(signal.SIGINT)


class FillDisk:
    """Leaves no byte free on the file system of ``folder`` until the run has ended."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def __call__(self, run: Processes, rng: random.Random) -> None:
        until = time.monotonic() + PATIENCE
        try:
            with self._ballast.open("wb", buffering=0) as file:
                while run.main.poll() is None and time.monotonic() < until:
                    try:
                        file.write(bytes(1 << 16))
                    except OSError:
                        time.sleep(0.02)
        finally:
            self._ballast.unlink(missing_ok=True)


class Troubled:
    """A run that is disturbed again and again.

    Args:
        folder: gets the run, what it prints, and what lets clocks jump.
        configs: of the run.
        ways: to disturb it, by name.
        longest: seconds that a start lives before it is disturbed, at the most.
        rng: draws all that happens.
    """

    def __init__(
        self, folder: Path, configs: list[str], ways: dict[str, Disturbance], longest: float, rng: random.Random
    ) -> None:
        self.run, self.printed, self._jumps = folder / "run", folder / "printed", folder / "jumps"
        self._configs, self._ways, self._longest, self._rng = configs, ways, longest, rng
        self._jumps.mkdir(parents=True, exist_ok=True)
        (self._jumps / "sitecustomize.py").write_text(_JUMPS)

    def start(self) -> str | None:
        """Start it, and disturb it; returns how, or None where it had come to its end.

        Raises:
            RuntimeError: processes were left, a traceback was printed, or the exit code is that of success.
        """
        jumping = {"PYTHONPATH": str(self._jumps)} if self._rng.random() < 0.5 else {}
        self.printed.unlink(missing_ok=True)
        processes = Processes(command(self.run, self._configs), self.printed, jumping)
        way = self._rng.choice(sorted(self._ways))
        try:
            code = processes.wait(self._rng.uniform(1.0, self._longest))
        except subprocess.TimeoutExpired:
            self._ways[way](processes, self._rng)
            processes.ended()
            code = processes.wait()
            self._checked(f"after {way}")
            return way if code else None  # it was just done
        self._checked("undisturbed")
        if code:
            raise RuntimeError(f"a start ended with exit code {code}: {self.printed.read_text()[-500:]}")
        return None

    def _checked(self, when: str) -> None:
        text = self.printed.read_text(errors="replace")
        if "Traceback" in text:
            raise RuntimeError(f"a traceback {when}: {text[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="append", default=[], help="as for worldmodel fit")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--disk", type=Path, default=None, help="on a small file system that may be filled")
    parser.add_argument("--longest", type=float, default=0.0, help="seconds a start may live; half of a run if 0")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    configs, rng = given.config or _CONFIGS, random.Random(given.seed)
    ways: dict[str, Disturbance] = {
        "kill the first": kill_first,
        "kill another": kill_another,
        "SIGTERM": terminate,
        "Ctrl-C twice": interrupt_twice,
    }
    if given.disk:
        ways["full disk"] = FillDisk(given.disk)
    struck: Counter[str] = Counter()
    runs, different = 0, list[str]()
    with tempfile.TemporaryDirectory(dir=given.disk) as name:
        folder = Path(name)
        begun = time.monotonic()
        subprocess.run(command(folder / "calm", configs), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begun
        expected = outcome(folder / "calm")
        shutil.rmtree(folder / "calm")
        while time.monotonic() - begun < 3600 * given.hours and not different:
            troubled = Troubled(folder / str(runs), configs, ways, given.longest or seconds / 2, rng)
            while way := troubled.start():
                struck[way] += 1
            runs, different = runs + 1, differences(expected, outcome(troubled.run))
            print(f"run {runs}: {sum(struck.values())} disturbances, {len(different)} differences", flush=True)
            shutil.rmtree(folder / str(runs - 1))
    if different:
        print("first differences:", ", ".join(different[:5]))
    hours = round((time.monotonic() - begun) / 3600, 2)
    result = {"hours": hours, "runs": runs, "struck": dict(struck), "total": struck.total()}
    print(json.dumps(result | {"seconds_undisturbed": round(seconds, 1), "identical": not different}))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
