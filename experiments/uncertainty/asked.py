"""Commands that ask something of a run rather than of the study's own models, and leave rows beside theirs."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.uncertainty.measure import Row, save


def parser(about: str | None) -> argparse.ArgumentParser:
    """What all of them are given."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("run", type=Path)
    made.add_argument("--out", type=Path, default=Path("runs/study"), help="where the study is kept")
    made.add_argument("--transition", required=True, help="what the run's is called in the study")
    made.add_argument("--seed", type=int, default=0)
    return made


def keep(given: argparse.Namespace, stage: str, task: str, rows: list[Row]) -> None:
    """Write the rows where the study's page finds them."""
    folder = given.out / task
    folder.mkdir(parents=True, exist_ok=True)
    name = {"task": task, "transition": given.transition, "seed": given.seed}
    save(folder / f"{stage}_{given.transition}_{given.seed}.json", [name | x for x in rows])
