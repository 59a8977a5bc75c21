"""The results page, made from run folders.

``python -m experiments.results add RUN --command "worldmodel fit ..." --cores 1 --commit HASH`` reads a run into
``docs/results.json``, ``... random TASK`` the random policy's returns; ``python -m experiments.results page`` writes
``docs/results.md`` and its curves from that file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments import runs

DOCS = Path(__file__).parent.parent / "docs"
DATA, PAGE, CURVES = DOCS / "results.json", DOCS / "results.md", DOCS / "curves.png"
NOTES = DOCS / "results_notes.md"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")  # told apart by the colour-blind (Okabe and Ito)


def row(run: Path, preset: str, command: str, cores: int, commit: str) -> dict[str, Any]:
    """One run: its last evaluation is the result, whatever came before."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    labels = {"task": config["data"]["task"], "preset": preset, "seed": config["seed"]}
    return labels | runs.row(run) | {"cores": cores, "command": command, "commit": commit}


def chance(task: str, action_repeat: int, episodes: int = 10) -> None:
    """Put the random policy's row into the data."""
    import torch

    from worldmodel.experience.collector import RandomPolicy, run_episodes
    from worldmodel.experience.vector import InProcess

    torch.manual_seed(0)
    environments = InProcess(task, 1, 0, action_repeat=action_repeat)
    returns = np.array([x.return_ for x in run_episodes(environments, RandomPolicy(environments.action), episodes)])
    environments.close()
    new = {"task": task, "preset": "laptop", "policy": "random", "seed": 0, "frames": 0, "updates": 0, "minutes": 0.0}
    new |= {"return_mean": round(float(returns.mean()), 3), "return_std": round(float(returns.std()), 3)}
    new |= {"episodes": episodes, "cores": 1, "commit": "", "curve": []}
    new["command"] = f"python -m experiments.results random {task} --action-repeat {action_repeat}"
    put(new)


def put(new: dict[str, Any]) -> None:
    """Into the data, in the place of the same task, preset, policy, seed, cores and updates."""
    rows = json.loads(DATA.read_text()) if DATA.exists() else []
    same = ("task", "preset", "policy", "seed", "cores", "updates")
    rows = [x for x in rows if any(x[k] != new[k] for k in same)] + [new]
    rows.sort(key=lambda x: (x["task"], x["preset"], x["policy"], x["seed"]))
    DATA.write_text(json.dumps(rows, indent=1) + "\n")
    print(
        f"{new['task']} seed {new['seed']}: {new['return_mean']} +- {new['return_std']} after {new['minutes']} minutes"
    )


def draw(rows: list[dict[str, Any]]) -> None:
    """Learning curves, a panel for each task, a line for each seed, over minutes of training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [x for x in rows if x["curve"]]
    tasks = list(dict.fromkeys(x["task"] for x in rows))
    figure, axes = plt.subplots(1, len(tasks), figsize=(4 * len(tasks), 3.2), squeeze=False, layout="constrained")
    for axis, task in zip(axes[0], tasks, strict=True):
        for x, colour in zip([x for x in rows if x["task"] == task], COLOURS, strict=False):
            _, minutes, returns = zip(*x["curve"], strict=True)
            axis.plot(
                minutes,
                returns,
                marker="o",
                markersize=3,
                color=colour,
                label=f"seed {x['seed']}, {x['updates']:,} updates",
            )
        axis.set(title=task, xlabel="minutes of training", ylabel="evaluation return", ylim=(0, 1020))
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    figure.savefig(CURVES, dpi=110)


def page() -> None:
    """Write the page from the data, and from the notes that a person keeps beside it."""
    rows = json.loads(DATA.read_text())
    draw(rows)
    lines = [
        "# Results",
        "",
        "Made by `python -m experiments.results page` from `docs/results.json`; what was tried is in the notes below.",
        "Each return is the mean over the episodes of the run's last evaluation, with the most likely action; minutes",
        "are those of training on as many cores as the row says, evaluation apart; frames count the action repeat.",
        "",
        "| task | preset | policy | seed | frames | updates | cores | minutes | return | episodes | commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for x in rows:
        score = f"{x['return_mean']:.0f} ± {x['return_std']:.0f}"
        cells = [x["task"], x["preset"], x["policy"], x["seed"], f"{x['frames']:,}", f"{x['updates']:,}"]
        cells += [x["cores"], x["minutes"], score, x["episodes"], f"`{x['commit']}`" if x["commit"] else ""]
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    lines += [
        "",
        "![learning curves](curves.png)",
        "",
        "Commands, in the order of the table, as they are spelt at its commits:",
        "",
    ]
    lines += [f"- `{x['command']}`" for x in rows]
    PAGE.write_text("\n".join(lines) + "\n\n" + (NOTES.read_text() if NOTES.exists() else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="verb", required=True)
    adding = commands.add_parser("add")
    adding.add_argument("run", type=Path)
    adding.add_argument("--preset", default="laptop")
    adding.add_argument("--command", required=True)
    adding.add_argument("--cores", type=int, required=True)
    adding.add_argument("--commit", required=True, help="what the run was started from")
    random = commands.add_parser("random")
    random.add_argument("task")
    random.add_argument("--action-repeat", type=int, default=8)
    commands.add_parser("page")
    given = parser.parse_args()
    if given.verb == "add":
        put(row(given.run, given.preset, given.command, given.cores, given.commit))
    elif given.verb == "random":
        chance(given.task, given.action_repeat)
    else:
        page()


if __name__ == "__main__":
    main()
