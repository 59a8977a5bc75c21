"""What each transition costs: ``python -m benchmarks.transitions [--rounds 40]``.

One update as training does it (losses of world model, actor and critic, backward, Adam) of the laptop size with
each file of ``configs/transition`` in turn, round after round, so that a busy machine slows all alike. ``ratio`` is the
median over the rounds of the time divided by that of ``single``, one member, in the same round. The last line is a
JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
from tempfile import TemporaryDirectory

from benchmarks.update import Stopwatch, Update, build, store  # pins the threads: nothing loads torch before

# isort: split
from worldmodel.training.configs import names

WARMUP = 3


def measure(rounds: int, folder: str) -> dict[str, list[float]]:
    """Seconds of an update in each round, by the name of the transition's config."""
    replay = store(folder)
    updates: dict[str, Update] = {}
    for name in names("transition"):
        agent, batch, length = build(name, compiled=False)
        updates[name.removeprefix("transition/")] = Update(agent.setup(), replay, batch, length)
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for i in range(WARMUP + rounds):
        for name, update in updates.items():
            spent = Stopwatch(update.agent.device, repeats=1)(update, warmup=0)
            if i >= WARMUP:
                seconds[name].append(spent)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        seconds = measure(given.rounds, folder)
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
        "rounds": given.rounds,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
