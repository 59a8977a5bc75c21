"""Kill a training run again and again, resume it each time, and compare it with a run that nobody disturbed.

``python -m benchmarks.resume --kills 20 [--devices 2] [--config ...]``: by default a short run of the default task. Of
several processes one is killed, drawn at random, and the others have to end by themselves. The last line is a JSON
object; ``identical`` says that metrics and evaluations agree to the last digit, wall-clock columns apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

CLOCKS = {"updates_per_second", "seconds"}


_PATIENCE = 120.0  # seconds that the other processes of a run may take to notice that one is gone


def command(run: Path, configs: list[str], devices: int) -> list[str]:
    """The command line of a run; the same one resumes it."""
    given = [word for config in configs for word in ("--config", config)]
    if devices > 1:
        given += ["--fabric.accelerator", "cpu", "--fabric.devices", str(devices), "--fabric.strategy", "ddp"]
    return [sys.executable, "-m", "worldmodel", "fit", *given, "--run", str(run)]


class Processes:
    """A run's processes, in a session of their own; ``kill`` ends one of them with SIGKILL."""

    def __init__(self, command: list[str], seed: int) -> None:
        self._main = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        self._rng = random.Random(seed)

    def wait(self, timeout: float | None = None) -> int:
        return self._main.wait(timeout)

    def _alive(self) -> list[int]:
        found = subprocess.run(["pgrep", "-g", str(self._main.pid)], capture_output=True, text=True, check=False)
        return [int(word) for word in found.stdout.split()]

    def kill(self) -> None:
        """Kill one, and see that nothing of the run is left.

        Raises:
            RuntimeError: the others did not end.
        """
        os.kill(self._rng.choice(self._alive()), signal.SIGKILL)
        until = time.monotonic() + _PATIENCE
        while self._main.poll() is None or self._alive():
            if time.monotonic() > until:
                left = self._alive()
                os.killpg(self._main.pid, signal.SIGKILL)
                raise RuntimeError(f"{len(left)} processes outlived the one that was killed by {_PATIENCE:g} s")
            time.sleep(0.1)


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
    with tempfile.TemporaryDirectory() as folder:
        calm, troubled = Path(folder) / "calm", Path(folder) / "troubled"
        start = time.monotonic()
        subprocess.run(command(calm, configs, given.devices), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start

        seeds = iter(range(given.seed, given.seed + given.kills + 1))

        def start() -> Processes:
            return Processes(command(troubled, configs, given.devices), next(seeds))

        struck = torture(start, given.kills, 1.0, given.longest or seconds / 3, given.seed)
        left, right = outcome(calm), outcome(troubled)
    different = differences(left, right)
    if different:
        print("first differences:", ", ".join(different[:5]))
    result = {
        "kills": struck,
        "devices": given.devices,
        "seconds_undisturbed": round(seconds, 1),
        "rows": len(left["metrics"]),
    }
    print(json.dumps(result | {"identical": not different}))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
