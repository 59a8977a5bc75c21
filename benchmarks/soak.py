"""Watch a training run for hours: memory, descriptors, processes, disk and speed must not drift.

``python -m benchmarks.soak --hours 6 [--config ...] [--out FOLDER]`` trains the default task, takes a sample every half
minute (``samples.csv`` in the folder), and at the end kills the first process with SIGKILL and looks for what it left.
Memory is what belongs to processes alone (anonymous pages): pages of replay files that the system keeps mapped come and
go with what else the machine does. Speed is in updates per second of the processor, which other work on the machine
changes less than a clock's. The last line is a JSON object, of the samples after a first sixth.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.processes import Processes, command

_PERIOD = 30.0  # seconds
_WARM_UP = 1 / 6
_GRACE = 30.0  # seconds that workers may take to notice that their parent is gone


def sample(processes: Processes, run: Path) -> dict[str, float]:
    """One row of the table.

    Returns:
        ``memory`` in MB, ``descriptors``, ``processes``, ``threads``, ``disk`` in MB, ``cpu`` in seconds so far, and
        ``updates`` so far.
    """
    alive = processes.alive()
    rows = [row for process in alive if (row := _of(process))]
    total = np.sum(rows, axis=0)
    disk = sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / 1e6
    return {
        "memory": float(total[0]),
        "descriptors": float(total[1]),
        "threads": float(total[2]),
        "cpu": float(total[3]),
        "processes": float(len(rows)),
        "disk": disk,
        "updates": _updates(run / "metrics.csv"),
    }


def _of(process: psutil.Process) -> list[float] | None:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        anonymous = next(float(line.split()[1]) for line in status if line.startswith("RssAnon"))  # kB
        times = process.cpu_times()
        return [anonymous / 1e3, process.num_fds(), process.num_threads(), times.user + times.system]
    except (psutil.Error, OSError, StopIteration):  # it has just ended
        return None


def _updates(table: Path) -> float:
    try:
        with table.open(newline="") as file:
            return float(list(csv.DictReader(file))[-1]["updates"])
    except (OSError, IndexError):
        return 0.0


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """How far the samples drift after the warm-up: the last third of them against the first, medians of each."""
    warm = rows[int(len(rows) * _WARM_UP) :]
    third = max(1, len(warm) // 3)
    first, last = warm[:third], warm[-third:]

    def middle(part: list[dict[str, float]], name: str) -> float:
        return float(np.median([row[name] for row in part]))

    def speed(part: list[dict[str, float]]) -> float:
        return (part[-1]["updates"] - part[0]["updates"]) / max(part[-1]["cpu"] - part[0]["cpu"], 1e-9)

    found = {}
    for name in ("memory", "descriptors", "threads", "processes", "disk"):
        found[name] = round(middle(last, name), 1)
        found[f"{name}_drift_percent"] = round(100 * (middle(last, name) / middle(first, name) - 1), 2)
    found["updates_per_cpu_second"] = round(speed(last), 2)
    found["speed_drift_percent"] = round(100 * (speed(last) / speed(first) - 1), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="append", default=[], help="as for worldmodel fit")
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--out", type=Path, default=None, help="an empty folder; a temporary one if not given")
    given = parser.parse_args()
    folder = given.out or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    run, rows = folder / "run", list[dict[str, float]]()
    endless = [
        "--schedule.rounds",
        "null",
        "--schedule.max_minutes",
        f"{60 * given.hours + 60:g}",
        "--optimizer.decay",
        "1",
    ]
    processes = Processes(command(run, given.config or ["base"], more=endless), folder / "printed")
    begun = time.monotonic()
    with (folder / "samples.csv").open("w", newline="", buffering=1) as file:
        while time.monotonic() - begun < 3600 * given.hours and processes.main.poll() is None:
            time.sleep(_PERIOD)
            rows.append({"seconds": round(time.monotonic() - begun, 1)} | sample(processes, run))
            if len(rows) == 1:
                table = csv.DictWriter(file, rows[0])
                table.writeheader()
            table.writerow(rows[-1])
    ended = processes.main.poll() is not None
    processes.signal(signal.SIGKILL)
    time.sleep(_GRACE)
    orphans = len(processes.alive())
    result = {"hours": round(rows[-1]["seconds"] / 3600, 2), "samples": len(rows), "updates": rows[-1]["updates"]}
    print(json.dumps(result | summary(rows) | {"orphans": orphans, "ended_early": ended, "in": str(folder)}))
    sys.exit(1 if ended or orphans else 0)


if __name__ == "__main__":
    main()
