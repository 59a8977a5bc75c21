"""docs/uncertainty_summary.json: medians over tasks and seeds of the rows of docs/uncertainty.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import yaml

from worldmodel.insight.shifts import SHIFTS
from worldmodel.training.configs import SHIPPED

Rows = list[dict[str, Any]]
STEPS = (1, 2, 5, 10, 15, 40)
LEVELS = (0.5, 0.8, 0.9, 0.95)


def default_kind() -> str:
    """What the study calls the transition that is shipped as the default: the file in transition/ that says so too."""

    def told(text: dict[str, Any]) -> Any:
        return text["model"]["world_model"]["init_args"]["transition"]

    shipped = told(yaml.safe_load((SHIPPED / "size" / "laptop.yaml").read_text()))
    for path in sorted((SHIPPED / "transition").glob("*.yaml")):
        if told(yaml.safe_load(path.read_text())) == shipped:
            return path.stem
    raise ValueError(f"no file of transition/ is the default {shipped}")


def with_default(rows: Rows) -> Rows:
    """The same with those of the shipped default once more, as transition ``default``."""
    rows = [row for row in rows if row["transition"] != "default"]
    kind = default_kind()
    return rows + [row | {"transition": "default"} for row in rows if row["transition"] == kind]


def median(rows: Rows, **wanted: Any) -> float | None:
    """Over tasks and seeds; None where nothing was measured."""
    values = [
        row["value"]
        for row in rows
        if row["value"] is not None and all(row[name] == value for name, value in wanted.items())
    ]
    return round(float(np.median(values)), 3) if values else None


def summary(rows: Rows) -> dict[str, Any]:
    """Each figure by transition; None is what was not measured."""
    kinds = list(dict.fromkeys(row["transition"] for row in rows))
    parts = {kind: [row for row in rows if row["transition"] == kind] for kind in kinds}

    def each(of: Callable[[Rows, str], Any]) -> dict[str, Any]:
        return {kind: of(part, kind) for kind, part in parts.items()}

    def by_step(part: Rows, steps: Iterable[int] = STEPS, **wanted: Any) -> dict[str, float | None]:
        return {str(step): median(part, horizon=step, **wanted) for step in steps}

    def unseen(part: Rows, kind: str, case: str) -> float | None:
        measure = "entropy" if kind.startswith("single") else "epistemic"
        return median(part, metric="auroc", measure=measure, case=case)

    def rank(what: str) -> Callable[[Rows, str], Any]:
        return lambda part, kind: {
            "expected": by_step(part, measure="expected", case=what, metric="rank_correlation"),
            "spread": by_step(part, measure=what, case="everything", metric=f"rank_correlation_{what}"),
        }

    return {
        "shipped_default": default_kind(),
        "novelty_hole": each(lambda part, _: median(part, metric="auroc", measure="novelty", case="hole_states")),
        "novelty_shifts": each(
            lambda part, _: {s: median(part, metric="auroc", measure="novelty", case=s) for s in SHIFTS}
        ),
        "auroc_hole": each(lambda part, kind: unseen(part, kind, "hole_states")),
        "auroc_shifts": each(lambda part, kind: {shift: unseen(part, kind, shift) for shift in SHIFTS}),
        "rank_pixels": each(rank("pixels")),
        "rank_reward": each(rank("reward")),
        "coverage": each(
            lambda part, _: {
                what: {
                    f"{level:g}": by_step(part, measure="expected", case=what, metric=f"coverage_{level:g}")
                    for level in LEVELS
                }
                for what in ("pixels", "reward", "return")
            }
        ),
        "trapped": each(lambda part, _: by_step(part, measure="expected", case="pixels", metric="trapped")),
        "exploitation_cut": each(lambda part, _: cut(part)),
        "exploitation_cut_unusual": each(lambda part, _: cut(part, "unusual")),
        "cost_ratio": each(lambda part, _: median(part, metric="cost_ratio")),
        "action_shuffle": each(lambda part, _: by_step(part, measure="action_shuffle", case="pixels", metric="ratio")),
    }


def cut(rows: Rows, manner: str = "cautious") -> float | None:
    """Median share by which caution in a manner makes the gap of imagined and real return smaller, if there is one."""
    imagined = games(rows, "imagined")
    shares = [
        1 - x[manner] / x["plain"]
        for who, x in games(rows, "gap").items()
        if manner in x and exploited(x["plain"], imagined[who]["plain"])
    ]
    return round(float(np.median(shares)), 3) if shares else None


def exploited(gap: float, imagined: float) -> bool:
    """Is a policy promised a twentieth too much? Less is no gap that caution could close."""
    return gap > 0.05 * imagined


def games(rows: Rows, metric: str) -> dict[tuple[str, str, int], dict[str, float]]:
    """What was measured of each task, player and seed, by manner."""
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in rows:
        if row["metric"] == metric:
            found.setdefault((row["task"], row["case"], row["seed"]), {})[row["measure"]] = row["value"]
    return found
