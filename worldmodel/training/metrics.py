"""What training measures: averages, the table of a run, and the line that a person reads."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldmodel.training.checkpoint import write_atomically


class Averages:
    """Means of metrics since they were last cleared."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    @torch.no_grad()
    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Take in the metrics () of an update; none where it was skipped."""
        self._count += bool(metrics)
        for name, value in metrics.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def means(self) -> dict[str, float]:
        """Mean of every metric so far."""
        return {name: float(value) / self._count for name, value in self._sums.items()}

    def clear(self) -> None:
        """Begin anew."""
        self._sums, self._count = {}, 0

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: x.cpu() for name, x in self._sums.items()}, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from saved sums, on the device where updates are made."""
        self._sums, self._count = {name: x.to(device) for name, x in state["sums"].items()}, state["count"]


class MetricsTable:
    """``metrics.csv`` in the run folder, which a resumed run continues.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []

    def add(self, metrics: Mapping[str, float], updates: int) -> None:
        """Append a row."""
        row = {"updates": updates, **metrics}
        if not set(row) <= set(self._columns):
            self._columns += [name for name in row if name not in self._columns]
            self._rewrite([*self.read(), row])
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def forget_after(self, updates: int) -> None:
        """Keep the rows up to a checkpoint only."""
        rows = self.read()
        if not rows and self.path.exists() and self.path.stat().st_size:
            aside = self.path.with_suffix(".damaged.csv")
            warnings.warn(f"{self.path} holds no row of metrics: it is kept as {aside.name}", stacklevel=2)
            self.path.replace(aside)
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        if kept := [row for row in rows if int(row["updates"]) <= updates]:
            self._rewrite(kept)
        else:
            self.path.unlink(missing_ok=True)
            self._columns = []

    def read(self) -> list[dict[str, Any]]:
        """All whole rows, as text."""
        if not self.path.is_file():
            return []
        text = self.path.read_bytes().decode(errors="replace").replace("\0", "\ufffd")
        try:
            # a line cut by a kill lacks its last fields, or its first is no number
            return [row for row in csv.DictReader(io.StringIO(text, newline="")) if _is_whole(row)]
        except csv.Error:  # a field of many kB
            return []

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        self._columns = list(dict.fromkeys([*self._columns, *(name for row in rows for name in row)]))

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns, restval="")
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path, write)


def _is_whole(row: Mapping[Any, Any]) -> bool:
    updates = row.get("updates")
    return None not in row and None not in row.values() and re.fullmatch("[0-9]{1,12}", updates or "") is not None


def line(metrics: Mapping[str, float], updates: int, left: float | None) -> str:
    """What is printed now and then; ``left`` is in seconds."""
    parts = [
        f"frames {int(metrics['frames']):>8,}",
        f"updates {updates:>6,}",
        f"return {metrics['train/return']:7.1f}" if "train/return" in metrics else "return       -",
        f"eval {metrics['eval/return']:7.1f}" if "eval/return" in metrics else "eval       -",
        f"loss {metrics.get('loss/total', float('nan')):9.2f}",
        f"{metrics['updates_per_second']:5.1f} updates/s" if "updates_per_second" in metrics else "    - updates/s",
        "" if left is None else f"left {duration(left)}",
    ]
    skipped = f"   skipped {int(metrics['skipped'])} (loss not finite)" if metrics["skipped"] else ""
    return "   ".join(parts) + skipped


def duration(seconds: float) -> str:
    """Such as 3m52s."""
    return f"{int(seconds // 60):d}m{int(seconds % 60):02d}s"
