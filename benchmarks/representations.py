"""What each representation loss costs: ``python -m benchmarks.representations [--size 12m] [--rounds 40]``.

As ``benchmarks.transitions``, with each file of ``configs/representation`` in turn, with the decoder that stands beside
it and, where one is not needed, with none (``barlow, no decoder``). ``ratio`` is to the time of ``decoder`` in the same
round. The last line is a JSON object.
"""

from __future__ import annotations

import argparse

from benchmarks.transitions import compare  # pins the threads: nothing loads torch before

# isort: split
from worldmodel.training.configs import names

ALONE = "model: {world_model: {init_args: {decoder: null}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="laptop", help="a file in configs/size")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    choices: dict[str, list[str]] = {"decoder": ["representation/decoder"]}
    for name in names("representation"):
        short = name.removeprefix("representation/")
        if short != "decoder":
            choices |= {short: [name], f"{short}, no decoder": [name, ALONE]}
    compare(given.size, choices, "decoder", given.rounds)


if __name__ == "__main__":
    main()
