"""Several ways of training, side by side: tasks x variants x seeds for the same minutes, on one core each.

Each is ``worldmodel fit`` under the suite's own job, so that what was cut goes on where it was. ``experiments.dyna``
and ``experiments.representation`` say which variants there are; the page is made of what is done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.runner import Job, exits, run_jobs
from experiments.runs import at_frames, at_minutes, fit, task_file
from experiments.suite.__main__ import check
from worldmodel.errors import UserError

DOCS = Path(__file__).parents[1] / "docs"
_ENDS = ("--schedule.rounds", "null", "--optimizer.decay", "1", "--schedule.evaluation_episodes", "5")
_EVERY = 15  # evaluations of a run


class Study(NamedTuple):
    """What is compared, and what its page says."""

    name: str  # of the command and the page
    title: str
    text: str
    variants: Mapping[str, tuple[str, ...]]  # what each is called, and its words on the command line
    tasks: tuple[str, ...]
    minutes: float


def jobs(study: Study, given: argparse.Namespace, out: Path) -> list[Job]:
    """A seed of everything before the next."""
    found = []
    length = ("--schedule.max_minutes", f"{given.minutes:g}", "--schedule.evaluate_minutes")
    for seed in given.seeds:
        for task in given.tasks:
            for variant in given.variants:
                row = out / task / f"{variant}_{seed}.json"
                extra = [*study.variants[variant], *_ENDS, *length, f"{given.minutes / _EVERY:.4g}", *given.extra]
                labels = json.dumps({"task": task, "variant": variant, "seed": seed, "limit": given.minutes})
                words = fit([task_file(task), *given.configs], seed, row.with_suffix(""), extra)
                command = ("-m", "experiments.suite.train", str(row.with_suffix("")), str(row), labels, *words)
                found.append(Job(f"{task} {variant} {seed}", command, row, row.with_suffix(".log")))
    return found


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task and variant: every seed's return at equal frames and equal minutes, and its updates a second.

    Frames and minutes are the most that all runs of the task came to.
    """
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        frames = min(row["curve"][-1][0] for row in of_task)
        minutes = min(row["curve"][-1][1] for row in of_task)
        for variant in dict.fromkeys(row["variant"] for row in of_task):
            same = [row for row in of_task if row["variant"] == variant]
            new = {"task": task, "variant": variant, "seeds": [row["seed"] for row in same]}
            new |= {"frames": frames, "minutes": minutes, "frames_seen": [row["frames"] for row in same]}
            new["return_at_equal_frames"] = [round(at_frames(row["curve"], frames), 1) for row in same]
            new["return_at_equal_minutes"] = [round(at_minutes(row["curve"], minutes), 1) for row in same]
            new["updates_per_second"] = [round(row["updates"] / (60 * row["curve"][-1][1]), 2) for row in same]
            found.append(new)
    return found


def write(study: Study, out: Path, folder: Path) -> None:
    """``NAME.md`` and ``NAME.json`` of all that is done in ``out``; a file NAME_notes.md beside them stands below.

    Raises:
        UserError: nothing is done yet.
    """
    order = list(study.variants)
    rows = [json.loads(path.read_text()) for path in sorted(out.glob("*/*_[0-9]*.json"))]
    rows = sorted(
        (row for row in rows if row["variant"] in order), key=lambda x: (x["task"], order.index(x["variant"]))
    )
    if not rows:
        raise UserError(f"nothing in {out} is done yet: python -m experiments.{study.name} runs it")
    table = compared(rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{study.name}.json").write_text(json.dumps({"table": table, "runs": rows}, indent=1) + "\n")
    lines = [f"# {study.title}", "", study.text, ""]
    lines += [
        "| task | variant | at equal frames | at equal minutes | frames seen | updates/s |",
        "|---|---|---|---|---|---|",
    ]
    for row in table:
        cells = [row["task"], row["variant"], f"{_cell(row['return_at_equal_frames'])} at {row['frames']:,}"]
        cells += [f"{_cell(row['return_at_equal_minutes'])} at {row['minutes']:.1f}"]
        cells += [", ".join(f"{x:,}" for x in row["frames_seen"]), _cell(row["updates_per_second"], ".1f")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Commands, each to be given `--run FOLDER`:", "", *[f"- `{row['command']}`" for row in rows], ""]
    notes = folder / f"{study.name}_notes.md"
    (folder / f"{study.name}.md").write_text("\n".join(lines) + (f"\n{notes.read_text()}" if notes.exists() else ""))


def _cell(values: list[float], form: str = ".0f") -> str:
    """``mean (first seed, second)``."""
    each = ", ".join(f"{value:{form}}" for value in values)
    return f"**{np.mean(values):{form}}** ({each})"


def parse(study: Study, words: list[str]) -> argparse.Namespace:
    about = f"{study.title}: python -m experiments.{study.name}, and with --page its page in docs/."
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{study.name}", description=about)
    parser.add_argument("--tasks", nargs="+", default=list(study.tasks), help="names of files in configs/task")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--variants", nargs="+", choices=list(study.variants), default=list(study.variants))
    parser.add_argument("--minutes", type=float, default=study.minutes, help="of training, each run")
    parser.add_argument("--configs", nargs="*", default=[], help="laid over base and the task, such as size/12m")
    parser.add_argument("--out", type=Path, default=Path("runs") / study.name, help="where the work is kept")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where --page writes")
    parser.add_argument("--address", help="of a Ray cluster that shares this folder; this machine alone without")
    parser.add_argument("--page", action="store_true", help="write the page of what is done, and run nothing")
    own = words[: words.index("--")] if "--" in words else words
    given = parser.parse_args(own)
    given.extra = words[len(own) + 1 :]  # for every run, after --
    return given


def study(which: Study, words: list[str]) -> int:
    """The command; gives how many runs failed.

    Raises:
        UserError: there is no such task or configuration, or no page can be made.
    """
    given = parse(which, words)
    check(given)
    out = given.out.resolve()
    if given.page:
        write(which, out, given.docs)
        print(f"wrote {given.docs / f'{which.name}.md'}")
        return 0
    return len(run_jobs(jobs(which, given, out), given.address))


def main(which: Study) -> None:
    exits(f"experiments.{which.name}", lambda: study(which, sys.argv[1:]))
