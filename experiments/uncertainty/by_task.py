"""The shipped default, a line for each task: what it knows of its own ignorance there.

``kind`` is the default's in the study, or ``TRAINED``: runs that ``worldmodel fit`` trained, not the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.uncertainty.rows import Rows, mean, pick, table
from experiments.uncertainty.summary import default_kind
from worldmodel.insight.shifts import SHIFTS

STEPS = (1, 5, 10, 15, 40)
TRAINED = "trained"  # what ``experiments.uncertainty.expected RUN --transition trained`` leaves
_FOUND = 0.95  # AUROC of what counts as told apart


def unseen_by_task(rows: Rows) -> str:
    """The hole of states, by what tells it, and how many shifts are told apart."""
    head = ["task", "epistemic", "surprise", "reconstruction", "novelty", "one member, softmax: entropy"]
    body = []
    for task in tasks(rows, default_kind()):
        own = pick(rows, task=task, transition=default_kind(), metric="auroc")
        hole = [mean(pick(own, case="hole_states", measure=name)) for name in head[1:5]]
        alone = pick(rows, task=task, transition="single_softmax", metric="auroc", measure="entropy")
        shifts = [_found(own, name) for name in ("epistemic", "novelty")]
        body.append([task, *hole, mean(pick(alone, case="hole_states")), *shifts])
    return table([*head, "shifts found by epistemic", "by novelty"], body)


def _found(own: Rows, measure: str) -> str:
    found, known = found_shifts(own, measure)
    return f"{found} of {known}" if known else "-"


def found_shifts(own: Rows, measure: str) -> tuple[int, int]:
    """How many shifts are told apart by a measure, and of how many that is known."""
    values = [mean_value(pick(own, case=shift, measure=measure)) for shift in SHIFTS]
    known = [x for x in values if x is not None]
    return sum(x >= _FOUND for x in known), len(known)


def expected_by_task(rows: Rows, kind: str) -> list[str]:
    """Both tables of what is expected of dreams."""
    return [ranks_by_task(rows, kind), trust_by_task(rows, kind)]


def ranks_by_task(rows: Rows, kind: str) -> str:
    """Rank correlation of the error that a calibration expects with the true one, by step."""
    cases = {"pixels": "pixels", "pixels, by the scene's motion": "by_motion", "reward": "reward"}
    body = []
    for task in tasks(rows, kind):
        own = pick(rows, task=task, transition=kind, measure="expected", metric="rank_correlation")
        body.append([task, *(_by_step(own, STEPS, case=case) for case in cases.values())])
    return table(["task", *(f"{name}: {_slashed(STEPS)}" for name in cases)], body)


def trust_by_task(rows: Rows, kind: str) -> str:
    """The trap of drift, the band of 90%, where trust ends, and whether actions count."""
    told = (1, 5, 15, 40)
    head = ["task", "trapped at 40: pixels, reward", f"90% covers: {_slashed(told)}", "trust holds", "its steps"]
    body = []
    for task in tasks(rows, kind):
        own = pick(rows, task=task, transition=kind)
        expected = pick(own, measure="expected")
        trapped = [mean(pick(expected, case=x, metric="trapped", horizon=40)) for x in ("pixels", "reward")]
        cover = _by_step(expected, told, case="pixels", metric="coverage_0.9")
        ends = {name: pick(own, metric="trust_horizon", case=name) for name in ("better", "trusted", "true")}
        shuffled = mean(pick(own, measure="action_shuffle", case="pixels", horizon=5))
        trust = [mean(ends["better"]), _steps(ends["trusted"]), _steps(ends["true"])]
        body.append([task, _slashed(trapped), cover, *trust, shuffled])
    return table([*head, "true steps", "error with right over shuffled actions, at 5"], body)


def _slashed(parts: Sequence[Any]) -> str:
    return " / ".join(map(str, parts))


def tasks(rows: Rows, kind: str) -> list[str]:
    """Of which a kind has rows, in the order of the rows."""
    own = [row for row in pick(rows, transition=kind) if row["metric"] in ("auroc", "trust_horizon")]
    return list(dict.fromkeys(row["task"] for row in own))


def mean_value(rows: Rows) -> float | None:
    values = [row["value"] for row in rows if row["value"] is not None]
    return sum(values) / len(values) if values else None


def _by_step(rows: Rows, steps: Sequence[int], **wanted: Any) -> str:
    return _slashed([mean(pick(rows, **wanted, horizon=step)) for step in steps])


def _steps(rows: Rows) -> str:
    value = mean_value(rows)
    return "-" if value is None else f"{value:.1f}"
