"""docs/encoders.json, .md and .png, from the files of a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.encoders.run import KINDS, TOYS, Job, words
from experiments.runs import at_frames

DOCS = Path(__file__).parents[2] / "docs"
NOTES, RESULTS = DOCS / "encoders_notes.md", DOCS / "encoders_results.md"
LATE = 0.25  # of the training time
Rows = list[dict[str, Any]]
Curve = list[list[float]]  # of frames, minutes of training, mean return

RETURNS = {
    "return_at_equal_frames": ("return at {frames:,.0f} frames", ".0f"),
    "return_end": ("return after {limit:g} minutes", ".0f"),
    "return_late": ("mean of the last quarter", ".0f"),
    "return_best": ("best evaluation", ".0f"),
}
PACE = {
    "frames": ("frames", ",.0f"),
    "updates": ("updates", ",.0f"),
    "updates_per_second": ("updates a second", ".1f"),
    "minutes": ("minutes trained", ".1f"),
}
ERRORS = {
    "reconstruction": ("square error of a pixel", ".2e"),
    "unexplained": ("share of the variance", ".3f"),
    "open_loop": ("error of a pixel, 15 steps dreamt", ".4f"),
    "reward_loss": ("reward loss", ".3f"),
}
HOW = """\
## The comparison

`{command}` trains each task with each encoder for {limit:g} minutes, evaluations apart, once for each seed; each
run has one core of a server processor and no GPU. All else is `configs/base.yaml`, the same for all: the decoder draws
32 x 32 pixels whatever the encoder saw, rates are constant, and updates and collecting keep their ratio, so that who
updates faster also sees more. A cell is the mean of the seeds, and in brackets each seed's value. Made by the same
command with `--page`.

- *Return at equal frames*: at the most frames that all runs of the task came to, on a straight line between the two
  evaluations around it. *After {limit:g} minutes*: the last evaluation. An evaluation is of 4 episodes, the last of 8.
- *Held-out frames*: of episodes that no run has seen, under random actions, the same for all; the model of the last
  checkpoint, most likely latents. *Square error*: of the posterior's reconstruction, pixels in [0, 1]; as a share of
  the pixels' variance, 1 is what the mean picture would do. *15 steps dreamt*: mean absolute error of a pixel, 15 steps
  after the last image. *Reward loss*: in nats, of the rewards that came with these frames."""


def gather(out: Path) -> Rows:
    """Every row of every run that is measured, and what only the whole tells; in the order of the encoders."""
    rows: Rows = []
    for path in sorted(out.glob("*/*_[0-9]*.json")):
        rows += json.loads(path.read_text())
    order = [*KINDS, *TOYS]
    rows.sort(key=lambda row: (row["task"], order.index(row["encoder"]), row["seed"]))  # stable: metrics stay in order
    return rows + compared(rows)


def compared(rows: Rows) -> Rows:
    """Rows that need the other runs of the task, or the whole curve."""
    found: Rows = []
    for task in unique(rows, "task"):
        curves = pick(rows, task=task, metric="curve")
        frames = min(row["value"][-1][0] for row in curves)
        for row in curves:
            values = {"equal_frames": frames, "return_at_equal_frames": at_frames(row["value"], frames)}
            values["return_late"] = late(row["value"])
            found += [row | {"metric": metric, "value": value} for metric, value in values.items()]
    return found


def late(curve: Curve) -> float:
    """Mean return of the evaluations in the last quarter of the training time."""
    end = curve[-1][1]
    return float(np.mean([y for _, minutes, y in curve if minutes >= (1 - LATE) * end]))


def unique(rows: Rows, key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def pick(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def cell(rows: Rows, form: str) -> str:
    """``mean (first seed, second)``, or a dash."""
    values = [row["value"] for row in rows]
    each = ", ".join(f"{value:{form}}" for value in values)
    return f"{np.mean(values):{form}} ({each})" if values else "-"


def table(rows: Rows, columns: dict[str, tuple[str, str]], **named: Any) -> str:
    """One line for each encoder of ``rows``, which are of one task."""
    head = ["encoder", *(title.format(**named) for title, _ in columns.values())]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for encoder in unique(rows, "encoder"):
        own = pick(rows, encoder=encoder)
        cells = [title_of(encoder), *(cell(pick(own, metric=m), form) for m, (_, form) in columns.items())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def title_of(encoder: str) -> str:
    return (KINDS | TOYS)[encoder][0]


def draw(rows: Rows, path: Path) -> None:
    """Returns over frames and over minutes: a row for each task, a line for each seed, a colour for each encoder."""
    from matplotlib.figure import Figure

    from worldmodel.insight.plots import COLOURS

    tasks, encoders = unique(rows, "task"), unique(rows, "encoder")
    figure = Figure(figsize=(10, 3.6 * len(tasks)), layout="constrained")
    for line, task in zip(figure.subplots(len(tasks), 2, squeeze=False), tasks, strict=True):
        for row in pick(rows, task=task, metric="curve"):
            colour = COLOURS[encoders.index(row["encoder"]) % len(COLOURS)]
            label = title_of(row["encoder"]) if row["seed"] == min(unique(rows, "seed")) else None
            frames, minutes, returns = zip(*row["value"], strict=True)
            for axes, x in zip(line, (frames, minutes), strict=True):
                axes.plot(x, returns, "o-", color=colour, label=label, markersize=3, linewidth=1.2)
        line[0].axvline(pick(rows, task=task, metric="equal_frames")[0]["value"], color="0.4", linestyle=":")
        line[0].set(title=task, xlabel="environment frames (dotted: all runs came so far)", ylabel="evaluation return")
        line[0].xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        line[1].set(title=task, xlabel="minutes of training", ylabel="evaluation return")
        for axes in line:
            axes.set_ylim(bottom=0)
            axes.grid(color="0.88", linewidth=0.8)
    handles = line[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=100)


def commands(rows: Rows, limit: float) -> str:
    """The run of each encoder, of the first task and seed."""
    given = [words(Job(rows[0]["task"], name, 0), limit, "RUN") for name in unique(rows, "encoder")]
    return "\n".join(f"- `worldmodel {' '.join(one)}`" for one in given)


def write(out: Path, folder: Path = DOCS) -> None:
    """encoders.json, .md and .png in ``folder``.

    Raises:
        SystemExit: no run of ``out`` is measured.
    """
    rows = gather(out)
    if not rows:
        raise SystemExit(f"no run under {out} is measured: python -m experiments.encoders --out {out}")
    limits = {row["value"] for row in pick(rows, metric="limit")}
    if len(limits) > 1:
        raise SystemExit(
            f"the runs under {out} trained for different times, {sorted(limits)} minutes: use one folder each"
        )
    (limit,) = limits
    (folder / "encoders.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    draw(rows, folder / "encoders.png")
    command = f"python -m experiments.encoders --minutes {limit:g}"
    parts = [NOTES.read_text().strip() if NOTES.exists() else "# Encoders", HOW.format(command=command, limit=limit)]
    parts += [RESULTS.read_text().strip()] if RESULTS.exists() else []
    parts += ["![returns over frames and over minutes](encoders.png)"]
    for task in unique(rows, "task"):
        own = pick(rows, task=task)
        frames = pick(own, metric="equal_frames")[0]["value"]
        parts += [f"### {task}", table(own, RETURNS, frames=frames, limit=limit), table(own, PACE)]
        parts += ["On held-out frames:", table(own, ERRORS)]
    parts += ["Commands, of the first task and seed; `PATH` is the file of lite0's weights:", commands(rows, limit)]
    (folder / "encoders.md").write_text("\n\n".join(parts) + "\n")
