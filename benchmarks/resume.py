"""Kill a training run again and again, resume it each time, and compare it with a run that nobody disturbed.

``python -m benchmarks.resume --kills 20 [--devices 2] [--config ...]``: by default a short run of the default task. Of
all its processes (environments' workers too) one is killed, drawn at random, and the others have to end by themselves.
Every second start is given its random time only when it has written a row of its metrics, for the others are mostly
killed before. The last line is a JSON object: ``trained`` counts the kills of starts that had written a row,
``identical`` says that metrics and evaluations agree to the last digit, wall-clock columns apart.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks.processes import Processes, command

CLOCKS = {"updates_per_second", "seconds"}


class OneKilled(Processes):
    """``kill`` ends one of the processes, drawn at random, with SIGKILL, and waits for the others to end."""

    def __init__(self, command: list[str], seed: int, table: Path) -> None:
        self._rng, self._table, self._before = random.Random(seed), table, _size(table)
        self.killed_in_training = False
        super().__init__(command)

    def under_way(self) -> None:
        """Wait until it has written to its table, or has ended."""
        while self.main.poll() is None and not self._trains():
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill one, and see that nothing of the run is left.

        Raises:
            RuntimeError: the others did not end.
        """
        self.killed_in_training = self._trains()
        self._rng.choice(self.alive()).kill()
        self.ended()

    def _trains(self) -> bool:
        return _size(self._table) != self._before


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def outcome(run: Path) -> dict[str, Any]:
    """Everything a run wrote down, without what a clock decides."""
    with (run / "metrics.csv").open(newline="") as file:
        metrics = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    return {"metrics": metrics, "evaluations": [{k: v for k, v in row.items() if k not in CLOCKS} for row in lines]}


class Process(Protocol):
    """As of ``subprocess``."""

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


def torture(start: Callable[[], Process], kills: int, shortest: float, longest: float, seed: int) -> int:
    """Start a run, kill it after a random time, and again, then let it end; returns how many kills struck."""
    rng, struck = random.Random(seed), 0
    for _ in range(kills):
        process = start()
        try:
            process.wait(rng.uniform(shortest, longest))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            struck += 1
    if code := start().wait():
        raise RuntimeError(f"the resumed run ended with exit code {code}")
    return struck


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Where two outcomes are not the same."""
    found = [
        f"{name}: {len(left[name])} rows, {len(right[name])}" for name in left if len(left[name]) != len(right[name])
    ]
    for name in left:
        for i, (a, b) in enumerate(zip(left[name], right[name], strict=False)):
            found += [f"{name}[{i}].{key}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="append", default=[], help="as for worldmodel fit")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--devices", type=int, default=1, help="processes, which share the updates")
    parser.add_argument("--longest", type=float, default=0.0, help="seconds a start may live; a third of the run if 0")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    configs = given.config or ["benchmarks/resume.yaml"]
    seeds = itertools.count(given.seed)
    struck, runs, trained, different = 0, 0, 0, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        begun = time.monotonic()
        subprocess.run(command(calm, configs, given.devices), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begun
        expected = outcome(calm)
        while struck < given.kills and not different:  # a run that ends before all have struck is followed by another
            troubled, seed = Path(folder) / f"troubled{runs}", next(seeds)

            starts: list[OneKilled] = []

            def start(run: Path = troubled, starts: list[OneKilled] = starts) -> OneKilled:
                starts.append(OneKilled(command(run, configs, given.devices), next(seeds), run / "metrics.csv"))
                if len(starts) % 2:
                    starts[-1].under_way()
                return starts[-1]

            struck += torture(start, given.kills - struck, 1.0, given.longest or seconds / 3, seed)
            trained += sum(process.killed_in_training for process in starts)
            runs, different = runs + 1, differences(expected, outcome(troubled))
            print(f"run {runs}: {struck} kills, {len(different)} differences", flush=True)
            shutil.rmtree(troubled)
    if different:
        print("first differences:", ", ".join(different[:5]))
    result = {
        "kills": struck,
        "trained": trained,
        "runs": runs,
        "devices": given.devices,
        "seconds_undisturbed": round(seconds, 1),
        "rows": len(expected["metrics"]),
    }
    print(json.dumps(result | {"identical": not different}))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
