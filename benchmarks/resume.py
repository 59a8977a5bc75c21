"""Kill a training run again and again, resume it each time, and compare it with a run that nobody disturbed.

``python -m benchmarks.resume --kills 20 --config configs/base.yaml [--config ...]``. The last line is a JSON object;
``identical`` says that metrics and evaluations agree to the last digit, wall-clock columns apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLOCKS = {"updates_per_second", "seconds"}


def command(run: Path, configs: list[str]) -> list[str]:
    """The command line of a run; the same one resumes it."""
    return [sys.executable, "-m", "worldmodel", "fit", *(x for c in configs for x in ("--config", c)), "--run", str(run)]


def outcome(run: Path) -> dict[str, Any]:
    """Everything a run wrote down, without what a clock decides."""
    with (run / "metrics.csv").open(newline="") as file:
        metrics = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    return {"metrics": metrics, "evaluations": [{k: v for k, v in row.items() if k not in CLOCKS} for row in lines]}


def torture(run: Path, configs: list[str], kills: int, longest: float, seed: int) -> int:
    """Start the run, kill it after a random time, and again, then let it end; returns how many kills struck."""
    rng, struck = random.Random(seed), 0
    for _ in range(kills):
        process = subprocess.Popen(command(run, configs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(1.0, longest))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            struck += 1
    subprocess.run(command(run, configs), check=True, stdout=subprocess.DEVNULL)
    return struck


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="append", default=[], help="as for worldmodel fit")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=0.0, help="seconds a start may live; a third of the run if 0")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    configs = given.config or ["configs/base.yaml"]
    with tempfile.TemporaryDirectory() as folder:
        calm, troubled = Path(folder) / "calm", Path(folder) / "troubled"
        start = time.monotonic()
        subprocess.run(command(calm, configs), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        struck = torture(troubled, configs, given.kills, given.longest or seconds / 3, given.seed)
        left, right = outcome(calm), outcome(troubled)
    different = [
        f"{name}[{i}].{key}"
        for name in left
        for i, (a, b) in enumerate(zip(left[name], right[name], strict=False))
        for key in a
        if a[key] != b.get(key)
    ]
    same = left == right
    if different:
        print("first differences:", ", ".join(different[:5]))
    result = {"kills": struck, "seconds_undisturbed": round(seconds, 1), "rows": len(left["metrics"]), "identical": same}
    print(json.dumps(result))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
