"""What each transition costs: ``python -m benchmarks.transitions [--size 12m] [--only independent] [--device cuda]``.

One update as training does it (losses of world model, actor and critic, backward, Adam) with each file of
``configs/transition`` in turn, round after round. ``ratio`` is the median over the rounds of the time divided by that
of ``single``, one member, in the same round. Times are those of the process on the processor, of all its threads: what
else a busy machine does is not in them. On a GPU they are by the clock, until it has done its work. The last line is a
JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.update import Update, make_agent, store  # pins the threads: nothing loads torch before

# isort: split
import torch

from worldmodel.training.configs import merged, names
from worldmodel.training.fabric import make_fabric

WARMUP = 2


def on_gpu() -> float:
    """The clock when a GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(
    size: str, choices: Mapping[str, list[str]], rounds: int, folder: str, *, device: str
) -> dict[str, list[float]]:
    """Seconds of an update in each round, by the name of what was chosen: configs or texts of them."""
    replay = store(folder)
    fabric = make_fabric(accelerator=device)
    clock: Callable[[], float] = on_gpu if fabric.device.type == "cuda" else time.process_time
    updates: dict[str, Update] = {}
    for name, configs in choices.items():
        config = merged(f"size/{size}", *configs)
        agent, data = make_agent(config), config["data"]
        updates[name] = Update(agent.setup(fabric), replay, data["batch"], data["length"])
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for i in range(WARMUP + rounds):
        for name, update in updates.items():
            start = clock()
            update()
            if i >= WARMUP:
                seconds[name].append(clock() - start)
    return seconds


def compare(
    size: str, choices: Mapping[str, list[str]], base: str, rounds: int, *, device: str = "cpu"
) -> dict[str, float]:
    """Measure and print, a line each and a JSON object, each choice's time divided by that of ``base``."""
    with TemporaryDirectory() as folder:
        seconds = measure(size, choices, rounds, folder, device=device)
    one = seconds.pop(base)
    ratio = {name: statistics.median(x / y for x, y in zip(taken, one, strict=True)) for name, taken in seconds.items()}
    print(f"{base:28s} {1000 * statistics.median(one):8.1f} ms")
    for name, taken in seconds.items():
        print(f"{name:28s} {1000 * statistics.median(taken):8.1f} ms   x {ratio[name]:.2f}")
    result = {
        "ratio": {name: round(value, 3) for name, value in ratio.items()},
        f"seconds_{base}": round(statistics.median(one), 4),
        "size": size,
        "rounds": rounds,
        "device": device,
    }
    print(json.dumps(result))
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = [name.removeprefix("transition/") for name in names("transition")]
    parser.add_argument("--size", default="laptop", help="a file in configs/size")
    parser.add_argument("--only", nargs="+", choices=every, default=every, help="beside single")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=Path, help="leave the ratios here too, as rows of the uncertainty study")
    given = parser.parse_args()
    choices = {name: [f"transition/{name}"] for name in dict.fromkeys(("single", *given.only))}
    ratio = compare(given.size, choices, "single", given.rounds, device=given.device)
    if given.rows is not None:
        same = {"task": given.size, "seed": 0, "measure": "update", "case": given.size, "metric": "cost_ratio"}
        rows = [same | {"transition": name, "horizon": None, "value": round(x, 3)} for name, x in ratio.items()]
        given.rows.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
