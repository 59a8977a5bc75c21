"""Rows of the study, chosen and laid out."""

from __future__ import annotations

from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def pick(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def mean(rows: Rows) -> str:
    """The seeds' mean, or a dash; what is not a number (a member alone has no spread) is a dash too."""
    values = [row["value"] for row in rows]
    known = values and all(x is not None and np.isfinite(x) for x in values)
    return f"{np.mean(values):.2f}" if known else "-"


def table(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(line) + " |" for line in body])
