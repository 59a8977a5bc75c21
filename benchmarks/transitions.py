"""What each transition costs: ``python -m benchmarks.transitions [--size 12m] [--only independent] [--rounds 40]``.

One update as training does it (losses of world model, actor and critic, backward, Adam) with each file of
``configs/transition`` in turn, round after round. ``ratio`` is the median over the rounds of the time divided by that
of ``single``, one member, in the same round. Times are those of the process on the processor, of all its threads: what
else a busy machine does is not in them. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.update import Update, make_agent, store  # pins the threads: nothing loads torch before

# isort: split
from worldmodel.training.configs import merged, names

WARMUP = 2


def measure(size: str, transitions: Sequence[str], rounds: int, folder: str) -> dict[str, list[float]]:
    """Seconds on the processor of an update in each round, by the name of the transition's config."""
    replay = store(folder)
    updates: dict[str, Update] = {}
    for name in transitions:
        config = merged(f"size/{size}", f"transition/{name}")
        agent, data = make_agent(config), config["data"]
        updates[name] = Update(agent.setup(), replay, data["batch"], data["length"])
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for i in range(WARMUP + rounds):
        for name, update in updates.items():
            start = time.process_time()
            update()
            if i >= WARMUP:
                seconds[name].append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = [name.removeprefix("transition/") for name in names("transition")]
    parser.add_argument("--size", default="laptop", help="a file in configs/size")
    parser.add_argument("--only", nargs="+", choices=every, default=every, help="beside single")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--rows", type=Path, help="leave the ratios here too, as rows of the uncertainty study")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        seconds = measure(given.size, [*dict.fromkeys(("single", *given.only))], given.rounds, folder)
    single = seconds.pop("single")
    ratio = {
        name: statistics.median(x / one for x, one in zip(taken, single, strict=True))
        for name, taken in seconds.items()
    }
    print(f"{'single':20s} {1000 * statistics.median(single):8.1f} ms")
    for name, taken in seconds.items():
        print(f"{name:20s} {1000 * statistics.median(taken):8.1f} ms   x {ratio[name]:.2f}")
    result = {
        "ratio": {name: round(value, 3) for name, value in ratio.items()},
        "seconds_single": round(statistics.median(single), 4),
        "size": given.size,
        "rounds": given.rounds,
    }
    print(json.dumps(result))
    if given.rows is not None:
        same = {"task": given.size, "seed": 0, "measure": "update", "case": given.size, "metric": "cost_ratio"}
        rows = [same | {"transition": name, "horizon": None, "value": round(x, 3)} for name, x in ratio.items()]
        given.rows.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
